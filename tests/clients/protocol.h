/* What the lock protocols have in common that are replayed call by call,
 * because the real program is not in Debian or cannot be told where its lock
 * is. See take.h for how they speak and exit. */

#include "take.h"
#include <signal.h>
#include <sys/stat.h>

#define REFUSED 1

/* hold says that the lock is there, and returns when it is to be released. */
static inline void hold(void)
{
	puts("held");
	fflush(stdout);
	await_end_of_input();
}

/* the_path returns the only argument of a protocol. */
static inline const char *the_path(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: %s PATH\n", argv[0]);
		exit(2);
	}
	return argv[1];
}

/* beside makes the name of another file in the same directory: path with a
 * suffix. Nobody frees it. */
static inline const char *beside(const char *path, const char *suffix)
{
	char *name;

	if (asprintf(&name, "%s%s", path, suffix) < 0)
		fail("no memory");
	return name;
}

/* unique is beside with the process's number in the suffix. */
static inline const char *unique(const char *path, const char *what)
{
	char suffix[64];

	snprintf(suffix, sizeof suffix, ".%s.%d", what, (int)getpid());
	return beside(path, suffix);
}

static inline int is_gone(long pid)
{
	return pid > 0 && kill(pid, 0) < 0 && errno == ESRCH;
}

/* read_link reads a symlink's text, and returns 0 if there is none. */
static inline int read_link(const char *path, char *text, size_t size)
{
	ssize_t n = readlink(path, text, size - 1);

	if (n < 0)
		return 0;
	text[n] = 0;
	return 1;
}
