package lockspace

// Unlock gives back what p holds of k by idiom via in range r: LOCK_UN, or
// F_UNLCK. Giving back what is not held is no error, as in flock(2) and
// fcntl(2).
//
// The kernel tells neither process nor kind of owner with F_UNLCK, so for
// fcntl the number is taken at its word: should it have been recycled, what
// else bears it is of a file that is closed already.
func (t *Table) Unlock(k Key, p Party, via Via, r Range) {
	l := t.locks[k]
	if l == nil || !r.Valid() {
		return
	}
	if via == ViaFcntl {
		t.unlockOwner(l, p.File, p.Owner, r)
	} else {
		t.unlockHandle(l, p.Handle, via)
	}
	t.settle(l)
}

// Flush is a close of file by the process with the fcntl owner number: every
// close gives back the POSIX locks of the process on that file (fcntl(2)),
// and nothing else.
func (t *Table) Flush(k Key, file, owner uint64) {
	// Every close of any file comes by here; most have no fcntl lock.
	if t.ownerHolds[owner] == 0 {
		return
	}
	l := t.locks[k]
	if l == nil {
		return
	}
	t.unlockOwner(l, file, owner, Whole)
	t.settle(l)
}

// CloseHandle is the end of an open file: everything taken through it is
// given back, and its places in the queue are given up. A call that is still
// waiting, which the kernel does not do to an open file, ends with
// [ErrBroken].
func (t *Table) CloseHandle(k Key, handle uint64) {
	l := t.locks[k]
	if l == nil {
		return
	}
	for i := 0; i < len(l.holds); {
		if l.holds[i].Party.Handle != handle {
			i++
			continue
		}
		t.observer.Ended(*t.drop(l, i), Released)
	}
	if l.queued > 0 {
		t.refuse(l, handle)
	}
	t.settle(l)
}

// End ends every hold of k, each for the reason that why gives: Released for
// those of the caller, Broken for others. The waits of an open file whose
// hold was broken end with [ErrBroken].
func (t *Table) End(k Key, why func(*Hold) Reason) {
	l := t.locks[k]
	if l == nil {
		return
	}
	for len(l.holds) > 0 {
		h := t.drop(l, 0)
		reason := why(h)
		if reason == Broken {
			t.refuse(l, h.Party.Handle)
		}
		t.observer.Ended(*h, reason)
	}
	t.settle(l)
}

// refuse ends the waits in l's queue of a handle that is broken or closed.
func (t *Table) refuse(l *lock, handle uint64) {
	for _, w := range append([]*wait(nil), t.waitsByHandle[handle]...) {
		if w.Key != l.key {
			continue
		}
		t.dequeue(l, w)
		if !w.isAbsent() {
			t.observer.Refused(w.Wait, ErrBroken)
		}
	}
}

// unlockOwner takes range r out of the fcntl holds on file that bear an owner
// number.
func (t *Table) unlockOwner(l *lock, file, owner uint64, r Range) {
	// Parts that stay are put at the end; they need not be looked at again.
	for i, n := 0, len(l.holds); i < n; {
		h := l.holds[i]
		if h.Via != ViaFcntl || h.Party.Owner != owner || h.Party.File != file || !h.Range.Overlaps(r) {
			i++
			continue
		}
		if !t.cut(l, i, r) {
			t.observer.Ended(*h, Released)
		}
		n--
	}
}

// unlockHandle drops the holds that a handle has by an idiom of whole locks.
func (t *Table) unlockHandle(l *lock, handle uint64, via Via) {
	for i, h := range l.holds {
		if h.Via == via && h.Party.Handle == handle {
			t.observer.Ended(*t.drop(l, i), Released)
			return // there is one at most
		}
	}
}
