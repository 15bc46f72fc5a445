package tests

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The kinds of requests about lock/NAME in the control directory, during which
// workers die. See crashkinds_test.go and crashwords_test.go for the rest.

func TestEveryStepOfLookingAtALock(t *testing.T) { everyStepOfAll(t, lockDirKinds, newScene) }

var lockDirKinds = []kind{
	{
		name: "LOOKUP of lock/NAME", opcode: opLookup, course: plain,
		setup: func(s *scene) { taken(s); s.look2(".lockfs/lock") },
		call:  func(s *scene) { s.want("stat", s.statsBelow(s.name), nil) }, check: toldAsTaken,
	},
	{
		name: "LOOKUP of lock/NAME/check", opcode: opLookup, course: plain,
		setup: func(s *scene) { taken(s); s.look2(".lockfs/lock/" + s.name) },
		call:  func(s *scene) { s.want("stat", s.statsBelow("check"), nil) }, check: toldAsTaken,
	},
	{
		name: "OPEN of lock/NAME/check", opcode: opOpen, course: plain, setup: taken,
		call: opensOfLock("check"),
		check: func(s *scene) {
			text, err := s.b.Read(s.fd2, 100)
			if err != nil || text != "-1\n" {
				s.errorf("what was opened reads %q (%v)", text, err)
			}
			toldAsTaken(s)
		},
	},
	{
		name: "RELEASE of lock/NAME/check", opcode: opRelease, course: plain,
		setup: func(s *scene) { taken(s); opensOfLock("check")(s) },
		call:  func(s *scene) { s.shut(s.b, s.fd2) }, check: toldAsTaken,
	},
	{
		name: "READ of lock/NAME/holder", opcode: opRead, course: looking,
		setup: func(s *scene) { taken(s); opensOfLock("holder")(s) },
		call: func(s *scene) {
			text, err := s.b.Read(s.fd2, 4096)
			if want := fmt.Sprintf("pid=%d\n", s.a.Pid()); err != nil || !strings.HasPrefix(text, want) {
				s.errorf("read %q (%v), want it to begin with %q", text, err, want)
			}
		},
		check: toldAsTaken,
	},
	{
		name: "READ of the rest of lock/NAME/holder", opcode: opRead, course: quiet,
		setup: func(s *scene) {
			taken(s)
			opensOfLock("holder")(s)
			_, err := s.b.Read(s.fd2, 4)
			s.want("read", err, nil)
			// What has been begun is of the moment when it was.
			s.shut(s.a, s.fd)
		},
		call: func(s *scene) {
			text, err := s.b.Read(s.fd2, 4096)
			if want := fmt.Sprintf("%d\n", s.a.Pid()); err != nil || !strings.HasPrefix(text, want) {
				s.errorf("read %q (%v), want it to begin with %q", text, err, want)
			}
		},
		check: func(s *scene) { s.free(); s.told("0\n", "free\n") },
	},
	{
		name: "READDIR of lock", opcode: opReaddir, course: looking,
		setup: func(s *scene) { taken(s); s.opens2(".lockfs/lock", unix.O_RDONLY|unix.O_DIRECTORY) },
		call:  lists, check: toldAsTaken,
	},
	{
		name: "READDIR of lock/NAME", opcode: opReaddir, course: quiet,
		setup: func(s *scene) { taken(s); s.opens2(".lockfs/lock/"+s.name, unix.O_RDONLY|unix.O_DIRECTORY) },
		call: func(s *scene) {
			names, err := s.b.Getdents(s.fd2)
			if err != nil || !slices.Equal(names, []string{"check", "holder", "mode", "token", "waiting"}) {
				s.errorf("%q are listed (%v)", names, err)
			}
		},
		check: toldAsTaken,
	},
}

// opens2 has b open something on the mount; fd2.
func (s *scene) opens2(path string, flags int) {
	fd, err := s.b.TryOpen(s.m.Path(path), flags)
	s.want("open "+path, err, nil)
	s.note(s.b, fd)
	s.fd2 = fd
}

// look2 has b refer to a directory on the mount; fd2.
func (s *scene) look2(path string) { s.opens2(path, unix.O_PATH|unix.O_DIRECTORY) }

// statsBelow has b look at a name in the directory that it refers to, which is one
// LOOKUP, and returns why that failed.
func (s *scene) statsBelow(name string) error {
	_, err := s.b.Stat(fmt.Sprintf("/proc/self/fd/%d/%s", s.fd2, name))
	return err
}

func opensOfLock(file string) func(*scene) {
	return func(s *scene) { s.opens2(".lockfs/lock/"+s.name+"/"+file, unix.O_RDONLY) }
}

// told fails the case unless lock/NAME tells this of the scene's lock.
func (s *scene) told(check, mode string) {
	s.t.Helper()
	for file, want := range map[string]string{"check": check, "mode": mode} {
		text, err := s.look.ReadAll(s.m.Path(".lockfs/lock/" + s.name + "/" + file))
		if err != nil || text != want {
			s.errorf("%s is %q (%v), want %q", file, text, err, want)
		}
	}
}

func toldAsTaken(s *scene) {
	stillTaken(s)
	s.told("-1\n", "exclusive\n")
}
