/* Processes that take the same locks by making names at several places: on mounts
 * over one backing directory, and in that directory itself; and check by themselves
 * that never two are inside.
 *
 *	namers PROCESSES SECONDS BACKING MOUNT...
 *
 * The names in the first place, the backing directory, are made with the same calls, but
 * for renameat2(2) where the filesystem does not know RENAME_NOREPLACE.
 * Those on mounts have a body, which must be there for everybody as long as the lock
 * is held. It prints
 *
 *	entries N outside N refused N
 *
 * in one line: how often somebody was inside, of these through the backing directory,
 * and how often somebody was refused. The first thing that is not as it must be ends
 * the program with 1 and a message. */

#include "take.h"
#include "children.h"
#include "must.h"
#include "atplaces.h"
#include <sys/stat.h>

enum { LOCKS = 3 };

enum way { EXCL, LINK, SYMLINK, MKDIR, RENAME, WAYS };

static struct {
	atomic_long entries, outside, refused;
	atomic_int inside[LOCKS];
} *shared;

/* put makes a file with the process's number in it. */
static void put(const char *path)
{
	char text[32];
	int n = snprintf(text, sizeof text, "%d\n", me), fd = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644), "open", path);

	if (must(write(fd, text, n), "write", path) != n)
		wrong("write of %s: less than all", path);
	must(close(fd), "close", path);
}

/* make makes a name, and returns 0, or -1 if it was refused. */
static int make(enum way way, const char *path, const char *tmp)
{
	int fd, result, err;

	switch (way) {
	case EXCL:
		fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd >= 0)
			must(close(fd), "close", path);
		return fd < 0 ? -1 : 0;
	case SYMLINK:
		return symlink("text", path);
	case MKDIR:
		return mkdir(path, 0755);
	default:
		break;
	}
	put(tmp);
	result = way == LINK ? link(tmp, path) : renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_NOREPLACE);
	err = errno;
	if (way == LINK || result < 0)
		must(unlink(tmp), "unlink", tmp);
	errno = err;
	return result;
}

/* look fails unless the name is there at a place as what it was made. */
static void look(enum way way, const char *place, int lock)
{
	mode_t want = way == MKDIR ? S_IFDIR : way == SYMLINK ? S_IFLNK : S_IFREG;
	struct stat st;
	char path[4096], text[32] = "", mine[32];
	int fd;

	snprintf(path, sizeof path, "%s/lock%d", place, lock);
	must(lstat(path, &st), "lstat", path);
	if ((st.st_mode & S_IFMT) != want)
		wrong("%s has type %o, want %o", path, st.st_mode & S_IFMT, want);
	if (way != LINK && way != RENAME)
		return;
	fd = must(open(path, O_RDONLY | O_CLOEXEC), "open", path);
	must(read(fd, text, sizeof text - 1), "read", path);
	must(close(fd), "close", path);
	snprintf(mine, sizeof mine, "%d\n", me);
	if (strcmp(text, mine))
		wrong("%s says \"%s\", want \"%s\"", path, text, mine);
}

static void round_of(void)
{
	int place = rand() % how_many, lock = rand() % LOCKS, other, mine = me + 1;
	enum way way = rand() % WAYS;
	char path[4096], tmp[4096];

	snprintf(path, sizeof path, "%s/lock%d", places[place], lock);
	snprintf(tmp, sizeof tmp, "%s/tmp%d", places[place], me);
	if (make(way, path, tmp) < 0) {
		if (errno == EINVAL && way == RENAME && !place)
			return; /* as on GlusterFS */
		if (errno != EEXIST)
			wrong("way %d to %s: %s", way, path, strerror(errno));
		atomic_fetch_add(&shared->refused, 1);
		return;
	}
	other = atomic_exchange(&shared->inside[lock], mine);
	if (other)
		wrong("way %d to %s: inside with process %d", way, path, other - 1);
	atomic_fetch_add(place ? &shared->entries : &shared->outside, 1);
	for (int i = 0; i < how_many; i++)
		look(way, places[i], lock);
	if (rand() % 4 == 0)
		usleep(rand() % 2000);
	other = mine;
	if (!atomic_compare_exchange_strong(&shared->inside[lock], &other, 0))
		wrong("way %d to %s: process %d was inside too", way, path, other - 1);
	must(way == MKDIR ? rmdir(path) : unlink(path), "removal", path);
}

int main(int argc, char **argv)
{
	int status;

	shared = share(sizeof *shared);
	status = at_places(argc, argv, round_of);
	if (status)
		return status;
	printf("entries %ld outside %ld refused %ld\n", shared->entries, shared->outside, shared->refused);
	return 0;
}
