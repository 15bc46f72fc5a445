package tests

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// The kinds of requests about numbered locks, during which workers die. See
// crashkinds_test.go and crashwords_test.go for the rest.

// Few enough that all can be reserved.
func TestEveryStepOfNumberedLocks(t *testing.T) {
	everyStepOfAll(t, numberedKinds, newScene, "--policy", "ids=4")
}

var numberedKinds = []kind{
	{
		name: "READ of alloc", opcode: opRead, course: plain, setup: opensAlloc,
		call: allocates("0\n"), check: allocated("0\n", "0"),
	},
	{
		name: "READ of alloc that joins numbers", opcode: opRead, course: plain,
		setup: func(s *scene) { s.reserves("0", "2"); opensAlloc(s) },
		call:  allocates("1\n"), check: allocated("1\n", "0", "1", "2"),
	},
	{
		name: "READ of alloc again", opcode: opRead, course: quiet,
		setup: func(s *scene) { opensAlloc(s); allocates("0\n")(s) },
		call: func(s *scene) {
			text, err := s.b.Read(s.fd2, 4096)
			if err != nil || text != "" {
				s.errorf("behind the number is %q (%v)", text, err)
			}
		},
		check: allocated("0\n", "0"),
	},
	{
		name: "READ of alloc when all are reserved", opcode: opRead, course: quiet,
		setup: func(s *scene) { s.reserves("0", "1", "2", "3"); opensAlloc(s) },
		call: func(s *scene) {
			_, err := s.b.Read(s.fd2, 4096)
			s.want("read", err, unix.ENOSPC)
		},
		check: numbersAre("0", "1", "2", "3"),
	},
	{
		name: "RELEASE of alloc", opcode: opRelease, course: plain,
		setup: func(s *scene) { opensAlloc(s); allocates("0\n")(s) },
		call:  func(s *scene) { s.shut(s.b, s.fd2) }, check: numbersAre("0"),
	},
	{
		name: "CREATE of ids/N with O_EXCL", opcode: opCreate, course: plain, setup: nothing,
		call: func(s *scene) { s.want("reserve", s.tryReserve("2"), nil) },
		check: func(s *scene) {
			s.want("reserve again", s.tryReserve("2"), unix.EEXIST)
			numbersAre("2")(s)
		},
	},
	{
		name: "CREATE of ids/N that is out of range", opcode: opCreate, course: plain, setup: nothing,
		call:  func(s *scene) { s.want("reserve", s.tryReserve("4"), unix.ERANGE) },
		check: numbersAre(),
	},
	{
		name: "LOOKUP of ids/N", opcode: opLookup, course: plain,
		setup: func(s *scene) { s.reserves("3"); s.look2(".lockfs/ids") },
		call:  func(s *scene) { s.want("stat", s.statsBelow("3"), nil) }, check: numbersAre("3"),
	},
	{
		name: "READ of ids/N", opcode: opRead, course: plain,
		setup: func(s *scene) { s.reserves("3"); s.opens2(".lockfs/ids/3", unix.O_RDONLY) },
		call:  allocates("3\n"), check: numbersAre("3"),
	},
	{
		name: "READDIR of ids", opcode: opReaddir, course: quiet,
		setup: func(s *scene) {
			s.reserves("0", "1", "3")
			s.opens2(".lockfs/ids", unix.O_RDONLY|unix.O_DIRECTORY)
		},
		call: func(s *scene) {
			names, err := s.b.Getdents(s.fd2)
			if err != nil || !slices.Equal(names, []string{"0", "1", "3"}) {
				s.errorf("%q are listed (%v)", names, err)
			}
		},
		check: numbersAre("0", "1", "3"),
	},
	{
		name: "UNLINK of ids/N", opcode: opUnlink, course: plain,
		setup: func(s *scene) { s.reserves("1") },
		call:  frees("1"), check: numbersAre(),
	},
	{
		name: "UNLINK of ids/N between others", opcode: opUnlink, course: plain,
		setup: func(s *scene) { s.reserves("0", "1", "2") },
		call:  frees("1"), check: numbersAre("0", "2"),
	},
	{
		name: "WRITE of policy/ids", opcode: opWrite, course: plain,
		setup: func(s *scene) { s.reserves("1"); s.opens2(".lockfs/policy/ids", unix.O_WRONLY) },
		call: func(s *scene) {
			_, err := s.b.Pwrite(s.fd2, "2", 0)
			s.want("write", err, nil)
		},
		check: func(s *scene) {
			s.want("reserve", s.tryReserve("2"), unix.ERANGE)
			_, err := s.b.Pwrite(s.fd2, "4", 0)
			s.want("write", err, nil)
			numbersAre("1")(s)
		},
	},
	{
		name: "RMDIR of a directory with numbers", opcode: opRmdir, course: plain, setup: aDirectoryWithNumbers,
		call: func(s *scene) { s.want("rmdir", s.a.Name("rmdir", 0, s.path), nil) }, check: madeAnew,
	},
	{
		name: "FORGET of a directory with numbers", opcode: opForget, course: unanswered,
		setup: func(s *scene) {
			aDirectoryWithNumbers(s)
			fd, err := s.a.TryOpen(s.path, unix.O_PATH|unix.O_DIRECTORY)
			s.want("open", err, nil)
			s.note(s.a, fd)
			s.fd2 = fd
			s.want("rmdir", s.a.Name("rmdir", 0, s.path), nil)
		},
		call: func(s *scene) { s.shut(s.a, s.fd2) }, check: madeAnew,
	},
}

// opensAlloc has b open alloc; fd2.
func opensAlloc(s *scene) { s.opens2(".lockfs/alloc", unix.O_RDONLY) }

// allocates has b read what it has opened.
func allocates(want string) func(*scene) {
	return func(s *scene) {
		s.t.Helper()
		text, err := s.b.Read(s.fd2, 4096)
		if err != nil || text != want {
			s.errorf("read %q (%v), want %q", text, err, want)
		}
	}
}

// allocated: what b has read it can read again, and these are reserved.
func allocated(want string, names ...string) func(*scene) {
	return func(s *scene) {
		text, err := s.b.Pread(s.fd2, 4096, 0)
		if err != nil || text != want {
			s.errorf("read again, it is %q (%v), want %q", text, err, want)
		}
		numbersAre(names...)(s)
	}
}

// tryReserve reserves a number.
func (s *scene) tryReserve(name string) error {
	fd, err := s.a.TryOpen(s.m.Path(".lockfs/ids/"+name), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	return s.a.Close(fd)
}

func (s *scene) reserves(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.want("reserve "+name, s.tryReserve(name), nil)
	}
}

func frees(name string) func(*scene) {
	return func(s *scene) { s.want("free", s.a.Unlink(s.m.Path(".lockfs/ids/"+name)), nil) }
}

// numbersAre: these are reserved, as many are available as there should be, and all
// can be freed, once.
func numbersAre(names ...string) func(*scene) {
	return func(s *scene) {
		s.t.Helper()
		if got := s.look.Readdir(s.m.Path(".lockfs/ids")); !slices.Equal(slices.Sorted(slices.Values(got)), names) {
			s.errorf("%q are reserved, want %q", got, names)
		}
		text, err := s.look.ReadAll(s.m.Path(".lockfs/available"))
		if want := string(rune('4'-len(names))) + "\n"; err != nil || text != want {
			s.errorf("%q are available (%v), want %q", text, err, want)
		}
		for _, name := range names {
			frees(name)(s)
			s.want("free again", s.a.Unlink(s.m.Path(".lockfs/ids/"+name)), unix.ENOENT)
		}
	}
}

// aDirectoryWithNumbers: the scene's name is a directory in which two are reserved.
func aDirectoryWithNumbers(s *scene) {
	s.want("mkdir", s.a.Name("mkdir", 0o755, s.path), nil)
	for _, name := range []string{"0", "2"} {
		fd, err := s.a.TryOpen(s.path+"/.lockfs/ids/"+name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
		s.want("reserve", err, nil)
		s.want("close", s.a.Close(fd), nil)
	}
}

// madeAnew: the scene's name is free, and a directory that is made there has no
// numbers.
func madeAnew(s *scene) {
	s.want("mkdir", s.a.Name("mkdir", 0o755, s.path), nil)
	if got := s.look.Readdir(s.path + "/.lockfs/ids"); len(got) > 0 {
		s.errorf("a new directory has %q", got)
	}
	s.want("rmdir", s.a.Name("rmdir", 0, s.path), nil)
	numbersAre()(s)
}
