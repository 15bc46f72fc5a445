# Makes the system calls of the cases in posixdir_test.go and says what each of
# them came to.
# usage: posixdir.py DIRECTORY UID CASES    CASES as JSON, [[name, text], ...];
# on standard output [[line, ...], ...]
#
# Each case runs in a process and a directory of its own, which is UID's, as a
# text of Python in which there are the functions below. What is different each
# time is shown so that it can be compared: descriptors and inode numbers in the
# order in which they came up, times as what has become later since the last look.
import ctypes, ctypes.util, errno, fcntl, json, mmap, os, select, stat as modes, sys, time

libc = ctypes.CDLL(None, use_errno=True)
lines, inodes, seen = [], {}, {}
descriptors = 0


class Descriptor(int):
    pass


def shown(value):
    if isinstance(value, Descriptor):
        return value.name
    if isinstance(value, (bytes, str)) and len(value) > 60:
        return "%r... (%d)" % (value[:20], len(value))
    return repr(value)


def note(what, result):
    lines.append("%s = %s" % (what, result))


def call(name, function, *args, told=None):
    """Makes a call and notes its outcome: what told makes of the result. It
    returns the result, None for an error."""
    global descriptors
    what = "%s(%s)" % (name, ", ".join(map(shown, args)))
    try:
        result = function(*args)
    except OSError as e:
        note(what, errno.errorcode[e.errno])
        return None
    if told == "descriptor":
        descriptors += 1
        result = Descriptor(result)
        result.name = "fd%d" % descriptors
    note(what, told(result) if callable(told) else shown(result))
    return result


def function(name, f, told=None):
    globals()[name] = lambda *args: call(name, f, *args, told=told)


def checked(result):
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))
    return result


for name in """access chdir chmod chown fchmod fchown fdatasync fsync ftruncate lchown link lseek mkdir mkfifo
        mknod pread pwrite read readlink removexattr rename rmdir setxattr symlink truncate unlink write sendfile
        copy_file_range""".split():
    function(name, getattr(os, name))
function("close", os.close)
function("listdir", lambda path=".": sorted(os.listdir(path)))
function("getxattr", os.getxattr)
function("listxattr", os.listxattr)
function("posix_fallocate", os.posix_fallocate)
function("flock", fcntl.flock)
function("lockf", lambda fd, how, length=0, start=0: fcntl.lockf(fd, how, length, start))
function("setfl", lambda fd, flags: fcntl.fcntl(fd, fcntl.F_SETFL, flags))
function("fallocate", lambda fd, mode, at, n: checked(libc.fallocate(fd, mode, ctypes.c_long(at), ctypes.c_long(n))))
function("eaccess", lambda path, mode: os.access(path, mode, effective_ids=True))
function("writev", lambda fd, *parts: os.writev(fd, parts))
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x200, 0x400, 0x1000
NOREPLACE, EXCHANGE = 1, 2
function("renameat2", lambda old, new, flags: checked(
    libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)))
function("linkat", lambda fd, old, new, flags: checked(
    libc.linkat(fd, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)))
function("unlinkat", lambda path, flags: checked(libc.unlinkat(AT_FDCWD, os.fsencode(path), flags)))
R, W, RW = os.O_RDONLY, os.O_WRONLY, os.O_RDWR
CREAT, EXCL, TRUNC, APPEND = os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND
NOFOLLOW, DIRECTORY, PATH, TMPFILE = os.O_NOFOLLOW, os.O_DIRECTORY, os.O_PATH, os.O_TMPFILE
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2


def open(path, flags=CREAT | RW, mode=0o666):
    return call("open", os.open, path, flags, mode, told="descriptor")


def dup(fd):
    return call("dup", os.dup, fd, told="descriptor")


class timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_long), ("nsec", ctypes.c_long)]


def utimens(path, atime, mtime, flags=0):
    """path may be a descriptor; a time is (seconds, nanoseconds), NOW or OMIT."""

    def set(path, atime, mtime, flags):
        times = (timespec * 2)(*[timespec(*t) if isinstance(t, tuple) else timespec(0, t) for t in (atime, mtime)])
        if isinstance(path, int):
            return checked(libc.futimens(path, times))
        return checked(libc.utimensat(AT_FDCWD, os.fsencode(path), times, flags))

    call("utimens", set, path, atime, mtime, flags)


def create(path, text="", mode=0o666):
    """Makes an ordinary file, which nobody holds; nothing to note."""
    fd = os.open(path, CREAT | W | TRUNC, mode)
    os.write(fd, text.encode())
    os.close(fd)


def cat(path):
    def contents(path):
        fd = os.open(path, R)
        try:
            return os.read(fd, 1 << 16)
        finally:
            os.close(fd)

    own = b"%d\n" % os.getpid()
    call("cat", contents, path, told=lambda text: "own pid" if text == own else shown(text))


def described(st):
    kind = {modes.S_IFREG: "file", modes.S_IFDIR: "directory", modes.S_IFLNK: "symlink", modes.S_IFIFO: "fifo",
            modes.S_IFSOCK: "socket"}[modes.S_IFMT(st.st_mode)]
    number = inodes.setdefault(st.st_ino, len(inodes) + 1)
    size = "" if kind == "directory" else " size=%d" % st.st_size
    return "%s %o links=%d %d:%d%s #%d" % (kind, modes.S_IMODE(st.st_mode), st.st_nlink, st.st_uid, st.st_gid, size, number)


def stat(path):
    call("stat", os.stat, path, told=described)


def lstat(path):
    call("lstat", os.lstat, path, told=described)


def modified(path):
    call("modified", os.stat, path, told=lambda st: "%d %d" % (st.st_atime_ns, st.st_mtime_ns))


def later(path):
    """Which of the times have become later since the last call, and lets time
    pass."""
    def told(st):
        now = {"atime": st.st_atime_ns, "mtime": st.st_mtime_ns, "ctime": st.st_ctime_ns}
        old = seen.get(path)
        seen[path] = now
        return " ".join(k for k in now if old and now[k] > old[k]) or "-"

    call("later", os.lstat, path, told=told)
    time.sleep(0.012)


def entries(path="."):
    """What getdents says of each entry agrees with stat."""
    def agree(path):
        found = []
        with os.scandir(path) as all:
            for e in all:
                st = e.stat(follow_symlinks=False)
                kind = "directory" if e.is_dir(follow_symlinks=False) else "symlink" if e.is_symlink() else "other"
                found.append((e.name, kind, e.inode() == st.st_ino))
        return sorted(found)

    call("entries", agree, path)


def rewound(path, change):
    """What a second reading of an open directory finds after a change."""
    libc.opendir.restype = libc.readdir64.restype = ctypes.c_void_p
    d = ctypes.c_void_p(libc.opendir(os.fsencode(path)))

    def names():
        found = []
        while (e := libc.readdir64(d)) is not None:
            found.append(os.fsdecode(ctypes.string_at(e + 19)))
        return sorted(found)

    note("opendir %r" % path, names())
    change()
    libc.rewinddir(d)
    note("rewinddir", names())
    libc.closedir(d)


def namemax(path):
    call("statvfs", os.statvfs, path, told=lambda v: "namemax=%d" % v.f_namemax)


def become(uid, gid=None, groups=()):
    """Changes the effective user."""
    os.seteuid(0)
    os.setgroups(groups)
    os.setegid(uid if gid is None else gid)
    os.seteuid(uid)
    lines.append("as %d:%d %s" % (uid, uid if gid is None else gid, list(groups)))


def run(text, directory, uid):
    os.mkdir(directory)
    os.chown(directory, uid, uid)
    r, w = os.pipe()
    if os.fork() == 0:
        try:
            os.dup2(2, 1)
            os.umask(0o022)
            if uid != 0:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
            os.chdir(directory)
            exec(text, globals())
        except BaseException as e:
            lines.append("unexpected: %r" % e)
        os.write(w, json.dumps(lines).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as f:
        text = f.read()
    os.wait()
    return json.loads(text) if text else ["no answer"]


if __name__ == "__main__":
    top, uid, cases = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    json.dump([run(text, "%s/%d-%d" % (top, uid, i), uid) for i, (_, text) in enumerate(cases)], sys.stdout)
