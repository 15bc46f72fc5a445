/* A program whose wait for a lock is ended by a signal.
 *
 *	interrupted PATH
 *
 * Opens PATH and waits in flock; SIGUSR1 ends that. Prints "ok" or the error's
 * name. */

#include "take.h"
#include <signal.h>

static void nothing(int sig)
{
	(void)sig;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = nothing }; /* no SA_RESTART */
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: interrupted PATH\n");
		return 2;
	}
	sigaction(SIGUSR1, &act, NULL);
	fd = open(argv[1], O_CREAT | O_RDWR | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(argv[1]);
	printf("%s\n", flock(fd, LOCK_EX) < 0 ? strerrorname_np(errno) : "ok");
	return 0;
}
