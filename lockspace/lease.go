package lockspace

import (
	"math"
	"time"
)

// Leases ([Policy.Lease]): a hold ends unless it is renewed in time. Each has an
// event on the agenda, see expiry.go.

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
