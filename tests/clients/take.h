/* What the lock takers in C have in common: they say "held" when they have
 * the lock, keep it until standard input ends, and exit with 1 if they were
 * refused it, with 2 if something else went wrong. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

static inline void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(2);
}

static inline void await_end_of_input(void)
{
	char c;

	while (read(0, &c, 1) > 0)
		;
}
