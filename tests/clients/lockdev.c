/* liblockdev's lock of a serial line: a file with the pid is made aside and
 * linked to the lock's name, LCK..ttyS0. What is there is read first: one whose
 * process is gone is renamed aside, read again, and removed if it is still the
 * same, else put back. (The library makes a second lock in the same way, named
 * after the device's numbers.) From its description, not from a trace: Debian 12
 * does not have it.
 *
 *	fopen("LCK...4711", "w"), "%10d\n"
 *	fopen("LCK..ttyS0", "r"), fscanf("%d"), kill(pid, 0)
 *	rename("LCK..ttyS0", aside), fopen(aside, "r"), unlink(aside)
 *	link("LCK...4711", "LCK..ttyS0"), until the pid in it is one that lives
 *	unlink("LCK...4711")
 */

#include "protocol.h"

/* read_pid returns the number in a lock file: 0 if there is no file, -1 if
 * there is no number in it, so that nobody can be said to be gone. */
static long read_pid(const char *path)
{
	FILE *f = fopen(path, "r");
	long pid;

	if (!f)
		return errno == ENOENT ? 0 : -1;
	if (fscanf(f, "%ld", &pid) != 1 || pid <= 0)
		pid = -1;
	fclose(f);
	return pid;
}

/* holder returns who holds the lock: 0 if nobody, -1 if it cannot be told. */
static long holder(const char *path)
{
	const char *aside = unique(path, "aside");
	long pid = read_pid(path), again;

	if (pid <= 0 || !is_gone(pid))
		return pid;
	if (rename(path, aside) < 0)
		return errno == ENOENT ? 0 : -1;
	again = read_pid(aside);
	if (again == pid) {
		unlink(aside);
		return 0;
	}
	/* somebody was faster, and it is his lock */
	link(aside, path);
	unlink(aside);
	return again;
}

int main(int argc, char **argv)
{
	const char *path = the_path(argc, argv), *mine = unique(path, "LCK");
	FILE *f = fopen(mine, "w");
	long pid;
	int tries = 0;

	if (!f)
		fail("fopen");
	fprintf(f, "%10d\n", (int)getpid());
	if (fclose(f))
		fail("fclose");
	while (!(pid = holder(path))) {
		if (link(mine, path) < 0 && (errno != EEXIST || ++tries > 3)) {
			int refused = errno == EEXIST; /* by a symlink to nothing */

			unlink(mine);
			return refused ? REFUSED : 2;
		}
	}
	unlink(mine);
	if (pid != getpid())
		return REFUSED;
	hold();
	if (read_pid(path) != getpid()) {
		fprintf(stderr, "the lock is another's now\n");
		return 2;
	}
	if (unlink(path) < 0)
		fail("unlink");
	return 0;
}
