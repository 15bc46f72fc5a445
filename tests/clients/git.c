/* git's index.lock (lockfile.c): made with O_EXCL, written, closed while the
 * lock is held, renamed onto the index. git 2.39 under strace:
 *
 *	openat(AT_FDCWD, "idx.lock", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0666) = 3
 *	newfstatat(AT_FDCWD, "idx.lock", {st_size=96}, 0) = 0
 *	rename("idx.lock", "idx") = 0
 *
 * PATH is the lock, PATH.index what it protects. */

#include "protocol.h"

int main(int argc, char **argv)
{
	static const char index[] = "DIRC, and what an index has in it\n";
	const char *path = the_path(argc, argv);
	struct stat st;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

	if (fd < 0 && errno == EEXIST)
		return REFUSED;
	if (fd < 0)
		fail("open");
	if (write(fd, index, sizeof index - 1) != sizeof index - 1)
		fail("write");
	if (close(fd) < 0)
		fail("close");
	hold();
	if (stat(path, &st) < 0)
		fail("stat");
	if (st.st_size != sizeof index - 1) {
		fprintf(stderr, "the lock file has %lld bytes\n", (long long)st.st_size);
		return 2;
	}
	if (rename(path, beside(path, ".index")) < 0)
		fail("rename");
	return 0;
}
