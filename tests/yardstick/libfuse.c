// The floor once more, on libfuse's low-level API: what a C program costs that leaves the wire to a library.
//
// It answers as floor.c does, with one thread and libfuse's own defaults, so that the distance between the two is
// the library's, and a lockfs that comes out below it has nothing to be ashamed of.
//
// usage: libfuse [-n] MOUNTPOINT
//   as root; runs until the mount is taken away or SIGTERM comes
//   -n  the name lives until it is unlinked; without it, until the file is closed
//
// build: gcc -O2 libfuse.c -o libfuse $(pkg-config --cflags --libs fuse3)

#define FUSE_USE_VERSION 31

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

// The root is FUSE_ROOT_ID, and every name stands for this one file.
#define THE_FILE 2

static bool exists;
static bool until_unlinked;

static struct stat attr_of(fuse_ino_t node) {
    struct stat attr = {
        .st_ino = node,
        .st_nlink = 1,
        .st_blksize = 4096,
        .st_mode = node == FUSE_ROOT_ID ? S_IFDIR | 0777 : S_IFREG | 0666,
    };
    return attr;
}

static struct fuse_entry_param entry(void) {
    struct fuse_entry_param found = {
        .ino = THE_FILE,
        .attr = attr_of(THE_FILE),
    };
    return found;
}

static void on_getattr(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    (void)file;
    struct stat attr = attr_of(node);
    fuse_reply_attr(request, &attr, 0);
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    (void)parent;
    (void)name;
    if (!exists) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    struct fuse_entry_param found = entry();
    fuse_reply_entry(request, &found);
}

static void on_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *file) {
    (void)parent;
    (void)name;
    (void)mode;
    if (file->flags & O_EXCL) {
        exists = true;
    }
    file->fh = 1;
    file->direct_io = 1;
    struct fuse_entry_param made = entry();
    fuse_reply_create(request, &made, file);
}

static void on_open(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    (void)node;
    file->direct_io = 1;
    fuse_reply_open(request, file);
}

static void on_unlink(fuse_req_t request, fuse_ino_t parent, const char *name) {
    (void)parent;
    (void)name;
    exists = false;
    fuse_reply_err(request, 0);
}

static void on_flush(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    (void)node;
    (void)file;
    fuse_reply_err(request, 0);
}

static void on_release(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    (void)node;
    (void)file;
    if (!until_unlinked) {
        exists = false;
    }
    fuse_reply_err(request, 0);
}

static void on_flock(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file, int operation) {
    (void)node;
    (void)file;
    (void)operation;
    fuse_reply_err(request, 0);
}

// Never asked in a measurement; but without it libfuse keeps fcntl locks away from the daemon.
static void on_getlk(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file, struct flock *range) {
    (void)node;
    (void)file;
    range->l_type = F_UNLCK;
    fuse_reply_lock(request, range);
}

static void on_setlk(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file, struct flock *range, int wait) {
    (void)node;
    (void)file;
    (void)range;
    (void)wait;
    fuse_reply_err(request, 0);
}

static const struct fuse_lowlevel_ops operations = {
    .getattr = on_getattr,
    .lookup = on_lookup,
    .create = on_create,
    .open = on_open,
    .unlink = on_unlink,
    .flush = on_flush,
    .release = on_release,
    .flock = on_flock,
    .getlk = on_getlk,
    .setlk = on_setlk,
};

int main(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "n")) != -1) {
        if (option != 'n') {
            return 2;
        }
        until_unlinked = true;
    }
    if (argc - optind != 1) {
        fprintf(stderr, "usage: libfuse [-n] MOUNTPOINT\n");
        return 2;
    }
    char *library_argv[] = {argv[0], "-oallow_other", NULL};
    struct fuse_args library_args = FUSE_ARGS_INIT(2, library_argv);
    struct fuse_session *session = fuse_session_new(&library_args, &operations, sizeof operations, NULL);
    if (session == NULL) {
        return 1;
    }
    if (fuse_set_signal_handlers(session) != 0) {
        return 1;
    }
    if (fuse_session_mount(session, argv[optind]) != 0) {
        return 1;
    }
    fuse_session_loop(session);
    fuse_session_unmount(session);
    fuse_session_destroy(session);
    return 0;
}
