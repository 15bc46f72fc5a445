package lockspace

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
)

// heard is a Listener that knows the table from what it is told, and fails on
// what breaks the law above [Listener]. Every test with a world has one, and
// compares it with the table after each step.
type heard struct {
	fail func(format string, args ...any)
	// held are the ranges of each token that have not left; taken are all tokens
	// that there were.
	held  map[uint64][]Range
	taken map[uint64]bool
	waits map[WaitID]bool
	lines []string
}

func newHeard(fail func(string, ...any)) *heard {
	return &heard{fail: fail, held: make(map[uint64][]Range), taken: make(map[uint64]bool), waits: make(map[WaitID]bool)}
}

func (e *heard) say(format string, args ...any) {
	e.lines = append(e.lines, fmt.Sprintf(format, args...))
}

func (e *heard) over(after *Wait) string {
	if after == nil {
		return ""
	}
	if !e.waits[after.ID] {
		e.fail("wait %d is over and had not begun", after.ID)
	}
	delete(e.waits, after.ID)
	return fmt.Sprintf(" after wait %d", after.ID)
}

func (e *heard) Took(h *Hold, after *Wait) {
	e.say("took %d: %v %v%s", h.Token, h.Mode, h.Range, e.over(after))
	switch {
	case !e.taken[h.Token]:
		e.taken[h.Token] = true
		e.held[h.Token] = []Range{h.Range}
	case after == nil || !slices.Contains(e.held[h.Token], h.Range):
		e.fail("token %d is taken a second time", h.Token)
	}
}

func (e *heard) Left(h *Hold, r Range, why Reason) {
	e.say("left %d: %v %v", h.Token, r, why)
	i := slices.IndexFunc(e.held[h.Token], func(had Range) bool { return had.Covers(r) })
	if i < 0 {
		e.fail("%v leaves token %d, which has %v", r, h.Token, e.held[h.Token])
		return
	}
	parts, n := e.held[h.Token][i].minus(r)
	e.held[h.Token] = slices.Replace(e.held[h.Token], i, i+1, parts[:n]...)
	if len(e.held[h.Token]) == 0 {
		delete(e.held, h.Token)
	}
}

func (e *heard) Waits(w *Wait) {
	e.say("wait %d: %v %v", w.ID, w.Mode, w.Range)
	if e.waits[w.ID] || w.AbsentUntil != 0 {
		e.fail("wait %d begins twice, or absent", w.ID)
	}
	e.waits[w.ID] = true
}

func (e *heard) Denied(r *Request, after *Wait, err error) {
	e.say("denied: %v %v%s: %v", r.Mode, r.Range, e.over(after), err)
	if err == nil || errors.Is(err, ErrLookup) {
		e.fail("denied because of %v", err)
	}
}

// check compares what was heard with the table.
func (e *heard) check(t *Table) {
	held, waits := make(map[uint64][]Range), make(map[WaitID]bool)
	for _, l := range t.locks {
		for _, h := range l.holds {
			held[h.Token] = append(held[h.Token], h.Range)
		}
	}
	for _, ranges := range []map[uint64][]Range{held, e.held} {
		for _, list := range ranges {
			slices.SortFunc(list, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
		}
	}
	for id, w := range t.waits {
		if !w.isAbsent() {
			waits[id] = true
		}
	}
	if !reflect.DeepEqual(held, e.held) || !maps.Equal(waits, e.waits) {
		e.fail("who listens knows of the tokens\n%v\nand the waits %v; the table has\n%v\nand %v", e.held, e.waits, held, waits)
	}
}

// What is told, in its order, of the calls of fcntl(2) and of waits.
func TestWhatAListenerIsTold(t *testing.T) {
	k := Key{1, "x"}
	fcntl := func(who uint64, mode Mode, first, last uint64) Request {
		r := benchRequest(who, k, ViaFcntl, Range{first, last})
		r.Mode = mode
		return r
	}
	flock := func(who uint64) Request { return benchRequest(who, k, ViaFlock, Whole) }
	for _, c := range []struct {
		name string
		do   func(w *world)
		want []string
	}{
		{"merge", func(w *world) {
			_ = w.table.Try(fcntl(1, Exclusive, 0, 9))
			_ = w.table.Try(fcntl(1, Exclusive, 10, 19))
			_ = w.table.Try(fcntl(1, Exclusive, 3, 7)) // has it
		}, []string{"took 1: exclusive 0-9", "left 1: 0-9 replaced", "took 2: exclusive 0-19"}},
		{"conversion of a part", func(w *world) {
			_ = w.table.Try(fcntl(1, Exclusive, 0, 9))
			_ = w.table.Try(fcntl(1, Shared, 3, 4))
			w.table.Unlock(k, fcntl(1, Shared, 0, 0).Party, ViaFcntl, Range{2, 3})
			w.table.EndHandle(k, 1, Released)
		}, []string{"took 1: exclusive 0-9", "left 1: 3-4 replaced", "took 2: shared 3-4",
			"left 1: 2-2 released", "left 2: 3-3 released", "left 1: 5-9 released", "left 1: 0-1 released", "left 2: 4-4 released"}},
		{"waits", func(w *world) {
			_ = w.table.Try(flock(1))
			_ = w.table.Try(flock(2))
			_, _ = w.table.Acquire(flock(3), 7)
			_, _ = w.table.Acquire(flock(4), 8)
			w.table.Cancel(8)
			w.table.End(k, func(*Hold) Reason { return Broken })
		}, []string{"took 1: exclusive 0-end", "denied: exclusive 0-end: held by another", "wait 7: exclusive 0-end",
			"wait 8: exclusive 0-end", "denied: exclusive 0-end after wait 8: the wait was interrupted",
			"left 1: 0-end broken", "took 2: exclusive 0-end after wait 7"}},
		{"deadlock", func(w *world) {
			other := func(who uint64) Request { r := fcntl(who, Exclusive, 0, 0); r.Key.Name = "y"; return r }
			_ = w.table.Try(fcntl(1, Exclusive, 0, 0))
			_ = w.table.Try(other(2))
			_, _ = w.table.Acquire(other(1), 7)
			_, _ = w.table.Acquire(fcntl(2, Exclusive, 0, 0), 8)
		}, []string{"took 1: exclusive 0-0", "took 2: exclusive 0-0", "wait 7: exclusive 0-0",
			"denied: exclusive 0-0: waiting would be a deadlock"}},
		{"the end", func(w *world) {
			_ = w.table.Try(flock(1))
			_, _ = w.table.Acquire(flock(3), 7)
			w.table.Shutdown()
		}, []string{"took 1: exclusive 0-end", "wait 7: exclusive 0-end",
			"denied: exclusive 0-end after wait 7: the lock service is shutting down"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			c.do(w)
			w.check()
			if !slices.Equal(w.heard.lines, c.want) {
				t.Errorf("told was\n%q\nwant\n%q", w.heard.lines, c.want)
			}
		})
	}
}

// Nobody need listen.
func TestNobodyListens(t *testing.T) {
	w := newWorld(t)
	w.table.Listen(nil)
	r := benchRequest(1, Key{1, "x"}, ViaFlock, Whole)
	_ = w.table.Try(r)
	_, _ = w.table.Acquire(benchRequest(2, r.Key, ViaFlock, Whole), 7)
	w.table.Cancel(7)
	w.table.EndHandle(r.Key, 1, Released)
	if len(w.heard.lines) > 0 {
		t.Errorf("told was %q", w.heard.lines)
	}
}
