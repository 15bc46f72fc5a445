/* Processes that lock in every way there is, look at all there is to see, and
 * check by themselves that nothing is ever wrong.
 *
 *	hammer PATH PROCESSES HELD SECONDS
 *
 * The first process takes HELD locks, PATH.held.0 and so on, and keeps them
 * until the end. The others take, use, break and give back a few more names that
 * begin with PATH, and try the held ones. Nothing else may use these names. What
 * must be so is said where it is checked; the first thing that is not ends the
 * program with 1 and a message, as does a call that fails and should not, or
 * does not. Else it prints
 *
 *	entries N refused N tried N broken N bodies N listings N
 *	checks N waited N overtaken N
 *
 * in one line: how often somebody was inside; was refused; tried a held lock
 * in vain; broke a lock; read a body back; listed the directory; how often all
 * the held locks were looked at; the longest wait in milliseconds; and the most
 * often that one who waited was overtaken. */

#include "take.h"
#include "children.h"
#include "must.h"
#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum {
	MAX_PROCESSES = 64, MAX_HELD = 1024,
	LOCKS = 5,  /* names that all contend for */
	NAMES = 3,  /* names that all make, to hold by their existence */
	CELLS = 4,  /* ranges are of these: bytes 0, 1, 2, and all from 3 on */
	BODY = 4096,
	/* Nobody waits longer. It takes a hand-over and a new worker for each of
	 * those in front, which is milliseconds, on a machine that does something
	 * else besides. */
	LONGEST_WAIT = 30,
};

/* How a lock is taken. */
enum way { EXCL, FLOCK, POSIX, OFD, WAYS };

struct claim {
	enum way way;
	int wait, write, first, last; /* cells */
};

/* What all processes see. */
static struct {
	atomic_int ready, stop;
	atomic_long entries, refused, tried, broken, bodies, listings, checks, waited, overtaken;

	/* Who is inside, by cell. The words are the processes' own count of what
	 * the locks promise. */
	struct cell {
		atomic_int writer, readers;
		/* The highest tokens of writers, and of all, that have been inside. */
		atomic_ulong written, seen;
		/* How many writers have come in. */
		atomic_long entries;
	} cells[LOCKS][CELLS];

	/* Who has made a name that all make. */
	atomic_int named[NAMES];

	/* The locks that process 0 holds. */
	struct held {
		enum way way;
		unsigned long token; /* 0: it has a body instead */
	} held[MAX_HELD];

	/* How many have done their last round: until all have, nobody gives back what
	 * others try, or break. */
	atomic_int done;

	/* A lock of each process that the others may break. */
	struct victim {
		atomic_int state;
		unsigned long token;
	} victims[MAX_PROCESSES];
} *shared;

/* States of a victim. Its process and who breaks it keep out of each other's way:
 * it is the former's while it is NOTHING, IN_USE or BROKEN, the latter's while it is
 * BEING_BROKEN, and anybody's to get while it is TAKEN. */
enum { NOTHING, TAKEN, IN_USE, BEING_BROKEN, BROKEN };

static const char *prefix;
static int processes, held_locks;
static pid_t first_pid;

static int chance(int percent) { return rand() % 100 < percent; }

static const char *name(const char *what, int number)
{
	static char bufs[4][4096];
	static int i;
	char *buf = bufs[i++ % 4];

	snprintf(buf, sizeof bufs[0], "%s.%s.%d", prefix, what, number);
	return buf;
}

static void raise_to(atomic_long *most, long v)
{
	long old = atomic_load(most);

	while (v > old && !atomic_compare_exchange_weak(most, &old, v))
		;
}

static void raise_token(atomic_ulong *most, unsigned long v)
{
	unsigned long old = atomic_load(most);

	while (v > old && !atomic_compare_exchange_weak(most, &old, v))
		;
}

static struct flock range_of(struct claim c, short type)
{
	return (struct flock){
		.l_type = type, .l_whence = SEEK_SET, .l_start = c.first,
		.l_len = c.last == CELLS - 1 ? 0 : c.last - c.first + 1,
	};
}

/* lock makes the lock call of a claim, on an open file. */
static int lock(int fd, struct claim c)
{
	struct flock lk = range_of(c, c.write ? F_WRLCK : F_RDLCK);

	switch (c.way) {
	case FLOCK:
		return flock(fd, (c.write ? LOCK_EX : LOCK_SH) | (c.wait ? 0 : LOCK_NB));
	case POSIX:
		return fcntl(fd, c.wait ? F_SETLKW : F_SETLK, &lk);
	case OFD:
		return fcntl(fd, c.wait ? F_OFD_SETLKW : F_OFD_SETLK, &lk);
	default:
		return 0;
	}
}

static int unlock(int fd, struct claim c)
{
	struct flock lk = range_of(c, F_UNLCK);

	switch (c.way) {
	case FLOCK:
		return flock(fd, LOCK_UN);
	case POSIX:
		return fcntl(fd, F_SETLK, &lk);
	case OFD:
		return fcntl(fd, F_OFD_SETLK, &lk);
	default:
		return 0;
	}
}

static struct claim random_claim(void)
{
	struct claim c = { .way = rand() % WAYS, .wait = chance(60), .write = 1, .last = CELLS - 1 };

	if (c.way != EXCL)
		c.write = chance(70);
	if (c.way == POSIX || c.way == OFD) {
		c.first = rand() % CELLS;
		c.last = c.first + rand() % (CELLS - c.first);
	}
	return c;
}

static int open_flags(struct claim c)
{
	return O_RDWR | O_CREAT | O_CLOEXEC | (c.way == EXCL ? O_EXCL : 0);
}

/* read_whole reads what a file shows as cat does, until nothing more comes,
 * which must be at the end of what was there at first. */
static int read_whole(int fd, const char *path, char *text, int size)
{
	int n = must(pread(fd, text, size - 1, 0), "read", path);

	text[n] = 0;
	if (n > 0 && must(pread(fd, text + n, size - 1 - n, n), "read", path) != 0)
		wrong("%s has grown while it was read:\n%s", path, text);
	return n;
}

/* my_token returns the token of this process's hold, of the record of a lock
 * that it holds. */
static unsigned long my_token(int fd, const char *path)
{
	static char text[64 << 10];
	char *record = text, *next, *at;
	unsigned long token = 0;

	read_whole(fd, path, text, sizeof text);
	for (; record; record = next) {
		next = strstr(record, "\n\n");
		if (next) {
			*next = 0;
			next += 2;
		}
		if (strncmp(record, "pid=", 4) || atoi(record + 4) != getpid())
			continue;
		at = strstr(record, "\ntoken=");
		if (token)
			wrong("%s has two records of this process", path);
		if (at)
			token = strtoul(at + strlen("\ntoken="), NULL, 10);
	}
	if (!token)
		wrong("%s has no record of this process, which holds it:\n%s", path, text);
	return token;
}

/* Two are never inside together: enter and leave count who is. */
static void enter(int l, struct claim c)
{
	for (int i = c.first; i <= c.last; i++) {
		struct cell *cell = &shared->cells[l][i];
		int other;

		if (c.write) {
			other = atomic_exchange(&cell->writer, me + 1);
			if (other || atomic_load(&cell->readers))
				wrong("lock %d cell %d: inside to write, with writer %d and %d readers", l, i, other - 1, cell->readers);
			atomic_fetch_add(&cell->entries, 1);
		} else {
			atomic_fetch_add(&cell->readers, 1);
			other = atomic_load(&cell->writer);
			if (other)
				wrong("lock %d cell %d: inside to read, with writer %d", l, i, other - 1);
		}
	}
	atomic_fetch_add(&shared->entries, 1);
}

static void leave(int l, struct claim c)
{
	for (int i = c.first; i <= c.last; i++) {
		struct cell *cell = &shared->cells[l][i];
		int mine = me + 1;

		if (!c.write)
			atomic_fetch_sub(&cell->readers, 1);
		else if (!atomic_compare_exchange_strong(&cell->writer, &mine, 0))
			wrong("lock %d cell %d: writer %d was inside too", l, i, mine - 1);
	}
}

/* Tokens increase: a writer's is higher than all before it, a reader's higher
 * than all writers' before it. */
static void check_token(int l, struct claim c, int fd, const char *path)
{
	unsigned long token = my_token(fd, path);

	for (int i = c.first; i <= c.last; i++) {
		struct cell *cell = &shared->cells[l][i];
		unsigned long before = atomic_load(c.write ? &cell->seen : &cell->written);

		if (token <= before)
			wrong("%s: token %lu after %lu", path, token, before);
		raise_token(&cell->seen, token);
		if (c.write)
			raise_token(&cell->written, token);
	}
}

/* A body is read back as it was written, as long as the lock is held. */
static void check_body(int fd, const char *path)
{
	static char body[BODY], back[BODY + 1];
	int size = 1 + rand() % (chance(50) ? 64 : BODY);
	struct stat st;

	for (int i = 0; i < size; i++)
		body[i] = 'a' + rand() % 26;
	must(ftruncate(fd, 0), "ftruncate", path);
	if (must(pwrite(fd, body, size, 0), "write", path) != size)
		wrong("%s: a body of %d bytes was cut short", path, size);
	for (int i = rand() % 3; i >= 0; i--) {
		int n = must(pread(fd, back, sizeof back, 0), "read", path);

		if (n != size || memcmp(body, back, size))
			wrong("%s: of a body of %d bytes, %d are read back: %.*s", path, size, n, n, back);
		must(fstat(fd, &st), "fstat", path);
		if (st.st_size != size)
			wrong("%s: st_size is %ld, the body has %d bytes", path, (long)st.st_size, size);
		usleep(rand() % 2000);
	}
	must(ftruncate(fd, 0), "ftruncate", path);
	atomic_fetch_add(&shared->bodies, 1);
}

/* What is held all the time is listed exactly once, whatever comes and goes
 * besides. also is another name that is held, or NULL. */
static void list(const char *also)
{
	static char buf[4096];
	int seen[MAX_HELD] = {}, also_seen = 0;
	char *base;
	DIR *d;

	snprintf(buf, sizeof buf, "%s", prefix);
	base = strrchr(buf, '/');
	*base++ = 0;
	d = opendir(buf);
	if (!d)
		wrong("opendir %s: %s", buf, strerror(errno));
	for (;;) {
		struct dirent *e;
		int n, end = 0;

		errno = 0;
		e = readdir(d);
		if (!e)
			break;
		if (also && !strcmp(e->d_name, also + (base - buf)))
			also_seen++;
		if (strncmp(e->d_name, base, strlen(base)))
			continue;
		if (sscanf(e->d_name + strlen(base), ".held.%d%n", &n, &end) == 1 && end)
			seen[n]++;
	}
	if (errno)
		wrong("readdir %s: %s", buf, strerror(errno));
	must(closedir(d), "closedir", buf);
	for (int i = 0; i < held_locks; i++)
		if (seen[i] != 1)
			wrong("the held lock %d is listed %d times", i, seen[i]);
	if (also && also_seen != 1)
		wrong("%s, which is held, is listed %d times", also, also_seen);
	atomic_fetch_add(&shared->listings, 1);
}

/* look does what can be done inside. */
static void look(int l, struct claim c, int fd, const char *path)
{
	struct stat st;

	if (chance(40))
		check_token(l, c, fd, path);
	if (chance(20)) {
		must(stat(path, &st), "stat", path);
		must(fsync(fd), "fsync", path);
	}
	/* With shared holds, or others beside, the body is not this one's alone. */
	if (chance(15) && c.write && c.first == 0 && c.last == CELLS - 1)
		check_body(fd, path);
	if (chance(5))
		list(path);
}

/* contend takes a lock that others want too, and gives it back. */
static void contend(void)
{
	int l = rand() % LOCKS, fd, before[CELLS], overtaken = 0;
	const char *path = name("lock", l);
	struct claim c = random_claim();
	double start;

	fd = open(path, open_flags(c), 0666);
	if (fd < 0 && c.way == EXCL && errno == EEXIST) {
		atomic_fetch_add(&shared->refused, 1);
		return;
	}
	must(fd, "open", path);
	for (int i = c.first; i <= c.last; i++)
		before[i] = atomic_load(&shared->cells[l][i].entries);
	start = now();
	if (lock(fd, c) < 0) {
		if (c.wait)
			wrong("waiting for %s: %s", path, strerror(errno));
		if (errno != EAGAIN)
			wrong("trying %s: %s", path, strerror(errno));
		atomic_fetch_add(&shared->refused, 1);
		must(close(fd), "close", path);
		return;
	}
	if (now() - start > LONGEST_WAIT)
		wrong("waited %.1f s for %s", now() - start, path);
	raise_to(&shared->waited, (now() - start) * 1000);
	for (int i = c.first; i <= c.last; i++) {
		int n = atomic_load(&shared->cells[l][i].entries) - before[i];

		if (n > overtaken)
			overtaken = n;
	}
	raise_to(&shared->overtaken, overtaken);
	enter(l, c);
	look(l, c, fd, path);
	leave(l, c);
	/* All the ways to give a lock back: to unlock it, to remove it, which needs
	 * that nobody else has a part of it, and to close it. */
	if (chance(40))
		must(unlock(fd, c), "unlock", path);
	else if (c.write && c.first == 0 && c.last == CELLS - 1 && chance(30))
		must(unlink(path), "unlink by the holder", path);
	if (chance(20))
		must(fsync(fd), "fsync", path);
	must(close(fd), "close", path);
}

/* Who closes a lock that nobody else wants gets it again at once; and it is
 * listed exactly while it is held. */
static void take_own(void)
{
	const char *path = name("own", me);
	struct claim c = random_claim();
	struct stat st;

	c.wait = 0;
	for (int i = rand() % 10; i >= 0; i--) {
		int fd = must(open(path, open_flags(c), 0666), "open", path);

		must(lock(fd, c), "lock", path);
		must(stat(path, &st), "stat", path);
		if (chance(10))
			must(my_token(fd, path), "read", path);
		if (chance(30))
			must(unlink(path), "unlink by the holder", path);
		must(close(fd), "close", path);
		must_fail(stat(path, &st), ENOENT, "stat", path);
		must_fail(unlink(path), ENOENT, "unlink", path);
	}
}

/* A lock that is broken is free at once, whoever gets it next has a higher
 * token, and its victim is told. */
static int victim_fd;

static void be_victim(void)
{
	struct victim *v = &shared->victims[me];
	const char *path = name("victim", me);
	struct flock lk = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	switch (atomic_load(&v->state)) {
	case NOTHING:
		victim_fd = must(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666), "open", path);
		v->token = my_token(victim_fd, path);
		atomic_store(&v->state, TAKEN);
		break;
	case TAKEN: {
		int taken = TAKEN;

		if (!atomic_compare_exchange_strong(&v->state, &taken, IN_USE))
			break;
		must(fsync(victim_fd), "fsync", path);
		if (chance(90)) {
			atomic_store(&v->state, TAKEN);
			break;
		}
		must(close(victim_fd), "close", path);
		atomic_store(&v->state, NOTHING);
		break;
	}
	case BROKEN:
		must_fail(fsync(victim_fd), ESTALE, "fsync", path);
		must_fail(pwrite(victim_fd, "x", 1, 0), ESTALE, "write", path);
		must_fail(flock(victim_fd, LOCK_EX | LOCK_NB), ESTALE, "flock", path);
		must_fail(fcntl(victim_fd, F_SETLK, &lk), ESTALE, "fcntl", path);
		must(close(victim_fd), "close", path);
		atomic_store(&v->state, NOTHING);
		break;
	}
}

static void break_one(void)
{
	int other = rand() % processes, taken = TAKEN, fd;
	struct victim *v = &shared->victims[other];
	const char *path = name("victim", other);
	unsigned long token;

	if (other == me || !atomic_compare_exchange_strong(&v->state, &taken, BEING_BROKEN))
		return;
	must(unlink(path), "unlink", path);
	fd = must(open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666), "open", path);
	token = my_token(fd, path);
	if (token <= v->token)
		wrong("%s: token %lu after %lu", path, token, v->token);
	must(close(fd), "close", path);
	atomic_fetch_add(&shared->broken, 1);
	atomic_store(&v->state, BROKEN);
}

/* The held locks: process 0 takes them in all ways, some of them with a body. */
static int held_fd[MAX_HELD];

static struct claim whole(enum way way)
{
	return (struct claim){ .way = way, .write = 1, .last = CELLS - 1 };
}

static void take_held(void)
{
	for (int i = 0; i < held_locks; i++) {
		struct held *h = &shared->held[i];
		const char *path = name("held", i);
		struct claim c = whole(i % WAYS);

		h->way = c.way;
		held_fd[i] = must(open(path, open_flags(c), 0666), "open", path);
		must(lock(held_fd[i], c), "lock", path);
		if (i % 3)
			h->token = my_token(held_fd[i], path);
		else
			must(pwrite(held_fd[i], path, strlen(path), 0), "write", path);
	}
	atomic_store(&shared->ready, 1);
}

/* No hold is lost: whatever happens, they have the tokens and the bodies that
 * they had, and nothing is stale. */
static void check_held(void)
{
	char body[4096];

	for (int i = 0; i < held_locks; i++) {
		const char *path = name("held", i);
		struct claim c = whole(shared->held[i].way);

		must(fsync(held_fd[i]), "fsync of a held lock", path);
		if (shared->held[i].token) {
			if (my_token(held_fd[i], path) != shared->held[i].token)
				wrong("%s: it was given out again", path);
		} else {
			int n = must(pread(held_fd[i], body, sizeof body, 0), "read", path);

			if (n != strlen(path) || memcmp(body, path, n))
				wrong("%s: the body is %.*s", path, n, body);
		}
		must(lock(held_fd[i], c), "a lock call on a held lock", path);
		usleep(rand() % 1000);
	}
	list(NULL);
	atomic_fetch_add(&shared->checks, 1);
}

/* try_held tries a lock that process 0 holds, in vain. */
static void try_held(void)
{
	int i = rand() % held_locks, fd;
	const char *path = name("held", i);
	struct claim c = random_claim();
	struct flock lk = range_of(c, F_RDLCK);

	c.wait = 0;
	if (c.way == EXCL) {
		must_fail(open(path, open_flags(c), 0666), EEXIST, "open", path);
	} else {
		fd = must(open(path, O_RDWR | O_CLOEXEC, 0666), "open without O_CREAT", path);
		must_fail(lock(fd, c), EAGAIN, "lock", path);
		must_fail(pwrite(fd, "x", 1, 0), EBUSY, "write", path);
		must(fcntl(fd, F_GETLK, &lk), "F_GETLK", path);
		if (lk.l_type != F_WRLCK || lk.l_pid != first_pid)
			wrong("F_GETLK of %s: type %d, pid %d", path, lk.l_type, (int)lk.l_pid);
		must(close(fd), "close", path);
	}
	atomic_fetch_add(&shared->tried, 1);
}

/* make makes a name by one of the calls that take it so. tmp is a file of this
 * process. */
static int make(int how, const char *path, const char *tmp)
{
	int fd, result;

	switch (how) {
	case 0:
		return mkdir(path, 0777);
	case 1:
		return symlink(tmp, path);
	}
	fd = must(open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666), "open", tmp);
	must(pwrite(fd, tmp, strlen(tmp), 0), "write", tmp);
	result = how == 2 ? link(tmp, path) : renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_NOREPLACE);
	how = errno;
	must(close(fd), "close", tmp);
	errno = how;
	return result;
}

/* Who makes the name is inside until he removes it, and finds there what he has
 * made; who is refused is told that it exists. */
static void make_name(void)
{
	int n = rand() % NAMES, how = rand() % 4, fd;
	char tmp[4096], text[4096];
	const char *path;
	struct stat st;

	snprintf(tmp, sizeof tmp, "%s", name("tmp", me));
	path = name("named", n);
	if (make(how, path, tmp) < 0) {
		if (errno != EEXIST)
			wrong("%s, made by call %d: %s", path, how, strerror(errno));
		atomic_fetch_add(&shared->refused, 1);
		return;
	}
	if (atomic_fetch_add(&shared->named[n], 1) != 0)
		wrong("%s was made by two", path);
	atomic_fetch_add(&shared->entries, 1);
	must(lstat(path, &st), "lstat", path);
	memset(text, 0, sizeof text);
	switch (how) {
	case 0:
		if (!S_ISDIR(st.st_mode))
			wrong("%s is no directory", path);
		break;
	case 1:
		must(readlink(path, text, sizeof text - 1), "readlink", path);
		break;
	default:
		fd = must(open(path, O_RDONLY | O_CLOEXEC), "open", path);
		must(pread(fd, text, sizeof text - 1, 0), "read", path);
		must(close(fd), "close", path);
	}
	if (how > 0 && strcmp(text, tmp))
		wrong("%s, made by call %d, has '%s', not '%s'", path, how, text, tmp);
	must_fail(mkdir(path, 0777), EEXIST, "mkdir", path);
	if (atomic_fetch_sub(&shared->named[n], 1) != 1)
		wrong("%s was made by two", path);
	must(how == 0 ? rmdir(path) : unlink(path), "removal", path);
}

static void process_main(int number)
{
	me = number;
	srand(getpid());
	if (me == 0) {
		first_pid = getpid();
		take_held();
		while (atomic_load(&shared->done) < processes - 1)
			check_held();
		check_held();
		_exit(0);
	}
	while (!atomic_load(&shared->ready))
		usleep(1000);
	while (!atomic_load(&shared->stop)) {
		int what = rand() % 100;

		if (what < 45)
			contend();
		else if (what < 60)
			make_name();
		else if (what < 75)
			take_own();
		else if (what < 82)
			be_victim();
		else if (what < 88)
			break_one();
		else if (what < 98)
			try_held();
		else
			list(NULL);
	}
	atomic_fetch_add(&shared->done, 1);
	while (atomic_load(&shared->done) < processes - 1)
		usleep(1000);
	_exit(0);
}

int main(int argc, char **argv)
{
	struct rlimit files;

	if (argc != 5) {
		fprintf(stderr, "usage: hammer PATH PROCESSES HELD SECONDS\n");
		return 2;
	}
	prefix = argv[1];
	processes = atoi(argv[2]);
	held_locks = atoi(argv[3]);
	if (processes < 2 || processes > MAX_PROCESSES || held_locks < 1 || held_locks > MAX_HELD) {
		fprintf(stderr, "too many processes or locks, or too few\n");
		return 2;
	}
	if (getrlimit(RLIMIT_NOFILE, &files) < 0)
		fail("getrlimit");
	files.rlim_cur = files.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		fail("setrlimit");
	shared = share(sizeof *shared);
	for (int i = 0; i < processes; i++) {
		pid_t pid = spawn(process_main, i);

		if (i == 0)
			first_pid = pid;
	}
	if (await_children(atof(argv[4]), &shared->ready, &shared->stop))
		return 1;
	printf("entries %ld refused %ld tried %ld broken %ld bodies %ld listings %ld checks %ld waited %ld overtaken %ld\n",
	       shared->entries, shared->refused, shared->tried, shared->broken, shared->bodies, shared->listings,
	       shared->checks, shared->waited, shared->overtaken);
	return 0;
}
