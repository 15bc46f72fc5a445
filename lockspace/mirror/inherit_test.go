package mirror

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// restart has a new mirror take over what the keeper has, as the next process
// does, with the holds as they are; or with lose, without the keeper's files. Before
// it, between is done, by a process that dies without recording it.
func (w *world) restart(lose bool, between func(old *Mirror)) {
	w.t.Helper()
	holds, old := w.holds, w.m
	w.mu.Lock()
	if between != nil {
		between(old)
	}
	old.Close()
	w.mu.Unlock()
	type inherited struct {
		label []byte
		fd    int
	}
	files := make(map[uint64]inherited)
	for id, k := range w.keeper.kept {
		if lose {
			unix.Close(k.fd)
			delete(w.keeper.kept, id)
			continue
		}
		fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		files[id] = inherited{k.label, fd}
	}
	old.die()
	w.begin()
	w.holds = holds
	var missing []*Preparation
	w.do(func() {
		for id, f := range files {
			if err := w.m.Inherit(id, f.label, f.fd); err != nil {
				w.t.Error(err)
			}
		}
		for k := range holds {
			if len(holds[k]) > 0 {
				w.settle(k)
			}
		}
		missing = w.m.Missing()
	})
	if w.midway != nil {
		w.midway()
	}
	for _, p := range missing {
		p.Run()
	}
	w.do(func() {
		for _, p := range missing {
			w.m.Adopt(p)
		}
	})
}

// die closes what a process had open that has died.
func (m *Mirror) die() {
	closed := make(map[*file]bool)
	for _, n := range m.names {
		if f := n.file; f != nil && !closed[f] {
			closed[f] = true
			unix.Close(f.fd)
		}
	}
}

// The locks of a process that has died are those of the next one, and nobody gets
// in between: the foreigner waits for them.
func TestInheritWhatIsHeld(t *testing.T) {
	w := newWorld(t)
	h := w.take(request("a", exclusive, 0, 9))
	s := w.take(request("a", shared, 10, 19))
	w.end(w.take(whole("b", exclusive)))
	f := w.foreigner("a")
	f.say("posix wait write 0 0")
	for range 20 {
		w.restart(false, nil)
		w.mustSee("a", 0, "exclusive")
		w.mustSee("a", 10, "shared")
		w.mustSee("a", 20, "free")
		w.mustSee("b", 0, "free")
	}
	w.end(h)
	w.mustSee("a", 0, "free")
	w.mustSee("a", 10, "shared")
	if len(w.lost) > 0 || w.keeper.len() != 2 {
		t.Errorf("lost: %v; %d are kept", w.lost, w.keeper.len())
	}
	w.end(s)
	f.answers("ok")
	if s := w.stats(); s.Open != 2 || s.Cached != 2 {
		t.Errorf("%+v", s)
	}
}

// A process dies when it has locked and not recorded: that is given back. Or when it
// has recorded and not unlocked: likewise.
func TestInheritMore(t *testing.T) {
	w := newWorld(t)
	h := w.take(request("a", shared, 10, 19))
	b := w.take(whole("b", exclusive))
	w.restart(false, func(m *Mirror) {
		r := whole("a", exclusive)
		if err := m.Cover(&r); err != nil {
			t.Error(err)
		}
		w.drop(b)
	})
	w.mustSee("a", 0, "free")
	w.mustSee("a", 10, "shared")
	w.mustSee("b", 0, "free")
	w.end(h)
	w.mustSee("a", 10, "free")
}

// The keeper has died too: what is held is locked anew.
func TestInheritNothing(t *testing.T) {
	w := newWorld(t)
	h := w.take(request("a", exclusive, 0, 9))
	w.restart(true, nil)
	w.mustSee("a", 0, "exclusive")
	w.mustSee("a", 10, "free")
	if len(w.lost) > 0 || w.keeper.len() != 1 {
		t.Errorf("lost: %v; %d are kept", w.lost, w.keeper.len())
	}
	w.end(h)
	w.mustSee("a", 0, "free")
}

// A process dies when it has opened a file twice, for two who asked at the same
// time: it is the one with the lock that counts.
func TestInheritTwo(t *testing.T) {
	for _, mode := range []lockspace.Mode{shared, exclusive} {
		for _, reverse := range []bool{false, true} {
			w := newWorld(t)
			r := whole("a", mode)
			var one, two *Preparation
			w.do(func() { one, two = w.m.Prepare(&r), w.m.Prepare(&r) })
			if reverse {
				one, two = two, one
			}
			one.Run()
			w.do(func() {
				if err := w.m.Adopt(one); err != nil {
					t.Error(err)
				}
			})
			h := w.take(r)
			f := w.foreigner("a")
			f.say("posix wait write 0 0")
			said := f.said()
			two.Run()
			w.restart(false, nil)
			w.mustSee("a", 0, mode.String())
			if s := w.stats(); s.Open != 1 || w.keeper.len() != 1 || len(w.lost) > 0 {
				t.Errorf("%+v, %d are kept, lost %v", s, w.keeper.len(), w.lost)
			}
			select {
			case <-said:
				t.Error("the foreigner got in")
			default:
			}
			w.end(h)
			<-said
			f.answers("ok")
		}
	}
}

// The keeper has one file and not the other, and that one is not locked as it
// should be: it is before anything takes time.
func TestInheritLess(t *testing.T) {
	w := newWorld(t)
	w.take(whole("a", exclusive))
	w.take(whole("b", exclusive))
	w.midway = func() { w.mustSee("a", 0, "exclusive") }
	w.restart(false, func(m *Mirror) {
		for id, k := range w.keeper.kept {
			if string(k.label) == string(label(key("b"))) {
				unix.Close(k.fd)
				delete(w.keeper.kept, id)
				continue
			}
			lk := unix.Flock_t{Type: unix.F_UNLCK}
			if err := unix.FcntlFlock(uintptr(k.fd), unix.F_OFD_SETLK, &lk); err != nil {
				t.Error(err)
			}
		}
	})
	w.mustSee("a", 0, "exclusive")
	w.mustSee("b", 0, "exclusive")
	if len(w.lost) > 0 {
		t.Errorf("lost: %v", w.lost)
	}
}

// Somebody has got in meanwhile, or the file is gone: then it is lost.
func TestInheritTooLate(t *testing.T) {
	w := newWorld(t)
	h := w.take(request("a", exclusive, 0, 9))
	k := w.take(whole("b", exclusive))
	var f *os.File
	w.restart(true, func(m *Mirror) {
		m.die()
		for id, k := range w.keeper.kept {
			unix.Close(k.fd)
			delete(w.keeper.kept, id)
		}
		m.names = nil
		var err error
		if f, err = os.OpenFile(w.path("a"), os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		lk := unix.Flock_t{Type: unix.F_RDLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(w.path("b")); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(w.path("b"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	if w.lost[key("a")] != ErrTaken || !errors.Is(w.lost[key("b")], unix.EISDIR) {
		t.Errorf("lost: %v", w.lost)
	}
	w.refuse(request("a", shared, 0, 0), lockspace.ErrForeign)
	w.end(h)
	w.end(k)
	w.refuse(whole("b", shared), unix.EISDIR)
	f.Close()
	w.end(w.take(whole("a", exclusive)))
}

// Nothing that the keeper may have is a danger.
func TestInheritNonsense(t *testing.T) {
	w := newWorld(t)
	r, p, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer p.Close()
	for id, l := range map[uint64][]byte{7: nil, 8: label(key("a"))} {
		fd, err := unix.Dup(int(r.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		w.keeper.Keep(id, l, fd)
		w.do(func() {
			if w.m.Inherit(id, l, fd) == nil {
				t.Errorf("%d: no error", id)
			}
		})
	}
	w.take(whole("a", exclusive)) // with an id above theirs
	if _, ok := w.keeper.kept[9]; !ok || w.keeper.len() != 1 {
		t.Errorf("kept: %v", w.keeper.kept)
	}
}
