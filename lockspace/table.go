package lockspace

import (
	"cmp"
	"iter"
	"slices"
)

// Table is the lock table.
//
// Its law:
//
//   - Two holds of different parties on one lock never conflict.
//   - A hold by name is the only one of its party by that name, and was alone
//     when it was made.
//   - A present wait conflicts with a hold, or with a present wait before it
//     that it may not pass, or its lock is in grace, or the mirror could not
//     cover it when it was last asked; otherwise it would be a hold.
//   - A lock is in locks exactly while it has a hold, a wait, present or
//     absent, or grace; its name is in its directory's listing exactly while
//     it has a hold.
//   - Every token is higher than all before it.
//
// Tests check all of it after every step (invariants_test.go). There is no
// mutex inside; see the package comment.
type Table struct {
	clock    Clock
	tokens   Tokens
	procs    Processes
	observer Observer
	journal  Journal
	mirror   Mirror   // nil: none
	listener Listener // nil: nobody

	locks    map[Key]*lock
	waits    map[WaitID]*wait
	listings map[uint64]*directory

	// The waits of a party, to walk the wait graph: by the fcntl owner's
	// number and by handle.
	waitsByOwner  map[uint64][]*wait
	waitsByHandle map[uint64][]*wait
	// waitsIn counts the waits for the locks in each directory.
	waitsIn map[uint64]int
	// ownerHolds counts the holds of each fcntl owner number on all locks:
	// nobody can be waiting for one who has none.
	ownerHolds map[uint64]int

	// absent are the cancelled waits in the order in which their places
	// lapse. Entries of waits that came back or ended are skipped.
	absent []absentee

	// policies are those that are not the zero Policy, by directory.
	policies map[uint64]Policy
	// agenda has the end of every lease that runs, and of every grace; leases
	// finds the former by their holds.
	agenda agenda
	leases map[HoldID]*event
	graces map[Key]*grace
	// named are the locks of the holds by name.
	named map[HoldID]*lock

	// unsettled are locks that the step has to look at before it ends.
	unsettled []*lock
	// walks counts the walks through the wait graph; stack is room for one.
	walks uint64
	stack []*wait
	// snapshots are those under way; lastSnapshot is the number of the last that
	// began. firstListing and firstMark begin the chains that they go along.
	snapshots    []*Snapshot
	lastSnapshot uint64
	firstListing *directory
	firstMark    *mark
	// spare is a lock that was forgotten, to be used again.
	spare *lock
	// vacant is a directory whose listing may be empty; no other is.
	vacant uint64

	holds     int
	lastHold  HoldID
	lastGrace GraceID
	lastPlace uint64
}

// lock is the state of one Key.
type lock struct {
	key    Key
	holds  []*Hold
	first  *wait
	last   *wait
	queued int // waits in the queue, absent ones included
	absent int // of these, the absent ones
	// exclusive counts the exclusive holds.
	exclusive int
	// span has all bytes in it that have been waited for since the queue was
	// last empty.
	span Range
	// listed is the place in the directory's listing; 0: not listed.
	listed uint64
	// classes are the kinds of idiom seen, see Request.class.
	classes uint8
	// tangled queues allow no short cuts, see tangle.
	tangled bool
	// unsettled: l has to be looked at before the step ends. It is in the
	// table's list of that name then.
	unsettled bool
	// grace: nobody gets l; the table has a grace of its key then.
	grace bool
	// outside: a wait stands in the queue that the mirror could not cover.
	outside bool
	// mark: l is in the chain of those that may have waits alone.
	mark *mark
	// walked is the last walk that came by; it has gone through the queue up
	// to the place upTo.
	walked, upTo uint64
	// saved is the number of the last snapshot that need not be handed l: it
	// has it, or l is newer.
	saved uint64
	// one is room for the first of holds.
	one [1]*Hold
}

// Environment is what a Table needs from outside. All fields are required.
type Environment struct {
	Clock     Clock
	Tokens    Tokens
	Processes Processes
	Observer  Observer
	Journal   Journal
}

// New returns an empty table.
func New(env Environment) *Table {
	return &Table{
		clock:         env.Clock,
		tokens:        env.Tokens,
		procs:         env.Processes,
		observer:      env.Observer,
		journal:       env.Journal,
		locks:         make(map[Key]*lock),
		waits:         make(map[WaitID]*wait),
		listings:      make(map[uint64]*directory),
		waitsByOwner:  make(map[uint64][]*wait),
		waitsByHandle: make(map[uint64][]*wait),
		waitsIn:       make(map[uint64]int),
		ownerHolds:    make(map[uint64]int),
		policies:      make(map[uint64]Policy),
		leases:        make(map[HoldID]*event),
		graces:        make(map[Key]*grace),
		named:         make(map[HoldID]*lock),
	}
}

// Restore returns the table whose Journal received these records. Their order
// does not matter; the holds are the table's from now on. A wait that could be
// granted is not granted by Restore: the records are of a table between two
// steps. There are no policies among them: the user sets them again
// ([Table.SetPolicy]) before the first step.
//
// Somebody waits for it to be done, so it makes everything as large as it has
// to be at once, and sorts no more than it has to.
func Restore(env Environment, holds []*Hold, waits []Wait, graces []Grace) *Table {
	t := New(env)
	t.locks = make(map[Key]*lock, len(holds))
	names := make(map[uint64]int) // in each directory, at most
	for _, h := range holds {
		names[h.Key.Dir]++
	}
	var room []lock
	for _, h := range holds {
		l := t.locks[h.Key]
		if l == nil {
			if len(room) == 0 {
				room = make([]lock, min(len(holds), locksAtOnce))
			}
			l, room = &room[0], room[1:]
			t.add(l, h.Key)
			l.listed = h.Listed
			s := t.listing(h.Key.Dir)
			if s.Last() == 0 {
				s.Grow(names[h.Key.Dir])
			}
			s.Add(h.Listed, l)
		}
		l.classes |= h.class()
		t.insert(l, h)
		t.lastHold = max(t.lastHold, h.ID)
	}
	for _, s := range t.listings {
		s.Sort()
		for l := range s.All() {
			if len(l.holds) > 1 {
				slices.SortFunc(l.holds, func(a, b *Hold) int { return cmp.Compare(a.ID, b.ID) })
			}
		}
	}
	waits = slices.Clone(waits)
	slices.SortFunc(waits, func(a, b Wait) int { return cmp.Compare(a.Place, b.Place) })
	for i := range waits {
		w := &wait{Wait: waits[i]}
		l := t.lock(w.Key)
		l.classes |= w.class()
		l.tangled = true // rather no short cut than a wrong one
		t.enqueue(l, w)
		t.lastPlace = max(t.lastPlace, w.Place)
	}
	t.restoreAbsent()
	for _, g := range graces {
		t.restoreGrace(g)
	}
	return t
}

// locksAtOnce is how many locks Restore makes room for at once. It is given
// back when the last of them is free.
const locksAtOnce = 42

// lock returns the lock of k, making it if it has none.
func (t *Table) lock(k Key) *lock {
	l := t.locks[k]
	if l != nil {
		return l
	}
	if l = t.spare; l != nil {
		t.spare = nil
	} else {
		l = new(lock)
	}
	t.add(l, k)
	return l
}

// add makes l the lock of k.
func (t *Table) add(l *lock, k Key) {
	*l = lock{key: k, saved: t.lastSnapshot}
	l.holds = l.one[:0]
	t.locks[k] = l
}

// settle ends a step on l, and on the locks that become unsettled by it.
func (t *Table) settle(l *lock) {
	t.settleOne(l)
	t.settleRest()
}

// settleRest ends a step on the locks that are unsettled.
func (t *Table) settleRest() {
	for n := len(t.unsettled); n > 0; n = len(t.unsettled) {
		l := t.unsettled[n-1]
		t.unsettled = t.unsettled[:n-1]
		if l.unsettled {
			t.settleOne(l)
		}
	}
}

// unsettle has l looked at before the step ends.
func (t *Table) unsettle(l *lock) {
	if !l.unsettled {
		l.unsettled = true
		t.unsettled = append(t.unsettled, l)
	}
}

// settleOne grants what can be granted, brings the listing in line and forgets
// a lock with nothing left. l.holds may be empty in between while a lock
// changes hands; the listing does not notice.
func (t *Table) settleOne(l *lock) {
	l.unsettled = false
	t.advance(l)
	t.mark(l)
	switch held := len(l.holds) > 0; {
	case held && l.listed == 0:
		panic("lockspace: held and not listed: " + l.key.Name)
	case !held && l.listed != 0:
		t.unlist(l)
	}
	if t.mirror != nil && !l.grace { // nobody gets it outside either
		t.mirror.Settled(l.key, l.holds)
	}
	if l.queued == 0 {
		l.tangled = false
		if len(l.holds) == 0 && !l.grace {
			delete(t.locks, l.key)
			l.unsettled = false
			t.spare = l
		}
	}
}

// put makes h a hold of l, in the table and in the journal.
func (t *Table) put(l *lock, h *Hold) {
	t.tangle(l, &h.Request)
	if l.listed == 0 {
		l.listed = h.Token
		t.listing(l.key.Dir).Add(h.Token, l)
	}
	t.lastHold++
	h.ID = t.lastHold
	h.Listed = l.listed
	t.insert(l, h)
	t.journal.PutHold(h)
}

// insert adds h to the indexes.
func (t *Table) insert(l *lock, h *Hold) {
	t.save(l)
	l.holds = append(l.holds, h)
	if h.Mode == Exclusive {
		l.exclusive++
	}
	t.holds++
	t.listings[l.key.Dir].holds++
	if h.Via == ViaFcntl {
		t.ownerHolds[h.Party.Owner]++
	}
	if h.ByName {
		t.named[h.ID] = l
	}
	if len(t.policies) > 0 { // most often there is none
		t.startLease(l, h)
	}
}

// drop removes the i-th hold of l, from the table and from the journal.
func (t *Table) drop(l *lock, i int) *Hold {
	h := t.remove(l, i)
	t.journal.DropHold(h.ID)
	return h
}

// remove takes the i-th hold of l out of the indexes. The order of l.holds has
// no meaning for the table, but is kept: holders are shown in the order in
// which they came.
func (t *Table) remove(l *lock, i int) *Hold {
	t.save(l)
	h := l.holds[i]
	copy(l.holds[i:], l.holds[i+1:])
	l.holds[len(l.holds)-1] = nil
	l.holds = l.holds[:len(l.holds)-1]
	if h.Mode == Exclusive {
		l.exclusive--
	}
	t.holds--
	t.listings[l.key.Dir].holds--
	if h.Via == ViaFcntl {
		if t.ownerHolds[h.Party.Owner]--; t.ownerHolds[h.Party.Owner] == 0 {
			delete(t.ownerHolds, h.Party.Owner)
		}
	}
	if h.ByName {
		delete(t.named, h.ID)
	}
	if len(t.leases) > 0 {
		t.stopLease(h)
	}
	return h
}

// newHold makes the hold that grants r now. It is not put anywhere yet.
func (t *Table) newHold(r *Request) *Hold {
	now := t.clock.Now()
	return &Hold{Token: t.tokens.Next(), Since: now, Renewed: now.Boot, Request: *r}
}

// Held reports whether anybody holds k: whether the name exists.
func (t *Table) Held(k Key) bool {
	l := t.locks[k]
	return l != nil && len(l.holds) > 0
}

// Holds returns the holds of k, oldest first. The table must not be changed
// during the iteration.
func (t *Table) Holds(k Key) iter.Seq[*Hold] {
	return func(yield func(*Hold) bool) {
		l := t.locks[k]
		if l == nil {
			return
		}
		for _, h := range l.holds {
			if !yield(h) {
				return
			}
		}
	}
}

// Latest returns the youngest hold of k, nil if nobody holds it.
func (t *Table) Latest(k Key) *Hold {
	l := t.locks[k]
	if l == nil || len(l.holds) == 0 {
		return nil
	}
	// The last one may be what is left of an older hold.
	return slices.MaxFunc(l.holds, func(a, b *Hold) int { return cmp.Compare(a.Token, b.Token) })
}

// Waiting returns how many present waits stand in k's queue.
func (t *Table) Waiting(k Key) int {
	l := t.locks[k]
	if l == nil {
		return 0
	}
	return l.queued - l.absent
}

// Waits returns the present waits of k, in the order of its queue. They must not be
// changed, nor the table during the iteration.
func (t *Table) Waits(k Key) iter.Seq[*Wait] {
	return func(yield func(*Wait) bool) {
		l := t.locks[k]
		if l == nil {
			return
		}
		for w := l.first; w != nil; w = w.next {
			if !w.isAbsent() && !yield(&w.Wait) {
				return
			}
		}
	}
}

// Len returns the number of locks that are held, waited for or in grace, of holds and
// of waits (absent ones included), of the whole table.
func (t *Table) Len() (locks, holds, waits int) {
	return len(t.locks), t.holds, len(t.waits)
}
