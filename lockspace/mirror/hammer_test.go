package mirror

import (
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// Two tables over one directory, and programs that lock the file itself, all at
// the same time: never two inside of which one is exclusive, and everybody gets in.
func TestHammer(t *testing.T) {
	one := newWorld(t)
	two := newWorld(t)
	two.m.Close()
	two.dir = one.dir
	two.begin()
	var inside atomic.Int64 // readers, or -1000 for a writer
	var stop atomic.Bool
	var all sync.WaitGroup
	enter := func(mode lockspace.Mode) {
		n := int64(1)
		if mode == exclusive {
			n = -1000
		}
		if now := inside.Add(n); mode == exclusive && now != n || mode == shared && now < 0 {
			t.Errorf("%s with %d inside", mode, now-n)
			stop.Store(true)
		}
		time.Sleep(100 * time.Microsecond)
		inside.Add(-n)
	}
	var times [4]atomic.Int64 // by who it is
	for i, w := range []*world{one, two} {
		table := new(sync.RWMutex) // as one that excludes its own users
		for j := range 4 {
			mode := lockspace.Mode(j % 2)
			all.Go(func() {
				for !stop.Load() {
					if mode == exclusive {
						table.Lock()
					} else {
						table.RLock()
					}
					if err := w.enter(whole("a", mode), func() { enter(mode) }); err != nil {
						t.Error(err)
						stop.Store(true)
					}
					times[i].Add(1)
					if mode == exclusive {
						table.Unlock()
					} else {
						table.RUnlock()
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
	}
	for i := range 2 {
		mode := lockspace.Mode(i)
		all.Go(func() {
			f, err := os.OpenFile(one.path("a"), os.O_RDWR|os.O_CREATE, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			for !stop.Load() {
				for _, typ := range []int16{typeOf(mode), unix.F_UNLCK} {
					lk := unix.Flock_t{Type: typ}
					if err := eintr.Retry(func() error { return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLKW, &lk) }); err != nil {
						t.Error(err)
					}
					if typ != unix.F_UNLCK {
						enter(mode)
						times[2+i].Add(1)
					}
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	time.AfterFunc(3*time.Second, func() { stop.Store(true) })
	all.Wait()
	for i := range times {
		t.Logf("%d: %d times inside", i, times[i].Load())
		if times[i].Load() < 10 {
			t.Errorf("%d was inside %d times", i, times[i].Load())
		}
	}
	for _, w := range []*world{one, two} {
		w.eventually("no thread is left", func() bool { s := w.stats(); return s.Awaited+s.Polled == 0 })
	}
	one.mustSee("a", 0, "free")
}

// enter waits for r, does something and gives r back.
func (w *world) enter(r lockspace.Request, f func()) error {
	x := &waiter{r: r, got: make(chan error, 1)}
	w.do(func() {
		w.waits = append(w.waits, x)
		w.reconsider(r.Key)
	})
	if err := w.gets(x, 20*time.Second); err != nil {
		return err
	}
	f()
	w.do(func() {
		for _, h := range w.holds[r.Key] {
			if h.Mode == r.Mode { // any of them
				w.drop(h)
				return
			}
		}
	})
	return nil
}
