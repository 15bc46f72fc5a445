package tests

import (
	"strings"

	"golang.org/x/sys/unix"
)

// This file is the table of the kinds of requests during which workers die; what
// it is written in is in crashwords_test.go.

// kind is a kind of request.
type kind struct {
	name   string
	opcode uint32
	course
	// before are the deaths and pauses that the call needs before those that
	// are planned for the request.
	before []death
	// setup makes what is before; call makes the system call, which must have
	// the right outcome; check is about what is so after. All close what they
	// open by scene.leave, if not before.
	setup, call, check func(s *scene)
}

var (
	// quiet requests leave no trace: to carry one out twice is to answer it
	// twice.
	quiet = course{answers: 1}
	// plain requests change something, or must not be carried out twice.
	plain = course{changes: true, answers: 1}
	// unanswered ones have no answer, yet or ever.
	unanswered = course{changes: true}
	// looking ones have to look a process up first.
	looking = course{changes: true, answers: 1, detours: 1}
)

var kinds = []kind{
	{
		name: "LOOKUP of a free name", opcode: opLookup, course: quiet, setup: nothing,
		call: func(s *scene) {
			_, err := s.a.Stat(s.path)
			s.want("stat", err, unix.ENOENT)
		},
		check: (*scene).free,
	},
	{
		name: "LOOKUP of a held name", opcode: opLookup, course: plain, setup: taken,
		call: func(s *scene) {
			st, err := s.b.Stat(s.path)
			s.want("stat", err, nil)
			if own, _ := s.a.Fstat(s.fd); st.Ino != own.Ino || st.Size != 0 {
				s.errorf("stat says %+v, want %+v", st, own)
			}
		},
		check: stillTaken,
	},
	{
		name: "CREATE with O_EXCL, granted", opcode: opCreate, course: plain,
		setup: nothing, call: create, check: newHold,
	},
	{
		name: "CREATE with O_EXCL, granted to a thread", opcode: opCreate, course: looking,
		setup: nothing, call: byThread(create), check: newHold,
	},
	{
		// The kernel looks the name up twice: it has seen b open it.
		name: "CREATE with O_EXCL, refused", opcode: opCreate, course: plain,
		before: []death{{step: "decided", opcode: opLookup, pass: 1}},
		setup:  func(s *scene) { s.fd2 = s.open(s.b, openFlags) },
		call: whileLookedUp(
			func(s *scene) *Pending { return s.a.StartOpen(s.path, takeFlags) }, unix.EEXIST,
			unix.SYS_FLOCK,
			func(s *scene) *Pending { return s.b.StartFlock(s.fd2, unix.LOCK_EX|unix.LOCK_NB) },
			func(s *scene) *Client { return s.b }),
		check: func(s *scene) { s.holds(s.b.Pid(), 0, "flock", true) },
	},
	{
		name: "CREATE without O_EXCL", opcode: opCreate, course: plain, setup: nothing,
		call: opens(openFlags),
		check: func(s *scene) {
			s.free()
			s.want("flock", s.b.Flock(s.fd2, unix.LOCK_EX|unix.LOCK_NB), nil)
			s.holds(s.b.Pid(), 0, "flock", true)
		},
	},
	{
		name: "OPEN", opcode: opOpen, course: plain, setup: taken,
		call: opens(unix.O_RDWR), check: refused,
	},
	{
		name: "OPEN with O_TRUNC by the holder", opcode: opOpen, course: looking, setup: bodied,
		call: func(s *scene) { s.open(s.a, unix.O_RDWR|unix.O_TRUNC) },
		check: func(s *scene) {
			stillTaken(s) // the body is empty
			s.want("write", s.a.Write(s.fd, "mine"), nil)
		},
	},
	{
		name: "OPEN with O_TRUNC by another", opcode: opOpen, course: plain, setup: bodied,
		call: opens(unix.O_RDWR | unix.O_TRUNC),
		check: func(s *scene) {
			s.body("what was written")
			s.want("flock of what is held", s.b.Flock(s.fd2, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		},
	},
	{
		name: "FLUSH of a copied descriptor", opcode: opFlush, course: quiet,
		setup: func(s *scene) {
			taken(s)
			s.fd2 = s.a.Dup(s.fd)
		},
		call:  func(s *scene) { s.want("close", s.a.Close(s.fd2), nil) },
		check: stillTaken,
	},
	{
		name: "FLUSH that gives POSIX locks back", opcode: opFlush, course: plain,
		setup: func(s *scene) {
			ranged(s)
			s.fd2 = s.a.Dup(s.fd)
		},
		call: func(s *scene) { s.want("close", s.a.Close(s.fd2), nil) },
		check: func(s *scene) {
			s.free()
			s.want("fcntl", s.a.Fcntl(s.fd, unix.F_SETLK, wr(0, toEnd)), nil)
			s.holds(s.a.Pid(), 0, "fcntl", true)
		},
	},
	{
		name: "FLUSH that serves a waiter", opcode: opFlush, course: course{changes: true, answers: 2},
		setup: func(s *scene) {
			ranged(s)
			s.fd2 = s.a.Dup(s.fd)
			s.wait = s.queueBy(s.b, 1, func(fd int) *Pending { return s.b.StartFcntl(fd, unix.F_SETLKW, wr(0, toEnd)) })
		},
		call: func(s *scene) { s.want("close", s.a.Close(s.fd2), nil) },
		check: func(s *scene) {
			s.want("the waiter", s.wait.Wait(s.t), nil)
			s.holds(s.b.Pid(), 0, "fcntl", true)
		},
	},
	{
		name: "RELEASE", opcode: opRelease, course: plain, setup: taken,
		call: func(s *scene) { s.shut(s.a, s.fd) }, check: (*scene).free,
	},
	{
		name: "RELEASE that serves a waiter", opcode: opRelease, course: course{changes: true, answers: 2},
		setup: waited(taken), call: func(s *scene) { s.shut(s.a, s.fd) }, check: oneByOne,
	},
	{
		name: "RELEASE that serves two readers", opcode: opRelease, course: course{changes: true, answers: 3},
		setup: func(s *scene) {
			taken(s)
			s.wait = s.queue(s.b, unix.LOCK_SH, 1)
			s.wait2 = s.queue(s.c, unix.LOCK_SH, 2)
		},
		call: func(s *scene) { s.shut(s.a, s.fd) },
		check: func(s *scene) {
			s.want("the first reader", s.wait.Wait(s.t), nil)
			s.want("the second reader", s.wait2.Wait(s.t), nil)
			s.shut(s.b, s.opened[0].fd)
			s.holds(s.c.Pid(), 0, "flock", true)
		},
	},
	{
		name: "RELEASE when the holder is killed", opcode: opRelease, course: plain,
		setup: func(s *scene) {
			s.prog = startProgram(s.t, nil, program(s.t, "interrupted"), s.path)
			eventually(s.t, answerLimit, func() bool { return s.record(s.path) != nil }, "a program has the lock")
			s.holds(s.prog.pid, 0, "flock", true)
		},
		call: func(s *scene) {
			s.prog.kill()
			s.prog.await(s.t, answerLimit)
		},
		check: (*scene).free,
	},
	{
		name: "FORGET", opcode: opForget, course: unanswered, setup: pathOnly,
		call: func(s *scene) { s.shut(s.a, s.fd2) }, check: (*scene).free,
	},
	{
		// Nobody takes the forgets while there are not yet several.
		name: "BATCH_FORGET", opcode: opBatchForget, course: unanswered,
		before: []death{{step: "decided", opcode: opStatfs}},
		setup: func(s *scene) {
			path := s.path
			for _, suffix := range []string{"", ".2", ".3"} {
				s.path = path + suffix
				pathOnly(s)
			}
			s.path = path
		},
		call: func(s *scene) {
			s.stopKeeper()
			p := s.look.start(request{Op: "statfs", Path: []byte(s.m.Dir), OnMain: true})
			if !s.plan.await(1) {
				s.errorf("there is somebody to take the forgets one by one")
			}
			for range 3 {
				s.shut(s.a, s.opened[0].fd)
			}
			s.continueKeeper()
			s.want("statfs", p.Wait(s.t), nil)
		},
		check: func(s *scene) {
			s.free()
			s.ordinary(s.path + ".2")
			s.ordinary(s.path + ".3")
		},
	},
	{
		name: "READ of a body", opcode: opRead, course: quiet, setup: openedByOther(bodied),
		call: func(s *scene) {
			text, err := s.b.Read(s.fd2, 100)
			if err != nil || text != "what was written" {
				s.errorf("read %q (%v)", text, err)
			}
		},
		check: func(s *scene) { s.body("what was written") },
	},
	{
		name: "READ of a record", opcode: opRead, course: looking, setup: openedByOther(taken),
		call: func(s *scene) {
			text, err := s.b.Read(s.fd2, 4096)
			s.want("read", err, nil)
			if r := parseRecords(s.t, text); len(r) != 1 || !strings.HasPrefix(text, "pid=") {
				s.errorf("read %q, want one record", text)
			}
		},
		check: stillTaken,
	},
	{
		name: "READ of a free lock", opcode: opRead, course: quiet,
		setup: func(s *scene) { s.fd = s.open(s.a, openFlags) },
		call: func(s *scene) {
			text, err := s.a.Read(s.fd, 4096)
			if err != nil || text != "" {
				s.errorf("read %q (%v), want nothing", text, err)
			}
		},
		check: (*scene).free,
	},
	{
		name: "WRITE", opcode: opWrite, course: plain, setup: taken,
		call: func(s *scene) {
			n, err := s.a.WriteN(s.fd, strings.Repeat("x", 4096))
			s.want("write", err, nil)
			if n != 4096 {
				s.errorf("wrote %d bytes", n)
			}
		},
		check: func(s *scene) { s.body(strings.Repeat("x", 4096)) },
	},
	{
		name: "WRITE that appends", opcode: opWrite, course: plain,
		setup: func(s *scene) {
			s.fd = s.open(s.a, takeFlags|unix.O_APPEND)
			s.want("write", s.a.Write(s.fd, "one,"), nil)
		},
		call:  func(s *scene) { s.want("write", s.a.Write(s.fd, "two,"), nil) },
		check: func(s *scene) { s.body("one,two,") },
	},
	{
		name: "WRITE by the holder through another open file", opcode: opWrite, course: looking,
		setup: func(s *scene) {
			bodied(s)
			s.fd2 = s.open(s.a, unix.O_RDWR|unix.O_APPEND)
		},
		call:  func(s *scene) { s.want("write", s.a.Write(s.fd2, ", more"), nil) },
		check: func(s *scene) { s.body("what was written, more") },
	},
	{
		name: "WRITE by the holder's thread through another open file", opcode: opWrite,
		course: course{changes: true, answers: 1, detours: 2},
		setup: func(s *scene) {
			bodied(s)
			s.fd2 = s.open(s.a, unix.O_RDWR|unix.O_APPEND)
		},
		call:  byThread(func(s *scene) { s.want("write", s.a.Write(s.fd2, ", more"), nil) }),
		check: func(s *scene) { s.body("what was written, more") },
	},
	{
		name: "WRITE, refused", opcode: opWrite, course: plain, setup: openedByOther(taken),
		call:  func(s *scene) { s.want("write", s.b.Write(s.fd2, "not mine"), unix.EBUSY) },
		check: stillTaken,
	},
	{
		name: "GETATTR", opcode: opGetattr, course: quiet, setup: bodied,
		call: func(s *scene) {
			st, err := s.a.Fstat(s.fd)
			if err != nil || st.Size != 16 {
				s.errorf("fstat says %+v (%v)", st, err)
			}
		},
		check: func(s *scene) { s.body("what was written") },
	},
	{
		name: "SETATTR that truncates", opcode: opSetattr, course: plain, setup: bodied,
		call:  func(s *scene) { s.want("ftruncate", s.a.Ftruncate(s.fd, 4), nil) },
		check: func(s *scene) { s.body("what") },
	},
	{
		name: "SETATTR of the root", opcode: opSetattr, course: plain, setup: nothing,
		call: func(s *scene) { s.want("chmod", s.a.Chmod(s.m.Dir, 0o705), nil) },
		check: func(s *scene) {
			st, err := s.b.Stat(s.m.Dir)
			if err != nil || st.Mode != unix.S_IFDIR|0o705 {
				s.errorf("the root has mode %o (%v)", st.Mode, err)
			}
			s.want("chmod", s.a.Chmod(s.m.Dir, 0o777), nil)
		},
	},
	{
		name: "OPENDIR", opcode: opOpendir, course: plain, setup: taken, call: openDir, check: lists,
	},
	{
		name: "READDIR", opcode: opReaddir, course: plain,
		setup: func(s *scene) { taken(s); openDir(s) }, call: lists, check: stillTaken,
	},
	{
		name: "READDIR at the end", opcode: opReaddir, course: quiet,
		setup: func(s *scene) { taken(s); openDir(s); lists(s) },
		call: func(s *scene) {
			names, err := s.b.Getdents(s.fd2)
			if err != nil || len(names) > 0 {
				s.errorf("%q are listed behind the end (%v)", names, err)
			}
		},
		check: stillTaken,
	},
	{
		name: "RELEASEDIR", opcode: opReleasedir, course: plain,
		setup: func(s *scene) { taken(s); openDir(s) },
		call:  func(s *scene) { s.shut(s.b, s.fd2) }, check: stillTaken,
	},
	{
		name: "SETLK by flock, granted", opcode: opSetlk, course: plain,
		setup: func(s *scene) { s.fd = s.open(s.a, openFlags) },
		call:  func(s *scene) { s.want("flock", s.a.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB), nil) },
		check: func(s *scene) { s.holds(s.a.Pid(), 0, "flock", true) },
	},
	{
		name: "SETLK by flock, refused", opcode: opSetlk, course: plain, setup: openedByOther(taken),
		call:  func(s *scene) { s.want("flock", s.b.Flock(s.fd2, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) },
		check: refused,
	},
	{
		name: "SETLK of a range, granted", opcode: opSetlk, course: plain,
		setup: func(s *scene) { s.fd = s.open(s.a, openFlags) },
		call:  func(s *scene) { s.want("fcntl", s.a.Fcntl(s.fd, unix.F_OFD_SETLK, wr(10, 5)), nil) },
		check: func(s *scene) {
			s.holds(s.a.Pid(), 0, "fcntl", true)
			fd := s.open(s.b, openFlags)
			s.want("fcntl beside it", s.b.Fcntl(fd, unix.F_SETLK, wr(0, 10)), nil)
			s.want("fcntl over it", s.b.Fcntl(fd, unix.F_SETLK, wr(14, 1)), unix.EAGAIN)
		},
	},
	{
		name: "SETLK of a range, refused", opcode: opSetlk, course: plain, setup: openedByOther(ranged),
		call:  func(s *scene) { s.want("fcntl", s.b.Fcntl(s.fd2, unix.F_SETLK, rd(3, 1)), unix.EAGAIN) },
		check: func(s *scene) { s.holds(s.a.Pid(), 0, "fcntl", false) },
	},
	{
		name: "SETLK that splits a range", opcode: opSetlk, course: plain, setup: ranged,
		call: func(s *scene) { s.want("unlock", s.a.Fcntl(s.fd, unix.F_SETLK, un(10, 10)), nil) },
		check: func(s *scene) {
			fd := s.open(s.b, openFlags)
			s.want("fcntl of what was given back", s.b.Fcntl(fd, unix.F_SETLK, wr(10, 10)), nil)
			s.want("fcntl of what was kept", s.b.Fcntl(fd, unix.F_SETLK, rd(9, 1)), unix.EAGAIN)
			s.want("fcntl of what was kept", s.b.Fcntl(fd, unix.F_SETLK, rd(20, 1)), unix.EAGAIN)
		},
	},
	{
		name: "SETLK that unlocks and serves a waiter", opcode: opSetlk, course: course{changes: true, answers: 2},
		setup: func(s *scene) {
			ranged(s)
			s.wait = s.queueBy(s.b, 1, func(fd int) *Pending { return s.b.StartFcntl(fd, unix.F_SETLKW, wr(0, toEnd)) })
			s.wait2 = s.queueBy(s.c, 2, func(fd int) *Pending { return s.c.StartFcntl(fd, unix.F_OFD_SETLKW, wr(0, toEnd)) })
		},
		call: func(s *scene) { s.want("unlock", s.a.Fcntl(s.fd, unix.F_SETLK, un(0, toEnd)), nil) },
		check: func(s *scene) {
			s.want("the first waiter", s.wait.Wait(s.t), nil)
			s.holds(s.b.Pid(), 1, "fcntl", true)
			s.waits("the second waiter", s.wait2)
		},
	},
	{
		name: "SETLKW, granted at once", opcode: opSetlkw, course: plain,
		setup: func(s *scene) { s.fd = s.open(s.a, openFlags) },
		call:  func(s *scene) { s.want("flock", s.a.Flock(s.fd, unix.LOCK_EX), nil) },
		check: func(s *scene) { s.holds(s.a.Pid(), 0, "flock", true) },
	},
	{
		name: "SETLKW that waits", opcode: opSetlkw, course: unanswered,
		setup: openedByOther(taken), call: waitsInFlock, check: keepsItsPlace,
	},
	{
		name: "SETLKW that looks its process up and waits", opcode: opSetlkw, course: course{changes: true, detours: 1},
		setup: openedByOther(ranged), call: waitsInFlock, check: keepsItsPlace,
	},
	{
		name: "SETLKW, deadlock over one file", opcode: opSetlkw,
		course: course{changes: true, answers: 1, detours: 2},
		setup: func(s *scene) {
			s.fd, s.fd2 = s.open(s.a, openFlags), s.open(s.b, openFlags)
			s.want("fcntl", s.a.Fcntl(s.fd, unix.F_SETLK, wr(0, 10)), nil)
			s.want("fcntl", s.b.Fcntl(s.fd2, unix.F_SETLK, wr(10, 10)), nil)
			s.b.onMain = false
			s.wait = s.b.StartFcntl(s.fd2, unix.F_SETLKW, wr(0, 10))
			s.b.onMain = true
			s.awaitLine()
		},
		call: func(s *scene) { s.want("fcntl", s.a.Fcntl(s.fd, unix.F_SETLKW, wr(10, 10)), unix.EDEADLK) },
		check: func(s *scene) {
			s.waits("the waiter", s.wait)
			s.want("unlock", s.a.Fcntl(s.fd, unix.F_SETLK, un(0, toEnd)), nil)
			s.want("the waiter", s.wait.Wait(s.t), nil)
			s.holds(s.b.Pid(), 0, "fcntl", true)
		},
	},
	{
		name: "SETLKW, deadlock over two files", opcode: opSetlkw, course: plain,
		setup: func(s *scene) {
			ranged(s)
			path := s.path
			s.path += ".2"
			fd := s.open(s.b, openFlags)
			s.want("fcntl", s.b.Fcntl(fd, unix.F_SETLK, wr(0, toEnd)), nil)
			s.fd2 = s.open(s.a, openFlags)
			s.path = path
			s.wait = s.queueBy(s.b, 1, func(fd int) *Pending { return s.b.StartFcntl(fd, unix.F_SETLKW, wr(0, toEnd)) })
		},
		call: func(s *scene) { s.want("fcntl", s.a.Fcntl(s.fd2, unix.F_SETLKW, wr(0, toEnd)), unix.EDEADLK) },
		check: func(s *scene) {
			s.holds(s.a.Pid(), 1, "fcntl", false)
			s.waits("the waiter", s.wait)
		},
	},
	{
		name: "GETLK, somebody in the way", opcode: opGetlk, course: looking, setup: openedByOther(ranged),
		call: func(s *scene) {
			if got := s.b.GetLk(s.fd2, wr(5, 1)); got.Type != unix.F_WRLCK || int(got.Pid) != s.a.Pid() {
				s.errorf("F_GETLK says %+v, want process %d", got, s.a.Pid())
			}
		},
		check: func(s *scene) { s.holds(s.a.Pid(), 0, "fcntl", false) },
	},
	{
		name: "GETLK, nobody in the way", opcode: opGetlk, course: quiet, setup: ranged,
		call: func(s *scene) {
			if got := s.a.GetLk(s.fd, wr(5, 1)); got.Type != unix.F_UNLCK {
				s.errorf("F_GETLK says %+v", got)
			}
		},
		check: func(s *scene) { s.holds(s.a.Pid(), 0, "fcntl", false) },
	},
	{
		name: "UNLINK by the holder", opcode: opUnlink, course: looking, setup: taken,
		call: func(s *scene) { s.want("unlink", s.a.Unlink(s.path), nil) },
		check: func(s *scene) {
			s.free()
			s.want("flock through the file", s.a.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB), nil)
			s.holds(s.a.Pid(), 0, "flock", true)
		},
	},
	{
		name: "UNLINK by a thread of the holder", opcode: opUnlink,
		course: course{changes: true, answers: 1, detours: 2}, setup: taken,
		call:  byThread(func(s *scene) { s.want("unlink", s.a.Unlink(s.path), nil) }),
		check: (*scene).free,
	},
	{
		name: "UNLINK that breaks a lock and serves a waiter", opcode: opUnlink,
		course: course{changes: true, answers: 2, detours: 1}, setup: waited(flocked),
		call: func(s *scene) { s.want("unlink", s.look.Unlink(s.path), nil) },
		check: func(s *scene) {
			s.want("flock of the victim", s.a.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB), unix.ESTALE)
			s.want("write of the victim", s.a.Write(s.fd, "x"), unix.ESTALE)
			s.want("fsync of the victim", s.a.Fsync(s.fd), unix.ESTALE)
			oneByOne(s)
		},
	},
	{
		name: "UNLINK of what was given back meanwhile", opcode: opUnlink, course: plain,
		before: []death{{step: "decided", opcode: opLookup}},
		setup:  flocked,
		call: whileLookedUp(
			func(s *scene) *Pending { return s.b.start(request{Op: "unlink", Path: []byte(s.path)}) }, unix.ENOENT,
			unix.SYS_FLOCK,
			func(s *scene) *Pending { return s.a.StartFlock(s.fd, unix.LOCK_UN) },
			func(s *scene) *Client { return s.a }),
		check: (*scene).free,
	},
	{
		name: "INTERRUPT of a waiter", opcode: opInterrupt, course: plain,
		setup: programWaits(taken), call: wantEINTR, check: servesTheOther("excl"),
	},
	{
		name: "INTERRUPT of a waiter that is killed", opcode: opInterrupt, course: plain, setup: programWaits(taken),
		call: func(s *scene) {
			s.prog.kill()
			s.prog.await(s.t, answerLimit)
		},
		check: servesTheOther("excl"),
	},
	{
		// The client's signal handler has it asked again.
		name: "INTERRUPT of a waiter that goes on", opcode: opInterrupt, course: plain,
		setup: func(s *scene) {
			taken(s)
			s.wait = s.b.StartFlock(s.open(s.b, openFlags), unix.LOCK_EX)
			s.awaitWaiting(1)
			s.wait2 = s.queue(s.c, unix.LOCK_EX, 2)
		},
		call: func(s *scene) { unix.Tgkill(s.b.Pid(), s.b.Pid(), unix.SIGURG) },
		check: func(s *scene) {
			s.awaitWaiting(2)
			s.waits("the waiter", s.wait)
			s.shut(s.a, s.fd)
			oneByOne(s)
		},
	},
	{
		// The request is on its way to have its process looked up, as the lock
		// is held by fcntl, when its caller gets a signal.
		name: "INTERRUPT of a request on a detour", opcode: opInterrupt, course: unanswered,
		before: []death{{step: "away", opcode: opSetlkw, pause: 500}},
		setup:  ranged,
		call: func(s *scene) {
			s.prog = startProgram(s.t, nil, program(s.t, "interrupted"), s.path)
			if !s.plan.await(1) {
				s.errorf("no look-up")
			}
			wantEINTR(s)
		},
		check: func(s *scene) { s.holds(s.a.Pid(), 0, "fcntl", false) },
	},
	{
		name: "POLL", opcode: opPoll, course: quiet, setup: taken,
		call: func(s *scene) {
			ready, err := s.a.Poll(s.fd, unix.POLLIN|unix.POLLOUT)
			if err != nil || ready != unix.POLLIN|unix.POLLOUT {
				s.errorf("poll says %#x (%v)", ready, err)
			}
		},
		check: stillTaken,
	},
	{
		name: "STATFS", opcode: opStatfs, course: quiet, setup: taken,
		call: func(s *scene) {
			n, err := s.b.Statfs(s.m.Dir)
			if err != nil || n != 1 {
				s.errorf("statfs counts %d (%v), want 1", n, err)
			}
		},
		check: stillTaken,
	},
	{
		name: "ACCESS", opcode: opAccess, course: quiet, setup: taken,
		call:  func(s *scene) { s.want("access", s.b.Access(s.path, unix.R_OK|unix.W_OK), nil) },
		check: stillTaken,
	},
	{
		name: "FSYNC", opcode: opFsync, course: quiet, setup: taken,
		call:  func(s *scene) { s.want("fsync", s.a.Fsync(s.fd), nil) },
		check: stillTaken,
	},
}
