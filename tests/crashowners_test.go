package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The kinds of requests about named owners, during which workers die. See
// crashkinds_test.go and crashwords_test.go for the rest. The scene's lock is a lease
// in the root, of an owner of the same name; a second one, with ".2" behind it, goes
// along.

func TestEveryStepOfNamedOwners(t *testing.T) { everyStepOfAll(t, ownerKinds, newScene) }

// owned is the path of the scene's owner, or a file in it.
func (s *scene) owned(file string) string { return s.m.Path(".lockfs/owner/" + s.name + file) }

// hasOwner: there is one, of a, with the scene's two locks; fd is its ctl.
func hasOwner(s *scene) {
	s.want("mkdir", s.a.Name("mkdir", 0o755, s.owned("")), nil)
	s.tells("resources", "lease . "+s.name+"\nlease . "+s.name+".2")
	fd, err := s.a.TryOpen(s.owned("/ctl"), unix.O_WRONLY)
	s.want("open", err, nil)
	s.note(s.a, fd)
	s.fd = fd
}

// tells has a write to a file of the owner.
func (s *scene) tells(file, text string) {
	s.t.Helper()
	fd, err := s.a.TryOpen(s.owned("/"+file), unix.O_WRONLY)
	s.want("open", err, nil)
	s.want(text+" to "+file, s.a.Write(fd, text+"\n"), nil)
	s.want("close", s.a.Close(fd), nil)
}

// ordered has a write to the owner's ctl, with an outcome.
func ordered(text string, want error) func(*scene) {
	return func(s *scene) { s.want(text, s.a.Write(s.fd, text+"\n"), want) }
}

// owning: the owner has acquired.
func owning(s *scene) {
	hasOwner(s)
	ordered("acquire", nil)(s)
	s.both(true)
}

// reads is what a file of the owner has.
func (s *scene) reads(file string) string {
	s.t.Helper()
	text, err := s.look.ReadAll(s.owned("/" + file))
	s.want("reading "+file, err, nil)
	return text
}

// both fails the case unless the owner has both of its locks; grant as in holds.
func (s *scene) both(grant bool) {
	s.t.Helper()
	s.holds(s.a.Pid(), 0, "owner", grant)
	if r := s.record(s.path + ".2"); r["via"] != "owner" {
		s.errorf("the second lock is held by %v", r)
	} else {
		s.seeToken(r, grant)
	}
	if text := s.reads("state"); strings.Count(text, "x") != 2 {
		s.errorf("the state is %q", text)
	}
}

// neither fails the case unless both locks are free.
func (s *scene) neither() {
	s.t.Helper()
	s.free()
	if r := s.record(s.path + ".2"); r != nil {
		s.errorf("the second lock is held by %v", r)
	}
}

// then is a check, after which the owner is removed.
func then(check func(*scene)) func(*scene) {
	return func(s *scene) {
		check(s)
		s.want("rmdir", s.a.Name("rmdir", 0, s.owned("")), nil)
		s.neither()
	}
}

// blocked: somebody has the second of the owner's locks; fd2.
func blocked(s *scene) {
	hasOwner(s)
	fd, err := s.b.TryOpen(s.path+".2", takeFlags)
	s.want("take", err, nil)
	s.note(s.b, fd)
	s.fd2 = fd
}

var ownerKinds = []kind{
	{
		name: "MKDIR of an owner", opcode: opMkdir, course: plain, setup: nothing,
		call: func(s *scene) { s.want("mkdir", s.a.Name("mkdir", 0o755, s.owned("")), nil) },
		check: then(func(s *scene) {
			s.want("mkdir again", s.b.Name("mkdir", 0o755, s.owned("")), unix.EEXIST)
			if text := s.reads("onfailure"); text != "default\n" {
				s.errorf("onfailure is %q", text)
			}
		}),
	},
	{
		name: "LOOKUP of an owner", opcode: opLookup, course: quiet,
		setup: func(s *scene) { owning(s); s.look2(".lockfs/owner") },
		call:  func(s *scene) { s.want("stat", s.statsBelow(s.name), nil) },
		check: then(func(s *scene) { s.both(false) }),
	},
	{
		name: "WRITE of a resource", opcode: opWrite, course: plain, setup: hasOwner,
		call: func(s *scene) { s.tells("resources", "disk /x shared") },
		check: then(func(s *scene) {
			if text := s.reads("resources"); text != fmt.Sprintf("lease . %s\nlease . %[1]s.2\ndisk /x shared\n", s.name) {
				s.errorf("resources are %q", text)
			}
			s.neither()
		}),
	},
	{
		name: "WRITE of a pid", opcode: opWrite, course: looking, setup: owning,
		call: func(s *scene) { s.tells("pid", fmt.Sprint(s.c.Pid())) },
		check: then(func(s *scene) {
			if text := s.reads("pid"); text != fmt.Sprintln(s.c.Pid()) {
				s.errorf("pid is %q", text)
			}
			s.holds(s.c.Pid(), 0, "owner", false)
		}),
	},
	{
		name: "WRITE of acquire", opcode: opWrite, course: plain, setup: hasOwner,
		call: ordered("acquire", nil), check: then(func(s *scene) { s.both(true) }),
	},
	{
		name: "WRITE of acquire, of what it has", opcode: opWrite, course: plain, setup: owning,
		call: ordered("acquire", nil), check: then(func(s *scene) { s.both(false) }),
	},
	{
		name: "WRITE of acquire, refused", opcode: opWrite, course: plain, setup: blocked,
		call: ordered("acquire", unix.EBUSY),
		check: then(func(s *scene) {
			s.free()
			if text := s.reads("conflicts"); !strings.HasSuffix(text, fmt.Sprintf(" resource=lease . %s.2\n", s.name)) || strings.Count(text, "\n") != 1 {
				s.errorf("conflicts are %q", text)
			}
			s.shut(s.b, s.fd2)
			ordered("acquire", nil)(s)
			s.both(true)
		}),
	},
	{
		name: "WRITE of acquire with a state", opcode: opWrite, course: plain,
		setup: func(s *scene) { owning(s); ordered("release", nil)(s) },
		call:  func(s *scene) { ordered("acquire "+strings.TrimSpace(s.reads("state")), nil)(s) },
		check: then(func(s *scene) { s.both(true) }),
	},
	{
		name: "WRITE of acquire with a state, out of date", opcode: opWrite, course: plain,
		setup: func(s *scene) {
			owning(s)
			ordered("release", nil)(s)
			s.shut(s.b, s.open(s.b, takeFlags))
			s.sync()
		},
		call: func(s *scene) { ordered("acquire "+strings.TrimSpace(s.reads("state")), unix.ESTALE)(s) },
		check: then(func(s *scene) {
			s.neither()
			if text := s.reads("conflicts"); !strings.HasPrefix(text, "state=stale ") || strings.Count(text, "\n") != 1 {
				s.errorf("conflicts are %q", text)
			}
		}),
	},
	{
		name: "WRITE of acquire for one", opcode: opWrite, course: plain, setup: hasOwner,
		call: func(s *scene) { ordered("acquire lease . "+s.name+" /x 5", nil)(s) },
		check: then(func(s *scene) {
			s.holds(s.a.Pid(), 0, "owner", true)
			if r := s.record(s.path + ".2"); r != nil {
				s.errorf("the second lock is held by %v", r)
			}
			if text := s.reads("resources"); !strings.HasPrefix(text, fmt.Sprintf("lease . %s /x 5\n", s.name)) {
				s.errorf("resources are %q", text)
			}
		}),
	},
	{
		name: "WRITE of acquire for a restricted owner", opcode: opWrite, course: looking,
		setup: func(s *scene) {
			hasOwner(s)
			s.tells("pid", fmt.Sprint(s.c.Pid()))
			ordered("acquire restrict register-only", nil)(s)
		},
		call: ordered("acquire", nil),
		check: then(func(s *scene) {
			s.holds(s.c.Pid(), 0, "owner", true)
			fd, err := s.c.TryOpen(s.owned("/ctl"), unix.O_WRONLY)
			s.want("open", err, nil)
			s.want("release by the process", s.c.Write(fd, "release"), unix.EPERM)
			s.want("close", s.c.Close(fd), nil)
			s.holds(s.c.Pid(), 0, "owner", false)
		}),
	},
	{
		name: "WRITE of release", opcode: opWrite, course: plain, setup: owning,
		call: ordered("release", nil),
		check: then(func(s *scene) {
			s.neither()
			if text := s.reads("state"); strings.Count(text, "x") != 2 {
				s.errorf("the state is %q", text)
			}
		}),
	},
	{
		name: "WRITE of release that serves a waiter", opcode: opWrite, course: course{changes: true, answers: 2},
		setup: waited(owning), call: ordered("release", nil),
		check: func(s *scene) {
			s.want("rmdir", s.a.Name("rmdir", 0, s.owned("")), nil)
			oneByOne(s)
		},
	},
	{
		name: "WRITE of release of one", opcode: opWrite, course: plain, setup: owning,
		call: func(s *scene) { ordered("release lease . "+s.name, nil)(s) },
		check: then(func(s *scene) {
			s.free()
			if text := s.reads("resources"); text != fmt.Sprintf("lease . %s.2\n", s.name) {
				s.errorf("resources are %q", text)
			}
			if r := s.record(s.path + ".2"); r["via"] != "owner" {
				s.errorf("the second lock is held by %v", r)
			}
		}),
	},
	{
		name: "RMDIR of an owner that holds", opcode: opRmdir, course: plain, setup: owning,
		call: func(s *scene) { s.want("rmdir", s.a.Name("rmdir", 0, s.owned("")), nil) },
		check: func(s *scene) {
			s.neither()
			s.want("a write to what is gone", s.a.Write(s.fd, "acquire"), unix.ESTALE)
			s.want("rmdir again", s.a.Name("rmdir", 0, s.owned("")), unix.ENOENT)
		},
	},
	{
		name: "RMDIR of an owner that serves a waiter", opcode: opRmdir, course: course{changes: true, answers: 2},
		setup: waited(owning), call: func(s *scene) { s.want("rmdir", s.a.Name("rmdir", 0, s.owned("")), nil) },
		check: oneByOne,
	},
}

// ownerMirrorKinds are those that have to do with locks outside.
var ownerMirrorKinds = []mirrorKind{
	{
		name: "WRITE of acquire that opens backing files", opcode: opWrite, steps: []string{"back", "answered"},
		setup: hasOwner, call: ordered("acquire", nil),
		check: func(s *scene) {
			s.both(true)
			stranger(s)
			heldOutside(s)
			s.want("rmdir", s.a.Name("rmdir", 0, s.owned("")), nil)
			freeOutside(s)
		},
	},
	{
		name: "WRITE of acquire, refused since a stranger has one", opcode: opWrite, steps: []string{"back", "answered"},
		setup: func(s *scene) {
			hasOwner(s)
			stranger(s)
			s.want("the stranger's lock", s.c.Fcntl(s.fd2, unix.F_OFD_SETLK, wr(0, toEnd)), nil)
		},
		call: ordered("acquire", unix.EBUSY),
		check: func(s *scene) {
			if text := s.reads("conflicts"); !strings.HasPrefix(text, "state=outside ") || strings.Count(text, "\n") != 1 {
				s.errorf("conflicts are %q", text)
			}
			// What was taken in the same step is free outside, too.
			fd, err := s.c.TryOpen(s.behind()+".2", unix.O_RDWR|unix.O_CREAT)
			s.want("open", err, nil)
			wantFreeOutside(s.t, "the stranger's second lock", s.c, fd, unix.F_OFD_SETLK, wr(0, toEnd))
			s.want("close", s.c.Close(fd), nil)
			s.want("the stranger's unlock", s.c.Fcntl(s.fd2, unix.F_OFD_SETLK, un(0, toEnd)), nil)
			ordered("acquire", nil)(s)
			heldOutside(s)
			s.want("rmdir", s.a.Name("rmdir", 0, s.owned("")), nil)
		},
	},
	{
		name: "WRITE of release", opcode: opWrite, steps: []string{"answered"},
		setup: func(s *scene) { owning(s); stranger(s) },
		call:  ordered("release", nil),
		check: func(s *scene) {
			freeOutside(s)
			s.want("rmdir", s.a.Name("rmdir", 0, s.owned("")), nil)
		},
	},
	{
		name: "RMDIR of an owner that holds", opcode: opRmdir, steps: []string{"answered"},
		setup: func(s *scene) { owning(s); stranger(s) },
		call:  func(s *scene) { s.want("rmdir", s.a.Name("rmdir", 0, s.owned("")), nil) },
		check: freeOutside,
	},
}

// An owner's process is one of the deaths at whose every step workers die.
func ownersProcessDies(t *testing.T, m *Mount, path string) (letGo func()) {
	c := newClient(t)
	name := path[strings.LastIndexByte(path, '/')+1:]
	p := startProcess(t, nil, "/bin/sh", "-c", "echo held; read x")
	p.Held(t)
	ctl := makeOwner(t, c, m, name, "lease . "+name)
	tellOwner(t, c, m, name, "pid", fmt.Sprint(p.Pid()))
	wantErr(t, "acquire", c.Write(ctl, "acquire"), nil)
	return func() {
		p.Signal(syscall.SIGKILL)
		p.awaitExit(t)
	}
}
