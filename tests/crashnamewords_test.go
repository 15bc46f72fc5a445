package tests

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// This file is the words in which the tables of kinds of requests about names are
// written. Each kind may leave names behind: see [scene.removeAll].

// second is a name beside the scene's.
func (s *scene) second() string { return s.path + ".2" }

// makes has a client make a file that nobody holds, or replace one's text.
func (s *scene) makes(c *Client, path, text string) {
	s.t.Helper()
	fd, err := c.TryOpen(path, unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC)
	s.want("open", err, nil)
	s.want("write", c.Write(fd, text), nil)
	s.want("close", c.Close(fd), nil)
}

// takes has a client take a name, write into it, and close it.
func (s *scene) takes(c *Client, path, text string) {
	s.t.Helper()
	fd, err := c.TryOpen(path, takeFlags)
	s.want("take", err, nil)
	if text != "" {
		s.want("write", c.Write(fd, text), nil)
	}
	s.want("close", c.Close(fd), nil)
}

// ordinaryFile: there is a file that nobody holds, under the scene's name.
func ordinaryFile(s *scene) { s.makes(s.a, s.path, "what was written") }

// besides: there is one under the second name.
func besides(s *scene) { s.makes(s.a, s.second(), "what was written") }

// named: a holds the scene's name, which has no file open.
func named(s *scene) {
	s.takes(s.a, s.path, "")
	s.heldBy(s.path, s.a)
}

// aDirectoryHeld: a holds a directory.
func aDirectoryHeld(s *scene) { s.want("mkdir", s.a.Name("mkdir", 0o755, s.path), nil) }

// refuses fails the case unless what is under a name refuses whoever wants it.
func (s *scene) refuses(path string) {
	s.t.Helper()
	_, err := s.look.TryOpen(path, takeFlags)
	s.want("a take of what is held", err, unix.EEXIST)
	s.want("mkdir of what is held", s.look.Name("mkdir", 0o755, path), unix.EEXIST)
	if st, err := s.look.Stat(path); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	fd, err := s.look.TryOpen(path, unix.O_RDWR)
	s.want("open of what is held", err, nil)
	s.want("flock of what is held", s.look.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	s.want("fcntl of what is held", s.look.Fcntl(fd, unix.F_SETLK, rd(0, toEnd)), unix.EAGAIN)
	s.want("close", s.look.Close(fd), nil)
}

// heldBy fails the case unless a client holds an empty file by its name, where
// that is read as the holder's pid.
func (s *scene) heldBy(path string, c *Client) {
	s.t.Helper()
	s.refuses(path)
	if text, err := s.look.ReadAll(path); err != nil || text != fmt.Sprintln(c.Pid()) {
		s.errorf("%s reads %q (%v), want the pid %d", path, text, err, c.Pid())
	}
}

// unheld fails the case if somebody holds a file that there is.
func (s *scene) unheld(path string) {
	s.t.Helper()
	fd, err := s.c.TryOpen(path, unix.O_RDWR)
	s.want("open of what nobody holds", err, nil)
	s.want("flock of what nobody holds", s.c.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
	s.want("close", s.c.Close(fd), nil)
}

// contains fails the case unless a file has this text, as many names, and this
// size.
func (s *scene) contains(path, want string, links uint64) {
	s.t.Helper()
	text, err := s.look.ReadAll(path)
	if err != nil || text != want {
		s.errorf("%s contains %.100q (%v), want %.100q", path, text, err, want)
	}
	if st, err := s.look.Stat(path); err != nil || st.Nlink != links || st.Size != int64(len(want)) {
		s.errorf("%s: %+v (%v), want %d links and %d bytes", path, st, err, links, len(want))
	}
}

// there fails the case unless these names, and no others, are listed in the
// scene's directory, and so much is held. A name is what comes after the
// scene's.
func (s *scene) there(holds int, suffixes ...string) {
	s.t.Helper()
	var want []string
	for _, suffix := range suffixes {
		want = append(want, s.name+suffix)
	}
	if names := s.look.Readdir(s.m.Dir); !slices.Equal(names, want) {
		s.errorf("%q are listed, want %q", names, want)
	}
	if n, err := s.look.Statfs(s.m.Dir); err != nil || n != holds {
		s.errorf("%d holds (%v), want %d", n, err, holds)
	}
	for _, name := range []string{s.path, s.second()} {
		_, err := s.look.Stat(name)
		if got, want := err == nil, slices.Contains(want, name[len(s.m.Dir)+1:]); got != want {
			s.errorf("stat of %s: %v, want it there: %v", name, err, want)
		}
	}
}

// giveBack has a client give back what it took with O_EXCL: where names hold, by
// unlink.
func (s *scene) giveBack(c *Client, path string, fd int) error {
	s.t.Helper()
	err := c.Close(fd)
	if err == nil && s.hold == holdByName {
		err = c.Unlink(path)
	}
	return err
}

// removeAll removes the names that a case has left behind, with no file open.
func (s *scene) removeAll() {
	s.t.Helper()
	s.removeFrom(s.m.Dir)
}

func (s *scene) removeFrom(dir string) {
	s.t.Helper()
	for _, name := range s.look.Readdir(dir) {
		path := dir + "/" + name
		if st, err := s.look.Stat(path); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			s.want("unlink of "+name, s.look.Unlink(path), nil)
			continue
		}
		s.removeFrom(path)
		s.want("rmdir of "+name, s.look.Name("rmdir", 0, path), nil)
	}
}

// inTheWay has a call refused that wants a name which b has locked, by flock,
// since the kernel looked it up.
func inTheWay(start func(s *scene) *Pending) func(*scene) {
	return whileLookedUp(start, unix.EEXIST, unix.SYS_FLOCK,
		func(s *scene) *Pending { return s.b.StartFlock(s.fd2, unix.LOCK_EX|unix.LOCK_NB) },
		func(s *scene) *Client { return s.b })
}

// startName is Name without waiting for the outcome.
func (c *Client) startName(call string, number int, paths ...string) *Pending {
	r := request{Op: "name " + call, Path: []byte(paths[0]), N: number}
	if len(paths) > 1 {
		r.Data = []byte(paths[1])
	}
	return c.start(r)
}
