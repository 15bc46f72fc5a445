package lockspace

import "fmt"

// MaxOffset is the last byte that can be locked, OFFSET_MAX in the kernel:
// ranges "to the end of the file" end here.
const MaxOffset = 1<<63 - 1

// Range is the bytes First to Last, both included. 0 <= First <= Last <=
// MaxOffset.
type Range struct {
	First, Last uint64
}

// Whole is the whole lock: what every idiom but fcntl takes.
var Whole = Range{0, MaxOffset}

// Valid reports whether r is a range that can be locked.
func (r Range) Valid() bool { return r.First <= r.Last && r.Last <= MaxOffset }

// Overlaps reports whether r and s have a byte in common.
func (r Range) Overlaps(s Range) bool { return r.First <= s.Last && s.First <= r.Last }

// Covers reports whether every byte of s is in r.
func (r Range) Covers(s Range) bool { return r.First <= s.First && s.Last <= r.Last }

// touches reports whether r and s overlap or have no byte between them, so
// that together they are one range. Last is at most MaxOffset, so adding 1
// does not overflow.
func (r Range) touches(s Range) bool { return r.First <= s.Last+1 && s.First <= r.Last+1 }

// union returns the range from the first to the last byte of two ranges: both
// together if they touch.
func (r Range) union(s Range) Range {
	return Range{min(r.First, s.First), max(r.Last, s.Last)}
}

// common returns the bytes that are in both of two ranges that overlap.
func (r Range) common(s Range) Range {
	return Range{max(r.First, s.First), min(r.Last, s.Last)}
}

// minus returns what is left of r without s: nothing, one part, or two.
func (r Range) minus(s Range) (parts [2]Range, n int) {
	if !r.Overlaps(s) {
		parts[0] = r
		return parts, 1
	}
	if r.First < s.First {
		parts[n] = Range{r.First, s.First - 1}
		n++
	}
	if s.Last < r.Last {
		parts[n] = Range{s.Last + 1, r.Last}
		n++
	}
	return parts, n
}

// String returns "first-last", with "end" for MaxOffset.
func (r Range) String() string {
	if r == Whole {
		return "0-end" // as almost all are
	}
	if r.Last == MaxOffset {
		return fmt.Sprintf("%d-end", r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}
