/* What the programs have in common that check by themselves what they are
 * promised: the first thing that is not so ends the process with 1 and a
 * message. */

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* me is the number of the process. */
static int me;

__attribute__((format(printf, 1, 2), noreturn))
static void wrong(const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	fprintf(stderr, "process %d (pid %d): %s\n", me, (int)getpid(), text);
	_exit(1);
}

/* must fails unless a call succeeded. */
static long must(long result, const char *call, const char *path)
{
	if (result < 0)
		wrong("%s of %s: %s", call, path, strerror(errno));
	return result;
}

/* must_fail fails unless a call failed with err. */
__attribute__((unused))
static void must_fail(long result, int err, const char *call, const char *path)
{
	if (result >= 0)
		wrong("%s of %s succeeded, want %s", call, path, strerror(err));
	if (errno != err)
		wrong("%s of %s: %s, want %s", call, path, strerror(errno), strerror(err));
}

/* now is a time in seconds. */
static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* await_children has the children of this process stop when they have been ready
 * for so many seconds, and waits for all of them. It returns 1 at once if one has
 * failed: the others die with this process. */
static int await_children(double seconds, atomic_int *ready, atomic_int *stop)
{
	double end = 0;
	int status;

	for (;;) {
		pid_t pid = waitpid(-1, &status, WNOHANG);

		if (pid > 0 && status)
			return 1;
		if (pid < 0)
			return 0;
		if (!end && atomic_load(ready))
			end = now() + seconds;
		if (end && now() > end)
			atomic_store(stop, 1);
		if (pid == 0)
			usleep(10000);
	}
}
