/* Processes that hold by name in lockspaces whose names hold, and check by
 * themselves that these hold, and go as they must.
 *
 *	byname DIRECTORY PROCESSES SECONDS
 *
 * It makes DIRECTORY, and in it a lockspace for each policy, which it removes at
 * the end. Nothing else may use them. The first thing that is not as it must be
 * ends the program with 1 and a message, as does a call that fails and should
 * not. Else it prints
 *
 *	committed N refused N busy N outlived N creators N broken N graces N gone N
 *
 * in one line: how often a file was replaced as git replaces its index; somebody
 * was refused, because the name was there; a plain rename was, because it was
 * held; a lock was still there when who had made it, and was in it, had died; was
 * gone when its creator had; was broken by its user's other process; was kept from
 * everybody for its grace; and an open file was stale after that. */

#include "take.h"
#include "children.h"
#include "must.h"
#include "spaces.h"
#include <sys/stat.h>

enum { NAMES = 3 };

/* Times in seconds. Nothing takes longer than LONGEST that has to come. */
#define GRACE 0.2
#define LONGEST 30.0

/* The calls that take a name. */
enum { EXCL, LINK, RENAME, SYMLINK, MKDIR, CALLS };

static struct {
	atomic_int ready, stop;
	atomic_long committed, refused, busy, outlived, creators, broken, graces, gone;
	/* Who is inside, and how often somebody has been, by the words of those
	 * who are. */
	atomic_int writer;
	atomic_long commits;
	/* What a child has done that is not there any more. */
	struct {
		atomic_int took;
	} of[MAX_PROCESSES];
} *shared;

static void write_file(const char *path, int flags, const char *text)
{
	int fd = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0644), "open", path);

	must(write(fd, text, strlen(text)), "write", path);
	must(close(fd), "close", path);
}

static void read_file(const char *path, char *text, int size)
{
	int fd = must(open(path, O_RDONLY | O_CLOEXEC), "open", path);
	int n = must(read(fd, text, size - 1), "read", path);

	text[n] = 0;
	must(close(fd), "close", path);
}

/* commit_one takes the lock of an index, writes the next one into it, and renames
 * it, which gives it back and leaves a file that nobody holds. */
static void commit_one(void)
{
	const char *lock = name("none", "index.lock", 0), *index = name("none", "index", 0);
	char text[64] = "";
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(lock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644), other;
	long count;

	if (fd < 0) {
		if (errno != EEXIST)
			wrong("taking %s: %s", lock, strerror(errno));
		atomic_fetch_add(&shared->refused, 1);
		return;
	}
	other = atomic_exchange(&shared->writer, getpid());
	if (other)
		wrong("inside with %d", other);
	must(close(fd), "close", lock); /* it is held all the same */
	count = atomic_load(&shared->commits);
	if (count > 0) {
		read_file(index, text, sizeof text);
		if (atol(text) != count)
			wrong("%s was written %ld times, and has '%s'", index, count, text);
		fd = must(open(index, O_RDWR | O_CLOEXEC), "open", index);
		must(fcntl(fd, F_GETLK, &lk), "F_GETLK", index);
		if (lk.l_type != F_UNLCK)
			wrong("%s is held by %d", index, (int)lk.l_pid);
		must(close(fd), "close", index);
	}
	snprintf(text, sizeof text, "%ld\n", count + 1);
	write_file(lock, 0, text);
	atomic_store(&shared->commits, count + 1);
	atomic_store(&shared->writer, 0);
	must(rename(lock, index), "rename", lock);
	atomic_fetch_add(&shared->committed, 1);
}

/* take takes a name by a call, and puts something into it that can have that. */
static int take(int call, const char *path)
{
	char tmp[4200];
	int fd, result, err;

	snprintf(tmp, sizeof tmp, "%s.%d", path, (int)getpid());
	switch (call) {
	case EXCL:
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		if (fd >= 0)
			must(close(fd), "close", path);
		return fd < 0 ? -1 : 0;
	case SYMLINK:
		return symlink(path, path);
	case MKDIR:
		return mkdir(path, 0777);
	}
	write_file(tmp, 0, "text");
	result = call == LINK ? link(tmp, path) : renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_NOREPLACE);
	err = errno;
	if (call == LINK || result < 0)
		must(unlink(tmp), "unlink", tmp);
	errno = err;
	return result;
}

/* die_holding takes a name of its parent's and dies. */
static const char *mine;

static void die_holding(int call)
{
	must(take(call, mine), "taking", mine);
	if (call == MKDIR)
		must(take(EXCL, name(mine + strlen(directory) + 1, "in it", 0)), "taking in", mine);
	raise(SIGKILL);
}

/* in_child waits for a process in which something is run, which kills itself. */
static void in_child(void (*run)(int), int n)
{
	int status;

	must(waitpid(spawn(run, n), &status, 0), "waitpid", "a child");
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		_exit(1);
}

static void remove_name(int call, const char *path)
{
	if (call == MKDIR) {
		const char *in = name(path + strlen(directory) + 1, "in it", 0);

		must(unlink(in), "unlink", in);
		must(rmdir(path), "rmdir", path);
	} else {
		must(unlink(path), "unlink", path);
	}
}

/* outlive: where nobody is reaped, a name holds though its maker is dead; a plain
 * rename onto it is refused. */
static void outlive(void)
{
	int call = rand() % CALLS;
	struct stat st;

	mine = name("none", "own", me);
	in_child(die_holding, call);
	must(lstat(mine, &st), "lstat of what is held", mine);
	must_fail(take(rand() % CALLS, mine), EEXIST, "taking", mine);
	if (call != MKDIR) {
		const char *tmp = name("none", "tmp", me);

		write_file(tmp, 0, "text");
		must_fail(rename(tmp, mine), EBUSY, "rename onto what is held", mine);
		must(unlink(tmp), "unlink", tmp);
		atomic_fetch_add(&shared->busy, 1);
	}
	remove_name(call, mine);
	must_fail(lstat(mine, &st), ENOENT, "lstat", mine);
	atomic_fetch_add(&shared->outlived, 1);
}

/* be_reaped: a name goes when its creator dies, and not what another has made. */
static void be_reaped(void)
{
	const char *kept = name("creator", "kept", me);
	int call = rand() % CALLS, other = rand() % CALLS;
	double end;
	struct stat st;

	must(take(other, kept), "taking", kept);
	mine = name("creator", "own", me);
	in_child(die_holding, call);
	for (end = now() + LONGEST; lstat(mine, &st) == 0; usleep(1000))
		if (now() > end)
			wrong("%s is there %.0f s after the death of its creator", mine, LONGEST);
	if (errno != ENOENT)
		wrong("lstat of %s: %s", mine, strerror(errno));
	must(lstat(kept, &st), "lstat of what another has made", kept);
	must(other == MKDIR ? rmdir(kept) : unlink(kept), "removal", kept);
	atomic_fetch_add(&shared->creators, 1);
}

/* be_broken takes a lock by its open file and waits until another process of its
 * user breaks that: the open file is stale. */
static void be_broken(int number)
{
	const char *path = name("grace", "own", number);
	int fd = must(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666), "open", path);
	double end;

	atomic_store(&shared->of[number].took, 1);
	for (end = now() + LONGEST; fsync(fd) == 0; usleep(1000))
		if (now() > end)
			wrong("%s is not broken", path);
	must_fail(fsync(fd), ESTALE, "fsync", path);
	must_fail(flock(fd, LOCK_EX | LOCK_NB), ESTALE, "flock", path);
	atomic_fetch_add(&shared->gone, 1);
	raise(SIGKILL);
}

/* await_grace breaks a lock, and finds that nobody gets in for a while. */
static void await_grace(void)
{
	const char *path = name("grace", "own", me);
	double began, end = now() + LONGEST;
	pid_t pid;
	int status, fd;

	atomic_store(&shared->of[me].took, 0);
	pid = spawn(be_broken, me);
	for (; !atomic_load(&shared->of[me].took); usleep(1000))
		if (now() > end)
			wrong("%s is not taken", path);
	began = now();
	must(unlink(path), "unlink", path);
	atomic_fetch_add(&shared->broken, 1);
	must(waitpid(pid, &status, 0), "waitpid", "a child");
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		_exit(1);
	while ((fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) < 0) {
		if (errno != EEXIST)
			wrong("taking %s in grace: %s", path, strerror(errno));
		if (now() - began > LONGEST)
			wrong("waited %.1f s for %s", now() - began, path);
		usleep(5000);
	}
	if (now() - began < GRACE)
		wrong("%s was given out %.3f s after it was broken", path, now() - began);
	must(close(fd), "close", path);
	atomic_fetch_add(&shared->graces, 1);
}

static void process_main(int number)
{
	me = number;
	srand(getpid());
	while (!atomic_load(&shared->ready))
		usleep(1000);
	while (!atomic_load(&shared->stop)) {
		int what = rand() % 100;

		if (what < 60)
			commit_one();
		else if (what < 78)
			outlive();
		else if (what < 96)
			be_reaped();
		else
			await_grace();
	}
	_exit(0);
}

static void set(const char *space, const char *key, const char *value)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/%s/.lockfs/policy/%s", directory, space, key);
	write_file(path, O_TRUNC, value);
}

static void make_space(const char *space)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", directory, space);
	must(mkdir(path, 0777), "mkdir", path);
}

static void remove_space(const char *space)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", directory, space);
	must(rmdir(path), "rmdir", path);
}

int main(int argc, char **argv)
{
	int processes = arguments(argc, argv);

	shared = share(sizeof *shared);
	must(mkdir(directory, 0777), "mkdir", directory);
	make_space("none");
	set("none", "hold", "name");
	set("none", "reap", "none");
	make_space("creator");
	set("creator", "hold", "name");
	set("creator", "reap", "creator");
	make_space("grace");
	set("grace", "grace", "200ms");
	for (int i = 0; i < processes; i++)
		spawn(process_main, i);
	atomic_store(&shared->ready, 1);
	if (await_children(atof(argv[3]), &shared->ready, &shared->stop))
		return 1;
	must(unlink(name("none", "index", 0)), "unlink", "index");
	remove_space("none");
	remove_space("creator");
	remove_space("grace");
	must(rmdir(directory), "rmdir", directory);
	printf("committed %ld refused %ld busy %ld outlived %ld creators %ld broken %ld graces %ld gone %ld\n",
	       shared->committed, shared->refused, shared->busy, shared->outlived, shared->creators, shared->broken,
	       shared->graces, shared->gone);
	return 0;
}
