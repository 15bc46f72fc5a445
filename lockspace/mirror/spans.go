package mirror

import (
	"cmp"
	"slices"

	"github.com/lockfs/lockfs/lockspace"
)

// Which bytes are locked how, and what it takes to get from one such state to
// another.

// span is a range that is locked in one mode.
type span struct {
	lockspace.Range
	Mode lockspace.Mode
}

// spans says how the bytes of a file are locked: in order, without overlaps, and
// neighbours of one mode are one. Those that are in no span are not locked.
type spans []span

// missing returns the parts of r that s does not have in mode m or a stronger
// one.
func (s spans) missing(r lockspace.Range, m lockspace.Mode) []lockspace.Range {
	var out []lockspace.Range
	at := r.First
	for _, sp := range s {
		if sp.Mode < m || sp.Last < at {
			continue
		}
		if sp.First > r.Last {
			break
		}
		if sp.First > at {
			out = append(out, lockspace.Range{First: at, Last: sp.First - 1})
		}
		if sp.Last >= r.Last {
			return out
		}
		at = sp.Last + 1
	}
	return append(out, lockspace.Range{First: at, Last: r.Last})
}

// hull returns the range from the first byte of parts to the last; there are some,
// in order.
func hull(parts []lockspace.Range) lockspace.Range {
	return lockspace.Range{First: parts[0].First, Last: parts[len(parts)-1].Last}
}

// has reports whether every byte of r is in s in mode m or a stronger one.
func (s spans) has(r lockspace.Range, m lockspace.Mode) bool {
	if len(s) == 0 {
		return false
	}
	if len(s) == 1 { // as almost always
		return s[0].Mode >= m && s[0].Covers(r)
	}
	return len(s.missing(r, m)) == 0
}

// overlap reports whether a byte of r is in s.
func (s spans) overlap(r lockspace.Range) bool {
	for _, sp := range s {
		if sp.Overlaps(r) {
			return true
		}
	}
	return false
}

// with returns s with r in mode m, but for the parts that s has in a stronger
// one. It may use the memory of s.
func (s spans) with(r lockspace.Range, m lockspace.Mode) spans {
	if len(s) == 0 {
		return append(s, span{r, m})
	}
	// Of thousands of ranges in order, each costs the same.
	if last := &s[len(s)-1]; r.First > last.Last {
		if last.Mode == m && r.First == last.Last+1 {
			last.Last = r.Last
			return s
		}
		return append(s, span{r, m})
	}
	if s.has(r, m) {
		return s
	}
	missing := s.missing(r, m)
	out := make(spans, 0, len(s)+2*len(missing))
	for _, sp := range s {
		if sp.Mode >= m {
			out = append(out, sp)
			continue
		}
		for _, left := range (spans{{r, m}}).missing(sp.Range, m) {
			out = append(out, span{left, sp.Mode})
		}
	}
	for _, part := range missing {
		out = append(out, span{part, m})
	}
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.First, b.First) })
	return out.merged()
}

// merged makes one of neighbours of one mode, in place.
func (s spans) merged() spans {
	out := s[:0]
	for _, sp := range s {
		if n := len(out); n > 0 && out[n-1].Mode == sp.Mode && out[n-1].Last+1 == sp.First {
			out[n-1].Last = sp.Last
			continue
		}
		out = append(out, sp)
	}
	return out
}

// mode returns how the byte at is locked, if it is.
func (s spans) mode(at uint64) (m lockspace.Mode, locked bool) {
	for _, sp := range s {
		if sp.First <= at && at <= sp.Last {
			return sp.Mode, true
		}
	}
	return 0, false
}

// change is a lock call that takes something away: it unlocks, or makes shared
// what is exclusive.
type change struct {
	lockspace.Range
	unlock bool
}

// reduce returns the calls that bring have down to want, no more of them than it
// takes: one call also goes over bytes for which it changes nothing. If unsure,
// more may be locked than have says. want is not more than have.
func reduce(have, want spans, unsure bool) []change {
	if !unsure && slices.Equal(have, want) {
		return nil
	}
	var out []change
	var run struct {
		change
		open, needed bool
	}
	end := func() {
		if run.open && run.needed {
			out = append(out, run.change)
		}
		run.open, run.needed = false, false
	}
	for _, part := range pieces(have, want) {
		has, hasAny := have.mode(part.First)
		wants, wantsAny := want.mode(part.First)
		if wantsAny && wants == lockspace.Exclusive {
			end()
			continue
		}
		if !run.open || run.unlock == wantsAny {
			end()
			run.change, run.open = change{part, !wantsAny}, true
		}
		run.Last = part.Last
		run.needed = run.needed || unsure || hasAny && (!wantsAny || has > wants)
	}
	end()
	return out
}

// pieces cuts the whole range wherever one of a and b changes.
func pieces(a, b spans) []lockspace.Range {
	cuts := []uint64{0}
	for _, s := range [...]spans{a, b} {
		for _, sp := range s {
			cuts = append(cuts, sp.First)
			if sp.Last < lockspace.MaxOffset {
				cuts = append(cuts, sp.Last+1)
			}
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	out := make([]lockspace.Range, len(cuts))
	for i, first := range cuts {
		last := uint64(lockspace.MaxOffset)
		if i+1 < len(cuts) {
			last = cuts[i+1] - 1
		}
		out[i] = lockspace.Range{First: first, Last: last}
	}
	return out
}
