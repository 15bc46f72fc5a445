package tests

// This file is what [TestASmallPOSIXDirectory] does to names and directories.

var posixNameCases = []posixCase{
	{name: "hard links", text: `
create("a", "text"); stat("a"); link("a", "b"); stat("a"); stat("b"); entries()
mkdir("d"); link("b", "d/c"); stat("d/c"); stat("a"); link("a", "b"); link("a", "d"); link("a", "a")
link("missing", "x"); link("d", "e"); link("a", "missing/x"); link("a", "b/x"); link("a", "x/"); link("a/", "x")
link("a", "."); link("a", "")
unlink("a"); stat("b"); stat("a"); create("a"); stat("a"); unlink("b"); stat("d/c"); cat("d/c")
chmod("d/c", 0o600); stat("d/c")
symlink("a", "s"); link("s", "t"); lstat("s"); lstat("t"); stat("s")
linkat(AT_FDCWD, "s", "u", AT_SYMLINK_FOLLOW); stat("a"); readlink("t"); unlink("s"); readlink("t")
`},
	{name: "links are written through", text: `
create("a", "one"); link("a", "b"); fd = open("a", RW); write(fd, b"two"); cat("b")
fd2 = open("b", RW | APPEND); write(fd2, b",three"); cat("a"); ftruncate(fd, 2); cat("b"); truncate("b", 1)
stat("a"); open("b", W | TRUNC); stat("a"); fchmod(fd, 0o600); stat("b")
`},
	{name: "symbolic links", text: `
symlink("f", "s"); readlink("s"); lstat("s"); stat("s"); open("s", R); cat("s"); access("s", 0)
open("s", CREAT | EXCL | RW); open("s", CREAT | RW); stat("f"); cat("s"); open("s", NOFOLLOW | R)
open("s", NOFOLLOW | CREAT | RW); open("s", DIRECTORY | R)
symlink("x", "s"); symlink("x", "f"); symlink("", "e"); symlink("x", ""); symlink("x", "missing/x")
symlink("x", "f/x"); symlink("x", "y/"); readlink("f"); readlink("."); readlink("missing")
symlink("x" * 4095, "long"); lstat("long"); readlink("long"); symlink("x" * 4096, "longer")
mkdir("d"); symlink("d", "t"); symlink("../f", "d/u"); create("t/g", "text"); cat("d/g"); stat("t/u")
cat("t/../t/g"); listdir("t"); open("t", R | DIRECTORY); open("t", NOFOLLOW | R | DIRECTORY); lstat("t/")
readlink("t/"); rmdir("t"); unlink("t/"); mkdir("t"); unlink("t"); listdir("d"); entries()
`},
	{name: "symbolic loops", text: `
symlink("b", "a"); symlink("a", "b"); open("a", R); stat("a"); lstat("a"); open("a"); mkdir("a"); mkdir("a/b")
unlink("a/b"); rename("a", "c"); symlink("self", "self"); open("self", CREAT | RW); chdir("self")
truncate("self", 0)
os.mkdir("n"); [os.symlink("n" if i == 0 else "l%d" % (i - 1), "l%d" % i) for i in range(45)]; stat("l39")
stat("l40"); stat("l41")
`},
	{name: "names that are too long", text: `
for n in 255, 256, 1025:
    name = "x" * n
    open(name); open(name, R); stat(name); mkdir(name); symlink("y", name); create("f"); link("f", name)
    rename("f", name); renameat2("f", name, NOREPLACE); open(name, CREAT | EXCL | RW); readlink(name)
    unlink(name); rmdir(name); rename(name, "g"); mkdir(name); rmdir(name); truncate(name, 0); access(name, 0)
    chmod(name, 0o600)
open("é" * 127 + "x"); open("é" * 128); listdir(); stat("d/" * 2048); namemax(".")
`},
	{name: "odd names", text: `
for name in " ", "...", "a b", "new\nline", b"\xff\xfe", "-rf", "*", "#", "~", ".go-fuse-epoll-hack", ".lockfs ", ".LOCKFS":
    open(name); stat(name)
listdir(); entries()
`},
	{name: "the name that there is not", text: `
mkdir(".lockfs"); rmdir(".lockfs"); open(".lockfs"); listdir()
`, differs: []difference{
		{`mkdir('.lockfs') = None`, `mkdir('.lockfs') = EEXIST`, controlled},
		{`rmdir('.lockfs') = None`, `rmdir('.lockfs') = EPERM`, controlled},
		{`open('.lockfs', 66, 438) = fd1`, `open('.lockfs', 66, 438) = EISDIR`, controlled},
		{`listdir() = ['.lockfs']`, `listdir() = []`, controlled},
	}},
	{name: "trailing slashes", text: `
create("f"); mkdir("d"); symlink("d", "t"); symlink("f", "s"); symlink("missing", "m")
open("f/", R); open("f/", CREAT | RW); open("new/", CREAT | RW); open("new/", R); open("d/", R)
open("d/", CREAT | R); open("s/", R); stat("f/"); stat("d/"); lstat("t/"); stat("s/"); mkdir("e/"); mkdir("f/")
mkdir("d/"); mkdir("m/"); rmdir("e/"); rmdir("f/"); rmdir("t/"); unlink("f/"); unlink("d/"); unlink("t/")
unlink("missing/")
rename("f/", "g"); rename("f", "g/"); rename("d", "e/"); rename("e/", "d"); rename("d/", "e/")
rename("t/", "x"); rename("e", "missing/"); rename("missing/", "d"); symlink("x", "y/"); link("f", "g/")
truncate("f/", 0); access("f/", 0); chdir("f/"); readlink("s/"); chmod("f/", 0o600); open("f/.", R)
stat("f/.."); listdir()
`},
	{name: "rename", text: `
create("a", "one"); create("b", "two", 0o600); rename("a", "b"); stat("a"); stat("b"); cat("b")
rename("b", "c"); stat("c"); rename("c", "c"); stat("c"); rename("missing", "c"); rename("missing", "x")
rename("c", "missing/x"); rename("c", "c/x"); rename("c", "."); rename("c", ".."); rename(".", "x")
rename("..", "x"); rename("c", ""); rename("", "c")
mkdir("d"); rename("c", "d/c"); rename("d/c", "d"); rename("d/c", "c"); rename("c", "d"); rename("d", "c")
create("d/f"); rename("c", "d"); rename("d", "d"); listdir(); listdir("d"); cat("c")
`},
	{name: "rename of what is open", text: `
create("a", "one"); create("b", "two"); a, b = open("a", RW), open("b", RW); rename("a", "b")
call("fstat", os.fstat, a, told=described); call("fstat", os.fstat, b, told=described); read(a, 5); read(b, 5)
write(a, b"!"); cat("b"); write(b, b"?"); pread(b, 9, 0); ftruncate(a, 1); cat("b"); stat("b"); rename("b", "a")
stat("a"); cat("a"); write(a, b"x"); cat("a")
call("where", lambda: os.path.basename(os.readlink("/proc/self/fd/%d" % a)))
`, differs: []difference{
		{`where() = 'a'`, `where() = 'b (deleted)'`, namesAreNodes},
	}},
	{name: "rename of links of one file", text: `
create("a", "text"); link("a", "b"); rename("a", "b"); listdir(); stat("a"); rename("b", "a"); stat("b")
renameat2("a", "b", NOREPLACE); listdir(); mkdir("d"); link("a", "d/c"); rename("a", "d/c"); listdir()
unlink("b"); stat("a"); rename("a", "z"); stat("z")
`},
	{name: "rename onto what holds", text: `
create("a", "one"); create("t"); link("t", "h"); symlink("x", "s"); mkdir("d"); mkdir("e")
open("x", CREAT | EXCL | RW)
rename("a", "h"); create("a"); rename("a", "s"); create("a"); rename("a", "x"); create("a"); rename("a", "d")
rename("e", "d"); listdir()
`, differs: []difference{
		{`rename('a', 'h') = None`, `rename('a', 'h') = EBUSY`, heldStays},
		{`rename('a', 's') = None`, `rename('a', 's') = EBUSY`, heldStays},
		{`rename('a', 'x') = None`, `rename('a', 'x') = EBUSY`, heldStays},
		{`rename('e', 'd') = None`, `rename('e', 'd') = EBUSY`, heldStays},
		{`listdir() = ['a', 'd', 'h', 's', 't', 'x']`, `listdir() = ['a', 'd', 'e', 'h', 's', 't', 'x']`, heldStays},
	}},
	{name: "rename with flags", text: `
create("a", "one"); create("b", "two"); renameat2("a", "b", NOREPLACE); cat("b"); renameat2("a", "c", NOREPLACE)
stat("c"); stat("a"); renameat2("c", "c", NOREPLACE); renameat2("missing", "x", NOREPLACE)
renameat2("missing", "b", NOREPLACE); symlink("y", "s"); renameat2("c", "s", NOREPLACE); mkdir("d")
renameat2("c", "d", NOREPLACE); renameat2("d", "e", NOREPLACE); renameat2("e", "b", NOREPLACE)
renameat2("e", "e/f", NOREPLACE); renameat2("s", "t", NOREPLACE); readlink("t"); renameat2("b", "c", EXCHANGE)
cat("b"); renameat2("b", "c", EXCHANGE | NOREPLACE); renameat2("b", "z", 64); listdir()
`, differs: []difference{
		{`renameat2('b', 'c', 2) = 0`, `renameat2('b', 'c', 2) = EINVAL`, noExchange},
		{`cat('b') = b'one'`, `cat('b') = b'two'`, noExchange},
	}},
	{name: "rename of directories", alone: true, text: `
mkdir("a"); mkdir("a/b"); create("a/b/f", "text"); rename("a", "a/c"); rename("a", "a/b/c"); rename("a", "a/b")
rename("a/b", "a"); rename("a", "z"); cat("z/b/f"); stat("z"); stat("z/b"); stat("z/b/.."); rename("z/b", "b")
stat("z"); stat("b/.."); listdir("z"); listdir("b"); mkdir("y"); create("y/g"); rename("b", "y"); create("f")
rename("b", "f"); rename("f", "b"); rename("f", "z"); rename("b", "z/b"); entries("z"); entries()
os.chdir("z/b"); call("getcwd", lambda: os.path.basename(os.getcwd())); rename("../../z", "../../x")
call("getcwd", lambda: os.getcwd().split("/")[-2:]); create("g"); listdir("."); listdir("../.."); stat("..")
fd = open("f", RW); rename("../b", "../../w"); listdir(".."); read(fd, 9); cat("f")
`},
	{name: "rename of directories that are closed", text: `
mkdir("p"); mkdir("q"); mkdir("q/there"); mkdir("p/d"); create("p/d/f"); chmod("p/d", 0o555)
rename("p/d", "q/d"); rename("p/d", "q/there"); renameat2("p/d", "q/d", NOREPLACE); rename("p/d", "p/e")
entries("p"); entries("q"); chmod("p/e", 0o755); rename("p/e", "q/e"); entries("q"); entries("q/e")
if os.getuid() == 0:
    for group in 5, 6:
        for mode in 0o575, 0o557:
            chown("p", 1, 1); chown("q", 1, 1); mkdir("p/x"); chown("p/x", 1, group); chmod("p/x", mode)
            become(1, 1, [5]); rename("p/x", "q/x"); become(0); chown("p/x", 3, group); become(1, 1, [5])
            rename("p/x", "q/x"); become(0); chown("p", 3, 3); rename("p/x", "q/x"); rmdir("q/x"); rmdir("p/x")
`},
	{name: "unlink", text: `
create("f"); mkdir("d"); unlink("missing"); unlink("d"); unlink("f/x"); unlink("missing/x"); unlink(".")
unlink(".."); unlink("d/."); unlink(""); unlinkat("f", AT_REMOVEDIR); unlinkat("d", 1); unlink("f"); unlink("f")
unlinkat("d", AT_REMOVEDIR); listdir()
`},
	{name: "restricted deletion", text: `
if os.getuid() == 0:
    os.chmod(".", 0o777); become(1)
    for name in "f", "g", "h": create(name)
    mkdir("d"); mkdir("e")
    become(2); create("mine"); unlink("f"); rename("mine", "g"); rename("h", "x"); rename("d", "y"); rmdir("e")
    unlink("missing")
stat(".")
`, differs: []difference{
		{`unlink('f') = None`, `unlink('f') = EPERM`, restricted},
		{`rename('mine', 'g') = None`, `rename('mine', 'g') = EPERM`, restricted},
		{`rename('h', 'x') = None`, `rename('h', 'x') = EPERM`, restricted},
		{`rename('d', 'y') = None`, `rename('d', 'y') = EPERM`, restricted},
		{`rmdir('e') = None`, `rmdir('e') = EPERM`, restricted},
		{`stat('.') = directory 777 links=3 0:0 #1`, `stat('.') = directory 777 links=4 0:0 #1`, restricted},
	}},
}

var posixDirectoryCases = []posixCase{
	{name: "making directories", text: `
mkdir("d"); stat("."); stat("d"); mkdir("d"); create("f"); mkdir("f"); mkdir("f/d"); mkdir("missing/d")
mkdir("."); mkdir("d/."); mkdir("/"); mkdir(""); symlink("nowhere", "s"); mkdir("s"); stat("nowhere")
for i in range(3): mkdir("d/%d" % i)
stat("d"); rmdir("d/0"); stat("d"); rename("d/1", "e"); stat("d"); stat("."); create("d/f"); stat("d")
stat("d/.."); entries("d")
for mode in 0, 0o700, 0o755, 0o1777, 0o2755, 0o4755: mkdir("m%o" % mode, mode); stat("m%o" % mode)
chmod("d", 0o4755); stat("d"); chown("d", -1, os.getgid()); stat("d"); chmod("d", 0o6750); stat("d"); mkdir("d/s"); stat("d/s")
`, differs: []difference{
		{`stat('m1777') = directory 1755 links=2 U:U #6`, `stat('m1777') = directory 755 links=2 U:U #6`, noSticky},
	}},
	{name: "directories of a group", text: `
if os.getuid() == 0:
    mkdir("d"); chown("d", 1, 5); chmod("d", 0o2777); stat("d"); become(2, 2); mkdir("d/e"); stat("d/e")
    create("d/f"); stat("d/f"); open("d/x", CREAT | EXCL | RW); stat("d/x"); symlink("y", "d/s"); lstat("d/s")
    mkdir("d/e/g"); stat("d/e/g")
    become(1, 1); chmod("d", 0o2755); stat("d"); become(1, 1, [5]); chmod("d", 0o2755); stat("d"); become(0)
    chmod("d", 0o755); stat("d"); chmod("d", 0o2755); stat("d"); chown("d", 2, 6); stat("d")
mkdir("p"); chmod("p", 0o2775); stat("p"); mkdir("p/q"); stat("p/q"); chmod("p", 0o775); stat("p")
`},
	{name: "removing directories", text: `
mkdir("d"); create("d/f"); rmdir("d"); rmdir("."); rmdir(".."); rmdir("d/."); rmdir("d/.."); rmdir("d/f")
rmdir("missing"); rmdir("missing/d"); unlink("d/f"); rmdir("d"); rmdir("d"); stat("d"); mkdir("e"); mkdir("e/e")
rmdir("e"); rmdir("e/e"); symlink("e", "s"); rmdir("s"); mkdir("t"); symlink("nowhere", "t/u"); rmdir("t")
unlink("t/u"); open("t/x", CREAT | EXCL | RW); rmdir("t"); unlink("t/x"); rmdir("t"); listdir()
`},
	{name: "directories that are gone", text: `
mkdir("d"); fd = open("d", R); os.chdir("d"); rmdir("../d"); call("fstat", os.fstat, fd, told=described)
stat("."); listdir("."); open("f"); mkdir("e"); symlink("x", "s"); create("../g"); link("../g", "h")
rename("../g", "h"); call("listdir", os.listdir, fd); stat(".."); chmod(".", 0o700); utimens(".", NOW, NOW)
fsync(fd); call("getcwd", os.getcwd); access(".", os.W_OK); mkdir("../d")
call("fstat", os.fstat, fd, told=described); stat("../d"); rmdir("../d")
`},
	{name: "listing", text: `
os.mkdir("d"); listdir("d"); entries("d"); [create("d/%d" % i) for i in range(300)]; os.mkdir("d/sub")
os.symlink("x", "d/link"); entries("d")
rewound("d", lambda: [os.unlink("d/%d" % i) for i in range(0, 300, 3)])
rewound("d", lambda: (os.rename("d/1", "d/one"), create("d/new"))); listdir("d/missing"); listdir("d/1")
listdir("d/2")
`},
	{name: "removing while listing", text: `
os.mkdir("d"); [create("d/%04d" % i) for i in range(2000)]; names = []
with os.scandir("d") as all:
    for e in all:
        names.append(e.name); os.unlink("d/" + e.name)
note("listed", (len(names), len(set(names)))); rmdir("d")
os.mkdir("e"); [create("e/%04d" % i) for i in range(2000)]; names = []
with os.scandir("e") as all:
    for i, e in enumerate(all):
        names.append(e.name)
        if i % 2 == 0: os.unlink("e/%04d" % (i // 2))
        create("e/new%d" % i)
note("listed what was there all the time", len(set(names) & {"%04d" % i for i in range(1000, 2000)}))
call("run", os.system, "rm -r e"); listdir()
`},
	{name: "programs", text: `
call("run", os.system, """set -e
mkdir -p a/b/c; echo text >a/b/c/f; cp -r a x; diff -r a x; mv a y; tar cf - y | wc -c >t; rm -f t
find . -type f | sort >/dev/null; rm -rf x y; echo 1 >f; sed -i s/1/2/ f; cat f >g; ln -f g h; ln -sf f s
touch -r f g; [ ! g -ot f ]; mktemp -p . >/dev/null; mktemp -d -p . >/dev/null; truncate -s 10 z
stat -f -c %l . >namelen; ls -la >/dev/null; df . >/dev/null; du -s . >/dev/null
""")
cat("f"); cat("g"); stat("g"); stat("h"); stat("s"); cat("namelen"); stat("z")
`},
}
