package lockspace

import "slices"

// Deadlock.
//
// The wait graph has an edge from a wait to every hold that it conflicts
// with, and to every present wait before it in its queue that it conflicts
// with. A hold leads on to the waits of its fcntl owner and of its handle:
// while they wait, the hold is not going to end.
//
// Two moves add edges. Neither leaves a cycle of POSIX fcntl waits behind, nor
// a wait behind one that waits for it:
//
//  1. A request begins to wait. [Table.deadlock] searches the paths from the
//     holds in its way back to its owner's holds first, and fails it if there
//     is one. Edges to waits before it cannot close a cycle: a wait that
//     depends on the request's party is passed, not waited for
//     ([Table.blocked]). But others depend on more now, those who wait for a
//     hold of its party and, if it came back to an old place, those behind it:
//     who stands behind one of them may have to be let past him.
//     [Table.unblockOthers] sees to it.
//  2. A request is granted, out of the queue or at once. Those behind it in
//     the queue wait for its party now; that is new if the party waits
//     somewhere else too, which takes a process with several threads, or a
//     file that several use. [Table.follow] searches again from them, as in 1.
//
// A grant to a party that waits nowhere else adds nothing: who conflicts with
// it stood behind it, conflicted with a hold of the party before, or was
// passed because he depends on it.
//
// Nothing else adds edges. [Table.Move] takes holds and waits, in their order,
// to a lock that has neither: among each other they are as before, and of
// those who stay they are rid. While a lock is in grace nobody may pass in its
// queue, since nobody gets it; its end is a step like any other, which lets in
// who may go.
//
// A request fails for a cycle of fcntl owners only, since only for POSIX locks
// is the owner, a process, known to be the one who would have to let go; and of
// the fcntl waits on a path, each must be known to be POSIX, not OFD. The kernel
// does the same (posix_locks_deadlock in fs/locks.c). A cycle through anything
// else may be false and is left alone.

// deadlock returns [ErrDeadlock] if r, which has to wait, would close a cycle
// of POSIX waits, and [ErrLookup] if that depends on a look-up.
func (t *Table) deadlock(l *lock, r *Request) error {
	if t.ownerHolds[r.Party.Owner] == 0 {
		return nil // nobody can be waiting for him
	}
	// Almost always there is no path at all; only when there is one, find out
	// which waits are POSIX.
	any := search{t: t, r: r, all: true}
	if !any.from(l) {
		return nil
	}
	posix := search{t: t, r: r}
	if posix.from(l) {
		return ErrDeadlock
	}
	if posix.unknown {
		return ErrLookup
	}
	return nil
}

// search looks for a path from a request to a hold of its own owner, over
// fcntl holds and waits.
type search struct {
	t       *Table
	r       *Request
	all     bool // follow waits of unknown class as well
	unknown bool // a wait was not followed for want of a look-up
	seen    map[*wait]bool
}

// from searches the paths that begin with the holds of l in r's way.
func (s *search) from(l *lock) bool {
	s.seen = make(map[*wait]bool)
	for _, h := range l.holds {
		if s.inWay(h, s.r) && s.waitsOf(h) {
			return true
		}
	}
	return false
}

// inWay reports whether an fcntl hold keeps r waiting.
func (s *search) inWay(h *Hold, r *Request) bool {
	if h.Via != ViaFcntl {
		return false
	}
	yes, _ := s.t.conflicts(&h.Request, h.Since, r)
	return yes
}

// waitsOf follows the waits of the owner of h. It reports whether one of them
// leads to s.r's owner.
func (s *search) waitsOf(h *Hold) bool {
	for _, w := range s.t.waitsByOwner[h.Party.Owner] {
		if w.isAbsent() || s.seen[w] || !sameOwner(&h.Party, &w.Party) || !s.posix(&w.Request, h) {
			continue
		}
		s.seen[w] = true
		for _, next := range w.lock.holds {
			if !s.inWay(next, &w.Request) {
				continue
			}
			if sameOwner(&next.Party, &s.r.Party) {
				if s.posix(s.r, next) {
					return true
				}
				continue
			}
			if s.waitsOf(next) {
				return true
			}
		}
	}
	return false
}

// posix reports whether an fcntl request is known to be a process's, not an
// open file's. h is a hold of the same owner: one owner with two handles is a
// process.
func (s *search) posix(r *Request, h *Hold) bool {
	if s.all || h.Party.Handle != r.Party.Handle {
		return true
	}
	class, known := s.t.procs.WaitClass(r.Thread)
	if !known {
		s.unknown = true
	}
	return class == ClassPOSIX
}

// follow draws the conclusions from the grant of r to a party that waits
// elsewhere too. It reports whether there were any to draw.
func (t *Table) follow(l *lock, r *Request) (any bool) {
	if len(t.waits) == 0 {
		return false
	}
	others := slices.Clone(t.waitsByHandle[r.Party.Handle])
	if r.Via == ViaFcntl {
		others = append(others, t.waitsByOwner[r.Party.Owner]...)
		any = t.recheck(l, r)
	}
	for _, w := range others {
		if t.waits[w.ID] == w && !w.isAbsent() {
			t.unblockOthers(w)
			any = true
		}
	}
	return any
}

// recheck refuses the waits that the grant of r put into a cycle, and reports
// whether there were any. A wait of which it is not known whether it is POSIX
// is left alone: there is nobody to ask again.
func (t *Table) recheck(l *lock, r *Request) (any bool) {
	if len(t.waitsByOwner[r.Party.Owner]) == 0 {
		return false
	}
	var next *wait
	for w := l.first; w != nil; w = next {
		next = w.next
		if w.isAbsent() || w.Via != ViaFcntl {
			continue
		}
		if t.deadlock(l, &w.Request) == ErrDeadlock {
			t.dequeue(l, w)
			t.refused(w, ErrDeadlock)
			any = true
		}
	}
	return any
}

// dependsOn reports whether w waits, directly or through others, for a hold of
// r's party.
func (t *Table) dependsOn(w *wait, r *Request) bool {
	found := false
	t.walk(w, func(h *Hold) bool {
		found = t.holdsFor(h, r)
		return !found
	}, nil)
	return found
}

// walk visits everything that w waits for, directly and through others, until
// hold returns false. Waits are visited once. Either function may be nil; they
// must not walk.
func (t *Table) walk(w *wait, hold func(*Hold) bool, visit func(*wait)) {
	t.walks++
	t.stack = t.stack[:0]
	t.push(w)
	for len(t.stack) > 0 {
		last := len(t.stack) - 1
		w := t.stack[last]
		t.stack = t.stack[:last]
		if visit != nil {
			visit(w)
		}
		l := w.lock
		for _, h := range l.holds {
			if yes, _ := t.conflicts(&h.Request, h.Since, &w.Request); !yes {
				continue
			}
			if hold != nil && !hold(h) {
				return
			}
			if h.Via == ViaFcntl {
				for _, next := range t.waitsByOwner[h.Party.Owner] {
					if sameOwner(&h.Party, &next.Party) {
						t.push(next)
					}
				}
			}
			for _, next := range t.waitsByHandle[h.Party.Handle] {
				t.push(next)
			}
		}
		t.pushQueue(l, w)
	}
}

// push adds a wait to those that the present walk has to visit, once.
func (t *Table) push(w *wait) {
	if !w.isAbsent() && w.walked != t.walks {
		w.walked = t.walks
		t.stack = append(t.stack, w)
	}
}

// pushQueue adds the waits before w that it conflicts with. A queue of
// exclusive waits for the same bytes is gone through once, not once for each of
// them: what one of them does not conflict with is of its own party, and waits
// for nothing that it does not wait for itself; unless parties are processes.
func (t *Table) pushQueue(l *lock, w *wait) {
	if l.walked != t.walks {
		l.walked, l.upTo = t.walks, 0
	}
	if w.Place <= l.upTo {
		return
	}
	for e := l.first; e != w; e = e.next {
		if yes, _ := t.conflicts(&e.Request, e.Since, &w.Request); yes {
			t.push(e)
		}
	}
	if w.Mode == Exclusive && w.Range.Covers(l.span) && l.classes != mixed {
		l.upTo = w.Place
	}
}

// unblockOthers lets those pass who may, now that somebody has come to depend
// on w: they stand behind one who depends on them through w.
func (t *Table) unblockOthers(w *wait) {
	t.walk(w, nil, func(e *wait) {
		t.unsettle(e.lock)
	})
}

// Edge says that a wait waits for a hold, or stands behind another wait.
type Edge struct {
	Wait   Wait
	Hold   *Hold // nil: behind Before
	Before *Wait // nil: for Hold
}

// Edges calls yield for every edge of the wait graph until it returns false:
// who waits for whom, for people to look at. yield must not change the table.
func (t *Table) Edges(yield func(Edge) bool) {
	for _, w := range t.waits {
		if w.isAbsent() {
			continue
		}
		l := w.lock
		for _, h := range l.holds {
			if yes, _ := t.conflicts(&h.Request, h.Since, &w.Request); yes && !yield(Edge{Wait: w.Wait, Hold: h}) {
				return
			}
		}
		for e := l.first; e != w; e = e.next {
			if e.isAbsent() {
				continue
			}
			if yes, _ := t.conflicts(&e.Request, e.Since, &w.Request); yes && !yield(Edge{Wait: w.Wait, Before: &e.Wait}) {
				return
			}
		}
	}
}
