package tests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kinds of requests of lockspaces in which open(2) takes the lock, during
// which workers die. See crashkinds_test.go and crashwords_test.go for the rest.

func TestEveryStepOfOpening(t *testing.T) {
	everyStepOfAll(t, openKinds, namesScene, "--policy", holdByOpen)
}

var openKinds = []kind{
	{
		name: "CREATE, granted", opcode: opCreate, course: plain, setup: nothing,
		call: func(s *scene) { s.fd = s.open(s.a, openFlags) }, check: (*scene).opensExclude,
	},
	{
		name: "OPEN, granted", opcode: opOpen, course: plain, setup: aName,
		call: func(s *scene) { s.fd = s.open(s.a, unix.O_RDWR) }, check: (*scene).opensExclude,
	},
	{
		name: "OPEN, granted to a thread", opcode: opOpen, course: looking, setup: aName,
		call:  byThread(func(s *scene) { s.fd = s.open(s.a, unix.O_RDWR) }),
		check: (*scene).opensExclude,
	},
	{
		name: "OPEN, refused", opcode: opOpen, course: plain, setup: opened,
		call: func(s *scene) {
			_, err := s.b.TryOpen(s.path, unix.O_RDWR|unix.O_NONBLOCK)
			s.want("open", err, unix.ETXTBSY)
		},
		check: (*scene).opensExclude,
	},
	{
		name: "OPEN that waits", opcode: opOpen, course: unanswered, setup: opened,
		call:  func(s *scene) { s.wait = s.b.StartOpen(s.path, unix.O_RDWR) },
		check: opensInTurn,
	},
	{
		name: "OPEN that looks its process up and waits", opcode: opOpen,
		course: course{changes: true, detours: 1}, setup: opened,
		call:  func(s *scene) { s.wait = s.startOpen(s.b, unix.O_RDWR) },
		check: opensInTurn,
	},
	{
		// What its answer is for others: who sleeps in poll is woken.
		name: "OPEN that waits, told to who polls", opcode: opOpen, course: plain, setup: polled,
		call: func(s *scene) { s.wait = s.b.StartOpen(s.path, unix.O_RDWR) },
		check: func(s *scene) {
			s.want("poll", s.wait2.Wait(s.t), nil)
			if got := s.wait2.Number(); got != unix.POLLIN {
				s.errorf("poll says %#x", got)
			}
			s.wait2 = nil
			opensInTurn(s)
		},
	},
	{
		name: "POLL that goes to sleep", opcode: opPoll, course: plain, setup: opened,
		call: func(s *scene) { s.poll() },
		check: func(s *scene) {
			s.awaitSleep()
			s.wait = s.startOpen(s.b, unix.O_RDWR)
			s.want("poll", s.wait2.Wait(s.t), nil)
			s.wait2 = nil
			opensInTurn(s)
		},
	},
	{
		name: "RELEASE that grants an OPEN", opcode: opRelease, course: course{changes: true, answers: 2},
		setup: func(s *scene) {
			opened(s)
			s.wait = s.startOpen(s.b, unix.O_RDWR)
			s.openWaits(1)
			s.wait2 = s.startOpen(s.c, unix.O_RDONLY)
			s.openWaits(2)
		},
		call: func(s *scene) { s.shut(s.a, s.fd) }, check: oneOpenByOne,
	},
	{
		name: "INTERRUPT of an OPEN", opcode: opInterrupt, course: plain, setup: programOpens,
		call: func(s *scene) {
			syscall.Kill(s.prog.pid, syscall.SIGUSR1)
			s.prog.await(s.t, answerLimit)
			if got := s.prog.stdout.String(); got != "" {
				s.errorf("the program said %q, want its open to end", got)
			}
		},
		check: lastOpen,
	},
	{
		name: "INTERRUPT of an OPEN whose program is killed", opcode: opInterrupt, course: plain, setup: programOpens,
		call: func(s *scene) {
			s.prog.kill()
			s.prog.await(s.t, answerLimit)
		},
		check: lastOpen,
	},
	{
		name: "UNLINK, refused", opcode: opUnlink, course: plain, setup: opened,
		call:  func(s *scene) { s.want("unlink", s.a.Unlink(s.path), unix.EBUSY) },
		check: (*scene).opensExclude,
	},
	{
		name: "WRITE of the lock value block", opcode: opWrite, course: plain,
		setup: func(s *scene) {
			s.fd = s.open(s.a, openFlags|unix.O_APPEND)
			s.want("write", s.a.Write(s.fd, "one,"), nil)
		},
		call: func(s *scene) { s.want("write", s.a.Write(s.fd, "two,"), nil) },
		check: func(s *scene) {
			s.want("write", s.a.Write(s.fd, "three"), nil)
			s.shut(s.a, s.fd)
			s.body("one,two,three")
		},
	},
}

// aName: there is the name, and nobody holds it.
func aName(s *scene) { s.shut(s.a, s.open(s.a, openFlags)) }

// opened: a holds the lock; fd.
func opened(s *scene) { s.fd = s.open(s.a, openFlags) }

// polled: and sleeps in poll(2); wait2.
func polled(s *scene) {
	opened(s)
	s.poll()
	s.awaitSleep()
}

// poll has a sleep until somebody waits for what it holds; wait2.
func (s *scene) poll() {
	s.a.onMain = false
	s.wait2 = s.a.StartPoll(s.fd, unix.POLLIN|unix.POLLOUT, -1)
	s.a.onMain = true
}

// awaitSleep waits until wait2 is asleep: in its system call, whose request has been
// carried out.
func (s *scene) awaitSleep() {
	s.t.Helper()
	want := fmt.Appendf(nil, "%d ", unix.SYS_PPOLL)
	eventually(s.t, answerLimit, func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", s.a.Pid()))
		return slices.ContainsFunc(threads, func(file string) bool {
			text, err := os.ReadFile(file)
			return err == nil && bytes.HasPrefix(text, want)
		})
	}, "a client polls")
	s.sync()
	s.waits("who polls", s.wait2)
}

// programOpens: a program waits for what a has open, and b after it.
func programOpens(s *scene) {
	opened(s)
	s.prog = startProgram(s.t, nil, program(s.t, "opens"), "wait", "rw", s.path)
	s.openWaits(1)
	s.wait = s.startOpen(s.b, unix.O_RDWR)
	s.openWaits(2)
}

// startOpen has a client open the lock, not by its first thread: it has other
// calls to make.
func (s *scene) startOpen(c *Client, flags int) *Pending {
	c.onMain = false
	p := c.StartOpen(s.path, flags)
	c.onMain = true
	return p
}

// openWaits waits until so many wait for what a has open.
func (s *scene) openWaits(n int) {
	s.t.Helper()
	var got string
	for end := time.Now().Add(answerLimit); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		text, err := s.a.Pread(s.fd, 4096, 0)
		s.want("reading the record", err, nil)
		if got = parseRecords(s.t, text)[0]["waiting"]; got == strconv.Itoa(n) {
			return
		}
	}
	s.errorf("waiting=%s, want %d", got, n)
}

// opensExclude: a has the lock in its file, and nobody else gets in.
func (s *scene) opensExclude() {
	s.t.Helper()
	s.hasOpen(s.a, s.fd, true)
	_, err := s.b.TryOpen(s.path, unix.O_RDONLY|unix.O_NONBLOCK)
	s.want("open of what is held", err, unix.ETXTBSY)
	if n, err := s.look.Statfs(s.m.Dir); n != 1 || err != nil {
		s.errorf("%d holds (%v), want 1", n, err)
	}
}

// hasOpen fails the case unless a client holds the lock in a file that it has
// open; grant says that the hold was not seen yet.
func (s *scene) hasOpen(c *Client, fd int, grant bool) {
	s.t.Helper()
	text, err := c.Pread(fd, 4096, 0)
	s.want("reading the record", err, nil)
	r := parseRecords(s.t, text)
	if len(r) != 1 || r[0]["pid"] != strconv.Itoa(c.Pid()) || r[0]["via"] != "open" {
		s.errorf("it reads %q, want the record of %d", text, c.Pid())
		return
	}
	s.seeToken(r[0], grant)
}

// gets is the end of a client's wait in open(2): it has the lock, and gives it
// back.
func (s *scene) gets(c *Client, p *Pending) {
	s.t.Helper()
	s.want("the open that waited", p.Wait(s.t), nil)
	s.note(c, p.Number())
	s.hasOpen(c, p.Number(), true)
	s.shut(c, p.Number())
}

// opensInTurn: b waits, before who comes after, for what a has.
func opensInTurn(s *scene) {
	s.openWaits(1)
	s.wait2 = s.startOpen(s.c, unix.O_RDONLY)
	s.openWaits(2)
	s.hasOpen(s.a, s.fd, true)
	s.waits("the waiter", s.wait)
	s.shut(s.a, s.fd)
	oneOpenByOne(s)
}

// oneOpenByOne: what b and c waited for comes to them in that order.
func oneOpenByOne(s *scene) {
	s.want("the first waiter", s.wait.Wait(s.t), nil)
	s.waits("the second waiter", s.wait2)
	s.gets(s.b, s.wait)
	s.gets(s.c, s.wait2)
	s.wait, s.wait2 = nil, nil
}

// lastOpen: who is left waits on, and gets the lock.
func lastOpen(s *scene) {
	s.openWaits(1)
	s.waits("who is left", s.wait)
	s.shut(s.a, s.fd)
	s.gets(s.b, s.wait)
	s.wait = nil
}

// ordinaryOpen has two clients take a lock one after the other, and removes it.
func (s *scene) ordinaryOpen(path string) {
	s.t.Helper()
	fd, err := s.c.TryOpen(path, takeFlags)
	s.want("an ordinary take", err, nil)
	_, err = s.b.TryOpen(path, unix.O_RDWR|unix.O_NONBLOCK)
	s.want("a take of what is held", err, unix.ETXTBSY)
	s.hasOpen(s.c, fd, true)
	s.want("an ordinary release", s.c.Close(fd), nil)
	if fd, err = s.b.TryOpen(path, unix.O_RDWR|unix.O_NONBLOCK); err == nil {
		err = s.b.Close(fd)
	}
	s.want("the next take", err, nil)
	s.want("unlink", s.look.Unlink(path), nil)
}
