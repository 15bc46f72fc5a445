package lockspace

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// wait is a Wait in the queue of its lock.
type wait struct {
	Wait
	lock       *lock // in whose queue it is
	prev, next *wait
	// walked is the last walk that visited it.
	walked uint64
}

func (w *wait) isAbsent() bool { return w.AbsentUntil != 0 }

// absentee remembers when a place lapses.
type absentee struct {
	id    WaitID
	until time.Duration
}

// enqueue puts w into l's queue, in the order of places. New waits have the
// highest place, so the search from the end ends at once; only a resumed one
// looks further.
func (t *Table) enqueue(l *lock, w *wait) {
	t.save(l)
	at := l.last
	for at != nil && at.Place > w.Place {
		at = at.prev
	}
	w.prev = at
	if at == nil {
		w.next, l.first = l.first, w
	} else {
		w.next, at.next = at.next, w
	}
	if w.next == nil {
		l.last = w
	} else {
		w.next.prev = w
	}
	if l.queued == 0 {
		l.span = w.Range
	}
	l.span = l.span.union(w.Range)
	l.queued++
	if w.isAbsent() {
		l.absent++
	}
	w.lock = l
	t.waits[w.ID] = w
	t.waitsIn[l.key.Dir]++
	t.waitsByHandle[w.Party.Handle] = append(t.waitsByHandle[w.Party.Handle], w)
	if w.Via == ViaFcntl {
		t.waitsByOwner[w.Party.Owner] = append(t.waitsByOwner[w.Party.Owner], w)
	}
}

// dequeue takes w out of l's queue and the journal.
func (t *Table) dequeue(l *lock, w *wait) {
	t.save(l)
	if w.prev == nil {
		l.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		l.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	l.queued--
	if w.isAbsent() {
		l.absent--
	}
	delete(t.waits, w.ID)
	if t.waitsIn[l.key.Dir]--; t.waitsIn[l.key.Dir] == 0 {
		delete(t.waitsIn, l.key.Dir)
	}
	remove(t.waitsByHandle, w.Party.Handle, w)
	if w.Via == ViaFcntl {
		remove(t.waitsByOwner, w.Party.Owner, w)
	}
	t.journal.DropWait(w.ID)
}

// remove takes w out of the list of key, and the list out of m with its last.
func remove(m map[uint64][]*wait, key uint64, w *wait) {
	list := m[key]
	i := slices.Index(list, w)
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(m, key)
	} else {
		m[key] = list
	}
}

// Cancel ends a wait whose caller was interrupted or killed; the user answers
// the call itself. The place is kept for [ResumeGrace], for the case that the
// kernel restarts the call, but nobody waits for one who is absent. It reports
// whether there was such a wait.
func (t *Table) Cancel(id WaitID) bool {
	w := t.waits[id]
	if w == nil || w.isAbsent() {
		return false
	}
	l := w.lock
	t.save(l)
	t.tellDenied(&w.Request, &w.Wait, ErrInterrupted)
	w.AbsentUntil = t.clock.Now().Boot + ResumeGrace
	l.absent++
	t.absent = append(t.absent, absentee{id, w.AbsentUntil})
	t.journal.PutWait(&w.Wait)
	t.settle(l)
	return true
}

// resumable returns the absent wait whose place r takes over: the same call
// by the same party, restarted; of several, the first in the queue. nil if
// there is none.
//
// An open(2) that is made again has another open file to come. It is the same
// call if the same thread makes it.
func (t *Table) resumable(l *lock, r *Request) (back *wait) {
	if l.absent == 0 {
		return nil
	}
	now := t.clock.Now().Boot
	if r.Via == ViaOpen {
		for w := l.first; w != nil; w = w.next {
			if w.isAbsent() && now < w.AbsentUntil && w.reopens(r) {
				return w
			}
		}
		return nil
	}
	for _, w := range t.waitsByHandle[r.Party.Handle] {
		if w.isAbsent() && now < w.AbsentUntil && w.Key == r.Key && w.Via == r.Via &&
			w.Mode == r.Mode && w.Range == r.Range && w.Party.Owner == r.Party.Owner &&
			(back == nil || w.Place < back.Place) {
			back = w
		}
	}
	return back
}

// reopens reports whether r is the open(2) that waited in w, made again.
func (w *wait) reopens(r *Request) bool {
	return w.Via == ViaOpen && w.Mode == r.Mode && r.Thread != 0 && w.Thread == r.Thread &&
		w.Party.Taker.Pid == r.Party.Taker.Pid
}

// giveUp drops the wait that a refers to, if it is still absent since then.
func (t *Table) giveUp(a absentee) {
	w := t.waits[a.id]
	if w == nil || w.AbsentUntil != a.until {
		return
	}
	t.dequeue(w.lock, w)
	t.unsettle(w.lock)
}

// restoreAbsent rebuilds the order of expiry.
func (t *Table) restoreAbsent() {
	for id, w := range t.waits {
		if w.isAbsent() {
			t.absent = append(t.absent, absentee{id, w.AbsentUntil})
		}
	}
	slices.SortFunc(t.absent, func(a, b absentee) int { return cmp.Compare(a.until, b.until) })
}

// Shutdown refuses every wait with [ErrShutdown] and drops every absent one.
// Holds stay: they end with their open files.
func (t *Table) Shutdown() {
	waits := slices.SortedFunc(maps.Values(t.waits), func(a, b *wait) int {
		return cmp.Compare(a.Place, b.Place)
	})
	for _, w := range waits {
		t.dequeue(w.lock, w)
		if !w.isAbsent() {
			t.refused(w, ErrShutdown)
		}
	}
	// Not before all are gone: nobody enters because one before him left.
	for _, w := range waits {
		if l := t.locks[w.Key]; l != nil {
			t.settle(l)
		}
	}
	t.absent = nil
}
