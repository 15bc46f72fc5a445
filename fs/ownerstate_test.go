package fs_test

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// The state that a named owner hands on.

// stateOf reads the state of an owner, which must be one.
func (s *served) stateOf(owner string) string {
	s.t.Helper()
	text := s.told(owner, "state")
	if !regexp.MustCompile(`^lockfs1:[0-9a-f]{16}:([xs]\d+\.[0-9a-f]{16},?)+\n$`).MatchString(text) {
		s.t.Errorf("the state of %s is %q", owner, text)
	}
	return strings.TrimSpace(text)
}

// wantTakesUp fails the test unless acquire with a state has this outcome.
func (s *served) wantTakesUp(owner, state string, want unix.Errno, conflicts string) {
	s.t.Helper()
	before := s.list()
	if errno := s.tell(owner, "ctl", "acquire "+state); errno != want {
		s.t.Errorf("%s takes up from %s: %v, want %v", owner, state, errno, want)
	}
	s.wantTells(owner, "conflicts", conflicts)
	if after := s.list(); want != 0 && !maps.Equal(before, after) {
		s.t.Errorf("%s was refused, and %q are held where %q were", owner, sorted(after), sorted(before))
	}
}

func TestState(t *testing.T) {
	s := serve(t)
	s.made("vm", 500, "/a", "/b shared", "/c readonly")
	s.wantTells("vm", "state", "")
	s.mustTell("vm", "ctl<acquire")
	held := s.stateOf("vm")
	s.mustTell("vm", "ctl<release")
	if state := s.stateOf("vm"); state != held {
		t.Errorf("released, the state is %s, and was %s", state, held)
	}
	// Somebody who has it shared has changed nothing.
	f := s.mustCreate(diskName("/a"), 0)
	if errno := s.flock(f, unix.F_RDLCK); errno != 0 {
		t.Fatal(errno)
	}
	s.wantTakesUp("vm", held, unix.EBUSY, "state=held pid=100 uid=1000 via=flock mode=shared token=3 resource=disk /a\n")
	s.release(f)
	s.wantTakesUp("vm", held, 0, "")
	if state := s.stateOf("vm"); state == held {
		t.Errorf("taken anew, the state is %s still", state)
	}
	// What it holds is not compared.
	s.wantTakesUp("vm", held, 0, "")
	s.mustTell("vm", "ctl<release")
	s.wantTakesUp("vm", held, unix.ESTALE, "state=stale token=4 resource=disk /a\n")

	// Another owner takes up from it, on the same mount.
	state := s.stateOf("vm")
	s.made("there", 600, "/b shared", "/a")
	s.wantTakesUp("there", state, 0, "")
	s.wantTakesUp("vm", state, unix.ESTALE, "state=stale token=7 resource=disk /a\n")
	s.mustTell("there", "ctl<release")
	s.wantTakesUp("vm", state, unix.ESTALE, "state=stale token=7 resource=disk /a\n")
	s.wantTakesUp("vm", s.stateOf("there"), 0, "")

	// Whoever had it exclusively, by whatever call, and the owner removed since.
	s.rmOwner("there")
	state = s.stateOf("vm")
	s.rmOwner("vm")
	s.made("vm", 500, "/a", "/b shared")
	g := s.mustCreate(diskName("/b"), unix.O_EXCL)
	s.release(g)
	s.wantTakesUp("vm", state, unix.ESTALE, "state=stale token=10 resource=disk /b shared\n")
	s.mustTell("vm", "ctl<acquire")
}

func TestStatesThatCannotBe(t *testing.T) {
	s := serve(t)
	s.made("vm", 500, "/a", "/b")
	s.mustTell("vm", "ctl<acquire", "ctl<release")
	state := s.stateOf("vm")
	head, entries := state[:len("lockfs1:")+17], state[len("lockfs1:")+17:]
	first, second, _ := strings.Cut(entries, ",")
	for _, bad := range []string{
		"lockfs1", "lockfs1::", "lockfs1:x:" + entries, "lockfs2" + state[7:], state + ",", head, head + ",", state + ":",
		head + first[:len(first)-1], head + "y" + first[1:], head + "x0" + first[strings.Index(first, "."):],
		head + "x" + first[strings.Index(first, "."):], head + strings.ToUpper(first), head + "x99999999999999999999" + first[strings.Index(first, "."):],
		head + "x1.0123456789abcdef", state + " register-only", state + " " + state, state + " restrict restrict",
	} {
		if errno := s.tell("vm", "ctl", "acquire "+bad); errno != unix.EINVAL {
			t.Errorf("%s: %v", bad, errno)
		}
	}
	s.wantDisks("what it was refused for was nonsense")
	s.mustTell("vm", "ctl<release disk /b")
	if errno := s.tell("vm", "ctl", "acquire "+state); errno != unix.EINVAL {
		t.Errorf("with a resource that it has no more: %v", errno)
	}
	s.mustTell("vm", "resources<disk /b readonly")
	if errno := s.tell("vm", "ctl", "acquire "+state); errno != unix.EINVAL {
		t.Errorf("with a resource that takes no lock: %v", errno)
	}
	// Part of a state, and one with fewer resources than the owner has.
	s.mustTell("vm", "resources<disk /b", "resources<disk /c", "ctl<acquire "+head+second)
	s.wantDisks("part of the state is enough", "/a", "/b", "/c")
	// Of another mount nothing can be said.
	s.mustTell("vm", "ctl<release", "ctl<acquire", "ctl<release")
	s.wantTakesUp("vm", state, unix.ESTALE, "state=stale token=6 resource=disk /a\nstate=stale token=7 resource=disk /b\n")
	s.wantTakesUp("vm", "lockfs1:0123456789abcdef:"+entries, 0, "")
	if errno := s.tell("vm", "ctl", "acquire lockfs1:0123456789abcdef:x1.0123456789abcdef"); errno != unix.EINVAL {
		t.Errorf("of another mount, with a resource that it does not have: %v", errno)
	}
}

// What is remembered outlives the process and a clean stop; and that it is no more.
func TestStatesAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := store{}
		s := serveInBubble(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
		s.made("vm", 0, "/a", "/b shared")
		s.mustTell("vm", "ctl<acquire", "ctl<release")
		state := s.stateOf("vm")
		s.rmOwner("vm")
		s.made("vm", 0, "/a", "/b shared")
		s.restore(records)
		s.stopAndStart(t)
		s.wantTakesUp("vm", state, 0, "")
		s.mustTell("vm", "ctl<release")
		s.stopAndStart(t)
		s.wantTakesUp("vm", state, unix.ESTALE, "state=stale token=3 resource=disk /a\n")

		// Another user's many are his own.
		state = s.stateOf("vm")
		s.caller.uid = 1001
		churn := func() {
			s.made("churn", 0)
			for i := 0; i < 1100; i += 50 {
				for j := range 50 {
					s.mustTell("churn", fmt.Sprintf("resources<disk /churn/%d", i+j))
				}
				s.mustTell("churn", "ctl<acquire", "ctl<release")
				for j := range 50 {
					s.mustTell("churn", fmt.Sprintf("ctl<release disk /churn/%d", i+j))
				}
			}
			s.rmOwner("churn")
		}
		churn()
		s.caller.uid = 1000
		s.wantTakesUp("vm", state, 0, "")
		s.mustTell("vm", "ctl<release")
		state = s.stateOf("vm")
		churn()
		s.stopAndStart(t)
		s.wantTakesUp("vm", state, unix.ESTALE, "state=stale token=0 resource=disk /a\nstate=stale token=0 resource=disk /b shared\n")
		// Held shared since, it is not known again what was before.
		s.mustTell("vm", "ctl<release disk /a", "ctl<acquire", "ctl<release", "resources<disk /a")
		if errno := s.tell("vm", "ctl", "acquire "+state); errno != unix.ESTALE || strings.Count(s.told("vm", "conflicts"), "state=stale") != 2 {
			t.Errorf("acquire: %v, conflicts %q", errno, s.told("vm", "conflicts"))
		}
	})
}
