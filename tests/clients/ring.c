/* Processes that run into a deadlock of POSIX locks, over and over.
 *
 *	ring PROCESSES ROUNDS PATH
 *
 * In each round every process locks a byte of its own, then all at once wait
 * for the next one's. Whoever fails with EDEADLK lets go of his byte, and the
 * others get what they wait for. Prints
 *
 *	rounds N refused N stuck N
 *
 * how often somebody was refused with EDEADLK, which is once a round, and how
 * many were left waiting, until an alarm ended it all. */

#include "take.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

enum { STUCK_SECONDS = 2 };

static struct {
	pthread_barrier_t barrier;
	atomic_int refused, stuck;
} *shared;

static int set(int fd, int cmd, short type, long byte)
{
	struct flock lk = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	return fcntl(fd, cmd, &lk);
}

static void interrupted(int sig) { (void)sig; }

static void take_part(const char *path, int me, int processes, int rounds)
{
	struct sigaction act = { .sa_handler = interrupted };
	int fd = open(path, O_RDWR | O_CREAT, 0666);

	if (fd < 0)
		fail(path);
	sigaction(SIGALRM, &act, NULL);
	for (int i = 0; i < rounds; i++) {
		if (set(fd, F_SETLK, F_WRLCK, me) < 0)
			fail("locking its own byte");
		pthread_barrier_wait(&shared->barrier);
		alarm(STUCK_SECONDS);
		if (set(fd, F_SETLKW, F_WRLCK, (me + 1) % processes) < 0) {
			if (errno == EDEADLK)
				atomic_fetch_add(&shared->refused, 1);
			else if (errno == EINTR)
				atomic_fetch_add(&shared->stuck, 1);
			else
				fail("waiting");
		}
		alarm(0);
		if (set(fd, F_SETLK, F_UNLCK, me) < 0 || set(fd, F_SETLK, F_UNLCK, (me + 1) % processes) < 0)
			fail("unlocking");
		pthread_barrier_wait(&shared->barrier);
		if (atomic_load(&shared->stuck))
			return;
	}
}

int main(int argc, char **argv)
{
	int processes, rounds, status, bad = 0;
	pthread_barrierattr_t attr;
	pid_t parent = getpid();

	if (argc != 4) {
		fprintf(stderr, "usage: ring PROCESSES ROUNDS PATH\n");
		return 2;
	}
	processes = atoi(argv[1]);
	rounds = atoi(argv[2]);
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("mmap");
	pthread_barrierattr_init(&attr);
	pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&shared->barrier, &attr, processes);
	for (int i = 0; i < processes; i++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (getppid() != parent)
				_exit(2);
			take_part(argv[3], i, processes, rounds);
			_exit(0);
		}
	while (wait(&status) > 0)
		bad |= status;
	if (bad)
		return 2;
	printf("rounds %d refused %d stuck %d\n", rounds, shared->refused, shared->stuck);
	return 0;
}
