/* Processes that lock at random, and a record of what they saw.
 *
 *	history PATH PROCESSES NAMES CALLS SEED
 *
 * Each process makes so many calls on PATH0, PATH1 and so on, now and then
 * dies and is replaced. Prints a line for each call:
 *
 *	PID CALL NAME FILE WAY MODE FIRST LAST ERRNO PID MODE FIRST LAST START END SEEN
 *
 * FILE numbers open files from 1 on; 0 is none. WAY is flock, posix or ofd, and
 * MODE r, w, or u for unlock, of lock calls. FIRST and LAST are a range, -1 for
 * the last byte there is. The four after ERRNO are what F_GETLK answered. START
 * and END are nanoseconds on one clock for all. SEEN is what a read of the
 * lock's record showed: PID/MODE/VIA for each hold, with commas in between, and
 * how many wait: "1234/shared/flock,waiting=2", "" while it is free. A death ("die", NAME -1) has
 * ended when the process was reaped. "-" stands for what does not apply.
 *
 * A process waits for a lock only while it has no other name open, so that all
 * that a wait depends on happens to one name. POSIX locks are taken through the
 * first of the two files that a process may have open on a name; where SEED is
 * odd, that is what they mostly do. A wait ends after some time with EINTR, and
 * its file is closed then. */

#include "take.h"
#include "children.h"
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

enum { MAX_RECORDS = 100000, MAX_NAMES = 8, MAX_PROCESSES = 16, SLOTS = 2, CELLS = 5, WAIT_MICROS = 8000 };

struct record {
	pid_t pid;
	const char *call, *way;
	int name, file, err;
	struct flock asked, answered;
	long start, end;
	char seen[1024];
};

static struct {
	atomic_int records, files;
	struct record record[MAX_RECORDS];
	/* For each process: how many calls are left, and its death. */
	int left[MAX_PROCESSES];
	struct record *death[MAX_PROCESSES];
} *shared;

static const char *prefix;
static int names;
/* Mostly POSIX locks of few bytes, which run into deadlocks. */
static int posix_mostly;

static struct { int fd, number; } files[MAX_NAMES][SLOTS];

static long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000L + ts.tv_nsec;
}

static struct record *begin(const char *call, int name, int file)
{
	int i = atomic_fetch_add(&shared->records, 1);
	struct record *r = &shared->record[i];

	if (i >= MAX_RECORDS) {
		fprintf(stderr, "too many records\n");
		_exit(2);
	}
	r->pid = getpid();
	r->call = call;
	r->name = name;
	r->file = file;
	r->way = "-";
	r->start = now();
	return r;
}

static int end(struct record *r, int result)
{
	r->err = result < 0 ? errno : 0;
	r->end = now();
	return result;
}

static char *path(int name)
{
	static char buf[4096];

	snprintf(buf, sizeof buf, "%s%d", prefix, name);
	return buf;
}

static int chance(int percent) { return rand() % 100 < percent; }

static void open_file(int name, int slot, const char *call, int flags)
{
	int number = atomic_fetch_add(&shared->files, 1) + 1;
	struct record *r = begin(call, name, number);
	int fd = end(r, open(path(name), flags | O_CLOEXEC, 0666));

	if (fd < 0)
		return;
	files[name][slot].fd = fd;
	files[name][slot].number = number;
}

static void close_file(int name, int slot)
{
	struct record *r;

	if (files[name][slot].number == 0)
		return;
	r = begin("close", name, files[name][slot].number);
	end(r, close(files[name][slot].fd));
	files[name][slot].number = 0;
}

static void close_others(int name)
{
	for (int i = 0; i < names; i++)
		for (int s = 0; s < SLOTS; s++)
			if (i != name)
				close_file(i, s);
}

static void set_timer(long micros)
{
	struct itimerval t = {
		.it_interval = { .tv_usec = micros }, .it_value = { .tv_usec = micros },
	};

	setitimer(ITIMER_REAL, &t, NULL);
}

static short random_type(int unlock)
{
	return unlock ? F_UNLCK : chance(posix_mostly ? 20 : 50) ? F_RDLCK : F_WRLCK;
}

static void set_random_range(struct flock *lk)
{
	int a = rand() % CELLS, b = a + rand() % (posix_mostly ? 1 : CELLS - a);

	lk->l_start = a;
	lk->l_len = b == CELLS - 1 ? 0 : b - a + 1;
}

static void lock(int name, int slot, const char *call, int unlock)
{
	static const int posix[] = { F_SETLK, F_SETLKW }, ofd[] = { F_OFD_SETLK, F_OFD_SETLKW };
	int wait = !strcmp(call, "wait"), fd = files[name][slot].fd, result;
	struct flock lk = { .l_type = random_type(unlock), .l_whence = SEEK_SET };
	struct record *r;
	int flocks = chance(posix_mostly ? 5 : 45);

	if (!flocks)
		set_random_range(&lk);
	if (wait) {
		close_others(name);
		set_timer(WAIT_MICROS);
	}
	r = begin(call, name, files[name][slot].number);
	r->asked = lk;
	if (flocks) {
		r->way = "flock";
		result = flock(fd, (unlock ? LOCK_UN : lk.l_type == F_RDLCK ? LOCK_SH : LOCK_EX) | (wait ? 0 : LOCK_NB));
	} else if (slot == 0 && chance(posix_mostly ? 95 : 60)) {
		r->way = "posix";
		result = fcntl(fd, posix[wait], &lk);
	} else {
		r->way = "ofd";
		result = fcntl(fd, ofd[wait], &lk);
	}
	end(r, result);
	if (wait) {
		set_timer(0);
		if (r->err == EINTR)
			close_file(name, slot);
	}
}

static void get_lock(int name, int slot)
{
	struct record *r = begin("getlk", name, files[name][slot].number);

	r->way = "posix";
	r->asked.l_type = random_type(0);
	set_random_range(&r->asked);
	r->answered = r->asked;
	end(r, fcntl(files[name][slot].fd, F_GETLK, &r->answered));
}

static void look(int name)
{
	struct record *r = begin("stat", name, 0);
	struct stat st;

	end(r, lstat(path(name), &st));
}

static void unlink_name(int name)
{
	struct record *r = begin("unlink", name, 0);

	end(r, unlink(path(name)));
}

/* digest makes SEEN of a record. */
static void digest(char *seen, char *text)
{
	char *line, *rest, *waiting = "";

	for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (!strncmp(line, "pid=", 4))
			seen = stpcpy(seen, line + 4);
		else if (!strncmp(line, "mode=", 5))
			seen = stpcpy(stpcpy(seen, "/"), line + 5);
		else if (!strncmp(line, "via=", 4))
			seen = stpcpy(stpcpy(stpcpy(seen, "/"), line + 4), ",");
		else if (!strncmp(line, "waiting=", 8))
			waiting = line;
	}
	strcpy(seen, waiting);
}

static void read_record(int name, int slot)
{
	static char text[8192];
	struct record *r = begin("read", name, files[name][slot].number);
	ssize_t n = end(r, pread(files[name][slot].fd, text, sizeof text - 1, 0));

	text[n < 0 ? 0 : n] = 0;
	digest(r->seen, text);
}

/* with_file makes a call on an open file. */
static void with_file(int name, int slot)
{
	int what = rand() % 100;
	struct record *r;

	if (what < (posix_mostly ? 5 : 20))
		close_file(name, slot);
	else if (what < (posix_mostly ? 20 : 50))
		lock(name, slot, "try", 0);
	else if (what < 65)
		lock(name, slot, "wait", 0);
	else if (what < 85)
		lock(name, slot, "unlock", 1);
	else if (what < 88)
		get_lock(name, slot);
	else if (what < 96)
		read_record(name, slot);
	else {
		r = begin("fsync", name, files[name][slot].number);
		end(r, fsync(files[name][slot].fd));
	}
}

static void one_call(void)
{
	int name = rand() % names, slot = chance(posix_mostly ? 90 : 50) ? 0 : 1, what = rand() % 100;

	if (what < 8)
		look(name);
	else if (what < (posix_mostly ? 8 : 12))
		unlink_name(name);
	else if (files[name][slot].number)
		with_file(name, slot);
	else if (what < (posix_mostly ? 15 : 60))
		open_file(name, slot, "excl", O_RDWR | O_CREAT | O_EXCL);
	else if (what < 85)
		open_file(name, slot, "open", O_RDWR | O_CREAT);
	else
		open_file(name, slot, "find", O_RDWR);
}

static void interrupted(int sig) { (void)sig; }

/* seed is the next process's. */
static unsigned seed;

static void process_main(int me)
{
	struct sigaction act = { .sa_handler = interrupted };
	int dies = 0;

	sigaction(SIGALRM, &act, NULL);
	srand(seed);
	while (shared->left[me] > 0 && !(dies = chance(1))) {
		shared->left[me]--;
		one_call();
	}
	shared->death[me] = begin("die", -1, 0);
	if (dies)
		kill(getpid(), SIGKILL);
	_exit(0);
}

static void print_record(const struct record *r)
{
	static const char modes[] = { [F_RDLCK] = 'r', [F_WRLCK] = 'w', [F_UNLCK] = 'u' };
	const struct flock *a = &r->asked, *g = &r->answered;
	long a_last = a->l_len ? a->l_start + a->l_len - 1 : -1;
	long g_last = g->l_len ? g->l_start + g->l_len - 1 : -1;

	printf("%d %s %d %d %s %c %ld %ld %d %d %c %ld %ld %ld %ld %s\n", (int)r->pid, r->call, r->name, r->file,
	       r->way, modes[a->l_type], (long)a->l_start, a_last, r->err, (int)g->l_pid, modes[g->l_type],
	       (long)g->l_start, g_last, r->start, r->end, r->seen);
}

int main(int argc, char **argv)
{
	pid_t pids[MAX_PROCESSES], pid;
	int processes, calls, status;

	if (argc != 6) {
		fprintf(stderr, "usage: history PATH PROCESSES NAMES CALLS SEED\n");
		return 2;
	}
	prefix = argv[1];
	processes = atoi(argv[2]);
	names = atoi(argv[3]);
	calls = atoi(argv[4]);
	seed = atoi(argv[5]) * 1000;
	posix_mostly = atoi(argv[5]) % 2;
	if (processes > MAX_PROCESSES || names > MAX_NAMES) {
		fprintf(stderr, "too many processes or names\n");
		return 2;
	}
	shared = share(sizeof *shared);
	for (int i = 0; i < processes; i++) {
		shared->left[i] = calls;
		pids[i] = spawn(process_main, i);
		seed++;
	}
	while ((pid = wait(&status)) > 0) {
		int i = 0;

		while (pids[i] != pid)
			i++;
		if (shared->death[i] == NULL) {
			fprintf(stderr, "process %d failed: status %d\n", i, status);
			return 2;
		}
		shared->death[i]->end = now();
		shared->death[i] = NULL;
		if (shared->left[i] > 0) {
			pids[i] = spawn(process_main, i);
			seed++;
		}
	}
	for (int i = 0; i < shared->records; i++)
		print_record(&shared->record[i]);
	return 0;
}
