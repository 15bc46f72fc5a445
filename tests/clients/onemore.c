/* What it costs to take one more lock and give it back, in several places by
 * turns.
 *
 *	onemore ROUNDS PATH...
 *
 * Prints the median for each PATH, in nanoseconds, in a line. */

#include "take.h"
#include <time.h>

static long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static int longer(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int rounds = argc > 2 ? atoi(argv[1]) : 0;
	int places = argc - 2;
	long *took;

	if (rounds < 1) {
		fprintf(stderr, "usage: onemore ROUNDS PATH...\n");
		return 2;
	}
	took = calloc((size_t)rounds * places, sizeof *took);
	if (took == NULL)
		fail("calloc");
	for (int i = 0; i < rounds; i++)
		for (int p = 0; p < places; p++) {
			long start = now();
			int fd = open(argv[p + 2], O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);

			if (fd < 0 || close(fd) < 0)
				fail(argv[p + 2]);
			took[p * rounds + i] = now() - start;
		}
	for (int p = 0; p < places; p++) {
		qsort(took + p * rounds, rounds, sizeof *took, longer);
		printf("%ld%c", took[p * rounds + rounds / 2], p == places - 1 ? '\n' : ' ');
	}
	return 0;
}
