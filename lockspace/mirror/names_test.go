package mirror

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Names that are made in a backing directory, seen and removed by several mounts.

// kindsOfNames are what can be made.
var kindsOfNames = map[string]uint32{"file": unix.S_IFREG, "directory": unix.S_IFDIR, "link": unix.S_IFLNK}

// mounts returns the backing directory of several mounts, and its path.
func mounts(t *testing.T, names ...string) ([]*Backing, string) {
	t.Helper()
	dir := t.TempDir()
	var all []*Backing
	for _, name := range names {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		all = append(all, NewBacking(fd).As(name))
	}
	return all, dir
}

func newName(path string, kind uint32) NewName {
	return NewName{
		Path: path, Temporary: Temporary(), Target: "target",
		NameState: NameState{Mode: kind | 0o640, UID: 1234, GID: 5678, Body: []byte("body")},
	}
}

// madeBy makes and reveals something. The file, if it is one, is closed with
// closeFile.
func madeBy(t *testing.T, b *Backing, path string, kind uint32) (m MadeName, closeFile func()) {
	t.Helper()
	o, m, err := b.Make(newName(path, kind))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Reveal(m); err != nil {
		t.Fatal(err)
	}
	closed := false
	closeFile = func() {
		if kind == unix.S_IFREG && !closed {
			closed = true
			unix.Close(o.FD)
		}
	}
	t.Cleanup(closeFile)
	return m, closeFile
}

// wantIn fails the test unless a directory has exactly these names.
func wantIn(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(append([]string{}, want...)) {
		t.Errorf("in the directory there is %q, want %q", got, want)
	}
}

func TestMakeAndRemove(t *testing.T) {
	for what, kind := range kindsOfNames {
		t.Run(what, func(t *testing.T) {
			all, dir := mounts(t, "one", "two")
			b, other := all[0], all[1]
			n := newName("in/x", kind)
			o, m, err := b.Make(n)
			if err != nil {
				t.Fatal(err)
			}
			if kind == unix.S_IFREG {
				defer unix.Close(o.FD)
			}
			wantIn(t, dir+"/in", n.Temporary)
			if is, err := b.IsThere(m); is || err != nil {
				t.Errorf("it is there before it has its name: %v", err)
			}
			for range 2 { // the second time, as a process after this one would
				if err := b.Reveal(m); err != nil {
					t.Fatal(err)
				}
				wantIn(t, dir+"/in", "x")
			}
			var st unix.Stat_t
			if err := unix.Lstat(dir+"/in/x", &st); err != nil || st.Mode&unix.S_IFMT != kind ||
				os.Geteuid() == 0 && (st.Uid != 1234 || st.Gid != 5678) || kind != unix.S_IFLNK && st.Mode&0o777 != 0o640 {
				t.Errorf("it is %+v, %v", st, err)
			}
			if is, err := b.IsThere(m); !is || err != nil {
				t.Errorf("it is not there: %v", err)
			}
			if o, err := b.Look("in/x", m); o != nil || err != nil {
				t.Errorf("who has made it sees another's: %+v, %v", o, err)
			}
			seen, err := other.Look("in/x", MadeName{})
			if err != nil || seen == nil || seen.Mode&unix.S_IFMT != kind {
				t.Fatalf("another sees %+v, %v", seen, err)
			}
			switch {
			case kind == unix.S_IFLNK && seen.Target != "target":
				t.Errorf("another sees a link to %q", seen.Target)
			case kind == unix.S_IFREG && string(seen.Body) != "body":
				t.Errorf("another reads %q", seen.Body)
			}
			for range 2 {
				if err := b.Remove(m); err != nil {
					t.Fatal(err)
				}
				wantIn(t, dir+"/in")
			}
			if err := b.Reveal(m); !errors.Is(err, unix.ESTALE) {
				t.Errorf("Reveal of what is gone: %v", err)
			}
		})
	}
}

// What others have made is not replaced, nor removed, nor written to.
func TestNamesOfOthersStay(t *testing.T) {
	for _, foreign := range []string{"file", "symlink", "directory", "fifo"} {
		for what, kind := range kindsOfNames {
			t.Run(what+" where there is a "+foreign, func(t *testing.T) {
				all, dir := mounts(t, "one")
				b := all[0]
				o, m, err := b.Make(newName("x", kind))
				if err != nil {
					t.Fatal(err)
				}
				if kind == unix.S_IFREG {
					defer unix.Close(o.FD)
				}
				plant(t, foreign, filepath.Join(dir, "x"))
				var before, after unix.Stat_t
				if err := unix.Lstat(dir+"/x", &before); err != nil {
					t.Fatal(err)
				}
				if err := b.Reveal(m); !errors.Is(err, unix.EEXIST) {
					t.Errorf("Reveal: %v, want EEXIST", err)
				}
				if err := b.Write(m, NameState{Mode: kind | 0o777, Body: []byte("other")}); !errors.Is(err, unix.ESTALE) {
					t.Errorf("Write: %v, want ESTALE", err)
				}
				if _, err := b.OpenMade(m); err == nil {
					t.Error("OpenMade opens it")
				}
				if _, err := b.OpenLock("x", MadeName{}, 0, 0); err != lockspace.ErrForeign {
					t.Errorf("OpenLock: %v", err)
				}
				if seen, err := b.Look("x", m); err != nil || seen == nil {
					t.Errorf("Look: %+v, %v", seen, err)
				}
				if err := b.Remove(m); err != nil {
					t.Errorf("Remove: %v", err)
				}
				wantIn(t, dir, "x")
				err = unix.Lstat(dir+"/x", &after)
				if before.Atim = after.Atim; err != nil || before != after { // it may have been read
					t.Errorf("it was %+v and is %+v, %v", before, after, err)
				}
			})
		}
	}
}

// What was left behind gives way: what the same mount has made and does not know, and
// what nobody has locked; not what another mount holds, or keeps.
func TestLeftovers(t *testing.T) {
	for what, kind := range kindsOfNames {
		for _, c := range []struct {
			when string
			by   int
			use  Use
			held bool
			want map[uint32]bool // gives way
		}{
			{"of this mount, held", 0, ToHold, true, map[uint32]bool{unix.S_IFDIR: true, unix.S_IFLNK: true}},
			{"of this mount", 0, ToHold, false, map[uint32]bool{unix.S_IFREG: true, unix.S_IFDIR: true, unix.S_IFLNK: true}},
			{"of this mount, kept", 0, ToKeep, false, map[uint32]bool{unix.S_IFREG: true, unix.S_IFDIR: true, unix.S_IFLNK: true}},
			{"of another, held", 1, ToHold, true, nil},
			{"of another", 1, ToHold, false, map[uint32]bool{unix.S_IFREG: true}},
			{"of another, kept", 1, ToKeep, false, nil},
			{"to be locked, and locked", 1, ToLock, true, nil},
			{"to be locked", 1, ToLock, false, map[uint32]bool{unix.S_IFREG: true}},
			{"to be locked, of this mount", 0, ToLock, false, map[uint32]bool{unix.S_IFREG: true, unix.S_IFDIR: true}},
		} {
			t.Run(what+" "+c.when, func(t *testing.T) {
				all, dir := mounts(t, "one", "two")
				old, closeFile := madeBy(t, all[c.by], "x", kind)
				if err := all[c.by].Mark(old, c.use); err != nil {
					t.Fatal(err)
				}
				if !c.held {
					closeFile()
				}
				for _, b := range all { // they are others' from now on
					b.known.Clear()
				}
				o, m, err := all[0].Make(newName("x", unix.S_IFLNK))
				if err != nil || o.FD != -1 {
					t.Fatalf("Make: %+v, %v", o, err)
				}
				seen, err := all[0].Look("x", m)
				if gives := seen == nil; c.use != ToLock && gives != c.want[kind] && !(c.held && c.by == 0) || err != nil {
					t.Errorf("Look: %+v, %v", seen, err)
				}
				err = all[0].Reveal(m)
				if c.want[kind] && err != nil || !c.want[kind] && !errors.Is(err, unix.EEXIST) {
					t.Errorf("Reveal: %v, want that it gives way: %v", err, c.want[kind])
				}
				if err := all[0].Remove(m); err != nil {
					t.Error(err)
				}
				if c.want[kind] {
					wantIn(t, dir)
				} else {
					wantIn(t, dir, "x")
				}
			})
		}
	}
}

// A directory is removed with what is in it to be locked, if nobody has; with nothing
// else, and then nothing of that goes.
func TestDirectoriesWithFiles(t *testing.T) {
	all, dir := mounts(t, "one")
	b := all[0]
	m, _ := madeBy(t, b, "d", unix.S_IFDIR)
	o, err := b.Open("d/in/lock", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(o.FD)
	lk := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(uintptr(o.FD), unix.F_OFD_SETLK, &lk); err != nil {
		t.Fatal(err)
	}
	refused := func(why string) {
		t.Helper()
		if err := b.Vacant(m); !errors.Is(err, unix.ENOTEMPTY) {
			t.Errorf("%s: Vacant: %v", why, err)
		}
		if err := b.Remove(m); !errors.Is(err, unix.ENOTEMPTY) {
			t.Errorf("%s: Remove: %v", why, err)
		}
		if _, err := os.Stat(dir + "/d/in/lock"); err != nil {
			t.Errorf("%s: %v", why, err)
		}
	}
	refused("locked")
	lk.Type = unix.F_UNLCK
	if err := unix.FcntlFlock(uintptr(o.FD), unix.F_OFD_SETLK, &lk); err != nil {
		t.Fatal(err)
	}
	plant(t, "file", dir+"/d/in/stranger")
	refused("a stranger's file")
	if err := os.Remove(dir + "/d/in/stranger"); err != nil {
		t.Fatal(err)
	}
	if err := b.Vacant(m); err != nil {
		t.Error(err)
	}
	if err := b.Remove(m); err != nil {
		t.Error(err)
	}
	wantIn(t, dir)
}

// A filesystem that is mounted anew may have another number. What is marked is known all
// the same.
func TestNamesOnAFilesystemMountedAnew(t *testing.T) {
	all, _ := mounts(t, "a", "b")
	for kind, mode := range kindsOfNames {
		m, _ := madeBy(t, all[0], kind, mode)
		m.ID.Dev++
		other := m
		other.ID.Ino++
		unmarked := m
		unmarked.Marked = false
		for what, c := range map[string]struct {
			b    *Backing
			m    MadeName
			want bool
		}{
			"mounted anew": {all[0], m, m.Marked}, "another one": {all[0], other, false},
			"not marked": {all[0], unmarked, false}, "another mount's": {all[1], m, false},
		} {
			if is, err := c.b.IsThere(c.m); is != c.want || err != nil {
				t.Errorf("%s, %s: there %v, %v, want %v", kind, what, is, err, c.want)
			}
		}
		if !m.Marked {
			t.Errorf("a %s is not marked here: this test needs a filesystem with extended attributes", kind)
		}
	}
}

// What has a temporary name and is nobody's goes when somebody looks.
func TestListRemovesTemporaries(t *testing.T) {
	for kind, mode := range kindsOfNames {
		t.Run(kind, func(t *testing.T) {
			all, dir := mounts(t, "a", "a", "b")
			n := newName("name", mode)
			o, _, err := all[0].Make(n)
			if err != nil {
				t.Fatal(err)
			}
			look := func(b *Backing, want ...string) {
				t.Helper()
				if listed, err := b.List("", false); len(listed) > 0 || err != nil {
					t.Errorf("%v, %v are listed", listed, err)
				}
				wantIn(t, dir, want...)
			}
			look(all[0], n.Temporary) // who makes it knows of it
			if mode == unix.S_IFREG {
				look(all[1], n.Temporary) // it is locked
				unix.Close(o.FD)
			} else {
				look(all[2], n.Temporary) // another mount's
			}
			look(all[1])
		})
	}
}

// List tells what others hold, and not what is there to be locked, or temporary.
func TestListNames(t *testing.T) {
	all, dir := mounts(t, "one", "two")
	madeBy(t, all[0], "own", unix.S_IFLNK)
	madeBy(t, all[1], "theirs", unix.S_IFREG)
	madeBy(t, all[1], "theirs.d", unix.S_IFDIR)
	if _, _, err := all[1].Make(newName("making", unix.S_IFLNK)); err != nil {
		t.Fatal(err)
	}
	o, err := all[1].Open("lock", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(o.FD)
	plant(t, "fifo", dir+"/fifo")
	got, err := all[0].List("", false)
	want := []Listed{{"fifo", unix.S_IFIFO}, {"theirs", unix.S_IFREG}, {"theirs.d", unix.S_IFDIR}}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("listed are %v, %v, want %v", got, err, want)
	}
	if got, err := all[0].List("missing", false); len(got) != 0 || err != nil {
		t.Errorf("listed are %v, %v", got, err)
	}
}

// A file never has less in it than what it had and what it gets.
func TestWritesAreWhole(t *testing.T) {
	all, dir := mounts(t, "one")
	m, _ := madeBy(t, all[0], "x", unix.S_IFREG)
	long, short := strings.Repeat("long ", 800), "short"
	var stop atomic.Bool
	var reader sync.WaitGroup
	reader.Go(func() {
		for !stop.Load() {
			b, err := os.ReadFile(dir + "/x")
			if err != nil || len(b) < len("body") {
				t.Errorf("a reader gets %q, %v", b, err)
				return
			}
		}
	})
	end := time.Now().Add(100 * time.Millisecond)
	for time.Now().Before(end) {
		for _, body := range []string{long, short} {
			if err := all[0].Write(m, NameState{Mode: 0o600, Body: []byte(body)}); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(dir + "/x"); err != nil || string(b) != body {
				t.Fatalf("it has %q, %v", b, err)
			}
		}
	}
	stop.Store(true)
	reader.Wait()
}

// Mounts, and strangers, who make and remove one name as fast as they can are never
// inside together, and nothing of anybody's is lost.
func TestNamesRace(t *testing.T) {
	names := []string{"one", "two", "three"}
	all, dir := mounts(t, names...)
	var inside atomic.Int32
	var entries [4]int
	end := time.Now().Add(500 * time.Millisecond)
	var wait sync.WaitGroup
	visit := func(who int) {
		if n := inside.Add(1); n != 1 {
			t.Errorf("%d are inside", n)
		}
		entries[who]++
		inside.Add(-1)
	}
	for who, b := range all {
		wait.Go(func() {
			for i := 0; time.Now().Before(end) && !t.Failed(); i++ {
				kind := []uint32{unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK}[i%3]
				o, m, err := b.Make(newName("x", kind))
				if err != nil {
					t.Error(err)
					return
				}
				switch err := b.Reveal(m); {
				case err == nil:
					visit(who)
				case !errors.Is(err, unix.EEXIST):
					t.Error(err)
				}
				if err := b.Remove(m); err != nil {
					t.Error(err)
				}
				if kind == unix.S_IFREG {
					unix.Close(o.FD)
				}
			}
		})
	}
	wait.Go(func() {
		for i := 0; time.Now().Before(end) && !t.Failed(); i++ {
			var err error
			if i%2 == 0 {
				err = os.Symlink("stranger", dir+"/x")
			} else {
				err = os.Mkdir(dir+"/x", 0o700)
			}
			if err != nil {
				continue
			}
			visit(3)
			if err := os.Remove(dir + "/x"); err != nil {
				t.Errorf("the stranger's name: %v", err)
			}
		}
	})
	wait.Wait()
	wantIn(t, dir)
	if entries[0] == 0 || entries[1] == 0 || entries[2] == 0 || entries[3] == 0 {
		t.Errorf("they were inside %v times", entries)
	}
}

// Where nothing is renamed without replacing, a directory is had by mkdir, also by who goes
// on where a process has died; and nobody's is replaced.
func TestDirectoriesWithoutNoReplace(t *testing.T) {
	all, dir := mounts(t, "a", "b")
	a, b := all[0], all[1]
	made := func(by *Backing) (spot, MadeName) {
		t.Helper()
		_, m, err := by.Make(newName("x", unix.S_IFDIR))
		if err != nil {
			t.Fatal(err)
		}
		at, err := by.spot("x")
		if err != nil {
			t.Fatal(err)
		}
		return at, m
	}
	at, m := made(a)
	if err := a.takeDirectory(at, &m); err != nil {
		t.Fatal(err)
	}
	if is, err := a.IsThere(m); !is || err != nil {
		t.Errorf("it is there: %v, %v", is, err)
	}
	other, theirs := made(b)
	if err := b.takeDirectory(other, &theirs); err != unix.EEXIST {
		t.Errorf("another's: %v", err)
	}
	if err := errors.Join(b.Remove(theirs), a.Remove(m)); err != nil {
		t.Fatal(err)
	}
	// A death between mkdir and rename, whatever becomes of the name then.
	for _, goesOn := range []bool{true, false} {
		at, m = made(a)
		path := filepath.Join(dir, "x")
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		a.setMark(fd, mark{ToHold, "a", m.Temporary})
		unix.Close(fd)
		other, theirs = made(b)
		if err := b.takeDirectory(other, &theirs); err != unix.EEXIST {
			t.Errorf("another's: %v", err)
		}
		if goesOn {
			if err := a.takeDirectory(at, &m); err != nil {
				t.Errorf("it does not go on: %v", err)
			}
		}
		if err := errors.Join(b.Remove(theirs), a.Remove(m)); err != nil {
			t.Error(err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
			t.Errorf("%v is left, %v", entries, err)
		}
	}
}
