package mirror

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// What cannot be locked is not granted, whatever the error is.
func TestLockFails(t *testing.T) {
	for _, errno := range []unix.Errno{unix.ENOLCK, unix.EIO, unix.ESTALE, unix.EBADF} {
		w := newWorld(t)
		w.fail(func(cmd int, lk *unix.Flock_t) error {
			if lk.Type != unix.F_UNLCK {
				return errno
			}
			return nil
		})
		w.refuse(whole("a", exclusive), errno)
		if len(w.lost) != 0 {
			t.Errorf("lost: %v", w.lost)
		}
		w.fail(nil)
		w.end(w.take(whole("a", exclusive)))
	}
}

// A part that cannot be locked: what had been locked for it is given back.
func TestLockFailsHalfway(t *testing.T) {
	w := newWorld(t)
	h := w.take(request("a", exclusive, 10, 19))
	w.fail(func(cmd int, lk *unix.Flock_t) error {
		if lk.Start == 20 {
			return unix.ENOLCK
		}
		return nil
	})
	w.refuse(request("a", shared, 0, 30), unix.ENOLCK)
	w.mustSee("a", 5, "free")
	w.mustSee("a", 15, "exclusive")
	w.end(h)
}

// Whether the name still leads to the file cannot be said: nothing is granted. If
// the file does not work any more, what is held of it is lost.
func TestStatFails(t *testing.T) {
	for errno, lost := range map[unix.Errno]bool{unix.EACCES: false, unix.EIO: true, unix.ESTALE: true} {
		w := newWorld(t)
		h := w.take(whole("a", shared))
		w.do(func() {
			w.m.leadsTo = func(path string, i inode, st *unix.Stat_t) (bool, error) {
				return false, wrap("stat", path, errno)
			}
		})
		_, err := w.try(whole("a", shared))
		if !errors.Is(err, errno) && !(lost && err == lockspace.ErrForeign) {
			t.Errorf("%v: %v", errno, err)
		}
		w.do(func() {
			if errors.Is(w.lost[key("a")], errno) != lost {
				t.Errorf("%v: lost: %v", errno, w.lost)
			}
			w.m.leadsTo = w.m.config.Backing.leadsToWith
		})
		w.end(h)
		w.end(w.take(whole("a", exclusive)))
	}
}

// What cannot be unlocked is closed; if it cannot be, because more of it is held,
// it is unlocked as soon as that works.
func TestUnlockFails(t *testing.T) {
	w := newWorld(t)
	all := w.take(whole("a", exclusive))
	unlock := func(cmd int, lk *unix.Flock_t) error {
		if lk.Type == unix.F_UNLCK {
			return unix.ENOLCK
		}
		return nil
	}
	w.fail(unlock)
	w.end(all)
	w.mustSee("a", 0, "free")
	if s := w.stats(); s.Open != 0 {
		t.Errorf("%+v", s)
	}
	w.fail(nil)
	part, rest := w.take(request("a", exclusive, 0, 9)), w.take(request("a", exclusive, 20, 29))
	w.fail(unlock)
	w.end(part)
	w.mustSee("a", 25, "exclusive")
	w.fail(nil)
	w.eventually("it is unlocked", func() bool { return w.seen("a", 5) == "free" })
	w.mustSee("a", 25, "exclusive")
	w.end(rest)
	w.mustSee("a", 25, "free")
}

// Two names that somebody has linked exclude each other, as they do for him.
func TestLinks(t *testing.T) {
	w := newWorld(t)
	a := w.take(whole("a", exclusive))
	if err := os.Link(w.path("a"), w.path("b")); err != nil {
		t.Fatal(err)
	}
	w.refuse(whole("b", shared), lockspace.ErrForeign)
	x := w.wait(whole("b", shared))
	w.end(a)
	if err := w.gets(x, atOnce); err != nil {
		t.Error(err)
	}
	w.do(func() { w.drop(w.holds[key("b")][0]) })
}

// A name in a directory is found and looked at there, also when the directory has
// got another name.
func TestSubdirectory(t *testing.T) {
	dir := "one"
	w := newWorld(t, func(c *Config) {
		c.Path = func(k lockspace.Key) (string, error) { return filepath.Join(dir, k.Name), nil }
	})
	h := w.take(whole("a", exclusive))
	w.mustSee("one/a", 0, "exclusive")
	if err := os.Rename(w.path("one"), w.path("two")); err != nil {
		t.Fatal(err)
	}
	w.do(func() { dir = "two"; w.m.Renamed() })
	s := w.take(whole("a", shared))
	w.mustSee("two/a", 0, "exclusive")
	w.end(h)
	w.end(s)
	if err := os.RemoveAll(w.path("two")); err != nil {
		t.Fatal(err)
	}
	w.end(w.take(whole("a", exclusive)))
	if s := w.stats(); s.Open != 1 || len(w.lost) != 0 {
		t.Errorf("%+v, lost %v", s, w.lost)
	}
}

// A name that is held by being a directory is not opened.
func TestNamesWithoutFiles(t *testing.T) {
	w := newWorld(t)
	r := whole("a", exclusive)
	r.Via, r.ByName = lockspace.ViaMkdir, true
	w.end(w.take(r))
	if names, _ := os.ReadDir(w.dir); len(names) != 0 || w.stats().Open != 0 {
		t.Errorf("made: %v", names)
	}
}

// A foreign file is locked and otherwise left alone.
func TestBodiesAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(w.path("a"), []byte("body"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(w.path("a"))
	if err != nil {
		t.Fatal(err)
	}
	w.end(w.take(whole("a", exclusive)))
	after, err := os.Stat(w.path("a"))
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(w.path("a"))
	if err != nil || string(body) != "body" || before.ModTime() != after.ModTime() || before.Mode() != after.Mode() {
		t.Errorf("%q, %v, %v to %v", body, err, before, after)
	}
}
