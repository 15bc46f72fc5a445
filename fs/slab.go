package fs

import (
	"iter"
	"strings"
)

// Making many values that live equally long.

// slab makes values some at a time. Those made together are given back
// together, when none of them is in use any more.
type slab[T any] struct {
	made [][]T
	n    int
}

// slabSize is how many are made at a time: few, and the sizes of the memory
// allocator are filled well by them.
const slabSize = 42

// new returns another value.
func (s *slab[T]) new() *T {
	i := s.n % slabSize
	if i == 0 {
		s.made = append(s.made, make([]T, slabSize))
	}
	s.n++
	return &s.made[len(s.made)-1][i]
}

// all returns what was made.
func (s *slab[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		n := s.n
		for _, some := range s.made {
			for i := range some[:min(n, slabSize)] {
				if !yield(&some[i]) {
					return
				}
			}
			n -= slabSize
		}
	}
}

// texts makes strings like slab.
type texts struct{ room strings.Builder }

const textsSize = 1024

func (t *texts) new(b []byte) string {
	if t.room.Cap()-t.room.Len() < len(b) {
		t.room = strings.Builder{}
		t.room.Grow(max(textsSize, len(b)))
	}
	from := t.room.Len()
	t.room.Write(b)
	return t.room.String()[from:]
}
