/* dpkg's lock (file_lock in lib/dpkg/file.c): the file is opened to be
 * truncated, before it is known whether somebody holds it, and stays.
 *
 *	open("lock", O_RDWR|O_CREAT|O_TRUNC, 0660)
 *	fcntl(F_SETFD, FD_CLOEXEC)
 *	fcntl(F_SETLK, {F_WRLCK, SEEK_SET, 0, 0})
 *	fcntl(F_GETLK, ...)    if that was refused, to name the holder
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
	return 0;
}
