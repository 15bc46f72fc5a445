/* A program that takes memory from others of its control group, until the
 * kernel kills one of them to have more.
 *
 *	hog PROCS KILLED TIMES PAUSE
 *
 * Joins the group by its file PROCS, and takes memory until the number after
 * "oom_kill " in the file KILLED rises; gives it back at once; waits until there
 * is another process in the place of the one that was killed, and PAUSE
 * milliseconds for it to grow; and so on, so many times. It takes memory that is
 * the group's and no process's, so that it is not the one to be killed. Exits with
 * 1 if nobody comes in somebody's place. */

#include "take.h"
#include <sys/mman.h>

enum { STEP = 64 << 10, LIMIT = 1 << 30, COMES = 30000 /* ms */ };

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

/* processes counts the lines of a file. */
static int processes(const char *name)
{
	char text[4096];
	int n = 0, fd = open(name, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text);

	if (size < 0)
		fail(name);
	close(fd);
	for (ssize_t i = 0; i < size; i++)
		n += text[i] == '\n';
	return n;
}

int main(int argc, char **argv)
{
	static char step[STEP];
	int memory, all;

	if (argc != 5) {
		fprintf(stderr, "usage: hog PROCS KILLED TIMES PAUSE\n");
		return 2;
	}
	put(argv[1], "0");
	all = processes(argv[1]);
	memory = memfd_create("hog", MFD_CLOEXEC);
	if (memory < 0)
		fail("memfd_create");
	for (int i = 0; i < atoi(argv[3]); i++) {
		long before = killed(argv[2]), taken = 0;

		while (killed(argv[2]) == before) {
			ssize_t n = write(memory, step, STEP);

			if (n < 0 && errno != ENOMEM)
				fail("write");
			taken += n > 0 ? n : 0;
			if (taken > LIMIT) {
				fprintf(stderr, "nobody was killed for 1 GiB\n");
				return 1;
			}
		}
		if (ftruncate(memory, 0) < 0 || lseek(memory, 0, SEEK_SET) < 0)
			fail("give back");
		printf("killed with %ld KiB\n", taken >> 10);
		fflush(stdout);
		for (int ms = 0; processes(argv[1]) < all; ms++) {
			if (ms > COMES) {
				fprintf(stderr, "nobody has come in the place of the one that was killed\n");
				return 1;
			}
			usleep(1000);
		}
		usleep(atoi(argv[4]) * 1000);
	}
	return 0;
}
