package lockspace

import "sort"

// listing is the names held in one directory, in the order in which they
// became held. An entry's place in that order is a number that it keeps and
// that is never used again, so a place is a directory offset: whoever reads
// on from it sees every name that was there all the time exactly once,
// whatever came and went meanwhile, as readdir(3) promises; and no snapshot
// has to be taken.
type listing struct {
	entries []listEntry // by place, ascending
	removed int
	// prev and next are in the chain of all listings, the youngest first.
	prev, next *listing
}

type listEntry struct {
	place uint64
	lock  *lock // nil: removed
}

// add appends a lock's name. place is higher than all before it.
func (s *listing) add(place uint64, l *lock) {
	s.entries = append(s.entries, listEntry{place, l})
}

// remove takes the name at place off the list. Room is made good when half of
// the list is gone, so that a removal costs constant time on average.
func (s *listing) remove(place uint64) {
	i := s.search(place)
	s.entries[i].lock = nil
	s.removed++
	for n := len(s.entries); n > 0 && s.entries[n-1].lock == nil; n-- {
		s.entries = s.entries[:n-1]
		s.removed--
	}
	if s.removed*2 <= len(s.entries) {
		return
	}
	kept := make([]listEntry, 0, len(s.entries)-s.removed)
	for _, e := range s.entries {
		if e.lock != nil {
			kept = append(kept, e)
		}
	}
	s.entries, s.removed = kept, 0
}

// search returns the index of the first entry at or after place.
func (s *listing) search(place uint64) int {
	n := len(s.entries)
	if n > 0 && s.entries[n-1].place == place {
		return n - 1 // the hot case: the last one taken is given back first
	}
	return sort.Search(n, func(i int) bool { return s.entries[i].place >= place })
}

// listing returns the listing of a directory.
func (t *Table) listing(dir uint64) *listing {
	s := t.listings[dir]
	if s == nil {
		s = new(listing)
		t.listings[dir] = s
		t.chainListing(s)
	}
	return s
}

// unlist takes l off its directory's listing. Listings of directories that
// are empty are forgotten, but for one, so that a lock that comes and goes need
// not make it anew each time.
func (t *Table) unlist(l *lock) {
	dir := l.key.Dir
	s := t.listings[dir]
	s.remove(l.listed)
	l.listed = 0
	if len(s.entries) > 0 || dir == t.vacant {
		return
	}
	if old := t.listings[t.vacant]; old != nil && len(old.entries) == 0 {
		delete(t.listings, t.vacant)
		t.unchainListing(old)
	}
	t.vacant = dir
}

// List calls yield for the held names of a directory, beginning behind place
// after (0: at the beginning), with each one's place, until yield returns
// false. yield must not change the table.
func (t *Table) List(dir, after uint64, yield func(place uint64, name string) bool) {
	s := t.listings[dir]
	if s == nil {
		return
	}
	for _, e := range s.entries[s.search(after+1):] {
		if e.lock != nil && !yield(e.place, e.lock.key.Name) {
			return
		}
	}
}

// LastListed returns the place of the last name in a directory's listing, 0 if
// it is empty.
func (t *Table) LastListed(dir uint64) uint64 {
	s := t.listings[dir]
	if s == nil {
		return 0
	}
	return s.last()
}

// last returns the place of the last name, 0 if there is none.
func (s *listing) last() uint64 {
	if len(s.entries) == 0 {
		return 0
	}
	return s.entries[len(s.entries)-1].place
}
