package lockspace

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func names(t *Table, dir, after uint64) (list []string) {
	t.List(dir, after, func(place uint64, name string) bool {
		list = append(list, name)
		return true
	})
	return list
}

// A listing shows what is held, in the order in which it became held.
func TestList(t *testing.T) {
	w := newWorld(t)
	request := func(dir uint64, name string, handle uint64) Request {
		return Request{Key: Key{dir, name}, Via: ViaFlock, Mode: Exclusive, Range: Whole, Party: Party{Handle: handle}}
	}
	take := func(name string, handle uint64) {
		t.Helper()
		wantErr(t, name, w.Try(request(1, name, handle)), nil)
	}
	want := func(list ...string) {
		t.Helper()
		if got := names(w.table, 1, 0); !slices.Equal(got, list) {
			t.Fatalf("listed are %q, want %q", got, list)
		}
	}
	want()
	take("c", 1)
	take("a", 2)
	take("b", 3)
	wantErr(t, "in another directory", w.Try(request(2, "d", 4)), nil)
	want("c", "a", "b")
	w.EndHandle(Key{1, "a"}, 2, Released)
	want("c", "b")
	take("a", 5)
	want("c", "b", "a")
	// A lock that changes hands stays where it is.
	if granted, err := w.Acquire(request(1, "c", 6), 1); granted || err != nil {
		t.Fatal(granted, err)
	}
	w.EndHandle(Key{1, "c"}, 1, Released)
	want("c", "b", "a")
	if !w.table.Held(Key{1, "c"}) || w.table.Held(Key{1, "d"}) || w.table.Held(Key{1, "e"}) {
		t.Fatal("Held says otherwise than List")
	}
	w.crash()
	want("c", "b", "a")
	for _, k := range []Key{{1, "c"}, {1, "b"}, {1, "a"}} {
		w.End(k, func(*Hold) Reason { return Released })
	}
	want()
}

// Whoever reads a directory in pieces sees every name that is there all the
// time exactly once, whatever comes and goes meanwhile (readdir(3)).
func TestListCursor(t *testing.T) {
	const stay, passing = 40, 40
	random := rand.New(rand.NewPCG(1, 2))
	for piece := 1; piece <= 7; piece++ {
		w := newWorld(t)
		handle := uint64(0)
		toggle := func(name string) {
			k := Key{1, name}
			if w.table.Held(k) {
				w.End(k, func(*Hold) Reason { return Released })
				return
			}
			handle++
			r := Request{Key: k, Via: ViaExcl, Mode: Exclusive, Range: Whole, Party: Party{Handle: handle}}
			wantErr(t, name, w.Try(r), nil)
		}
		for i := range stay {
			toggle(fmt.Sprint("stays", i))
			for range 2 {
				toggle(fmt.Sprint("passes", random.IntN(passing)))
			}
		}
		seen := make(map[string]int)
		for at, more := uint64(0), true; more; {
			more = false
			n := 0
			w.table.List(1, at, func(place uint64, name string) bool {
				if n++; n > piece {
					return false
				}
				if place <= at {
					t.Fatalf("place %d after %d", place, at)
				}
				at, more = place, true
				seen[name]++
				return true
			})
			for range 10 {
				toggle(fmt.Sprint("passes", random.IntN(passing)))
			}
			// What comes has a higher place: the reader ends only when it stops.
			if len(seen) > stay+passing/2 {
				for i := range passing {
					if name := fmt.Sprint("passes", i); w.table.Held(Key{1, name}) {
						toggle(name)
					}
				}
			}
		}
		for i := range stay {
			if name := fmt.Sprint("stays", i); seen[name] != 1 {
				t.Fatalf("in pieces of %d, %s was seen %d times", piece, name, seen[name])
			}
		}
	}
}

// A directory in which nothing is held costs nothing.
func TestListingsAreForgotten(t *testing.T) {
	w := newWorld(t)
	for dir := range uint64(100) {
		r := Request{Key: Key{dir, "L"}, Via: ViaExcl, Mode: Exclusive, Range: Whole, Party: Party{Handle: dir + 1}}
		wantErr(t, "take", w.Try(r), nil)
		w.EndHandle(r.Key, r.Party.Handle, Released)
	}
	if n := len(w.table.listings); n > 1 {
		t.Fatalf("%d listings of empty directories", n)
	}
}

// Waiting, Held, Holds and Len see the present, and absent waits only in Len.
func TestCounts(t *testing.T) {
	w := newWorld(t)
	key := Key{1, "L"}
	want := func(locks, holds, waits, waiting int) {
		t.Helper()
		l, h, q := w.table.Len()
		if l != locks || h != holds || q != waits || w.table.Waiting(key) != waiting {
			t.Fatalf("%d locks, %d holds, %d waits, %d waiting; want %d, %d, %d, %d", l, h, q, w.table.Waiting(key), locks, holds, waits, waiting)
		}
		n := 0
		for range w.table.Holds(key) {
			n++
		}
		if n != holds || w.table.Held(key) != (holds > 0) {
			t.Fatalf("%d holds, held %v; want %d", n, w.table.Held(key), holds)
		}
	}
	request := func(handle uint64, mode Mode) Request {
		return Request{Key: key, Via: ViaFlock, Mode: mode, Range: Whole, Party: Party{Handle: handle}}
	}
	want(0, 0, 0, 0)
	wantErr(t, "a", w.Try(request(1, Shared)), nil)
	wantErr(t, "b", w.Try(request(2, Shared)), nil)
	want(1, 2, 0, 0)
	for handle := uint64(3); handle < 5; handle++ {
		if _, err := w.Acquire(request(handle, Exclusive), WaitID(handle)); err != nil {
			t.Fatal(err)
		}
	}
	want(1, 2, 2, 2)
	w.Cancel(3)
	want(1, 2, 2, 1)
	for range w.table.Holds(key) {
		break // an iteration may be left early
	}
	w.EndHandle(key, 1, Released)
	w.EndHandle(key, 2, Released)
	want(1, 1, 1, 0)
	w.EndHandle(key, 4, Released)
	want(1, 0, 1, 0)
	w.clock.advance(ResumeGrace)
	w.Expire()
	want(0, 0, 0, 0)
}
