/* Takes a lock and forks.
 *
 *	forkhold excl|flock|posix|ofd close|keep|unlock PATH
 *
 * The child closes the descriptor that it inherited, keeps it, or, for flock
 * and OFD locks, gives the lock back through it. Then the parent says "held
 * CHILDPID", and both stay until standard input ends. */

#include "take.h"
#include <sys/wait.h>

static int fcntl_lock(int fd, int cmd, int type)
{
	struct flock lk = { .l_type = type, .l_whence = SEEK_SET };

	return fcntl(fd, cmd, &lk);
}

int main(int argc, char **argv)
{
	const char *kind, *what;
	int fd, done[2];
	char c = 0;
	pid_t child;

	if (argc != 4) {
		fprintf(stderr, "usage: forkhold excl|flock|posix|ofd close|keep|unlock PATH\n");
		return 2;
	}
	kind = argv[1];
	what = argv[2];
	fd = open(argv[3], O_RDWR | O_CREAT | (strcmp(kind, "excl") ? 0 : O_EXCL), 0666);
	if (fd < 0)
		fail(argv[3]);
	if (!strcmp(kind, "flock") && flock(fd, LOCK_EX | LOCK_NB) < 0)
		fail("flock");
	if (!strcmp(kind, "posix") && fcntl_lock(fd, F_SETLK, F_WRLCK) < 0)
		fail("F_SETLK");
	if (!strcmp(kind, "ofd") && fcntl_lock(fd, F_OFD_SETLK, F_WRLCK) < 0)
		fail("F_OFD_SETLK");

	if (pipe(done) < 0)
		fail("pipe");
	child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		close(done[0]);
		if (!strcmp(what, "close") && close(fd) < 0)
			c = 1;
		if (!strcmp(what, "unlock") && !strcmp(kind, "flock") && flock(fd, LOCK_UN) < 0)
			c = 1;
		if (!strcmp(what, "unlock") && !strcmp(kind, "ofd") && fcntl_lock(fd, F_OFD_SETLK, F_UNLCK) < 0)
			c = 1;
		if (write(done[1], &c, 1) != 1)
			return 2;
		await_end_of_input();
		return 0;
	}
	close(done[1]);
	if (read(done[0], &c, 1) != 1 || c != 0) {
		fprintf(stderr, "the child failed\n");
		return 2;
	}
	printf("held %d\n", (int)child);
	fflush(stdout);
	await_end_of_input();
	waitpid(child, NULL, 0);
	return 0;
}
