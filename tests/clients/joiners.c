/* Processes that take the same locks by making a name on mounts over one backing
 * directory, where names hold; by locking an open file of a name that another has made,
 * there or in the backing directory; and check by themselves that never two are inside.
 *
 *	joiners PROCESSES SECONDS BACKING MOUNT...
 *
 * It prints
 *
 *	entries N joined N outside N refused N
 *
 * in one line: how often somebody was inside by making the name, by locking an open file,
 * and by that in the backing directory, and how often somebody was refused. The first
 * thing that is not as it must be ends the program with 1 and a message. */

#include "take.h"
#include "children.h"
#include "must.h"
#include "atplaces.h"
#include <sys/file.h>
#include <sys/stat.h>

enum { LOCKS = 2 };

enum way { FLOCK, POSIX, OFD, WAYS };

static struct {
	atomic_long entries, joined, outside, refused;
	atomic_int inside[LOCKS];
} *shared;

static void be_inside(int lock, const char *path, atomic_long *count)
{
	int mine = me + 1, other = atomic_exchange(&shared->inside[lock], mine);

	if (other)
		wrong("%s: inside with process %d", path, other - 1);
	atomic_fetch_add(count, 1);
	if (rand() % 2)
		usleep(rand() % 2000);
	other = mine;
	if (!atomic_compare_exchange_strong(&shared->inside[lock], &other, 0))
		wrong("%s: process %d was inside too", path, other - 1);
}

static void by_name(int lock, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

	if (fd < 0 && errno == EEXIST) {
		atomic_fetch_add(&shared->refused, 1);
		return;
	}
	must(fd, "open", path);
	be_inside(lock, path, &shared->entries);
	must(unlink(path), "unlink", path);
	must(close(fd), "close", path);
}

static int take_file(int fd, enum way way, int wait)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	switch (way) {
	case FLOCK:
		return flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
	case POSIX:
		return fcntl(fd, wait ? F_SETLKW : F_SETLK, &lk);
	default:
		return fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lk);
	}
}

/* by_file locks what is there, for which somebody must have it. */
static void by_file(int lock, const char *path, int outside)
{
	enum way way = outside ? OFD : rand() % WAYS;
	int wait = rand() % 2, fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat opened, there;

	if (fd < 0 && errno == ENOENT)
		return;
	must(fd, "open", path);
	if (take_file(fd, way, wait) < 0) {
		if (wait || errno != EAGAIN)
			wrong("lock %s by way %d: %s", path, way, strerror(errno));
		atomic_fetch_add(&shared->refused, 1);
	} else if (!outside) {
		be_inside(lock, path, &shared->joined);
	} else {
		must(fstat(fd, &opened), "fstat", path);
		if (stat(path, &there) == 0 && there.st_ino == opened.st_ino)
			be_inside(lock, path, &shared->outside);
	}
	must(close(fd), "close", path);
}

static void round_of(void)
{
	int place = rand() % how_many, lock = rand() % LOCKS;
	char path[4096];

	snprintf(path, sizeof path, "%s/lock%d", places[place], lock);
	if (place && rand() % 2)
		by_name(lock, path);
	else
		by_file(lock, path, !place);
}

int main(int argc, char **argv)
{
	int status;

	shared = share(sizeof *shared);
	status = at_places(argc, argv, round_of);
	if (status)
		return status;
	printf("entries %ld joined %ld outside %ld refused %ld\n", shared->entries, shared->joined, shared->outside,
	       shared->refused);
	return 0;
}
