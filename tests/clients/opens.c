/* Takes a lock by opening it, where that takes it.
 *
 *	opens try|wait r|w|rw PATH
 *
 * With "try" it does not wait. SIGUSR1 ends a wait, although its handler asks for
 * calls to be restarted: then it says so, and exits with 3. SIGUSR2 has it open
 * anew, as programs do that know of such calls. */

#include "take.h"
#include <signal.h>

static volatile sig_atomic_t again;

static void note(int sig)
{
	again = sig == SIGUSR2;
}

int main(int argc, char **argv)
{
	struct sigaction act = { .sa_handler = note, .sa_flags = SA_RESTART };
	int flags = O_CREAT | O_CLOEXEC, fd;

	if (argc != 4) {
		fprintf(stderr, "usage: opens try|wait r|w|rw PATH\n");
		return 2;
	}
	if (!strcmp(argv[1], "try"))
		flags |= O_NONBLOCK;
	flags |= !strcmp(argv[2], "r") ? O_RDONLY : !strcmp(argv[2], "w") ? O_WRONLY : O_RDWR;
	sigaction(SIGUSR1, &act, NULL);
	sigaction(SIGUSR2, &act, NULL);
	do {
		again = 0;
		fd = open(argv[3], flags, 0666);
	} while (fd < 0 && errno == EINTR && again);
	if (fd < 0 && errno == EINTR) {
		fprintf(stderr, "EINTR\n");
		return 3;
	}
	if (fd < 0 && errno == ETXTBSY)
		return 1;
	if (fd < 0)
		fail(argv[3]);
	printf("held\n");
	fflush(stdout);
	await_end_of_input();
	return 0;
}
