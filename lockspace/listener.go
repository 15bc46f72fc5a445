package lockspace

// Who wants to know all that happens: an audit trail, metrics.

// Listener is told of everything that happens to holds and waits, in the order
// in which it happens, so that who has heard it all knows the table:
//
//   - A token is taken once, with a range of bytes. Parts of that, or all of it,
//     leave, each once; what has not left is held. A fcntl(2) call that merges
//     with what its owner had, or converts it, takes a new token for all that
//     is one hold now, and what that replaces has left just before, [Replaced].
//     A call that asks for what it has already, and need not wait, takes
//     nothing.
//   - A wait begins once, and is over once: when it has taken something, or is
//     denied. One that the kernel restarts is denied and begins again.
//   - [Table.Move] is not told of, nor that a lease is renewed: tokens stay.
//
// What is passed is valid during the call only, but for the Holds, which do not
// change. A Listener is called in the middle of steps and must not call the
// table. What a table has that was restored has been told before.
type Listener interface {
	// Took: h is held. after is the wait that this ends, nil if it was granted at
	// once. If that wait's party has got all of it otherwise meanwhile, h has been
	// told of before.
	Took(h *Hold, after *Wait)
	// Left: r, which is h.Range or a part of it, is not held by h any more.
	Left(h *Hold, r Range, why Reason)
	// Waits: a wait begins.
	Waits(w *Wait)
	// Denied: a request is not granted. after is the wait that this ends, nil if
	// it did not wait. err is [ErrInterrupted] or one that [Table.Try],
	// [Table.Acquire] or [Observer.Refused] tells, but for [ErrLookup], which
	// decides nothing, and [ErrRange].
	Denied(r *Request, after *Wait, err error)
}

// Listen has l told of everything from here on, in the place of who was before;
// nil: nobody. Not within a step.
func (t *Table) Listen(l Listener) { t.listener = l }

// tell functions cost a comparison when nobody listens.

func (t *Table) tellTook(h *Hold, after *Wait) {
	if t.listener != nil {
		t.listener.Took(h, after)
	}
}

func (t *Table) tellLeft(h *Hold, r Range, why Reason) {
	if t.listener != nil {
		t.listener.Left(h, r, why)
	}
}

func (t *Table) tellWaits(w *Wait) {
	if t.listener != nil {
		t.listener.Waits(w)
	}
}

func (t *Table) tellDenied(r *Request, after *Wait, err error) {
	if t.listener != nil && err != ErrLookup && err != ErrRange {
		denied := *r // so that no other request has to be on the heap
		t.listener.Denied(&denied, after, err)
	}
}

// refused tells of a wait that ended without a hold.
func (t *Table) refused(w *wait, err error) {
	t.tellDenied(&w.Request, &w.Wait, err)
	t.observer.Refused(w.Wait, err)
}
