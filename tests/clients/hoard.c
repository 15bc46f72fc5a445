/* Takes many locks with O_EXCL and keeps them.
 *
 *	hoard COUNT PATH
 *
 * takes PATH0, PATH1 and so on, says "held", and keeps them until standard
 * input ends. */

#include "take.h"
#include <sys/resource.h>

int main(int argc, char **argv)
{
	struct rlimit files;
	char path[4096];
	int count;

	if (argc != 3) {
		fprintf(stderr, "usage: hoard COUNT PATH\n");
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		fail("getrlimit");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		fail("setrlimit");
	count = atoi(argv[1]);
	for (int i = 0; i < count; i++) {
		snprintf(path, sizeof path, "%s%d", argv[2], i);
		if (open(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666) < 0)
			fail(path);
	}
	puts("held");
	fflush(stdout);
	await_end_of_input();
	return 0;
}
