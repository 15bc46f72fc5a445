/* Calls of all kinds with arguments that make no sense, at random.
 *
 *	misuse DIR SECONDS SEED
 *
 * Makes them in DIR, where nothing is its own. Prints how many calls it made.
 * None may hang: a wait for a lock is ended by an alarm. */

#include "take.h"
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>

enum { FILES = 16 };

static int files[FILES];
static char buffer[1 << 20];

static long pick(const long *list, size_t n) { return list[(size_t)rand() % n]; }
#define PICK(...) pick((const long[]){ __VA_ARGS__ }, sizeof((const long[]){ __VA_ARGS__ }) / sizeof(long))

static long word(void)
{
	return PICK(0, 1, 2, -1, 7, 4095, 4096, 4097, 1 << 20, 0x7fffffffL, 0x80000000L, 0xffffffffL,
		    0x7fffffffffffffffL, -0x7fffffffffffffffL - 1, -4096, rand(), (long)rand() << 32);
}

static int file(void) { return files[rand() % FILES]; }

/* name returns a path in the directory that the process is in. */
static const char *name(void)
{
	static char buf[2][5000];
	static int turn;
	char *b = buf[turn ^= 1];
	int length = 0;

	switch (rand() % 16) {
	case 0: return "";
	case 1: return ".";
	case 2: return "..";
	case 3: return ".lockfs";
	case 4: return rand() % 2 ? ".lockfs/version" : ".lockfs/policy/hold";
	case 5: return ".go-fuse-epoll-hack";
	case 6: return "roots";
	case 7: return "bobs";
	case 8: return "roots/inside";
	case 9: length = 255; break;
	case 10: length = 256; break;
	case 11: length = 4200; break;
	case 12:
		for (length = rand() % 40 + 1; length > 0; length--)
			*b++ = rand() % 255 + 1;
		*b = 0;
		return buf[turn];
	default:
		b[0] = 'a' + rand() % 4;
		b[1] = 0;
		return b;
	}
	memset(b, 'x', length);
	b[length] = 0;
	return b;
}

static void keep(int fd)
{
	int i = rand() % FILES;

	if (fd < 0)
		return;
	if (files[i] >= 0)
		close(files[i]);
	files[i] = fd;
}

static void open_something(void)
{
	int flags = PICK(O_RDONLY, O_WRONLY, O_RDWR, 3);

	for (int i = rand() % 4; i > 0; i--)
		flags |= PICK(O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NONBLOCK, O_DIRECTORY, O_PATH, O_TMPFILE, O_DIRECT,
			      O_SYNC, O_DSYNC, O_NOATIME, O_NOFOLLOW, O_ASYNC, O_NOCTTY, O_CREAT | O_EXCL, rand());
	if (rand() % 3 == 0)
		flags = O_RDWR | O_CREAT | (rand() % 2 ? O_EXCL : 0);
	keep(open(name(), flags | O_CLOEXEC, (mode_t)word()));
}

static void lock_something(void)
{
	struct flock lk = {
		.l_type = PICK(F_RDLCK, F_WRLCK, F_UNLCK, F_WRLCK, 3, -1),
		.l_whence = PICK(SEEK_SET, SEEK_SET, SEEK_CUR, SEEK_END, 9),
		.l_start = word(), .l_len = word(), .l_pid = rand() % 4 ? 0 : (pid_t)word(),
	};

	if (rand() % 2)
		lk.l_start = rand() % 10;
	if (rand() % 2)
		lk.l_len = rand() % 10;
	switch (rand() % 3) {
	case 0:
		flock(file(), PICK(LOCK_SH, LOCK_EX, LOCK_UN, LOCK_SH | LOCK_NB, LOCK_EX | LOCK_NB, LOCK_MAND, 0, word()));
		break;
	case 1:
		lk.l_pid = 0;
		fcntl(file(), PICK(F_OFD_SETLK, F_OFD_SETLKW, F_OFD_GETLK), &lk);
		break;
	default:
		fcntl(file(), PICK(F_SETLK, F_SETLKW, F_GETLK, F_OFD_SETLK), &lk);
	}
}

static void change_names(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int s;

	switch (rand() % 9) {
	case 0: mknod(name(), PICK(S_IFIFO, S_IFREG, S_IFSOCK, S_IFCHR, S_IFBLK, S_IFDIR, word()) | 0666, (dev_t)word()); break;
	case 1: mkdir(name(), (mode_t)word()); break;
	case 2: rmdir(name()); break;
	case 3: link(name(), name()); break;
	case 4: symlink(name(), name()); break;
	case 5: rename(name(), name()); break;
	case 6: syscall(SYS_renameat2, AT_FDCWD, name(), AT_FDCWD, name(), PICK(1, 2, 4, 3, word())); break;
	case 7: unlinkat(AT_FDCWD, name(), PICK(0, AT_REMOVEDIR)); break;
	case 8:
		s = socket(AF_UNIX, SOCK_STREAM, 0);
		snprintf(address.sun_path, sizeof address.sun_path, "%.90s", name());
		bind(s, (struct sockaddr *)&address, sizeof address);
		close(s);
	}
}

static void change_attributes(void)
{
	struct timespec times[2] = { { word(), word() }, { rand(), PICK(UTIME_NOW, UTIME_OMIT, 0, 5) } };

	switch (rand() % 9) {
	case 0: chmod(name(), (mode_t)word()); break;
	case 1: fchmod(file(), (mode_t)word()); break;
	case 2: lchown(name(), (uid_t)word(), (gid_t)word()); break;
	case 3: fchown(file(), (uid_t)word(), (gid_t)word()); break;
	case 4: truncate(name(), word()); break;
	case 5: ftruncate(file(), word()); break;
	case 6: utimensat(AT_FDCWD, name(), times, PICK(0, AT_SYMLINK_NOFOLLOW)); break;
	case 7: fallocate(file(), (int)PICK(0, 1, 3, 8, 0x10, word()), word(), word()); break;
	case 8: setxattr(name(), rand() % 2 ? "user.x" : "system.posix_acl_access", buffer, rand() % 100, 0); break;
	}
}

static void look_around(void)
{
	struct stat st;
	struct statvfs fs;
	char target[10];

	switch (rand() % 10) {
	case 0: lstat(name(), &st); break;
	case 1: fstat(file(), &st); break;
	case 2: fstatat(file(), name(), &st, AT_EMPTY_PATH); break;
	case 3: readlink(name(), target, sizeof target); break;
	case 4: access(name(), (int)PICK(R_OK, W_OK, X_OK, 7, F_OK, word())); break;
	case 5: statvfs(name(), &fs); break;
	case 6: getxattr(name(), "user.x", buffer, rand() % 100); break;
	case 7: listxattr(name(), buffer, sizeof buffer); break;
	case 8: removexattr(name(), "user.x"); break;
	case 9: execl(name(), "x", (char *)NULL); break;
	}
}

static void list_from_anywhere(void)
{
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	lseek(fd, word(), SEEK_SET);
	for (int i = rand() % 3; i >= 0; i--)
		syscall(SYS_getdents64, fd, buffer, PICK(0, 1, 24, 32, 100, 4096, 1 << 20));
	close(fd);
}

/* read_and_write never touches a mapping itself: what it reads from one is for
 * the kernel to fetch, which fails where this process would be killed. */
static void read_and_write(void)
{
	struct iovec v[3] = { { buffer, rand() % 5000 }, { buffer, 0 }, { buffer, rand() % 100000 } };
	int null;
	void *map;

	switch (rand() % 12) {
	case 0: pread(file(), buffer, rand() % sizeof buffer, word()); break;
	case 1: pwrite(file(), buffer, PICK(0, 1, 5, 4096, 4097, 1 << 20), rand() % 3 ? rand() % 5000 : word()); break;
	case 2: readv(file(), v, 3); break;
	case 3: writev(file(), v, 3); break;
	case 4: lseek(file(), word(), (int)PICK(0, 1, 2, 3, 4, 9)); break;
	case 5: fsync(file()); break;
	case 6: fdatasync(file()); break;
	case 7: sendfile(file(), file(), NULL, rand() % 10000); break;
	case 8: copy_file_range(file(), NULL, file(), NULL, rand() % 10000, 0); break;
	case 9: sync_file_range(file(), word(), word(), 7); break;
	case 10: posix_fadvise(file(), word(), word(), (int)PICK(0, 1, 2, 3, 4, 5)); break;
	case 11:
		map = mmap(NULL, 8192, PICK(PROT_READ, PROT_READ | PROT_WRITE), PICK(MAP_SHARED, MAP_PRIVATE, MAP_SHARED_VALIDATE), file(), PICK(0, 4096, word() & ~4095L));
		if (map == MAP_FAILED)
			break;
		null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		vmsplice(null, &(struct iovec){ map, 8192 }, 1, 0);
		write(null, map, 8192);
		madvise(map, 8192, MADV_WILLNEED);
		munmap(map, 8192);
		close(null);
	}
}

static void interrupted(int sig) { (void)sig; }

/* end_waits has every wait of this process end soon. */
static void end_waits(void)
{
	struct sigaction act = { .sa_handler = interrupted };
	struct itimerval often = { { .tv_usec = 3000 }, { .tv_usec = 3000 } };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
}

static void ask_strange_things(void)
{
	struct pollfd p = { .fd = file(), .events = (short)rand() };
	int fd;
	pid_t pid;

	switch (rand() % 8) {
	case 0: ioctl(file(), PICK(FIONREAD, FIOCLEX, 0x80086601, 0x40086602, 0xc0185879, word()), buffer); break;
	case 1: poll(&p, 1, 0); break;
	case 2: fcntl(file(), (int)PICK(F_SETLEASE, F_GETLEASE, F_NOTIFY, F_SETFL, F_GETFL, F_SETOWN, F_SETSIG, F_ADD_SEALS), PICK(F_RDLCK, F_WRLCK, F_UNLCK, O_NONBLOCK, O_APPEND, O_DIRECT)); break;
	case 3:
		fd = inotify_init1(IN_CLOEXEC);
		inotify_add_watch(fd, name(), IN_ALL_EVENTS);
		close(fd);
		break;
	case 4: keep(dup(file())); break;
	case 5:
		snprintf(buffer, 100, "/proc/self/fd/%d", file());
		keep(open(buffer, (int)PICK(O_RDONLY, O_RDWR, O_RDWR | O_TRUNC) | O_CLOEXEC));
		break;
	case 6:
		pid = fork();
		if (pid == 0) {
			end_waits();
			for (int i = 0; i < 3; i++)
				lock_something();
			_exit(0);
		}
		waitpid(pid, NULL, 0);
		break;
	case 7: {
		struct { struct file_handle handle; char room[128]; } h = { .handle = { .handle_bytes = 128 } };
		int id;

		if (name_to_handle_at(AT_FDCWD, name(), &h.handle, &id, 0) == 0)
			open_by_handle_at(file(), &h.handle, O_RDWR);
	}
	}
}

int main(int argc, char **argv)
{
	static void (*const all[])(void) = {
		open_something, open_something, lock_something, lock_something, change_names, change_attributes,
		look_around, list_from_anywhere, read_and_write, ask_strange_things,
	};
	struct rlimit no_core = { 0, 0 };
	time_t end;
	long calls = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: misuse DIR SECONDS SEED\n");
		return 2;
	}
	if (chdir(argv[1]) < 0)
		fail(argv[1]);
	srand(atoi(argv[3]));
	memset(files, -1, sizeof files);
	setrlimit(RLIMIT_CORE, &no_core);
	signal(SIGIO, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	end_waits();
	for (end = time(NULL) + atoi(argv[2]); time(NULL) < end; calls++) {
		if (rand() % 8 == 0 && file() >= 0)
			close_range(3 + rand() % 20, 3 + rand() % 20, 0);
		all[rand() % (sizeof all / sizeof all[0])]();
	}
	printf("%ld\n", calls);
	return 0;
}
