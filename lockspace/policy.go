package lockspace

import (
	"iter"
	"math"
	"time"
)

// Policy is what the table must know of a lockspace, a [Key.Dir], besides its
// locks (design 1.3).
type Policy struct {
	// Lease is how long a hold lasts unless it is renewed. 0: for ever.
	Lease time.Duration
	// From is the time, on the clock of [Instant.Boot], from which leases run at
	// the earliest: what was held before there was this lease has a whole one.
	From time.Duration
	// Grace is for how long nobody gets a lock one of whose holds came to an
	// end in another way than [Released]. 0: for no time.
	Grace time.Duration
}

// SetPolicy sets the policy of a lockspace; the zero Policy is what every
// lockspace begins with. It is not in the journal.
//
// A lease counts from the last renewal of each hold, or from p.From if that is
// later: without it a hold may be due at once, and ends with the next
// [Table.Expire]. A grace that has begun lasts as long as it was to.
func (t *Table) SetPolicy(dir uint64, p Policy) {
	p.Lease, p.Grace = max(p.Lease, 0), max(p.Grace, 0)
	if p.Lease == 0 {
		p.From = 0
	}
	old := t.policies[dir]
	if p == (Policy{}) {
		delete(t.policies, dir)
	} else {
		t.policies[dir] = p
	}
	s := t.listings[dir]
	if p.Lease == old.Lease && p.From == old.From || s == nil {
		return
	}
	for _, e := range s.entries {
		if e.lock == nil {
			continue
		}
		for _, h := range e.lock.holds {
			t.stopLease(h)
			t.startLease(e.lock, h)
		}
	}
}

// startLease puts the end of a hold's lease on the agenda, if it has one.
func (t *Table) startLease(l *lock, h *Hold) {
	p := t.policies[l.key.Dir]
	if p.Lease == 0 {
		return
	}
	e := &event{at: later(max(h.Renewed, p.From), p.Lease), lock: l, hold: h.ID}
	t.leases[h.ID] = e
	t.agenda.add(e)
}

// stopLease takes it off again, if it is there.
func (t *Table) stopLease(h *Hold) {
	if e := t.leases[h.ID]; e != nil {
		delete(t.leases, h.ID)
		t.agenda.remove(e)
	}
}

// later returns the time that is d after a time, at most the last there is.
func later(at, d time.Duration) time.Duration {
	if at > math.MaxInt64-d {
		return math.MaxInt64
	}
	return at + d
}

// Renew renews the holds of k that which says: their holder has given a sign
// of life, by touching the name or writing to it. Lock calls renew by
// themselves, see [Table.Unlock] and [Table.Acquire]. What has not been ended by
// [Table.Expire] is renewed in time. which must not use the table.
func (t *Table) Renew(k Key, which func(*Hold) bool) {
	l := t.locks[k]
	if l == nil {
		return
	}
	now := t.clock.Now().Boot
	for i, h := range l.holds {
		if which(h) {
			t.renew(l, i, now)
		}
	}
}

func (t *Table) renew(l *lock, i int, now time.Duration) {
	if l.holds[i].Renewed >= now {
		return
	}
	t.save(l)
	h := new(Hold)
	*h = *l.holds[i]
	h.Renewed = now
	l.holds[i] = h
	t.journal.PutHold(h)
	if e := t.leases[h.ID]; e != nil {
		p := t.policies[l.key.Dir]
		e.at = later(max(now, p.From), p.Lease)
		t.agenda.fix(e)
	}
}

// renewCaller renews what the party of r, a lock call, has on l, if that has a
// lease.
func (t *Table) renewCaller(l *lock, r *Request) {
	if t.policies[l.key.Dir].Lease == 0 {
		return
	}
	now := t.clock.Now().Boot
	for i, h := range l.holds {
		if same, known := t.sameParty(&h.Request, h.Since, r); same && known {
			t.renew(l, i, now)
		}
	}
}

// renewHandle renews what p, who unlocks by an idiom, still has on l, if that
// has a lease. The kernel does not tell the process then: it goes by the open
// file, and for fcntl also by the owner's number.
func (t *Table) renewHandle(l *lock, p *Party, via Via) {
	if t.policies[l.key.Dir].Lease == 0 {
		return
	}
	now := t.clock.Now().Boot
	for i, h := range l.holds {
		if h.Party.Handle == p.Handle && !h.nobodysFile() ||
			via == ViaFcntl && h.Via == ViaFcntl && h.Party.Owner == p.Owner && h.Party.File == p.File {
			t.renew(l, i, now)
		}
	}
}

// GraceID numbers graces, like [HoldID] holds.
type GraceID uint64

// Grace says that nobody gets a lock, because a hold of it came to an abnormal
// end.
type Grace struct {
	ID  GraceID
	Key Key
	// Until is when it ends, on the clock of [Instant.Boot].
	Until time.Duration
}

// grace is a Grace with its end on the agenda.
type grace struct {
	Grace
	end        *event
	prev, next *grace // in the chain of all, the youngest first
}

// InGrace reports whether k is in grace, and until when. It ends with the first
// [Table.Expire] from then on.
func (t *Table) InGrace(k Key) (until time.Duration, ok bool) {
	g := t.graces[k]
	if g == nil {
		return 0, false
	}
	return g.Until, true
}

// Graces returns every grace there is, in no order. The table must not be changed
// during the iteration.
func (t *Table) Graces() iter.Seq[*Grace] {
	return func(yield func(*Grace) bool) {
		for _, g := range t.graces {
			if !yield(&g.Grace) {
				return
			}
		}
	}
}

// beginGrace begins the grace of l after an abnormal end, or makes it longer, if
// the policy has it.
func (t *Table) beginGrace(l *lock) {
	if len(t.policies) == 0 {
		return
	}
	d := t.policies[l.key.Dir].Grace
	if d == 0 {
		return
	}
	until := later(t.clock.Now().Boot, d)
	g := t.graces[l.key]
	switch {
	case g == nil:
		t.lastGrace++
		g = t.addGrace(l, Grace{ID: t.lastGrace, Key: l.key, Until: until})
	case g.Until < until:
		g.Until, g.end.at = until, until
		t.agenda.fix(g.end)
	default:
		return
	}
	t.journal.PutGrace(&g.Grace)
}

// addGrace adds a grace to the indexes.
func (t *Table) addGrace(l *lock, r Grace) *grace {
	g := &grace{Grace: r, end: &event{at: r.Until, lock: l}}
	t.chainGrace(g)
	t.graces[l.key] = g
	l.grace = true
	t.agenda.add(g.end)
	return g
}

// endGrace lets others have l again. The step has yet to look at it.
func (t *Table) endGrace(l *lock) {
	g := t.graces[l.key]
	delete(t.graces, l.key)
	t.unchainGrace(g)
	l.grace = false
	t.agenda.remove(g.end)
	t.journal.DropGrace(g.ID)
}

// restoreGrace adds a grace that was in the journal.
func (t *Table) restoreGrace(g Grace) {
	t.lastGrace = max(t.lastGrace, g.ID)
	if t.graces[g.Key] == nil {
		t.addGrace(t.lock(g.Key), g)
	}
}
