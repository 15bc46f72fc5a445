package mirror

import (
	"iter"
	"slices"

	"github.com/lockfs/lockfs/lockspace"
)

// Ranges says which bytes of a lock are held, or locked, and in which mode. The
// zero Ranges is none. A copy shares memory with what it was copied from, see
// [Ranges.Clone].
type Ranges struct{ s spans }

// Add adds a range in a mode, but for the parts that are there in a stronger one.
func (r *Ranges) Add(x lockspace.Range, m lockspace.Mode) { r.s = r.s.with(x, m) }

// Has reports whether every byte of x is there in mode m or a stronger one.
func (r *Ranges) Has(x lockspace.Range, m lockspace.Mode) bool { return r.s.has(x, m) }

// Empty reports whether there is nothing.
func (r *Ranges) Empty() bool { return len(r.s) == 0 }

// Clear makes it none.
func (r *Ranges) Clear() { r.s = nil }

// Equal reports whether both are the same.
func (r *Ranges) Equal(other *Ranges) bool { return slices.Equal(r.s, other.s) }

// Clone returns a copy of its own.
func (r *Ranges) Clone() Ranges { return Ranges{slices.Clone(r.s)} }

// All returns the ranges in order.
func (r *Ranges) All() iter.Seq2[lockspace.Range, lockspace.Mode] {
	return func(yield func(lockspace.Range, lockspace.Mode) bool) {
		for _, sp := range r.s {
			if !yield(sp.Range, sp.Mode) {
				return
			}
		}
	}
}
