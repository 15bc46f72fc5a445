package tests

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A lockspace whose names hold, in a mount whose others do not, with names that were
// there before, and those that a lease ends.
func TestNamesOutsideOfALockspace(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/old", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/old/LCK..a", []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := &mirroredMount{mount(t, "--backing", dir, "--space", "old:hold=name", "--space", "new:hold=name,lease=1s"), dir}
	a, stranger := newClient(t), newClient(t)
	wantErr(t, "a symlink for what was there", a.Name("symlink", 0, "text", m.Path("old/LCK..a")), unix.EEXIST)
	wantErr(t, "symlink", a.Name("symlink", 0, "text", m.Path("old/b")), nil)
	wantErr(t, "a stranger's", stranger.Name("mkdir", 0o755, m.Behind("old/b")), unix.EEXIST)
	if err := os.Remove(m.Behind("old/LCK..a")); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "a symlink, now", a.Name("symlink", 0, "text", m.Path("old/LCK..a")), nil)
	wantErr(t, "unlink", a.Unlink(m.Path("old/LCK..a")), nil)
	wantErr(t, "unlink", a.Unlink(m.Path("old/b")), nil)

	// The directory is made when it is needed. It holds nothing.
	if _, err := os.Lstat(m.Behind("new")); !os.IsNotExist(err) {
		t.Errorf("the lockspace's directory: %v", err)
	}
	fd := a.Open(m.Path("new/x"), takeFlags)
	wantErr(t, "a stranger's", stranger.Name("symlink", 0, "text", m.Behind("new/x")), unix.EEXIST)
	killWorker(t, m.Mount)
	eventually(t, answerLimit, func() bool {
		_, err := os.Lstat(m.Behind("new/x"))
		return os.IsNotExist(err)
	}, "the lease is over")
	wantErr(t, "a write of who had it", a.Write(fd, "x"), unix.ESTALE)
	wantErr(t, "a stranger's, now", stranger.Name("symlink", 0, "text", m.Behind("new/x")), nil)
	other := mount(t, "--backing", dir, "--policy", holdByName)
	wantListed(t, a, other, "new", "old") // in which the other one locks, and which was there before
	wantErr(t, "a lock of the name of the other's directory", a.Name("symlink", 0, "text", other.Path("new")), unix.EEXIST)
}

// Nothing is renamed onto what a stranger holds, by whatever he does.
func TestRenameOntoStrangers(t *testing.T) {
	m := mountBacked(t)
	a, stranger := newClient(t), newClient(t)
	wantErr(t, "symlink", a.Name("symlink", 0, "text", m.Path("own")), nil)
	file := stranger.Open(m.Behind("x"), unix.O_RDWR|unix.O_CREAT)
	wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, 1)), nil)
	wantErr(t, "rename", a.Name("rename", 0, m.Path("own"), m.Path("x")), unix.EBUSY)
	wantErr(t, "rename that replaces nothing", a.Name("rename", unix.RENAME_NOREPLACE, m.Path("own"), m.Path("x")), unix.EEXIST)
	killWorker(t, m.Mount)
	wantErr(t, "rename", a.Name("rename", 0, m.Path("own"), m.Path("x")), unix.EBUSY)
	wantErr(t, "the stranger's unlock", stranger.Fcntl(file, unix.F_SETLK, un(0, 1)), nil)
	wantErr(t, "rename", a.Name("rename", 0, m.Path("own"), m.Path("x")), nil)
	wantErr(t, "unlink", a.Unlink(m.Path("x")), nil)
}
