package agent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Users of the table and strangers take the same locks at random, while workers are
// replaced and the agent pauses: never two inside, and in the end nothing is locked.
func TestNeverTwoInside(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	const names, users, strangers = 3, 6, 4
	const limit = 10 * time.Second
	var inside [names]atomic.Int32 // of those that take it exclusively
	var entries, outside, refused, replaced, paused atomic.Int64
	end := time.Now().Add(limit)
	enter := func(name int) {
		if n := inside[name].Add(1); n != 1 {
			t.Errorf("%d are inside of %d", n, name)
		}
		time.Sleep(rand.N(300 * time.Microsecond))
		inside[name].Add(-1)
	}
	var all sync.WaitGroup
	// Of a table that is replaced the fixture keeps what is held and not who waits, so
	// that is done between calls.
	var calls sync.RWMutex
	for user := range uint64(users) {
		all.Go(func() {
			for time.Now().Before(end) {
				n := rand.N(names)
				name := fmt.Sprint("lock", n)
				r := w.request(name, user+1, exclusive, whole)
				calls.RLock()
				var err error
				if rand.N(2) == 0 {
					err = w.try(r, 0)
				} else {
					select {
					case err = <-w.wait(r):
					case <-time.After(20 * time.Second):
						err = errors.New("it waits for ever")
					}
				}
				calls.RUnlock()
				switch {
				case err == nil:
					entries.Add(1)
					enter(n)
					w.unlock(name, user+1, whole)
				case errors.Is(err, lockspace.ErrHeld):
					refused.Add(1)
				default:
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	for range strangers {
		all.Go(func() {
			var files [names]*stranger
			for i := range files {
				files[i] = k.stranger(fmt.Sprint("lock", i))
			}
			for time.Now().Before(end) {
				n := rand.N(names)
				cmd := unix.F_OFD_SETLKW
				if rand.N(2) == 0 {
					cmd = unix.F_OFD_SETLK
				}
				if err := files[n].call(cmd, unix.F_WRLCK, whole); err == nil {
					outside.Add(1)
					enter(n)
					files[n].unlock()
				}
				time.Sleep(rand.N(time.Millisecond))
			}
		})
	}
	all.Go(func() {
		for time.Now().Before(end) {
			time.Sleep(rand.N(100 * time.Millisecond))
			if rand.N(4) == 0 {
				k.signal(syscall.SIGSTOP)
				time.Sleep(rand.N(50 * time.Millisecond))
				k.signal(syscall.SIGCONT)
				paused.Add(1)
				continue
			}
			calls.Lock()
			w.replace()
			calls.Unlock()
			replaced.Add(1)
		}
	})
	all.Wait()
	t.Logf("inside %d times, of strangers %d, refused %d, %d workers, %d pauses",
		entries.Load(), outside.Load(), refused.Load(), replaced.Load(), paused.Load())
	if entries.Load() < 50 || outside.Load() < 50 || replaced.Load() < 5 {
		t.Error("it was too tame")
	}
	if len(w.lost) > 0 {
		t.Errorf("lost: %v", w.lost)
	}
	for i := range names {
		s := k.stranger(fmt.Sprint("lock", i))
		eventually(t, "nothing is locked", func() bool { return s.sees(0) == unix.F_UNLCK })
	}
}
