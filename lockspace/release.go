package lockspace

import "slices"

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
		t.unlockOwner(l, p.File, p.Owner, r, Released)
	} else {
		t.unlockHandle(l, p.Handle, via)
	}
	if len(t.leases) > 0 {
		t.renewHandle(l, &p, via)
	}
	t.settle(l)
}

// EndOwner is a close of file by the process with the fcntl owner number: every
// close ends the POSIX locks of the process on that file (fcntl(2)), and nothing
// else. why is [Released], or [Died] if the process is at its end.
func (t *Table) EndOwner(k Key, file, owner uint64, why Reason) {
	// Every close of any file comes by here; most have no fcntl lock.
	if t.ownerHolds[owner] == 0 {
		return
	}
	l := t.locks[k]
	if l == nil {
		return
	}
	t.unlockOwner(l, file, owner, Whole, why)
	t.settle(l)
}

// EndHandle is the end of an open file: everything taken through it ends, but
// for a hold by name, and its places in the queue are given up. A call that is
// still waiting, which the kernel does not do to an open file, ends with
// [ErrBroken]. why is [Released]; [Died] if it was the end of its process that
// closed the file; or [Lost] if the file is open and what it holds is gone.
func (t *Table) EndHandle(k Key, handle uint64, why Reason) {
	l := t.locks[k]
	if l == nil {
		return
	}
	for i := 0; i < len(l.holds); {
		if h := l.holds[i]; h.Party.Handle != handle || h.ByName {
			i++
			continue
		}
		t.end(l, i, why)
	}
	if l.queued > 0 {
		t.refuse(l, handle)
	}
	t.settle(l)
}

// End ends every hold of k, each for the reason that why gives: Released for
// those of the caller, Broken for others. The waits of an open file whose
// hold was taken away end with [ErrBroken].
func (t *Table) End(k Key, why func(*Hold) Reason) {
	l := t.locks[k]
	if l == nil {
		return
	}
	for len(l.holds) > 0 {
		t.end(l, 0, why(l.holds[0]))
	}
	t.settle(l)
}

// EndHold ends exactly the hold with a number, if there still is one, and
// reports whether there was: how a hold is reaped. The number stays the same
// while the hold is renewed and moved. Holds by name are found at once, for
// others the whole table may be searched.
func (t *Table) EndHold(id HoldID, why Reason) bool {
	l := t.lockOf(id)
	if l == nil {
		return false
	}
	t.end(l, l.find(id), why)
	t.settle(l)
	return true
}

// lockOf returns the lock that has the hold with a number, nil if there is
// none.
func (t *Table) lockOf(id HoldID) *lock {
	if l := t.named[id]; l != nil {
		return l
	}
	for _, l := range t.locks {
		if l.find(id) >= 0 {
			return l
		}
	}
	return nil
}

// find returns the index of the hold with a number, -1 if l does not have it.
func (l *lock) find(id HoldID) int {
	return slices.IndexFunc(l.holds, func(h *Hold) bool { return h.ID == id })
}

// end ends the i-th hold of l as a whole. If it was not given back, grace
// begins; if it was taken away from an open file, the waits of that end.
func (t *Table) end(l *lock, i int, why Reason) {
	h := t.drop(l, i)
	if why.abnormal() {
		t.beginGrace(l)
	}
	if why.takesAway() {
		t.refuse(l, h.Party.Handle)
	}
	t.tellLeft(h, h.Range, why)
	t.observer.Ended(*h, why)
}

// refuse ends the waits in l's queue of a handle that is broken or closed.
func (t *Table) refuse(l *lock, handle uint64) {
	for _, w := range append([]*wait(nil), t.waitsByHandle[handle]...) {
		if w.Key != l.key {
			continue
		}
		t.dequeue(l, w)
		if !w.isAbsent() {
			t.refused(w, ErrBroken)
		}
	}
}

// unlockOwner takes range r out of the fcntl holds on file that bear an owner
// number. Those of which nothing is left end for a reason.
func (t *Table) unlockOwner(l *lock, file, owner uint64, r Range, why Reason) {
	// Parts that stay are put at the end; they need not be looked at again.
	for i, n := 0, len(l.holds); i < n; {
		h := l.holds[i]
		if h.Via != ViaFcntl || h.Party.Owner != owner || h.Party.File != file || !h.Range.Overlaps(r) {
			i++
			continue
		}
		if r.Covers(h.Range) {
			t.end(l, i, why)
		} else {
			t.cut(l, i, r, why)
		}
		n--
	}
}

// unlockHandle drops the hold that a handle has by an idiom of whole locks,
// and that is not owned by the name.
func (t *Table) unlockHandle(l *lock, handle uint64, via Via) {
	for i, h := range l.holds {
		if h.Via == via && h.Party.Handle == handle && !h.ByName {
			t.end(l, i, Released)
			return // there is one at most
		}
	}
}
