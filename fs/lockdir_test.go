package fs_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.7: "DIR/.lockfs/lock/NAME/ of one lock: holder, token, mode, waiting, check".

// toldOf returns what a file in lock/NAME contains.
func (s *served) toldOf(name, file string) string {
	s.t.Helper()
	return s.readAll(4096, ".lockfs", "lock", name, file)
}

// wantTold fails the test unless the files of a lock contain this.
func (s *served) wantTold(name, check, mode, token string) {
	s.t.Helper()
	for file, want := range map[string]string{"check": check, "mode": mode, "token": token} {
		if got := s.toldOf(name, file); got != want {
			s.t.Errorf("%s of %q is %q, want %q", file, name, got, want)
		}
	}
}

// listedBy lists a directory by so many bytes at a time, without "." and "..".
func (s *served) listedBy(size uint32, path ...string) []string {
	s.t.Helper()
	node := s.walk(path...)
	r := s.call(opOpendir, node, u32(0), u32(0))
	if r.errno != 0 {
		s.t.Fatal("opendir:", r.errno)
	}
	dir := native.Uint64(r.body)
	defer s.call(opReleasedir, node, u64(dir), zeros(16))
	list := []string{}
	for offset := uint64(0); ; {
		names, next := s.readdirOf(node, dir, offset, size)
		if len(names) == 0 {
			return list[2:]
		}
		list, offset = append(list, names...), next
	}
}

func TestALockIsTold(t *testing.T) {
	s := serve(t)
	s.wantTold("x", "0\n", "free\n", "")
	for _, file := range []string{"holder", "waiting"} {
		if got := s.toldOf("x", file); got != "" {
			t.Errorf("%s of what is free: %q", file, got)
		}
	}
	s.procs.set(200, fs.ProcessInfo{Kin: fs.Kin{Pid: 200}, Comm: "first one", Cgroup: "/"})
	s.procs.set(202, fs.ProcessInfo{Kin: fs.Kin{Pid: 202}, Comm: "third", Cgroup: "/"})
	one, two, three := caller{1000, 1000, 200}, caller{1001, 1001, 201}, caller{1002, 1002, 202}
	s.caller = one
	f := s.mustCreate("x", 0)
	if errno := s.flock(f, unix.F_RDLCK); errno != 0 {
		t.Fatal(errno)
	}
	s.wantTold("x", "1\n", "shared\n", "1\n")
	s.caller = two
	g := s.mustOpen(f.node, unix.O_RDWR)
	if errno := s.flock(g, unix.F_RDLCK); errno != 0 {
		t.Fatal(errno)
	}
	s.wantTold("x", "2\n", "shared\nshared\n", "1\n2\n")
	s.caller = three
	h := s.mustOpen(f.node, unix.O_RDWR)
	waits := s.startFlock(h, unix.F_WRLCK)
	s.caller = one
	i := s.mustOpen(f.node, unix.O_RDWR)
	waitsToo := s.startFlock(i, unix.F_RDLCK)

	plain, errno := s.read(s.mustOpen(f.node, unix.O_RDONLY), 0, 4096)
	if got := s.toldOf("x", "holder"); errno != 0 || got != plain || strings.Count(got, "\n\n") != 1 ||
		strings.Count(got, "waiting=2\n") != 2 || !strings.HasPrefix(got, "pid=200\nuid=1000\nuser=alice\ncomm=first one\n") {
		t.Errorf("holder is %q, the lock reads as %q, %v", got, plain, errno)
	}
	queue := parseLocks(t, s.toldOf("x", "waiting"))
	if want := []listedLock{
		{"x", "exclusive", "0-end", "waiting", 202, 1002, "third", "flock", "-"},
		{"x", "shared", "0-end", "waiting", 200, 1000, "first one", "flock", "-"},
	}; !slices.Equal(queue, want) {
		t.Errorf("the queue is\n%+v, want\n%+v", queue, want)
	}
	s.release(f)
	s.release(g)
	if r := s.await(waits); r.errno != 0 {
		t.Fatal(r.errno)
	}
	s.wantTold("x", "-1\n", "exclusive\n", "3\n")
	if errno := s.write(h, 0, "a body\n"); errno != 0 {
		t.Fatal(errno)
	}
	if got := s.toldOf("x", "holder"); !strings.HasPrefix(got, "pid=202\nuid=1002\n") {
		t.Errorf("holder of a lock with a body: %q", got)
	}
	s.release(h)
	if r := s.await(waitsToo); r.errno != 0 {
		t.Fatal(r.errno)
	}
	s.release(i)
	s.wantTold("x", "0\n", "free\n", "")
}

func TestRangesOfALockAreTold(t *testing.T) {
	s := serve(t)
	f := s.mustCreate("x", 0)
	lock := func(kind uint32, owner, first, last uint64) {
		t.Helper()
		if errno := s.call(opSetlk, f.node, s.lockBody(f, owner, kind, first, last, false)).errno; errno != 0 {
			t.Fatal(errno)
		}
	}
	lock(unix.F_RDLCK, 7, 10, 19)
	lock(unix.F_RDLCK, 8, 100, toEnd)
	s.wantTold("x", "2\n", "shared 10-19\nshared 100-end\n", "1\n2\n")
	lock(unix.F_WRLCK, 7, 0, 4)
	s.wantTold("x", "-1\n", "shared 10-19\nshared 100-end\nexclusive 0-4\n", "1\n2\n3\n")
	lock(unix.F_UNLCK, 7, 0, 12)
	// What is left of a hold comes behind the others.
	s.wantTold("x", "2\n", "shared 100-end\nshared 13-19\n", "2\n1\n")
	lock(unix.F_UNLCK, 8, 0, toEnd)
	lock(unix.F_WRLCK, 7, 0, toEnd)
	s.wantTold("x", "-1\n", "exclusive\n", "4\n")
}

// What is held by name is told, directories with it, and what is in these.
func TestNamesThatHoldAreTold(t *testing.T) {
	s := serve(t)
	dir := s.mustMkdir(1, "dir", 0o755)
	s.wantTold("dir", "-1\n", "exclusive\n", "1\n")
	if errno := s.link(s.mustCreate("x", unix.O_EXCL).node, "y"); errno != 0 {
		t.Fatal(errno)
	}
	s.wantTold("y", "-1\n", "exclusive\n", "3\n")
	s.mustCreateIn(dir, "inner", unix.O_EXCL)
	if got := s.readAll(3, "dir", ".lockfs", "lock", "inner", "token"); got != "4\n" {
		t.Errorf("token of dir/inner is %q", got)
	}
	for want, path := range map[string][]string{"dir x y": {".lockfs", "lock"}, "inner": {"dir", ".lockfs", "lock"}} {
		list := s.listedBy(4096, path...)
		slices.Sort(list)
		if got := strings.Join(list, " "); got != want {
			t.Errorf("%q lists %q, want %q", path, got, want)
		}
	}
	if got := s.listedBy(40, ".lockfs", "lock", "dir"); !slices.Equal(got, []string{"holder", "token", "mode", "waiting", "check"}) {
		t.Errorf("lock/dir lists %q", got)
	}
}

// Names with whatever bytes lead to their locks and are listed as they are; and
// those that no lock can have to nothing.
func TestOddNamesAreTold(t *testing.T) {
	s := serve(t)
	names := append([]string{strings.Repeat("n", 255), strings.Repeat("\xff", 255), "..."}, oddNames...)
	for i, name := range names {
		if s.mustCreate(name, unix.O_EXCL); s.toldOf(name, "token") != fmt.Sprintln(i+1) {
			t.Errorf("token of %q is %q", name, s.toldOf(name, "token"))
		}
	}
	for _, size := range []uint32{8192, 300} {
		if got := s.listedBy(size, ".lockfs", "lock"); !slices.Equal(got, names) {
			t.Errorf("listed are\n%q, want\n%q", got, names)
		}
	}
	held := s.mustOpen(s.walk(" "), unix.O_RDWR)
	s.startFlock(held, unix.F_WRLCK)
	if list := parseLocks(t, s.toldOf(" ", "waiting")); len(list) != 1 || list[0].path != " " {
		t.Errorf("the queue of a blank: %+v", list)
	}
	lock := s.walk(".lockfs", "lock")
	for name, want := range map[string]unix.Errno{strings.Repeat("n", 256): unix.ENAMETOOLONG, ".lockfs": unix.ENOENT} {
		if _, _, errno := s.lookup(lock, name); errno != want {
			t.Errorf("look up %.10q: %v, want %v", name, errno, want)
		}
	}
	if _, _, errno := s.lookup(s.walk(".lockfs", "lock", "x"), "nothing"); errno != unix.ENOENT {
		t.Errorf("look up what there is not in lock/x: %v", errno)
	}
	if _, _, errno := s.lookup(s.walk(".lockfs"), "check"); errno != unix.ENOENT {
		t.Errorf("look up check in .lockfs: %v", errno)
	}
}

// A lock that is only waited for, since it is in grace, is listed too, once.
func TestWhatIsOnlyWaitedForIsListed(t *testing.T) {
	inBubble(t, "grace=10s", func(t *testing.T, s *served) {
		broken, waited := s.mustCreate("broken", unix.O_EXCL), s.mustCreate("waited", 0)
		s.mustCreate("held", unix.O_EXCL)
		if errno := s.flock(waited, unix.F_WRLCK); errno != 0 {
			t.Fatal(errno)
		}
		again := s.mustOpen(waited.node, unix.O_RDWR)
		waiting := s.startFlock(again, unix.F_WRLCK)
		s.procs.killed[100] = true
		s.release(broken)
		s.release(waited)
		if got := s.listedBy(40, ".lockfs", "lock"); !slices.Equal(got, []string{"waited", "held"}) {
			t.Errorf("listed are %q", got)
		}
		s.wantTold("waited", "0\n", "free\n", "")
		if n := strings.Count(s.toldOf("waited", "waiting"), "\n"); n != 1 {
			t.Errorf("%d wait", n)
		}
		time.Sleep(10 * time.Second)
		if r := s.await(waiting); r.errno != 0 {
			t.Fatal(r.errno)
		}
		if got := s.listedBy(4096, ".lockfs", "lock"); !slices.Equal(got, []string{"held", "waited"}) {
			t.Errorf("after grace listed are %q", got)
		}
	})
}

// Nothing in lock can be made, changed, removed, or locked.
func TestNothingInLockCanBeChanged(t *testing.T) {
	s := serve(t)
	s.caller = caller{}
	x := s.mustCreate("x", unix.O_EXCL)
	lock, dir, file := s.walk(".lockfs", "lock"), s.walk(".lockfs", "lock", "x"), s.walk(".lockfs", "lock", "x", "check")
	want := func(what string, errno, want unix.Errno) {
		t.Helper()
		if errno != want {
			t.Errorf("%s: %v, want %v", what, errno, want)
		}
	}
	for _, in := range []uint64{lock, dir} {
		for _, name := range []string{"new", "x", "check"} {
			create := s.call(opCreate, in, u32(unix.O_CREAT|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring(name))
			want("create", create.errno, unix.EACCES)
			want("unlink", s.call(opUnlink, in, cstring(name)).errno, unix.EACCES)
			want("rmdir", s.call(opRmdir, in, cstring(name)).errno, unix.EACCES)
			want("mkdir", s.call(opMkdir, in, u32(0o755), u32(0), cstring(name)).errno, unix.EACCES)
			want("link", s.call(opLink, in, u64(x.node), cstring(name)).errno, unix.EACCES)
		}
	}
	want("link", s.link(file, "y"), unix.EPERM)
	want("open to write", s.call(opOpen, file, u32(unix.O_RDWR), u32(0)).errno, unix.EACCES)
	want("truncate", s.call(opSetattr, file, u32(8), u32(0), zeros(80)).errno, unix.EACCES)
	want("chmod", s.call(opSetattr, dir, u32(1), u32(0), zeros(80)).errno, unix.EPERM)
	f := s.mustOpen(file, unix.O_RDONLY)
	want("write", s.write(f, 0, "x"), unix.EBADF)
	want("flock", s.flock(f, unix.F_WRLCK), unix.EOPNOTSUPP)
	s.wantTold("x", "-1\n", "exclusive\n", "1\n")
}

// Whoever may be shown a directory's locks may look into its lock, nobody else; who
// had a file open may read on.
func TestWhoMayLookIntoLock(t *testing.T) {
	s := serve(t)
	owner, other := caller{1000, 1000, 100}, caller{1001, 1001, 101}
	s.caller = owner
	dir := s.mustMkdir(1, "dir", 0o755)
	s.mustCreateIn(dir, "x", unix.O_EXCL)
	lock, one, file := s.walk("dir", ".lockfs", "lock"), s.walk("dir", ".lockfs", "lock", "x"), s.walk("dir", ".lockfs", "lock", "x", "check")
	s.caller = other
	before := s.mustOpen(file, unix.O_RDONLY)
	for mode, want := range map[uint32]unix.Errno{0o755: 0, 0o705: 0, 0o711: unix.EACCES, 0o754: unix.EACCES, 0o770: unix.EACCES} {
		s.caller = owner
		if r := s.call(opSetattr, dir, u32(1), u32(0), zeros(8*6), zeros(12), u32(mode), zeros(16)); r.errno != 0 {
			t.Fatal("chmod:", r.errno)
		}
		for _, c := range []caller{{0, 0, 102}, owner, other} {
			s.caller = c
			want := want
			if c != other {
				want = 0
			}
			for what, r := range map[string]reply{
				"look up x":       s.call(opLookup, lock, cstring("x")),
				"look up another": s.call(opLookup, lock, cstring("another")),
				"look up check":   s.call(opLookup, one, cstring("check")),
				"open":            s.call(opOpen, file, u32(unix.O_RDONLY), u32(0)),
				"list locks":      s.call(opOpendir, lock, u32(0), u32(0)),
				"list files":      s.call(opOpendir, one, u32(0), u32(0)),
				"access":          s.call(opAccess, file, u32(4), u32(0)),
			} {
				if r.errno != want {
					t.Errorf("uid %d, mode %o: %s: %v, want %v", c.uid, mode, what, r.errno, want)
				}
			}
		}
		shown := map[uint64]uint32{lock: unix.S_IFDIR | 0o555, one: unix.S_IFDIR | 0o555, file: unix.S_IFREG | 0o444}
		for node, bits := range shown {
			if want != 0 {
				bits &^= 0o077
			}
			a := parseAttributes(s.call(opGetattr, node, zeros(16)).body[16:])
			if a.mode != bits || a.uid != 1000 || a.ino != node {
				t.Errorf("mode %o: %+v, want mode %o", mode, a, bits)
			}
		}
	}
	s.caller = other
	if text, errno := s.read(before, 0, 4096); text != "-1\n" || errno != 0 {
		t.Errorf("who had it open reads %q, %v", text, errno)
	}
}

// lockDirs is how many directories lock/NAME are in the journal.
func (s *served) lockDirs() (n int) {
	s.call(opGetattr, 1, zeros(16))
	s.journal.look(func() { n = len(s.journal.lockDirs) })
	return n
}

// Nothing is left of a name when the kernel has forgotten all that it was told, and
// nobody has it open.
func TestLockDirsAreForgotten(t *testing.T) {
	s := serve(t)
	one, file := s.walk(".lockfs", "lock", "x"), s.walk(".lockfs", "lock", "x", "check") // 3 references
	if again := s.walk(".lockfs", "lock", "x"); again != one {
		t.Errorf("the number is %d, and was %d", again, one)
	}
	f := s.mustOpen(file, unix.O_RDONLY)
	s.send(opForget, one, u64(3))
	s.send(opForget, s.walk(".lockfs", "lock"), u64(100))
	if n := s.lockDirs(); n != 1 {
		t.Fatalf("%d are left, want 1", n)
	}
	s.send(opForget, file, u64(1))
	if n := s.lockDirs(); n != 1 {
		t.Fatalf("%d are left while a file is open, want 1", n)
	}
	if text, errno := s.read(f, 0, 10); text != "0\n" || errno != 0 {
		t.Errorf("the open file reads %q, %v", text, errno)
	}
	s.release(f)
	if n := s.lockDirs(); n != 0 {
		t.Errorf("%d are left", n)
	}
	if r := s.call(opGetattr, one, zeros(16)); r.errno != unix.ESTALE {
		t.Errorf("what was forgotten: %v", r.errno)
	}
	s.send(opForget, one, u64(1))
	g := s.mustOpen(s.walk(".lockfs", "lock", "x", "mode"), unix.O_RDONLY)
	s.release(g)
	if n := s.lockDirs(); n != 1 {
		t.Errorf("%d are left of what the kernel refers to, want 1", n)
	}
	s.send(opForget, g.node, u64(5))
	if n := s.lockDirs(); n != 0 {
		t.Errorf("%d are left of what was forgotten once more than looked up", n)
	}
	if n := s.fs.Counts().Nodes; n != 1 {
		t.Errorf("%d nodes are left", n)
	}
}

// An ordinary user who looks up name after name fills no memory, and takes nothing
// from others.
func TestLockDirsAreBounded(t *testing.T) {
	const most = 1024
	s := serve(t)
	s.caller = caller{1001, 1001, 101}
	others := s.walk(".lockfs", "lock", "others")
	s.caller = caller{1000, 1000, 100}
	lock := s.walk(".lockfs", "lock")
	open := s.mustOpen(s.walk(".lockfs", "lock", "open", "check"), unix.O_RDONLY)
	used, first := s.walk(".lockfs", "lock", "used"), s.walk(".lockfs", "lock", "first")
	for i := range 3 * most {
		if _, _, errno := s.lookup(lock, fmt.Sprint(i)); errno != 0 {
			t.Fatal(errno)
		}
		if _, _, errno := s.lookup(used, "check"); errno != 0 {
			t.Fatalf("what is in use after %d others: %v", i, errno)
		}
	}
	if n := s.lockDirs(); n != most+2 {
		t.Errorf("%d are kept, want %d", n, most+2)
	}
	if text, errno := s.read(open, 0, 10); text != "0\n" || errno != 0 {
		t.Errorf("the open file reads %q, %v", text, errno)
	}
	for node, want := range map[uint64]unix.Errno{others: 0, used: 0, first: unix.ESTALE} {
		if r := s.call(opLookup, node, cstring("check")); r.errno != want {
			t.Errorf("node %#x: %v, want %v", node, r.errno, want)
		}
	}
	if again := s.walk(".lockfs", "lock", "first"); again == first {
		t.Error("a number was given out twice")
	}
	s.release(open)
	if n := s.lockDirs(); n > most+2 {
		t.Errorf("%d are kept after the close", n)
	}
}

// Numbers, readers and listings go on in the next process.
func TestLockDirsSurvive(t *testing.T) {
	records := store{}
	s := serveControl(t, records)
	for i := range 40 {
		s.mustCreate(fmt.Sprintf("lock%02d", i), unix.O_EXCL)
	}
	s.release(s.mustCreate("lock", 0))
	one, file := s.walk(".lockfs", "lock", "lock00"), s.walk(".lockfs", "lock", "lock00", "holder")
	f := s.mustOpen(file, unix.O_RDONLY)
	began, errno := s.read(f, 0, 9)
	if errno != 0 {
		t.Fatal(errno)
	}
	lock := s.walk(".lockfs", "lock")
	dir := native.Uint64(s.call(opOpendir, lock, u32(0), u32(0)).body)
	names, next := s.readdirOf(lock, dir, 0, 400)
	for s.restore(records); ; s.restore(records) {
		s.mustCreate(fmt.Sprint("later", next), unix.O_EXCL)
		more, at := s.readdirOf(lock, dir, next, 400)
		if len(more) == 0 {
			break
		}
		names, next = append(names, more...), at
	}
	if len(names) != 42 || !slices.IsSorted(names) || names[41] != "lock39" {
		t.Errorf("listed are %q", names)
	}
	s.call(opReleasedir, lock, u64(dir), zeros(16))
	rest, errno := s.read(f, 9, 4096)
	if text := s.toldOf("lock00", "holder"); errno != 0 || began+rest != text {
		t.Errorf("who was in the middle reads %q, %v, want %q", began+rest, errno, text)
	}
	if again := s.walk(".lockfs", "lock", "lock00", "holder"); again != file {
		t.Errorf("the number is %d, and was %d", again, file)
	}
	s.release(f)
	if r := s.call(opLookup, one, cstring("check")); r.errno != 0 {
		t.Errorf("look up in a directory that another process has named: %v", r.errno)
	}
	s.send(opForget, one, u64(100))
	s.call(opGetattr, 1, zeros(16))
	for k := range records {
		if k[0] == 12 {
			t.Errorf("record %d of a directory is left", k[1])
		}
	}
	if now := s.walk(".lockfs", "lock", "lock00"); now == one {
		t.Error("a number was given out twice")
	}
}

// Records that cannot be are refused.
func TestDamagedRecordsOfLockDirs(t *testing.T) {
	records := store{}
	s := serveControl(t, records)
	one, two := s.walk(".lockfs", "lock", "one"), s.walk(".lockfs", "lock", "two")
	number := func(node uint64) [2]uint64 { return [2]uint64{12, node << 3 >> 11} }
	good := string(records[number(one)])
	for what, damage := range map[string]func(){
		"two of one name":     func() { records[number(two)] = []byte(good) },
		"no name":             func() { records[number(one)] = []byte(good)[:len(good)-3] },
		"a number too high":   func() { records[[2]uint64{12, 1 << 60}] = []byte(strings.Replace(good, "one", "two", 1)) },
		"something is behind": func() { records[number(one)] = []byte(good + "x") },
	} {
		saved := make(store)
		for k, v := range records {
			saved[k] = v
		}
		if damage(); !errors.Is(s.restorable(records), fs.ErrRecord) {
			t.Errorf("%s: %v", what, s.restorable(records))
		}
		clear(records)
		for k, v := range saved {
			records[k] = v
		}
	}
	if err := s.restorable(records); err != nil {
		t.Error(err)
	}
}

// A directory that has been removed has no locks to tell of, and what the kernel
// forgets of it is forgotten.
func TestLockDirsOfARemovedDirectory(t *testing.T) {
	s := serve(t)
	dir := s.mustMkdir(1, "dir", 0o755)
	one := s.walk("dir", ".lockfs", "lock", "x")
	if r := s.call(opRmdir, 1, cstring("dir")); r.errno != 0 {
		t.Fatal(r.errno)
	}
	if _, _, errno := s.lookup(one, "check"); errno != 0 && errno != unix.ESTALE {
		t.Error(errno)
	}
	s.send(opForget, dir, u64(100))
	s.call(opGetattr, 1, zeros(16))
	if r := s.call(opGetattr, one, zeros(16)); r.errno != unix.ESTALE {
		t.Errorf("in a directory that there is not any more: %v", r.errno)
	}
	s.send(opForget, one, u64(100))
	if n := s.lockDirs(); n != 0 {
		t.Errorf("%d are left", n)
	}
}
