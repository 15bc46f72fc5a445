/* Emacs's lock of a file that is being edited (filelock.c): a symlink whose
 * text is "USER@HOST.PID:BOOT", without ":BOOT" where the time of boot is not
 * to be had. One that a dead process of this host left is taken over, in
 * Emacs 28 by unlink and symlink. Under strace:
 *
 *	symlink("root@vm.27303", ".#x.txt") = 0
 *	symlink("root@vm.27303", ".#x.txt") = -1 EEXIST
 *	readlinkat(AT_FDCWD, ".#x.txt", "root@vm.27303", 8193) = 13
 *	unlink(".#x.txt") = 0
 */

#include "protocol.h"

int main(int argc, char **argv)
{
	const char *path = the_path(argc, argv);
	char host[256], mine[400], text[400], *at, *dot, *colon;

	if (gethostname(host, sizeof host) < 0)
		fail("gethostname");
	snprintf(mine, sizeof mine, "root@%s.%d:1700000000", host, (int)getpid());
	while (symlink(mine, path) < 0) {
		if (errno != EEXIST)
			fail("symlink");
		if (!read_link(path, text, sizeof text))
			return REFUSED; /* a file, or it has just gone: ask the user */
		at = strrchr(text, '@');
		dot = strrchr(text, '.');
		if (!at || !dot || dot < at)
			return REFUSED;
		if ((colon = strchr(dot, ':')))
			*colon = 0;
		*dot = 0;
		if (strcmp(at + 1, host) || !is_gone(atol(dot + 1)))
			return REFUSED;
		if (unlink(path) < 0)
			fail("unlink");
	}
	hold();
	if (!read_link(path, text, sizeof text) || strcmp(text, mine)) {
		fprintf(stderr, "the lock is another's now\n");
		return 2;
	}
	if (unlink(path) < 0)
		fail("unlink");
	return 0;
}
