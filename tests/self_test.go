package tests

import (
	"testing"

	"golang.org/x/sys/unix"
)

// 1.2: "an fcntl hold never conflicts with an flock, O_EXCL or open hold that
// came through the same handle or from the same process, so a program that
// takes both on its own file never blocks itself. Two handles of one process
// exclude each other, as in POSIX."

// ownSteps are lock calls that one program makes on its own lock one after
// the other; none may keep it waiting.
var ownSteps = []struct {
	name string
	// take gets two descriptors of one lock, opened apart.
	take []func(c *Client, one, two int) *Pending
}{
	{"flock, then POSIX", []func(*Client, int, int) *Pending{flockOne, posixOne}},
	{"POSIX, then flock", []func(*Client, int, int) *Pending{posixOne, flockOne}},
	{"flock, then OFD", []func(*Client, int, int) *Pending{flockOne, ofdOne}},
	{"OFD, then flock", []func(*Client, int, int) *Pending{ofdOne, flockOne}},
	{"flock, then POSIX by another descriptor", []func(*Client, int, int) *Pending{flockOne, posixTwo}},
	{"POSIX, then flock by another descriptor", []func(*Client, int, int) *Pending{posixTwo, flockOne}},
	{"flock, then OFD by another descriptor", []func(*Client, int, int) *Pending{flockOne, ofdTwo}},
	{"OFD, then flock by another descriptor", []func(*Client, int, int) *Pending{ofdTwo, flockOne}},
	{"POSIX by two descriptors", []func(*Client, int, int) *Pending{posixOne, posixTwo}},
	{"the same flock twice", []func(*Client, int, int) *Pending{flockOne, flockOne}},
	{"the same OFD lock twice", []func(*Client, int, int) *Pending{ofdOne, ofdOne}},
	{"flock, POSIX, flock again", []func(*Client, int, int) *Pending{flockOne, posixOne, flockOne, posixTwo}},
}

func flockOne(c *Client, one, _ int) *Pending { return c.StartFlock(one, unix.LOCK_EX) }
func posixOne(c *Client, one, _ int) *Pending {
	return c.StartFcntl(one, unix.F_SETLKW, wr(0, toEnd))
}
func posixTwo(c *Client, _, two int) *Pending {
	return c.StartFcntl(two, unix.F_SETLKW, wr(0, toEnd))
}
func ofdOne(c *Client, one, _ int) *Pending {
	return c.StartFcntl(one, unix.F_OFD_SETLKW, wr(0, toEnd))
}
func ofdTwo(c *Client, _, two int) *Pending {
	return c.StartFcntl(two, unix.F_OFD_SETLKW, wr(0, toEnd))
}

func TestAProgramThatTakesBothOnItsOwnFileNeverBlocksItself(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, tc := range ownSteps {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t)
			one, two := c.Open(path, openFlags), c.Open(path, openFlags)
			for i, take := range tc.take {
				if err := take(c, one, two).Wait(t); err != nil {
					t.Fatalf("step %d: %v", i+1, err)
				}
			}
			wantHeld(t, path)
		})
		t.Run("after O_EXCL: "+tc.name, func(t *testing.T) {
			c := newClient(t)
			one := c.Open(path, takeFlags)
			for i, take := range tc.take {
				if err := take(c, one, one).Wait(t); err != nil {
					t.Fatalf("step %d: %v", i+1, err)
				}
			}
			wantHeld(t, path)
		})
		t.Run("while others wait: "+tc.name, func(t *testing.T) {
			c := newClient(t)
			one, two := c.Open(path, openFlags), c.Open(path, openFlags)
			var waiters []*Pending
			for i, take := range tc.take {
				if err := take(c, one, two).Wait(t); err != nil {
					t.Fatalf("step %d: %v", i+1, err)
				}
				// Another comes between every two steps.
				w := newClient(t)
				fd := w.Open(path, openFlags)
				if i%2 == 0 {
					waiters = append(waiters, w.StartFlock(fd, unix.LOCK_EX))
				} else {
					waiters = append(waiters, w.StartFcntl(fd, unix.F_SETLKW, wr(0, toEnd)))
				}
				waiters[i].MustBlock(t)
				if i == len(tc.take)-1 {
					c.Kill()
					wantErr(t, "the waiter that came first", waiters[0].Wait(t), nil)
				}
			}
		})
	}
}

func TestTwoHandlesOfOneProcessExcludeEachOther(t *testing.T) {
	m := mount(t)
	for _, tc := range []struct {
		name        string
		first, then func(*Client, int, int) *Pending
	}{
		{name: "flock", first: flockOne,
			then: func(c *Client, _, two int) *Pending { return c.StartFlock(two, unix.LOCK_EX) }},
		{name: "OFD", first: ofdOne, then: ofdTwo},
		{name: "POSIX and OFD", first: posixOne, then: ofdTwo},
		{name: "OFD and POSIX", first: ofdOne, then: posixTwo},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := m.Path("lock")
			c := newClient(t)
			one, two := c.Open(path, openFlags), c.Open(path, openFlags)
			wantErr(t, "first", tc.first(c, one, two).Wait(t), nil)
			second := tc.then(c, one, two)
			second.MustBlock(t)
			wantErr(t, "close", c.Close(one), nil)
			wantErr(t, "second", second.Wait(t), nil)
			wantHeld(t, path)
		})
	}

	t.Run("O_EXCL and flock", func(t *testing.T) {
		path := m.Path("lock")
		c := newClient(t)
		one := c.Open(path, takeFlags)
		two := c.Open(path, unix.O_RDWR)
		wantErr(t, "flock through the other", c.Flock(two, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		_, err := c.TryOpen(path, takeFlags)
		wantErr(t, "O_EXCL once more", err, unix.EEXIST)
		wantErr(t, "close", c.Close(one), nil)
		wantErr(t, "flock after it", c.Flock(two, unix.LOCK_EX|unix.LOCK_NB), nil)
	})
}

// flock(2): a lock is converted by taking it in the other mode. Nobody is
// ever inside together with a writer, and two who upgrade do not block each
// other for ever.
func TestFlockUpgradesBesideOtherReaders(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b, c := newClient(t), newClient(t), newClient(t)
	afd, bfd := a.Open(path, openFlags), b.Open(path, openFlags)

	wantErr(t, "a shared", a.Flock(afd, unix.LOCK_SH), nil)
	wantErr(t, "alone, a upgrades at once", a.Flock(afd, unix.LOCK_EX|unix.LOCK_NB), nil)
	wantErr(t, "b is kept out", b.Flock(bfd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	wantErr(t, "a downgrades", a.Flock(afd, unix.LOCK_SH|unix.LOCK_NB), nil)
	wantErr(t, "b gets in", b.Flock(bfd, unix.LOCK_SH|unix.LOCK_NB), nil)

	wantErr(t, "beside b, a cannot try", a.Flock(afd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	wantErr(t, "a shared again", a.Flock(afd, unix.LOCK_SH), nil)
	up := a.StartFlock(afd, unix.LOCK_EX)
	up.MustBlock(t)
	wantErr(t, "b unlocks", b.Flock(bfd, unix.LOCK_UN), nil)
	wantErr(t, "a is upgraded", up.Wait(t), nil)
	wantErr(t, "c is kept out", c.Flock(c.Open(path, openFlags), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Which of the two is first is left open: flock(2) lets the second upgrade at
// once, past the first, who has given his lock back in order to wait.
func TestTwoReadersUpgradeOneAfterTheOther(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b := newClient(t), newClient(t)
	afd, bfd := a.Open(path, openFlags), b.Open(path, openFlags)
	wantErr(t, "a shared", a.Flock(afd, unix.LOCK_SH), nil)
	wantErr(t, "b shared", b.Flock(bfd, unix.LOCK_SH), nil)
	as := a.StartFlock(afd, unix.LOCK_EX)
	as.MustBlock(t)
	bs := b.StartFlock(bfd, unix.LOCK_EX)
	eventually(t, answerLimit, func() bool { return as.Done() || bs.Done() }, "one of the two is upgraded")
	if bs.Done() {
		a, as, afd, b, bs, bfd = b, bs, bfd, a, as, afd
	}
	wantErr(t, "the first", as.Wait(t), nil)
	bs.MustBlock(t)
	wantErr(t, "the first unlocks", a.Flock(afd, unix.LOCK_UN), nil)
	wantErr(t, "the second", bs.Wait(t), nil)
	wantErr(t, "the first is out", a.Flock(afd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

func TestADowngradeLetsReadersIn(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b, c := newClient(t), newClient(t), newClient(t)
	afd := a.Open(path, openFlags)
	wantErr(t, "a", a.Flock(afd, unix.LOCK_EX), nil)
	byFlock := b.StartFlock(b.Open(path, openFlags), unix.LOCK_SH)
	byFlock.MustBlock(t)
	byFcntl := c.StartFcntl(c.Open(path, openFlags), unix.F_SETLKW, rd(0, 10))
	byFcntl.MustBlock(t)
	wantErr(t, "a downgrades", a.Flock(afd, unix.LOCK_SH), nil)
	wantErr(t, "b", byFlock.Wait(t), nil)
	wantErr(t, "c", byFcntl.Wait(t), nil)
}

// The holds that one open file has are apart: each is given back by its own
// call.
func TestEachHoldIsGivenBackByItsOwnCall(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	c := newClient(t)
	fd := c.Open(path, takeFlags)
	wantErr(t, "flock", c.Flock(fd, unix.LOCK_EX), nil)
	wantErr(t, "fcntl", c.Fcntl(fd, unix.F_SETLK, wr(0, toEnd)), nil)

	wantErr(t, "LOCK_UN", c.Flock(fd, unix.LOCK_UN), nil)
	wantErr(t, "F_UNLCK", c.Fcntl(fd, unix.F_SETLK, un(0, toEnd)), nil)
	wantHeld(t, path) // by O_EXCL
	wantErr(t, "close", c.Close(fd), nil)
	wantFree(t, path)

	fd = c.Open(path, openFlags)
	wantErr(t, "flock", c.Flock(fd, unix.LOCK_EX), nil)
	wantErr(t, "fcntl", c.Fcntl(fd, unix.F_SETLK, wr(0, 10)), nil)
	wantErr(t, "LOCK_UN", c.Flock(fd, unix.LOCK_UN), nil)
	other := newClient(t)
	ofd := other.Open(path, openFlags)
	wantErr(t, "the range is held", other.Fcntl(ofd, unix.F_SETLK, rd(5, 1)), unix.EAGAIN)
	wantErr(t, "the rest is free", other.Fcntl(ofd, unix.F_SETLK, wr(10, toEnd)), nil)
	wantErr(t, "F_UNLCK", c.Fcntl(fd, unix.F_SETLK, un(0, toEnd)), nil)
	wantErr(t, "the range is free", other.Fcntl(ofd, unix.F_SETLK, wr(0, toEnd)), nil)
}

// Nobody gives back another's.
func TestUnlockingWhatIsAnothersDoesNothing(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			holder, other := newClient(t), newClient(t)
			way.take(t, holder, path)
			for _, c := range []*Client{other, holder} {
				fd := c.Open(path, openFlags)
				wantErr(t, "LOCK_UN", c.Flock(fd, unix.LOCK_UN), nil)
				wantErr(t, "OFD F_UNLCK", c.Fcntl(fd, unix.F_OFD_SETLK, un(0, toEnd)), nil)
				if c == other {
					wantErr(t, "F_UNLCK", c.Fcntl(fd, unix.F_SETLK, un(0, toEnd)), nil)
					wantErr(t, "close", c.Close(fd), nil)
				}
				wantHeld(t, path)
			}
		})
	}
}

// A thread waits; another closes the descriptor. The wait goes on, as the
// kernel keeps the open file for it, and what it gets goes with that file.
func TestClosingTheDescriptorOfAWaitLeavesNothingBehind(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, tc := range []struct {
		name  string
		start func(*Client, int) *Pending
		want  error
	}{
		{"flock", exclusively, nil},
		{"POSIX", byPOSIX, unix.EBADF}, // the kernel notices, and unlocks
		{"OFD", byOFD, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			holder := newClient(t)
			fd := holder.Open(path, takeFlags)
			waiter := queueUp(t, path, tc.start)
			wantErr(t, "the waiter's close", waiter.Close(waiter.fd), nil)
			waiter.wait.MustBlock(t)
			wantErr(t, "the holder's close", holder.Close(fd), nil)
			wantErr(t, "the wait", waiter.wait.Wait(t), tc.want)
			wantFree(t, path)
		})
	}
}
