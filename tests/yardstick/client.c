// One program that takes and gives back one lock, over and over, with nobody in its way.
//
// Prints two numbers: microseconds per round, and how many calls failed. With any failure the first means nothing.
//
// usage: client IDIOM PATH N
//   excl    open(O_CREAT|O_EXCL) and close: the lock must be free again when close returns
//   exclu   open(O_CREAT|O_EXCL), close and unlink: for names that outlive the close
//   flock   flock(LOCK_EX) and flock(LOCK_UN) on a file that stays open
//   fcntl   fcntl(F_SETLK) with F_WRLCK and with F_UNLCK, likewise
//   stat    stat of PATH, which must exist

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *path;

// The file that the flock and fcntl rounds lock.
static int locked_file = -1;

// A round returns how many of its calls failed. The first failure is described, so that a bad run can be understood.
static int check(const char *call, int result) {
    static int complained;
    if (result >= 0) {
        return 0;
    }
    if (!complained) {
        fprintf(stderr, "client: %s %s: %s\n", call, path, strerror(errno));
        complained = 1;
    }
    return 1;
}

static int excl_round(void) {
    int file = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
    if (file < 0) {
        return check("open", file);
    }
    return check("close", close(file));
}

static int exclu_round(void) {
    int failed = excl_round();
    return failed + check("unlink", unlink(path));
}

static int flock_round(void) {
    int failed = check("flock", flock(locked_file, LOCK_EX));
    return failed + check("flock, unlocking,", flock(locked_file, LOCK_UN));
}

static int fcntl_round(void) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int failed = check("fcntl", fcntl(locked_file, F_SETLK, &whole));
    whole.l_type = F_UNLCK;
    return failed + check("fcntl, unlocking,", fcntl(locked_file, F_SETLK, &whole));
}

static int stat_round(void) {
    struct stat attr;
    return check("stat", stat(path, &attr));
}

static const struct idiom {
    const char *name;
    int (*round)(void);
    int needs_file;
} idioms[] = {
    {"excl", excl_round, 0},
    {"exclu", exclu_round, 0},
    {"flock", flock_round, 1},
    {"fcntl", fcntl_round, 1},
    {"stat", stat_round, 0},
};

static const struct idiom *find_idiom(const char *name) {
    for (size_t i = 0; i < sizeof idioms / sizeof idioms[0]; i++) {
        if (strcmp(idioms[i].name, name) == 0) {
            return &idioms[i];
        }
    }
    return NULL;
}

static double microseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

int main(int argc, char **argv) {
    const struct idiom *idiom = argc == 4 ? find_idiom(argv[1]) : NULL;
    long rounds = argc == 4 ? atol(argv[3]) : 0;
    if (idiom == NULL || rounds < 1) {
        fprintf(stderr, "usage: client excl|exclu|flock|fcntl|stat PATH N\n");
        return 2;
    }
    path = argv[2];
    if (idiom->needs_file) {
        locked_file = open(path, O_CREAT | O_RDWR, 0644);
        if (locked_file < 0) {
            check("open", locked_file);
            return 1;
        }
    }
    long failed = 0;
    double start = microseconds();
    for (long i = 0; i < rounds; i++) {
        failed += idiom->round();
    }
    double end = microseconds();
    // Closed before the figures are printed, so that whoever has read them need not wait for more.
    if (idiom->needs_file) {
        failed += check("close", close(locked_file));
    }
    printf("%.2f %ld\n", (end - start) / rounds, failed);
    return 0;
}
