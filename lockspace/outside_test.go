package lockspace

import (
	"errors"
	"slices"
)

// errOutside is what a mirror fails with.
var errOutside = errors.New("the mirror is broken")

// outside is a fake mirror: strangers hold what they like, and it fails the test if
// anything is held that it has not covered.
type outside struct {
	fail func(format string, args ...any)
	// strangers are holds outside of the table.
	strangers map[Key][]strange
	// closed are locks of which nothing can be said within a step.
	closed map[Key]bool
	// broken are the requests that fail; nil: none.
	broken func(*Request) bool
	// covered is what it has for the table, by cell: 0 nothing, else the mode
	// above it.
	covered map[Key]*[cells]Mode
	settled map[Key][]Hold
	awaited map[Key][]Request
}

// strange is what a stranger holds.
type strange struct {
	has  cellSet
	mode Mode
}

func newOutside(fail func(string, ...any)) *outside {
	return &outside{
		fail:      fail,
		strangers: make(map[Key][]strange),
		closed:    make(map[Key]bool),
		covered:   make(map[Key]*[cells]Mode),
		settled:   make(map[Key][]Hold),
		awaited:   make(map[Key][]Request),
	}
}

// keepsOut reports whether strangers keep r out.
func (o *outside) keepsOut(r *Request) bool {
	return slices.ContainsFunc(o.strangers[r.Key], func(s strange) bool {
		return (s.mode == Exclusive || r.Mode == Exclusive) && s.has.overlaps(cellsOf(r.Range))
	})
}

func (o *outside) Cover(r *Request) error {
	switch {
	case o.broken != nil && o.broken(r):
		return errOutside
	case o.closed[r.Key]:
		return ErrLookup
	case o.keepsOut(r):
		return ErrForeign
	}
	c := o.covered[r.Key]
	if c == nil {
		c = new([cells]Mode)
		o.covered[r.Key] = c
	}
	for i, in := range cellsOf(r.Range) {
		if in {
			c[i] = max(c[i], r.Mode+1)
		}
	}
	return nil
}

func (o *outside) Await(r *Request) {
	if !o.closed[r.Key] && !o.keepsOut(r) {
		o.fail("mirror: told to wait for nobody, %v", *r)
	}
	o.awaited[r.Key] = append(o.awaited[r.Key], *r)
}

// Settled takes back what is not held, as it may from now on.
func (o *outside) Settled(k Key, holds []*Hold) {
	var held [cells]Mode
	list := make([]Hold, 0, len(holds))
	for _, h := range holds {
		list = append(list, *h)
		for i, in := range cellsOf(h.Range) {
			if in {
				held[i] = max(held[i], h.Mode+1)
			}
		}
	}
	c := o.covered[k]
	if c == nil {
		c = new([cells]Mode)
	}
	for i := range held {
		if held[i] > c[i] {
			o.fail("mirror: %v has holds that were not covered: %v", k, list)
		}
	}
	if len(list) == 0 {
		delete(o.settled, k)
		delete(o.covered, k)
		return
	}
	o.settled[k], o.covered[k] = list, &held
}

// take makes a stranger hold something, if nothing is in his way.
func (o *outside) take(k Key, s strange) bool {
	for _, other := range o.strangers[k] {
		if (other.mode == Exclusive || s.mode == Exclusive) && other.has.overlaps(s.has) {
			return false
		}
	}
	if c := o.covered[k]; c != nil {
		for i, in := range s.has {
			if in && c[i] > 0 && (c[i]-1 == Exclusive || s.mode == Exclusive) {
				return false
			}
		}
	}
	o.strangers[k] = append(o.strangers[k], s)
	return true
}

// check fails the test unless the mirror knows what is held, and each wait that
// nothing in the table blocks is one that it was told of.
func (o *outside) check(t *Table) {
	for k, l := range t.locks {
		if l.grace {
			continue // it is told when that is over
		}
		if !slices.EqualFunc(o.settled[k], l.holds, func(a Hold, b *Hold) bool {
			return a.Token == b.Token && a.Range == b.Range && a.Mode == b.Mode
		}) {
			o.fail("mirror: %v is held by %v, it was told %v", k, l.holds, o.settled[k])
		}
		for w := l.first; w != nil; w = w.next {
			if w.isAbsent() {
				continue
			}
			if blocked, err := t.blocked(l, &w.Request, w.Place); !blocked && err == nil && !slices.Contains(o.awaited[k], w.Request) {
				o.fail("mirror: not told that %v waits", w.Wait)
			}
		}
	}
	for k := range o.settled {
		if l := t.locks[k]; l == nil || len(l.holds) == 0 && !l.grace {
			o.fail("mirror: %v is free, and it was not told", k)
		}
	}
}
