package lockspace

import (
	"iter"
	"slices"
)

// Snapshots: what the table was at one moment, gathered a few locks at a time
// while it goes on.

// Snapshot is every hold and every present wait of the table, or of some
// directories, as they were when it began. Its user gathers it in steps of
// its own, with any other steps in between:
//
//	s := t.Snapshot()
//	for !s.Gather(1000) { /* other steps */ }
//
// Its law, which is why it shows one moment:
//
//   - A lock is handed over as a whole, and before it changes: [Table.save] is
//     called by whatever changes a lock's holds or waits.
//   - It is handed at once to every snapshot under way that does not have it,
//     so one number tells which these are: those that began after it was last
//     handed over, or made.
//   - A lock that had a hold is in its directory's listing, at its place, until
//     it changes; one that had present waits alone was in grace, or the mirror
//     could not cover them: it was marked, and is until it changes. So Gather,
//     which goes through the listings and the marks that there were, comes by
//     every lock that did not change.
//   - Listings and marks that are new are put before all others in their
//     chains, where no snapshot comes by that is under way; one that ends
//     moves the snapshots that are at it on.
//
// It has at most what the table had at the beginning, however long it takes.
// It is not in the journal: after a [Restore] there is none.
type Snapshot struct {
	// Began is when it began: the moment that it shows.
	Began Instant

	t      *Table
	number uint64
	// dirs are the directories that it is of, ascending; nil: all.
	dirs []uint64

	// at is the listing that is being gathered, up to the place end; after is
	// the place up to which that is done. nil: the next one has to be found.
	at         *directory
	after, end uint64
	// ahead is the first listing of those that are still to come, if it is of
	// all directories, else done is how many of dirs have been.
	ahead *directory
	done  int
	// mark is the next of the locks that may have waits alone.
	mark *mark

	holds pile[*Hold]
	waits pile[Wait]
}

// Snapshot begins a snapshot: of the directories with these numbers, or without
// any, of the whole table. It costs the same however large the table is, but for
// putting dirs in order. Until it is complete or dropped, a step that changes a
// lock may have to copy its holds and waits before.
func (t *Table) Snapshot(dirs ...uint64) *Snapshot {
	t.lastSnapshot++
	s := &Snapshot{Began: t.clock.Now(), t: t, number: t.lastSnapshot, mark: t.firstMark}
	if len(dirs) == 0 {
		s.ahead = t.firstListing
	} else {
		s.dirs = slices.Clone(dirs)
		slices.Sort(s.dirs)
		s.dirs = slices.Compact(s.dirs)
	}
	t.snapshots = append(t.snapshots, s)
	return s
}

// Gather gathers the snapshot further, by about n (more than 0) holds, waits
// and locks to look at: a lock is never cut in two. It reports whether the
// snapshot is complete, and has cost the table nothing from then on. Only as a
// step.
func (s *Snapshot) Gather(n int) (complete bool) {
	if s.t == nil {
		return true
	}
	for n > 0 {
		switch {
		case s.at != nil:
			n = s.gatherListing(n)
		case s.nextListing():
			n--
		case s.mark != nil:
			m := s.mark
			s.mark = m.next
			n -= s.t.save(m.lock) + 1
		default:
			s.leave()
			return true
		}
	}
	return false
}

// nextListing goes on to the next listing, or directory that has none. It
// reports whether there was one.
func (s *Snapshot) nextListing() bool {
	switch {
	case s.dirs == nil && s.ahead != nil:
		s.at, s.ahead = s.ahead, s.ahead.next
	case s.done < len(s.dirs):
		s.at = s.t.listings[s.dirs[s.done]]
		s.done++
	default:
		return false
	}
	if s.at != nil {
		// What comes later has a higher place.
		s.after, s.end = 0, s.at.Last()
	}
	return true
}

// gatherListing gathers locks of the listing that s is at, and returns what is
// left of n.
func (s *Snapshot) gatherListing(n int) int {
	for place, l := range s.at.After(s.after) {
		if place > s.end {
			break
		}
		if n <= 0 {
			return n
		}
		s.after = place
		n -= s.t.save(l) + 1
	}
	s.at = nil
	return n
}

// Drop ends a snapshot that nobody needs any more, complete or not, and frees
// what it has. It may be called again. Only as a step, if it is not complete.
func (s *Snapshot) Drop() {
	if s.t != nil {
		s.leave()
	}
	s.holds, s.waits = pile[*Hold]{}, pile[Wait]{}
}

// leave takes s off the table.
func (s *Snapshot) leave() {
	t := s.t
	i := slices.Index(t.snapshots, s)
	if t.snapshots = slices.Delete(t.snapshots, i, i+1); len(t.snapshots) == 0 {
		t.snapshots = nil
	}
	s.t, s.at, s.ahead, s.mark = nil, nil, nil, nil
}

// Holds returns the holds: those of one lock next to each other, oldest first;
// the locks in no order. What is complete can be read without a step, by
// several goroutines at once.
func (s *Snapshot) Holds() iter.Seq[*Hold] {
	return func(yield func(*Hold) bool) {
		s.holds.each(func(h **Hold) bool { return yield(*h) })
	}
}

// Waits is [Snapshot.Holds] for the present waits, in the order of the queue.
// They must not be changed.
func (s *Snapshot) Waits() iter.Seq[*Wait] { return s.waits.each }

// Len returns how many holds and waits s has so far.
func (s *Snapshot) Len() (holds, waits int) { return s.holds.n, s.waits.n }

// save has the snapshots that need l, which is about to change, get it as it is.
// It returns how many holds and waits were copied.
func (t *Table) save(l *lock) int {
	if len(t.snapshots) == 0 || l.saved == t.lastSnapshot {
		return 0
	}
	return t.handOver(l)
}

// handOver gives l to every snapshot that does not have it.
func (t *Table) handOver(l *lock) (copied int) {
	for _, s := range t.snapshots {
		if s.number > l.saved && s.isOf(l.key.Dir) {
			copied += s.take(l)
		}
	}
	l.saved = t.lastSnapshot
	return copied
}

// isOf reports whether s is of a directory.
func (s *Snapshot) isOf(dir uint64) bool {
	if s.dirs == nil {
		return true
	}
	_, found := slices.BinarySearch(s.dirs, dir)
	return found
}

// take adds the holds and the present waits of l. Holds are not changed once
// they are in the table; waits are.
func (s *Snapshot) take(l *lock) (copied int) {
	for _, h := range l.holds {
		s.holds.add(h)
	}
	for w := l.first; w != nil; w = w.next {
		if !w.isAbsent() {
			s.waits.add(w.Wait)
		}
	}
	return len(l.holds) + l.queued
}

// chainListing puts a new listing before all others.
func (t *Table) chainListing(l *directory) {
	if l.next = t.firstListing; l.next != nil {
		l.next.prev = l
	}
	t.firstListing = l
}

// unchainListing takes one away, which is empty.
func (t *Table) unchainListing(l *directory) {
	for _, s := range t.snapshots {
		if s.at == l {
			s.at = nil
		}
		if s.ahead == l {
			s.ahead = l.next
		}
	}
	if l.prev == nil {
		t.firstListing = l.next
	} else {
		l.prev.next = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
}

// mark is a lock that may have waits alone, in the chain of these, the youngest
// first.
type mark struct {
	lock       *lock
	prev, next *mark
}

// mark chains l, or takes it out of the chain, as it is now.
func (t *Table) mark(l *lock) {
	switch marked := l.grace || l.outside; {
	case marked && l.mark == nil:
		m := &mark{lock: l, next: t.firstMark}
		if m.next != nil {
			m.next.prev = m
		}
		t.firstMark, l.mark = m, m
	case !marked && l.mark != nil:
		t.unmark(l)
	}
}

func (t *Table) unmark(l *lock) {
	m := l.mark
	l.mark = nil
	for _, s := range t.snapshots {
		if s.mark == m {
			s.mark = m.next
		}
	}
	if m.prev == nil {
		t.firstMark = m.next
	} else {
		m.prev.next = m.next
	}
	if m.next != nil {
		m.next.prev = m.prev
	}
}

// pile is a list that grows without being copied, for steps to stay short.
type pile[T any] struct {
	pieces [][]T
	n      int
}

// pieceLen is how long the pieces of a pile are.
const pieceLen = 256

func (p *pile[T]) add(v T) {
	if p.n%pieceLen == 0 {
		// Most have few.
		p.pieces = append(p.pieces, make([]T, 0, min(pieceLen, max(8, p.n))))
	}
	last := &p.pieces[len(p.pieces)-1]
	*last = append(*last, v)
	p.n++
}

// each calls yield for every element until it returns false.
func (p *pile[T]) each(yield func(*T) bool) {
	for _, piece := range p.pieces {
		for i := range piece {
			if !yield(&piece[i]) {
				return
			}
		}
	}
}
