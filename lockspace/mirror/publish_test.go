package mirror

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// publishing is a world in which everything is published as text.
func publishing(t *testing.T, text func() []byte) *world {
	t.Helper()
	return newWorld(t, func(c *Config) {
		c.Publish = func(lockspace.Key) bool { return true }
		c.Text = func(lockspace.Key) func() []byte { return text }
	})
}

// content returns what is in a name's file.
func (w *world) content(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// mustHave checks what is in a name's file.
func (w *world) mustHave(name, want string) {
	w.t.Helper()
	if got := w.content(name); got != want {
		w.t.Fatalf("%s has %q, want %q", name, got, want)
	}
}

// awaitText waits until something is published.
func (w *world) awaitText(name, text string) {
	w.t.Helper()
	w.eventually("it is published", func() bool { return w.content(name) == header+text })
}

func says(s string) func() []byte { return func() []byte { return []byte(s) } }

// hold is take of a hold of its own.
func (w *world) hold(r lockspace.Request, id lockspace.HoldID) *lockspace.Hold {
	w.t.Helper()
	h := w.take(r)
	w.do(func() {
		h.ID = id
		w.settle(r.Key)
	})
	return h
}

// What has the first byte exclusively is published while it does, and nothing else
// is.
func TestWhatIsPublished(t *testing.T) {
	w := publishing(t, says("me\n"))
	for name, r := range map[string]lockspace.Request{
		"whole":  whole("whole", exclusive),
		"bytes":  request("bytes", exclusive, 0, 9),
		"shared": whole("shared", shared),
		"others": request("others", exclusive, 1, 9),
	} {
		published := name == "whole" || name == "bytes"
		h := w.hold(r, 1)
		if published {
			w.awaitText(name, "me\n")
		} else {
			time.Sleep(4 * publishEvery)
		}
		for range 2 { // the second time it is looked at what is there already
			w.do(func() { w.m.touch(w.m.names[r.Key].file) })
			if text, err := NewBacking(int(w.m.config.Backing.fd)).Published(name); published != (string(text) == "me\n") || err != nil {
				t.Errorf("%s: published is %q, %v", name, text, err)
			}
		}
		w.end(h)
		w.mustHave(name, header)
		w.mustSee(name, 5, "free")
	}
	if s := w.stats(); s.Published != 2 || s.Unpublished != 0 {
		t.Errorf("%+v", s)
	}
}

// Another hold in the place of one is published anew, and the other's text is gone
// when the step ends. One that becomes shared is not published any more.
func TestPublishedAnew(t *testing.T) {
	var n atomic.Int32
	w := publishing(t, func() []byte { return []byte{'0' + byte(n.Add(1)), '\n'} })
	h := w.hold(whole("a", exclusive), 1)
	w.awaitText("a", "1\n")
	w.do(func() {
		other := *h
		other.ID = 2
		w.holds[h.Key] = []*lockspace.Hold{&other}
		w.settle(h.Key)
	})
	w.mustHave("a", header)
	w.awaitText("a", "2\n")
	w.do(func() {
		other := *h
		other.Mode, other.ID = shared, 3
		w.holds[h.Key] = []*lockspace.Hold{&other}
		w.settle(h.Key)
	})
	w.mustHave("a", header)
	w.mustSee("a", 0, "shared")
}

// What is taken and given back all the time costs what it costs where nothing is
// published: two calls, and no more.
func TestHotNamesAreNotPublished(t *testing.T) {
	w := publishing(t, says("me\n"))
	w.end(w.hold(whole("a", exclusive), 1))
	w.made()
	rounds := 0
	for end := time.Now().Add(12 * publishEvery); time.Now().Before(end); rounds++ {
		w.end(w.hold(whole("a", exclusive), lockspace.HoldID(rounds+2)))
	}
	if calls := len(w.made()); calls != 2*rounds {
		t.Errorf("%d calls in %d rounds", calls, rounds)
	}
	// A round may last, when others are at work on the machine.
	if s := w.stats(); s.Published > uint64(rounds/50) {
		t.Errorf("%+v after %d rounds", s, rounds)
	}
	w.mustHave("a", header)
	w.eventually("nothing goes on", func() (ended bool) {
		w.do(func() { ended = !w.m.publishing && len(w.m.young) == 0 })
		return ended
	})
}

// A hold that ends while it is being published leaves nothing behind, and its lock
// is given back at once.
func TestEndedWhileItIsPublished(t *testing.T) {
	began, goOn := make(chan bool), make(chan bool)
	w := publishing(t, func() []byte {
		began <- true
		<-goOn
		return []byte("late\n")
	})
	h := w.hold(whole("a", exclusive), 1)
	<-began
	w.end(h)
	w.mustSee("a", 0, "free")
	x := w.foreigner("a")
	x.does("ofd set write 0 0", "ok")
	goOn <- true
	w.eventually("it is not published", func() (ended bool) {
		w.do(func() { ended = w.m.names[key("a")] == nil || w.m.names[key("a")].file.pins == 0 })
		return ended
	})
	w.mustHave("a", header)
}

// What somebody who died has left is gone when the lock is granted. It is only for
// who has the first byte exclusively to clear it, and in a file of this kind.
func TestWhatTheDeadLeft(t *testing.T) {
	w := publishing(t, says("me\n"))
	for name, c := range map[string]struct {
		was     string
		r       lockspace.Request
		cleared bool
	}{
		"whole":   {header + "dead\n", whole("whole", exclusive), true},
		"shared":  {header + "dead\n", whole("shared", shared), false},
		"others":  {header + "dead\n", request("others", exclusive, 5, end), false},
		"strange": {"# lockfs 2\ndead\n", whole("strange", exclusive), false},
	} {
		if err := os.WriteFile(w.path(name), []byte(c.was), 0o644); err != nil {
			t.Fatal(err)
		}
		w.refuseUnopened(c.r)
		h := w.take(c.r)
		want := c.was
		if c.cleared {
			want = header
		}
		w.mustHave(name, want)
		w.end(h)
		w.mustHave(name, want)
	}
}

// refuseUnopened makes r's file known, so that the next try is one step.
func (w *world) refuseUnopened(r lockspace.Request) {
	w.t.Helper()
	r.Mode = shared
	r.Range = lockspace.Range{First: 1 << 40, Last: 1 << 40}
	w.end(w.take(r))
}

// Files that are not begun as one that is written to never are.
func TestStrangeFiles(t *testing.T) {
	w := publishing(t, says("me\n"))
	for name, was := range map[string]string{"empty": "", "data": "data", "short": header[:5], "other": "# lockfs 11\n"} {
		if err := os.WriteFile(w.path(name), []byte(was), 0o644); err != nil {
			t.Fatal(err)
		}
		h := w.hold(whole(name, exclusive), 1)
		w.eventually("it is known that it is strange", func() (strange bool) {
			w.do(func() { strange = w.m.names[key(name)].file.strange })
			return strange
		})
		w.end(h)
		w.mustHave(name, was)
	}
}

// On a filesystem of several hosts it is noticed when the server has forgotten a
// lock, or has given it to somebody else; and not where it has not.
func TestForgottenLocks(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Backing.remote = true })
	kept := w.take(request("kept", shared, 5, 9))
	free, taken := w.take(whole("free", exclusive)), w.take(whole("taken", shared))
	stop, ended := make(chan bool), make(chan bool)
	go func() { // it is looked at while it comes and goes
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				w.end(w.take(whole("hot", exclusive)))
			}
		}
	}()
	time.Sleep(3 * w.m.every)
	lost := func(name string) (why error) {
		w.do(func() { why = w.lost[key(name)] })
		return why
	}
	forget := func(name string) {
		w.do(func() {
			lk := unix.Flock_t{Type: unix.F_UNLCK}
			if err := unix.FcntlFlock(uintptr(w.m.names[key(name)].file.fd), unix.F_OFD_SETLK, &lk); err != nil {
				t.Error(err)
			}
		})
	}
	forget("free")
	w.eventually("it is lost", func() bool { return errors.Is(lost("free"), ErrGone) })
	forget("taken")
	x := w.foreigner("taken")
	x.does("ofd set write 0 0", "ok")
	w.eventually("it is lost", func() bool { return errors.Is(lost("taken"), ErrGone) })
	time.Sleep(3 * w.m.every)
	close(stop)
	<-ended
	for _, name := range []string{"kept", "hot"} {
		if err := lost(name); err != nil {
			t.Errorf("%s is lost: %v", name, err)
		}
	}
	for _, h := range []*lockspace.Hold{kept, free, taken} {
		w.end(h)
	}
}

// On a filesystem of several hosts who waits has no thread, which nobody could end,
// and gets in soon all the same.
func TestWaitsOnRemoteFilesystems(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Backing.remote = true })
	for _, r := range []lockspace.Request{whole("a", exclusive), whole("b", shared)} {
		x := w.foreigner(r.Key.Name)
		x.does("ofd set write 0 0", "ok")
		waits := w.wait(r)
		if s := w.stats(); s.Awaited != 0 || s.Polled != 1 {
			t.Errorf("%+v", s)
		}
		x.does("ofd set unlock 0 0", "ok")
		if err := w.gets(waits, 5*time.Second); err != nil {
			t.Error(err)
		}
	}
}

// A file that lockfs has not made is never written to, whatever it begins with.
func TestFilesOfOthersThatBeginSo(t *testing.T) {
	const was = header + "somebody's data"
	for _, direct := range []bool{false, true} {
		w := newWorld(t, func(c *Config) {
			if direct {
				c.Backing = NewDirect(c.Backing.fd)
			}
			c.Backing.As("mount")
			c.Text = func(lockspace.Key) func() []byte { return says("me\n") }
		})
		if err := os.WriteFile(w.path("a"), []byte(was), 0o600); err != nil {
			t.Fatal(err)
		}
		for id := range 2 {
			h := w.hold(whole("a", exclusive), lockspace.HoldID(id+1))
			time.Sleep(4 * publishEvery)
			w.end(h)
			w.mustHave("a", was)
		}
	}
}
