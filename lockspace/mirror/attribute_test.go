package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Which marks are believed.

// Where lockfs may set trusted attributes nothing else is believed: what a user says of
// somebody else's file, or of his own, is not.
func TestForgedMarksAreNotBelieved(t *testing.T) {
	wantRoot(t)
	for _, text := range []mark{{ToHold, "one", Temporary()}, {ToHold, "two", Temporary()}, {ToLock, "two", "-"}, {ToKeep, "one", Temporary()}} {
		all, dir := mounts(t, "one")
		b, names := all[0], []string{"x", Temporary()}
		for _, name := range names {
			path := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(path, nil, 0o666), unix.Setxattr(path, userMarks, text.text(), 0)); err != nil {
				t.Fatal(err)
			}
		}
		_, m, err := b.Make(newName("x", unix.S_IFLNK))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Reveal(m); !errors.Is(err, unix.EEXIST) {
			t.Errorf("Reveal over a file that says %s: %v, want EEXIST", text.text(), err)
		}
		if err := b.Remove(m); err != nil {
			t.Error(err)
		}
		if _, err := b.OpenLock("x", MadeName{}, 0, 0); err != lockspace.ErrForeign {
			t.Errorf("OpenLock of a file that says %s: %v", text.text(), err)
		}
		if listed, err := b.List("", false); len(listed) != 1 || err != nil {
			t.Errorf("listed are %v, %v", listed, err)
		}
		wantIn(t, dir, names[1], "x")
	}
}

// withoutAdmin has f run without CAP_SYS_ADMIN.
func withoutAdmin(t *testing.T, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and it ends with the thread
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		if err == nil {
			data[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
			err = unix.Capset(&header, &data[0])
		}
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Whether trusted attributes can be set is found out, and leaves nothing; who cannot set
// them uses others, and knows his own again.
func TestAttributeOfMarks(t *testing.T) {
	wantRoot(t)
	b, dir := backing(t, NewBacking)
	find := func(want string) {
		t.Helper()
		if b.As("one"); b.attribute != want {
			t.Errorf("marks are in %q, want %q", b.attribute, want)
		}
		wantIn(t, dir)
	}
	find(trustedMarks)
	withoutAdmin(t, func() {
		find(userMarks)
		m, closeFile := madeBy(t, b, "x", unix.S_IFREG)
		if is, err := b.IsThere(m); !is || !m.Marked || err != nil {
			t.Errorf("it is there: %v, %+v, %v", is, m, err)
		}
		closeFile()
		b.known.Clear()
		if gone, err := b.removeLeftover(spot{dir: b.fd, name: "x"}); !gone || err != nil {
			t.Errorf("what was left behind is gone: %v, %v", gone, err)
		}
	})
	find(trustedMarks)
	if direct, _ := backing(t, NewDirect); direct.As("one").attribute != "" {
		t.Errorf("marks are in %q where nothing is made", direct.attribute)
	}
	// Where there is no O_TMPFILE.
	if err := b.tryNamed(); err != nil {
		t.Errorf("a file that has a name: %v", err)
	}
	withoutAdmin(t, func() {
		if err := b.tryNamed(); err != unix.EPERM {
			t.Errorf("a file that has a name, without the right to: %v", err)
		}
	})
	wantIn(t, dir)
}

// On a filesystem that is full nothing can be made to try it with: it is found out all the
// same, so that who fills it is not believed, and changes nothing.
func TestAttributeWhereNothingCanBeMade(t *testing.T) {
	wantRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "nr_inodes=1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := os.Mkdir(dir+"/x", 0o700); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the filesystem is not full: %v", err)
	}
	b := NewBacking(fd)
	if b.As("one"); b.attribute != trustedMarks {
		t.Errorf("marks are in %q", b.attribute)
	}
	withoutAdmin(t, func() {
		if b.As("one"); b.attribute != userMarks {
			t.Errorf("without the right to, marks are in %q", b.attribute)
		}
	})
	buf := make([]byte, 1024)
	if n, err := unix.Listxattr(dir, buf); err != nil || strings.Contains(string(buf[:max(n, 0)]), "lockfs") {
		t.Errorf("the directory has %q, %v", buf[:max(n, 0)], err)
	}
}
