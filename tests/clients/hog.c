/* A program that takes memory from others of its control group, until the
 * kernel kills one of them to have more.
 *
 *	hog PROCS KILLED TIMES
 *
 * Joins the group by its file PROCS, and takes memory until the number after
 * "oom_kill " in the file KILLED rises; gives it back at once; and so on, so
 * many times. The kernel is told to kill others than this one. */

#include "take.h"
#include <sys/mman.h>

enum { STEP = 64 << 10 };
static const long limit = 1L << 30;

static void put(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fail(name);
	close(fd);
}

static long killed(const char *name)
{
	char text[4096], *found;
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

	if (n < 0)
		fail(name);
	close(fd);
	text[n] = 0;
	found = strstr(text, "oom_kill ");
	if (!found) {
		fprintf(stderr, "%s does not count what was killed\n", name);
		exit(2);
	}
	return atol(found + strlen("oom_kill "));
}

int main(int argc, char **argv)
{
	char *memory;

	if (argc != 4) {
		fprintf(stderr, "usage: hog PROCS KILLED TIMES\n");
		return 2;
	}
	put("/proc/self/oom_score_adj", "-1000");
	put(argv[1], "0");
	memory = mmap(NULL, limit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		fail("mmap");
	for (int i = 0; i < atoi(argv[3]); i++) {
		long before = killed(argv[2]), at = 0;

		for (; killed(argv[2]) == before; at += STEP) {
			if (at == limit) {
				fprintf(stderr, "nobody was killed for 1 GiB\n");
				return 1;
			}
			memset(memory + at, 1, STEP);
		}
		if (madvise(memory, limit, MADV_DONTNEED) < 0)
			fail("madvise");
		printf("killed with %ld KiB\n", at >> 10);
		fflush(stdout);
		usleep(300000);
	}
	return 0;
}
