package tests

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leftIn makes as many files in a directory outside as are left by locks in one.
func leftIn(t testing.TB, a *Client, m *mirroredMount, dir string, n int) {
	t.Helper()
	path := m.Behind(dir + "/first")
	fd := a.Open(m.Path(dir+"/first"), takeFlags)
	names := make([]byte, 4096)
	size, err := unix.Listxattr(path, names)
	if err != nil || size < 2 || size != 1+len(unix.ByteSliceToString(names)) {
		t.Fatalf("the marks of a lock's file are %q, %v", names[:max(size, 0)], err)
	}
	name, mark := string(names[:size-1]), make([]byte, 4096)
	if size, err = unix.Getxattr(path, name, mark); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "close", a.Close(fd), nil)
	for i := range n {
		path := m.Behind(fmt.Sprint(dir, "/left", i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(path, name, mark[:size], 0); err != nil {
			t.Fatal(err)
		}
	}
}

// A directory in which very many locks were is removed outside without anybody waiting for
// it but who makes it anew, whatever dies; of few who removes it finds it removed.
func TestDirectoriesOfManyLocks(t *testing.T) {
	m := mountBacked(t)
	m.Deadline(2 * time.Minute)
	a := newClient(t)
	gone := func() bool { _, err := os.Lstat(m.Behind("dir")); return os.IsNotExist(err) }
	for _, x := range []struct {
		n    int
		kill bool
	}{{100, false}, {3_000, false}, {3_000, true}} {
		wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("dir")), nil)
		leftIn(t, a, m, "dir", x.n)
		wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("dir")), nil)
		if entries, err := os.ReadDir(m.backing); x.n == 100 && len(entries) > 0 || x.n > 100 && len(entries) == 0 {
			t.Errorf("of %d names there are %v when the call returns, %v", x.n, entries, err)
		}
		if x.kill {
			killWorker(t, m.Mount)
		}
		for range 20 {
			wantListed(t, a, m.Mount)
		}
		_, err := a.Stat(m.Path("dir"))
		wantErr(t, "stat of what is removed", err, unix.ENOENT)
		wantErr(t, "mkdir, now", a.Name("mkdir", 0o755, m.Path("dir")), nil)
		if entries, err := os.ReadDir(m.Behind("dir")); err != nil || len(entries) > 0 {
			t.Errorf("in the new one there are %d names, %v", len(entries), err)
		}
		wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("dir")), nil)
		if !gone() {
			t.Error("it is there when the call has returned")
		}
	}
	// At the end of a mount what has yet to be removed is.
	wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("dir")), nil)
	leftIn(t, a, m, "dir", 3_000)
	wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("dir")), nil)
	m.Restart(m.Quit)
	eventually(t, answerLimit, gone, "the next mount removes it, or this one has")
	wantListed(t, a, m.Mount)
	wantBehind(t, m)
}
