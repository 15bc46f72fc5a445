package tests

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.2, "is given back by": flock, OFD and O_EXCL holds by the last close of
// the open file, POSIX holds by any close of the file by that process.

// wantHeld fails the test unless path is refused to another program.
func wantHeld(t testing.TB, path string) {
	t.Helper()
	c := newClient(t)
	defer c.Kill()
	if fd, err := c.TryOpen(path, takeFlags); err != unix.EEXIST {
		c.Close(fd)
		t.Fatalf("taking a lock that should be held: %v, want %v", err, unix.EEXIST)
	}
}

// wantFree fails the test unless another program can take path at once.
func wantFree(t testing.TB, path string) {
	t.Helper()
	c := newClient(t)
	defer c.Kill()
	fd, err := c.TryOpen(path, takeFlags)
	wantErr(t, "taking a lock that should be free", err, nil)
	wantErr(t, "close", c.Close(fd), nil)
}

func TestTheLastCloseGivesBack(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			c := newClient(t)
			fd := way.take(t, c, path)
			second := c.Dup(fd)
			wantErr(t, "close", c.Close(fd), nil)
			if strings.HasPrefix(way.name, "POSIX") {
				wantFree(t, path) // any close by that process
				return
			}
			wantHeld(t, path)
			wantErr(t, "last close", c.Close(second), nil)
			wantFree(t, path)
		})
	}
}

func TestClosingAnotherOpenFileDropsPOSIXLocksOnly(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			c := newClient(t)
			way.take(t, c, path)
			other := c.Open(path, unix.O_RDONLY)
			wantErr(t, "close", c.Close(other), nil)
			if strings.HasPrefix(way.name, "POSIX") {
				wantFree(t, path)
			} else {
				wantHeld(t, path)
			}
		})
	}
}

func TestClosingByOneProcessLeavesTheOthersRangesAlone(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b := newClient(t), newClient(t)
	afd, bfd := a.Open(path, openFlags), b.Open(path, openFlags)
	wantErr(t, "a", a.Fcntl(afd, unix.F_SETLK, wr(0, 10)), nil)
	wantErr(t, "b", b.Fcntl(bfd, unix.F_SETLK, wr(10, 10)), nil)
	wantErr(t, "close", a.Close(afd), nil)
	wantErr(t, "a again", a.Fcntl(a.Open(path, openFlags), unix.F_SETLK, wr(0, 10)), nil)
	if got := a.GetLk(a.Open(path, openFlags), wr(0, toEnd)); got.Start != 10 || got.Len != 10 || int(got.Pid) != b.Pid() {
		t.Errorf("in the way: %s, want [10,20) of %d", lkString(got), b.Pid())
	}
}

// The issue: "forked children that inherit or close a descriptor change
// nothing".
func TestAForkedChildThatClosesChangesNothing(t *testing.T) {
	m := mount(t)
	for _, kind := range []string{"excl", "flock", "posix", "ofd"} {
		t.Run(kind, func(t *testing.T) {
			path := m.Path(kind)
			p := startProcess(t, nil, program(t, "forkhold"), kind, "close", path)
			p.Held(t)
			wantHeld(t, path)
			p.Kill(t)
			wantFree(t, path)
		})
	}
}

func TestAChildThatKeepsTheDescriptorKeepsTheHold(t *testing.T) {
	m := mount(t)
	for _, kind := range []string{"excl", "flock", "ofd", "posix"} {
		t.Run(kind, func(t *testing.T) {
			path := m.Path(kind)
			p := startProcess(t, nil, program(t, "forkhold"), kind, "keep", path)
			p.Held(t)
			_, child, _ := strings.Cut(p.said(), " ")
			pid, err := strconv.Atoi(child)
			if err != nil {
				t.Fatalf("forkhold said %q", p.said())
			}
			wantHeld(t, path)
			p.Kill(t)
			if kind == "posix" {
				wantFree(t, path) // not inherited, fork(2)
				return
			}
			wantHeld(t, path)
			p.stdin.Close() // ends the child
			eventually(t, answerLimit, func() bool { return ended(pid) }, "the child has ended")
			wantFree(t, path)
		})
	}
}

// ended reports whether a process has ended, be it reaped or not.
func ended(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, _ := strings.Cut(string(text), ") ")
	return err != nil || strings.HasPrefix(state, "Z")
}

// flock(2), fcntl(2): a lock of an open file description can be given back
// through any descriptor that refers to it, a child's too.
func TestAChildCanGiveBackWhatItInherited(t *testing.T) {
	m := mount(t)
	for _, kind := range []string{"flock", "ofd"} {
		t.Run(kind, func(t *testing.T) {
			path := m.Path(kind)
			p := startProcess(t, nil, program(t, "forkhold"), kind, "unlock", path)
			p.Held(t)
			wantFree(t, path)
			p.Release(t)
		})
	}
}

// A shell that holds a lock starts children that inherit the descriptor,
// close it at their exit, and take nothing away.
func TestTheChildrenOfAShellChangeNothing(t *testing.T) {
	m := mount(t)
	for _, take := range []string{`set -C; exec 9>lock`, `exec 9>lock; flock 9`, `exec 9>lock; flock -s 9`} {
		out, exit := bash(t, m, take+`
			true; (exit 0); /bin/true; : | /bin/cat; /bin/true 9>&-
			flock -n lock /bin/true && echo free
			ls`)
		if out != "lock\n" || exit != 0 {
			t.Errorf("%s: %q, exit %d, want it held and listed", take, out, exit)
		}
	}
}

// 1.8: "A holder that dies gives back what it held through its open files, at
// once."
func TestAKilledHolderGivesBackAtOnce(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			holder, first, second := newClient(t), newClient(t), newClient(t)
			way.take(t, holder, path)
			w1 := first.StartFlock(first.Open(path, openFlags), unix.LOCK_EX)
			w1.MustBlock(t)
			w2 := second.StartFlock(second.Open(path, openFlags), unix.LOCK_EX)
			w2.MustBlock(t)
			holder.Kill()
			wantErr(t, "the waiter that came first", w1.Wait(t), nil)
			w2.MustBlock(t)
			first.Kill()
			wantErr(t, "the second waiter", w2.Wait(t), nil)
			second.Kill()
		})
	}
}
