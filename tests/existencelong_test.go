package tests

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What would be outside at a path that is too long to be recorded is not held, and who
// asks for it is told so: it harms nobody else.
func TestNamesOutsideAtALongPath(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("d", 250)
	for range 8 {
		dir += "/" + long
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := mount(t, "--space", "s:hold=name,mirror="+dir)
	worker := m.Worker()
	at, err := unix.Open(m.Path("s"), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	deep := 0
	for ; err == nil && deep < 16; deep++ {
		if err = unix.Mkdirat(at, long, 0o755); err != nil {
			break
		}
		next, wrong := unix.Openat(at, long, unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(at)
		if at = next; wrong != nil {
			t.Fatal(wrong)
		}
	}
	defer unix.Close(at)
	if err != unix.ENAMETOOLONG || deep < 8 {
		t.Errorf("the making of directory %d: %v, want ENAMETOOLONG", deep, err)
	}
	_, err = unix.Openat(at, long, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	wantErr(t, "O_EXCL of a long name", err, unix.ENAMETOOLONG)
	fd, err := unix.Openat(at, "x", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
	wantErr(t, "O_EXCL of a short one", err, nil)
	unix.Close(fd)
	wantErr(t, "unlink", unix.Unlinkat(at, "x", 0), nil)
	if m.Worker() != worker {
		t.Errorf("the worker has died: %s", m.Stderr())
	}
}
