package tests

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.3, hold=handle: "A free lock has no file: a name is listed, and can be
// opened without O_CREAT, exactly while it is held."

// wantListed fails the test unless c sees exactly these names in the mount's
// root.
func wantListed(t testing.TB, c *Client, m *Mount, names ...string) {
	t.Helper()
	slices.Sort(names)
	if got := c.Readdir(m.Dir); !slices.Equal(got, names) {
		t.Fatalf("listed: %q, want %q", got, names)
	}
}

// wantErr fails the test unless err is want (a syscall.Errno, or nil).
func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if err != want {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// exactly the ways to hold a lock through an open file, for the tests that
// hold for all of them.
var waysToHold = []struct {
	name string
	take func(t *testing.T, c *Client, path string) (fd int)
}{
	{"O_EXCL", func(t *testing.T, c *Client, path string) int {
		return c.Open(path, takeFlags)
	}},
	{"flock", func(t *testing.T, c *Client, path string) int {
		fd := c.Open(path, openFlags)
		wantErr(t, "flock", c.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
		return fd
	}},
	{"flock shared", func(t *testing.T, c *Client, path string) int {
		fd := c.Open(path, openFlags)
		wantErr(t, "flock", c.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), nil)
		return fd
	}},
	{"POSIX", func(t *testing.T, c *Client, path string) int {
		fd := c.Open(path, openFlags)
		wantErr(t, "F_SETLK", c.Fcntl(fd, unix.F_SETLK, wr(0, toEnd)), nil)
		return fd
	}},
	{"OFD", func(t *testing.T, c *Client, path string) int {
		fd := c.Open(path, openFlags)
		wantErr(t, "F_OFD_SETLK", c.Fcntl(fd, unix.F_OFD_SETLK, wr(0, toEnd)), nil)
		return fd
	}},
	{"POSIX, one byte", func(t *testing.T, c *Client, path string) int {
		fd := c.Open(path, openFlags)
		wantErr(t, "F_SETLK", c.Fcntl(fd, unix.F_SETLK, rd(1<<40, 1)), nil)
		return fd
	}},
}

func TestANameIsListedExactlyWhileItIsHeld(t *testing.T) {
	m := mount(t)
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			holder, other := newClient(t), newClient(t)
			path := m.Path("lock")
			wantListed(t, other, m)

			fd := way.take(t, holder, path)
			wantListed(t, other, m, "lock")
			st, err := other.Stat(path)
			wantErr(t, "stat of a held lock", err, nil)
			if st.Mode != unix.S_IFREG|0o666 {
				t.Errorf("mode %o, want a regular file with 0666", st.Mode)
			}

			wantErr(t, "close", holder.Close(fd), nil)
			wantListed(t, other, m)
			_, err = other.Stat(path)
			wantErr(t, "stat of a free lock", err, unix.ENOENT)
		})
	}
}

func TestALockOfAKilledHolderIsNoLongerListed(t *testing.T) {
	m := mount(t)
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			holder, other := newClient(t), newClient(t)
			way.take(t, holder, m.Path("lock"))
			wantListed(t, other, m, "lock")
			holder.Kill()
			wantListed(t, other, m)
			other.Close(other.Open(m.Path("lock"), takeFlags))
		})
	}
}

func TestManyNamesAreListed(t *testing.T) {
	m := mount(t)
	a, b, other := newClient(t), newClient(t), newClient(t)
	one, two := a.Open(m.Path("one"), takeFlags), b.Open(m.Path("two"), takeFlags)
	three := a.Open(m.Path("three"), takeFlags)
	wantListed(t, other, m, "one", "two", "three")
	b.Close(two)
	wantListed(t, other, m, "one", "three")
	a.Close(one)
	a.Close(three)
	wantListed(t, other, m)
}

func TestAnUnlockedNameIsNotListed(t *testing.T) {
	m := mount(t)
	c, other := newClient(t), newClient(t)
	fd := c.Open(m.Path("lock"), openFlags)
	for _, step := range []struct {
		what         string
		lock, unlock func() error
	}{
		{"LOCK_UN",
			func() error { return c.Flock(fd, unix.LOCK_EX) },
			func() error { return c.Flock(fd, unix.LOCK_UN) }},
		{"F_UNLCK",
			func() error { return c.Fcntl(fd, unix.F_SETLK, wr(0, toEnd)) },
			func() error { return c.Fcntl(fd, unix.F_SETLK, un(0, toEnd)) }},
		{"OFD F_UNLCK",
			func() error { return c.Fcntl(fd, unix.F_OFD_SETLK, wr(0, toEnd)) },
			func() error { return c.Fcntl(fd, unix.F_OFD_SETLK, un(0, toEnd)) }},
	} {
		wantListed(t, other, m)
		wantErr(t, "lock before "+step.what, step.lock(), nil)
		wantListed(t, other, m, "lock")
		wantErr(t, step.what, step.unlock(), nil)
		wantListed(t, other, m)
	}
}

func TestAFreeLockCannotBeOpenedWithoutOCreat(t *testing.T) {
	m := mount(t)
	a, b := newClient(t), newClient(t)
	path := m.Path("lock")

	_, err := b.TryOpen(path, unix.O_RDONLY)
	wantErr(t, "open of a name nobody knows", err, unix.ENOENT)

	fd := a.Open(path, openFlags) // open, but not held
	_, err = b.TryOpen(path, unix.O_RDWR)
	wantErr(t, "open of a free lock that another has open", err, unix.ENOENT)
	if st, err := a.Fstat(fd); err != nil || st.Mode != unix.S_IFREG|0o666 || st.Size != 0 {
		t.Errorf("fstat of an open free lock: %+v, %v", st, err)
	}

	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX), nil)
	bfd, err := b.TryOpen(path, unix.O_RDWR)
	wantErr(t, "open of a held lock", err, nil)
	wantErr(t, "flock of a held lock", b.Flock(bfd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// The first of the non-guarantees: "touch x; ls" shows nothing.
func TestTouchMakesNoFile(t *testing.T) {
	m := mount(t)
	out, exit := sh(t, m, `touch x && ls -A`)
	if out != "" || exit != 0 {
		t.Errorf("touch x && ls -A: %q, exit %d, want nothing, 0", out, exit)
	}
	if out, exit := sh(t, m, `exec 9>x; ls -A; cat x`); out != "" || exit != 1 {
		t.Errorf("a file that is open but not held: %q, exit %d, want nothing, and cat to fail", out, exit)
	}
}

// 1.1: "Nodes point at locks: several nodes may stand for one lock over time."
func TestProgramsThatOpenTheSameUnlistedNameMeetOnOneLock(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	var clients []*Client
	var fds []int
	for range 4 {
		c := newClient(t)
		clients = append(clients, c)
		fds = append(fds, c.Open(path, openFlags))
	}
	for i, c := range clients {
		wantErr(t, "flock", c.Flock(fds[i], unix.LOCK_EX|unix.LOCK_NB), nil)
		for j, other := range clients {
			if i != j {
				wantErr(t, "flock by another", other.Flock(fds[j], unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
			}
		}
		late := newClient(t)
		_, err := late.TryOpen(path, takeFlags)
		wantErr(t, "O_EXCL of a held lock", err, unix.EEXIST)
		wantErr(t, "unlock", c.Flock(fds[i], unix.LOCK_UN), nil)
	}
	// One who takes by O_EXCL what others have open excludes them, too.
	excl := newClient(t)
	fd := excl.Open(path, takeFlags)
	for i, c := range clients {
		wantErr(t, "flock while O_EXCL holds", c.Flock(fds[i], unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	}
	waiter := clients[0].StartFlock(fds[0], unix.LOCK_EX)
	waiter.MustBlock(t)
	excl.Close(fd)
	wantErr(t, "the waiter", waiter.Wait(t), nil)
}

// 1.4, order: "A process that closes a lock and opens it again must get it."
// The stress tests do it at length.
func TestCloseAndTakeAgain(t *testing.T) {
	m := mount(t)
	out, exit := bash(t, m, `set -C; for i in {1..300}; do : >lock || exit 1; done; ls`)
	if out != "" || exit != 0 {
		t.Errorf("300 times ': >lock' with noclobber: %q, exit %d", out, exit)
	}
}

// Opens of other kinds behave as on any filesystem, and take nothing.
func TestOtherOpensOfALock(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	c, other := newClient(t), newClient(t)
	c.Open(path, takeFlags)
	for _, tc := range []struct {
		name  string
		path  string
		flags int
		want  error
	}{
		{"O_PATH", path, unix.O_PATH, nil},
		{"O_NOFOLLOW", path, unix.O_RDONLY | unix.O_NOFOLLOW, nil},
		{"O_NONBLOCK", path, unix.O_RDWR | unix.O_NONBLOCK, nil},
		{"O_SYNC", path, unix.O_RDWR | unix.O_SYNC, nil},
		{"O_APPEND", path, unix.O_WRONLY | unix.O_APPEND, nil},
		{"O_DIRECTORY", path, unix.O_RDONLY | unix.O_DIRECTORY, unix.ENOTDIR},
		{"below a lock", path + "/below", openFlags, unix.ENOTDIR},
		{"O_EXCL without O_CREAT", path, unix.O_RDWR | unix.O_EXCL, nil},
		{"O_TMPFILE", m.Dir, unix.O_RDWR | unix.O_TMPFILE, unix.EOPNOTSUPP},
	} {
		fd, err := other.TryOpen(tc.path, tc.flags)
		if err != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
		if err == nil {
			wantErr(t, "close", other.Close(fd), nil)
		}
		wantHeld(t, path)
		wantListed(t, other, m, "lock")
	}
	wantHolder(t, path, c.Pid())
}
