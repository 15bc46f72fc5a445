/* Processes that take one lock in every way there is, and die at any moment.
 *
 *	mortal PATH PROCESSES SECONDS
 *
 * Each process takes PATH, over and over, by O_EXCL, flock, a POSIX or an OFD
 * lock; now and then one is killed, wherever it is, and replaced. Prints
 *
 *	entries N killed N together N
 *
 * how often somebody was inside; how many were killed, some of them inside; and
 * how often somebody who came in found another inside who was alive. Whoever is
 * left at the end must come to his end, too. */

#include "take.h"
#include "children.h"
#include <time.h>

enum { MAX_PROCESSES = 64 };

static struct {
	atomic_int stop;
	/* Who is inside: 0, or a life's number: lives are numbered from 1 on. */
	atomic_int inside;
	atomic_long entries, together;
	/* dead[life] is set before a life is ended. */
	atomic_char dead[1 << 20];
} *shared;

static const char *path;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* take returns a descriptor that has the lock, or -1 if it was refused. */
static int take(void)
{
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int way = rand() % 4, result = 0;
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (way == 0 ? O_EXCL : 0), 0666);

	if (fd < 0 && way == 0 && errno == EEXIST)
		return -1;
	if (fd < 0)
		fail(path);
	if (way == 1)
		result = flock(fd, LOCK_EX);
	else if (way == 2)
		result = fcntl(fd, F_SETLKW, &lk);
	else if (way == 3)
		result = fcntl(fd, F_OFD_SETLKW, &lk);
	if (result < 0)
		fail("waiting");
	return fd;
}

static void live(int life)
{
	srand(life);
	while (!atomic_load(&shared->stop)) {
		int fd = take(), other;

		if (fd < 0)
			continue;
		other = atomic_exchange(&shared->inside, life);
		if (other != 0 && !atomic_load(&shared->dead[other]))
			atomic_fetch_add(&shared->together, 1);
		atomic_fetch_add(&shared->entries, 1);
		for (volatile int i = rand() % 10000; i > 0; i--)
			;
		other = life;
		if (!atomic_compare_exchange_strong(&shared->inside, &other, 0) && !atomic_load(&shared->dead[life]))
			atomic_fetch_add(&shared->together, 1);
		close(fd);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	pid_t pids[MAX_PROCESSES];
	int lives[MAX_PROCESSES], life = 0, processes, status, bad = 0, killed = 0;
	double end;

	if (argc != 4) {
		fprintf(stderr, "usage: mortal PATH PROCESSES SECONDS\n");
		return 2;
	}
	path = argv[1];
	processes = atoi(argv[2]);
	if (processes > MAX_PROCESSES)
		fail("too many processes");
	shared = share(sizeof *shared);
	for (int i = 0; i < processes; i++)
		pids[i] = spawn(live, lives[i] = ++life);
	for (end = now() + atof(argv[3]); now() < end; killed++) {
		int i = rand() % processes;

		usleep(rand() % 2000);
		atomic_store(&shared->dead[lives[i]], 1);
		kill(pids[i], SIGKILL);
		waitpid(pids[i], &status, 0);
		if (WIFEXITED(status))
			bad = 1;
		pids[i] = spawn(live, lives[i] = ++life);
	}
	atomic_store(&shared->stop, 1);
	while (wait(&status) > 0)
		bad |= status;
	if (bad)
		return 2;
	printf("entries %ld killed %d together %ld\n", shared->entries, killed, shared->together);
	return 0;
}
