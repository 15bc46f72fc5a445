package mirror

import (
	"os"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockspace"
)

const (
	shared    = lockspace.Shared
	exclusive = lockspace.Exclusive
)

// What is held is what a program sees that locks the file itself.
func TestForeignersSeeWhatIsHeld(t *testing.T) {
	for _, owner := range []string{"posix", "ofd"} {
		t.Run(owner, func(t *testing.T) {
			w := newWorld(t)
			h := w.take(request("a", exclusive, 10, 19))
			s := w.take(request("a", shared, 30, end))
			f := w.foreigner("a")
			f.does(owner+" set write 0 10", "ok")
			f.does(owner+" set write 10 1", "EAGAIN")
			f.does(owner+" set read 19 1", "EAGAIN")
			f.does(owner+" set write 20 10", "ok")
			f.does(owner+" set read 30 0", "ok")
			f.does(owner+" set write 30 1", "EAGAIN")
			f.does(owner+" get write 10 10", "1 10 10 -1")
			w.end(h)
			f.does(owner+" set write 10 10", "ok")
			w.end(s)
			f.does(owner+" set write 0 0", "ok")
		})
	}
}

// What a program has locked is not granted, and it is known who that is.
func TestForeignersExclude(t *testing.T) {
	w := newWorld(t)
	f := w.foreigner("a")
	f.does("posix set write 10 10", "ok")
	w.refuse(whole("a", shared), lockspace.ErrForeign)
	w.refuse(request("a", exclusive, 19, 19), lockspace.ErrForeign)
	h := w.take(request("a", exclusive, 20, end))
	w.do(func() {
		got, found, known, err := w.m.Probe(key("a"))
		want := Foreign{Mode: exclusive, Range: lockspace.Range{First: 10, Last: 19}, Pid: f.cmd.Process.Pid}
		if got != want || !found || !known || err != nil {
			t.Errorf("Probe: %+v %v %v %v, want %+v", got, found, known, err, want)
		}
	})
	f.does("posix set read 10 10", "ok")
	s := w.take(whole("a", shared)) // by the one who has the rest
	w.refuse(whole("a", exclusive), lockspace.ErrForeign)
	w.mustSee("a", 5, "shared")
	w.mustSee("a", 20, "exclusive")
	f.does("posix set unlock 0 0", "ok")
	f.does("ofd set read 0 10", "ok")
	w.refuse(request("a", exclusive, 0, 0), lockspace.ErrForeign)
	w.end(h)
	w.mustSee("a", 20, "shared")
	w.end(s)
	w.mustSee("a", 20, "free")
	f.kill()
	w.end(w.take(whole("a", exclusive)))
}

// A lock that goes from hand to hand in a step is not even touched.
func TestHandoverCostsNothing(t *testing.T) {
	w := newWorld(t)
	h := w.take(whole("a", exclusive))
	w.made()
	w.do(func() {
		w.drop(h)
		if _, err := w.grant(whole("a", exclusive)); err != nil {
			t.Error(err)
		}
	})
	if calls := w.made(); len(calls) != 0 {
		t.Errorf("calls: %v", calls)
	}
	w.mustSee("a", 0, "exclusive")
}

// A hot lock costs one call to take and one to drop, and its file stays open.
func TestHotLock(t *testing.T) {
	w := newWorld(t)
	w.end(w.take(whole("a", exclusive)))
	w.made()
	for range 10 {
		w.end(w.take(whole("a", exclusive)))
	}
	if calls := w.made(); len(calls) != 20 {
		t.Errorf("%d calls for 10 holds: %v", len(calls), calls)
	}
	if s := w.stats(); s.Open != 1 || s.Cached != 1 {
		t.Errorf("%+v", s)
	}
}

// Upgrade and downgrade are single calls, and refused ones change nothing.
func TestConversion(t *testing.T) {
	w := newWorld(t)
	h := w.take(whole("a", shared))
	f := w.foreigner("a")
	f.does("ofd set read 100 1", "ok")
	w.refuse(whole("a", exclusive), lockspace.ErrForeign)
	w.mustSee("a", 5, "shared")
	f.does("ofd set unlock 0 0", "ok")
	w.made()
	x := w.take(whole("a", exclusive))
	w.mustSee("a", 5, "exclusive")
	w.end(x)
	w.mustSee("a", 5, "shared")
	if calls := w.made(); len(calls) != 2 {
		t.Errorf("calls: %v", calls)
	}
	w.end(h)
	w.mustSee("a", 5, "free")
}

// A file that was replaced is noticed before it is used again.
func TestReplacedWhileFree(t *testing.T) {
	w := newWorld(t)
	w.end(w.take(whole("a", exclusive)))
	for name, replace := range map[string]func(string) error{
		"removed": os.Remove,
		"moved":   func(p string) error { return os.Rename(p, p+"2") },
		"replaced": func(p string) error {
			if err := os.WriteFile(p+"3", nil, 0o644); err != nil {
				return err
			}
			return os.Rename(p+"3", p)
		},
	} {
		if err := replace(w.path("a")); err != nil {
			t.Fatal(err)
		}
		h := w.take(whole("a", exclusive))
		if w.seen("a", 0) != "exclusive" {
			t.Errorf("%s: the new file is not locked", name)
		}
		w.end(h)
	}
	if s := w.stats(); s.Open != 1 || s.Lost != 0 || w.keeper.len() != 1 {
		t.Errorf("%+v, %d kept", s, w.keeper.len())
	}
}

// A file that is replaced while it is held: the hold is lost, soon, and until it
// has ended nobody gets the lock.
func TestReplacedWhileHeld(t *testing.T) {
	w := newWorld(t)
	h := w.take(whole("a", exclusive))
	if err := os.Remove(w.path("a")); err != nil {
		t.Fatal(err)
	}
	w.eventually("the loss is noticed", func() (lost bool) {
		w.do(func() { lost = w.lost[key("a")] == ErrReplaced })
		return lost
	})
	w.refuse(whole("a", exclusive), lockspace.ErrForeign)
	x := w.wait(whole("a", exclusive))
	w.end(h)
	if err := w.gets(x, time.Second); err != nil {
		t.Fatal(err)
	}
	w.mustSee("a", 0, "exclusive")
	if s := w.stats(); s.Open != 1 || s.Lost != 1 {
		t.Errorf("%+v", s)
	}
}

// Whoever shares a lock finds out too.
func TestReplacedWhileShared(t *testing.T) {
	w := newWorld(t)
	w.m.Close() // it is not looked at otherwise
	h := w.take(whole("a", shared))
	if err := os.Remove(w.path("a")); err != nil {
		t.Fatal(err)
	}
	w.refuse(whole("a", shared), lockspace.ErrForeign)
	if w.lost[key("a")] != ErrReplaced {
		t.Errorf("lost: %v", w.lost)
	}
	w.end(h)
	w.take(whole("a", shared))
}

// A file that is replaced between two grants of one step: the first of them is
// lost.
func TestReplacedWithinAStep(t *testing.T) {
	w := newWorld(t)
	w.end(w.take(whole("a", shared)))
	w.do(func() {
		r := whole("a", shared)
		if err := w.m.Cover(&r); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(w.path("a")); err != nil {
			t.Fatal(err)
		}
		if err := w.m.Cover(&r); err != lockspace.ErrForeign {
			t.Errorf("%v, want ErrForeign", err)
		}
		w.holds[r.Key] = []*lockspace.Hold{{Request: r}}
		w.settle(r.Key)
		if w.lost[r.Key] != ErrReplaced {
			t.Errorf("lost: %v", w.lost)
		}
	})
	w.do(func() { w.drop(w.holds[key("a")][0]) })
	w.take(whole("a", exclusive))
}
