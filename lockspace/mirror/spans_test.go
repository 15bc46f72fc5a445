package mirror

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/lockfs/lockfs/lockspace"
)

// The arithmetic of spans, against a mode for each byte.

type byByte [bytes]int // 0: not locked, 1: shared, 2: exclusive

func (s spans) byByte() (b byByte) {
	for at := range b {
		if m, locked := s.mode(uint64(at)); locked {
			b[at] = 1 + int(m)
		}
	}
	return b
}

func drawSpans(t *rapid.T) (spans, byByte) {
	var s spans
	var b byByte
	for range rapid.IntRange(0, 6).Draw(t, "spans") {
		first, last := drawRange(t)
		m := drawMode(t)
		s = s.with(bound(first, last), m)
		for at := first; at <= last; at++ {
			b[at] = max(b[at], 1+int(m))
		}
	}
	return s, b
}

func TestSpans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, b := drawSpans(t)
		if s.byByte() != b {
			t.Fatalf("%v is %v, want %v", s, s.byByte(), b)
		}
		for i := range s[:max(0, len(s)-1)] {
			if s[i].Last >= s[i+1].First || s[i].Last+1 == s[i+1].First && s[i].Mode == s[i+1].Mode {
				t.Fatalf("%v: not in order, or not one", s)
			}
		}
		first, last := drawRange(t)
		m := drawMode(t)
		var miss byByte
		for _, r := range s.missing(bound(first, last), m) {
			for at := r.First; at <= min(r.Last, bytes-1); at++ {
				miss[at] = 1
			}
		}
		none, any := true, false
		for at := range miss {
			in := uint64(at) >= first && uint64(at) <= last
			want := in && b[at] < 1+int(m)
			none = none && !want
			any = any || in && b[at] > 0
			if (miss[at] == 1) != want {
				t.Fatalf("%v misses %v of %d-%d, %s", s, miss, first, last, m)
			}
		}
		if s.has(bound(first, last), m) != none || s.overlap(bound(first, last)) != any {
			t.Fatalf("%v has %d-%d %s: %v", s, first, last, m, !none)
		}
	})
}

// The calls bring any state to any lesser one, never through one that is less than
// both, and there is none without which it would be right as well.
func TestReduce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		have, _ := drawSpans(t)
		var want spans
		for _, sp := range have {
			first, last := drawRange(t)
			r := bound(first, last)
			if r.Overlaps(sp.Range) && rapid.Bool().Draw(t, "stays") {
				r = lockspace.Range{First: max(r.First, sp.First), Last: min(r.Last, sp.Last)}
				want = want.with(r, min(sp.Mode, drawMode(t)))
			}
		}
		unsure := rapid.Bool().Draw(t, "unsure")
		state := have.byByte()
		if unsure {
			for at := range state {
				state[at] = 2 // at worst
			}
		}
		calls := reduce(have, want, unsure)
		wanted := want.byByte()
		apply := func(state byByte, calls []change) byByte {
			for _, c := range calls {
				for at := c.First; at <= min(c.Last, bytes-1); at++ {
					state[at] = 1
					if c.unlock {
						state[at] = 0
					}
					if state[at] < wanted[at] {
						t.Fatalf("%v to %v by %v: byte %d is unlocked", have, want, calls, at)
					}
				}
			}
			return state
		}
		if got := apply(state, calls); got != wanted {
			t.Fatalf("%v to %v by %v: %v", have, want, calls, got)
		}
		for i := range calls {
			fewer := append(append([]change(nil), calls[:i]...), calls[i+1:]...)
			if apply(state, fewer) == wanted {
				t.Fatalf("%v to %v by %v: call %d does nothing", have, want, calls, i)
			}
			if i > 0 && calls[i].unlock == calls[i-1].unlock {
				joined := append([]change(nil), calls...)
				joined[i-1].Last = calls[i].Last
				between := false
				for at := calls[i-1].Last + 1; at < calls[i].First && at < bytes; at++ {
					between = between || wanted[at] != map[bool]int{true: 0, false: 1}[calls[i].unlock]
				}
				if !between {
					t.Fatalf("%v to %v by %v: two calls could be one", have, want, calls)
				}
			}
		}
	})
}
