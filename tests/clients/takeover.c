/* How long a call waits that begins when the process that serves it dies.
 *
 *	takeover PID PATH
 *
 * kills the process and asks for the filesystem's status. Prints when it
 * killed (nanoseconds since 1970), how long the answer took (nanoseconds) and
 * the number of files that it tells of. */

#include "take.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <time.h>

static long now(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

int main(int argc, char **argv)
{
	struct statfs st;
	long date, start;

	if (argc != 3) {
		fprintf(stderr, "usage: takeover PID PATH\n");
		return 2;
	}
	date = now(CLOCK_REALTIME);
	start = now(CLOCK_MONOTONIC);
	if (kill(atoi(argv[1]), SIGKILL) < 0 || statfs(argv[2], &st) < 0)
		fail("takeover");
	printf("%ld %ld %ld\n", date, now(CLOCK_MONOTONIC) - start, (long)st.f_files);
	return 0;
}
