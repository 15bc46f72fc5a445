package numberset

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// records is a [Journal] that keeps the ranges.
type records struct {
	last   uint64
	ranges map[uint64]Range
	puts   int
}

func newRecords() *records { return &records{ranges: make(map[uint64]Range)} }

func (j *records) NewID() uint64 { j.last++; return j.last }
func (j *records) Put(r Range)   { j.ranges[r.ID] = r; j.puts++ }
func (j *records) Drop(id uint64) {
	if _, ok := j.ranges[id]; !ok {
		panic("dropped twice")
	}
	delete(j.ranges, id)
}

// checkInvariants fails the test unless the set is well made, and the journal was
// told what it is.
func (s *Set) checkInvariants(t rapid.TB, j *records) {
	t.Helper()
	var all uint64
	var before *Range
	told := maps.Clone(j.ranges)
	for _, c := range s.chunks {
		if len(c.ranges) == 0 || len(c.ranges) > chunkSize {
			t.Fatalf("a chunk of %d ranges", len(c.ranges))
		}
		var n uint64
		for i := range c.ranges {
			r := &c.ranges[i]
			n += r.Len()
			if r.First > r.Last {
				t.Fatalf("range %+v", *r)
			}
			if before != nil && (before.Last >= r.First || before.Last+1 == r.First && before.Owner == r.Owner) {
				t.Fatalf("%+v is before %+v", *before, *r)
			}
			if told[r.ID] != *r {
				t.Fatalf("the journal has %+v, the set %+v", told[r.ID], *r)
			}
			delete(told, r.ID)
			before = r
		}
		if c.n != n {
			t.Fatalf("a chunk counts %d numbers and has %d", c.n, n)
		}
		all += n
	}
	if s.Len() != all || len(told) > 0 {
		t.Fatalf("counts %d numbers and has %d; the journal has %v besides", s.Len(), all, told)
	}
}

// A set does what a map does, whatever is done to it, and over any number of
// journals that it is loaded from.
func TestSetIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j, model := newRecords(), map[uint32]uint32{}
		s := New(j)
		// Near both ends, so that what is next to each other meets, and nothing goes
		// round.
		number := rapid.Custom(func(t *rapid.T) uint32 {
			n := rapid.Uint32Range(0, 40).Draw(t, "n")
			if rapid.Bool().Draw(t, "high") {
				return math.MaxUint32 - n
			}
			return n
		})
		lowest := func() uint32 {
			for n := uint32(0); ; n++ {
				if _, taken := model[n]; !taken {
					return n
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n, owner := number.Draw(t, "number"), rapid.Uint32Range(1, 2).Draw(t, "owner")
				_, taken := model[n]
				if s.Add(n, owner) == taken {
					t.Fatalf("add %d: taken is %v", n, taken)
				}
				if !taken {
					model[n] = owner
				}
			},
			"add the lowest": func(t *rapid.T) {
				n, ok := s.Lowest()
				if want := lowest(); !ok || n != want {
					t.Fatalf("the lowest is %d %v, want %d", n, ok, want)
				}
				s.Add(n, 1)
				model[n] = 1
			},
			"remove": func(t *rapid.T) {
				n := number.Draw(t, "number")
				want, taken := model[n]
				if owner, ok := s.Remove(n); ok != taken || owner != want {
					t.Fatalf("remove %d: %d %v, want %d %v", n, owner, ok, want, taken)
				}
				delete(model, n)
			},
			"load": func(*rapid.T) {
				s = New(j)
				if err := s.Load(slices.Collect(maps.Values(j.ranges))); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				s.checkInvariants(t, j)
				want := slices.Sorted(maps.Keys(model))
				from := number.Draw(t, "from")
				i, has := slices.BinarySearch(want, from)
				if got := slices.Collect(s.From(from)); !slices.Equal(got, want[i:]) || s.Has(from) != has {
					t.Fatalf("from %d there are %v, want %v; has %v", from, got, want[i:], s.Has(from))
				}
				if n := s.Below(uint64(from)); n != uint64(i) {
					t.Fatalf("%d are below %d, want %d", n, from, i)
				}
				last, some := s.Last()
				if some != (len(want) > 0) || some && last != want[len(want)-1] {
					t.Fatalf("the last of %v is %d", want, last)
				}
			},
		})
	})
}

// So many ranges that there are many chunks, made and taken apart in any order.
func TestManyRanges(t *testing.T) {
	const many = 20 * chunkSize
	j := newRecords()
	s := New(j)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, i := range rng.Perm(many) {
		s.Add(uint32(2*i), 1) // no two are next to each other
	}
	s.checkInvariants(t, j)
	if len(j.ranges) != many {
		t.Fatalf("%d ranges, want %d", len(j.ranges), many)
	}
	for i := range uint32(many) {
		if n, ok := s.Lowest(); !ok || n != 2*i+1 {
			t.Fatalf("the lowest is %d, want %d", n, 2*i+1)
		}
		s.Add(2*i+1, 1)
	}
	s.checkInvariants(t, j)
	if len(j.ranges) != 1 || s.Len() != 2*many {
		t.Fatalf("%d numbers in %d ranges, want %d in one", s.Len(), len(j.ranges), 2*many)
	}
	for _, i := range rng.Perm(2 * many) {
		s.Remove(uint32(i))
		if i%64 == 0 {
			s.checkInvariants(t, j)
		}
	}
	if s.Len() != 0 || len(j.ranges) != 0 || len(s.chunks) != 0 {
		t.Fatalf("%d numbers are left, %d ranges", s.Len(), len(j.ranges))
	}
}

// All there are.
func TestAllNumbers(t *testing.T) {
	s := New(newRecords())
	if err := s.Load([]Range{{ID: 1, First: 0, Last: math.MaxUint32}}); err != nil {
		t.Fatal(err)
	}
	if n, ok := s.Lowest(); ok || s.Len() != 1<<32 || s.Below(1<<32) != 1<<32 || s.Below(7) != 7 || s.Add(5, 1) {
		t.Fatalf("of all that are taken %d is free, %d are taken", n, s.Len())
	}
	s.Remove(math.MaxUint32)
	if n, ok := s.Lowest(); !ok || n != math.MaxUint32 {
		t.Fatalf("the last is not free: %d %v", n, ok)
	}
	s.Remove(0)
	if n, ok := s.Lowest(); !ok || n != 0 {
		t.Fatalf("the first is not free: %d %v", n, ok)
	}
}

// What one number changes is little, however many there are.
func TestAChangeIsSmall(t *testing.T) {
	j := newRecords()
	s := New(j)
	if err := s.Load([]Range{{ID: 1, First: 0, Last: 1 << 20}}); err != nil {
		t.Fatal(err)
	}
	j.ranges[1], j.last = Range{ID: 1, First: 0, Last: 1 << 20}, 1
	for n := uint32(1); n < 1<<20; n += 1000 {
		before := j.puts
		s.Remove(n)
		s.Add(n, 0)
		if changes := j.puts - before; changes > 3 {
			t.Fatalf("%d changes for one number", changes)
		}
	}
	s.checkInvariants(t, j)
}

func TestLoadRefusesWhatOverlaps(t *testing.T) {
	for name, ranges := range map[string][]Range{
		"one number twice": {{ID: 1, First: 3, Last: 7}, {ID: 2, First: 7, Last: 9}},
		"one in another":   {{ID: 1, First: 3, Last: 7}, {ID: 2, First: 4, Last: 5}},
		"the wrong way":    {{ID: 1, First: 3, Last: 2}},
	} {
		s := New(newRecords())
		if err := s.Load(ranges); !errors.Is(err, ErrOverlap) || s.Len() != 0 {
			t.Errorf("%s: %v, %d numbers", name, err, s.Len())
		}
	}
}

// The worst that there can be: each range is one number.
func BenchmarkLowestOfScatteredNumbers(b *testing.B) {
	s := New(newRecords())
	var ranges []Range
	for i := range uint32(1 << 20) {
		ranges = append(ranges, Range{ID: uint64(i), First: i, Last: i, Owner: i % 2})
	}
	if err := s.Load(ranges); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Lowest()
	}
}
