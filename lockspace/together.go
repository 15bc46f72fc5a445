package lockspace

import "errors"

// Holds that are taken together ([ViaOwner]): all of them in one step, or none. Who
// asks so never waits while he holds, so that two who ask for the same locks in
// different orders do not deadlock.

// TryAll asks for several holds that are granted at once, all of them, or not at
// all; the keys are all different. What the party has already in that mode is not
// granted anew; a hold of another mode is converted. Errors: those of [Table.Try].
// refused is the index of a request that failed; of several it is the first that
// something of the table is in the way of, else the first.
func (t *Table) TryAll(requests []Request) (refused int, err error) {
	locks := make([]*lock, 0, len(requests))
	for i := range requests {
		r := &requests[i]
		r.complete()
		if !r.Range.Valid() {
			return i, ErrRange
		}
	}
	if t.tokens.Left() < uint64(len(t.waits)+len(requests)) {
		for i := range requests {
			t.tellDenied(&requests[i], nil, ErrTokens)
		}
		return 0, ErrTokens
	}
	for i := range requests {
		locks = append(locks, t.lock(requests[i].Key))
	}
	if refused, err = t.mayHave(locks, requests); err == nil {
		for i := range requests {
			t.grant(locks[i], &requests[i], nil)
		}
		for i := range requests {
			t.follow(locks[i], &requests[i])
		}
	} else {
		t.tellDenied(&requests[refused], nil, err)
	}
	for _, l := range locks {
		t.unsettle(l)
	}
	t.settleRest()
	return refused, err
}

// mayHave reports whether every request can be granted now: what is in the way in
// the table is looked for first, since the mirror may have to do something for its
// answer. Of several that it has to do something for it hears at once.
func (t *Table) mayHave(locks []*lock, requests []Request) (refused int, err error) {
	for i := range requests {
		switch blocked, err := t.blocked(locks[i], &requests[i], t.lastPlace+1); {
		case err != nil:
			return i, err
		case blocked && locks[i].grace:
			return i, ErrGrace
		case blocked:
			return i, ErrHeld
		}
	}
	for i := range requests {
		switch e := t.cover(&requests[i]); {
		case e == nil:
		case err == nil, errors.Is(err, ErrLookup) && !errors.Is(e, ErrLookup):
			refused, err = i, e
		}
	}
	return refused, err
}

// InTheWay calls yield for everything of the table that keeps a request from being
// granted at once, until it returns false: holds, and waits that came before. What
// is not known of a process counts as in the way. yield must not change the table.
func (t *Table) InTheWay(r Request, yield func(h *Hold, w *Wait) bool) {
	r.complete()
	l := t.locks[r.Key]
	if l == nil {
		return
	}
	for _, h := range l.holds {
		if yes, _ := t.conflicts(&h.Request, h.Since, &r); yes && !yield(h, nil) {
			return
		}
	}
	if t.satisfied(l, &r) {
		return
	}
	for w := l.first; w != nil; w = w.next {
		if yes, _ := t.conflicts(&w.Request, w.Since, &r); yes && !w.isAbsent() && !yield(nil, &w.Wait) {
			return
		}
	}
}

// InGrace reports whether nobody gets k for now, see [Policy.Grace].
func (t *Table) InGrace(k Key) bool { return t.graces[k] != nil }

// PassOn gives what is held of k through a handle to other processes: the hold is
// the same, and its processes are those of p from now on.
func (t *Table) PassOn(k Key, handle uint64, p Party) {
	l := t.locks[k]
	if l == nil {
		return
	}
	for i, old := range l.holds {
		if old.Party.Handle != handle || old.ByName {
			continue
		}
		t.save(l)
		h := *old
		h.Party.Taker, h.Party.Opener, h.Party.Opened = p.Taker, p.Opener, p.Opened
		l.holds[i] = &h
		t.journal.PutHold(&h)
		// The mirror's files are those of who holds.
		t.unsettle(l)
	}
	t.settleRest()
}
