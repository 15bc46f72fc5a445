package lockspace

import "errors"

// advance grants every wait of l that is blocked by nothing any more, in the
// order of the queue.
//
// In a queue that is not tangled it ends at the first exclusive wait that stays
// blocked and is for all that anybody waits for, as when all wait for the whole
// lock: that one keeps everybody behind it, so the cost of a release does not
// depend on the queue's length.
func (t *Table) advance(l *lock) {
	l.outside = false
	if l.queued == l.absent {
		return
	}
	var next *wait
	for w := l.first; w != nil; w = next {
		next = w.next
		if w.isAbsent() {
			continue
		}
		// No look-ups here: the one whom the answer concerns is not asking
		// now. What is not known counts as a conflict; it is known of all who
		// began to wait when the lock was mixed already.
		blocked, err := t.blocked(l, &w.Request, w.Place)
		if !blocked && err == nil {
			again, there := t.letIn(l, w)
			if again {
				next = l.first // those before it may go now: start anew
			}
			if !there {
				continue
			}
		}
		if l.keepsAll(w) {
			return
		}
	}
}

// letIn makes a wait a hold that nothing in the table blocks, if the mirror covers
// it; a wait that the mirror refuses for good ends. It reports whether waits before
// it may go now, and whether it is still there.
func (t *Table) letIn(l *lock, w *wait) (again, there bool) {
	switch err := t.cover(&w.Request); {
	case err == nil:
		return t.promote(l, w), false
	case errors.Is(err, ErrForeign), errors.Is(err, ErrLookup):
		l.outside = true
		t.mirror.Await(&w.Request)
		return false, true
	default:
		first := w.prev == nil
		t.dequeue(l, w)
		t.refused(w, err)
		return !first, false
	}
}

// keepsAll reports whether w, blocked, blocks every wait behind it.
func (l *lock) keepsAll(w *wait) bool {
	return !l.tangled && w.Mode == Exclusive && w.Range.Covers(l.span)
}

// promote makes a wait a hold. It reports whether that may let waits before it
// go: those of the same party, which may pass now; or any, if some of what it
// held exclusively is shared now.
func (t *Table) promote(l *lock, w *wait) bool {
	first := w.prev == nil
	t.dequeue(l, w)
	h, weaker := t.grant(l, &w.Request, &w.Wait)
	t.observer.Granted(w.Wait, *h)
	return t.follow(l, &w.Request) || !first && (weaker || l.classes == mixed)
}

// tangle marks what r, which is about to hold or wait on l, does to the short
// cuts through the queues. A queue is tangled when one of its waits may belong
// to somebody who holds something already, or be of one party with another
// wait: then a wait may be let past others, and every one has to be looked at.
func (t *Table) tangle(l *lock, r *Request) {
	l.classes |= r.class()
	if l.classes == mixed {
		l.tangled = true
	}
	if len(t.waits) == 0 {
		return
	}
	for _, w := range t.waitsByHandle[r.Party.Handle] {
		w.lock.tangled = true
	}
	if r.Via == ViaFcntl {
		for _, w := range t.waitsByOwner[r.Party.Owner] {
			w.lock.tangled = true
		}
	}
}
