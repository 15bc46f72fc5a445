package lockspace

// advance grants every wait of l that is blocked by nothing any more, in the
// order of the queue.
//
// In a queue that is not tangled it ends at the first exclusive wait for the
// whole lock that stays blocked: that one keeps everybody behind it, so the
// cost of a release does not depend on the queue's length.
func (t *Table) advance(l *lock) {
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
		// now. What is not known counts as a conflict.
		blocked, err := t.blocked(l, &w.Request, w.Place)
		if !blocked && err == nil {
			if t.promote(l, w) {
				next = l.first // waits have ended that blocked others: start anew
			}
			continue
		}
		if t.keepsAll(l, w) {
			return
		}
	}
}

// keepsAll reports whether w, blocked, blocks every wait behind it.
func (t *Table) keepsAll(l *lock, w *wait) bool {
	return !l.tangled && w.Mode == Exclusive && w.Range == Whole &&
		len(t.waitsByHandle[w.Party.Handle]) == 1 &&
		(w.Via != ViaFcntl || len(t.waitsByOwner[w.Party.Owner]) == 1)
}

// promote makes a wait a hold. It reports whether that ended other waits.
func (t *Table) promote(l *lock, w *wait) (ended bool) {
	t.dequeue(l, w)
	h := t.grant(l, &w.Request)
	t.observer.Granted(w.Wait, *h)
	return w.Via == ViaFcntl && t.recheck(l, w)
}

// tangle marks what r, which is about to hold or wait on l, does to the short
// cuts through the queues. A queue is tangled when one of its waits may belong
// to somebody who holds something already, or be of one party with another
// wait: then a wait may be let past others, and every one has to be looked at.
func (t *Table) tangle(l *lock, r *Request) {
	class := uint8(1)
	if r.Via == ViaFcntl {
		class = 2
	}
	l.classes |= class
	if l.classes == 3 {
		l.tangled = true
	}
	if len(t.waits) == 0 {
		return
	}
	for _, w := range t.waitsByHandle[r.Party.Handle] {
		t.locks[w.Key].tangled = true
	}
	if r.Via == ViaFcntl {
		for _, w := range t.waitsByOwner[r.Party.Owner] {
			t.locks[w.Key].tangled = true
		}
	}
}
