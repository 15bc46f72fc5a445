package tests

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.4: "Names up to 255 bytes, anything but /, NUL and .lockfs."

func TestAnyNameIsALock(t *testing.T) {
	m := mount(t)
	for _, name := range []string{
		"lock", "a", ".hidden", "...", "-n", "*", "~", "$HOME", "a b", " ", "new\nline", "\n", "tab\t", "\x01", "\x7f",
		"umläut", "\xff\xfe", "caf\xe9", "%s%n", `back\slash`, `"quoted"`, "x=y", "'", "#1", "COM1", "lock.lock",
		".lockfs2", ".lockf", ".LOCKFS", "lockfs",
		".go-fuse-epoll-hack", // fact 20: go-fuse has its own idea of this one
		".fuse_hidden0001", ".nfs0001", ".gitignore", "lost+found",
		strings.Repeat("x", 255), strings.Repeat("ä", 127), strings.Repeat("\xff", 255),
	} {
		path := m.Path(name)
		a, b := newClient(t), newClient(t)
		fd, err := a.TryOpen(path, takeFlags)
		if err != nil {
			t.Errorf("taking %.40q: %v", name, err)
			continue
		}
		_, err = b.TryOpen(path, takeFlags)
		wantErr(t, "taking it twice", err, unix.EEXIST)
		wantListed(t, b, m, name)
		text, err := b.ReadAll(path)
		wantErr(t, "reading", err, nil)
		parseRecords(t, text)
		wantErr(t, "write", a.Write(fd, name), nil)
		wantBody(t, path, name)
		wantErr(t, "close", a.Close(fd), nil)
		wantListed(t, b, m)

		bfd := b.Open(path, openFlags)
		wantErr(t, "flock", b.Flock(bfd, unix.LOCK_EX|unix.LOCK_NB), nil)
		wantErr(t, "flock by another", a.Flock(a.Open(path, openFlags), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
		wantErr(t, "unlink", b.Unlink(path), nil)
		wantFree(t, path)
		a.Kill()
		b.Kill()
	}
}

func TestANameHasAtMost255Bytes(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	long := m.Path(strings.Repeat("x", 256))
	_, err := c.TryOpen(long, takeFlags)
	wantErr(t, "taking", err, unix.ENAMETOOLONG)
	_, err = c.TryOpen(long, openFlags)
	wantErr(t, "opening", err, unix.ENAMETOOLONG)
	_, err = c.Stat(long)
	wantErr(t, "stat", err, unix.ENAMETOOLONG)
	wantErr(t, "unlink", c.Unlink(long), unix.ENAMETOOLONG)
}

// 1.7: the control directory is in every directory and not listed.
func TestTheNameOfTheControlDirectoryIsReserved(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	for _, flags := range []int{takeFlags, openFlags, unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC} {
		if _, err := c.TryOpen(m.Path(".lockfs"), flags); err == nil {
			t.Errorf("creating .lockfs with flags %#x succeeded", flags)
		}
	}
	for _, script := range []string{`mkdir .lockfs`, `ln -s x .lockfs`, `set -C; : >.lockfs`} {
		if out, exit := sh(t, m, script); exit == 0 {
			t.Errorf("%s succeeded: %q", script, out)
		}
	}
	wantListed(t, c, m)
	if err := c.Unlink(m.Path(".lockfs")); err == nil {
		t.Errorf("unlink of .lockfs succeeded")
	}
}
