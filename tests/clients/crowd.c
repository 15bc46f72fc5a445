/* Many threads wait for one lock.
 *
 *	crowd THREADS PATH
 *
 * Each opens PATH and waits in flock. When all have returned, prints a line
 * for each outcome: "COUNT ok", or COUNT and the error's name. */

#include "take.h"
#include <pthread.h>
#include <sys/resource.h>

enum { MAX_THREADS = 20000, STACK = 64 << 10 };

static int files[MAX_THREADS], outcomes[MAX_THREADS];

static void *wait_in_line(void *arg)
{
	long i = (long)arg;

	outcomes[i] = flock(files[i], LOCK_EX) < 0 ? errno : 0;
	if (outcomes[i] == 0)
		close(files[i]);
	return NULL;
}

int main(int argc, char **argv)
{
	static pthread_t threads[MAX_THREADS];
	int count = argc == 3 ? atoi(argv[1]) : 0;
	pthread_attr_t small;
	struct rlimit limit;

	if (count < 1 || count > MAX_THREADS) {
		fprintf(stderr, "usage: crowd THREADS PATH\n");
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		fail("getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		fail("setrlimit");
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, STACK);
	for (long i = 0; i < count; i++) {
		files[i] = open(argv[2], O_CREAT | O_RDWR | O_CLOEXEC, 0666);
		if (files[i] < 0)
			fail(argv[2]);
		errno = pthread_create(&threads[i], &small, wait_in_line, (void *)i);
		if (errno)
			fail("pthread_create");
	}
	for (int i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	for (int e = 0; e < 256; e++) {
		int n = 0;

		for (int i = 0; i < count; i++)
			n += outcomes[i] == e;
		if (n > 0)
			printf("%d %s\n", n, e ? strerrorname_np(e) : "ok");
	}
	return 0;
}
