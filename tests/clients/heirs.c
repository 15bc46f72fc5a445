/* A holder is killed while others wait in a known order.
 *
 *	heirs excl|flock|posix|ofd PATH WAITERS ROUNDS calm|storm
 *
 * In each round a process takes PATH in that way, WAITERS processes queue up
 * for it one after another, and the holder gets SIGKILL. Before that, in a
 * storm, waiters are stopped and continued and get signals with a handler and
 * SA_RESTART. Each round prints a line
 *
 *	first N signals N order I...
 *
 * how many microseconds after the kill somebody had the lock, how many signals
 * were handled, and the waiters, by their place in the queue from 0 on, in the
 * order in which they got the lock. */

#include "take.h"
#include "children.h"
#include <sys/syscall.h>
#include <time.h>

enum { MAX_WAITERS = 256, STORM_MS = 300 };

static struct {
	atomic_int inside, entries, signals, ready;
	long entered; /* nanoseconds: when the first one did */
	int order[MAX_WAITERS];
} *shared;

static const char *kind, *path;

static long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static int lock(int fd, int type)
{
	struct flock lk = { .l_type = type, .l_whence = SEEK_SET };

	if (!strcmp(kind, "posix"))
		return fcntl(fd, F_SETLKW, &lk);
	if (!strcmp(kind, "ofd"))
		return fcntl(fd, F_OFD_SETLKW, &lk);
	return flock(fd, type == F_UNLCK ? LOCK_UN : LOCK_EX);
}

static void hold(void)
{
	int excl = !strcmp(kind, "excl");
	int fd = open(path, O_RDWR | O_CREAT | (excl ? O_EXCL : 0), 0666);

	if (fd < 0 || (!excl && lock(fd, F_WRLCK) < 0))
		fail("taking the lock");
	atomic_store(&shared->ready, 1);
	for (;;)
		pause();
}

static void count_signal(int sig)
{
	(void)sig;
	atomic_fetch_add(&shared->signals, 1);
}

static void wait_in_line(int me)
{
	struct sigaction restart = { .sa_handler = count_signal, .sa_flags = SA_RESTART };
	int fd = open(path, O_RDWR | O_CREAT, 0666);
	int entry;

	if (fd < 0)
		fail("open");
	sigaction(SIGUSR1, &restart, NULL);
	sigaction(SIGURG, &restart, NULL);
	if (lock(fd, F_WRLCK) < 0)
		fail("waiting for the lock");
	entry = atomic_fetch_add(&shared->entries, 1);
	if (atomic_fetch_add(&shared->inside, 1) != 0) {
		fprintf(stderr, "two are inside\n");
		_exit(3);
	}
	if (entry == 0)
		shared->entered = now();
	shared->order[entry] = me;
	atomic_fetch_sub(&shared->inside, 1);
	lock(fd, F_UNLCK);
	_exit(0);
}

static void holder_main(int unused)
{
	(void)unused;
	hold();
}

/* A line of /proc/PID/FILE that begins with key, without it; "" if there is
 * none. */
static const char *proc_line(pid_t pid, const char *file, const char *key)
{
	static char line[256];
	char name[64];
	FILE *f;

	snprintf(name, sizeof name, "/proc/%d/%s", (int)pid, file);
	f = fopen(name, "r");
	if (f == NULL)
		return "";
	while (fgets(line, sizeof line, f))
		if (!strncmp(line, key, strlen(key))) {
			fclose(f);
			return line + strlen(key);
		}
	fclose(f);
	return "";
}

/* A process sleeps in its lock call and has no signal to attend to. Its request
 * is on its way then, and what is sent later comes behind it. If a signal has
 * woken it just now, the end of its request is on its way. */
static int is_waiting(pid_t pid)
{
	long call;
	char state;

	return sscanf(proc_line(pid, "syscall", ""), "%ld", &call) == 1 &&
	       (call == SYS_flock || call == SYS_fcntl) &&
	       strtoull(proc_line(pid, "status", "SigPnd:"), NULL, 16) == 0 &&
	       strtoull(proc_line(pid, "status", "ShdPnd:"), NULL, 16) == 0 &&
	       sscanf(proc_line(pid, "status", "State:"), " %c", &state) == 1 && (state == 'S' || state == 'D');
}

/* How many wait, as the lock's record says. */
static int waiting(void)
{
	char buf[2048], *at;
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, buf, sizeof buf - 1);
	close(fd);
	if (n < 0)
		return -1;
	buf[n] = 0;
	at = strstr(buf, "\nwaiting=");
	return at ? atoi(at + strlen("\nwaiting=")) : -1;
}

static void storm(pid_t *pids, int n)
{
	long end = now() + STORM_MS * 1000000L;

	while (now() < end) {
		pid_t pid = pids[rand() % n];

		switch (rand() % 4) {
		case 0:
			kill(pid, SIGSTOP);
			usleep(rand() % 10000);
			kill(pid, SIGCONT);
			break;
		case 1:
			kill(pid, SIGURG);
			break;
		default:
			kill(pid, SIGUSR1);
		}
		usleep(rand() % 1000);
	}
}

/* All of them wait: their states first, then what the lock's record says. */
static int all_wait(const pid_t *pids, int n)
{
	for (int i = 0; i < n; i++)
		if (!is_waiting(pids[i]))
			return 0;
	return waiting() == n;
}

static void round_of(int n, int stormy)
{
	pid_t holder, waiters[MAX_WAITERS];
	int status;
	long killed;

	memset(shared, 0, sizeof *shared);
	holder = spawn(holder_main, 0);
	while (!atomic_load(&shared->ready))
		usleep(100);
	for (int i = 0; i < n; i++) {
		waiters[i] = spawn(wait_in_line, i);
		while (!is_waiting(waiters[i]))
			usleep(100);
	}
	if (stormy)
		storm(waiters, n);
	while (!all_wait(waiters, n))
		usleep(1000);
	killed = now();
	kill(holder, SIGKILL);
	waitpid(holder, &status, 0);
	for (int i = 0; i < n; i++) {
		waitpid(waiters[i], &status, 0);
		if (status)
			exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
	}
	printf("first %ld signals %d order", (shared->entered - killed) / 1000, atomic_load(&shared->signals));
	for (int i = 0; i < n; i++)
		printf(" %d", shared->order[i]);
	printf("\n");
}

int main(int argc, char **argv)
{
	int n = argc == 6 ? atoi(argv[3]) : 0;

	if (n < 1 || n > MAX_WAITERS) {
		fprintf(stderr, "usage: heirs excl|flock|posix|ofd PATH WAITERS ROUNDS calm|storm\n");
		return 2;
	}
	kind = argv[1];
	path = argv[2];
	shared = share(sizeof *shared);
	srand(getpid());
	for (int i = 0; i < atoi(argv[4]); i++)
		round_of(n, !strcmp(argv[5], "storm"));
	return 0;
}
