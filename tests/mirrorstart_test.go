package tests

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a clean stop leaves is held by the next mount, and mirrored by its policy,
// not by that of the mount before.
func TestNextMountMirrorsByItsPolicy(t *testing.T) {
	m := mountBacked(t, "--policy", "hold=name")
	a, stranger := newClient(t), newClient(t)
	wantErr(t, "close", a.Close(a.Open(m.Path("x"), takeFlags)), nil)
	file := stranger.Open(m.Behind("x"), unix.O_RDWR)
	wantErr(t, "a stranger's lock, where names hold", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
	a.Kill()
	m.argv[slices.Index(m.argv, "hold=name")] = "hold=handle"
	m.Restart(m.Quit)
	wantErr(t, "a stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
	a = newClient(t)
	wantErr(t, "unlink", a.Unlink(m.Path("x")), nil)
	wantFreeOutside(t, "a stranger's lock, when it is free", stranger, file, unix.F_SETLK, wr(0, toEnd))
	wantErr(t, "unlock", stranger.Fcntl(file, unix.F_SETLK, un(0, toEnd)), nil)
	wantBehind(t, m, "x") // where open files hold, it stays

	// And the other way round: what is not there yet is made, and was left behind.
	wantErr(t, "symlink", a.Name("symlink", 0, "text", m.Path("x")), nil)
	wantErr(t, "symlink", a.Name("symlink", 0, "text", m.Path("y")), nil)
	a.Kill()
	m.argv[slices.Index(m.argv, "hold=handle")] = "hold=name"
	m.Restart(m.Quit)
	for _, name := range []string{"x", "y"} {
		settles(t, func() bool { _, err := os.Readlink(m.Behind(name)); return err == nil })
		if text, err := os.Readlink(m.Behind(name)); err != nil || text != "text" {
			t.Errorf("outside, %s is a link to %q, %v", name, text, err)
		}
	}
	a = newClient(t)
	wantErr(t, "unlink", a.Unlink(m.Path("x")), nil)
	wantBehind(t, m, "y")
}

// What is held and cannot be mirrored when a mount begins is lost, and no more.
func TestMirrorLostBeforeTheMount(t *testing.T) {
	m := mountBacked(t)
	a := newClient(t)
	wantErr(t, "symlink", a.Name("symlink", 0, "text", m.Path("x")), nil)
	wantErr(t, "another", a.Name("symlink", 0, "text", m.Path("y")), nil)
	a.Kill()
	for range 5 { // it is said while the worker begins
		m.Restart(func() {
			m.Quit()
			m.AwaitExit(t)
			if err := os.Remove(m.Behind("x")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(m.Behind("x"), 0o777); err != nil {
				t.Fatal(err)
			}
		})
		a = newClient(t)
		eventually(t, answerLimit, func() bool { return strings.Contains(m.Stderr(), "why=lost") }, "the log says that it is lost")
		wantListed(t, a, m.Mount, "x", "y") // somebody's directory, and what is held
		if err := os.Remove(m.Behind("x")); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "symlink", a.Name("symlink", 0, "text", m.Path("x")), nil)
		a.Kill()
	}
}
