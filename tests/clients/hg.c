/* Mercurial's lock (lock.py, util.makelock): a symlink whose text is
 * "HOST/PIDNAMESPACE:PID". One that a dead process of this host left is
 * removed, under a lock of its own, PATH.break. hg 6.3 under strace:
 *
 *	symlink("vm/effffffc:27090", ".hg/wlock") = 0
 *	unlink(".hg/wlock") = 0
 */

#include "protocol.h"

static char host[300];

static void name_host(void)
{
	struct stat ns;
	int n;

	if (gethostname(host, sizeof host - 20) < 0 || stat("/proc/self/ns/pid", &ns) < 0)
		fail("who am I");
	n = strlen(host);
	snprintf(host + n, sizeof host - n, "/%lx", (unsigned long)ns.st_ino);
}

static int make(const char *path)
{
	char text[400];

	snprintf(text, sizeof text, "%s:%d", host, (int)getpid());
	return symlink(text, path);
}

/* is_stale reports whether the lock was left by a process of this host. */
static int is_stale(const char *path)
{
	char text[400], *pid;

	if (!read_link(path, text, sizeof text) || !(pid = strrchr(text, ':')))
		return 0;
	*pid++ = 0;
	return !strcmp(text, host) && is_gone(atol(pid));
}

int main(int argc, char **argv)
{
	const char *path = the_path(argc, argv), *breaking = beside(path, ".break");

	name_host();
	while (make(path) < 0) {
		if (errno != EEXIST)
			fail("symlink");
		if (!is_stale(path) || make(breaking) < 0)
			return REFUSED;
		if (is_stale(path))
			unlink(path);
		unlink(breaking);
	}
	hold();
	if (unlink(path) < 0)
		fail("unlink");
	return 0;
}
