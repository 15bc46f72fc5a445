package fs_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
)

// What the connection does beside handing requests to the filesystem, seen
// through the wire.

func TestInterruptEndsAWait(t *testing.T) {
	s := serve(t)
	a, b := s.mustCreate("x", 0), s.mustCreate("x", 0)
	if e := s.flock(a, unix.F_WRLCK); e != 0 {
		t.Fatal(e)
	}
	w := s.startFlock(b, unix.F_WRLCK)
	if !s.pending(w) {
		t.Fatal("the second did not wait")
	}
	s.send(opInterrupt, 0, u64(w))
	if r := s.await(w); r.errno != unix.EINTR {
		t.Errorf("interrupted wait: %v", r.errno)
	}
	// Nobody stands in the way of others after that.
	s.release(a)
	c := s.mustCreate("x", 0)
	if e := s.flock(c, unix.F_WRLCK); e != 0 {
		t.Errorf("after the interrupted wait: %v", e)
	}
}

func TestInterruptForAnAnsweredRequestIsNotAnswered(t *testing.T) {
	s := serve(t)
	u := s.send(opGetattr, 1, zeros(16))
	s.await(u)
	s.sendAs(u|1, opInterrupt, 0, u64(u))
	s.sendAs(999999, opInterrupt, 0, u64(12345))
	s.call(opGetattr, 1, zeros(16))
	for unique := range s.replies {
		t.Errorf("request %d was answered (go-fuse says EAGAIN, and the kernel asks for ever)", unique)
	}
}

func TestInterruptDuringADetour(t *testing.T) {
	s := serve(t)
	a, b := s.mustCreate("x", 0), s.mustCreate("x", 0)
	// b's fcntl by the process that has a's flock: whether it is the same
	// process must be looked up.
	if e := s.flock(a, unix.F_WRLCK); e != 0 {
		t.Fatal(e)
	}
	s.procs.set(100, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Started: 1 << 62}}) // it is not: the number was reused
	release := s.procs.hold()
	w := s.send(opSetlkw, b.node, s.lockBody(b, 7, unix.F_WRLCK, 0, toEnd, false))
	if !s.pending(w) {
		t.Fatal("answered before the look-up")
	}
	s.send(opInterrupt, 0, u64(w))
	if !s.pending(w) {
		t.Fatal("answered before the look-up, by the interrupt")
	}
	release()
	if r := s.await(w); r.errno != unix.EINTR {
		t.Errorf("interrupted on its detour: %v", r.errno)
	}
}

// 2.1: a look-up does not reorder the effects on one lock.
func TestAWaitKeepsItsPlaceOverADetour(t *testing.T) {
	s := serve(t)
	a, b, c := s.mustCreate("x", 0), s.mustCreate("x", 0), s.mustCreate("x", 0)
	s.flock(a, unix.F_WRLCK)
	s.procs.set(100, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Started: 1 << 62}})
	release := s.procs.hold()
	first := s.send(opSetlkw, b.node, s.lockBody(b, 7, unix.F_WRLCK, 0, toEnd, false))
	if !s.pending(first) {
		t.Fatal("answered before the look-up")
	}
	second := s.startFlock(c, unix.F_WRLCK)
	if !s.pending(second) {
		t.Fatal("two hold it")
	}
	release()
	for s.waiting() < 2 {
		s.call(opGetattr, 1, zeros(16))
	}
	s.flock(a, unix.F_UNLCK)
	if r := s.await(first); r.errno != 0 {
		t.Errorf("the first to come: %v", r.errno)
	}
	if !s.pending(second) {
		t.Error("the second got in before the first gave it back")
	}
}

// Who comes back first from his look-up does not get before one who came earlier a
// lock that has become free meanwhile; an interrupt ends it all the same.
func TestALookUpDoesNotOvertake(t *testing.T) {
	s := serve(t)
	a, b, c, d := s.mustCreate("x", 0), s.mustCreate("x", 0), s.mustCreate("x", 0), s.mustCreate("x", 0)
	s.flock(a, unix.F_WRLCK)
	s.procs.set(100, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Started: 1 << 62}})
	looking := func(n int) {
		for s.procs.waited() < n {
			s.call(opGetattr, 1, zeros(16))
		}
	}
	release := s.procs.hold()
	first := s.send(opSetlkw, b.node, s.lockBody(b, 7, unix.F_WRLCK, 0, toEnd, false))
	looking(1)
	releaseOthers := s.procs.hold()
	second := s.send(opSetlkw, c.node, s.lockBody(c, 8, unix.F_WRLCK, 0, toEnd, false))
	third := s.send(opSetlkw, d.node, s.lockBody(d, 9, unix.F_WRLCK, 0, toEnd, false))
	looking(3)
	s.flock(a, unix.F_UNLCK)
	releaseOthers()
	if !s.pending(second) || !s.pending(third) {
		t.Fatal("the first was overtaken")
	}
	s.send(opInterrupt, 0, u64(third))
	if r := s.await(third); r.errno != unix.EINTR {
		t.Errorf("interrupted while it stood behind others: %v", r.errno)
	}
	release()
	if r := s.await(first); r.errno != 0 {
		t.Errorf("the first: %v", r.errno)
	}
	for s.waiting() < 1 {
		s.call(opGetattr, 1, zeros(16))
	}
	if !s.pending(second) {
		t.Error("the second got in before the first gave it back")
	}
}

// waiting returns how many waits are recorded.
func (s *served) waiting() (n int) {
	s.journal.look(func() { n = len(s.journal.waits) })
	return n
}

func TestOthersGoOnDuringADetour(t *testing.T) {
	s := serve(t)
	a := s.mustCreate("x", unix.O_EXCL)
	release := s.procs.hold()
	read := s.send(opRead, a.node, u64(a.handle), u64(0), u32(4096), zeros(20))
	if !s.pending(read) {
		t.Fatal("the record was made without a look-up")
	}
	b := s.mustCreate("y", unix.O_EXCL)
	s.release(b)
	release()
	if r := s.await(read); r.errno != 0 || !strings.HasPrefix(string(r.body), "pid=100\n") {
		t.Errorf("record: %v %q", r.errno, r.body)
	}
}

func TestPollIsAnswered(t *testing.T) {
	s := serve(t)
	a := s.mustCreate("x", 0)
	r := s.call(opPoll, a.node, u64(a.handle), u64(1), u32(0), u32(unix.POLLIN|unix.POLLPRI))
	if r.errno != 0 || native.Uint32(r.body) != unix.POLLIN {
		t.Errorf("poll: %v % x", r.errno, r.body)
	}
}

// go-fuse answers this name by itself, in the root.
func TestANameThatGoFuseKnowsIsJustAName(t *testing.T) {
	s := serve(t)
	const name = ".go-fuse-epoll-hack"
	if r := s.call(opLookup, 1, cstring(name)); r.errno != unix.ENOENT {
		t.Errorf("free: %v", r.errno)
	}
	s.mustCreate(name, unix.O_EXCL)
	if _, errno := s.create(name, unix.O_EXCL); errno != unix.EEXIST {
		t.Errorf("held: %v", errno)
	}
	if r := s.call(opLookup, 1, cstring(name)); r.errno != 0 {
		t.Errorf("held: lookup: %v", r.errno)
	}
}

func TestNonsenseFromTheKernel(t *testing.T) {
	s := serve(t)
	f := s.mustCreate("x", unix.O_EXCL)
	for _, c := range []struct {
		what   string
		opcode uint32
		node   uint64
		body   []byte
	}{
		{"unknown opcode", 77, 1, zeros(64)},
		{"opcode beyond all tables", 70000, 1, zeros(64)},
		{"truncated SETLK", opSetlk, f.node, zeros(8)},
		{"truncated POLL", opPoll, f.node, zeros(8)},
		{"truncated CREATE", opCreate, 1, zeros(4)},
		{"CREATE without a name", opCreate, 1, zeros(16)},
		{"unknown node", opGetattr, 4711, zeros(16)},
		{"unknown node as directory", opLookup, 4711, cstring("a")},
		{"a lock as directory", opLookup, f.node, cstring("a")},
		{"unknown handle", opSetlk, f.node, s.lockBody(file{f.node, 4711}, 1, unix.F_WRLCK, 0, toEnd, true)},
		{"range that ends before it begins", opSetlk, f.node, s.lockBody(f, 1, unix.F_WRLCK, 10, 5, false)},
		{"range beyond the last offset", opSetlk, f.node, s.lockBody(f, 1, unix.F_WRLCK, 0, 1<<63, false)},
		{"unlock of a bad range", opSetlk, f.node, s.lockBody(f, 1, unix.F_UNLCK, 10, 5, false)},
		{"read of an unknown handle", opRead, f.node, join(u64(4711), u64(0), u32(10), zeros(20))},
		{"write far out", opWrite, f.node, join(u64(f.handle), u64(1<<62), u32(1), zeros(20), []byte("x"))},
	} {
		if r := s.call(c.opcode, c.node, c.body); r.errno == 0 {
			t.Errorf("%s: succeeded", c.what)
		}
	}
	s.send(opForget, 4711, u64(3))
	s.send(opForget, f.node, u64(1<<40))
	s.send(opRelease, f.node, u64(4711), zeros(16))
	if r := s.call(opLookup, 1, cstring("x")); r.errno != 0 {
		t.Errorf("the lock did not survive it: %v", r.errno)
	}
}

// A cycle over two ranges of one file, each owner with one open file: the wire
// does not tell POSIX owners from open file descriptions, the system call does.
func TestCycleOverRangesOfOneFile(t *testing.T) {
	for _, c := range []struct {
		class lockspace.Class
		want  bool // one gets EDEADLK
	}{
		{lockspace.ClassPOSIX, true},
		{lockspace.ClassOFD, false},
		{lockspace.ClassUnknown, false},
	} {
		s := serve(t)
		s.procs.classes[101], s.procs.classes[102] = c.class, c.class
		a, b := s.mustCreate("x", 0), s.mustCreate("x", 0)
		lock := func(opcode, pid uint32, f file, first uint64) uint64 {
			s.caller.pid = pid
			return s.send(opcode, f.node, s.lockBody(f, uint64(pid), unix.F_WRLCK, first, first, false))
		}
		s.await(lock(opSetlk, 101, a, 0))
		s.await(lock(opSetlk, 102, b, 1))
		first := lock(opSetlkw, 101, a, 1)
		if !s.pending(first) {
			t.Fatal("the first did not wait")
		}
		second := lock(opSetlkw, 102, b, 0)
		if c.want {
			if r := s.await(second); r.errno != unix.EDEADLK {
				t.Errorf("class %d: %v, want EDEADLK", c.class, r.errno)
			}
			continue
		}
		if !s.pending(first) || !s.pending(second) {
			t.Errorf("class %d: a cycle that may be false was failed", c.class)
		}
	}
}
