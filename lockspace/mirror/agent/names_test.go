package agent

import (
	"errors"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

func newName(path string, kind uint32) mirror.NewName {
	return mirror.NewName{
		Path: path, Temporary: mirror.Temporary(), Target: "target",
		NameState: mirror.NameState{Mode: kind | 0o644, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Body: []byte("body")},
	}
}

// made makes a name by the agent.
func (w *worker) made(path string, kind uint32) mirror.MadeName {
	w.t.Helper()
	names := w.client.Names(10 * time.Second)
	_, m, err := names.Make(newName(path, kind))
	want(w.t, "make "+path, err, nil)
	want(w.t, "reveal "+path, names.Reveal(m), nil)
	return m
}

func (k *keeper) entries() int {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		k.t.Fatal(err)
	}
	return len(entries)
}

// What is made is there, and a file is locked from then on until it is removed, whatever
// workers and agents die.
func TestMadeNames(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	dir, link := w.made("dir", unix.S_IFDIR), w.made("link", unix.S_IFLNK)
	file := w.made("file", unix.S_IFREG)
	s := k.stranger("file")
	locked := func(when string) {
		t.Helper()
		if s.sees(0) != unix.F_WRLCK {
			t.Errorf("the file is not locked %s", when)
		}
	}
	locked("when it is made")
	w.openings["file"] = mirror.Opening{Way: mirror.OpenMade, Known: file}
	r := w.request("file", 1, exclusive, whole)
	want(t, "the lock", w.try(r, 10*time.Second), nil)
	locked("when it is held")
	for i, next := range []func(){w.replace, func() { k.signal(syscall.SIGKILL) }, w.replace} {
		next()
		if i != 1 { // of what a worker knows, the fixture keeps nothing
			for _, m := range []mirror.MadeName{dir, link, file} {
				w.client.Names(0).Know(m)
			}
		}
		eventually(t, "the file is locked", func() bool { return s.sees(0) == unix.F_WRLCK })
		names := w.client.Names(10 * time.Second)
		for _, m := range []mirror.MadeName{dir, link, file} {
			if is, err := names.IsThere(m); !is || err != nil {
				t.Errorf("%s is there: %v, %v", m.Path, is, err)
			}
			if o, err := names.Look(m.Path, m); o != nil || err != nil {
				t.Errorf("somebody has %s: %v, %v", m.Path, o, err)
			}
		}
		want(t, "another", names.Reveal(func() mirror.MadeName { _, m, _ := names.Make(newName("dir", unix.S_IFREG)); return m }()), unix.EEXIST)
	}
	// It is locked until it is removed, and not longer.
	done := make(chan error, 1)
	w.do(func() {
		w.table.Unlock(r.Key, r.Party, r.Via, whole)
		w.client.RemoveLater(r.Key, file, true, func(err error) { done <- err })
	})
	want(t, "the removal", <-done, nil)
	if _, err := os.Lstat(k.path("file")); !os.IsNotExist(err) {
		t.Errorf("the file: %v", err)
	}
	eventually(t, "it is not locked", func() bool { return s.sees(0) == unix.F_UNLCK })
	names := w.client.Names(10 * time.Second)
	want(t, "remove", names.Remove(dir), nil)
	want(t, "remove", names.Remove(link), nil)
	w.forgets(t)
}

// What was asked for in vain is done, some time, and undone, in that order, by whichever
// agent; and what is in a directory goes before it.
func TestNamesInOrder(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	want(t, "ready", w.client.Ready(10*time.Second), nil)
	for range 3 {
		dir := w.made("dir", unix.S_IFDIR)
		in := w.made("dir/in", unix.S_IFREG)
		k.signal(syscall.SIGSTOP)
		x := newName("x", unix.S_IFREG)
		_, m, err := w.client.Names(50 * time.Millisecond).Make(x)
		want(t, "make", err, ErrNoAnswer)
		want(t, "reveal", w.client.Names(50*time.Millisecond).Reveal(m), ErrNoAnswer)
		done := make(chan error, 3)
		w.do(func() {
			for _, m := range []mirror.MadeName{m, in, dir} {
				w.client.RemoveLater(lockspace.Key{Dir: 1, Name: m.Path}, m, m != dir, func(err error) { done <- err })
			}
		})
		k.signal(syscall.SIGCONT)
		for range 3 {
			want(t, "remove", <-done, nil)
		}
		if n := k.entries(); n != 0 {
			t.Fatalf("%d things are left", n)
		}
	}
}

// Strangers' names are seen as what they are, and a lock is not had of what one has made.
func TestStrangersNames(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	want(t, "symlink", os.Symlink("text", k.path("link")), nil)
	want(t, "mkdir", os.Mkdir(k.path("dir"), 0o755), nil)
	want(t, "file", os.WriteFile(k.path("file"), []byte("123\n"), 0o640), nil)
	w.made("ours", unix.S_IFREG)
	names := w.client.Names(10 * time.Second)
	all, err := names.List("", false)
	if wanted := []mirror.Listed{{Name: "dir", Mode: unix.S_IFDIR}, {Name: "file", Mode: unix.S_IFREG}, {Name: "link", Mode: unix.S_IFLNK}}; !reflect.DeepEqual(all, wanted) || err != nil {
		t.Errorf("listed are %v, %v", all, err)
	}
	fd, err := unix.Open(k.dir, unix.O_PATH|unix.O_CLOEXEC, 0)
	want(t, "open", err, nil)
	defer unix.Close(fd)
	for _, name := range []string{"dir", "file", "link", "missing"} {
		got, err := names.Look(name, mirror.MadeName{})
		here, wrong := mirror.NewBacking(fd).Look(name, mirror.MadeName{})
		if err != nil || wrong != nil || (got == nil) != (here == nil) {
			t.Fatalf("%s: %v, %v and %v, %v", name, got, err, here, wrong)
		}
		if got != nil && (got.ID != here.ID || got.Mode != here.Mode || got.Size != here.Size || !got.Modified.Equal(here.Modified) || string(got.Body) != string(here.Body) || got.Target != here.Target) {
			t.Errorf("%s is %+v, want %+v", name, got, here)
		}
	}
	w.openings["file"] = mirror.Opening{Way: mirror.OpenLock}
	want(t, "a lock on what a stranger has made", w.try(w.request("file", 1, shared, whole), 10*time.Second), lockspace.ErrForeign)
	want(t, "remove", os.Remove(k.path("file")), nil)
	want(t, "the lock", w.try(w.request("file", 1, shared, whole), 10*time.Second), nil)
}

// An agent of the first version understands HELLO, and answers it: what it does not know
// is behind the end of its messages.
func TestHelloIsOfEveryVersion(t *testing.T) {
	const first = 147 // bytes, without texts
	for _, m := range []message{{kind: kindHello, epoch: 1, seq: version, path: "mount"}, {kind: kindWelcome, seq: version}} {
		if n := len(m.append(nil)) - len(m.path); n != first {
			t.Errorf("a message of kind %d has %d bytes, want %d", m.kind, n, first)
		}
	}
	if kindHello != 1 || kindWelcome != 11 {
		t.Errorf("HELLO is %d, WELCOME %d", kindHello, kindWelcome)
	}
}

// Messages about names are read as they were written.
func TestNameMessages(t *testing.T) {
	n := &nameMessage{
		opening: mirror.Opening{Way: mirror.OpenLock, Known: mirror.MadeName{Path: "d/x", Temporary: "t", ID: mirror.NameID{Dev: 1, Ino: 2, Born: -3}, Marked: true}},
		made:    mirror.MadeName{Path: "y"}, directories: true, use: mirror.ToKeep, target: "text", size: 1 << 40,
		state: mirror.NameState{Mode: unix.S_IFREG | 0o600, UID: 4, GID: 5, Modified: time.Unix(6, 7), Body: make([]byte, 4096)},
	}
	for _, m := range []message{{kind: kindMake, seq: 1, name: n}, {kind: kindLook, path: "p", name: new(nameMessage)}} {
		b := m.append(nil)
		got, ok := parse(b)
		if !ok || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v is read as %+v, %v", m, got, ok)
		}
		for _, cut := range []int{1, 9, len(b) / 3, len(b) - len(b)/3} {
			if _, ok := parse(b[:len(b)-cut]); ok {
				t.Errorf("a message without its last %d bytes is one", cut)
			}
		}
	}
	if err := errors.Join(checkListed(mirror.Listed{Name: "a\nb", Mode: unix.S_IFLNK}), checkListed(mirror.Listed{Name: "x", Mode: unix.S_IFSOCK})); err != nil {
		t.Error(err)
	}
}

func checkListed(l mirror.Listed) error {
	if got := listed(listedName(l)); got != l {
		return errors.New(got.Name + " is not " + l.Name)
	}
	return nil
}

// A directory of somebody else that nobody asks about any more is known to neither side.
func TestForgottenDirectories(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	want(t, "mkdir", os.Mkdir(k.path("dir"), 0o755), nil)
	names := w.client.Names(10 * time.Second)
	if o, err := names.Look("dir", mirror.MadeName{}); o == nil || err != nil {
		t.Fatalf("it is %v, %v", o, err)
	}
	want(t, "rmdir", os.Remove(k.path("dir")), nil)
	want(t, "a lock in it", w.try(w.request("dir/x", 1, shared, whole), 10*time.Second), unix.ESTALE)
	names.Forget("dir")
	if len(w.client.foreign) != 0 {
		t.Errorf("%v are known", w.client.foreign)
	}
	want(t, "a lock in another", w.try(w.request("dir/y", 1, shared, whole), 10*time.Second), nil)
}
