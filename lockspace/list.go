package lockspace

import "github.com/lockfs/lockfs/lockspace/listing"

// The names that are held in each directory, in the order in which they became
// held. A lock knows its place.

// directory is the listing of one.
type directory struct {
	listing.List[lock]
	// holds counts those of the locks in it.
	holds int
	// prev and next are in the chain of all, the youngest first.
	prev, next *directory
}

// listing returns the listing of a directory.
func (t *Table) listing(dir uint64) *directory {
	s := t.listings[dir]
	if s == nil {
		s = new(directory)
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
	s.Remove(l.listed)
	l.listed = 0
	if s.Last() != 0 || dir == t.vacant {
		return
	}
	if old := t.listings[t.vacant]; old != nil && old.Last() == 0 {
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
	for place, l := range s.After(after) {
		if !yield(place, l.key.Name) {
			return
		}
	}
}

// Count returns how many holds and waits (absent ones included) there are of the
// locks in a directory, at the same cost however many these are.
func (t *Table) Count(dir uint64) (holds, waits int) {
	if s := t.listings[dir]; s != nil {
		holds = s.holds
	}
	return holds, t.waitsIn[dir]
}

// LastListed returns the place of the last name in a directory's listing, 0 if
// it is empty.
func (t *Table) LastListed(dir uint64) uint64 {
	s := t.listings[dir]
	if s == nil {
		return 0
	}
	return s.Last()
}
