package lockspace

// Holds that are owned by the existence of a name ([Request.ByName]): what ends
// them is done to the name, not to an open file.

// Named returns the hold by name of k, nil if it has none.
func (t *Table) Named(k Key) *Hold {
	if l := t.locks[k]; l != nil {
		if i := l.named(); i >= 0 {
			return l.holds[i]
		}
	}
	return nil
}

// named returns the index of l's hold by name, -1 if it has none.
func (l *lock) named() int {
	for i, h := range l.holds {
		if h.ByName {
			return i
		}
	}
	return -1
}

// Move is the renaming of a directory: the hold by name of from is that of to
// from then on, with its number and its token. What is held or waited for
// through open files of the same node ([Party.File]) goes along. What is left
// through others stays: who waits for from may have it now.
//
// A from without a hold by name has nothing to move, which is no error. Errors:
// [ErrHeld], [ErrGrace] of to; [ErrTokens], since the place in the listing is
// one of their numbers; [ErrForeign], [ErrLookup] and others of the mirror. On an error nothing has changed.
func (t *Table) Move(from, to Key) error {
	l := t.locks[from]
	if l == nil || l.named() < 0 || from == to {
		return nil
	}
	if t.tokens.Left() <= uint64(len(t.waits)) {
		return ErrTokens
	}
	switch dest := t.locks[to]; {
	case dest == nil:
	case len(dest.holds) > 0:
		return ErrHeld
	case dest.grace:
		return ErrGrace
	}
	file := l.holds[l.named()].Party.File
	goes := func(h *Hold) bool { return h.ByName || h.Party.File == file }
	for _, h := range l.holds {
		if r := h.Request; goes(h) {
			r.Key = to
			if err := t.cover(&r); err != nil {
				t.settle(t.lock(to))
				return err
			}
		}
	}
	dest := t.lock(to)
	// The new place is behind all others of the directory, as if it were taken
	// now.
	dest.listed = t.tokens.Next()
	t.listing(to.Dir).Add(dest.listed, dest)
	for i := 0; i < len(l.holds); {
		if !goes(l.holds[i]) {
			i++
			continue
		}
		h := *t.remove(l, i)
		h.Key, h.Listed = to, dest.listed
		t.tangle(dest, &h.Request)
		t.insert(dest, &h)
		t.journal.PutHold(&h)
	}
	var next *wait
	for w := l.first; w != nil; w = next {
		next = w.next
		if w.Party.File != file {
			continue
		}
		t.dequeue(l, w)
		w.Key = to
		t.tangle(dest, &w.Request)
		dest.tangled = true // rather no short cut than a wrong one
		t.enqueue(dest, w)
		t.journal.PutWait(&w.Wait)
	}
	t.unsettle(l)
	t.unsettle(dest)
	t.settleRest()
	return nil
}
