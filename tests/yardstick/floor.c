// The least a FUSE lock daemon can do, to measure lockfs against.
//
// One thread reads /dev/fuse and answers; there is no library, no table, and a single name whose only state is
// whether it exists. Every lock call is granted, so this is not a lock: it is the price of the way from the caller
// through the kernel to a daemon and back, which lockfs pays too. What lockfs takes beyond it is lockfs's own.
//
// usage: floor [-n] MOUNTPOINT
//   as root; runs until the mount is taken away
//   -n  the name lives until it is unlinked; without it, until the file is closed
//
// What it tells the kernel decides how many requests a round costs, so the ratio means something only while these
// stay as they are: no caching (all timeouts 0), direct I/O, lock calls sent to the daemon, max_write 4096.

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

// The root is FUSE_ROOT_ID, and every name stands for this one file.
#define THE_FILE 2

// Later revisions lengthen the answer to INIT and offer nothing that is used here.
#define SPOKEN_MINOR 31

static int device;
static bool exists;
static bool until_unlinked;

static struct {
    struct fuse_in_header header;
    char argument[(1 << 17) - sizeof(struct fuse_in_header)];
} request;

static struct {
    struct fuse_out_header header;
    union {
        struct fuse_init_out init;
        struct fuse_attr_out attr;
        struct fuse_entry_out entry;
        struct fuse_open_out open;
        struct {
            struct fuse_entry_out entry;
            struct fuse_open_out open;
        } create;
    } body;
} answer;

// Sends the first body_size bytes of answer.body; error is an errno value or 0.
static void reply(int error, size_t body_size) {
    answer.header.len = sizeof answer.header + body_size;
    answer.header.error = -error;
    answer.header.unique = request.header.unique;
    ssize_t sent = write(device, &answer, answer.header.len);
    // ENOENT: the caller was killed meanwhile and nobody waits for this answer.
    if (sent < 0 && errno != ENOENT) {
        perror("floor: answering a request");
    }
}

static void fill_attr(struct fuse_attr *attr, uint64_t node) {
    attr->ino = node;
    attr->nlink = 1;
    attr->blksize = 4096;
    attr->mode = node == FUSE_ROOT_ID ? S_IFDIR | 0777 : S_IFREG | 0666;
}

static void fill_entry(struct fuse_entry_out *entry) {
    entry->nodeid = THE_FILE;
    fill_attr(&entry->attr, THE_FILE);
}

static void on_init(void) {
    const struct fuse_init_in *offered = (const void *)request.argument;
    struct fuse_init_out *agreed = &answer.body.init;
    agreed->major = FUSE_KERNEL_VERSION;
    agreed->minor = offered->minor < SPOKEN_MINOR ? offered->minor : SPOKEN_MINOR;
    agreed->flags = FUSE_FLOCK_LOCKS | FUSE_POSIX_LOCKS;
    agreed->max_write = 4096;
    agreed->max_background = 1024;
    agreed->congestion_threshold = 768;
    agreed->time_gran = 1;
    reply(0, sizeof *agreed);
}

static void on_lookup(void) {
    if (!exists) {
        reply(ENOENT, 0);
        return;
    }
    fill_entry(&answer.body.entry);
    reply(0, sizeof answer.body.entry);
}

static void on_create(void) {
    const struct fuse_create_in *create = (const void *)request.argument;
    // Only O_EXCL makes the name: a flock loop on a name that was made would be spared the CREATE it starts with.
    if (create->flags & O_EXCL) {
        exists = true;
    }
    fill_entry(&answer.body.create.entry);
    answer.body.create.open.fh = 1;
    answer.body.create.open.open_flags = FOPEN_DIRECT_IO;
    reply(0, sizeof answer.body.create);
}

static void on_open(void) {
    if (request.header.nodeid == THE_FILE) {
        answer.body.open.open_flags = FOPEN_DIRECT_IO;
    }
    reply(0, sizeof answer.body.open);
}

static void on_getattr(void) {
    fill_attr(&answer.body.attr.attr, request.header.nodeid);
    reply(0, sizeof answer.body.attr);
}

static void on_release(void) {
    if (!until_unlinked) {
        exists = false;
    }
    reply(0, 0);
}

static void on_unlink(void) {
    exists = false;
    reply(0, 0);
}

// Answers the request that was read. Returns false after the last one.
static bool serve(void) {
    memset(&answer, 0, sizeof answer);
    switch (request.header.opcode) {
    case FUSE_INIT:
        on_init();
        break;
    case FUSE_LOOKUP:
        on_lookup();
        break;
    case FUSE_CREATE:
        on_create();
        break;
    case FUSE_OPEN:
    case FUSE_OPENDIR:
        on_open();
        break;
    case FUSE_GETATTR:
        on_getattr();
        break;
    case FUSE_RELEASE:
        on_release();
        break;
    case FUSE_UNLINK:
        on_unlink();
        break;
    case FUSE_SETLK:
    case FUSE_SETLKW:
    case FUSE_FLUSH:
    case FUSE_RELEASEDIR:
        reply(0, 0);
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        // These have no answer.
        break;
    case FUSE_DESTROY:
        reply(0, 0);
        return false;
    default:
        reply(ENOSYS, 0);
    }
    return true;
}

static bool attach(const char *mountpoint) {
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        perror("floor: /dev/fuse");
        return false;
    }
    char options[100];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
    if (mount("floor", mountpoint, "fuse.floor", MS_NOSUID | MS_NODEV, options) != 0) {
        fprintf(stderr, "floor: mount on %s: %s\n", mountpoint, strerror(errno));
        return false;
    }
    return true;
}

int main(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "n")) != -1) {
        if (option != 'n') {
            return 2;
        }
        until_unlinked = true;
    }
    if (argc - optind != 1) {
        fprintf(stderr, "usage: floor [-n] MOUNTPOINT\n");
        return 2;
    }
    if (!attach(argv[optind])) {
        return 1;
    }
    bool more = true;
    while (more) {
        ssize_t size = read(device, &request, sizeof request);
        if (size >= 0) {
            more = serve();
        } else if (errno == ENODEV) {
            // Unmounted.
            more = false;
        } else if (errno != EINTR && errno != EAGAIN && errno != ENOENT) {
            perror("floor: reading a request");
            return 1;
        }
    }
    return 0;
}
