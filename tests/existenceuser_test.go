package tests

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// An ordinary user's daemon makes names outside that are his, of what mode they are on
// the mount but that it can write to them.
func TestNamesOutsideOfAnOrdinaryUser(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if err := os.Chown(dir, aliceID, aliceID); err != nil {
		t.Fatal(err)
	}
	// What is above it is root's alone.
	allowPath(t, dir)
	m := &mirroredMount{mountAs(t, aliceID, aliceID, "--policy", holdByName, "--backing", dir), dir}
	a := newClient(t, asAlice())
	holdNames(t, a, m)
	fd, err := a.TryOpen(m.Path("ro"), takeFlags)
	wantErr(t, "O_EXCL", err, nil)
	wantErr(t, "chmod", a.Chmod(m.Path("ro"), 0o444), nil)
	wantErr(t, "write", a.Write(fd, "text"), nil)
	if b, err := os.ReadFile(m.Behind("ro")); err != nil || string(b) != "text" {
		t.Errorf("outside there is %q, %v", b, err)
	}
	for _, name := range []string{"file", "link", "dir", "ro"} {
		var st unix.Stat_t
		if err := unix.Lstat(m.Behind(name), &st); err != nil || st.Uid != aliceID {
			t.Errorf("%s is %d's outside, %v", name, st.Uid, err)
		}
	}
	killWorker(t, m.Mount)
	stranger := newClient(t, asAlice())
	wantErr(t, "a stranger's mkdir", stranger.Name("mkdir", 0o755, m.Behind("link")), unix.EEXIST)
	wantErr(t, "a stranger's symlink", stranger.Name("symlink", 0, "stranger", m.Behind("theirs")), nil)
	wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("theirs")), unix.EEXIST)
	wantErr(t, "unlink", a.Unlink(m.Path("ro")), nil)
	removeNames(t, a, m.Mount)
	wantBehind(t, m, "theirs")
}

// allowPath lets everybody come to a directory of the test's.
func allowPath(t *testing.T, dir string) {
	t.Helper()
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}
