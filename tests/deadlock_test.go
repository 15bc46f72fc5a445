package tests

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.5: "A cycle of POSIX fcntl waits fails with EDEADLK, as in the kernel.
// Cycles through other idioms may be false, so they are shown and never
// failed."

func TestACycleOfPOSIXWaitsOverTwoFilesFails(t *testing.T) {
	m := mount(t)
	a, b := newClient(t), newClient(t)
	ax, ay := a.Open(m.Path("x"), openFlags), a.Open(m.Path("y"), openFlags)
	bx, by := b.Open(m.Path("x"), openFlags), b.Open(m.Path("y"), openFlags)
	wantErr(t, "a takes x", a.Fcntl(ax, unix.F_SETLKW, wr(0, toEnd)), nil)
	wantErr(t, "b takes y", b.Fcntl(by, unix.F_SETLKW, wr(0, toEnd)), nil)
	waiting := a.StartFcntl(ay, unix.F_SETLKW, wr(0, toEnd))
	waiting.MustBlock(t)
	wantErr(t, "b closes the cycle", b.Fcntl(bx, unix.F_SETLKW, wr(0, toEnd)), unix.EDEADLK)
	waiting.MustBlock(t) // exactly one fails
	wantErr(t, "b unlocks y", b.Fcntl(by, unix.F_SETLK, un(0, toEnd)), nil)
	wantErr(t, "a gets y", waiting.Wait(t), nil)
}

func TestACycleOfPOSIXWaitsOverTwoRangesOfOneFileFails(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b := newClient(t), newClient(t)
	afd, bfd := a.Open(path, openFlags), b.Open(path, openFlags)
	wantErr(t, "a", a.Fcntl(afd, unix.F_SETLKW, wr(0, 10)), nil)
	wantErr(t, "b", b.Fcntl(bfd, unix.F_SETLKW, wr(10, 10)), nil)
	waiting := a.StartFcntl(afd, unix.F_SETLKW, wr(10, 10))
	waiting.MustBlock(t)
	wantErr(t, "b closes the cycle", b.Fcntl(bfd, unix.F_SETLKW, wr(0, 10)), unix.EDEADLK)
	waiting.MustBlock(t)
	b.Kill()
	wantErr(t, "a", waiting.Wait(t), nil)
}

func TestTwoReadersThatBothUpgradeByPOSIXAreACycle(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b := newClient(t), newClient(t)
	afd, bfd := a.Open(path, openFlags), b.Open(path, openFlags)
	wantErr(t, "a reads", a.Fcntl(afd, unix.F_SETLKW, rd(0, 10)), nil)
	wantErr(t, "b reads", b.Fcntl(bfd, unix.F_SETLKW, rd(0, 10)), nil)
	waiting := a.StartFcntl(afd, unix.F_SETLKW, wr(0, 10))
	waiting.MustBlock(t)
	wantErr(t, "b upgrades, too", b.Fcntl(bfd, unix.F_SETLKW, wr(0, 10)), unix.EDEADLK)
	wantErr(t, "b unlocks", b.Fcntl(bfd, unix.F_SETLK, un(0, toEnd)), nil)
	wantErr(t, "a", waiting.Wait(t), nil)
}

func TestACycleOfThreeFailsTheOneWhoClosesIt(t *testing.T) {
	m := mount(t)
	names := []string{"x", "y", "z"}
	var clients []*Client
	var fds [3][3]int // by client and file
	for i := range 3 {
		c := newClient(t)
		clients = append(clients, c)
		for j, name := range names {
			fds[i][j] = c.Open(m.Path(name), openFlags)
		}
		wantErr(t, "own file", c.Fcntl(fds[i][i], unix.F_SETLKW, wr(0, 1)), nil)
	}
	first := clients[0].StartFcntl(fds[0][1], unix.F_SETLKW, wr(0, 1))
	first.MustBlock(t)
	second := clients[1].StartFcntl(fds[1][2], unix.F_SETLKW, wr(0, 1))
	second.MustBlock(t)
	wantErr(t, "the third", clients[2].Fcntl(fds[2][0], unix.F_SETLKW, wr(0, 1)), unix.EDEADLK)
	first.MustBlock(t)
	second.MustBlock(t)
	clients[2].Kill()
	wantErr(t, "the second", second.Wait(t), nil)
	clients[1].Kill()
	wantErr(t, "the first", first.Wait(t), nil)
}

// A chain is not a cycle.
func TestAChainOfPOSIXWaitsIsNotFailed(t *testing.T) {
	m := mount(t)
	a, b, c := newClient(t), newClient(t), newClient(t)
	ax := a.Open(m.Path("x"), openFlags)
	bx, by := b.Open(m.Path("x"), openFlags), b.Open(m.Path("y"), openFlags)
	cy := c.Open(m.Path("y"), openFlags)
	wantErr(t, "a takes x", a.Fcntl(ax, unix.F_SETLKW, wr(0, 1)), nil)
	wantErr(t, "b takes y", b.Fcntl(by, unix.F_SETLKW, wr(0, 1)), nil)
	bWaits := b.StartFcntl(bx, unix.F_SETLKW, wr(0, 1))
	bWaits.MustBlock(t)
	cWaits := c.StartFcntl(cy, unix.F_SETLKW, wr(0, 1))
	cWaits.MustBlock(t)
	wantErr(t, "a unlocks", a.Fcntl(ax, unix.F_SETLK, un(0, 1)), nil)
	wantErr(t, "b gets x", bWaits.Wait(t), nil)
	wantErr(t, "b unlocks", b.Fcntl(by, unix.F_SETLK, un(0, 1)), nil)
	wantErr(t, "c gets y", cWaits.Wait(t), nil)
}

// The issue: "two threads with two handles exclude each other and neither
// gets EDEADLK". Here in opposite order, which is a real deadlock: as on any
// filesystem, the process waits until it is killed.
func TestTwoThreadsWithTwoOFDHandlesWaitForEachOther(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	c := newClient(t)
	one, two := c.Open(path, openFlags), c.Open(path, openFlags)
	wantErr(t, "one", c.Fcntl(one, unix.F_OFD_SETLKW, wr(0, 10)), nil)
	wantErr(t, "two", c.Fcntl(two, unix.F_OFD_SETLKW, wr(10, 10)), nil)
	first := c.StartFcntl(one, unix.F_OFD_SETLKW, wr(10, 10))
	first.MustBlock(t)
	second := c.StartFcntl(two, unix.F_OFD_SETLKW, wr(0, 10))
	second.MustBlock(t)
	first.MustBlock(t)
	start := time.Now()
	c.Kill()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the process took %v to die", took)
	}
	wantFree(t, path)
}

// A cycle through flock is left alone: another process may hold the same open
// file and give the lock back.
func TestACycleThroughFlockIsNotFailed(t *testing.T) {
	m := mount(t)
	a, b := newClient(t), newClient(t)
	ax, ay := a.Open(m.Path("x"), openFlags), a.Open(m.Path("y"), openFlags)
	bx, by := b.Open(m.Path("x"), openFlags), b.Open(m.Path("y"), openFlags)
	wantErr(t, "a takes x", a.Flock(ax, unix.LOCK_EX), nil)
	wantErr(t, "b takes y", b.Fcntl(by, unix.F_SETLKW, wr(0, toEnd)), nil)
	first := a.StartFcntl(ay, unix.F_SETLKW, wr(0, toEnd))
	first.MustBlock(t)
	second := b.StartFcntl(bx, unix.F_SETLKW, wr(0, toEnd))
	second.MustBlock(t)
	first.MustBlock(t)
	a.Kill()
	wantErr(t, "b gets x", second.Wait(t), nil)
}

// OFD locks belong to an open file, which others may have, so a cycle of them
// is no sure deadlock either; the kernel looks for none.
func TestACycleOfOFDWaitsIsNotFailed(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b := newClient(t), newClient(t)
	afd, bfd := a.Open(path, openFlags), b.Open(path, openFlags)
	wantErr(t, "a", a.Fcntl(afd, unix.F_OFD_SETLKW, wr(0, 10)), nil)
	wantErr(t, "b", b.Fcntl(bfd, unix.F_OFD_SETLKW, wr(10, 10)), nil)
	first := a.StartFcntl(afd, unix.F_OFD_SETLKW, wr(10, 10))
	first.MustBlock(t)
	second := b.StartFcntl(bfd, unix.F_OFD_SETLKW, wr(0, 10))
	second.MustBlock(t)
	first.MustBlock(t)
	b.Kill()
	wantErr(t, "a", first.Wait(t), nil)
}

func TestACycleOfPOSIXAndOFDWaitsIsNotFailed(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, ways := range [][2]int{{unix.F_SETLKW, unix.F_OFD_SETLKW}, {unix.F_OFD_SETLKW, unix.F_SETLKW}} {
		a, b := newClient(t), newClient(t)
		afd, bfd := a.Open(path, openFlags), b.Open(path, openFlags)
		wantErr(t, "a", a.Fcntl(afd, ways[0], wr(0, 10)), nil)
		wantErr(t, "b", b.Fcntl(bfd, ways[1], wr(10, 10)), nil)
		first := a.StartFcntl(afd, ways[0], wr(10, 10))
		first.MustBlock(t)
		second := b.StartFcntl(bfd, ways[1], wr(0, 10))
		second.MustBlock(t)
		first.MustBlock(t)
		b.Kill()
		wantErr(t, "a", first.Wait(t), nil)
		a.Kill()
	}
}
