package tests

import (
	"testing"

	"golang.org/x/sys/unix"
)

// 1.2: "fcntl takes its range with POSIX splitting, merging, upgrade and
// downgrade."

// What one owner does to a file, and the pieces that another then finds.
//
//	bytes    0         10        20        30
//	         |---------|---------|---------|----
var rangeCases = []struct {
	name  string
	steps []unix.Flock_t
	left  []unix.Flock_t
}{
	{"one", []unix.Flock_t{wr(0, 30)},
		[]unix.Flock_t{wr(0, 30)}},
	{"to the end", []unix.Flock_t{wr(10, toEnd)},
		[]unix.Flock_t{wr(10, toEnd)}},
	{"last byte", []unix.Flock_t{wr(1<<63-1, toEnd)},
		[]unix.Flock_t{wr(1<<63-1, toEnd)}},
	{"apart", []unix.Flock_t{wr(0, 10), wr(20, 10)},
		[]unix.Flock_t{wr(0, 10), wr(20, 10)}},
	{"neighbours merge", []unix.Flock_t{wr(0, 10), wr(10, 10)},
		[]unix.Flock_t{wr(0, 20)}},
	{"neighbours merge from the right", []unix.Flock_t{wr(10, 10), wr(0, 10)},
		[]unix.Flock_t{wr(0, 20)}},
	{"a gap that is filled merges three", []unix.Flock_t{wr(0, 10), wr(20, 10), wr(10, 10)},
		[]unix.Flock_t{wr(0, 30)}},
	{"overlapping merge", []unix.Flock_t{wr(0, 15), wr(10, 20)},
		[]unix.Flock_t{wr(0, 30)}},
	{"neighbours of different modes stay apart", []unix.Flock_t{wr(0, 10), rd(10, 10)},
		[]unix.Flock_t{wr(0, 10), rd(10, 10)}},
	{"unlocked in the middle splits", []unix.Flock_t{wr(0, 30), un(10, 10)},
		[]unix.Flock_t{wr(0, 10), wr(20, 10)}},
	{"unlocked at the left", []unix.Flock_t{wr(0, 30), un(0, 10)},
		[]unix.Flock_t{wr(10, 20)}},
	{"unlocked at the right", []unix.Flock_t{wr(0, 30), un(20, toEnd)},
		[]unix.Flock_t{wr(0, 20)}},
	{"unlocked over several", []unix.Flock_t{wr(0, 10), rd(10, 10), wr(20, 10), un(5, 20)},
		[]unix.Flock_t{wr(0, 5), wr(25, 5)}},
	{"unlocked where nothing is", []unix.Flock_t{wr(0, 10), un(20, 10)},
		[]unix.Flock_t{wr(0, 10)}},
	{"downgraded in the middle", []unix.Flock_t{wr(0, 30), rd(10, 10)},
		[]unix.Flock_t{wr(0, 10), rd(10, 10), wr(20, 10)}},
	{"upgraded in the middle", []unix.Flock_t{rd(0, 30), wr(10, 10)},
		[]unix.Flock_t{rd(0, 10), wr(10, 10), rd(20, 10)}},
	{"downgraded and upgraded again merges", []unix.Flock_t{wr(0, 30), rd(10, 10), wr(10, 10)},
		[]unix.Flock_t{wr(0, 30)}},
	{"the whole upgraded", []unix.Flock_t{rd(0, toEnd), wr(0, toEnd)},
		[]unix.Flock_t{wr(0, toEnd)}},
	{"the whole unlocked", []unix.Flock_t{wr(0, 10), rd(15, 3), un(0, toEnd)},
		nil},
}

func TestRangesSplitMergeUpgradeAndDowngrade(t *testing.T) {
	m := mount(t)
	for _, set := range []struct {
		name string
		cmd  int
	}{{"POSIX", unix.F_SETLK}, {"OFD", unix.F_OFD_SETLK}} {
		for _, tc := range rangeCases {
			t.Run(set.name+"/"+tc.name, func(t *testing.T) {
				holder, other := newClient(t), newClient(t)
				path := m.Path("lock")
				fd, otherFD := holder.Open(path, openFlags), other.Open(path, openFlags)
				for _, step := range tc.steps {
					wantErr(t, lkString(step), holder.Fcntl(fd, set.cmd, step), nil)
				}
				wantInTheWay(t, other, otherFD, holder.Pid(), tc.left)
			})
		}
	}
}

// wantInTheWay fails the test unless F_GETLK finds exactly these pieces, held
// by pid: each where it is, and nothing between them.
func wantInTheWay(t *testing.T, c *Client, fd, pid int, want []unix.Flock_t) {
	t.Helper()
	at := int64(0)
	for _, w := range want {
		w.Pid = int32(pid)
		if at < w.Start {
			wantNothingInTheWay(t, c, fd, wr(at, w.Start-at))
		}
		if got := c.GetLk(fd, wr(w.Start, w.Len)); lkString(got) != lkString(w) {
			t.Fatalf("in the way: %s, want %s", lkString(got), lkString(w))
		}
		// A reader is kept out by writers only.
		if kept := c.GetLk(fd, rd(w.Start, max(w.Len, 1))).Type != unix.F_UNLCK; kept != (w.Type == unix.F_WRLCK) {
			t.Fatalf("a reader of %s is kept out: %v", lkString(w), kept)
		}
		if w.Len == toEnd {
			return
		}
		at = w.Start + w.Len
	}
	wantNothingInTheWay(t, c, fd, wr(at, toEnd))
}

func wantNothingInTheWay(t *testing.T, c *Client, fd int, lk unix.Flock_t) {
	t.Helper()
	if got := c.GetLk(fd, lk); got.Type != unix.F_UNLCK {
		t.Fatalf("in the way of %s: %s, want nothing", lkString(lk), lkString(got))
	}
}

// The kernel keeps an owner's pieces in order and answers F_GETLK with the
// first, so programs can walk over a file with it.
func TestGetlkAnswersWithTheFirstPiece(t *testing.T) {
	m := mount(t)
	holder, other := newClient(t), newClient(t)
	fd, otherFD := holder.Open(m.Path("lock"), openFlags), other.Open(m.Path("lock"), openFlags)
	for _, step := range []unix.Flock_t{wr(40, 10), rd(0, 30), wr(10, 10)} {
		wantErr(t, lkString(step), holder.Fcntl(fd, unix.F_SETLK, step), nil)
	}
	at := int64(0)
	for _, want := range []unix.Flock_t{rd(0, 10), wr(10, 10), rd(20, 10), wr(40, 10)} {
		want.Pid = int32(holder.Pid())
		got := other.GetLk(otherFD, wr(at, toEnd))
		if lkString(got) != lkString(want) {
			t.Fatalf("the first in the way from %d on: %s, want %s", at, lkString(got), lkString(want))
		}
		at = got.Start + got.Len
	}
}

func TestRangesOfTwoProcessesExcludeEachOtherWhereTheyOverlap(t *testing.T) {
	m := mount(t)
	for _, set := range []struct {
		name string
		cmd  int
	}{{"POSIX", unix.F_SETLK}, {"OFD", unix.F_OFD_SETLK}} {
		t.Run(set.name, func(t *testing.T) {
			a, b := newClient(t), newClient(t)
			path := m.Path("lock")
			afd, bfd := a.Open(path, openFlags), b.Open(path, openFlags)
			wantErr(t, "a", a.Fcntl(afd, set.cmd, wr(10, 10)), nil)
			for _, tc := range []struct {
				lk   unix.Flock_t
				want error
			}{
				{wr(0, 10), nil}, {wr(20, toEnd), nil}, {rd(5, 5), nil},
				{wr(0, 11), unix.EAGAIN}, {wr(19, 1), unix.EAGAIN}, {rd(0, toEnd), unix.EAGAIN},
			} {
				wantErr(t, lkString(tc.lk), b.Fcntl(bfd, set.cmd, tc.lk), tc.want)
			}
			// Whole-lock idioms overlap every range.
			c := newClient(t)
			wantErr(t, "flock", c.Flock(c.Open(path, openFlags), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
			_, err := c.TryOpen(path, takeFlags)
			wantErr(t, "O_EXCL", err, unix.EEXIST)
		})
	}
}

// A part that is given back lets in who waits for that part only.
func TestAPieceGivenBackLetsItsWaiterIn(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b, c := newClient(t), newClient(t), newClient(t)
	afd := a.Open(path, openFlags)
	wantErr(t, "a", a.Fcntl(afd, unix.F_SETLK, wr(0, 30)), nil)
	left := b.StartFcntl(b.Open(path, openFlags), unix.F_SETLKW, wr(0, 5))
	middle := c.StartFcntl(c.Open(path, openFlags), unix.F_OFD_SETLKW, wr(12, 3))
	left.MustBlock(t)
	middle.MustBlock(t)
	wantErr(t, "unlock", a.Fcntl(afd, unix.F_SETLK, un(10, 10)), nil)
	wantErr(t, "the waiter for the middle", middle.Wait(t), nil)
	left.MustBlock(t)
	wantErr(t, "downgrade", a.Fcntl(afd, unix.F_SETLK, rd(0, 10)), nil)
	left.MustBlock(t)
	wantErr(t, "unlock", a.Fcntl(afd, unix.F_SETLK, un(0, toEnd)), nil)
	wantErr(t, "the waiter for the left", left.Wait(t), nil)
}

// 1.2: "F_GETLK names the holder's pid", whatever it holds by.
func TestGetlkNamesTheHolder(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			holder, other := newClient(t), newClient(t)
			way.take(t, holder, path)
			got := other.GetLk(other.Open(path, openFlags), wr(0, toEnd))
			if got.Type == unix.F_UNLCK || int(got.Pid) != holder.Pid() {
				t.Errorf("in the way: %s, want a lock of process %d", lkString(got), holder.Pid())
			}
			ofd := other.GetOFDLk(other.Open(path, openFlags), wr(0, toEnd))
			if ofd.Type != got.Type || ofd.Start != got.Start || ofd.Len != got.Len {
				t.Errorf("F_OFD_GETLK says %s, F_GETLK %s", lkString(ofd), lkString(got))
			}
		})
	}
	c := newClient(t)
	if got := c.GetLk(c.Open(path, openFlags), wr(0, toEnd)); got.Type != unix.F_UNLCK {
		t.Errorf("in the way of a free lock: %s", lkString(got))
	}
}

// fcntl(2): a lock needs the descriptor to be open for what it is.
func TestFcntlLocksNeedTheRightOpenMode(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	c := newClient(t)
	wantErr(t, "write lock through O_RDONLY",
		c.Fcntl(c.Open(path, unix.O_CREAT|unix.O_RDONLY), unix.F_SETLK, wr(0, 1)), unix.EBADF)
	wantErr(t, "read lock through O_WRONLY",
		c.Fcntl(c.Open(path, unix.O_CREAT|unix.O_WRONLY), unix.F_SETLK, rd(0, 1)), unix.EBADF)
	for _, cmd := range []int{unix.F_SETLK, unix.F_OFD_SETLK} {
		wantErr(t, "a range before the file",
			c.Fcntl(c.Open(path, openFlags), cmd, wr(-5, 2)), unix.EINVAL)
	}
}
