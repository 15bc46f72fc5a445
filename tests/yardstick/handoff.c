// Many processes that all want one lock: how quickly it changes hands, how evenly, and whether it is a lock at all.
//
// N processes open PATH and, for S seconds, flock it exclusively, count, and let go. Prints four numbers: hand-overs
// per second, how often the process got in that got in least, the same of the one that got in most, and how often
// somebody came in and found another inside, which must be 0.
//
// usage: handoff PATH N S
// Exits 1 if two were inside at once, or if a process failed before its time was up.

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// What all processes see.
struct shared {
    atomic_int inside;
    atomic_long collisions;
    // How often each process got in. Written inside the lock, by its own process only.
    long entries[];
};

static const char *path;
static struct shared *shared;

static double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void fail(const char *what) {
    fprintf(stderr, "handoff: %s %s: %s\n", what, path, strerror(errno));
    _exit(1);
}

// Everybody must be ready before anybody starts, or the early ones are counted as the lucky ones: a contender says
// that it is ready by closing its end of one pipe, and starts when the other one's end is closed.
struct gate {
    int ready[2];
    int start[2];
};

static void wait_until_closed(int pipe_end) {
    char nothing;
    while (read(pipe_end, &nothing, 1) < 0 && errno == EINTR) {
    }
}

static void contend(int me, struct gate *gate, double seconds) {
    int file = open(path, O_CREAT | O_RDWR, 0644);
    if (file < 0) {
        fail("open");
    }
    close(gate->start[1]);
    close(gate->ready[1]);
    wait_until_closed(gate->start[0]);
    double end = seconds_now() + seconds;
    while (seconds_now() < end) {
        if (flock(file, LOCK_EX) != 0) {
            fail("flock");
        }
        if (atomic_fetch_add(&shared->inside, 1) != 0) {
            atomic_fetch_add(&shared->collisions, 1);
        }
        shared->entries[me]++;
        atomic_fetch_sub(&shared->inside, 1);
        if (flock(file, LOCK_UN) != 0) {
            fail("flock, unlocking,");
        }
    }
    _exit(0);
}

static void start_contender(int number, struct gate *gate, double seconds) {
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0) {
        fail("fork for");
    }
    if (pid > 0) {
        return;
    }
    // Whoever ends this program by its pid ends the contenders with it.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(1);
    }
    contend(number, gate, seconds);
}

static int all_succeeded(void) {
    int good = 1;
    int status;
    while (wait(&status) > 0) {
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            good = 0;
        }
    }
    return good;
}

int main(int argc, char **argv) {
    int contenders = argc == 4 ? atoi(argv[2]) : 0;
    double seconds = argc == 4 ? atof(argv[3]) : 0;
    if (contenders < 1 || seconds <= 0) {
        fprintf(stderr, "usage: handoff PATH N S\n");
        return 2;
    }
    path = argv[1];
    size_t size = sizeof *shared + contenders * sizeof shared->entries[0];
    shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        fail("mmap for");
    }
    struct gate gate;
    if (pipe(gate.ready) != 0 || pipe(gate.start) != 0) {
        fail("pipe for");
    }
    for (int i = 0; i < contenders; i++) {
        start_contender(i, &gate, seconds);
    }
    close(gate.ready[1]);
    wait_until_closed(gate.ready[0]);
    close(gate.start[1]);
    int good = all_succeeded();

    long sum = 0;
    long rarest = shared->entries[0];
    long busiest = 0;
    for (int i = 0; i < contenders; i++) {
        long entries = shared->entries[i];
        sum += entries;
        rarest = entries < rarest ? entries : rarest;
        busiest = entries > busiest ? entries : busiest;
    }
    long collisions = atomic_load(&shared->collisions);
    printf("%.0f %ld %ld %ld\n", sum / seconds, rarest, busiest, collisions);
    return good && collisions == 0 ? 0 : 1;
}
