package fs_test

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.3: lease and grace, in the time of testing/synctest.

// inBubble runs a test on a root with a policy.
func inBubble(t *testing.T, settings string, test func(t *testing.T, s *served)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, serveInBubble(t, func(o *fs.Options) { o.Policy = mustPolicy(t, settings) }))
	})
}

// setTimes is utimensat(2) with UTIME_NOW: by path, or through an open file.
func (s *served) setTimes(node uint64, through *file) unix.Errno {
	s.t.Helper()
	const mtime, mtimeNow, fh = 1 << 5, 1 << 8, 1 << 6
	valid, handle := uint32(mtime|mtimeNow), uint64(0)
	if through != nil {
		valid, handle = valid|fh, through.handle
	}
	return s.call(opSetattr, node, u32(valid), u32(0), u64(handle), zeros(72)).errno
}

func (s *served) unlink(name string) unix.Errno {
	s.t.Helper()
	return s.call(opUnlink, 1, cstring(name)).errno
}

// taken reports whether somebody else is kept out.
func (s *served) taken(name string) bool {
	s.t.Helper()
	was := s.caller
	defer func() { s.caller = was }()
	s.caller = caller{uid: 2000, gid: 2000, pid: 7777}
	f, errno := s.create(name, 0)
	if errno != 0 {
		s.t.Fatalf("open %q: %v", name, errno)
	}
	defer s.release(f)
	switch errno := s.flock(f, unix.F_WRLCK); errno {
	case 0:
		return false
	case unix.EAGAIN:
		return true
	default:
		s.t.Fatalf("flock %q: %v", name, errno)
		return false
	}
}

func TestLeaseRunsOut(t *testing.T) {
	inBubble(t, "lease=10s", func(t *testing.T, s *served) {
		f := s.mustCreate("x", unix.O_EXCL)
		s.caller.pid = 200
		g := s.mustCreate("x", 0)
		waiter := s.startFlock(g, unix.F_WRLCK)
		time.Sleep(10*time.Second - time.Nanosecond)
		if !s.pending(waiter) {
			t.Fatal("let in before the lease ran out")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if r := s.await(waiter); r.errno != 0 {
			t.Fatalf("who waited: %v", r.errno)
		}
		s.caller.pid = 100
		if errno := s.write(f, 0, "late"); errno != unix.ESTALE {
			t.Errorf("the one whose lease ran out writes: %v, want ESTALE", errno)
		}
		if errno := s.flock(f, unix.F_WRLCK); errno != unix.ESTALE {
			t.Errorf("the one whose lease ran out locks: %v, want ESTALE", errno)
		}
		s.release(f)
		if !s.taken("x") {
			t.Error("closing what was lost gave it back for the new holder")
		}
	})
}

// Whatever the holder does renews, and what others do does not.
func TestLeaseIsRenewed(t *testing.T) {
	other := caller{uid: 3000, gid: 3000, pid: 300}
	for name, c := range map[string]struct {
		renews bool
		do     func(s *served, f file)
	}{
		"nothing":        {false, func(*served, file) {}},
		"lock call":      {true, func(s *served, f file) { s.flock(f, unix.F_WRLCK) }},
		"unlock call":    {true, func(s *served, f file) { s.flock(f, unix.F_UNLCK) }},
		"write":          {true, func(s *served, f file) { s.write(f, 0, "I live") }},
		"touch":          {true, func(s *served, f file) { s.setTimes(f.node, nil) }},
		"touch the open": {true, func(s *served, f file) { s.setTimes(f.node, &f) }},
		"touch by a child of the same user": {true, func(s *served, f file) {
			s.caller.pid = 101
			s.setTimes(f.node, nil)
		}},
		"touch by root": {true, func(s *served, f file) {
			s.caller = caller{pid: 1}
			s.setTimes(f.node, nil)
		}},
		"touch by another": {false, func(s *served, f file) {
			s.caller = other
			s.setTimes(f.node, nil)
		}},
		"write by another": {false, func(s *served, f file) {
			s.caller = other
			s.write(s.mustOpen(f.node, unix.O_RDWR), 0, "me")
		}},
		"lock call of another": {false, func(s *served, f file) {
			s.caller = other
			s.flock(s.mustOpen(f.node, unix.O_RDWR), unix.F_WRLCK)
		}},
		"read": {false, func(s *served, f file) { s.read(f, 0, 10) }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "lease=10s", func(t *testing.T, s *served) {
				f := s.mustCreate("x", unix.O_EXCL)
				for range 3 {
					time.Sleep(6 * time.Second)
					if !s.list()["x"] {
						break
					}
					c.do(s, f)
					s.caller = caller{uid: 1000, gid: 1000, pid: 100}
				}
				synctest.Wait()
				if got := s.taken("x"); got != c.renews {
					t.Errorf("held: %t, want %t", got, c.renews)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if s.taken("x") {
					t.Error("held for longer than its lease")
				}
			})
		})
	}
}

// st_mtim is when a lock was taken, and then when its lease was renewed.
func TestRenewalIsSeen(t *testing.T) {
	inBubble(t, "lease=10s", func(t *testing.T, s *served) {
		f := s.mustCreate("x", unix.O_EXCL)
		mtime := func() time.Duration {
			r := s.call(opGetattr, f.node, zeros(16))
			const seconds, nanoseconds = 16 + 32, 16 + 52
			return time.Unix(int64(native.Uint64(r.body[seconds:])), int64(native.Uint32(r.body[nanoseconds:]))).Sub(bubbleBegan)
		}
		for _, renew := range []func(){
			func() { s.setTimes(f.node, nil) },
			func() { s.write(f, 0, "I live") },
			func() { s.flock(f, unix.F_WRLCK) },
		} {
			before := mtime()
			time.Sleep(6 * time.Second)
			if now := mtime(); now != before {
				t.Fatalf("mtime went from %v to %v by itself", before, now)
			}
			renew()
			if now := mtime(); now != before+6*time.Second {
				t.Errorf("renewed 6 s after %v, mtime is %v", before, now)
			}
		}
	})
}

// A hold by name takes its name along; what is free is not touched.
func TestLeaseOfNames(t *testing.T) {
	inBubble(t, "lease=10s,hold=name,grace=5s", func(t *testing.T, s *served) {
		s.release(s.mustCreate("held", unix.O_EXCL))
		s.release(s.mustCreate("ordinary", 0))
		dir, errno := s.mkdir(1, "dir")
		if errno != 0 {
			t.Fatal(errno)
		}
		s.release(s.mustCreateIn(dir, "pid", 0))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := sorted(s.list()); len(got) != 1 || got[0] != "ordinary" {
			t.Errorf("left are %q, want the ordinary file", got)
		}
		if _, errno := s.create("held", unix.O_EXCL); errno != unix.EEXIST {
			t.Errorf("made in grace: %v, want EEXIST", errno)
		}
		if _, errno := s.mkdir(1, "dir"); errno != unix.EEXIST {
			t.Errorf("directory made in grace: %v, want EEXIST", errno)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if _, errno := s.create("held", unix.O_EXCL); errno != 0 {
			t.Errorf("made after grace: %v", errno)
		}
		if _, errno := s.mkdir(1, "dir"); errno != 0 {
			t.Errorf("directory made after grace: %v", errno)
		}
	})
}

// A directory in which something is held stays, held by nobody, and goes with the
// last of that: who takes it by mkdir(2) is not kept out for ever.
func TestLeaseOfADirectoryInUse(t *testing.T) {
	inBubble(t, "lease=10s", func(t *testing.T, s *served) {
		dir, errno := s.mkdir(1, "dir")
		if errno != 0 {
			t.Fatal(errno)
		}
		time.Sleep(5 * time.Second)
		inner := s.mustCreateIn(dir, "inner", unix.O_EXCL)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !s.list()["dir"] {
			t.Error("a directory is gone in which something is held")
		}
		if n := s.fs.Counts().Holds; n != 1 {
			t.Errorf("%d holds, want the inner one", n)
		}
		s.release(inner)
		if _, errno := s.mkdir(1, "dir"); errno != 0 {
			t.Errorf("mkdir when the inner one was given back: %v", errno)
		}
	})
}

// A lock directory with a lock in it, taken a moment later: both leases run out,
// the outer one first. So it is over the death of a worker in between.
func TestLeasesOfDirectoriesInEachOther(t *testing.T) {
	for name, dies := range map[string]bool{"in one life": false, "dies in between": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				records := store{}
				s := serveInBubble(t, func(o *fs.Options) {
					o.Policy = mustPolicy(t, "lease=10s,hold=name")
					o.Journal = fs.NewRecords(records, new(fs.Saved))
				})
				dir := uint64(1)
				for range 3 {
					made, errno := s.mkdir(dir, "dir")
					if errno != 0 {
						t.Fatal(errno)
					}
					dir = made
					time.Sleep(2 * time.Second)
				}
				time.Sleep(5 * time.Second) // 11 s after the first
				synctest.Wait()
				s.wantListed(t, "when the outer lease has run out", "dir")
				if dies {
					s.restore(records)
					s.call(opGetattr, 1, zeros(16)) // a step, which sets the timer
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				s.wantListed(t, "when all have")
			})
		})
	}
}

// A lease that is set while something is held gives it a whole one, and one that
// is taken away ends nothing.
func TestLeaseIsSetLater(t *testing.T) {
	inBubble(t, "lease=0", func(t *testing.T, s *served) {
		s.mustCreate("x", unix.O_EXCL)
		time.Sleep(time.Hour)
		s.caller = caller{pid: 1}
		if errno := s.set(1, "lease", "10s"); errno != 0 {
			t.Fatal(errno)
		}
		time.Sleep(9 * time.Second)
		if !s.taken("x") {
			t.Fatal("ended before it had a whole lease")
		}
		if errno := s.set(1, "lease", "20s"); errno != 0 {
			t.Fatal(errno)
		}
		time.Sleep(19 * time.Second)
		if !s.taken("x") {
			t.Fatal("ended before it had a whole lease of the second kind")
		}
		if errno := s.set(1, "lease", "0"); errno != 0 {
			t.Fatal(errno)
		}
		time.Sleep(time.Hour)
		if !s.taken("x") {
			t.Fatal("ended without a lease")
		}
		if errno := s.set(1, "lease", "1s"); errno != 0 {
			t.Fatal(errno)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s.taken("x") {
			t.Error("held for longer than its lease")
		}
	})
}

// A successor goes on with what is left of a lease and of a grace.
func TestLeaseSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := store{}
		s := serveInBubble(t, func(o *fs.Options) {
			o.Policy = mustPolicy(t, "lease=10s,grace=5s")
			o.Journal = fs.NewRecords(records, new(fs.Saved))
		})
		s.mustCreate("x", unix.O_EXCL)
		time.Sleep(6 * time.Second)
		s.restore(records)
		if got := s.setting(1, "lease"); got != "10s\n" {
			t.Errorf("the lease is %q", got)
		}
		time.Sleep(3 * time.Second)
		if !s.taken("x") {
			t.Error("the lease ended too early")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if s.list()["x"] {
			t.Error("the lease did not end in time")
		}
		time.Sleep(2 * time.Second)
		s.restore(records)
		if _, errno := s.create("x", unix.O_EXCL); errno != unix.EEXIST {
			t.Errorf("made in grace: %v", errno)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if _, errno := s.create("x", unix.O_EXCL); errno != 0 {
			t.Errorf("made after grace: %v", errno)
		}
	})
}

// A clean stop, over which nobody can renew anything, begins leases anew; a grace
// goes on.
func TestLeaseOverACleanStop(t *testing.T) {
	inBubble(t, "lease=10s,grace=30s,hold=name", func(t *testing.T, s *served) {
		s.release(s.mustCreate("x", unix.O_EXCL))
		s.release(s.mustCreate("y", unix.O_EXCL))
		s.caller = caller{pid: 1}
		s.unlink("y") // breaks it
		time.Sleep(9 * time.Second)
		s.stopAndStart(t)
		time.Sleep(9 * time.Second)
		s.wantListed(t, "before the new lease ends", "x")
		time.Sleep(time.Second)
		synctest.Wait()
		s.wantListed(t, "after it")
		if _, errno := s.create("y", unix.O_EXCL); errno != unix.EEXIST {
			t.Errorf("made in grace: %v", errno)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if _, errno := s.create("y", unix.O_EXCL); errno != 0 {
			t.Errorf("made after grace: %v", errno)
		}
	})
}

// Who holds a lock by an open file when the mount ends has not given it back.
func TestGraceOverACleanStop(t *testing.T) {
	inBubble(t, "grace=10s", func(t *testing.T, s *served) {
		s.mustCreate("held", unix.O_EXCL)
		s.release(s.mustCreate("given back", unix.O_EXCL))
		s.stopAndStart(t)
		for name, want := range map[string]unix.Errno{"held": unix.EEXIST, "given back": 0} {
			if _, errno := s.create(name, unix.O_EXCL); errno != want {
				t.Errorf("%s: %v, want %v", name, errno, want)
			}
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if _, errno := s.create("held", unix.O_EXCL); errno != 0 {
			t.Errorf("made after grace: %v", errno)
		}
	})
}

// Grace comes after an abnormal end, and only then.
func TestGraceIsForAbnormalEnds(t *testing.T) {
	for name, c := range map[string]struct {
		abnormal bool
		end      func(s *served, f file)
	}{
		"closed":   {false, func(s *served, f file) { s.release(f) }},
		"unlocked": {false, func(s *served, f file) { s.flock(f, unix.F_UNLCK) }},
		"killed": {true, func(s *served, f file) {
			s.procs.killed[100] = true
			s.release(f)
		}},
		"a child was killed": {false, func(s *served, f file) {
			s.procs.killed[101] = true
			s.caller.pid = 101
			s.call(opFlush, f.node, u64(f.handle), zeros(8), u64(0))
			s.caller.pid = 100
			s.release(f)
		}},
		"broken": {true, func(s *served, f file) {
			s.caller = caller{pid: 1}
			s.unlink("x")
		}},
		"unlinked by the holder": {false, func(s *served, f file) { s.unlink("x") }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "grace=10s", func(t *testing.T, s *served) {
				f := s.mustCreate("x", 0)
				if errno := s.flock(f, unix.F_WRLCK); errno != 0 {
					t.Fatal(errno)
				}
				c.end(s, f)
				s.caller = caller{uid: 1000, gid: 1000, pid: 500}
				if got := s.taken("x"); got != c.abnormal {
					t.Fatalf("in grace: %t, want %t", got, c.abnormal)
				}
				if !c.abnormal {
					return
				}
				g := s.mustCreate("x", 0)
				waiter := s.startFlock(g, unix.F_WRLCK)
				time.Sleep(10*time.Second - time.Nanosecond)
				if !s.pending(waiter) {
					t.Fatal("let in during grace")
				}
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				if r := s.await(waiter); r.errno != 0 {
					t.Errorf("after grace: %v", r.errno)
				}
			})
		})
	}
}

// Who waited to open a name whose lease ran out has it, with what is in it.
func TestALapsedNameIsPassedOn(t *testing.T) {
	inBubble(t, "lease=10s,hold=open", func(t *testing.T, s *served) {
		f := s.mustCreate("lock", 0)
		if errno := s.write(f, 0, "value"); errno != 0 {
			t.Fatal(errno)
		}
		s.release(f)
		if errno := s.link(f.node, "other"); errno != 0 {
			t.Fatal(errno)
		}
		node, _, _ := s.lookup(1, "other")
		s.caller.pid = 101
		waiter := s.startOpen(node, unix.O_RDWR)
		if !s.pending(waiter) {
			t.Fatal("open(2) does not wait for what is held by name")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		g := s.opened(waiter, node)
		if text, errno := s.read(g, 0, 100); text != "value" || errno != 0 {
			t.Errorf("read %q, %v", text, errno)
		}
		s.release(g)
		s.wantListed(t, "when it was closed", "lock", "other")
	})
}

// In grace a directory is refused as everything else is that would take the name.
func TestNoDirectoryIsMovedIntoGrace(t *testing.T) {
	inBubble(t, "lease=10s,grace=5s", func(t *testing.T, s *served) {
		if _, errno := s.mkdir(1, "lock"); errno != 0 {
			t.Fatal(errno)
		}
		time.Sleep(9 * time.Second)
		if _, errno := s.mkdir(1, "mine"); errno != 0 {
			t.Fatal(errno)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if r := s.call(opRename2, 1, u64(1), u32(0), u32(0), cstring("mine"), cstring("lock")); r.errno != unix.EEXIST {
			t.Errorf("rename in grace: %v, want EEXIST", r.errno)
		}
	})
}
