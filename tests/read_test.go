package tests

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.4: the body, and what stat tells. Records have record_test.go.

// wantBody fails the test unless another program reads exactly this.
func wantBody(t testing.TB, path, want string) {
	t.Helper()
	c := newClient(t)
	defer c.Kill()
	got, err := c.ReadAll(path)
	wantErr(t, "reading a held lock", err, nil)
	if got != want {
		t.Fatalf("body %.200q (%d bytes), want %.200q (%d bytes)", got, len(got), want, len(want))
	}
	if st, err := c.Stat(path); err != nil || st.Size != int64(len(want)) {
		t.Fatalf("st_size %d (%v), want %d", st.Size, err, len(want))
	}
}

// "The body that the holder wrote, byte for byte."
func TestTheBodyIsWhatTheHolderWrote(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	var all bytes.Buffer
	for i := range 4096 {
		all.WriteByte(byte(i * 7))
	}
	for _, body := range []string{"1234\n", "no newline", "\x00", "a\x00b\xff\xfe\n\n", all.String()} {
		c := newClient(t)
		fd := c.Open(path, takeFlags)
		wantErr(t, "write", c.Write(fd, body), nil)
		wantBody(t, path, body)
		if own, err := c.Pread(fd, 5000, 0); own != body || err != nil {
			t.Errorf("the holder reads %.100q (%v), want %.100q", own, err, body)
		}
		c.Kill()
	}
}

func TestTheBodyIsWrittenLikeAFile(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	c := newClient(t)
	fd := c.Open(path, takeFlags)
	pwrite := func(s string, off int64) {
		t.Helper()
		if n, err := c.Pwrite(fd, s, off); n != len(s) || err != nil {
			t.Fatalf("pwrite %q at %d: %d, %v", s, off, n, err)
		}
	}
	wantErr(t, "write", c.Write(fd, "one "), nil)
	wantErr(t, "write", c.Write(fd, "two"), nil)
	wantBody(t, path, "one two")
	pwrite("ONE", 0)
	wantBody(t, path, "ONE two")
	pwrite("!", 9)
	wantBody(t, path, "ONE two\x00\x00!")
	wantErr(t, "ftruncate", c.Ftruncate(fd, 3), nil)
	wantBody(t, path, "ONE")
	wantErr(t, "ftruncate", c.Ftruncate(fd, 5), nil)
	wantBody(t, path, "ONE\x00\x00")
	wantErr(t, "truncate", c.Truncate(path, 1), nil)
	wantBody(t, path, "O")
	pwrite("x", 4095)
	wantErr(t, "fsync", c.Fsync(fd), nil)

	// Emptied, it shows the record again.
	wantErr(t, "ftruncate", c.Ftruncate(fd, 0), nil)
	wantHolder(t, path, c.Pid())
}

func TestShellsWriteBodies(t *testing.T) {
	m := mount(t)
	for _, tc := range []struct{ script, want string }{
		{`set -C; exec 9>lock; echo $$ >&9; [ "$(cat lock)" = $$ ] && echo same`, "same\n"},
		{`exec 9>lock; flock 9; echo hello >&9; cat lock`, "hello\n"},
		{`exec 9>>lock; flock 9; echo a >&9; echo b >&9; cat lock`, "a\nb\n"},
		{`exec 9<>lock; flock 9; echo hello >&9; cat <lock; wc -c <lock`, "hello\n6\n"},
		{`exec 9>lock; flock 9; /bin/echo by a child >&9; cat lock`, "by a child\n"},
		{`exec 9>lock; flock 9; echo a longer text >&9; echo new >lock; cat lock`, "new\n"},
		{`set -C; exec 9>lock; echo a longer text >&9; set +C; echo new >lock; cat lock`, "new\n"},
		{`exec 9>lock; flock 9; echo text >&9; : >lock; [ -s lock ] || grep -c ^pid= lock`, "1\n"},
	} {
		if out, exit := bash(t, m, tc.script); out != tc.want || exit != 0 {
			t.Errorf("%s: %q, exit %d, want %q", tc.script, out, exit, tc.want)
		}
	}
}

// "At most 4096 bytes, ENOSPC beyond."
func TestABodyHasAtMost4096Bytes(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	c := newClient(t)
	fd := c.Open(path, takeFlags)
	full := strings.Repeat("x", 4096)
	wantErr(t, "4096 bytes", c.Write(fd, full), nil)
	wantErr(t, "one more", c.Write(fd, "y"), unix.ENOSPC)
	wantBody(t, path, full)

	_, err := c.Pwrite(fd, "y", 4096)
	wantErr(t, "behind the end", err, unix.ENOSPC)
	_, err = c.Pwrite(fd, "y", 1<<40)
	wantErr(t, "far behind the end", err, unix.ENOSPC)
	if err := c.Ftruncate(fd, 4097); err == nil {
		t.Errorf("ftruncate to 4097 bytes succeeded")
	}
	wantBody(t, path, full)

	// As on a full disk, the part that fits may be written.
	wantErr(t, "ftruncate", c.Ftruncate(fd, 0), nil)
	if n, err := c.Pwrite(fd, strings.Repeat("z", 6000), 0); err == nil && n > 4096 {
		t.Errorf("wrote %d bytes", n)
	}
	if st, _ := c.Fstat(fd); st.Size > 4096 {
		t.Errorf("st_size %d", st.Size)
	}
}

// "st_size is the body's length, even so (procmail checks for 0)."
func TestSizeIsTheBodysLengthAlsoWhenThereIsARecordToRead(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	c := newClient(t)
	fd := c.Open(path, takeFlags)
	text, err := newClient(t).ReadAll(path)
	if err != nil || text == "" {
		t.Fatalf("reading: %q, %v", text, err)
	}
	if st, err := c.Fstat(fd); err != nil || st.Size != 0 {
		t.Errorf("st_size %d (%v), want 0", st.Size, err)
	}
	wantErr(t, "write", c.Write(fd, "body"), nil)
	if st, err := c.Stat(path); err != nil || st.Size != 4 {
		t.Errorf("st_size %d (%v), want 4", st.Size, err)
	}
}

// "While somebody else holds the lock, write is EBUSY and truncation is
// accepted and ignored (exec 9>lock, dpkg and Firefox open with O_TRUNC before
// they lock)."
func TestOthersCannotChangeTheBody(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, body := range []string{"body", ""} {
		holder, other := newClient(t), newClient(t)
		early := other.Open(path, openFlags)
		hfd := holder.Open(path, takeFlags)
		if body != "" {
			wantErr(t, "write", holder.Write(hfd, body), nil)
		}
		fd := other.Open(path, unix.O_WRONLY)
		wantErr(t, "write by another", other.Write(fd, "theirs"), unix.EBUSY)
		wantErr(t, "write by one who opened before", other.Write(early, "theirs"), unix.EBUSY)
		wantErr(t, "ftruncate by another", other.Ftruncate(fd, 0), nil)
		wantErr(t, "truncate by another", other.Truncate(path, 0), nil)
		wantErr(t, "ftruncate by another", other.Ftruncate(fd, 100), nil)
		other.Open(path, unix.O_RDWR|unix.O_TRUNC)
		other.Open(path, openFlags|unix.O_TRUNC)
		if _, exit := sh(t, m, `exec 9>lock; ! flock -n 9`); exit != 0 {
			t.Errorf("exec 9>lock on another's lock: exit %d", exit)
		}
		if _, exit := sh(t, m, `echo theirs >lock`); exit == 0 {
			t.Errorf("echo theirs >lock on another's lock succeeded")
		}
		if body != "" {
			wantBody(t, path, body)
		} else {
			wantHolder(t, path, holder.Pid())
		}
		holder.Kill()
		other.Kill()
	}
}

func TestTheBodyIsGoneWithTheHold(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b := newClient(t), newClient(t)
	fd := a.Open(path, takeFlags)
	wantErr(t, "write", a.Write(fd, "old"), nil)
	waiter := b.StartFlock(b.Open(path, openFlags), unix.LOCK_EX)
	waiter.MustBlock(t)
	wantErr(t, "close", a.Close(fd), nil)
	wantErr(t, "the next holder", waiter.Wait(t), nil)
	wantHolder(t, path, b.Pid())
	b.Kill()

	fd = a.Open(path, openFlags)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX), nil)
	wantErr(t, "write", a.Write(fd, "old"), nil)
	wantErr(t, "unlock", a.Flock(fd, unix.LOCK_UN), nil)
	if text, err := a.Pread(fd, 100, 0); text != "" || err != nil {
		t.Errorf("a free lock that is open reads %q, %v, want nothing", text, err)
	}
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX), nil)
	wantHolder(t, path, a.Pid())
}

// "stat: Owner is the holder's uid and gid, mtime when it was taken, stable
// st_ino."
func TestStatTellsOfTheHolder(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, id := range []uint32{aliceID, bobID} {
		holder, other := newClient(t, asUser(id, id)), newClient(t)
		before := time.Now()
		fd := holder.Open(path, takeFlags)
		st, err := other.Stat(path)
		wantErr(t, "stat", err, nil)
		if st.UID != id || st.GID != id || st.Mode != unix.S_IFREG|0o666 || st.Nlink != 1 {
			t.Errorf("uid %d gid %d mode %o nlink %d, want %d %d 100666 1", st.UID, st.GID, st.Mode, st.Nlink, id, id)
		}
		if d := st.Mtime.Sub(before); d < -2*time.Second || d > 5*time.Second {
			t.Errorf("mtime %v, taken at %v", st.Mtime, before)
		}
		for range 3 {
			again, err := other.Stat(path)
			own, err2 := holder.Fstat(fd)
			if err != nil || err2 != nil || again.Ino != st.Ino || own.Ino != st.Ino {
				t.Errorf("st_ino %d, then %d, and %d by fstat (%v, %v)", st.Ino, again.Ino, own.Ino, err, err2)
			}
		}
		holder.Kill()
	}
}

// A flock hold is another's than the one who made the file first.
func TestStatTellsOfWhoHoldsNotOfWhoOpenedFirst(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	alice, bob := newClient(t, asAlice()), newClient(t, asBob())
	alice.Open(path, openFlags)
	wantErr(t, "flock", bob.Flock(bob.Open(path, openFlags), unix.LOCK_EX), nil)
	if st, err := alice.Stat(path); err != nil || st.UID != bobID {
		t.Errorf("uid %d (%v), want %d", st.UID, err, bobID)
	}
}

// The issue: "shared mmap is refused" (files are open for direct I/O).
func TestSharedMmapIsRefused(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	fd := c.Open(m.Path("lock"), takeFlags)
	wantErr(t, "write", c.Write(fd, "body"), nil)
	wantErr(t, "mmap", c.MmapShared(fd), unix.ENODEV)
}

// Fact 19: Go programs poll every file they open; others may, too.
func TestALockCanBePolled(t *testing.T) {
	m := mount(t)
	out, errs, exit := run(t, nil, program(t, "polls"), m.Path("lock"))
	want := "poll 1 in=1 out=1 other=0\nselect 2 in=1 out=1\nepoll 1 in=1 out=1\n"
	if out != want || exit != 0 {
		t.Errorf("%q, %q, exit %d, want %q", out, errs, exit, want)
	}
	c := newClient(t)
	for range 3 {
		fd, err := c.TryOSOpen(m.Path("lock"), takeFlags)
		wantErr(t, "os.OpenFile", err, nil)
		_, err = c.TryOSOpen(m.Path("lock"), takeFlags)
		wantErr(t, "os.OpenFile again", err, unix.EEXIST)
		wantErr(t, "Close", c.OSClose(fd), nil)
	}
}

func TestTheRootIsADirectory(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	st, err := c.Stat(m.Dir)
	wantErr(t, "stat", err, nil)
	if st.Mode != unix.S_IFDIR|0o777 {
		t.Errorf("mode %o, want a directory with 0777 and no sticky bit", st.Mode)
	}
	if out, exit := sh(t, m, `df . >/dev/null && ls -la && find . && stat -f . >/dev/null && pwd -P`); exit != 0 {
		t.Errorf("looking at the root: %s, exit %d", out, exit)
	}
	if _, err := c.TryOpen(m.Dir, unix.O_RDWR); err != unix.EISDIR {
		t.Errorf("opening the root for writing: %v, want %v", err, unix.EISDIR)
	}
	names := []string{}
	for i := range 500 {
		name := fmt.Sprintf("a-rather-long-name-for-a-lock-%04d", i)
		names = append(names, name)
		c.Open(m.Path(name), takeFlags)
	}
	wantListed(t, newClient(t), m, names...)
}
