/* Processes that live by the policies of lockspaces, and check by themselves that
 * these do what they promise.
 *
 *	policies DIRECTORY PROCESSES SECONDS
 *
 * It makes DIRECTORY, and in it a lockspace for each policy, which it removes at
 * the end. Nothing else may use them. The first thing that is not as it must be
 * ends the program with 1 and a message, as does a call that fails and should
 * not. Else it prints
 *
 *	reaped N renewed N expired N opened N refused N told N graces N settings N
 *
 * in one line: how often a lock was free since its process had died; was kept
 * longer than its lease; was lost since that ran out; was opened in a hold=open
 * lockspace; was refused there; how often a holder was told by poll(2) that
 * somebody waits; a lock was kept from everybody for its grace; and how often a
 * policy was set. */

#include "take.h"
#include "children.h"
#include "must.h"
#include "spaces.h"
#include <poll.h>
#include <sys/stat.h>

enum { NAMES = 3 };

/* Times in seconds. Nothing takes longer than LONGEST that has to come. */
#define LEASE 1.0
#define GRACE 0.2
#define LONGEST 30.0

static struct {
	atomic_int ready, stop;
	atomic_long reaped, renewed, expired, opened, refused, told, graces, settings;
	/* Who is inside, by the words of those who are. */
	struct inside {
		atomic_int writer, readers;
		atomic_long entries;
	} reap[NAMES], open[NAMES];
} *shared;

static void pause_up_to(double seconds) { usleep(seconds * 1e6 * rand() / RAND_MAX); }

/* set writes a value to a key of a lockspace's policy, and reads it back. */
static void set(const char *space, const char *key, const char *value)
{
	char path[4096], back[64] = "";
	int fd;

	snprintf(path, sizeof path, "%s/%s/.lockfs/policy/%s", directory, space, key);
	fd = must(open(path, O_WRONLY | O_TRUNC | O_CLOEXEC), "open", path);
	must(write(fd, value, strlen(value)), "write", path);
	must(close(fd), "close", path);
	fd = must(open(path, O_RDONLY | O_CLOEXEC), "open", path);
	must(read(fd, back, sizeof back - 1), "read", path);
	must(close(fd), "close", path);
	if (strncmp(back, value, strlen(value)) || back[strlen(value)] != '\n')
		wrong("%s is '%s' after '%s' was written", path, back, value);
	atomic_fetch_add(&shared->settings, 1);
}

static void enter(struct inside *in, int writer)
{
	if (!writer) {
		atomic_fetch_add(&in->readers, 1);
		if (atomic_load(&in->writer))
			wrong("a reader is inside with writer %d", atomic_load(&in->writer));
		return;
	}
	int other = atomic_exchange(&in->writer, getpid());

	if (other || atomic_load(&in->readers))
		wrong("a writer is inside with writer %d and %d readers", other, atomic_load(&in->readers));
}

static void leave(struct inside *in, int writer)
{
	if (!writer)
		atomic_fetch_sub(&in->readers, 1);
	else if (atomic_exchange(&in->writer, 0) != getpid())
		wrong("somebody else was inside");
}

/* in_child waits for a process in which something is run, which may be killed by
 * itself. */
static void in_child(void (*run)(int), int n)
{
	int status;

	must(waitpid(spawn(run, n), &status, 0), "waitpid", "a child");
	if (WIFEXITED(status) && WEXITSTATUS(status))
		_exit(1);
	if (WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
		wrong("a child was ended by signal %d", WTERMSIG(status));
}

/* write_pid puts the own pid into an open file, as tools do: at once, or in
 * pieces without a newline until the file is closed. */
static void write_pid(int fd, const char *path)
{
	char text[32];
	int n = snprintf(text, sizeof text, rand() % 2 ? "%d\n" : "%10d\n", (int)getpid());

	if (rand() % 3 == 0) {
		must(write(fd, text, n - 2), "write", path);
		must(write(fd, text + n - 2, 1), "write", path);
	} else {
		must(write(fd, text, n), "write", path);
	}
	must(close(fd), "close", path);
}

/* take_and_die takes a name, one way or the other, with the own pid in it, is
 * inside for a while, and dies without giving it back. */
static void take_and_die(int n)
{
	const char *path = name("reap", "x", n);
	char tmp[4200], text[64];
	int fd;
	double end = now() + LONGEST;

	srand(getpid());
	snprintf(tmp, sizeof tmp, "%s.%d", path, (int)getpid());
	for (;;) {
		if (rand() % 2) {
			fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
			if (fd >= 0) {
				write_pid(fd, path);
				break;
			}
		} else {
			int result;

			fd = must(open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644), "open", tmp);
			write_pid(fd, tmp);
			result = link(tmp, path);
			fd = errno;
			must(unlink(tmp), "unlink", tmp);
			errno = fd;
			if (result == 0)
				break;
		}
		if (errno != EEXIST)
			wrong("taking %s: %s", path, strerror(errno));
		if (now() > end)
			wrong("%s was not free for %.0f s", path, LONGEST);
		pause_up_to(0.01);
	}
	enter(&shared->reap[n], 1);
	pause_up_to(0.02);
	memset(text, 0, sizeof text);
	fd = must(open(path, O_RDONLY | O_CLOEXEC), "open of what is held", path);
	must(read(fd, text, sizeof text - 1), "read", path);
	if (atoi(text) != getpid())
		wrong("%s was given to '%s'", path, text);
	must(close(fd), "close", path);
	leave(&shared->reap[n], 1);
	atomic_fetch_add(&shared->reaped, 1);
	if (rand() % 2)
		raise(SIGKILL);
}

/* renew renews a lock, one way or the other. */
static int renew(int fd)
{
	switch (rand() % 3) {
	case 0:
		return futimens(fd, NULL);
	case 1:
		return pwrite(fd, "here", 4, 0);
	default:
		return flock(fd, LOCK_EX | LOCK_NB);
	}
}

/* keep renews a lock for longer than its lease, or loses it. */
static void keep(void)
{
	const char *path = name("lease", "own", me);
	double end = now() + 2.5 * LEASE;
	int fd = must(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644), "open", path);
	double last = now(), began;
	int late = 0; /* too busy a machine to say what must be */
	struct stat st;

	while (!late && (began = now()) < end) {
		if (renew(fd) < 0 && now() - last < LEASE)
			wrong("renewing %s: %s, %.3f s after the last time", path, strerror(errno), now() - last);
		late = now() - last > LEASE;
		last = began;
		usleep(100000);
		if (stat(path, &st) < 0 && now() - last < LEASE)
			wrong("%s: %s, %.3f s after it was renewed", path, strerror(errno), now() - last);
		late |= now() - last > LEASE;
	}
	if (!late)
		atomic_fetch_add(&shared->renewed, 1);
	for (end = now() + LONGEST; fsync(fd) == 0; usleep(20000))
		if (now() > end)
			wrong("%s is held for %.0f s without being renewed", path, LONGEST);
	must_fail(fsync(fd), ESTALE, "fsync", path);
	must_fail(stat(path, &st), ENOENT, "stat of what expired", path);
	must(close(fd), "close", path);
	atomic_fetch_add(&shared->expired, 1);
}

/* open_one opens a name of which the body counts the writers. */
static void open_one(void)
{
	int n = rand() % NAMES, writer = rand() % 3, wait = rand() % 3;
	const char *path = name("open", "x", n);
	char text[32] = "";
	double began = now();
	int fd = open(path, (writer ? O_RDWR : O_RDONLY) | (wait ? 0 : O_NONBLOCK) | O_CREAT | O_CLOEXEC, 0666);

	if (fd < 0 && !wait && errno == ETXTBSY) {
		atomic_fetch_add(&shared->refused, 1);
		return;
	}
	must(fd, "open", path);
	if (now() - began > LONGEST)
		wrong("waited %.1f s for %s", now() - began, path);
	enter(&shared->open[n], writer);
	if (writer) {
		long count = atomic_fetch_add(&shared->open[n].entries, 1);

		must(pread(fd, text, sizeof text - 1, 0), "read", path);
		if (count > 0 && atol(text) != count)
			wrong("%s was written to %ld times, and has '%s'", path, count, text);
		snprintf(text, sizeof text, "%010ld", count + 1);
		must(pwrite(fd, text, strlen(text), 0), "write", path);
	}
	if (rand() % 2 == 0) {
		struct pollfd p = { .fd = fd, .events = POLLIN };

		if (must(poll(&p, 1, 50), "poll", path) == 1 && p.revents & POLLIN)
			atomic_fetch_add(&shared->told, 1);
		must_fail(unlink(path), EBUSY, "unlink of what is open", path);
	}
	leave(&shared->open[n], writer);
	must(close(fd), "close", path);
	atomic_fetch_add(&shared->opened, 1);
}

/* die_with locks a file and dies. */
static void die_with(int number)
{
	const char *path = name("grace", "own", number);
	int fd = must(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666), "open", path);

	must(flock(fd, LOCK_EX), "flock", path);
	raise(SIGKILL);
}

/* await_grace lets a child die, and finds that nobody gets in for a while. */
static void await_grace(void)
{
	const char *path = name("grace", "own", me);
	double began;
	int fd;

	in_child(die_with, me);
	began = now(); /* it died before */
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0 && errno != EEXIST)
		wrong("taking %s in grace: %s", path, strerror(errno));
	if (fd >= 0) {
		if (now() - began < GRACE)
			wrong("%s was given out %.3f s after the holder's death", path, now() - began);
		must(close(fd), "close", path);
		return; /* too busy a machine */
	}
	fd = must(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666), "open", path);
	must(flock(fd, LOCK_EX), "flock", path);
	if (now() - began > LONGEST)
		wrong("waited %.1f s for %s", now() - began, path);
	must(close(fd), "close", path);
	atomic_fetch_add(&shared->graces, 1);
}

static void set_something(void)
{
	static const char *const settings[][2] = {
		{ "hold", "handle" }, { "hold", "name" }, { "hold", "open" },
		{ "read", "record" }, { "read", "pid" }, { "reap", "none" },
		{ "reap", "creator" }, { "lease", "1m30s" }, { "grace", "5ms" }, { "grace", "0" },
	};
	char space[32], path[4096];
	int n = rand() % (sizeof settings / sizeof *settings);

	snprintf(space, sizeof space, "own%d", me);
	snprintf(path, sizeof path, "%s/%s", directory, space);
	must(mkdir(path, 0777), "mkdir", path);
	set(space, settings[n][0], settings[n][1]);
	must(rmdir(path), "rmdir", path);
}

static void process_main(int number)
{
	me = number;
	srand(getpid());
	while (!atomic_load(&shared->ready))
		usleep(1000);
	while (!atomic_load(&shared->stop)) {
		int what = rand() % 100, n = rand() % NAMES;

		if (what < 30)
			in_child(take_and_die, n);
		else if (what < 34)
			keep();
		else if (what < 80)
			open_one();
		else if (what < 90)
			await_grace();
		else
			set_something();
	}
	_exit(0);
}

static void make_space(const char *space, const char *key, const char *value)
{
	char path[4096];

	snprintf(path, sizeof path, "%s/%s", directory, space);
	if (mkdir(path, 0777) < 0 && errno != EEXIST)
		wrong("mkdir %s: %s", path, strerror(errno));
	set(space, key, value);
}

/* remove_space removes a lockspace when nothing is held in it any more. */
static void remove_space(const char *space)
{
	char path[4096];
	double end = now() + LONGEST;

	for (int i = 0; i < NAMES; i++)
		unlink(name(space, "x", i));
	snprintf(path, sizeof path, "%s/%s", directory, space);
	while (rmdir(path) < 0) {
		if (now() > end)
			wrong("rmdir %s: %s", path, strerror(errno));
		usleep(10000);
	}
}

int main(int argc, char **argv)
{
	int processes = arguments(argc, argv);

	shared = share(sizeof *shared);
	must(mkdir(directory, 0777), "mkdir", directory);
	make_space("reap", "hold", "name");
	make_space("lease", "lease", "1s");
	make_space("open", "hold", "open");
	make_space("grace", "grace", "200ms");
	for (int i = 0; i < processes; i++)
		spawn(process_main, i);
	atomic_store(&shared->ready, 1);
	if (await_children(atof(argv[3]), &shared->ready, &shared->stop))
		return 1;
	remove_space("reap");
	remove_space("lease");
	remove_space("open");
	remove_space("grace");
	must(rmdir(directory), "rmdir", directory);
	printf("reaped %ld renewed %ld expired %ld opened %ld refused %ld told %ld graces %ld settings %ld\n",
	       shared->reaped, shared->renewed, shared->expired, shared->opened, shared->refused, shared->told,
	       shared->graces, shared->settings);
	return 0;
}
