/* A program whose wait for a lock is ended by a signal.
 *
 *	interrupted PATH
 *
 * Opens PATH and waits in flock; SIGUSR1 ends that. Prints the error's name; if
 * it gets the lock, keeps it until it is killed. */

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
	if (flock(fd, LOCK_EX) == 0)
		for (;;)
			pause();
	printf("%s\n", strerrorname_np(errno));
	return 0;
}
