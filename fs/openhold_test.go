package fs_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
)

// Lockspaces in which open(2) takes the lock; tests/openhold_test.go has what
// programs see of it.

// serveOpen serves such a lockspace that goes on from its records with restore.
func serveOpen(t testing.TB) (s *served, records store) {
	t.Helper()
	records = store{}
	s = serveWith(t, func(o *fs.Options) {
		o.Journal = fs.NewRecords(records, new(fs.Saved))
		o.Policy = mustPolicy(t, "hold=open")
	})
	return s, records
}

// setHold changes the policy of the root.
func (s *served) setHold(value string) {
	s.t.Helper()
	was := s.caller
	s.caller.uid = 0
	if errno := s.set(1, "hold", value); errno != 0 {
		s.t.Errorf("hold=%s: %v", value, errno)
	}
	s.caller = was
}

// startOpen sends an OPEN, which may wait.
func (k *kernel) startOpen(node uint64, flags uint32) uint64 {
	k.t.Helper()
	return k.send(opOpen, node, u32(flags), u32(0))
}

// opened returns the open file that an OPEN was answered with.
func (k *kernel) opened(unique, node uint64) file {
	k.t.Helper()
	r := k.await(unique)
	if r.errno != 0 || len(r.body) != 16 || native.Uint32(r.body[8:]) != 1 {
		k.t.Fatalf("OPEN: %v, % x; want an open file with FOPEN_DIRECT_IO", r.errno, r.body)
	}
	return file{node, native.Uint64(r.body)}
}

// poll sends a POLL that asks to be notified as pollID; 0 for one that does not.
func (k *kernel) poll(f file, pollID uint64, events uint32) uint32 {
	k.t.Helper()
	var flags uint32
	if pollID != 0 {
		flags = 1
	}
	r := k.call(opPoll, f.node, u64(f.handle), u64(pollID), u32(flags), u32(events))
	if r.errno != 0 || len(r.body) != 8 {
		k.t.Fatalf("POLL: %v, % x", r.errno, r.body)
	}
	return native.Uint32(r.body)
}

// notified returns who was woken since it was last asked.
func (k *kernel) notified() []uint64 {
	k.t.Helper()
	k.call(opGetattr, 1, zeros(16))
	woken := k.woken
	k.woken = nil
	return woken
}

// openWait is the record of an OPEN of a name in the root that waits.
func openWait(name string, node, handle uint64) *lockspace.Wait {
	return &lockspace.Wait{ID: 99, Place: 9, Request: lockspace.Request{
		Key: lockspace.Key{Dir: 1, Name: name}, Via: lockspace.ViaOpen, Range: lockspace.Whole,
		Party: lockspace.Party{Handle: handle, File: node, Taker: lockspace.Process{Pid: 100}},
	}}
}

// An OPEN that waits is answered with an open file by whoever serves when its
// turn comes, and its number is nobody else's.
func TestAnOpenThatWaitsOutlivesItsProcess(t *testing.T) {
	s, records := serveOpen(t)
	held := s.mustCreate("x", 0)
	first, second := s.startOpen(held.node, unix.O_RDONLY), s.startOpen(held.node, unix.O_RDWR)
	if !s.pending(first) || !s.pending(second) {
		t.Fatal("two inside")
	}
	s.restore(records)
	numbers := map[uint64]bool{held.handle: true}
	isNew := func(f file) {
		t.Helper()
		if numbers[f.handle] {
			t.Fatalf("open file %d is there twice", f.handle)
		}
		numbers[f.handle] = true
	}
	for i := range 5 {
		isNew(s.mustCreate(fmt.Sprint(i), 0))
	}
	s.release(held)
	reader := s.opened(first, held.node)
	isNew(reader)
	if !s.pending(second) {
		t.Fatal("a writer beside a reader")
	}
	s.restore(records)
	isNew(s.mustCreate("y", 0))
	// No reader passes the writer, nor a CREATE, which does not wait.
	if e := s.call(opOpen, held.node, u32(unix.O_RDONLY|unix.O_NONBLOCK), u32(0)).errno; e != unix.ETXTBSY {
		t.Errorf("O_NONBLOCK: %v, want ETXTBSY", e)
	}
	if _, e := s.create("x", 0); e != unix.ESTALE {
		t.Errorf("CREATE of what is held: %v, want ESTALE", e)
	}
	if _, e := s.create("x", unix.O_NONBLOCK); e != unix.ETXTBSY {
		t.Errorf("CREATE with O_NONBLOCK: %v, want ETXTBSY", e)
	}
	if _, e := s.create("x", unix.O_EXCL); e != unix.EEXIST {
		t.Errorf("CREATE with O_EXCL: %v, want EEXIST", e)
	}
	s.release(reader)
	writer := s.opened(second, held.node)
	isNew(writer)
	if e := s.write(writer, 0, "value"); e != 0 {
		t.Error("write:", e)
	}
	s.release(writer)
	again := s.mustCreate("x", 0) // it is there, and free
	if body, _ := s.read(again, 0, 100); body != "value" {
		t.Errorf("the body is %q", body)
	}
}

// The kernel may have forgotten the node when a wait that it interrupted is still
// remembered; and if it forgets one on which a request waits, that is its fault.
func TestAnOpenKeepsItsNode(t *testing.T) {
	s, records := serveOpen(t)
	held := s.mustCreate("x", 0)
	s.startOpen(held.node, unix.O_RDWR)
	interrupted := s.unique
	s.send(opInterrupt, 0, u64(interrupted))
	if r := s.await(interrupted); r.errno != unix.EINTR {
		t.Errorf("interrupted: %v, want EINTR", r.errno)
	}
	other := s.startOpen(held.node, unix.O_RDWR)
	s.pending(other)
	s.send(opForget, held.node, u64(1))
	s.restore(records)
	s.release(held)
	s.release(s.opened(other, held.node))
	s.pending(0)
	s.restore(records)
	if r := s.call(opGetattr, held.node, zeros(16)); r.errno != unix.ESTALE {
		t.Errorf("the node that was forgotten: %v, want ESTALE", r.errno)
	}
	if r := s.call(opLookup, 1, cstring("x")); r.errno != 0 {
		t.Errorf("the name: %v", r.errno)
	}
}

// An OPEN of what has lost its name meanwhile finds nothing to take: the kernel
// looks again.
func TestAnOpenOfARemovedNameIsStale(t *testing.T) {
	s, _ := serveOpen(t)
	old := s.mustCreate("x", 0)
	s.release(old)
	if r := s.call(opUnlink, 1, cstring("x")); r.errno != 0 {
		t.Fatal("unlink:", r.errno)
	}
	if r := s.call(opOpen, old.node, u32(unix.O_RDWR), u32(0)); r.errno != unix.ESTALE {
		t.Errorf("OPEN: %v, want ESTALE", r.errno)
	}
	if x := s.mustCreate("x", 0); x.node == old.node {
		t.Error("a new file has the old one's node")
	}
	if r := s.call(opOpen, old.node, u32(unix.O_RDWR), u32(0)); r.errno != unix.ESTALE {
		t.Errorf("OPEN: %v, want ESTALE", r.errno)
	}
}

// Who must be looked up first, to know whether it made what it waits for itself,
// keeps its place.
func TestAnOpenOnADetourKeepsItsPlace(t *testing.T) {
	s := serveWith(t, func(o *fs.Options) { o.Policy = mustPolicy(t, "hold=open") })
	s.release(s.mustCreate("tmp", 0))
	tmp, _, _ := s.lookup(1, "tmp")
	r := s.call(opLink, 1, u64(tmp), cstring("x"))
	if r.errno != 0 {
		t.Fatal("link:", r.errno)
	}
	node := native.Uint64(r.body)
	free := s.procs.hold()
	s.caller.pid = 201
	first := s.startOpen(node, unix.O_RDWR)
	s.pending(first)
	s.caller.pid = 202
	second := s.startOpen(node, unix.O_RDWR)
	s.pending(second)
	free()
	for s.waiting() < 2 {
		s.call(opGetattr, 1, zeros(16))
	}
	// Who made the name opens it; and may remove it then, as by then an open
	// file has it, no more.
	s.caller.pid = 100
	own := s.mustOpen(node, unix.O_RDWR)
	if e := s.call(opUnlink, 1, cstring("x")).errno; e != unix.EBUSY {
		t.Errorf("unlink: %v, want EBUSY", e)
	}
	s.release(own)
	if e := s.call(opUnlink, 1, cstring("x")).errno; e != 0 {
		t.Errorf("unlink: %v", e)
	}
	f := s.opened(first, node)
	if !s.pending(second) {
		t.Error("two inside")
	}
	// The name is its now.
	if got := fmt.Sprint(sorted(s.list())); got != "[tmp x]" {
		t.Errorf("listed are %v", got)
	}
	s.release(f)
	s.release(s.opened(second, node))
	if got := fmt.Sprint(sorted(s.list())); got != "[tmp x]" {
		t.Errorf("listed are %v", got)
	}
}

// poll(2): what is told at once, who is woken, and by whom after a death.
func TestPollOfWhatOpenHolds(t *testing.T) {
	const in, out, rdNorm = unix.POLLIN, unix.POLLOUT, 0x40
	s, records := serveOpen(t)
	f := s.mustCreate("x", 0)
	one, two, three := s.mustCreate("r", 0), file{}, file{}
	s.release(one)
	one, two, three = s.mustOpen(one.node, 0), s.mustOpen(one.node, 0), s.mustOpen(one.node, 0)
	if got := s.poll(f, 0, in|out|rdNorm); got != 0 {
		t.Errorf("nobody waits, and poll says %#x", got)
	}
	// Who has not slept is not woken.
	wait := s.startOpen(f.node, 0)
	if woken := s.notified(); woken != nil {
		t.Errorf("woken are %v, want nobody", woken)
	}
	if got := s.poll(f, 0, in|out|rdNorm); got != in|rdNorm {
		t.Errorf("somebody waits, and poll says %#x", got)
	}
	if got := s.poll(f, 70, out); got != 0 {
		t.Errorf("poll says %#x for POLLOUT", got)
	}
	s.send(opInterrupt, 0, u64(wait))
	s.await(wait)
	if got := s.poll(f, 70, in|out|rdNorm); got != 0 {
		t.Errorf("nobody waits any more, and poll says %#x", got)
	}
	s.poll(one, 71, in)
	s.poll(two, 72, in)
	s.restore(records)
	// By flock as well.
	s.startFlock(three, unix.F_WRLCK)
	if woken := fmt.Sprint(s.notified()); woken != "[71 72]" {
		t.Errorf("woken are %v, want those who slept", woken)
	}
	s.startOpen(one.node, unix.O_RDWR) // they know
	if woken := s.notified(); woken != nil {
		t.Errorf("woken are %v, want nobody", woken)
	}
	s.startOpen(f.node, unix.O_RDWR)
	if woken := fmt.Sprint(s.notified()); woken != "[70]" {
		t.Errorf("woken are %v, want who slept on that lock", woken)
	}
	for _, f := range []file{{1, 1 << 40}, {1, s.opendir()}} {
		if got := s.poll(f, 73, in|out); got != in|out {
			t.Errorf("poll of something else says %#x", got)
		}
	}
}

// A directory becomes one in which open takes the lock, and ceases to be one:
// what is held stays held.
func TestTheHoldPolicyChangesUnderOpenFiles(t *testing.T) {
	s, _ := serveOpen(t)
	s.setHold("handle")
	byHandle, unheld := s.mustCreate("x", unix.O_EXCL), s.mustCreate("y", 0)
	s.write(unheld, 0, "old")
	s.setHold("open")
	if got := s.poll(byHandle, 5, unix.POLLIN|unix.POLLOUT); got != unix.POLLIN|unix.POLLOUT {
		t.Errorf("poll of what open has not taken says %#x", got)
	}
	if _, e := s.create("x", 0); e != unix.ESTALE {
		t.Errorf("CREATE of what is held: %v", e)
	}
	wait := s.startOpen(byHandle.node, unix.O_RDWR)
	if !s.pending(wait) {
		t.Fatal("two inside")
	}
	if e := s.call(opUnlink, 1, cstring("x")).errno; e != unix.EBUSY {
		t.Errorf("unlink: %v, want EBUSY", e)
	}
	s.release(byHandle)
	x := s.opened(wait, byHandle.node)
	y := s.mustCreate("y", 0)
	if y.node != unheld.node {
		t.Errorf("y is on node %d, and was on %d", y.node, unheld.node)
	}
	if e := s.flock(unheld, unix.F_RDLCK); e != unix.EAGAIN {
		t.Errorf("flock through a file that was open before: %v", e)
	}
	if e := s.write(unheld, 0, "no"); e != 0 { // its process has it through y
		t.Errorf("write: %v", e)
	}
	s.release(y)
	s.release(unheld)
	if got := fmt.Sprint(sorted(s.list())); got != "[x y]" {
		t.Errorf("listed are %v", got)
	}
	waits := s.startOpen(x.node, 0)
	s.pending(waits)
	s.setHold("handle")
	if other := s.mustOpen(x.node, unix.O_RDWR); s.flock(other, unix.F_RDLCK) != unix.EAGAIN {
		t.Error("what open has taken is not held any more")
	}
	if got := s.poll(x, 6, unix.POLLOUT); got != 0 {
		t.Errorf("poll says %#x for POLLOUT", got)
	}
	s.caller = caller{uid: 1000, gid: 1000, pid: 300}
	if e := s.call(opUnlink, 1, cstring("x")).errno; e != 0 { // it breaks the lock, as elsewhere
		t.Errorf("unlink: %v", e)
	}
	if woken := fmt.Sprint(s.notified()); woken != "[6]" {
		t.Errorf("woken are %v, want the victim: poll says something else now", woken)
	}
	reader := s.opened(waits, x.node)
	if r := s.call(opFsync, x.node, u64(x.handle), zeros(8)); r.errno != unix.ESTALE {
		t.Errorf("fsync of the victim: %v", r.errno)
	}
	if got := fmt.Sprint(sorted(s.list())); got != "[x y]" {
		t.Errorf("listed are %v", got)
	}
	s.release(reader)
	if got := fmt.Sprint(sorted(s.list())); got != "[y]" {
		t.Errorf("listed are %v", got)
	}
}
