package tests

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What becomes of names outside when the mount ends, and when somebody outside takes
// them away.

// holdNames has a client hold a name of each kind: "file", with a body, "link" and
// "dir".
func holdNames(t testing.TB, a *Client, m *mirroredMount) {
	t.Helper()
	fd := a.Open(m.Path("file"), takeFlags)
	wantErr(t, "write", a.Write(fd, "text"), nil)
	wantErr(t, "close", a.Close(fd), nil)
	wantErr(t, "symlink", a.Name("symlink", 0, "text", m.Path("link")), nil)
	wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("dir")), nil)
}

// wantHeldNames fails the test unless all of them are held on a mount.
func wantHeldNames(t testing.TB, a *Client, m *Mount, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := a.TryOpen(m.Path(name), takeFlags)
		wantErr(t, "O_EXCL of "+name, err, unix.EEXIST)
		wantErr(t, "symlink for "+name, a.Name("symlink", 0, "text", m.Path(name)), unix.EEXIST)
	}
}

// removeNames removes what holdNames has made.
func removeNames(t testing.TB, a *Client, m *Mount) {
	t.Helper()
	wantErr(t, "unlink", a.Unlink(m.Path("file")), nil)
	wantErr(t, "unlink", a.Unlink(m.Path("link")), nil)
	wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("dir")), nil)
}

// A clean stop keeps what is held by name, outside too, from strangers and from other
// daemons.
func TestNamesOutsideAreKept(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName)
	other := mount(t, append(mirroredIn(t, m.backing), "--policy", holdByName)...)
	a := newClient(t)
	for range 2 {
		holdNames(t, a, m)
		a.Kill()
		var inodes []uint64
		m.Restart(func() {
			m.Quit()
			m.AwaitExit(t)
			wantBehind(t, m, "dir", "file", "link")
			b := newClient(t)
			wantHeldNames(t, b, other, "file", "link", "dir")
			b.Kill()
			for _, name := range []string{"dir", "file", "link"} {
				var st unix.Stat_t
				if err := unix.Lstat(m.Behind(name), &st); err != nil {
					t.Fatal(err)
				}
				inodes = append(inodes, st.Ino)
			}
		})
		a = newClient(t)
		wantHeldNames(t, a, m.Mount, "file", "link", "dir")
		wantHeldNames(t, a, other, "file", "link", "dir")
		killWorker(t, m.Mount)
		for i, name := range []string{"dir", "file", "link"} {
			var st unix.Stat_t
			if err := unix.Lstat(m.Behind(name), &st); err != nil || st.Ino != inodes[i] {
				t.Errorf("%s is another outside: %v", name, err)
			}
		}
		wantText(t, m, "file", "text")
		fd := a.Open(m.Path("file"), unix.O_WRONLY|unix.O_TRUNC)
		wantErr(t, "write", a.Write(fd, "new"), nil)
		wantErr(t, "close", a.Close(fd), nil)
		wantText(t, m, "file", "new")
		removeNames(t, a, m.Mount)
		wantBehind(t, m)
	}
}

// What a mount that died has left behind is nobody's for the next one.
func TestNamesLeftBehind(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName)
	a := newClient(t)
	for range 2 {
		holdNames(t, a, m)
		a.Kill()
		m.Restart(m.Kill)
		wantBehind(t, m, "dir", "file", "link")
		a = newClient(t)
		wantListed(t, a, m.Mount)
		holdNames(t, a, m)
		wantText(t, m, "file", "text")
		removeNames(t, a, m.Mount)
		wantBehind(t, m)
	}
	// Of another mount, of which nothing is known: a file that nobody has locked.
	holdNames(t, a, m)
	a.Kill()
	at := slices.Index(m.argv, "--state-dir")
	m.argv[at+1] = t.TempDir()
	if err := os.Chmod(m.argv[at+1], 0o700); err != nil {
		t.Fatal(err)
	}
	m.Restart(m.Kill)
	a = newClient(t)
	wantListed(t, a, m.Mount, "dir", "link")
	wantHeldNames(t, a, m.Mount, "dir", "link")
	wantErr(t, "close", a.Close(a.Open(m.Path("file"), takeFlags)), nil)
	for _, name := range []string{"dir", "link"} {
		if err := os.Remove(m.Behind(name)); err != nil {
			t.Fatal(err)
		}
	}
	wantErr(t, "unlink", a.Unlink(m.Path("file")), nil)
	wantBehind(t, m)
}

// A mount that keeps nothing leaves nothing.
func TestNamesOfAMountThatKeepsNothing(t *testing.T) {
	for how, end := range map[string]func(m *Mount){
		"stopped":   (*Mount).Quit,
		"unmounted": func(m *Mount) { unix.Unmount(m.Dir, 0) },
	} {
		t.Run(how, func(t *testing.T) {
			m := mountBacked(t, "--policy", holdByName, "--state-dir", "none")
			a := newClient(t)
			holdNames(t, a, m)
			a.Kill()
			wantBehind(t, m, "dir", "file", "link")
			end(m.Mount)
			m.AwaitExit(t)
			wantBehind(t, m)
		})
	}
}

// A name that somebody outside has removed, or replaced, is lost: its holder is told,
// and what is there now stays.
func TestNamesThatAreTakenAway(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName)
	a := newClient(t)
	events := a.Open(m.Path(".lockfs/events"), unix.O_RDONLY|unix.O_NONBLOCK)
	holdNames(t, a, m)
	open := a.Open(m.Path("open"), takeFlags)
	for _, name := range []string{"file", "link", "dir", "open"} {
		if err := os.Remove(m.Behind(name)); err != nil {
			t.Fatal(err)
		}
		if name == "link" || name == "open" {
			if err := os.WriteFile(m.Behind(name), []byte("stranger"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, answerLimit, func() bool { return a.Fsync(open) == unix.EIO }, "the holder is told")
	told := ""
	eventually(t, answerLimit, func() bool {
		more, err := a.Read(events, 4096)
		told += more
		return (err == nil || err == unix.EAGAIN) && strings.Count(told, `{"event":"lost"`) == 4
	}, "there are events")
	wantListed(t, a, m.Mount, "link", "open")
	wantHeldNames(t, a, m.Mount, "link", "open")
	for _, name := range []string{"link", "open"} {
		if b, err := os.ReadFile(m.Behind(name)); err != nil || string(b) != "stranger" {
			t.Errorf("%s has %q, %v", name, b, err)
		}
	}
	wantErr(t, "close", a.Close(a.Open(m.Path("file"), takeFlags)), nil)
	wantErr(t, "close", a.Close(open), nil)
	eventually(t, answerLimit, func() bool { return strings.Count(m.Stderr(), "why=lost") >= 4 }, "the log tells of the losses")
	if n := strings.Count(m.Stderr(), "why=lost"); n != 4 {
		t.Errorf("the log tells of %d losses", n)
	}
}

// Who may not read something outside does not read it on the mount.
func TestNamesOutsideArePrivate(t *testing.T) {
	needRoot(t)
	m := mountBacked(t, "--policy", holdByName)
	alice, root := newClient(t, asAlice()), newClient(t)
	if err := os.WriteFile(m.Behind("secret"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Behind("public"), []byte("public"), 0o644); err != nil {
		t.Fatal(err)
	}
	read := func(c *Client, name, want string, wantErr error) {
		t.Helper()
		if text, err := c.ReadAll(m.Path(name)); text != want || err != wantErr {
			t.Errorf("%s reads %q, %v", name, text, err)
		}
	}
	for mode, text := range map[os.FileMode]string{0o755: "public", 0o700: ""} {
		if err := os.Chmod(m.backing, mode); err != nil {
			t.Fatal(err)
		}
		var err error
		if text == "" {
			err = unix.EACCES
		}
		read(alice, "public", text, err)
		read(alice, "secret", "", unix.EACCES)
		read(root, "public", "public", nil)
		read(root, "secret", "secret", nil)
	}
	// What is open shows nothing of what comes after it.
	if err := os.Chmod(m.backing, 0o755); err != nil {
		t.Fatal(err)
	}
	fd := alice.Open(m.Path("public"), unix.O_RDONLY)
	if err := os.Rename(m.Behind("secret"), m.Behind("public")); err != nil {
		t.Fatal(err)
	}
	if text, err := alice.Read(fd, 100); text != "" || err != nil {
		t.Errorf("it reads %q, %v", text, err)
	}
}

// Directories hold by name everywhere, and their locks are mirrored in them.
func TestDirectoriesAreOutside(t *testing.T) {
	m := mountBacked(t)
	a, b := newClient(t), newClient(t)
	if err := os.Mkdir(m.Behind("theirs"), 0o755); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "mkdir of a stranger's", a.Name("mkdir", 0o755, m.Path("theirs")), unix.EEXIST)
	wantErr(t, "mkdir", a.Name("mkdir", 0o750, m.Path("d")), nil)
	if err := os.Mkdir(m.Behind("d"), 0o755); !os.IsExist(err) {
		t.Errorf("a stranger's mkdir: %v", err)
	}
	wantErr(t, "mkdir in it", a.Name("mkdir", 0o755, m.Path("d/e")), nil)
	fd := a.Open(m.Path("d/e/x"), takeFlags)
	wantErr(t, "rmdir of what is in use", b.Name("rmdir", 0, m.Path("d/e")), unix.ENOTEMPTY)
	wantErr(t, "close", a.Close(fd), nil)
	if err := os.WriteFile(m.Behind("d/e/stranger"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "rmdir of what a stranger uses", b.Name("rmdir", 0, m.Path("d/e")), unix.ENOTEMPTY)
	wantHeldNames(t, b, m.Mount, "d/e")
	if err := os.Remove(m.Behind("d/e/stranger")); err != nil {
		t.Fatal(err)
	}
	killWorker(t, m.Mount)
	wantErr(t, "rmdir", b.Name("rmdir", 0, m.Path("d/e")), nil)
	wantErr(t, "rmdir", b.Name("rmdir", 0, m.Path("d")), nil)
	wantBehind(t, m, "theirs")
	if _, err := os.Stat(m.Behind("theirs")); err != nil {
		t.Error(err)
	}
}

// In grace nobody has the name, outside either, over a stop too.
func TestNamesOutsideInGrace(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName+",grace=6s")
	if _, exit := sh(t, m.Mount, `set -C; echo $$ >lock; kill -9 $$`); exit == 0 {
		t.Fatal("the script has not died")
	}
	eventually(t, answerLimit, func() bool { _, err := os.Lstat(m.Path("lock")); return os.IsNotExist(err) }, "it is reaped")
	wantBehind(t, m, "lock")
	m.Restart(m.Quit)
	wantBehind(t, m, "lock")
	killWorker(t, m.Mount)
	wantBehind(t, m, "lock")
	eventually(t, answerLimit, func() bool { _, err := os.Lstat(m.Behind("lock")); return os.IsNotExist(err) }, "grace ends")
}

// With the keeper ends the mount, and what was held by its name is gone outside.
func TestNamesOutsideWithoutAKeeper(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName)
	a := newClient(t)
	holdNames(t, a, m)
	a.Kill()
	m.killed = true
	m.Signal(unix.SIGKILL)
	eventually(t, answerLimit, func() bool {
		entries, err := os.ReadDir(m.backing)
		return err == nil && len(entries) == 0
	}, "nothing is left outside")
	eventually(t, answerLimit, func() bool { return mountAt(m.Dir) == nil }, "it is unmounted")
}
