/* What it costs to take one more lock and give it back, in several places by
 * turns.
 *
 *	onemore IDIOM ROUNDS PATH...
 *
 * IDIOM is excl (open with O_EXCL, and close), or flock or fcntl on a file that
 * stays open. Prints the median for each PATH, in nanoseconds, in a line. */

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

/* once takes the lock and gives it back. fd is of a file that is open, for the
 * idioms that want one. */
static void once(const char *idiom, const char *path, int fd)
{
	struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int result;

	if (!strcmp(idiom, "flock")) {
		result = flock(fd, LOCK_EX) | flock(fd, LOCK_UN);
	} else if (!strcmp(idiom, "fcntl")) {
		result = fcntl(fd, F_SETLK, &whole);
		whole.l_type = F_UNLCK;
		result |= fcntl(fd, F_SETLK, &whole);
	} else {
		fd = open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);
		result = fd < 0 ? -1 : close(fd);
	}
	if (result < 0)
		fail(path);
}

int main(int argc, char **argv)
{
	int rounds = argc > 3 ? atoi(argv[2]) : 0;
	int places = argc - 3, fds[16] = { 0 };
	const char *idiom = argv[1], **paths = (const char **)argv + 3;
	long *took;

	if (rounds < 1 || places > 16) {
		fprintf(stderr, "usage: onemore IDIOM ROUNDS PATH...\n");
		return 2;
	}
	took = calloc((size_t)rounds * places, sizeof *took);
	if (took == NULL)
		fail("calloc");
	for (int p = 0; strcmp(idiom, "excl") && p < places; p++)
		if ((fds[p] = open(paths[p], O_CREAT | O_RDWR | O_CLOEXEC, 0666)) < 0)
			fail(paths[p]);
	for (int i = 0; i < rounds; i++)
		for (int p = 0; p < places; p++) {
			long start = now();

			once(idiom, paths[p], fds[p]);
			took[p * rounds + i] = now() - start;
		}
	for (int p = 0; p < places; p++) {
		qsort(took + p * rounds, rounds, sizeof *took, longer);
		printf("%ld%c", took[p * rounds + rounds / 2], p == places - 1 ? '\n' : ' ');
	}
	return 0;
}
