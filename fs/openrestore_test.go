package fs_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
)

// Records of an OPEN that waits which contradict others are damaged.
func TestRestoreRefusesOpens(t *testing.T) {
	for name, change := range map[string]func(w *lockspace.Wait, other file){
		"as it can be":           func(*lockspace.Wait, file) {},
		"absent, of no node":     func(w *lockspace.Wait, _ file) { w.AbsentUntil, w.Party.File = 1<<50, 99 },
		"!of no node":            func(w *lockspace.Wait, _ file) { w.Party.File = 99 },
		"!of a directory":        func(w *lockspace.Wait, _ file) { w.Party.File = 1 },
		"!of another name":       func(w *lockspace.Wait, _ file) { w.Key.Name = "z" },
		"!with no name":          func(w *lockspace.Wait, _ file) { w.Key.Name = "" },
		"!for an open file":      func(w *lockspace.Wait, f file) { w.Party.Handle = f.handle },
		"!for some bytes":        func(w *lockspace.Wait, _ file) { w.Range.Last = 5 },
		"!for as long as a name": func(w *lockspace.Wait, _ file) { w.ByName = true },
	} {
		s, records, _ := serveOpen(t)
		f := s.mustCreate("x", 0)
		w := openWait("x", f.node, f.handle+1)
		change(w, f)
		fs.NewRecords(records, new(fs.Saved)).PutWait(w)
		var saved fs.Saved
		var err error
		for k, data := range records {
			err = errors.Join(err, saved.Load(uint8(k[0]), k[1], data))
		}
		if err == nil {
			o := s.options
			o.Journal = fs.Discard{}
			_, err = fs.Restore(o, &saved)
		}
		if wrong := strings.HasPrefix(name, "!"); errors.Is(err, fs.ErrRecord) != wrong || !wrong && err != nil {
			t.Errorf("an OPEN %s: %v", name, err)
		}
	}
}

// Opens, closes, interrupts and deaths at random: nobody is beside a writer, the
// first in the queue gets in, and what was written is found.
func TestOpensAtRandom(t *testing.T) {
	type waiter struct {
		unique uint64
		mode   uint32
	}
	for seed := range uint64(20) {
		s, records, tokens := serveOpen(t)
		rng := rand.New(rand.NewPCG(seed, 9))
		first := s.mustCreate("x", 0)
		node, holders, writers, body := first.node, []file{first}, 1, ""
		var queue []waiter
		enter := func() {
			for len(queue) > 0 && (len(holders) == 0 || writers == 0 && queue[0].mode == unix.O_RDONLY) {
				holders = append(holders, s.opened(queue[0].unique, node))
				if queue[0].mode != unix.O_RDONLY {
					writers = 1
				}
				queue = queue[1:]
			}
		}
		for range 200 {
			s.caller.pid++ // nobody comes back to his place
			mode := []uint32{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR}[rng.IntN(3)]
			busy := len(queue) > 0 || writers > 0 || len(holders) > 0 && mode != unix.O_RDONLY
			switch op := rng.IntN(8); {
			case op == 0:
				s.restore(records, tokens)
			case op < 3 && len(queue) < 10:
				u := s.startOpen(node, mode)
				if s.pending(u) != busy {
					t.Fatalf("seed %d: it waits %v, with %d inside, %d writers and %d before it", seed, !busy, len(holders), writers, len(queue))
				}
				if queue = append(queue, waiter{u, mode}); !busy {
					enter()
				}
			case op == 3:
				r := s.call(opOpen, node, u32(mode|unix.O_NONBLOCK), u32(0))
				if want := map[bool]syscall.Errno{true: unix.ETXTBSY}[busy]; r.errno != want {
					t.Fatalf("seed %d: O_NONBLOCK: %v, want %v", seed, r.errno, want)
				}
				if !busy {
					s.release(file{node, native.Uint64(r.body)})
				}
			case op == 4 && len(queue) > 0:
				i := rng.IntN(len(queue))
				s.send(opInterrupt, 0, u64(queue[i].unique))
				if r := s.await(queue[i].unique); r.errno != unix.EINTR {
					t.Fatalf("seed %d: interrupted: %v", seed, r.errno)
				}
				queue = append(queue[:i], queue[i+1:]...)
				enter()
			case op == 5 && len(holders) > 0:
				if writers > 0 {
					body = fmt.Sprint(100000 + rng.IntN(100000))
					if e := s.write(holders[0], 0, body); e != 0 {
						t.Fatalf("seed %d: write: %v", seed, e)
					}
				}
				if text, _ := s.read(holders[0], 0, 100); body != "" && text != body {
					t.Fatalf("seed %d: it reads %q, want %q", seed, text, body)
				}
				if e := s.call(opUnlink, 1, cstring("x")).errno; e != unix.EBUSY {
					t.Fatalf("seed %d: unlink: %v", seed, e)
				}
			case op > 5 && len(holders) > 0:
				i := rng.IntN(len(holders))
				s.release(holders[i])
				if holders = append(holders[:i], holders[i+1:]...); len(holders) == 0 {
					writers = 0
				}
				enter()
			}
			for _, w := range queue {
				if !s.pending(w.unique) {
					t.Fatalf("seed %d: too many inside", seed)
				}
			}
		}
		for _, w := range queue {
			s.send(opInterrupt, 0, u64(w.unique))
			s.await(w.unique)
		}
		for _, f := range holders {
			s.release(f)
		}
		s.send(opForget, node, u64(1))
		s.pending(0)
		left := map[uint64]int{}
		s.conn.Do(func() { // places lapse meanwhile
			for k := range records {
				left[k[0]]++
			}
		})
		const kindNode, kindHandle, kindHold, kindEntry = 1, 2, 4, 9
		if left[kindNode] != 1 || left[kindHandle] != 0 || left[kindHold] != 0 || left[kindEntry] != 1 {
			t.Fatalf("seed %d: left behind: %v records by kind; want the root's node, and the name", seed, left)
		}
	}
}
