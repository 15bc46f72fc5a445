/* Takes locks with O_EXCL, closes them, and takes them again at once.
 *
 *	again process|thread ROUNDS PATH...
 *
 * A process (or a thread) for each PATH takes it ROUNDS times; those with the
 * same PATH contend for it. Prints
 *
 *	taken N refused N together N wrong N
 *
 * how often a lock was taken; was refused with EEXIST; how often somebody was
 * inside already; and how often the lock's record named another process. */

#include "take.h"
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { MAX_PARTIES = 64, RECORD_EVERY = 100 };

/* What all parties see. */
static struct {
	atomic_long taken, refused, together, wrong;
	/* By the number of the first party with the same path: how many are
	 * inside, and the one who was the last to enter. */
	struct place {
		atomic_int inside;
		atomic_int last;
	} places[MAX_PARTIES];
} *shared;

static long rounds;
static char **paths;

static struct place *place_of(int party)
{
	int i = 0;

	while (strcmp(paths[i], paths[party]))
		i++;
	return &shared->places[i];
}

/* The record of the lock names its holder: this process. */
static void check_record(int fd)
{
	char buf[1024];
	ssize_t n = pread(fd, buf, sizeof buf - 1, 0);

	if (n < 0)
		fail("reading the record");
	buf[n] = 0;
	if (strncmp(buf, "pid=", 4) || atoi(buf + 4) != getpid())
		atomic_fetch_add(&shared->wrong, 1);
}

static void *contend(void *arg)
{
	int me = (int)(long)arg;
	struct place *place = place_of(me);
	long refused = 0;

	for (long i = 0; i < rounds; ) {
		int fd = open(paths[me], O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666);

		if (fd < 0 && errno == EEXIST) {
			refused++;
			continue;
		}
		if (fd < 0)
			fail(paths[me]);
		if (atomic_fetch_add(&place->inside, 1) != 0)
			atomic_fetch_add(&shared->together, 1);
		atomic_store(&place->last, me);
		if (i++ % RECORD_EVERY == 0)
			check_record(fd);
		if (atomic_load(&place->last) != me)
			atomic_fetch_add(&shared->together, 1);
		atomic_fetch_sub(&place->inside, 1);
		if (close(fd) < 0)
			fail("close");
	}
	atomic_fetch_add(&shared->taken, rounds);
	atomic_fetch_add(&shared->refused, refused);
	return NULL;
}

static void by_threads(int parties)
{
	pthread_t threads[MAX_PARTIES];

	for (long i = 0; i < parties; i++)
		if (pthread_create(&threads[i], NULL, contend, (void *)i))
			fail("pthread_create");
	for (int i = 0; i < parties; i++)
		pthread_join(threads[i], NULL);
}

static void by_processes(int parties)
{
	pid_t parent = getpid();
	int status, bad = 0;

	for (long i = 0; i < parties; i++) {
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid > 0)
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(2);
		contend((void *)i);
		_exit(0);
	}
	while (wait(&status) > 0)
		bad |= status;
	if (bad)
		exit(2);
}

int main(int argc, char **argv)
{
	int parties = argc - 3;

	if (parties < 1 || parties > MAX_PARTIES) {
		fprintf(stderr, "usage: again process|thread ROUNDS PATH...\n");
		return 2;
	}
	rounds = atol(argv[2]);
	paths = argv + 3;
	shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		fail("mmap");
	if (strcmp(argv[1], "thread"))
		by_processes(parties);
	else
		by_threads(parties);
	printf("taken %ld refused %ld together %ld wrong %ld\n",
	       shared->taken, shared->refused, shared->together, shared->wrong);
	return 0;
}
