package mirror

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// atOnce is how long somebody may take to notice that he is let in. It says that
// nobody looks every second; the machine may be busy.
const atOnce = 500 * time.Millisecond

// Who waits gets in when the foreigner leaves.
func TestWaitForForeigner(t *testing.T) {
	for _, c := range []struct {
		foreign string
		want    lockspace.Request
	}{
		{"posix set write 0 0", whole("a", exclusive)},
		{"posix set write 0 0", whole("a", shared)},
		{"ofd set read 0 0", whole("a", exclusive)},
		{"ofd set write 10 10", request("a", shared, 0, 14)},
		{"ofd set write 10 10", request("a", exclusive, 12, end)},
	} {
		t.Run(fmt.Sprint(c.foreign, c.want.Mode, c.want.Range), func(t *testing.T) {
			w := newWorld(t)
			f := w.foreigner("a")
			f.does(c.foreign, "ok")
			x := w.wait(c.want)
			if s := w.stats(); s.Awaited+s.Polled == 0 {
				t.Errorf("nobody waits: %+v", s)
			}
			f.kill()
			if err := w.gets(x, atOnce); err != nil {
				t.Fatal(err)
			}
			w.mustSee("a", c.want.Range.First, c.want.Mode.String())
			if c.want.Range.Last != end {
				w.mustSee("a", c.want.Range.Last+1, "free")
			}
			w.eventually("no thread is left", func() bool { return w.stats().Awaited == 0 })
		})
	}
}

// A shared wait ends with parts of it exclusive through the same file: these stay
// so, though the thread got all of what it waited for as shared.
func TestSharedWaitWeakensNothing(t *testing.T) {
	w := newWorld(t)
	f := w.foreigner("a")
	f.does("ofd set write 0 10", "ok")
	x := w.wait(whole("a", shared))
	w.interrupt(x) // its thread goes on
	h := w.take(request("a", exclusive, 100, 109))
	f.kill()
	for range 100 {
		w.mustSee("a", 105, "exclusive")
		time.Sleep(time.Millisecond)
	}
	w.mustSee("a", 5, "free")
	w.end(h)
	w.eventually("the thread ends", func() bool { return w.stats().Awaited == 0 })
	w.mustSee("a", 105, "free")
}

// A shared wait that a part is taken of meanwhile, exclusively and by the same
// party, does not wait for that.
func TestSharedWaitDoesNotWaitForUs(t *testing.T) {
	w := newWorld(t)
	f := w.foreigner("a")
	f.does("ofd set write 0 10", "ok")
	x := w.wait(whole("a", shared))
	w.take(request("a", exclusive, 100, 109))
	f.kill()
	if err := w.gets(x, atOnce); err != nil {
		t.Fatal(err)
	}
	w.mustSee("a", 5, "shared")
	w.mustSee("a", 105, "exclusive")
}

// What a thread has got, and what nobody wants any more, is in nobody's way here.
func TestThreadIsInNobodysWay(t *testing.T) {
	w := newWorld(t)
	f := w.foreigner("a")
	f.does("ofd set write 0 0", "ok")
	w.interrupt(w.wait(whole("a", shared)))
	w.mu.Lock() // the thread gets it and cannot begin its step
	defer w.mu.Unlock()
	f.does("ofd set unlock 0 0", "ok")
	for begin := time.Now(); w.seen("a", 0) != "shared"; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the thread does not get it")
		}
	}
	if _, err := w.grant(whole("a", exclusive)); err != nil {
		t.Error(err)
	}
	w.m.Recorded()
}

// What a thread gets that nobody wants any more is given back.
func TestInterruptedWait(t *testing.T) {
	for _, mode := range []lockspace.Mode{shared, exclusive} {
		w := newWorld(t)
		f := w.foreigner("a")
		f.does("ofd set write 0 0", "ok")
		w.interrupt(w.wait(whole("a", mode)))
		f.kill()
		w.eventually("the thread ends", func() bool { return w.stats().Awaited == 0 })
		w.mustSee("a", 0, "free")
		if s := w.stats(); s.Cached != 1 {
			t.Errorf("%+v", s)
		}
	}
}

// Waits that are the same share a thread; of many there are so many and no more,
// also if nobody wants them any more.
func TestThreadsAreLimited(t *testing.T) {
	w := newWorld(t)
	f := w.foreigner("a")
	f.does("ofd set write 0 0", "ok")
	one := w.wait(whole("a", exclusive))
	two := w.wait(whole("a", exclusive))
	if s := w.stats(); s.Awaited != 1 {
		t.Errorf("two equal waits: %+v", s)
	}
	for i := range uint64(100) {
		x := &waiter{r: request("a", exclusive, i, i), got: make(chan error, 1)}
		w.do(func() { w.waits = append(w.waits, x); w.reconsider(x.r.Key) })
		w.interrupt(x)
	}
	if s := w.stats(); s.Awaited != maxFileThreads || s.Polled > 1 {
		t.Errorf("%+v", s)
	}
	f.kill()
	for _, x := range []*waiter{one, two} { // the world's table lets both in
		if err := w.gets(x, atOnce); err != nil {
			t.Error(err)
		}
	}
	w.eventually("no thread is left", func() bool { s := w.stats(); return s.Awaited+s.Polled == 0 })
}

// More wait than there are threads: all get in.
func TestMoreWaitsThanThreads(t *testing.T) {
	const names = maxThreads + 40
	w := newWorld(t)
	var files []*os.File
	var waits []*waiter
	for i := range names {
		name := fmt.Sprint(i)
		f, err := os.Create(w.path(name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
		lk := unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
			t.Fatal(err)
		}
		x := &waiter{r: whole(name, lockspace.Mode(i%2)), got: make(chan error, 1)}
		w.do(func() { w.waits = append(w.waits, x); w.reconsider(x.r.Key) })
		waits = append(waits, x)
	}
	w.eventually("all threads wait", func() bool {
		s := w.stats()
		return s.Awaited == maxThreads && s.Polled > 0
	})
	// The last first: those have no thread.
	for i := range names {
		files[names-1-i].Close()
		if err := w.gets(waits[names-1-i], 2*time.Second); err != nil {
			t.Fatal(err)
		}
		w.mustSee(fmt.Sprint(names-1-i), 0, waits[names-1-i].r.Mode.String())
	}
}

// A file that is replaced while somebody waits for it: he gets the new one, though
// the old one stays locked.
func TestReplacedWhileAwaited(t *testing.T) {
	for _, mode := range []lockspace.Mode{shared, exclusive} {
		w := newWorld(t)
		f := w.foreigner("a")
		f.does("ofd set write 0 0", "ok")
		x := w.wait(whole("a", mode))
		if err := os.Remove(w.path("a")); err != nil {
			t.Fatal(err)
		}
		if err := w.gets(x, time.Second); err != nil {
			t.Fatal(err)
		}
		w.mustSee("a", 0, mode.String())
		if s := w.stats(); s.Awaited != 1 {
			t.Errorf("the thread of the old file: %+v", s)
		}
		f.kill()
		w.eventually("the old file is closed", func() bool { s := w.stats(); return s.Awaited == 0 && s.Open == 1 })
		if w.keeper.len() != 1 {
			t.Errorf("the keeper has %d files", w.keeper.len())
		}
	}
}

// A wait that cannot be waited for ends with the error.
func TestWaitFails(t *testing.T) {
	for _, mode := range []lockspace.Mode{shared, exclusive} {
		w := newWorld(t)
		f := w.foreigner("a")
		f.does("ofd set write 0 0", "ok")
		w.fail(func(cmd int, lk *unix.Flock_t) error {
			if cmd == unix.F_OFD_SETLKW {
				return unix.ENOLCK
			}
			return nil
		})
		x := &waiter{r: whole("a", mode), got: make(chan error, 1)}
		w.do(func() { w.waits = append(w.waits, x); w.reconsider(x.r.Key) })
		if err := w.gets(x, time.Second); !errors.Is(err, unix.ENOLCK) {
			t.Errorf("%s: %v", mode, err)
		}
	}
}

// Who waits for a name that cannot be opened is told why.
func TestWaitForWhatCannotBeOpened(t *testing.T) {
	w := newWorld(t)
	if err := os.Symlink("b", w.path("a")); err != nil {
		t.Fatal(err)
	}
	x := &waiter{r: whole("a", exclusive), got: make(chan error, 1)}
	w.do(func() { w.waits = append(w.waits, x); w.reconsider(x.r.Key) })
	if err := w.gets(x, time.Second); !errors.Is(err, unix.ELOOP) {
		t.Error(err)
	}
	if s := w.stats(); s.Open != 0 {
		t.Errorf("%+v", s)
	}
}

// How long it takes from a foreigner's unlock until the waiter is let in.
func TestForeignLatency(t *testing.T) {
	for _, mode := range []lockspace.Mode{shared, exclusive} {
		w := newWorld(t)
		f := w.foreigner("a")
		var took []time.Duration
		for range 20 {
			f.does("ofd set write 0 0", "ok")
			x := w.wait(whole("a", mode))
			begin := time.Now()
			f.say("ofd set unlock 0 0")
			if err := w.gets(x, 10*time.Second); err != nil { // the median counts
				t.Fatal(err)
			}
			took = append(took, time.Since(begin))
			f.answers("ok")
			w.do(func() { w.drop(w.holds[key("a")][0]) })
		}
		slices.Sort(took)
		t.Logf("%s: median %v, longest %v", mode, took[10], took[19])
		if took[10] > pollEvery {
			t.Errorf("%s: median latency %v: it is being polled", mode, took[10])
		}
	}
}

// A foreigner who waits gets in when the last hold ends, and not before.
func TestForeignerWaits(t *testing.T) {
	w := newWorld(t)
	a, b := w.take(whole("a", shared)), w.take(whole("a", shared))
	f := w.foreigner("a")
	f.say("posix wait write 0 0")
	w.end(a)
	c := w.take(whole("a", shared))
	w.end(b)
	w.mustSee("a", 0, "shared")
	w.end(c)
	f.answers("ok")
	w.refuse(whole("a", shared), lockspace.ErrForeign)
}
