package lockspace

import "time"

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
	for l := range s.All() {
		for _, h := range l.holds {
			t.stopLease(h)
			t.startLease(l, h)
		}
	}
}
