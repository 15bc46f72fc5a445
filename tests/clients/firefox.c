/* Firefox's lock of a profile (nsProfileLock.cpp): a POSIX lock on the file
 * .parentlock, then a symlink "lock" for versions that know only that, with
 * the text "ADDRESS:+PID"; the plus says that its maker had the POSIX lock. Who
 * has the POSIX lock removes such a symlink as stale. After the source, not from a
 * trace.
 *
 *	open(".parentlock", O_WRONLY|O_CREAT|O_TRUNC, 0666)
 *	fcntl(F_GETLK), fcntl(F_SETLK, F_WRLCK, whole file)
 *	symlink("127.0.0.1:+4711", "lock")
 *
 *	firefox parentlock|symlink PATH
 *
 * PATH is the one or the other; the other one is beside it. */

#include "protocol.h"

static int lock_file(const char *path)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET }, probe = lk;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (fd < 0)
		fail(path);
	if (fcntl(fd, F_GETLK, &probe) < 0)
		fail("F_GETLK");
	if (fcntl(fd, F_SETLK, &lk) < 0) {
		if (errno == EAGAIN || errno == EACCES)
			exit(REFUSED);
		fail("F_SETLK");
	}
	return fd;
}

static void make_symlink(const char *path)
{
	char mine[64], text[400], *colon;

	snprintf(mine, sizeof mine, "127.0.0.1:+%d", (int)getpid());
	while (symlink(mine, path) < 0) {
		if (errno != EEXIST)
			fail("symlink");
		if (!read_link(path, text, sizeof text) || !(colon = strchr(text, ':')))
			exit(REFUSED);
		*colon++ = 0;
		if (strcmp(text, "127.0.0.1"))
			exit(REFUSED);
		if (*colon != '+' && !is_gone(atol(colon)))
			exit(REFUSED);
		if (unlink(path) < 0)
			fail("unlink");
	}
}

int main(int argc, char **argv)
{
	const char *file, *link;

	if (argc != 3) {
		fprintf(stderr, "usage: %s parentlock|symlink PATH\n", argv[0]);
		return 2;
	}
	if (strcmp(argv[1], "symlink")) {
		file = argv[2];
		link = beside(argv[2], ".lock");
	} else {
		file = beside(argv[2], ".parentlock");
		link = argv[2];
	}
	lock_file(file);
	make_symlink(link);
	hold();
	if (unlink(link) < 0)
		fail("unlink");
	return 0;
}
