package tests

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// This file is the words in which the table of kinds of requests is written: what
// is so before a call, the calls that several kinds make, and what is so after.

func nothing(*scene) {}

// taken: a holds the lock by its name; fd.
func taken(s *scene) {
	s.fd = s.open(s.a, takeFlags)
	s.holds(s.a.Pid(), 0, "excl", true)
}

func stillTaken(s *scene) { s.holds(s.a.Pid(), 0, "excl", false) }

// flocked: a holds the lock by flock; fd.
func flocked(s *scene) {
	s.fd = s.open(s.a, openFlags)
	s.want("flock", s.a.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB), nil)
	s.holds(s.a.Pid(), 0, "flock", true)
}

// ranged: a holds the lock by fcntl; fd.
func ranged(s *scene) {
	s.fd = s.open(s.a, openFlags)
	s.want("fcntl", s.a.Fcntl(s.fd, unix.F_SETLK, wr(0, toEnd)), nil)
	s.holds(s.a.Pid(), 0, "fcntl", true)
}

// waited: b and c wait for what a holds.
func waited(hold func(*scene)) func(*scene) {
	return func(s *scene) {
		hold(s)
		s.wait = s.queue(s.b, unix.LOCK_EX, 1)
		s.wait2 = s.queue(s.c, unix.LOCK_EX, 2)
	}
}

// oneByOne: what b and c waited for comes to them in that order.
func oneByOne(s *scene) {
	s.want("the first waiter", s.wait.Wait(s.t), nil)
	s.waits("the second waiter", s.wait2)
	s.holds(s.b.Pid(), 1, "flock", true)
	s.want("unlock", s.b.Flock(s.opened[len(s.opened)-2].fd, unix.LOCK_UN), nil)
	s.want("the second waiter", s.wait2.Wait(s.t), nil)
	s.holds(s.c.Pid(), 0, "flock", true)
}

// bodied: a holds the lock and has written something; fd.
func bodied(s *scene) {
	taken(s)
	s.want("write", s.a.Write(s.fd, "what was written"), nil)
}

// openedByOther: b has what a holds open; fd2.
func openedByOther(hold func(*scene)) func(*scene) {
	return func(s *scene) {
		hold(s)
		s.fd2 = s.open(s.b, unix.O_RDWR)
	}
}

func create(s *scene) {
	fd, err := s.a.TryOpen(s.path, takeFlags)
	s.want("open with O_EXCL", err, nil)
	s.note(s.a, fd)
	s.fd = fd
}

// byThread makes a call that is not the first thread's, so that its process
// has to be looked up.
func byThread(call func(*scene)) func(*scene) {
	return func(s *scene) {
		s.a.onMain = false
		call(s)
		s.a.onMain = true
	}
}

// newHold: a has what it took; it can be written to, and to take it again is
// refused.
func newHold(s *scene) {
	s.holds(s.a.Pid(), 0, "excl", true)
	_, err := s.b.TryOpen(s.path, takeFlags)
	s.want("another take", err, unix.EEXIST)
	s.want("write", s.a.Write(s.fd, "mine"), nil)
	s.body("mine")
}

// opens has b open the lock; fd2.
func opens(flags int) func(*scene) {
	return func(s *scene) {
		fd, err := s.b.TryOpen(s.path, flags)
		s.want("open", err, nil)
		s.note(s.b, fd)
		s.fd2 = fd
	}
}

// refused: the file that b opened does not get the lock that a holds.
func refused(s *scene) {
	s.want("flock of what is held", s.b.Flock(s.fd2, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	stillTaken(s)
}

// pathOnly: a has an O_PATH descriptor of a lock that nobody holds any more;
// to close it is to forget the node, and nothing else.
func pathOnly(s *scene) {
	taken(s)
	s.fd2 = s.open(s.a, unix.O_PATH)
	s.shut(s.a, s.fd)
	s.free()
}

// openDir has b open the root; fd2.
func openDir(s *scene) {
	fd, err := s.b.TryOpen(s.m.Dir, unix.O_RDONLY|unix.O_DIRECTORY)
	s.want("open the directory", err, nil)
	s.note(s.b, fd)
	s.fd2 = fd
}

func lists(s *scene) {
	names, err := s.b.Getdents(s.fd2)
	s.want("getdents", err, nil)
	if len(names) != 1 || names[0] != s.name {
		s.errorf("%q are listed, want %q", names, s.name)
	}
}

// programWaits: a program waits for what a holds, and b after it.
func programWaits(hold func(*scene)) func(*scene) {
	return func(s *scene) {
		hold(s)
		s.prog = startProgram(s.t, nil, program(s.t, "interrupted"), s.path)
		s.awaitWaiting(1)
		s.wait = s.queue(s.b, unix.LOCK_EX, 2)
	}
}

// wantEINTR ends the program's wait by a signal.
func wantEINTR(s *scene) {
	syscall.Kill(s.prog.pid, syscall.SIGUSR1)
	s.prog.await(s.t, answerLimit)
	if got := s.prog.stdout.String(); got != "EINTR\n" {
		s.errorf("the wait ended with %q, want EINTR", got)
	}
}

// servesTheOther: who is left waits on, and is served.
func servesTheOther(via string) func(*scene) {
	return func(s *scene) {
		s.holds(s.a.Pid(), 1, via, false)
		s.waits("the other waiter", s.wait)
		s.shut(s.a, s.fd)
		s.want("the other waiter", s.wait.Wait(s.t), nil)
		s.holds(s.b.Pid(), 0, "flock", true)
	}
}

// whileLookedUp makes a call whose LOOKUP is held up until a call of another
// client, by which the lock changes hands, is in the kernel's queue: before what
// follows the LOOKUP. number is the other's system call, first who makes it.
func whileLookedUp(call func(*scene) *Pending, want error, number int, other func(*scene) *Pending, first func(*scene) *Client) func(*scene) {
	return func(s *scene) {
		s.stopKeeper()
		p := call(s)
		if !s.plan.await(1) {
			s.errorf("the look-up was not met")
		}
		q := other(s)
		s.awaitCall(first(s), number)
		s.continueKeeper()
		s.want("the call", p.Wait(s.t), want)
		s.want("the other call", q.Wait(s.t), nil)
	}
}

// waitsInFlock has b wait for what a holds, through the file that it has open.
func waitsInFlock(s *scene) {
	s.b.onMain = false
	s.wait = s.b.StartFlock(s.fd2, unix.LOCK_EX)
	s.b.onMain = true
}

// keepsItsPlace: b waits, before who comes after, and gets what a gives back.
func keepsItsPlace(s *scene) {
	s.awaitWaiting(1)
	s.waits("the waiter", s.wait)
	s.wait2 = s.queue(s.c, unix.LOCK_EX, 2)
	s.shut(s.a, s.fd)
	s.want("the waiter", s.wait.Wait(s.t), nil)
	s.waits("who came after", s.wait2)
	s.holds(s.b.Pid(), 1, "flock", true)
}
