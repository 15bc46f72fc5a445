/* Many threads of several processes wait in line for locks.
 *
 *	line ORDER PROCESS PROCESSES THREADS PATH...
 *
 * Thread i of a process is number PROCESS + i * PROCESSES of all. It waits, by
 * flock, for lock number modulo the number of PATHs, and begins when the thread
 * before it is in the queue. Who gets the lock writes his number down in ORDER,
 * a file of
 *
 *	0    whose turn it is to begin
 *	4    how many have written their number
 *	8    how often somebody found another inside
 *	16   for each of 64 locks: how many are inside
 *	272  the numbers, in the order in which they got their lock
 *
 * all of 4 bytes, and lets go. Nobody lets go while the word at 12 is not 0.
 * Exits with 1 if anybody's call failed. */

#include "take.h"
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { MAX_THREADS = 20000, MAX_LOCKS = 64, STACK = 64 << 10, SERVED = -1 };

static struct {
	atomic_int turn, count, together, closed;
	atomic_int inside[MAX_LOCKS];
	atomic_int order[];
} *all;

static int process, processes, locks, failed;
static int files[MAX_THREADS];
static atomic_int tids[MAX_THREADS];

static void *wait_in_line(void *arg)
{
	long i = (long)arg;
	int number = process + i * processes, lock = number % locks;

	atomic_store(&tids[i], syscall(SYS_gettid));
	if (flock(files[i], LOCK_EX) < 0) {
		fprintf(stderr, "%d: %s\n", number, strerror(errno));
		failed = 1;
		return NULL;
	}
	atomic_store(&tids[i], SERVED);
	if (atomic_fetch_add(&all->inside[lock], 1) != 0)
		atomic_fetch_add(&all->together, 1);
	atomic_store(&all->order[atomic_fetch_add(&all->count, 1)], number);
	while (atomic_load(&all->closed))
		usleep(1000);
	atomic_fetch_sub(&all->inside[lock], 1);
	close(files[i]);
	return NULL;
}

/* in_queue says whether a thread sleeps in flock, or has been served: its
 * request is in the kernel's queue then, behind those that were there before. */
static int in_queue(int tid)
{
	char name[64], text[32] = "";
	int fd;

	if (tid <= 0)
		return tid == SERVED;
	snprintf(name, sizeof name, "/proc/self/task/%d/syscall", tid);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 1; /* it has ended */
	if (read(fd, text, sizeof text - 1) < 0)
		text[0] = 0;
	close(fd);
	return atoi(text) == SYS_flock;
}

int main(int argc, char **argv)
{
	static pthread_t threads[MAX_THREADS];
	int count = argc > 5 ? atoi(argv[4]) : 0, fd;
	pthread_attr_t small;
	struct rlimit limit;

	locks = argc - 5;
	if (count < 1 || count > MAX_THREADS || locks > MAX_LOCKS) {
		fprintf(stderr, "usage: line ORDER PROCESS PROCESSES THREADS PATH...\n");
		return 2;
	}
	process = atoi(argv[2]);
	processes = atoi(argv[3]);
	fd = open(argv[1], O_RDWR | O_CLOEXEC);
	if (fd < 0)
		fail(argv[1]);
	all = mmap(NULL, sizeof *all + 4L * count * processes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (all == MAP_FAILED)
		fail("mmap");
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		fail("getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		fail("setrlimit");
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	for (long i = 0; i < count; i++) {
		int number = process + i * processes;

		files[i] = open(argv[5 + number % locks], O_CREAT | O_RDWR | O_CLOEXEC, 0666);
		if (files[i] < 0)
			fail(argv[5 + number % locks]);
		while (atomic_load(&all->turn) != number)
			usleep(10);
		errno = pthread_create(&threads[i], &small, wait_in_line, (void *)i);
		if (errno)
			fail("pthread_create");
		while (!in_queue(atomic_load(&tids[i])))
			sched_yield();
		atomic_store(&all->turn, number + 1);
	}
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	return failed;
}
