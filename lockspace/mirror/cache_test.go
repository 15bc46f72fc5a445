package mirror

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// fds returns how many descriptors the process has.
func fds(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// Ten thousand names, one after the other and a thousand at a time, with a limit of
// 1,024 open files.
func TestManyNames(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Open, c.Cached = 1024, 256 })
	before := fds(t)
	var held []*lockspace.Hold
	for i := range 10000 {
		held = append(held, w.take(whole(fmt.Sprint(i), lockspace.Mode(i%2))))
		if len(held) == 1000 {
			for _, h := range held {
				w.end(h)
			}
			held = nil
			w.eventually("all but the cache is closed", func() bool {
				s := w.stats() // those that are being looked at a moment later
				return s.Open == 256 && s.Cached == 256
			})
		}
	}
	// Each is open here and kept by the keeper, which is in the same process.
	if n := fds(t) - before; n > 2*256+10 {
		t.Errorf("%d descriptors more than before", n)
	}
	if w.keeper.len() != 256 || len(w.m.names) != 256 || len(w.m.watched) != 0 {
		t.Errorf("%d are kept, %d names are known, %d looked at", w.keeper.len(), len(w.m.names), len(w.m.watched))
	}
}

// Of the files that hold nothing, those that were used last stay open.
func TestLeastRecentlyUsed(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Cached = 2 })
	for _, name := range []string{"a", "b", "a", "c"} {
		w.end(w.take(whole(name, exclusive)))
	}
	open := func(name string) bool { return w.m.names[key(name)] != nil }
	if !open("a") || open("b") || !open("c") {
		t.Errorf("a, b, c: %v %v %v", open("a"), open("b"), open("c"))
	}
}

// Beyond the limit nothing is granted, and the error says so; what is cached makes
// room.
func TestLimit(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Open, c.Cached = 3, 2 })
	w.end(w.take(whole("x", exclusive)))
	w.end(w.take(whole("y", exclusive)))
	var held []*lockspace.Hold
	for _, name := range []string{"a", "b", "c"} {
		held = append(held, w.take(whole(name, exclusive)))
	}
	w.refuse(whole("d", exclusive), ErrLimit)
	w.refuse(whole("d", exclusive), unix.ENOLCK)
	w.take(whole("a", shared)) // is open
	x := &waiter{r: whole("d", exclusive), got: make(chan error, 1)}
	w.do(func() { w.waits = append(w.waits, x); w.reconsider(x.r.Key) })
	if err := w.gets(x, atOnce); err != ErrLimit {
		t.Errorf("who waits: %v", err)
	}
	w.end(held[1])
	w.take(whole("d", exclusive))
	if s := w.stats(); s.Open != 3 || w.keeper.len() != 3 {
		t.Errorf("%+v, %d are kept", s, w.keeper.len())
	}
}

// By default there are so many.
func TestDefaultLimits(t *testing.T) {
	var rl unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &rl); err != nil {
		t.Fatal(err)
	}
	cached, open := Limits()
	if cached != min(512, int(rl.Cur)/4) || open != int(rl.Cur)*3/4 {
		t.Errorf("%d cached, %d open, of %d", cached, open, rl.Cur)
	}
}

// Without the keeper nothing is granted, and nothing stays open.
func TestKeeperRefuses(t *testing.T) {
	w := newWorld(t)
	w.keeper.refuse = errors.New("no room")
	w.refuse(whole("a", exclusive), w.keeper.refuse)
	w.keeper.refuse = nil
	if s := w.stats(); s.Open != 0 {
		t.Errorf("%+v", s)
	}
	w.take(whole("a", exclusive))
}

// Two requests open a file at the same time: one of them is closed again.
func TestOpenedTwice(t *testing.T) {
	w := newWorld(t)
	r := whole("a", exclusive)
	var one, two *Preparation
	w.do(func() { one, two = w.m.Prepare(&r), w.m.Prepare(&r) })
	one.Run()
	two.Run()
	w.do(func() {
		for _, p := range []*Preparation{two, one} {
			if err := w.m.Adopt(p); err != nil {
				t.Error(err)
			}
		}
	})
	w.do(func() {
		if w.m.Needs(r.Key) {
			t.Error("its file is open, and it needs one")
		}
	})
	w.take(r)
	if s := w.stats(); s.Open != 1 || w.keeper.len() != 1 {
		t.Errorf("%+v, %d are kept", s, w.keeper.len())
	}
}
