package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is done to a name outside while something else is done to it, or to what it is in.

// A name that has been given back can be made at once, in any way.
func TestNamesGivenBackCanBeMade(t *testing.T) {
	ofBoth(t, "hold=handle", func(t *testing.T, m *mirroredMount) {
		a := newClient(t)
		for what, way := range map[string]struct{ make, drop func() error }{
			"O_EXCL":  {func() error { return openAndClose(a, m.Path("x")) }, func() error { return nil }},
			"symlink": {func() error { return a.Name("symlink", 0, "text", m.Path("x")) }, func() error { return a.Unlink(m.Path("x")) }},
			"mkdir":   {func() error { return a.Name("mkdir", 0o755, m.Path("x")) }, func() error { return a.Name("rmdir", 0, m.Path("x")) }},
		} {
			for range 50 {
				wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("x")), nil)
				wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("x")), nil)
				wantErr(t, what+" after rmdir", way.make(), nil)
				wantErr(t, "giving it back", way.drop(), nil)
				// A stranger may remove a file that nobody holds, at any time.
				eventually(t, answerLimit, func() bool {
					_, err := os.Lstat(m.Behind("x"))
					return err != nil || os.Remove(m.Behind("x")) == nil
				}, "it is gone outside")
			}
		}
	})
}

// openAndClose takes a lock, and gives it back if it gets it.
func openAndClose(c *Client, path string) error {
	fd, err := c.TryOpen(path, takeFlags)
	if err == nil {
		err = c.Close(fd)
	}
	return err
}

// A stranger's name is held when names hold, also if it was locked before they did.
func TestForeignFilesWhenNamesBeginToHold(t *testing.T) {
	ofBoth(t, "hold=handle", func(t *testing.T, m *mirroredMount) {
		a, b := newClient(t), newClient(t)
		for _, name := range []string{"locked", "not"} {
			if err := os.WriteFile(m.Behind(name), []byte("stranger\n"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		fd := a.Open(m.Path("locked"), openFlags)
		wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
		wantErr(t, "unlock", a.Flock(fd, unix.LOCK_UN), nil)
		if out, exit := sh(t, m.Mount, `echo name >.lockfs/policy/hold`); exit != 0 {
			t.Fatal(out)
		}
		for _, name := range []string{"locked", "not"} {
			if _, err := b.TryOpen(m.Path(name), takeFlags); err != unix.EEXIST {
				t.Errorf("O_EXCL of %s: %v", name, err)
			}
			fd := b.Open(m.Path(name), unix.O_RDWR)
			wantErr(t, "flock of a stranger's name: "+name, b.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN)
		}
	})
}

// renameTime is how long directories are renamed while something is made in them.
const renameTime = 5 * time.Second

// What is made in a directory that gets another name meanwhile is outside in that.
func TestRenamedWhileSomethingIsMade(t *testing.T) {
	for _, policy := range []string{"hold=name", "hold=handle"} {
		t.Run(policy, func(t *testing.T) {
			for what, start := range map[string]func(c *Client, path string) *Pending{
				"mkdir":  func(c *Client, path string) *Pending { return c.startName("mkdir", 0o755, path) },
				"O_EXCL": func(c *Client, path string) *Pending { return c.StartOpen(path, takeFlags) },
			} {
				t.Run(what, func(t *testing.T) { renamedWhile(t, mountBacked(t, "--policy", policy), start) })
			}
		})
	}
}

func renamedWhile(t *testing.T, m *mirroredMount, start func(c *Client, path string) *Pending) {
	a, b := newClient(t), newClient(t)
	from, to := "d", "e"
	wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path(from)), nil)
	both := 0
	for i, end := 0, time.Now().Add(renameTime); time.Now().Before(end) && !t.Failed(); i++ {
		name := fmt.Sprint("s", i%7)
		making := start(b, m.Path(from)+"/"+name)
		time.Sleep(time.Duration(i%40) * 20 * time.Microsecond)
		renamed := a.Name("rename", 0, m.Path(from), m.Path(to)) == nil
		made := making.Wait(t)
		at := from
		if renamed {
			at, from, to = to, to, from
		}
		switch {
		case made == unix.ENOENT && renamed: // it came after
			continue
		case made != nil:
			t.Errorf("it is not made: %v", made)
			continue
		case renamed:
			both++
		}
		if _, err := os.Lstat(m.Path(at) + "/" + name); err != nil {
			t.Errorf("it is made, and is not there: %v", err)
		}
		if _, err := os.Lstat(m.Behind(at) + "/" + name); err != nil {
			all, _ := filepath.Glob(m.backing + "/*/*")
			t.Errorf("%s/%s is held on the mount, and outside there are %v", at, name, all)
		}
		wantErr(t, "rmdir", os.RemoveAll(m.Path(at)+"/"+name), nil)
		if fd := making.answer.N; fd > 0 {
			wantErr(t, "close", b.Close(fd), nil)
		}
	}
	t.Logf("%d times both succeeded", both)
}

// Who waits is not told what somebody else's try has come to.
func TestWhoWaitsIsNotToldOfTries(t *testing.T) {
	stays := func(t *testing.T, wait *Pending) {
		t.Helper()
		select {
		case <-wait.done:
			t.Fatalf("the wait has ended: %v", wait.Wait(t))
		case <-time.After(time.Second):
		}
	}
	t.Run("flock of what is being removed", func(t *testing.T) {
		dir := t.TempDir()
		m := &mirroredMount{mount(t, "--space", "s:hold=name,mirror="+dir), dir}
		a, b, c := newClient(t), newClient(t), newClient(t)
		wantErr(t, "close", a.Close(a.Open(m.Path("s/x"), takeFlags)), nil)
		wait := b.StartFlock(b.Open(m.Path("s/x"), unix.O_RDWR), unix.LOCK_SH)
		fd := c.Open(m.Path("s/x"), unix.O_RDWR)
		wait.MustBlock(t)
		resume := stopAgent(t, m.Mount, dir)
		wantErr(t, "unlink", a.Unlink(m.Path("s/x")), nil)
		wantErr(t, "the try", c.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.ETIMEDOUT)
		stays(t, wait)
		resume()
		wantErr(t, "the wait", wait.Wait(t), nil)
	})
	t.Run("open of what a stranger has", func(t *testing.T) {
		dir := t.TempDir()
		m := &mirroredMount{mount(t, "--space", "s:hold=open,mirror="+dir), dir}
		a, b, stranger := newClient(t), newClient(t), newClient(t)
		wantErr(t, "close", a.Close(a.Open(m.Path("s/x"), openFlags)), nil)
		file := stranger.Open(m.Behind("x"), unix.O_RDWR)
		wantErr(t, "a stranger's lock", stranger.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)), nil)
		wait := b.StartOpen(m.Path("s/x"), unix.O_RDONLY)
		wait.MustBlock(t)
		resume := stopAgent(t, m.Mount, dir)
		// Not by a Go program, whose runtime interrupts it.
		out, err := command(nil, "python3", "-c", "import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)", m.Path("s/x")).CombinedOutput()
		if err == nil {
			t.Errorf("the try succeeds: %s", out)
		}
		stays(t, wait)
		resume()
		wantErr(t, "close", stranger.Close(file), nil)
		wantErr(t, "the wait", wait.Wait(t), nil)
	})
}

// What hangs where the directory was mirrored once is in nobody's way where it is now.
func TestWhatHangsAtAnotherPlaceIsInNobodysWay(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	m := &mirroredMount{mount(t, "--space", "s:hold=name,mirror="+dir), dir}
	a := newClient(t)
	wantErr(t, "close", a.Close(a.Open(m.Path("s/x"), takeFlags)), nil)
	fd := a.Open(m.Path("s/x"), unix.O_RDWR)
	resume := stopAgent(t, m.Mount, dir)
	wantErr(t, "unlink", a.Unlink(m.Path("s/x")), nil)
	if out, exit := sh(t, m.Mount, `echo `+other+` >s/.lockfs/policy/mirror`); exit != 0 {
		t.Fatal(out)
	}
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
	wantErr(t, "unlock", a.Flock(fd, unix.LOCK_UN), nil)
	wantErr(t, "O_EXCL", openAndClose(a, m.Path("s/x")), nil)
	resume()
	eventually(t, answerLimit, func() bool { _, err := os.Lstat(m.Behind("x")); return os.IsNotExist(err) }, "it is removed where it was")
	if _, err := os.Lstat(filepath.Join(other, "x")); err != nil {
		t.Errorf("what is held now is not outside: %v", err)
	}
}

// Somebody has mounted a filesystem that never answers over a name in the backing
// directory, or in the place of one that is held: nobody waits for it.
func TestSomethingThatHangsIsMountedInTheBackingDirectory(t *testing.T) {
	h := mountHanging(t)
	m := mount(t, "--backing", filepath.Dir(h.Dir))
	a, b := newClient(t), newClient(t)
	h.Hang()
	for _, call := range []*Pending{
		a.start(request{Op: "stat", Path: []byte(m.Path(filepath.Base(h.Dir)))}),
		b.StartOpen(m.Path("other"), takeFlags),
	} {
		select {
		case <-call.done:
		case <-time.After(answerLimit / 2):
			t.Fatal("a call waits for it")
		}
	}
}
