/* What the programs have in common that use several lockspaces of a directory of
 * their own. See must.h for must, which goes before. */

#include <stdlib.h>

enum { MAX_PROCESSES = 64 };

static const char *directory;

/* name is the path of a name in a lockspace; of those that were made the last 8
 * can be used. */
static const char *name(const char *space, const char *base, int number)
{
	static char bufs[8][4096];
	static int i;
	char *buf = bufs[i++ % 8];

	snprintf(buf, sizeof bufs[0], "%s/%s/%s%d", directory, space, base, number);
	return buf;
}

/* arguments takes in DIRECTORY PROCESSES SECONDS, and returns how many processes. It
 * ends a program that is given something else. */
static int arguments(int argc, char **argv)
{
	int processes;

	if (argc != 4) {
		fprintf(stderr, "usage: %s DIRECTORY PROCESSES SECONDS\n", argv[0]);
		exit(2);
	}
	directory = argv[1];
	processes = atoi(argv[2]);
	if (processes < 1 || processes > MAX_PROCESSES) {
		fprintf(stderr, "too many processes, or too few\n");
		exit(2);
	}
	return processes;
}
