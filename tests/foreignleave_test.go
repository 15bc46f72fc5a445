package tests

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// foreignMounts mount a directory by the worker and by an agent.
var foreignMounts = map[string]func(testing.TB) *mirroredMount{
	"by the worker": func(t testing.TB) *mirroredMount { return mountBacked(t) },
	"by an agent":   func(t testing.TB) *mirroredMount { return mountByAgent(t) },
}

// directoriesIn returns how many directories the mount knows of in its root.
func directoriesIn(t testing.TB, m *mirroredMount) int {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(m.Dir, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Nlink) - 2
}

// dropCaches has the kernel forget names.
func dropCaches(t testing.TB) {
	t.Helper()
	if out, err := command(nil, "sh", "-c", "echo 2 >/proc/sys/vm/drop_caches").CombinedOutput(); err != nil {
		t.Fatalf("dropping the kernel's caches: %v: %s", err, out)
	}
}

// A directory that somebody outside has made is not kept for having been looked up: not
// when the kernel has forgotten it, but for what has been set on it, and what is in it; and
// it is found again.
func TestForeignDirectoriesAreForgotten(t *testing.T) {
	for how, mounted := range foreignMounts {
		t.Run(how, func(t *testing.T) {
			m := mounted(t)
			a := newClient(t)
			const all = 20
			for i := range all {
				name := fmt.Sprint("d", i)
				wantErr(t, "the stranger's mkdir", os.Mkdir(m.Behind(name), 0o755), nil)
				at, err := a.Stat(m.Path(name))
				if err != nil || at.Mode != unix.S_IFDIR|0o755 {
					t.Fatalf("%s is %v, %v", name, at, err)
				}
			}
			sets := `echo 1h >d0/.lockfs/policy/lease; echo 5 >d1/.lockfs/policy/ids`
			if out, exit := sh(t, m.Mount, sets); exit != 0 {
				t.Fatal(out)
			}
			fd := a.Open(m.Path("d2/x"), takeFlags)
			if n := directoriesIn(t, m); n != all {
				t.Fatalf("%d directories are known, want %d", n, all)
			}
			eventually(t, answerLimit, func() bool { dropCaches(t); return directoriesIn(t, m) == 3 }, "the others are forgotten")
			killWorker(t, m.Mount)
			if out, exit := sh(t, m.Mount, `cat d0/.lockfs/policy/lease d1/.lockfs/policy/ids`); exit != 0 || out != "1h\n5\n" {
				t.Errorf("the policies are %q", out)
			}
			_, err := a.TryOpen(m.Path("d2/x"), takeFlags)
			wantErr(t, "O_EXCL of what is held", err, unix.EEXIST)
			wantErr(t, "close", a.Close(fd), nil)
			wantErr(t, "unlink", ignoring(a.Unlink(m.Path("d2/x")), unix.ENOENT), nil)
			for i := range all {
				name := fmt.Sprint("d", i)
				wantErr(t, "mkdir of a stranger's", a.Name("mkdir", 0o755, m.Path(name)), unix.EEXIST)
				fd := a.Open(m.Path(name+"/y"), takeFlags)
				wantErr(t, "close", a.Close(fd), nil)
				wantErr(t, "unlink", ignoring(a.Unlink(m.Path(name+"/y")), unix.ENOENT), nil)
			}
			// What is gone is not made again for a lock in it.
			for i := range all {
				wantErr(t, "remove", os.RemoveAll(m.Behind(fmt.Sprint("d", i))), nil)
				_, err := a.TryOpen(m.Path(fmt.Sprint("d", i, "/z")), takeFlags)
				wantErr(t, "O_EXCL in what is gone", err, unix.ENOENT)
			}
			wantBehind(t, m)
		})
	}
}

// ignoring is err, unless it is one that does not matter.
func ignoring(err, other error) error {
	if err == other {
		return nil
	}
	return err
}

// What is gone outside is forgotten when its parent is listed, though the kernel keeps it.
func TestForeignDirectoriesThatAreGoneAreNotKept(t *testing.T) {
	for how, mounted := range foreignMounts {
		t.Run(how, func(t *testing.T) {
			m := mounted(t)
			a := newClient(t)
			for i := range 50 {
				name := fmt.Sprint("d", i)
				wantErr(t, "the stranger's mkdir", os.Mkdir(m.Behind(name), 0o755), nil)
				_, err := a.Stat(m.Path(name))
				wantErr(t, "stat", err, nil)
				if i > 0 {
					wantErr(t, "the stranger's rmdir", os.Remove(m.Behind(name)), nil)
				}
			}
			wantListed(t, a, m.Mount, "d0")
			if n := directoriesIn(t, m); n != 1 {
				t.Errorf("%d directories are known, want the one that is there", n)
			}
			at, err := a.Stat(m.Path("d0"))
			if err != nil || at.Mode != unix.S_IFDIR|0o755 {
				t.Errorf("it is %v, %v", at, err)
			}
		})
	}
}
