package lockspace

import "errors"

// Try asks for a hold that is granted at once or not at all: a non-blocking
// lock call, or the making of a name. Errors: [ErrHeld], [ErrGrace],
// [ErrForeign], [ErrLookup], [ErrTokens], [ErrRange], the mirror's.
func (t *Table) Try(r Request) error {
	_, err := t.acquire(&r, 0)
	return err
}

// Acquire asks for a hold and queues the request as wait id if it has to
// wait; granted then is false, and [Observer.Granted] or [Observer.Refused]
// tells how the wait ended, once, unless it is cancelled. In rare cases that
// happens before Acquire returns. id is not 0 and not in use. Who makes a name
// does not wait for it: that is for [Table.Try].
// Errors: [ErrDeadlock], [ErrLookup], [ErrTokens], [ErrRange], the mirror's.
func (t *Table) Acquire(r Request, id WaitID) (granted bool, err error) {
	return t.acquire(&r, id)
}

func (t *Table) acquire(r *Request, id WaitID) (bool, error) {
	r.complete()
	if !r.Range.Valid() {
		return false, ErrRange
	}
	// A wait needs a token as well, when it is granted.
	if t.tokens.Left() <= uint64(len(t.waits)) {
		t.tellDenied(r, nil, ErrTokens)
		return false, ErrTokens
	}
	l := t.lock(r.Key)
	granted, err := t.request(l, r, id)
	if err != nil {
		t.tellDenied(r, nil, err)
	} else if len(t.leases) > 0 {
		t.renewCaller(l, r)
	}
	t.settle(l)
	return granted, err
}

// Reserve returns the place in the order of waits at which a request arrived
// that was sent back with [ErrLookup]: asked again with it, it stands before
// those who came meanwhile.
func (t *Table) Reserve() uint64 {
	t.lastPlace++
	return t.lastPlace
}

// Reserved says that [Table.Reserve] had returned a place to a request that is
// still to come back, in a table that was made again since: nobody else gets
// it, or one before it, from here on.
func (t *Table) Reserved(place uint64) { t.lastPlace = max(t.lastPlace, place) }

// request is acquire without the settling that follows every step.
func (t *Table) request(l *lock, r *Request, id WaitID) (bool, error) {
	// Who makes the name asks for it: it fails on any hold, the caller's own
	// too, and never waits.
	switch {
	case !r.Via.makes():
	case len(l.holds) > 0:
		return false, ErrHeld
	case l.grace:
		return false, ErrGrace
	}
	place := t.lastPlace + 1
	if r.Reserved != 0 {
		place = r.Reserved
	}
	back := t.resumable(l, r)
	if back != nil {
		place = min(place, back.Place)
	}
	blocked, err := t.blocked(l, r, place)
	if err != nil {
		return false, err
	}
	if !blocked {
		if err = t.cover(r); err != nil && !errors.Is(err, ErrForeign) {
			return false, err
		}
		blocked = err != nil
	}
	if blocked && (id == 0 || r.Via.makes()) {
		switch {
		case err != nil:
			return false, err
		case l.grace:
			return false, ErrGrace
		}
		return false, ErrHeld
	}
	if blocked && r.anonymous() && l.classes|r.class() == mixed {
		// It would be asked for when nobody can answer, see advance.
		return false, ErrLookup
	}
	if blocked && r.Via == ViaFcntl {
		if err := t.deadlock(l, r); err != nil {
			return false, err
		}
	}
	if back != nil {
		t.dequeue(l, back)
	}
	r.Reserved = 0
	if !blocked {
		t.grant(l, r, nil)
		t.follow(l, r)
		return true, nil
	}
	if r.Via == ViaFlock {
		// flock(2): a conversion that blocks loses the lock it converts.
		t.unlockHandle(l, r.Party.Handle, ViaFlock)
	}
	w := &wait{Wait: Wait{ID: id, Place: place, Since: t.clock.Now(), Request: *r}}
	t.lastPlace = max(t.lastPlace, place)
	t.tangle(l, r)
	l.tangled = l.tangled || t.mayPass(l, r)
	t.enqueue(l, w)
	t.journal.PutWait(&w.Wait)
	t.tellWaits(&w.Wait)
	// Nobody depends on w unless its party holds something; or, if it came back
	// to an old place, one behind it does.
	if l.tangled || w.Via == ViaFcntl && t.ownerHolds[w.Party.Owner] > 0 {
		t.unblockOthers(w)
	}
	return false, nil
}

// blocked reports whether r, at a place in l's queue, has to wait: for a hold,
// behind a wait, or for the end of grace. Errors: [ErrLookup].
func (t *Table) blocked(l *lock, r *Request, place uint64) (bool, error) {
	if l.grace && !t.satisfied(l, r) {
		return true, nil
	}
	if r.Mode == Exclusive || l.exclusive > 0 {
		for _, h := range l.holds {
			yes, known := t.conflicts(&h.Request, h.Since, r)
			if !known {
				return true, ErrLookup
			}
			if yes {
				return true, nil
			}
		}
	}
	if l.queued == l.absent {
		return false, nil
	}
	// Most often the last in the queue settles it: so the cost of arriving
	// does not depend on the queue's length.
	if w := l.last; w.Mode == Exclusive && w.Place < place && !w.isAbsent() {
		if yes, known := t.conflicts(&w.Request, w.Since, r); yes && known && !t.mayPass(l, r) {
			return true, nil
		}
	}
	mayPass, asked := false, false
	var passed *wait // the last wait that r may pass
	for w := l.first; w != nil && w.Place < place; w = w.next {
		if w.isAbsent() {
			continue
		}
		yes, known := t.conflicts(&w.Request, w.Since, r)
		if !yes {
			continue
		}
		if !asked {
			if t.satisfied(l, r) {
				return false, nil
			}
			mayPass, asked = t.mayPass(l, r), true
		}
		if !known {
			return true, ErrLookup
		}
		// Who stands behind one that waits for r's party waits for it too:
		// one walk does for a whole queue of them.
		if mayPass && passed != nil {
			if behind, _ := t.conflicts(&passed.Request, passed.Since, &w.Request); behind {
				passed = w
				continue
			}
		}
		if !mayPass || !t.dependsOn(w, r) {
			return true, nil
		}
		passed = w
	}
	return false, nil
}

// mayPass reports whether r's party holds something, so that a wait may be
// waiting for it.
func (t *Table) mayPass(l *lock, r *Request) bool {
	if r.Via == ViaFcntl && t.ownerHolds[r.Party.Owner] > 0 {
		return true
	}
	for _, h := range l.holds {
		if t.holdsFor(h, r) {
			return true
		}
	}
	return false
}

// holdsFor reports whether who waits for h waits for r's party. On other locks
// only fcntl owners are followed. Where it depends on a look-up, he does: that
// r is let past somebody needlessly is unfair at worst.
func (t *Table) holdsFor(h *Hold, r *Request) bool {
	if h.Key != r.Key {
		return h.Via == ViaFcntl && r.Via == ViaFcntl && sameOwner(&h.Party, &r.Party)
	}
	same, known := t.sameParty(&h.Request, h.Since, r)
	return same || !known
}

// satisfied reports whether r asks for nothing that its owner does not hold
// already, as strongly: asking again, and downgrading, never wait.
func (t *Table) satisfied(l *lock, r *Request) bool {
	left := []Range{r.Range}
	for _, h := range l.holds {
		if h.Via != r.Via || h.Mode < r.Mode || !t.ownedBy(h, &r.Party) {
			continue
		}
		var next []Range
		for _, q := range left {
			parts, n := q.minus(h.Range)
			next = append(next, parts[:n]...)
		}
		left = next
	}
	return len(left) == 0
}

// ownedBy reports whether h belongs to exactly the owner that p is for h's
// idiom: what p can convert and give back. Through another node of the lock it
// is another file to the kernel, with holds of its own.
func (t *Table) ownedBy(h *Hold, p *Party) bool {
	if h.Via == ViaFcntl {
		return h.Party.File == p.File && sameOwner(&h.Party, p)
	}
	return h.Party.Handle == p.Handle
}

// grant makes r a hold of l. What the owner held there by the same idiom is
// converted; weaker is true if some of that was exclusive and is shared now,
// for which others may have waited. after is the wait that it ends, if any.
func (t *Table) grant(l *lock, r *Request, after *Wait) (h *Hold, weaker bool) {
	for _, h := range l.holds {
		if h.Via == r.Via && h.Mode == r.Mode && h.Range.Covers(r.Range) &&
			h.Party.Handle == r.Party.Handle && t.ownedBy(h, &r.Party) {
			if after != nil {
				t.tellTook(h, after)
			}
			return h, false // asked again
		}
	}
	h = t.newHold(r)
	weaker = t.carve(l, h)
	t.put(l, h)
	t.tellTook(h, after)
	return h, weaker
}

// carve makes room for h among its owner's holds, as fcntl(2) says: those of
// the same mode that touch it become part of it, those of another mode lose
// what h covers. So do those of another open file: the number of an OFD owner
// may have come back to the same process before the RELEASE of the file that
// had it, which must end what was taken through that file and nothing else. It
// reports whether any of these was exclusive and h is not.
func (t *Table) carve(l *lock, h *Hold) (weaker bool) {
	for i := 0; i < len(l.holds); {
		old := l.holds[i]
		if old.Via != h.Via || !t.ownedBy(old, &h.Party) {
			i++
			continue
		}
		switch merge := old.Mode == h.Mode && old.Party.Handle == h.Party.Handle; {
		case merge && old.Range.touches(h.Range):
			h.Range = h.Range.union(old.Range)
			// The older one goes on: since when, and by which process.
			if old.Since.Boot < h.Since.Boot {
				h.Since, h.Party = old.Since, old.Party
			}
			t.drop(l, i)
			t.tellLeft(old, old.Range, Replaced)
		case !merge && old.Range.Overlaps(h.Range):
			t.cut(l, i, h.Range, Replaced)
			weaker = weaker || old.Mode > h.Mode
		default:
			i++
		}
	}
	return weaker
}

// cut takes a range out of the i-th hold of l for a reason and puts what is left
// of it at the end of the holds.
func (t *Table) cut(l *lock, i int, r Range, why Reason) {
	old := t.drop(l, i)
	parts, n := old.Range.minus(r)
	for _, p := range parts[:n] {
		part := *old
		part.Range = p
		t.put(l, &part)
	}
	t.tellLeft(old, old.Range.common(r), why)
}

// Test returns the hold that keeps r from being granted, for F_GETLK; of
// several, the one that begins first in the file. Who waits does not matter
// (fcntl(2)). Errors: [ErrLookup], [ErrRange].
func (t *Table) Test(r Request) (Hold, bool, error) {
	if !r.Range.Valid() {
		return Hold{}, false, ErrRange
	}
	l := t.locks[r.Key]
	if l == nil {
		return Hold{}, false, nil
	}
	var first *Hold
	for _, h := range l.holds {
		yes, known := t.conflicts(&h.Request, h.Since, &r)
		if !known {
			return Hold{}, false, ErrLookup
		}
		if yes && (first == nil || h.Range.First < first.Range.First) {
			first = h
		}
	}
	if first == nil {
		return Hold{}, false, nil
	}
	return *first, true, nil
}
