/* What the programs have in common whose processes take the same locks at several
 * places: on mounts over one backing directory, and in that directory itself. To be
 * included after take.h, children.h and must.h.
 *
 *	PROGRAM PROCESSES SECONDS BACKING MOUNT... */

enum { MAX_PLACES = 8 };

static const char *places[MAX_PLACES]; /* the first is the backing directory */
static int how_many;

static struct {
	atomic_int ready, stop;
} *phase;

static void (*one_round)(void);

static void rounds(int number)
{
	me = number;
	srand(getpid());
	while (!atomic_load(&phase->ready))
		usleep(1000);
	while (!atomic_load(&phase->stop))
		one_round();
}

/* at_places has processes call round for a while, as the command line says. It returns
 * 0, or what the program is to exit with. */
static int at_places(int argc, char **argv, void (*round)(void))
{
	int processes;

	if (argc < 5 || argc > 3 + MAX_PLACES) {
		fprintf(stderr, "usage: %s PROCESSES SECONDS BACKING MOUNT...\n", argv[0]);
		return 2;
	}
	processes = atoi(argv[1]);
	for (how_many = 0; how_many < argc - 3; how_many++)
		places[how_many] = argv[3 + how_many];
	phase = share(sizeof *phase);
	one_round = round;
	for (int i = 0; i < processes; i++)
		spawn(rounds, i);
	atomic_store(&phase->ready, 1);
	return await_children(atof(argv[2]), &phase->ready, &phase->stop) ? 1 : 0;
}
