// Package listing keeps what is in a directory in the order in which it came
// there. The place of something in that order is a number that it keeps and that
// is never used again, so a place is a directory offset: whoever reads on from it
// sees everything that was there all the time exactly once, whatever came and
// went meanwhile, as readdir(3) promises; and no snapshot has to be taken.
package listing

import (
	"cmp"
	"iter"
	"slices"
	"sort"
)

// List is things in the order of their places. The zero List is empty. It must
// not be changed during an iteration.
type List[T any] struct {
	slots   []slot[T] // by place, ascending; the last is not removed
	removed int       // how many of them are
}

type slot[T any] struct {
	place uint64
	thing *T // nil: removed
}

// Add appends a thing. place is higher than all before it, or [List.Sort] comes
// before anything else.
func (s *List[T]) Add(place uint64, thing *T) {
	s.slots = append(s.slots, slot[T]{place, thing})
}

// Sort sorts what was added in another order.
func (s *List[T]) Sort() {
	slices.SortFunc(s.slots, func(a, b slot[T]) int { return cmp.Compare(a.place, b.place) })
}

// Grow makes room for n things more.
func (s *List[T]) Grow(n int) { s.slots = slices.Grow(s.slots, n) }

// Remove takes what is at place off the list. Room is made good when half of
// the list is gone, so that a removal costs constant time on average.
func (s *List[T]) Remove(place uint64) {
	s.slots[s.search(place)].thing = nil
	s.removed++
	for n := len(s.slots); n > 0 && s.slots[n-1].thing == nil; n-- {
		s.slots = s.slots[:n-1]
		s.removed--
	}
	if s.removed*2 <= len(s.slots) {
		return
	}
	kept := make([]slot[T], 0, len(s.slots)-s.removed)
	for _, e := range s.slots {
		if e.thing != nil {
			kept = append(kept, e)
		}
	}
	s.slots, s.removed = kept, 0
}

// Last returns the place of the last thing, 0 if there is none.
func (s *List[T]) Last() uint64 {
	if len(s.slots) == 0 {
		return 0
	}
	return s.slots[len(s.slots)-1].place
}

// After returns the things behind a place, which may be one that was removed,
// with each one's place. All are behind 0.
func (s *List[T]) After(place uint64) iter.Seq2[uint64, *T] {
	return func(yield func(uint64, *T) bool) {
		for _, e := range s.slots[s.search(place+1):] {
			if e.thing != nil && !yield(e.place, e.thing) {
				return
			}
		}
	}
}

// All returns the things.
func (s *List[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for _, e := range s.slots {
			if e.thing != nil && !yield(e.thing) {
				return
			}
		}
	}
}

// search returns the index of the first slot at or after place.
func (s *List[T]) search(place uint64) int {
	n := len(s.slots)
	if n > 0 && s.slots[n-1].place == place {
		return n - 1 // the hot case: the last that came is the first to go
	}
	return sort.Search(n, func(i int) bool { return s.slots[i].place >= place })
}
