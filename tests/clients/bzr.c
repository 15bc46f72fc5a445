/* Bazaar's lock (lockdir.py): a directory with a file "info" in it is made
 * aside and renamed to the lock's name; given back by renaming it aside again.
 * Onto an empty directory the rename would succeed, so the one that is renamed
 * is never empty. Breezy 3.3 under strace:
 *
 *	mkdir("ql2y4cmo5n.tmp", 0777) = 0
 *	openat(AT_FDCWD, "ql2y4cmo5n.tmp/info", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 4
 *	rename("ql2y4cmo5n.tmp", "held") = 0
 *	openat(AT_FDCWD, "held/info", O_RDONLY|O_CLOEXEC) = 4
 *	rename("held", "releasing.7p8vwrwd4otu68yhs0ww.tmp") = 0
 *	unlink("releasing.7p8vwrwd4otu68yhs0ww.tmp/info") = 0
 *	rmdir("releasing.7p8vwrwd4otu68yhs0ww.tmp") = 0
 */

#include "protocol.h"

static const char info[] = "hostname: here\nnonce: 7p8vwrwd4otu68yhs0ww\n";

static void discard(const char *dir)
{
	if (unlink(beside(dir, "/info")) < 0)
		fail("unlink info");
	if (rmdir(dir) < 0)
		fail("rmdir");
}

static void check_info(const char *dir)
{
	char text[sizeof info];
	int fd = open(beside(dir, "/info"), O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail("open info");
	if (read(fd, text, sizeof text) != sizeof info - 1 || memcmp(text, info, sizeof info - 1)) {
		fprintf(stderr, "info is not what was written\n");
		exit(2);
	}
	close(fd);
}

int main(int argc, char **argv)
{
	const char *path = the_path(argc, argv);
	const char *pending = unique(path, "pending"), *releasing = unique(path, "releasing");
	int fd;

	if (mkdir(pending, 0777) < 0)
		fail("mkdir");
	fd = open(beside(pending, "/info"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		fail("create info");
	if (write(fd, info, sizeof info - 1) != sizeof info - 1 || close(fd) < 0)
		fail("write info");
	if (rename(pending, path) < 0) {
		int why = errno;

		discard(pending);
		/* these four are "somebody holds it" to lockdir.py */
		if (why == EEXIST || why == ENOTEMPTY || why == ENOTDIR || why == EBUSY)
			return REFUSED;
		errno = why;
		fail("rename");
	}
	check_info(path);
	hold();
	check_info(path);
	if (rename(path, releasing) < 0)
		fail("rename aside");
	discard(releasing);
	return 0;
}
