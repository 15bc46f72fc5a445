// Package numberset keeps which of the 32-bit numbers are taken, and by whom, as
// ranges: a million numbers that were given out one after the other are one range,
// and what changes with a number is one or two of them. It is pure Go and knows
// nothing of locks.
//
// Numbers next to each other are in one range if they have the same owner. So a
// set has at most as many ranges as numbers, and whoever bounds the numbers of an
// owner bounds the memory that he can take.
//
// # Caveats
//
// A [Set] is not safe for concurrent use, and must not be changed while one of its
// iterators runs. It has no bound of its own.
package numberset

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sort"
)

// Range is numbers next to each other that have one owner: First to Last, both
// included.
type Range struct {
	// ID is the range's for as long as it is there, whatever its bounds are.
	ID          uint64
	First, Last uint32
	Owner       uint32
}

// Len returns how many numbers r has: 1 to 2^32.
func (r Range) Len() uint64 { return uint64(r.Last) - uint64(r.First) + 1 }

// Journal is told what becomes of the ranges of a set. Between a call of a method
// of the set and its return they may overlap.
type Journal interface {
	// NewID returns a number that no range has.
	NewID() uint64
	// Put adds a range, or replaces the one with the same ID.
	Put(Range)
	Drop(id uint64)
}

// chunkSize is how many ranges a chunk has at most. One has half of that, or what
// is left of it, so that with a million ranges there are some ten thousand chunks:
// few enough to walk along.
const chunkSize = 256

// Set is numbers that are taken. Use [New].
//
// Its ranges are in chunks, in their order; no chunk is empty. Where a chunk has
// as many numbers as there are between its ends there is no gap in it: who looks
// for the lowest number that is free looks into one chunk only.
type Set struct {
	journal Journal
	chunks  []*chunk
	n       uint64
}

type chunk struct {
	ranges []Range
	n      uint64 // numbers
}

func (c *chunk) first() uint32 { return c.ranges[0].First }
func (c *chunk) last() uint32  { return c.ranges[len(c.ranges)-1].Last }

// isWhole reports whether there is no gap in it.
func (c *chunk) isWhole() bool { return c.n == uint64(c.last())-uint64(c.first())+1 }

// New returns an empty set.
func New(j Journal) *Set { return &Set{journal: j} }

// ErrOverlap: ranges that cannot be those of one set.
var ErrOverlap = errors.New("ranges overlap")

// Load fills an empty set with the ranges that its journal was told of, in any
// order; that is not told again. It keeps none of them if there is an error:
// [ErrOverlap].
func (s *Set) Load(ranges []Range) error {
	ranges = slices.SortedFunc(slices.Values(ranges), func(a, b Range) int {
		return cmp.Compare(a.First, b.First)
	})
	for i, r := range ranges {
		if r.First > r.Last || i > 0 && ranges[i-1].Last >= r.First {
			return fmt.Errorf("%d to %d: %w", r.First, r.Last, ErrOverlap)
		}
	}
	for some := range slices.Chunk(ranges, chunkSize/2) {
		c := &chunk{ranges: slices.Clone(some)}
		for _, r := range some {
			c.n += r.Len()
		}
		s.chunks = append(s.chunks, c)
		s.n += c.n
	}
	return nil
}

// place is where a range is: its chunk, and where in that.
type place struct{ chunk, at int }

// at returns the place of the last range that begins at n or before. ok is false
// if there is none.
func (s *Set) at(n uint32) (p place, ok bool) {
	p.chunk = sort.Search(len(s.chunks), func(i int) bool { return s.chunks[i].first() > n }) - 1
	if p.chunk < 0 {
		return p, false
	}
	ranges := s.chunks[p.chunk].ranges
	p.at = sort.Search(len(ranges), func(i int) bool { return ranges[i].First > n }) - 1
	return p, true
}

func (s *Set) get(p place) Range { return s.chunks[p.chunk].ranges[p.at] }

// after returns the place behind another. ok is false if nothing is there.
func (s *Set) after(p place) (next place, ok bool) {
	if p.at+1 < len(s.chunks[p.chunk].ranges) {
		return place{p.chunk, p.at + 1}, true
	}
	return place{p.chunk + 1, 0}, p.chunk+1 < len(s.chunks)
}

// replace puts r, which has other bounds than before, where it is.
func (s *Set) replace(p place, r Range) {
	c := s.chunks[p.chunk]
	s.count(c, r.Len()-c.ranges[p.at].Len())
	c.ranges[p.at] = r
	s.journal.Put(r)
}

// count adds to how many numbers there are; what is taken away has gone below 0
// and round.
func (s *Set) count(c *chunk, n uint64) {
	c.n += n
	s.n += n
}

// insert adds a range that is new, at a place.
func (s *Set) insert(p place, r Range) {
	r.ID = s.journal.NewID()
	s.journal.Put(r)
	if len(s.chunks) == 0 {
		s.chunks = []*chunk{{}}
	}
	c := s.chunks[p.chunk]
	c.ranges = slices.Insert(c.ranges, p.at, r)
	s.count(c, r.Len())
	if len(c.ranges) <= chunkSize {
		return
	}
	upper := &chunk{ranges: slices.Clone(c.ranges[chunkSize/2:])}
	for _, r := range upper.ranges {
		upper.n += r.Len()
	}
	c.ranges = slices.Clone(c.ranges[:chunkSize/2])
	c.n -= upper.n
	s.chunks = slices.Insert(s.chunks, p.chunk+1, upper)
}

// remove takes a range away.
func (s *Set) remove(p place) {
	c := s.chunks[p.chunk]
	r := c.ranges[p.at]
	s.journal.Drop(r.ID)
	s.count(c, -r.Len())
	if c.ranges = slices.Delete(c.ranges, p.at, p.at+1); len(c.ranges) == 0 {
		s.chunks = slices.Delete(s.chunks, p.chunk, p.chunk+1)
	}
}

// Add takes a number for an owner, and reports whether it was free.
func (s *Set) Add(n, owner uint32) bool {
	below, some := s.at(n)
	next, more := below, len(s.chunks) > 0 // the first of all, if there is none below
	if some {
		if s.get(below).Last >= n {
			return false
		}
		next, more = s.after(below)
	} else {
		next = place{}
	}
	joins := some && s.get(below).Owner == owner && s.get(below).Last+1 == n
	joinsNext := more && s.get(next).Owner == owner && s.get(next).First-1 == n
	switch {
	case joins && joinsNext:
		r := s.get(below)
		r.Last = s.get(next).Last
		s.remove(next)
		s.replace(below, r)
	case joins:
		r := s.get(below)
		r.Last = n
		s.replace(below, r)
	case joinsNext:
		r := s.get(next)
		r.First = n
		s.replace(next, r)
	case some:
		s.insert(place{below.chunk, below.at + 1}, Range{First: n, Last: n, Owner: owner})
	default:
		s.insert(place{}, Range{First: n, Last: n, Owner: owner})
	}
	return true
}

// Remove frees a number, and returns whose it was. ok is false if it was free.
func (s *Set) Remove(n uint32) (owner uint32, ok bool) {
	p, ok := s.at(n)
	if !ok || s.get(p).Last < n {
		return 0, false
	}
	r := s.get(p)
	lower, upper := r, r
	lower.Last, upper.First = n-1, n+1
	switch {
	case r.First == r.Last:
		s.remove(p)
	case r.First == n:
		s.replace(p, upper)
	case r.Last == n:
		s.replace(p, lower)
	default:
		s.replace(p, lower)
		s.insert(place{p.chunk, p.at + 1}, upper)
	}
	return r.Owner, true
}

// Has reports whether a number is taken.
func (s *Set) Has(n uint32) bool {
	p, ok := s.at(n)
	return ok && s.get(p).Last >= n
}

// Lowest returns the lowest number that is free. ok is false if there is none.
func (s *Set) Lowest() (n uint32, ok bool) {
	free := uint64(0) // at the least
	for _, c := range s.chunks {
		if uint64(c.first()) > free {
			break
		}
		if c.isWhole() {
			free = uint64(c.last()) + 1
			continue
		}
		for _, r := range c.ranges {
			if uint64(r.First) > free {
				break
			}
			free = uint64(r.Last) + 1
		}
		break
	}
	return uint32(free), free <= math.MaxUint32
}

// Last returns the highest number that is taken. ok is false if none is.
func (s *Set) Last() (n uint32, ok bool) {
	if len(s.chunks) == 0 {
		return 0, false
	}
	return s.chunks[len(s.chunks)-1].last(), true
}

// Len returns how many numbers are taken: 0 to 2^32.
func (s *Set) Len() uint64 { return s.n }

// Below returns how many numbers below a bound are taken.
func (s *Set) Below(bound uint64) (n uint64) {
	for _, c := range s.chunks {
		if uint64(c.last()) < bound {
			n += c.n
			continue
		}
		for _, r := range c.ranges {
			if uint64(r.First) >= bound {
				break
			}
			n += min(bound-uint64(r.First), r.Len())
		}
		break
	}
	return n
}

// From returns the numbers that are taken, in their order, from n on.
func (s *Set) From(n uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		p, more := s.at(n)
		if !more {
			p, more = place{}, len(s.chunks) > 0
		}
		for ; more; p, more = s.after(p) {
			r := s.get(p)
			for i := uint64(max(n, r.First)); i <= uint64(r.Last); i++ {
				if !yield(uint32(i)) {
					return
				}
			}
		}
	}
}

// Ranges returns the ranges, in the order of their numbers.
func (s *Set) Ranges() iter.Seq[Range] {
	return func(yield func(Range) bool) {
		for _, c := range s.chunks {
			for _, r := range c.ranges {
				if !yield(r) {
					return
				}
			}
		}
	}
}
