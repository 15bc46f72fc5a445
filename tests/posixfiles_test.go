package tests

// This file is what [TestASmallPOSIXDirectory] does to files.

var posixFileCases = []posixCase{
	{name: "modes of what is made", text: `
for mask in 0, 0o22, 0o77, 0o777:
    os.umask(mask)
    open("f%o" % mask, CREAT | RW, 0o666); stat("f%o" % mask)
    open("x%o" % mask, CREAT | EXCL | RW, 0o751); stat("x%o" % mask)
    mkdir("d%o" % mask, 0o777); stat("d%o" % mask)
    symlink("somewhere", "s%o" % mask); lstat("s%o" % mask)
fd = open("none", CREAT | RW, 0); stat("none"); write(fd, b"x")
open("none", W)
`},
	{name: "chmod", text: `
create("f")
for mode in 0, 0o400, 0o644, 0o777, 0o751:
    chmod("f", mode); stat("f")
fd = open("f", R); fchmod(fd, 0o600); stat("f")
symlink("f", "s"); chmod("s", 0o640); stat("f"); lstat("s")
chmod("missing", 0o600); chmod("f/x", 0o600); chmod("", 0)
mkdir("d", 0o700); chmod("d", 0o755); stat("d")
`},
	{name: "set-ID and sticky bits of files", text: `
create("f", mode=0o755)
chmod("f", 0o4755); stat("f")
chmod("f", 0o2755); stat("f")
chmod("f", 0o1755); stat("f")
open("g", CREAT | RW, 0o6777); stat("g")
`, differs: []difference{
		{`stat('f') = file 4755 links=1 U:U size=0 #1`, `stat('f') = file 755 links=1 U:U size=0 #1`, noSetID},
		{`stat('f') = file 2755 links=1 U:U size=0 #1`, `stat('f') = file 755 links=1 U:U size=0 #1`, noSetID},
		{`stat('g') = file 6755 links=1 U:U size=0 #2`, `stat('g') = file 755 links=1 U:U size=0 #2`, noSetID},
		{`stat('f') = file 1755 links=1 U:U size=0 #1`, `stat('f') = file 755 links=1 U:U size=0 #1`, noSticky},
	}},
	{name: "modes decide, for the owner too", text: `
create("f", "text")
for mode in 0, 0o100, 0o200, 0o400, 0o600, 0o777, 0o077:
    chmod("f", mode)
    for flags in R, W, RW, R | TRUNC, CREAT | R, CREAT | RW:
        open("f", flags)
    for want in 0, os.R_OK, os.W_OK, os.X_OK, os.R_OK | os.W_OK:
        access("f", want); eaccess("f", want)
    truncate("f", 2)
`},
	{name: "chown", text: `
create("f")
chown("f", -1, -1); stat("f")
chown("f", os.geteuid(), os.getegid()); stat("f")
chown("f", -1, os.getegid()); stat("f")
chown("f", 2, -1); stat("f")
create("g"); chown("g", -1, 2); stat("g")
symlink("g", "s"); lchown("s", 1, 1); lstat("s"); stat("s")
fd = open("g", R); fchown(fd, 1, 1); stat("g")
chown("missing", 1, 1)
mkdir("d"); chown("d", 1, 1); stat("d")
`},
	{name: "two users", text: `
if os.getuid() == 0:
    os.chmod(".", 0o777)
    become(1); create("f", "hers", 0o640)
    become(2); open("f", R); open("f", W); chmod("f", 0o666); chown("f", 2, 2); chown("f", -1, -1)
    truncate("f", 0); access("f", os.R_OK)
    eaccess("f", os.R_OK); eaccess("f", os.W_OK)
    utimens("f", NOW, NOW); utimens("f", (1, 0), (1, 0)); utimens("f", OMIT, OMIT); utimens("f", NOW, OMIT)
    become(2, 1); open("f", R); open("f", W); eaccess("f", os.R_OK); eaccess("f", os.W_OK)
    become(2, 2, [1]); open("f", R); open("f", W); eaccess("f", os.R_OK)
    become(1); chmod("f", 0o604); become(2); open("f", R); become(2, 1); open("f", R); become(2, 2, [1])
    open("f", R)
    become(1); chmod("f", 0o646); become(2); utimens("f", NOW, NOW); utimens("f", (1, 0), (1, 0))
    utimens("f", NOW, OMIT)
    fd = open("f", R); utimens(fd, NOW, NOW); fchmod(fd, 0o600); fchown(fd, 2, 2); stat("f")
    fd = open("f", W); write(fd, b"bob's"); cat("f"); ftruncate(fd, 2); stat("f")
stat(".")
`},
	{name: "groups of one's own", text: `
if os.getuid() == 0:
    os.chmod(".", 0o777)
    become(1, 1, [5, 6]); create("f")
    chown("f", -1, 5); stat("f"); chown("f", 1, 6); stat("f"); chown("f", -1, 1); stat("f"); chown("f", -1, 7)
    stat("f")
    fd = open("f"); fchown(fd, -1, 6); stat("f")
    become(2, 2, [5]); chown("f", -1, 5)
stat(".")
`},
	{name: "directories decide who looks and makes", text: `
if os.getuid() == 0:
    os.chmod(".", 0o777); top = os.getcwd()
    become(2); create("mine"); become(1); mkdir("d", 0o755); create("d/f", "text"); create("d/g")
    for mode in 0o755, 0o754, 0o751, 0o750, 0o700:
        become(1); chmod("d", mode); become(2)
        listdir("d"); cat("d/f"); stat("d/f"); open("d/new"); open("d/f", CREAT | R); mkdir("d/sub")
        symlink("x", "d/s")
        link("mine", "d/l"); rename("d/f", "d/r"); rename("d/f", "r"); unlink("d/f"); rmdir("d/missing")
        access("d", os.X_OK); eaccess("d", os.R_OK)
        chdir("d"); open("x"); os.chdir(top); unlink("x"); open("d", R); open("d", PATH)
    become(1); chmod("d", 0o000); listdir("d"); open("d/x"); stat("d/f"); chdir("d")
    chmod("d", 0o500); listdir("d"); open("d/x"); unlink("d/g"); cat("d/f")
    chmod("d", 0o300); listdir("d"); open("d/x"); unlink("d/g"); cat("d/f")
stat(".")
`},
	{name: "times of what is done to a file", text: `
create("f"); later("f")
fd = open("f", RW); later("f")
read(fd, 10); later("f")
write(fd, b""); later("f")
write(fd, b"text"); later("f")
pwrite(fd, b"x", 1); later("f")
read(fd, 1); later("f")
ftruncate(fd, 2); later("f")
ftruncate(fd, 2); later("f")
truncate("f", 2); later("f")
truncate("f", 1); later("f")
open("f", R); later("f")
open("f", W | TRUNC); later("f")
open("f", W | TRUNC); later("f")
open("f", CREAT | W | TRUNC); later("f")
chmod("f", 0o600); later("f")
chmod("f", 0o600); later("f")
chown("f", -1, -1); later("f")
chown("f", os.geteuid(), os.getegid()); later("f")
link("f", "g"); later("f")
rename("f", "h"); seen["h"] = seen["f"]; later("h")
unlink("g"); later("h")
access("h", os.R_OK); later("h")
cat("h"); later("h")
fsync(fd); later("h")
`},
	{name: "times of what is done in a directory", text: `
mkdir("d"); later("d")
create("d/f"); later("d")
create("d/f", "again"); later("d")
listdir("d"); later("d")
link("d/f", "d/g"); later("d")
rename("d/g", "d/h"); later("d")
rename("d/h", "d/f"); later("d")
rename("d/f", "d/f"); later("d")
unlink("d/h"); later("d")
symlink("x", "d/s"); later("d")
unlink("d/s"); later("d")
mkdir("d/e"); later("d")
create("d/e/f"); later("d")
unlink("d/e/f"); later("d")
rmdir("d/e"); later("d")
mkdir("d/f"); later("d")
unlink("d/missing"); later("d")
chmod("d", 0o700); later("d")
mkdir("e"); later("e"); later("d")
rename("d/f", "e/f"); later("e"); later("d")
rename("e", "d/e"); seen["d/e"] = seen["e"]; later("d/e"); later("d")
`},
	{name: "setting times", text: `
create("f")
for path in "f", open("f", R), open("f", W):
    utimens(path, (1000, 5), (2000, 999999999)); modified("f"); later("f")
    utimens(path, OMIT, (3000, 1)); modified("f"); later("f")
    utimens(path, (4000, 1), OMIT); modified("f"); later("f")
    utimens(path, OMIT, OMIT); modified("f"); later("f")
    utimens(path, OMIT, NOW); later("f")
    utimens(path, NOW, OMIT); later("f")
    utimens(path, NOW, NOW); later("f")
    utimens(path, (0, 0), (0, 0)); modified("f")
utimens("f", (-2, 500000000), (-1, 0)); modified("f")
utimens("f", (1, 1000000000), (1, 0)); utimens("missing", NOW, NOW)
utimens("f", (1 << 33, 0), (1 << 32, 7)); modified("f")
symlink("f", "s"); utimens("s", (7, 7), (8, 8), AT_SYMLINK_NOFOLLOW); lstat("s"); modified("f")
call("lstat", os.lstat, "s", told=lambda st: "%d %d" % (st.st_atime_ns, st.st_mtime_ns))
mkdir("d"); utimens("d", (7, 7), (8, 8)); modified("d"); later("d"); later("d")
create("d/f"); later("d")
`},
	{name: "times that are far away", text: `
create("f")
utimens("f", (1 << 34, 5), (1 << 34, 5)); modified("f")
utimens("f", (-1 << 34, 5), (-1 << 34, 5)); modified("f")
`, differs: []difference{
		{`modified('f') = 17179869184000000005 17179869184000000005`, `modified('f') = 9223372036000000000 9223372036000000000`, inNanoseconds},
		{`modified('f') = -17179869183999999995 -17179869183999999995`, `modified('f') = -9223372036000000000 -9223372036000000000`, inNanoseconds},
	}},
	{name: "truncating, up and down", text: `
create("f", "0123456789")
truncate("f", 4); cat("f"); stat("f")
truncate("f", 8); cat("f"); stat("f")
truncate("f", 0); cat("f"); stat("f")
truncate("f", 4096); stat("f"); truncate("f", 1); cat("f")
truncate("f", -1); truncate("missing", 0); truncate(".", 0); mkdir("d"); truncate("d", 0); truncate("d/", 0)
truncate("f/", 0)
fd = open("f", R); ftruncate(fd, 0)
fd = open("f", W); ftruncate(fd, 3); ftruncate(fd, -1); cat("f"); write(fd, b"abcdef"); ftruncate(fd, 3)
write(fd, b"g"); cat("f"); stat("f")
open("f", W | TRUNC); stat("f")
symlink("f", "s"); truncate("s", 2); stat("f"); open("s", W | TRUNC); stat("f")
truncate("f", 4097); stat("f")
`, differs: []difference{
		{`truncate('f', 4097) = None`, `truncate('f', 4097) = EFBIG`, smallBodies},
		{`stat('f') = file 644 links=1 U:U size=4097 #1`, `stat('f') = file 644 links=1 U:U size=0 #1`, smallBodies},
	}},
	{name: "writing", text: `
fd = open("f"); write(fd, b"0123456789"); lseek(fd, 0, 1); read(fd, 4); lseek(fd, 2, 0); write(fd, b"ab")
lseek(fd, 0, 1); cat("f")
pwrite(fd, b"XY", 12); lseek(fd, 0, 1); cat("f"); stat("f")
lseek(fd, 0, 2); lseek(fd, 20, 0); write(fd, b"end"); cat("f"); lseek(fd, -1, 0); lseek(fd, -5, 2); read(fd, 10)
read(fd, 10); pread(fd, 4, 2); pread(fd, 4, 100)
writev(fd, b"one,", b"two,", b"three"); cat("f")
lseek(fd, 0, 3); lseek(fd, 0, 4); lseek(fd, 100, 3)
r = open("f", R); write(r, b"x"); w = open("f", W); read(w, 1); write(w, b"")
close(fd); close(fd); write(fd, b"x"); pwrite(w, b"x", -1)
fsync(w); fdatasync(w); os.sync(); dup(w); d = open(".", R); read(d, 1); fsync(d); fdatasync(d); ftruncate(d, 0)
open("f", R | APPEND); open("f", 3)
`},
	{name: "appending by two", text: `
a = open("f", CREAT | W | APPEND); b = open("f", W | APPEND); c = open("f", RW)
write(a, b"one,"); write(b, b"two,"); write(a, b"three,"); lseek(a, 0, 1); lseek(b, 0, 1); cat("f")
write(c, b"ONE"); lseek(c, 0, 1); pwrite(a, b"four,", 1); lseek(a, 0, 1); cat("f")
ftruncate(c, 3); write(b, b"|"); cat("f"); lseek(b, 0, 1); lseek(b, 0, 0); write(b, b"|"); cat("f")
setfl(b, 0); lseek(b, 0, 0); write(b, b"o"); setfl(c, APPEND); write(c, b"."); cat("f"); read(c, 5)
`},
	{name: "files that are too long", text: `
fd = open("f"); write(fd, b"x" * 4096); write(fd, b"y"); stat("f")
pwrite(fd, b"12345678", 4090); stat("f"); pwrite(fd, b"z", 5000); ftruncate(fd, 5000); stat("f")
lseek(fd, 0, 0); write(fd, b"x" * 10000); stat("f")
`, differs: []difference{
		{`write(fd1, b'y') = 1`, `write(fd1, b'y') = ENOSPC`, smallBodies},
		{`stat('f') = file 644 links=1 U:U size=4097 #1`, `stat('f') = file 644 links=1 U:U size=4096 #1`, smallBodies},
		{`pwrite(fd1, b'12345678', 4090) = 8`, `pwrite(fd1, b'12345678', 4090) = 6`, smallBodies},
		{`stat('f') = file 644 links=1 U:U size=4098 #1`, `stat('f') = file 644 links=1 U:U size=4096 #1`, smallBodies},
		{`pwrite(fd1, b'z', 5000) = 1`, `pwrite(fd1, b'z', 5000) = ENOSPC`, smallBodies},
		{`ftruncate(fd1, 5000) = None`, `ftruncate(fd1, 5000) = EFBIG`, smallBodies},
		{`stat('f') = file 644 links=1 U:U size=5000 #1`, `stat('f') = file 644 links=1 U:U size=4096 #1`, smallBodies},
		{`write(fd1, b'xxxxxxxxxxxxxxxxxxxx'... (10000)) = 10000`, `write(fd1, b'xxxxxxxxxxxxxxxxxxxx'... (10000)) = 4096`, smallBodies},
		{`stat('f') = file 644 links=1 U:U size=10000 #1`, `stat('f') = file 644 links=1 U:U size=4096 #1`, smallBodies},
	}},
	{name: "unlinked and open", text: `
create("f", "text", 0o644)
fd = open("f", RW); call("fstat", os.fstat, fd, told=described)
unlink("f"); call("fstat", os.fstat, fd, told=described); stat("f"); cat("f"); listdir()
read(fd, 10); write(fd, b", more"); pread(fd, 20, 0); ftruncate(fd, 6); pread(fd, 20, 0); fchmod(fd, 0o600)
call("fstat", os.fstat, fd, told=described)
fchown(fd, -1, -1); utimens(fd, (1, 1), (2, 2)); fsync(fd); lseek(fd, 0, 2)
open("f"); stat("f"); cat("f"); pread(fd, 20, 0); call("fstat", os.fstat, fd, told=described)
linkat(AT_FDCWD, "/proc/self/fd/%d" % fd, "again", AT_SYMLINK_FOLLOW); listdir()
flock(fd, 6); lockf(fd, 6); close(fd); unlink("f"); listdir()
`},
	{name: "unlinked with another name", text: `
create("f", "text"); link("f", "g"); fd = open("f", RW); unlink("f")
call("fstat", os.fstat, fd, told=described); stat("g")
write(fd, b"TEXT"); cat("g"); ftruncate(fd, 2); cat("g"); fchmod(fd, 0o600); stat("g"); unlink("g")
pread(fd, 5, 0); call("fstat", os.fstat, fd, told=described)
`},
	{name: "a descriptor of a name only", text: `
create("f", "text"); fd = open("f", PATH); read(fd, 1); write(fd, b"x"); fchmod(fd, 0); ftruncate(fd, 0)
fsync(fd); call("fstat", os.fstat, fd, told=described)
flock(fd, 5); linkat(fd, "", "g", AT_EMPTY_PATH)
linkat(AT_FDCWD, "/proc/self/fd/%d" % fd, "h", AT_SYMLINK_FOLLOW); stat("f")
open("/proc/self/fd/%d" % fd, RW); chmod("/proc/self/fd/%d" % fd, 0o600); stat("f"); unlink("f")
call("fstat", os.fstat, fd, told=described); dup(fd); close(fd)
d = open(".", PATH | DIRECTORY); open("f", PATH | DIRECTORY); open("missing", PATH); open("missing", PATH | CREAT)
symlink("h", "s"); s = open("s", PATH | NOFOLLOW); call("fstat", os.fstat, s, told=described)
call("readlink", lambda: os.readlink("", dir_fd=s)); open("s", PATH); fchown(s, 0, 0)
`},
	{name: "opening", text: `
open("missing", R); open("missing", W | TRUNC); open("missing/f"); open("f", CREAT | EXCL | RW)
open("f", CREAT | EXCL | RW); open("f", EXCL | RW); open("f/g"); open("f/g", R)
mkdir("d"); open("d", R); open("d", W); open("d", RW); open("d", CREAT | R); open("d", CREAT | W)
open("d", CREAT | EXCL | R); open("d", R | TRUNC); open("d", R | DIRECTORY); open("d", CREAT | DIRECTORY | R)
open("f", DIRECTORY | R); open("f", NOFOLLOW | R)
open("f", R | os.O_NONBLOCK | os.O_SYNC | os.O_NOCTTY | os.O_CLOEXEC); open("f", W | os.O_DSYNC)
open("f", R | os.O_NOATIME); open("", CREAT | RW); open(".", CREAT | R); open("..", CREAT | RW)
open("d/.", R); open("d/..", R | DIRECTORY); open("d/../f", R); open("f/..", R); open("f/.", R)
`},
	{name: "files without a name", text: `
open(".", TMPFILE | RW); open(".", TMPFILE | R); open("missing", TMPFILE | RW)
`, differs: []difference{
		{`open('.', 4259842, 438) = fd1`, `open('.', 4259842, 438) = ENOTSUP`, noTmpfile},
	}},
	{name: "who runs files", text: `
create("f", "#!/bin/sh\nexit 3\n", 0o755)
call("run", lambda: os.waitstatus_to_exitcode(os.system("./f")))
chmod("f", 0o644); access("f", os.X_OK); call("execv", os.execv, "./f", ["f"]); chmod("f", 0o645)
access("f", os.X_OK); eaccess("f", os.X_OK)
call("run", lambda: os.waitstatus_to_exitcode(os.system("./f 2>/dev/null")))
`},
	{name: "copying", text: `
create("f", "0123456789"); a = open("f", R); b = open("g"); c = open("h")
copy_file_range(a, b, 4); copy_file_range(a, b, 100); copy_file_range(a, b, 100); cat("g")
lseek(a, 0, 0); sendfile(c, a, 0, 6); cat("h"); sendfile(c, a, 8, 6); cat("h")
call("run", os.system, """set -e
cp f i; cp -p f j; cat f >k; cat <f >>k; dd if=f of=l bs=3 2>/dev/null; tac f >/dev/null
cmp f i; cmp f j; cmp f l; [ $(wc -c <k) = 20 ]; mv i o; cat o >>o.2; install -m 600 f p
""")
stat("p"); stat("j"); entries()
`},
	{name: "locks of ordinary files", text: `
create("f"); a, b = open("f", RW), open("f", RW); r = open("f", R); w = open("f", W)
flock(a, 6); flock(b, 6); flock(r, 5); flock(a, 5); flock(b, 5); flock(a, 6); flock(b, 8); flock(a, 6); flock(a, 8)
lockf(a, 6); lockf(r, 6); lockf(w, 5); lockf(r, 5); lockf(a, 6, 10, 5); lockf(a, 8, 0, 0)
flock(open(".", R), 6); lockf(open(".", R), 5); open("f", R | TRUNC); cat("f")
`},
	{name: "what there is not", text: `
mkfifo("p"); mknod("n", 0o10644); mknod("r", 0o100640)
import socket
call("bind", lambda: socket.socket(socket.AF_UNIX).bind("sock"))
create("f", "text"); fd = open("f", RW)
setxattr("f", "user.x", b"y"); getxattr("f", "user.x"); listxattr("f"); removexattr("f", "user.x")
fallocate(fd, 0, 0, 100); fallocate(fd, 3, 0, 2); truncate("f", 0); posix_fallocate(fd, 0, 50); stat("f")
ftruncate(fd, 0); pwrite(fd, b"text", 0)
call("mmap shared", lambda: mmap.mmap(fd, 4, mmap.MAP_SHARED)[:])
call("mmap private", lambda: mmap.mmap(fd, 4, mmap.MAP_PRIVATE)[:])
call("epoll", lambda: select.epoll().register(fd))
call("poll", lambda: (lambda p: (p.register(fd), p.poll(0))[1][0][1])(select.poll()))
call("select", lambda: [len(x) for x in select.select([fd], [fd], [fd], 0)])
call("FIONREAD", lambda: fcntl.ioctl(fd, 0x541b, b"\0" * 4))
call("FICLONE", lambda: fcntl.ioctl(fd, 0x40049409, fd))
call("TCGETS", lambda: fcntl.ioctl(fd, 0x5401, b"\0" * 60))
call("FS_IOC_GETFLAGS", lambda: fcntl.ioctl(fd, 0x80086601, b"\0" * 8) and 0)`, differs: []difference{
		{`mkfifo('p') = None`, `mkfifo('p') = EPERM`, onlyLocks},
		{`mknod('n', 4516) = None`, `mknod('n', 4516) = EPERM`, onlyLocks},
		{`mknod('r', 33184) = None`, `mknod('r', 33184) = EPERM`, onlyLocks},
		{`bind() = None`, `bind() = EPERM`, onlyLocks},
		{`setxattr('f', 'user.x', b'y') = None`, `setxattr('f', 'user.x', b'y') = ENOTSUP`, noAttributes},
		{`getxattr('f', 'user.x') = b'y'`, `getxattr('f', 'user.x') = ENOTSUP`, noAttributes},
		{`listxattr('f') = ['user.x']`, `listxattr('f') = ENOTSUP`, noAttributes},
		{`removexattr('f', 'user.x') = None`, `removexattr('f', 'user.x') = ENOTSUP`, noAttributes},
		{`FS_IOC_GETFLAGS() = 0`, `FS_IOC_GETFLAGS() = ENOTTY`, noAttributes},
		{`fallocate(fd1, 0, 0, 100) = 0`, `fallocate(fd1, 0, 0, 100) = ENOTSUP`, noReserving},
		{`fallocate(fd1, 3, 0, 2) = 0`, `fallocate(fd1, 3, 0, 2) = ENOTSUP`, noReserving},
		{`mmap shared() = b'text'`, `mmap shared() = ENODEV`, noMapping},
		{`epoll() = EPERM`, `epoll() = None`, alwaysReady},
	}},
	{name: "what is held, by another program", text: `
x = open("x", CREAT | EXCL | RW); cat("x"); stat("x"); write(x, b"mine"); cat("x")
call("run", os.system, "{ echo other >x; } 2>/dev/null"); cat("x")
y = open("y", CREAT | EXCL | RW); write(y, b"mine"); call("run", os.system, ": >y"); cat("y")
z = open("z", CREAT | EXCL | RW); write(z, b"mine"); call("run", os.system, "{ echo , other >>z; } 2>/dev/null")
cat("z")
`, differs: []difference{
		{`cat('x') = b''`, `cat('x') = own pid`, emptyIsRecord},
		{`run('{ echo other >x; } 2>/dev/null') = 0`, `run('{ echo other >x; } 2>/dev/null') = 256`, othersHold},
		{`cat('x') = b'other\n'`, `cat('x') = b'mine'`, othersHold},
		{`cat('y') = b''`, `cat('y') = b'mine'`, othersHold},
		{`run('{ echo , other >>z; } 2>/dev/null') = 0`, `run('{ echo , other >>z; } 2>/dev/null') = 256`, othersHold},
		{`cat('z') = b'mine, other\n'`, `cat('z') = b'mine'`, othersHold},
	}},
	{name: "what replaces a longer text is not followed by the rest of it", text: `
call("run", os.system, "(set -C; echo 1234567 >l); echo 89 >l; cat l >copy"); cat("copy")
call("run", os.system, "(set -C; echo 1234567 >k); exec 9>k; echo 8 >&9; echo 9 >&9; cat k >copy"); cat("copy")
call("run", os.system, """exec 8>p; flock 8; echo 1234567 >&8
(exec 8>&- 9>p; : >open; flock 9; echo 89 >&9) &
until [ -e open ]; do :; done; rm open; exec 8>&-; wait""")
cat("p")
call("run", os.system, """exec 8>q; flock 8; echo 1234567 >&8
(exec 8>&- 9<>q; perl -e 'open(my $f, "+<&=", 9); truncate($f, 0)'; : >open; flock 9; echo 89 >&9) &
until [ -e open ]; do :; done; rm open; exec 8>&-; wait""")
stat("q")
call("run", os.system, """exec 8>r; flock 8; echo 1234567 >&8
(exec 8>&- 9>>r; : >open; flock 9; echo 89 >&9) &
until [ -e open ]; do :; done; rm open; exec 8>&-; wait""")
cat("r")
`},
}
