/* dpkg's lock (file_lock in lib/dpkg/file.c): the file is opened to be
 * truncated, before it is known whether somebody holds it, and stays.
 * dpkg 1.21 under strace:
 *
 *	openat(AT_FDCWD, "lock", O_RDWR|O_CREAT|O_TRUNC, 0660) = 4
 *	fcntl(4, F_SETFD, FD_CLOEXEC) = 0
 *	fcntl(4, F_SETLK, {F_WRLCK, SEEK_SET, 0, 0}) = -1 EAGAIN
 *	fcntl(4, F_GETLK, {F_WRLCK, SEEK_SET, 0, 0, l_pid=27860}) = 0
 *
 * or, if nobody has it, in the end
 *
 *	fcntl(4, F_SETLK, {F_UNLCK, SEEK_SET, 0, 0}) = 0
 */

#include "protocol.h"

int main(int argc, char **argv)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(the_path(argc, argv), O_RDWR | O_CREAT | O_TRUNC, 0660);

	if (fd < 0)
		fail("open");
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	if (fcntl(fd, F_SETLK, &lk) < 0) {
		if (errno != EACCES && errno != EAGAIN)
			fail("F_SETLK");
		if (fcntl(fd, F_GETLK, &lk) < 0)
			fail("F_GETLK");
		fprintf(stderr, "held by process %d\n", (int)lk.l_pid);
		return REFUSED;
	}
	hold();
	lk.l_type = F_UNLCK;
	if (fcntl(fd, F_SETLK, &lk) < 0)
		fail("F_UNLCK");
	return 0;
}
