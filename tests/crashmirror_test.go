package tests

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.6, 1.8: workers die at every step of requests whose locks are mirrored. What is
// locked outside is what is held, whatever the worker had done of it.

// mirrorKind is a kind of such requests. c is a stranger, who uses the backing
// directory; fd2 is his open file.
type mirrorKind struct {
	name   string
	opcode uint32
	// steps are those that it comes by, beside those of every request.
	steps              []string
	setup, call, check func(s *scene)
}

// everyStep is what every request comes by that changes something.
var everyStep = []string{"read", "begun", "entry", "decided", "written", "committed", "entry applied", "applied",
	"recorded", "given back", "done", "slot prepared"}

// behind is the path of the scene's backing file.
func (s *scene) behind() string { return filepath.Join(s.backing, s.name) }

// stranger has c open the backing file; fd2.
func stranger(s *scene) {
	fd, err := s.c.TryOpen(s.behind(), unix.O_RDWR|unix.O_CREAT)
	s.want("open of the backing file", err, nil)
	s.note(s.c, fd)
	s.fd2 = fd
}

// outside fails the case unless the stranger gets, or does not get, a shared and an
// exclusive lock.
func (s *scene) outside(shared, exclusive error) {
	s.t.Helper()
	for kind, want := range map[int16]error{unix.F_RDLCK: shared, unix.F_WRLCK: exclusive} {
		if want == nil {
			wantFreeOutside(s.t, fmt.Sprintf("the stranger's lock of kind %d", kind), s.c, s.fd2, unix.F_OFD_SETLK, lk(kind, 0, toEnd))
			s.want("the stranger's unlock", s.c.Fcntl(s.fd2, unix.F_OFD_SETLK, un(0, toEnd)), nil)
			continue
		}
		s.want(fmt.Sprintf("the stranger's lock of kind %d", kind), s.c.Fcntl(s.fd2, unix.F_OFD_SETLK, lk(kind, 0, toEnd)), want)
		s.want("the stranger's unlock", s.c.Fcntl(s.fd2, unix.F_OFD_SETLK, un(0, toEnd)), nil)
	}
}

func heldOutside(s *scene) { s.outside(unix.EAGAIN, unix.EAGAIN) }

// freeOutside: a close is told of when it is done.
func freeOutside(s *scene) {
	s.free()
	s.sync()
	s.outside(nil, nil)
}

var mirrorKinds = []mirrorKind{
	{
		name: "CREATE that opens the backing file", opcode: opCreate, steps: []string{"back", "answered"},
		setup: nothing,
		call:  create,
		check: func(s *scene) {
			stranger(s)
			heldOutside(s)
			newHold(s)
		},
	},
	{
		name: "CREATE of what is open outside", opcode: opCreate, steps: []string{"answered"},
		setup: func(s *scene) {
			taken(s)
			s.shut(s.a, s.fd)
			stranger(s)
		},
		call: create,
		check: func(s *scene) {
			heldOutside(s)
			newHold(s)
		},
	},
	{
		name: "SETLK", opcode: opSetlk, steps: []string{"answered"},
		setup: func(s *scene) {
			flocked(s)
			s.want("unlock", s.a.Flock(s.fd, unix.LOCK_UN), nil)
			stranger(s)
		},
		call: func(s *scene) { s.want("flock", s.a.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB), nil) },
		check: func(s *scene) {
			heldOutside(s)
			s.holds(s.a.Pid(), 0, "flock", true)
		},
	},
	{
		name: "SETLK to a weaker mode", opcode: opSetlk, steps: []string{"answered"},
		setup: func(s *scene) { flocked(s); stranger(s) },
		call:  func(s *scene) { s.want("flock", s.a.Flock(s.fd, unix.LOCK_SH|unix.LOCK_NB), nil) },
		check: func(s *scene) { s.outside(nil, unix.EAGAIN) },
	},
	{
		name: "SETLKW that unlocks", opcode: opSetlkw, steps: []string{"answered"},
		setup: func(s *scene) { flocked(s); stranger(s) },
		call:  func(s *scene) { s.want("unlock", s.a.Flock(s.fd, unix.LOCK_UN), nil) },
		check: freeOutside,
	},
	{
		name: "RELEASE", opcode: opRelease,
		setup: func(s *scene) { taken(s); stranger(s) },
		call:  func(s *scene) { s.shut(s.a, s.fd) },
		check: freeOutside,
	},
	{
		// The stranger was first, but there is no moment in which it is free.
		name: "RELEASE that grants", opcode: opRelease, steps: []string{"answered"},
		setup: func(s *scene) {
			taken(s)
			stranger(s)
			s.wait2 = s.c.StartFcntl(s.fd2, unix.F_OFD_SETLKW, wr(0, toEnd))
			s.wait = s.queue(s.b, unix.LOCK_EX, 1)
		},
		call: func(s *scene) { s.shut(s.a, s.fd) },
		check: func(s *scene) {
			s.want("the waiter", s.wait.Wait(s.t), nil)
			s.holds(s.b.Pid(), 0, "flock", true)
			s.waits("the stranger", s.wait2)
			s.shut(s.b, s.opened[len(s.opened)-1].fd)
			s.want("the stranger", s.wait2.Wait(s.t), nil)
		},
	},
	{
		name: "SETLKW that waits for the stranger", opcode: opSetlkw,
		setup: func(s *scene) {
			stranger(s)
			s.want("the stranger's lock", s.c.Fcntl(s.fd2, unix.F_OFD_SETLK, wr(0, toEnd)), nil)
			s.fd = s.open(s.b, openFlags)
		},
		call: func(s *scene) {
			s.b.onMain = false
			s.wait = s.b.StartFlock(s.fd, unix.LOCK_EX)
			s.b.onMain = true
			s.awaitLine() // it may come late
		},
		check: func(s *scene) {
			s.waits("the waiter", s.wait)
			s.want("the stranger's unlock", s.c.Fcntl(s.fd2, unix.F_OFD_SETLK, un(0, toEnd)), nil)
			s.want("the waiter", s.wait.Wait(s.t), nil)
			heldOutside(s)
			s.holds(s.b.Pid(), 0, "flock", true)
		},
	},
}

// lateDeath is how long after a call its worker may die.
const lateDeath = 500 * time.Millisecond

func TestEveryStepOfAMirroredLock(t *testing.T) {
	backing := t.TempDir()
	m, p := crashMount(t, mirroredIn(t, backing)...)
	m.Deadline(stressLimit)
	deaths := 0
	for number, k := range slices.Concat(mirrorKinds, ownerMirrorKinds) {
		t.Run(k.name, func(t *testing.T) {
			s := newScene(t, m, p)
			s.backing = backing
			met := map[string]bool{}
			for i, step := range slices.Concat(everyStep, k.steps) {
				// The first time may be missed: which request a step of the memory is about
				// is not told, and of another's steps one may come between.
				for n, pass := range []uint32{0, 1, 0, 0, 0} {
					if n > 1 && met[step] {
						break
					}
					s.name = fmt.Sprintf("mirrored%d.%d.%d", number, i, n)
					s.path = m.Path(s.name)
					d := death{step: step, opcode: k.opcode, pass: pass}
					s.what = fmt.Sprintf("%s, death at %v", k.name, d)
					k.setup(s)
					s.sync()
					p.arm(d)
					k.call(s)
					s.sync()
					// What comes after the answer may be late, and what comes in the
					// second pass only may not come at all.
					for end := time.Now().Add(lateDeath); p.met() == 0 && !met[step] && time.Now().Before(end); {
						time.Sleep(time.Millisecond)
					}
					if p.met() > 0 {
						met[step] = true
						deaths++
					}
					p.disarm()
					k.check(s)
					s.leave()
					if t.Failed() {
						return
					}
				}
			}
			for _, step := range slices.Concat(everyStep, k.steps) {
				if !met[step] {
					t.Errorf("no worker died at %q", step)
				}
			}
		})
	}
	t.Logf("%d deaths", deaths)
}
