/* Processes that take the same locks at several places: on mounts over one backing
 * directory, by every idiom, and in that directory itself, by fcntl; and check by
 * themselves that never two are inside.
 *
 *	places PROCESSES SECONDS BACKING MOUNT...
 *
 * It prints
 *
 *	entries N outside N refused N waited N
 *
 * in one line: how often somebody was inside, of these through the backing
 * directory; was refused; and waited. The first thing that is not as it must be
 * ends the program with 1 and a message. */

#include "take.h"
#include "children.h"
#include "must.h"
#include "atplaces.h"

enum { LOCKS = 4, CELLS = 4 };

enum way { EXCL, FLOCK, POSIX, OFD, WAYS };

static struct {
	atomic_long entries, outside, refused, waited;
	struct {
		atomic_int writer, readers;
	} cells[LOCKS][CELLS];
} *shared;

static int take(int fd, enum way way, int write, int wait, struct flock *lk)
{
	lk->l_type = write ? F_WRLCK : F_RDLCK;
	switch (way) {
	case EXCL:
		return 0;
	case FLOCK:
		return flock(fd, (write ? LOCK_EX : LOCK_SH) | (wait ? 0 : LOCK_NB));
	case POSIX:
		return fcntl(fd, wait ? F_SETLKW : F_SETLK, lk);
	default:
		return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, lk);
	}
}

/* open_at makes the file if it is missing. On GlusterFS, who makes one while another
 * client does may be told that it is there, also without O_EXCL: tries is how often. */
static int open_at(const char *path, int flag, int tries)
{
	int fd;

	do
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | flag, 0666);
	while (fd < 0 && errno == EEXIST && !flag && --tries > 0);
	return fd;
}

static void round_of(void)
{
	int place = rand() % how_many, lock = rand() % LOCKS, write = rand() % 3, wait = rand() % 2;
	enum way way = place == 0 ? POSIX + rand() % 2 : rand() % WAYS;
	int first = 0, last = CELLS - 1, fd, other, mine = me + 1;
	struct flock lk = { .l_whence = SEEK_SET };
	char path[4096];

	if (way == EXCL)
		write = 1;
	if (way == POSIX || way == OFD) {
		first = rand() % CELLS;
		last = first + rand() % (CELLS - first);
		lk.l_start = first;
		lk.l_len = last == CELLS - 1 ? 0 : last - first + 1;
	}
	snprintf(path, sizeof path, "%s/lock%d", places[place], lock);
	fd = open_at(path, way == EXCL ? O_EXCL : 0, place == 0 ? 5 : 1);
	if (fd < 0 && way == EXCL && errno == EEXIST) {
		atomic_fetch_add(&shared->refused, 1);
		return;
	}
	must(fd, "open", path);
	if (take(fd, way, write, wait, &lk) < 0) {
		if (wait || errno != EAGAIN)
			wrong("lock %s: %s", path, strerror(errno));
		atomic_fetch_add(&shared->refused, 1);
		must(close(fd), "close", path);
		return;
	}
	if (wait)
		atomic_fetch_add(&shared->waited, 1);
	for (int i = first; i <= last; i++) {
		if (write) {
			other = atomic_exchange(&shared->cells[lock][i].writer, mine);
			if (other || atomic_load(&shared->cells[lock][i].readers))
				wrong("%s byte %d: inside to write with writer %d and %d readers", path, i, other - 1,
				      shared->cells[lock][i].readers);
		} else {
			atomic_fetch_add(&shared->cells[lock][i].readers, 1);
			other = atomic_load(&shared->cells[lock][i].writer);
			if (other)
				wrong("%s byte %d: inside to read with writer %d", path, i, other - 1);
		}
	}
	atomic_fetch_add(place ? &shared->entries : &shared->outside, 1);
	if (rand() % 4 == 0)
		usleep(rand() % 2000);
	for (int i = first; i <= last; i++) {
		if (!write) {
			atomic_fetch_sub(&shared->cells[lock][i].readers, 1);
			continue;
		}
		other = mine;
		if (!atomic_compare_exchange_strong(&shared->cells[lock][i].writer, &other, 0))
			wrong("%s byte %d: writer %d was inside too", path, i, other - 1);
	}
	must(close(fd), "close", path);
}

int main(int argc, char **argv)
{
	int status;

	shared = share(sizeof *shared);
	status = at_places(argc, argv, round_of);
	if (status)
		return status;
	printf("entries %ld outside %ld refused %ld waited %ld\n", shared->entries, shared->outside, shared->refused,
	       shared->waited);
	return 0;
}
