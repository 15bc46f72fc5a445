package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.6: "Holds by name: the existence of the name too, made by the same exclusive call
// (file, directory or symlink), with the body written through; names that already
// exist in the backing directory of a hold=name lockspace are held, by a foreigner."

// wantBehind fails the test unless there is exactly this in the backing directory.
func wantBehind(t testing.TB, m *mirroredMount, names ...string) {
	t.Helper()
	var got []string
	same := func() bool {
		entries, err := os.ReadDir(m.backing)
		if err != nil {
			t.Fatal(err)
		}
		got = got[:0]
		for _, e := range entries {
			got = append(got, e.Name())
		}
		return slices.Equal(got, names)
	}
	settles(t, same)
	if !same() {
		t.Errorf("in the backing directory there is %q, want %q", got, names)
	}
}

// wantText fails the test unless a file in the backing directory has a text.
func wantText(t testing.TB, m *mirroredMount, name, text string) {
	t.Helper()
	var b []byte
	var err error
	same := func() bool {
		b, err = os.ReadFile(m.Behind(name))
		return err == nil && string(b) == text
	}
	settles(t, same)
	if !same() {
		t.Errorf("outside there is %.50q, %v, want %.50q", b, err, text)
	}
}

// Whatever makes a name makes it outside, and it is gone when it is given back.
func TestNamesAreOutside(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName)
	for _, way := range namers {
		t.Run(way.via, func(t *testing.T) {
			if out, exit := sh(t, m.Mount, way.script); exit != 0 {
				t.Fatalf("exit %d: %s", exit, out)
			}
			wantBehind(t, m, "lock")
			on, err := os.Lstat(m.Path("lock"))
			if err != nil {
				t.Fatal(err)
			}
			out, err := os.Lstat(m.Behind("lock"))
			if err != nil {
				t.Fatal(err)
			}
			if on.Mode() != out.Mode() {
				t.Errorf("outside it is %v, on the mount %v", out.Mode(), on.Mode())
			}
			if a, b := on.Sys().(*syscall.Stat_t), out.Sys().(*syscall.Stat_t); a.Uid != b.Uid || a.Gid != b.Gid {
				t.Errorf("outside it is %d:%d's, on the mount %d:%d's", b.Uid, b.Gid, a.Uid, a.Gid)
			}
			if way.via == "symlink" {
				if text, err := os.Readlink(m.Behind("lock")); err != nil || text != "somebody" {
					t.Errorf("outside it is a link to %q, %v", text, err)
				}
			}
			for _, other := range namers { // strangers, in the backing directory
				if _, err := command(nil, "sh", "-c", "cd "+m.backing+"; exec 2>/dev/null; "+other.script).CombinedOutput(); err == nil {
					t.Errorf("a stranger got in by %s", other.via)
				}
			}
			killWorker(t, m.Mount)
			wantBehind(t, m, "lock")
			if out, exit := sh(t, m.Mount, `rm -f lock 2>/dev/null || rmdir lock`); exit != 0 {
				t.Fatalf("exit %d: %s", exit, out)
			}
			wantBehind(t, m)
		})
	}
	wantNothingHeld(t, m.Mount)
}

// What the holder writes is outside before the write is answered, whole.
func TestBodiesAreWrittenThrough(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName)
	a := newClient(t)
	fd := a.Open(m.Path("x"), takeFlags)
	want := func(text string) {
		t.Helper()
		wantText(t, m, "x", text)
	}
	want("")
	wantErr(t, "write", a.Write(fd, "1234567\n"), nil)
	want("1234567\n")
	wantErr(t, "write", a.Write(fd, "more\n"), nil)
	want("1234567\nmore\n")
	wantErr(t, "truncate", a.Ftruncate(fd, 3), nil)
	want("123")
	killWorker(t, m.Mount)
	wantErr(t, "truncate", a.Ftruncate(fd, 0), nil)
	want("")
	wantErr(t, "truncate", a.Truncate(m.Path("x"), 4096), nil)
	want(strings.Repeat("\x00", 4096))
	wantErr(t, "chmod", a.Chmod(m.Path("x"), 0o640), nil)
	wantErr(t, "utimes", a.Name("utimes", 1_000_000, m.Path("x")), nil)
	var st os.FileInfo
	var err error
	settles(t, func() bool {
		st, err = os.Stat(m.Behind("x"))
		return err == nil && st.ModTime().Equal(time.Unix(1_000_000, 0))
	})
	st, err = os.Stat(m.Behind("x"))
	if err != nil || st.Mode() != 0o640 || !st.ModTime().Equal(time.Unix(1_000_000, 0)) {
		t.Errorf("outside: %v %v, %v", st.Mode(), st.ModTime(), err)
	}
	wantErr(t, "another name", a.Name("link", 0, m.Path("x"), m.Path("y")), nil)
	wantErr(t, "truncate", a.Truncate(m.Path("y"), 2), nil)
	want("\x00\x00")
	wantText(t, m, "y", "\x00\x00")
	wantErr(t, "unlink", a.Unlink(m.Path("x")), nil)
	wantBehind(t, m, "y")
	wantErr(t, "unlink", a.Unlink(m.Path("y")), nil)
	wantBehind(t, m)
}

// foreignNames make a name outside; each says what type it is.
var foreignNames = []struct {
	name string
	mode os.FileMode
	make func(path string) error
}{
	{"LCK..ttyS0", 0, func(path string) error { return os.WriteFile(path, fmt.Appendf(nil, "%10d\n", os.Getpid()), 0o644) }},
	{"empty.lock", 0, func(path string) error { return os.WriteFile(path, nil, 0o644) }},
	{"held.d", os.ModeDir, func(path string) error { return os.Mkdir(path, 0o755) }},
	{"link", os.ModeSymlink, func(path string) error { return os.Symlink("alice@host.123:456", path) }},
	{"fifo", 0, func(path string) error { return syscall.Mkfifo(path, 0o666) }},
}

// Names that are there outside are held, by whatever idiom somebody asks for them,
// and free when they are gone.
func TestForeignNamesAreHeld(t *testing.T) {
	m := newMount(t)
	m.Dir = filepath.Join(m.parent, "m")
	if err := os.Mkdir(m.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, outside := m.Dir, func(name string) string { return workersFile(m, name) }
	if strings.HasPrefix(t.Name(), throughAgent+"/") { // for which the mount covers nothing
		dir = t.TempDir()
		outside = func(name string) string { return filepath.Join(dir, name) }
	}
	for _, x := range foreignNames {
		if err := x.make(filepath.Join(dir, x.name)); err != nil {
			t.Fatal(err)
		}
	}
	m.start(slices.Concat([]string{m.program}, mirroredIn(t, dir), []string{"--policy", holdByName, "--log-level", "debug", "--state-dir", "none", m.Dir}))
	t.Cleanup(m.Stop)
	m.awaitReady()
	m.watch = watchMount(m)
	a := newClient(t)
	entries, err := os.ReadDir(m.Dir)
	if err != nil || len(entries) != len(foreignNames) {
		t.Errorf("listed are %v, %v", entries, err)
	}
	for _, x := range foreignNames {
		t.Run(x.name, func(t *testing.T) {
			path, behind := m.Path(x.name), outside(x.name)
			for _, e := range entries {
				if e.Name() == x.name && e.Type() != x.mode {
					t.Errorf("it is listed as %v", e.Type())
				}
			}
			st, err := os.Lstat(path)
			if err != nil || st.Mode().Type() != x.mode {
				t.Fatalf("stat says %v, %v", st, err)
			}
			_, err = a.TryOpen(path, takeFlags)
			wantErr(t, "O_EXCL", err, unix.EEXIST)
			wantErr(t, "mkdir", a.Name("mkdir", 0o777, path), unix.EEXIST)
			wantErr(t, "symlink", a.Name("symlink", 0, "text", path), unix.EEXIST)
			own := m.Path("own")
			wantErr(t, "close", a.Close(a.Open(own, takeFlags)), nil)
			wantErr(t, "link", a.Name("link", 0, own, path), unix.EEXIST)
			wantErr(t, "rename that replaces nothing", a.Name("rename", unix.RENAME_NOREPLACE, own, path), unix.EEXIST)
			if x.mode == 0 { // else the kernel has another errno
				wantErr(t, "rename", a.Name("rename", 0, own, path), unix.EBUSY)
				wantErr(t, "rename away", a.Name("rename", 0, path, m.Path("elsewhere")), unix.EBUSY)
				wantErr(t, "unlink", a.Unlink(path), unix.EBUSY)
			}
			if x.mode == os.ModeDir {
				wantErr(t, "rmdir", a.Name("rmdir", 0, path), unix.EBUSY)
				if in, err := os.ReadDir(path); err != nil || len(in) != 0 {
					t.Errorf("in it there is %v, %v", in, err)
				}
				wantErr(t, "chmod", unix.Chmod(path, 0o777), unix.EBUSY)
				inner := path + "/x"
				wantErr(t, "close of a name in it", a.Close(a.Open(inner, takeFlags)), nil)
				if _, err := os.Stat(behind + "/x"); err != nil {
					t.Error("a name in it is not outside:", err)
				}
				wantErr(t, "unlink of it", a.Unlink(inner), nil)
			}
			if x.mode == os.ModeSymlink {
				wantErr(t, "unlink", a.Unlink(path), unix.EBUSY)
				if text, err := a.Readlink(path); err != nil || text != "alice@host.123:456" {
					t.Errorf("it is a link to %q, %v", text, err)
				}
			}
			wantErr(t, "unlink", a.Unlink(own), nil)
			via := map[os.FileMode]string{os.ModeDir: "mkdir", os.ModeSymlink: "symlink", 0: "excl"}[x.mode]
			holder, err := os.ReadFile(m.Path(".lockfs/lock/" + x.name + "/holder"))
			if err != nil || !strings.Contains(string(holder), "\nmode=exclusive\nvia="+via+"\n") {
				t.Errorf("holder: %q, %v", holder, err)
			}
			var waits *Pending
			if x.mode == 0 && x.name != "fifo" {
				fd := a.Open(path, unix.O_RDWR)
				wantErr(t, "flock", a.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
				wantErr(t, "fcntl", a.Fcntl(fd, unix.F_SETLK, wr(3, 4)), unix.EAGAIN)
				if got := a.GetLk(fd, rd(3, 4)); got.Type != unix.F_WRLCK || got.Start != 0 || got.Len != 0 {
					t.Errorf("F_GETLK tells of %+v", got)
				}
				wantErr(t, "write", a.Write(fd, "x"), unix.EBUSY)
				wantErr(t, "truncate", a.Ftruncate(fd, 0), nil)
				text, err := a.ReadAll(path)
				want, _ := os.ReadFile(behind)
				if err != nil || text != string(want) {
					t.Errorf("it reads %q, %v, want %q", text, err, want)
				}
				if x.name == "LCK..ttyS0" && !strings.HasPrefix(string(holder), fmt.Sprintf("pid=%d\n", os.Getpid())) {
					t.Errorf("holder: %q", holder)
				}
				waits = a.StartFlock(fd, unix.LOCK_EX)
				waits.MustBlock(t)
			}
			if _, err := os.Lstat(behind); err != nil {
				t.Fatalf("it is gone: %v", err)
			}
			if err := os.Remove(behind); err != nil {
				t.Fatal(err)
			}
			if waits != nil {
				wantErr(t, "flock of who has waited", waits.Wait(t), nil)
				return
			}
			wantErr(t, "O_EXCL when it is gone", a.Close(a.Open(path, takeFlags)), nil)
			wantErr(t, "unlink", a.Unlink(path), nil)
		})
	}
}

// What is locked, and not held by its name, is locked outside too, on a file that holds
// nothing by being there: it is another daemon's to lock, and gives way to who makes
// the name.
func TestOrdinaryFilesAreLockedOutside(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName)
	other := mount(t, append(mirroredIn(t, m.backing), "--policy", holdByName)...)
	a, b, stranger := newClient(t), newClient(t), newClient(t)
	fd, there := a.Open(m.Path("x"), openFlags), b.Open(other.Path("x"), openFlags)
	wantErr(t, "write", a.Write(fd, "text"), nil)
	wantBehind(t, m)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
	wantBehind(t, m, "x")
	file := stranger.Open(m.Behind("x"), unix.O_RDWR)
	wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_SETLK, rd(0, 1)), unix.EAGAIN)
	wantErr(t, "flock on the other mount", b.Flock(there, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	waits := b.StartFlock(there, unix.LOCK_EX)
	waits.MustBlock(t)
	killWorker(t, m.Mount)
	waits.MustBlock(t)
	wantErr(t, "symlink on the other mount", b.Name("symlink", 0, "text", other.Path("x")), unix.EEXIST)
	wantErr(t, "unlock", a.Flock(fd, unix.LOCK_UN), nil)
	wantErr(t, "flock of who has waited", waits.Wait(t), nil)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	wantErr(t, "unlink", a.Unlink(m.Path("x")), nil)
	wantErr(t, "symlink, while the other has it locked", a.Name("symlink", 0, "text", m.Path("x")), unix.EEXIST)
	wantErr(t, "unlock", b.Flock(there, unix.LOCK_UN), nil)
	err := a.Name("symlink", 0, "text", m.Path("x"))
	settles(t, func() bool {
		if err != nil {
			err = a.Name("symlink", 0, "text", m.Path("x"))
		}
		return err == nil
	})
	wantErr(t, "symlink", err, nil)
	wantErr(t, "flock of an ordinary file that another holds outside", b.Flock(there, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	wantErr(t, "unlink", a.Unlink(m.Path("x")), nil)
	settles(t, func() bool { return b.Flock(there, unix.LOCK_SH|unix.LOCK_NB) == nil })
	wantErr(t, "flock", b.Flock(there, unix.LOCK_SH|unix.LOCK_NB), nil)
}
