package fs_test

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// All or none; and what is in the way is told.
func TestAcquire(t *testing.T) {
	s := serve(t)
	s.made("one", 500, "/a", "/b shared")
	s.mustTell("one", "ctl<acquire")
	s.wantDisks("one has acquired", "/a", "/b")
	s.made("two", 600, "/c", "/b", "/d readonly", "/a shared")
	if errno := s.tell("two", "ctl", "acquire"); errno != unix.EBUSY {
		t.Errorf("two acquires: %v", errno)
	}
	s.wantDisks("two was refused", "/a", "/b")
	s.wantTells("two", "conflicts", "state=held pid=500 uid=1000 via=owner mode=shared token=2 owner=one resource=disk /b\n"+
		"state=held pid=500 uid=1000 via=owner mode=exclusive token=1 owner=one resource=disk /a shared\n")
	s.mustTell("one", "ctl<release disk /a")
	s.wantTells("one", "resources", "disk /b shared\n")
	s.mustTell("two", "ctl<release disk /b", "resources<disk /b shared", "ctl<acquire")
	s.wantTells("two", "conflicts", "")
	s.wantDisks("two has acquired", "/a", "/b", "/c")

	// Hot-plug: the new one, or nothing; what there was is kept, with its token.
	state := s.told("two", "state")
	s.mustTell("two", "resources<disk /e")
	s.mustTell("two", "ctl<acquire")
	if now := s.told("two", "state"); !strings.HasPrefix(now, strings.TrimSpace(state)+",x") {
		t.Errorf("the state was %q and is %q", state, now)
	}
	s.mustTell("one", "resources<disk /f", "resources<disk /e")
	if errno := s.tell("one", "ctl", "acquire"); errno != unix.EBUSY {
		t.Errorf("one acquires what two has: %v", errno)
	}
	s.wantDisks("one was refused", "/a", "/b", "/c", "/e")
	s.mustTell("one", "ctl<release")
	s.mustTell("two", "ctl<release", "ctl<release")
	s.wantDisks("both have released")
	s.wantTells("two", "resources", "disk /c\ndisk /d readonly\ndisk /a shared\ndisk /b shared\ndisk /e\n")
}

// A resource can be taken alone, and is on the list then, or nothing has changed.
func TestAcquireOne(t *testing.T) {
	s := serve(t)
	space := s.mustMkdir(1, "space", 0o755)
	s.mustMkdir(space, "below", 0o755)
	s.made("one", 500, "/a")
	s.mustTell("one", "ctl<acquire")
	s.made("two", 600, "/a", "/b")
	for _, line := range []string{"disk /a", "disk /a readonly x", "disk", "lease nothing key", "disk /a shared"} {
		if errno := s.tell("two", "ctl", "acquire "+line); errno == 0 {
			t.Errorf("acquire %s succeeded", line)
		}
		s.wantTells("two", "resources", "disk /a\ndisk /b\n")
	}
	s.mustTell("two", "ctl<acquire disk /c shared", "ctl<acquire lease space/below key /x 1", "ctl<acquire disk /d readonly")
	if got := s.list(); !maps.Equal(got, map[string]bool{"space": true, diskName("/a"): true, diskName("/c"): true}) {
		t.Errorf("held are %q", sorted(got))
	}
	s.wantTells("two", "resources", "disk /a\ndisk /b\ndisk /c shared\nlease space/below key /x 1\ndisk /d readonly\n")
	// Stronger, if nobody is in the way.
	s.mustTell("one", "ctl<acquire disk /c shared")
	if errno := s.tell("two", "ctl", "acquire disk /c"); errno != unix.EBUSY {
		t.Errorf("an upgrade of what another has too: %v", errno)
	}
	s.wantTells("two", "conflicts", "state=held pid=500 uid=1000 via=owner mode=shared token=6 owner=one resource=disk /c\n")
	if !strings.Contains(s.told("two", "resources"), "disk /c shared\n") {
		t.Error("a refused upgrade has changed the resource")
	}
	s.mustTell("one", "ctl<release disk /c")
	s.mustTell("two", "ctl<acquire disk /c", "ctl<acquire disk /b", "ctl<release disk /c")
	s.endAndStep(500)
	if errno := s.tell("one", "ctl", "acquire disk /x"); errno != unix.ESRCH {
		t.Errorf("its process has ended: %v", errno)
	}
}

// endAndStep is the end of a process, where the time is nobody's.
func (s *served) endAndStep(pid uint32) {
	s.t.Helper()
	s.procs.end(pid)
	s.call(opGetattr, 1, zeros(16))
}

// Whatever else holds the lock is in the way, and so is the owner to it.
func TestAcquireAgainstOthers(t *testing.T) {
	s := serve(t)
	s.made("vm", 500, "/a")
	f := s.mustCreate(diskName("/a"), 0)
	if errno := s.flock(f, unix.F_RDLCK); errno != 0 {
		t.Fatal(errno)
	}
	wait := s.startFlock(s.mustCreate(diskName("/a"), 0), unix.F_WRLCK)
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EBUSY {
		t.Errorf("acquire of what is locked: %v", errno)
	}
	s.wantTells("vm", "conflicts", "state=held pid=100 uid=1000 via=flock mode=shared token=1 resource=disk /a\n"+
		"state=waiting pid=100 uid=1000 via=flock mode=exclusive resource=disk /a\n")
	s.release(f)
	if r := s.await(wait); r.errno != 0 {
		t.Fatal(r.errno)
	}
	s.rmOwner("vm")
	s.made("vm", 500, "/b")
	s.mustTell("vm", "ctl<acquire")
	if _, errno := s.create(diskName("/b"), unix.O_EXCL); errno != unix.EEXIST {
		t.Errorf("O_EXCL: %v", errno)
	}
	// Its process is a stranger to its owner, as all are.
	s.caller.pid = 500
	if errno := s.flock(s.mustCreate(diskName("/b"), 0), unix.F_RDLCK); errno != unix.EAGAIN {
		t.Errorf("flock: %v", errno)
	}
	record := s.readAll(4096, diskName("/b"))
	if !strings.HasPrefix(record, "pid=500\nuid=1000\nuser=alice\ncomm=program\n") || !strings.Contains(record, "via=owner\n") {
		t.Errorf("the record is %q", record)
	}
}

// To take a lock takes what O_EXCL would take.
func TestAcquireTakesPermission(t *testing.T) {
	s := serveWith(t, func(o *fs.Options) { o.UID, o.GID = 42, 42 })
	alice, owner := s.caller, caller{uid: 42, gid: 42, pid: 400}
	s.made("vm", 0, "/a")
	s.caller = owner
	s.setMode(1, 0o755)
	closed := s.mustMkdir(1, "closed", 0o700)
	s.mustMkdir(closed, "open", 0o777)
	s.mustMkdir(1, "open", 0o777)
	s.mustMkdir(1, "looked", 0o755)
	s.setMode(s.walk("open"), 0o777) // whatever the umask was
	s.caller = alice
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EACCES {
		t.Errorf("a disk, without write permission on the root: %v", errno)
	}
	for space, want := range map[string]unix.Errno{"open": 0, "looked": 0, "closed": 0, "closed/open": unix.EACCES} {
		if errno := s.tell("vm", "resources", "lease "+space+" key"); errno != want {
			t.Errorf("a lease in %s: %v, want %v", space, errno, want)
		}
	}
	s.mustTell("vm", "ctl<release disk /a")
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EACCES {
		t.Errorf("a lease, without write permission: %v", errno)
	}
	s.mustTell("vm", "ctl<release lease looked key", "ctl<release lease closed key", "ctl<acquire")
	if got := s.readAll(4096, "open", "key"); !strings.Contains(got, "via=owner\n") {
		t.Errorf("the record is %q", got)
	}
	// It is given back though the directory is closed meanwhile.
	s.caller = owner
	s.setMode(s.walk("open"), 0o700)
	s.caller = alice
	s.mustTell("vm", "ctl<acquire", "ctl<release")
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EACCES {
		t.Errorf("a lease in a directory that has been closed: %v", errno)
	}
}

// setMode is chmod(2) by the directory's owner.
func (s *served) setMode(dir uint64, mode uint32) {
	s.t.Helper()
	r := s.call(opSetattr, dir, u32(1), zeros(64), u32(mode), zeros(16))
	if r.errno != 0 {
		s.t.Fatal("chmod:", r.errno)
	}
}

// A lease runs for what owners hold; to acquire again renews it.
func TestOwnersLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInBubble(t, nil)
		s.caller.uid = 0
		s.made("vm", 500, "/a")
		s.set(1, "lease", "10s")
		s.mustTell("vm", "onfailure<pause", "ctl<acquire")
		for range 3 {
			time.Sleep(8 * time.Second)
			s.mustTell("vm", "ctl<acquire")
		}
		s.wantDisks("it was renewed", "/a")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		s.wantDisks("it was not renewed")
		if len(s.procs.signals) != 1 {
			t.Errorf("sent were %v", s.procs.signals)
		}
		s.set(1, "lease", "0")
		s.set(1, "grace", "10s")
		s.mustTell("vm", "ctl<acquire")
		s.end(500)
		s.made("next", 600, "/a")
		if errno := s.tell("next", "ctl", "acquire"); errno != unix.EBUSY {
			t.Errorf("acquire in grace: %v", errno)
		}
		s.wantTells("next", "conflicts", "state=grace resource=disk /a\n")
		// What an owner holds is kept over a stop, so nobody needs grace for it.
		time.Sleep(11 * time.Second)
		s.mustTell("next", "ctl<acquire")
		s.stopAndStart(t)
		s.wantDisks("after a stop", "/a")
		s.mustTell("next", "ctl<release", "ctl<acquire")
	})
}
