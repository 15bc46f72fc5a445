/* The fcntl takers. */

#include "take.h"

/* take_range takes a byte range of path with fcntl command cmd_try or
 * cmd_wait, as the arguments say:
 *
 *	PROGRAM try|wait read|write PATH [START LENGTH] */
static int take_range(int argc, char **argv, int cmd_try, int cmd_wait)
{
	struct flock lk = { .l_whence = SEEK_SET };
	int fd, cmd;

	if (argc != 4 && argc != 6) {
		fprintf(stderr, "usage: %s try|wait read|write PATH [START LENGTH]\n", argv[0]);
		return 2;
	}
	cmd = strcmp(argv[1], "wait") ? cmd_try : cmd_wait;
	lk.l_type = strcmp(argv[2], "read") ? F_WRLCK : F_RDLCK;
	if (argc == 6) {
		lk.l_start = atoll(argv[4]);
		lk.l_len = atoll(argv[5]);
	}
	fd = open(argv[3], O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(argv[3]);
	while (fcntl(fd, cmd, &lk) < 0) {
		if (errno == EAGAIN || errno == EACCES)
			return 1;
		if (errno != EINTR)
			fail("fcntl");
	}
	puts("held");
	fflush(stdout);
	await_end_of_input();
	return 0;
}
