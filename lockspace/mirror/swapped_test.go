package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Whose directory it is puts something of his in the place of what lockfs has just made
// there: nothing is done to that.

const strangerID = 4321

// wantRoot fails the test unless it may give files away.
func wantRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root")
	}
}

// swap puts something of a stranger's at path, in the place of what is there.
func swap(t *testing.T, path, what string) {
	t.Helper()
	if err := os.Rename(path, filepath.Join(t.TempDir(), "moved")); err != nil {
		t.Error(err)
	}
	give := true
	var err error
	switch what {
	case "file":
		err = os.WriteFile(path, []byte("theirs"), 0o604)
	case "directory", "own directory with something in it":
		err = os.Mkdir(path, 0o705)
		if give = what == "directory"; !give {
			err = errors.Join(err, os.Mkdir(path+"/in", 0o700))
		}
	case "own link elsewhere":
		give = false
		err = os.Symlink("elsewhere", path)
	case "link":
		err = os.Symlink("target", path)
	case "nothing":
		return
	}
	if give {
		err = errors.Join(err, os.Lchown(path, strangerID, strangerID))
	}
	if err != nil {
		t.Error(err)
	}
}

// state returns what can be seen of what is at path, and its mark.
func state(t *testing.T, path string) (unix.Stat_t, string) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
	}
	st.Atim = unix.Timespec{}
	buf := make([]byte, maxMark)
	n, _ := unix.Lgetxattr(path, trustedMarks, buf)
	return st, string(buf[:max(n, 0)])
}

func TestMakeWhereSomebodySwaps(t *testing.T) {
	wantRoot(t)
	for _, kind := range []string{"directory", "link"} {
		for _, what := range []string{"file", "directory", "link", "own directory with something in it", "own link elsewhere", "nothing"} {
			t.Run(what+" for a "+kind, func(t *testing.T) {
				all, dir := mounts(t, "one")
				n := newName("x", kindsOfNames[kind])
				path := filepath.Join(dir, n.Temporary)
				var before unix.Stat_t
				all[0].reached = func(step string) {
					if step == stepMade {
						swap(t, path, what)
						if what != "nothing" {
							before, _ = state(t, path)
						}
					}
				}
				_, m, err := all[0].Make(n)
				if !errors.Is(err, unix.ESTALE) || m.ID != (NameID{}) {
					t.Errorf("Make: %+v, %v, want ESTALE", m, err)
				}
				if what == "nothing" {
					wantIn(t, dir)
					return
				}
				if after, mark := state(t, path); after != before || mark != "" {
					t.Errorf("it was %+v, and is %+v, marked %q", before, after, mark)
				}
			})
		}
	}
}

// So are a directory where nothing is renamed without replacing, and one on the way.
func TestDirectoriesWhereSomebodySwaps(t *testing.T) {
	wantRoot(t)
	for what, do := range map[string]func(b *Backing, made *MadeName) error{
		"without NOREPLACE": func(b *Backing, made *MadeName) error {
			at, err := b.spot("x")
			if err != nil {
				return err
			}
			return b.takeDirectory(at, made)
		},
		"on the way": func(b *Backing, _ *MadeName) error {
			o, err := b.Open("x/lock", 0, 0)
			if err == nil {
				unix.Close(o.FD)
			}
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			all, dir := mounts(t, "one")
			_, m, err := all[0].Make(newName("other", unix.S_IFDIR))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "x")
			var before unix.Stat_t
			all[0].reached = func(string) {
				all[0].reached = nil
				swap(t, path, "directory")
				before, _ = state(t, path)
			}
			err = do(all[0], &m)
			after, mark := state(t, path)
			if after.Ino != before.Ino || after.Uid != before.Uid || after.Mode != before.Mode || mark != "" {
				t.Errorf("it was %+v, and is %+v, marked %q (%v)", before, after, mark, err)
			}
			if what == "without NOREPLACE" && err != unix.EEXIST {
				t.Errorf("takeDirectory: %v, want EEXIST", err)
			}
		})
	}
}

// Where all that this process makes is another user's, what is that user's is taken for
// what was made, and elsewhere not.
func TestWhatIsMadeForAnotherUser(t *testing.T) {
	wantRoot(t)
	const nobody = 65534
	for _, maker := range []uint32{0, nobody} {
		all, dir := mounts(t, "one")
		if all[0].maker != 0 {
			t.Errorf("what is made here is %d's", all[0].maker)
		}
		all[0].maker = maker
		n := newName("x", unix.S_IFDIR)
		all[0].reached = func(string) {
			if err := os.Chown(filepath.Join(dir, n.Temporary), nobody, nobody); err != nil {
				t.Error(err)
			}
		}
		if _, _, err := all[0].Make(n); (err == nil) != (maker == nobody) || maker == 0 && !errors.Is(err, unix.ESTALE) {
			t.Errorf("made for %d: %v", maker, err)
		}
	}
}

// A file is not taken for left behind while it is made, and if somebody locks it then it
// is made anew.
func TestFilesAreLockedWhenTheyAreMarked(t *testing.T) {
	all, dir := mounts(t, "one", "two")
	for _, step := range []string{stepMade, stepMarked} {
		looked := false
		all[0].reached = func(at string) {
			if at == step {
				looked = true
				if listed, err := all[1].List("", false); len(listed) > 0 || err != nil {
					t.Errorf("listed are %v, %v", listed, err)
				}
			}
		}
		o, m, err := all[0].Make(newName("x", unix.S_IFREG))
		if err != nil {
			t.Fatal(err)
		}
		if err := all[0].Reveal(m); err != nil || !looked {
			t.Errorf("somebody looked when it was %s: Reveal: %v, %v", step, err, looked)
		}
		if err := all[0].Remove(m); err != nil {
			t.Error(err)
		}
		unix.Close(o.FD)
	}
	n := newName("x", unix.S_IFREG)
	all[0].reached = func(at string) {
		if at != stepMade {
			return
		}
		file, err := os.OpenFile(filepath.Join(dir, n.Temporary), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		lk := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := all[0].Make(n); !errors.Is(err, unix.ESTALE) {
		t.Errorf("Make of what somebody locks: %v, want ESTALE", err)
	}
}
