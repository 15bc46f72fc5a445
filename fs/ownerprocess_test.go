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

// The holds end with the process, and the owner gets nothing before it has another.
func TestTheProcessOfAnOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInBubble(t, nil)
		s.made("vm", 500, "/a", "/b")
		s.mustTell("vm", "ctl<acquire register-only")
		s.wantDisks("it was registered")
		s.mustTell("vm", "ctl<acquire")
		s.end(500)
		s.wantDisks("its process has ended")
		for _, command := range []string{"acquire", "acquire register-only", "acquire restrict"} {
			if errno := s.tell("vm", "ctl", command); errno != unix.ESRCH {
				t.Errorf("%s: %v", command, errno)
			}
		}
		s.mustTell("vm", "pid<600", "ctl<acquire")
		// What it holds goes to another process, with its token.
		state := s.told("vm", "state")
		s.mustTell("vm", "pid<700")
		s.wantTells("vm", "state", state)
		s.end(600)
		s.wantDisks("a process has ended that was its", "/a", "/b")
		if record := s.readAll(4096, diskName("/a")); !strings.HasPrefix(record, "pid=700\n") {
			t.Errorf("the record is %q", record)
		}
		// Nobody's, until it is given one.
		s.mustTell("vm", "pid<0")
		s.end(700)
		s.wantDisks("it has no process", "/a", "/b")
		s.mustTell("vm", "pid<800", "ctl<release")
		s.end(800)
		if errno := s.rmOwner("vm"); errno != 0 {
			t.Errorf("rmdir: %v", errno)
		}
	})
}

// Restricted, an owner is none of its process's business, nor of what that starts.
func TestRestrict(t *testing.T) {
	s := serve(t)
	s.procs.set(500, fs.ProcessInfo{Kin: fs.Kin{Pid: 500, Parent: 100, Started: 5}})
	s.procs.set(501, fs.ProcessInfo{Kin: fs.Kin{Pid: 501, Parent: 500, Started: 6}})
	s.procs.set(600, fs.ProcessInfo{Kin: fs.Kin{Pid: 600, Parent: 100, Started: 6}})
	s.made("vm", 500, "/a")
	s.caller.pid = 500
	s.mustTell("vm", "ctl<acquire register-only restrict")
	for _, pid := range []uint32{500, 501, 0} {
		s.caller.pid = pid
		for file, text := range map[string]string{"ctl": "acquire", "resources": "disk /b", "pid": "0", "name": "x", "onfailure": "ignore"} {
			if errno := s.tell("vm", file, text); errno != unix.EPERM {
				t.Errorf("process %d writes %q to %s: %v", pid, text, file, errno)
			}
		}
		if errno := s.rmOwner("vm"); errno != unix.EPERM {
			t.Errorf("rmdir by process %d: %v", pid, errno)
		}
	}
	s.caller.pid = 600
	s.mustTell("vm", "ctl<acquire")
	for _, pid := range []uint32{500, 501} {
		s.caller.pid = pid
		if errno := s.unlink(diskName("/a")); errno != unix.EPERM {
			t.Errorf("process %d removes what is held: %v", pid, errno)
		}
	}
	for _, pid := range []uint32{100, 600} {
		s.caller.pid = pid
		s.mustTell("vm", "ctl<acquire", "ctl<release", "resources<disk /b")
	}
	if errno := s.rmOwner("vm"); errno != 0 {
		t.Errorf("rmdir: %v", errno)
	}
}

// What befalls the process when a hold is taken away, and that it befalls it if the
// daemon dies before.
func TestOnFailure(t *testing.T) {
	for action, signal := range map[string]unix.Signal{
		"default": 0, "ignore": 0, "poweroff": unix.SIGKILL, "pause": unix.SIGSTOP, "restart": unix.SIGTERM,
	} {
		synctest.Test(t, func(t *testing.T) {
			records := store{}
			s := serveInBubble(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
			s.made("vm", 500, "/a", "/b")
			s.mustTell("vm", "onfailure<"+action, "ctl<acquire")
			sent := func(n int) {
				t.Helper()
				synctest.Wait()
				if signal == 0 {
					n = 0
				}
				if len(s.procs.signals) != n {
					t.Fatalf("%s: sent were %v, want %d", action, s.procs.signals, n)
				}
				for _, got := range s.procs.signals {
					if got != (sentSignal{fs.Identity{Pid: 500, Started: time.Nanosecond}, 1000, signal}) {
						t.Errorf("%s: sent was %v", action, got)
					}
				}
			}
			s.mustTell("vm", "ctl<release", "ctl<acquire")
			sent(0)
			s.caller.pid = 300 // neither the process nor started by it
			if errno := s.unlink(diskName("/a")); errno != 0 {
				t.Fatal(errno)
			}
			s.wantDisks("one was broken", "/b")
			sent(1)
			s.restore(maps.Clone(records))
			sent(1) // not again
			s.end(500)
			sent(1)
		})
	}
}

// What is due is done by the next process, if this one dies before; not if the owner
// has been given another process meanwhile.
func TestOnFailureIsDoneByTheNext(t *testing.T) {
	for _, another := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			records := store{}
			s := serveInBubble(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
			s.caller.uid = 0
			s.made("vm", 500, "/a")
			s.set(1, "lease", "1s")
			s.mustTell("vm", "onfailure<pause", "ctl<acquire")
			release := s.procs.hold()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			s.wantDisks("the lease has run out")
			if another {
				s.mustTell("vm", "pid<0")
			}
			s.restore(records)
			synctest.Wait()
			release()
			synctest.Wait()
			// The process before this one has sent it too, as it has not died in truth.
			want := 2
			if another {
				want = 1
			}
			if len(s.procs.signals) != want {
				t.Errorf("sent were %v, want %d", s.procs.signals, want)
			}
			s.restore(records)
			synctest.Wait()
			if len(s.procs.signals) != want {
				t.Errorf("then sent were %v, want %d", s.procs.signals, want)
			}
		})
	}
}
