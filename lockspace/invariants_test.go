package lockspace

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// checkInvariants checks the law of [Table] and that all indexes say the same.
// It changes nothing.
func checkInvariants(t *Table) error {
	for _, check := range []func(*Table) error{
		checkLocks, checkHolds, checkQueues, checkOwners, checkNames, checkListings, checkChains, checkAbsent, checkAgenda, checkLiveness,
	} {
		if err := check(t); err != nil {
			return err
		}
	}
	return nil
}

// checkLocks: a lock is in locks exactly while it has a hold, a wait or grace,
// and the counts are right.
func checkLocks(t *Table) error {
	holds, waits := 0, 0
	for k, l := range t.locks {
		if l.key != k {
			return fmt.Errorf("lock %v is filed under %v", l.key, k)
		}
		if len(l.holds) == 0 && l.queued == 0 && !l.grace {
			return fmt.Errorf("lock %v has neither hold nor wait nor grace", k)
		}
		if l.grace != (t.graces[k] != nil) {
			return fmt.Errorf("lock %v is in grace: %v, by its key: %v", k, l.grace, !l.grace)
		}
		if l.unsettled || len(t.unsettled) > 0 {
			return fmt.Errorf("lock %v is unsettled after the step", k)
		}
		if l.queued == 0 && l.tangled {
			return fmt.Errorf("lock %v is tangled without a queue", k)
		}
		exclusive := 0
		for _, h := range l.holds {
			exclusive += int(h.Mode)
		}
		if exclusive != l.exclusive {
			return fmt.Errorf("lock %v has %d exclusive holds, counted are %d", k, exclusive, l.exclusive)
		}
		holds += len(l.holds)
		waits += l.queued
	}
	if err := checkCounts(t); err != nil {
		return err
	}
	if holds != t.holds || waits != len(t.waits) {
		return fmt.Errorf("counted %d holds and %d waits, on the locks are %d and %d", t.holds, len(t.waits), holds, waits)
	}
	return nil
}

// checkCounts: what is counted by directory is what there is.
func checkCounts(t *Table) error {
	holds, waits := make(map[uint64]int), make(map[uint64]int)
	for k, l := range t.locks {
		holds[k.Dir] += len(l.holds)
		waits[k.Dir] += l.queued
	}
	for _, dirs := range []iter.Seq[uint64]{maps.Keys(holds), maps.Keys(t.listings), maps.Keys(t.waitsIn)} {
		for dir := range dirs {
			if h, w := t.Count(dir); h != holds[dir] || w != waits[dir] {
				return fmt.Errorf("in directory %d are %d holds and %d waits, counted %d and %d", dir, holds[dir], waits[dir], h, w)
			}
		}
	}
	for dir, n := range t.waitsIn {
		if n == 0 {
			return fmt.Errorf("no waits are counted in directory %d", dir)
		}
	}
	return nil
}

// checkHolds: no two inside, and each owner's fcntl holds disjoint and merged.
func checkHolds(t *Table) error {
	ids := make(map[HoldID]bool)
	tokens := make(map[uint64]*Hold)
	for k, l := range t.locks {
		if !slices.IsSortedFunc(l.holds, func(a, b *Hold) int { return cmp.Compare(a.ID, b.ID) }) {
			return fmt.Errorf("the holds of %v are not in the order in which they came", k)
		}
		for i, h := range l.holds {
			if err := checkHold(t, l, h); err != nil {
				return err
			}
			if ids[h.ID] {
				return fmt.Errorf("two holds have the number %d", h.ID)
			}
			ids[h.ID] = true
			if o := tokens[h.Token]; o != nil && (o.Key != h.Key || o.Mode != h.Mode || o.Via != ViaFcntl || !sameOwner(&o.Party, &h.Party)) {
				return fmt.Errorf("two grants have the token %d", h.Token)
			}
			tokens[h.Token] = h
			for _, o := range l.holds[:i] {
				if err := checkPair(o, h); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func checkHold(t *Table, l *lock, h *Hold) error {
	switch {
	case h.Key != l.key:
		return fmt.Errorf("hold %v is on lock %v", *h, l.key)
	case !h.Range.Valid() || h.Via != ViaFcntl && h.Range != Whole:
		return fmt.Errorf("hold %v has the range %v", *h, h.Range)
	case h.Via.makes() && h.Mode != Exclusive:
		return fmt.Errorf("hold %v is a shared creation", *h)
	case !h.Valid(false):
		return fmt.Errorf("hold %v would be taken for damaged", *h)
	case h.Renewed < h.Since.Boot:
		return fmt.Errorf("hold %v was renewed before it was taken", *h)
	case h.ID == 0 || h.ID > t.lastHold:
		return fmt.Errorf("hold %v has a number after the last, %d", *h, t.lastHold)
	case h.Listed != l.listed || h.Listed == 0:
		return fmt.Errorf("hold %v has a place in the listing that is not the lock's, %d", *h, l.listed)
	case l.classes&h.class() != h.class():
		return fmt.Errorf("hold %v is of an idiom that its lock has not seen", *h)
	}
	return nil
}

// checkPair: a and b on one lock are not two inside. Who is of one process is
// decided when a hold is granted, and may look different afterwards (processes
// die, numbers come back), so any relation of their processes is accepted.
func checkPair(a, b *Hold) error {
	conflict := (a.Mode == Exclusive || b.Mode == Exclusive) && a.Range.Overlaps(b.Range)
	fcntl, nobodys := 0, false
	for _, h := range []*Hold{a, b} {
		if h.Via == ViaFcntl {
			fcntl++
		}
		nobodys = nobodys || h.nobodysFile()
	}
	if a.ByName && b.ByName {
		return fmt.Errorf("two hold by one name: %v and %v", *a, *b)
	}
	var related bool
	switch {
	case fcntl == 2:
		related = sameOwner(&a.Party, &b.Party)
	case fcntl == 1 || nobodys:
		pids := func(p *Party) []uint32 { return []uint32{p.Taker.Pid, p.Opener.Pid} }
		related = a.Party.Handle == b.Party.Handle || slices.ContainsFunc(pids(&a.Party), func(p uint32) bool {
			return p != 0 && slices.Contains(pids(&b.Party), p)
		})
	default:
		related = a.Party.Handle == b.Party.Handle
	}
	if conflict && !related {
		return fmt.Errorf("two inside: %v and %v", *a, *b)
	}
	if fcntl == 2 && related && a.Party.File == b.Party.File {
		if a.Range.Overlaps(b.Range) {
			return fmt.Errorf("one owner's holds overlap: %v and %v", *a, *b)
		}
		if a.Mode == b.Mode && a.Party.Handle == b.Party.Handle && a.Range.touches(b.Range) {
			return fmt.Errorf("one owner's holds are not merged: %v and %v", *a, *b)
		}
	}
	if fcntl == 0 && related && a.Via == b.Via {
		return fmt.Errorf("a handle has two holds: %v and %v", *a, *b)
	}
	return nil
}

// checkQueues: the queues are linked, in order of places, and counted; every
// wait is in every index, once.
func checkQueues(t *Table) error {
	byHandle, byOwner := 0, 0
	for k, l := range t.locks {
		queued, absent := 0, 0
		var prev *wait
		for w := l.first; w != nil; prev, w = w, w.next {
			queued++
			if w.isAbsent() {
				absent++
			}
			switch {
			case w.prev != prev:
				return fmt.Errorf("the queue of %v is not linked at wait %d", k, w.ID)
			case prev != nil && prev.Place >= w.Place:
				return fmt.Errorf("wait %d is behind wait %d, but its place is not", w.ID, prev.ID)
			case w.Place == 0 || w.Place > t.lastPlace:
				return fmt.Errorf("wait %d has a place after the last, %d", w.ID, t.lastPlace)
			case w.Key != k || w.lock != l || t.waits[w.ID] != w:
				return fmt.Errorf("wait %d is not filed where it is", w.ID)
			case count(t.waitsByHandle[w.Party.Handle], w) != 1:
				return fmt.Errorf("wait %d is not once among its handle's", w.ID)
			case w.Via == ViaFcntl && count(t.waitsByOwner[w.Party.Owner], w) != 1:
				return fmt.Errorf("wait %d is not once among its owner's", w.ID)
			case !w.Valid(true):
				return fmt.Errorf("wait %d would be taken for damaged: %v", w.ID, w.Wait)
			case !l.span.Covers(w.Range):
				return fmt.Errorf("wait %d is for more than all wait for, %v", w.ID, l.span)
			case l.classes&w.class() != w.class():
				return fmt.Errorf("wait %d is of an idiom that its lock has not seen", w.ID)
			}
			byHandle++
			if w.Via == ViaFcntl {
				byOwner++
			}
		}
		if l.last != prev || l.queued != queued || l.absent != absent {
			return fmt.Errorf("the queue of %v has %d waits, %d absent; counted are %d and %d", k, queued, absent, l.queued, l.absent)
		}
	}
	if err := checkIndex(t.waitsByHandle, byHandle); err != nil {
		return fmt.Errorf("waits by handle: %w", err)
	}
	if err := checkIndex(t.waitsByOwner, byOwner); err != nil {
		return fmt.Errorf("waits by owner: %w", err)
	}
	return nil
}

func count(list []*wait, w *wait) (n int) {
	for _, o := range list {
		if o == w {
			n++
		}
	}
	return n
}

// checkIndex: an index of waits has want of them and no empty list.
func checkIndex(index map[uint64][]*wait, want int) error {
	n := 0
	for key, list := range index {
		if len(list) == 0 {
			return fmt.Errorf("an empty list for %d", key)
		}
		n += len(list)
	}
	if n != want {
		return fmt.Errorf("%d entries, want %d", n, want)
	}
	return nil
}

// checkOwners: ownerHolds counts what is there.
func checkOwners(t *Table) error {
	want := make(map[uint64]int)
	for _, l := range t.locks {
		for _, h := range l.holds {
			if h.Via == ViaFcntl {
				want[h.Party.Owner]++
			}
		}
	}
	for owner, n := range want {
		if t.ownerHolds[owner] != n {
			return fmt.Errorf("owner %d has %d holds, counted are %d", owner, n, t.ownerHolds[owner])
		}
	}
	if len(want) != len(t.ownerHolds) {
		return fmt.Errorf("counted are holds of %d owners, there are %d", len(t.ownerHolds), len(want))
	}
	return nil
}

// checkNames: every hold by name, and no other, is found by its number.
func checkNames(t *Table) error {
	named := 0
	for k, l := range t.locks {
		for _, h := range l.holds {
			if h.ByName {
				named++
				if t.named[h.ID] != l || t.Named(k) != h {
					return fmt.Errorf("the hold by name %v is not found", *h)
				}
			}
		}
	}
	if named != len(t.named) {
		return fmt.Errorf("%d holds by name are known, there are %d", len(t.named), named)
	}
	return nil
}

// checkChains: every listing is in its chain and every lock that may have waits alone, once, and no lock
// counts as handed to a snapshot that has not begun.
func checkChains(t *Table) error {
	listings, marks := 0, 0
	for l, prev := t.firstListing, (*directory)(nil); l != nil; prev, l = l, l.next {
		if listings++; l.prev != prev {
			return fmt.Errorf("the chain of listings is broken at its %d. link", listings)
		}
	}
	for m, prev := t.firstMark, (*mark)(nil); m != nil; prev, m = m, m.next {
		if marks++; m.prev != prev || m.lock.mark != m || t.locks[m.lock.key] != m.lock {
			return fmt.Errorf("the chain of marks is broken at its %d. link", marks)
		}
	}
	for k, l := range t.locks {
		if marked := l.mark != nil; marked != (l.grace || l.outside) {
			return fmt.Errorf("lock %v is marked: %v, in grace: %v, waited for outside: %v", k, marked, l.grace, l.outside)
		} else if marked {
			marks--
		}
	}
	if listings != len(t.listings) || marks != 0 {
		return fmt.Errorf("%d listings, in the chain are %d; in the chain of marks are %d too many", len(t.listings), listings, marks)
	}
	for k, l := range t.locks {
		if l.saved > t.lastSnapshot {
			return fmt.Errorf("lock %v was handed to snapshot %d, the last is %d", k, l.saved, t.lastSnapshot)
		}
	}
	return nil
}

// checkListings: a name is in its directory's listing exactly while it has a
// hold, at the place that its lock knows.
func checkListings(t *Table) error {
	names := 0
	for dir, s := range t.listings {
		last := uint64(0)
		for place, l := range s.After(0) {
			if place <= last {
				return fmt.Errorf("the listing of %d is not in order at %d", dir, place)
			}
			if last = place; l.key.Dir != dir || t.locks[l.key] != l || len(l.holds) == 0 || l.listed != place {
				return fmt.Errorf("%v is listed in %d at %d and not held so", l.key, dir, place)
			}
			names++
		}
		if last != s.Last() {
			return fmt.Errorf("the last place of %d is %d, it says %d", dir, last, s.Last())
		}
		if last == 0 && dir != t.vacant {
			return fmt.Errorf("an empty listing of %d was not forgotten", dir)
		}
	}
	for k, l := range t.locks {
		if len(l.holds) > 0 {
			names--
		} else if l.listed != 0 {
			return fmt.Errorf("%v is not held and has a place in the listing", k)
		}
	}
	if names != 0 {
		return fmt.Errorf("%d more names listed than held", names)
	}
	return nil
}

// checkAbsent: every place that will lapse is known, in order of time.
func checkAbsent(t *Table) error {
	if !slices.IsSortedFunc(t.absent, func(a, b absentee) int { return cmp.Compare(a.until, b.until) }) {
		return fmt.Errorf("absent places are not in order of their end: %v", t.absent)
	}
	for id, w := range t.waits {
		if w.isAbsent() && !slices.Contains(t.absent, absentee{id, w.AbsentUntil}) {
			return fmt.Errorf("nobody will end the absent wait %d", id)
		}
	}
	return nil
}

// checkAgenda: every lease that runs and every grace is on the agenda, once,
// for the right time; nothing else is; and it is a heap.
func checkAgenda(t *Table) error {
	want := len(t.graces)
	for k, g := range t.graces {
		if g.Key != k || t.locks[k] == nil || g.ID == 0 || g.ID > t.lastGrace {
			return fmt.Errorf("the grace %v is filed under %v", g.Grace, k)
		}
		if g.end.at != g.Until || g.end.hold != 0 || g.end.lock != t.locks[k] || !onAgenda(t, g.end) {
			return fmt.Errorf("nobody will end the grace of %v", k)
		}
	}
	leases := 0
	for k, l := range t.locks {
		p := t.policies[k.Dir]
		for _, h := range l.holds {
			e := t.leases[h.ID]
			if (e != nil) != (p.Lease > 0) {
				return fmt.Errorf("the hold %v has a lease of %v and ends: %v", *h, p.Lease, e != nil)
			}
			if e == nil {
				continue
			}
			leases++
			if e.at != max(h.Renewed, p.From)+p.Lease || e.hold != h.ID || e.lock != l || !onAgenda(t, e) {
				return fmt.Errorf("the hold %v with a lease of %v ends at %v", *h, p.Lease, e.at)
			}
		}
	}
	if leases != len(t.leases) || want+leases != len(t.agenda) {
		return fmt.Errorf("%d graces and %d leases, by hold %d, make an agenda of %d", want, leases, len(t.leases), len(t.agenda))
	}
	for i, e := range t.agenda {
		if i > 0 && e.at < t.agenda[(i-1)/2].at {
			return fmt.Errorf("the agenda is not in order at %d", i)
		}
	}
	for dir, p := range t.policies {
		if p == (Policy{}) || p.Lease < 0 || p.Grace < 0 {
			return fmt.Errorf("directory %d has the policy %v", dir, p)
		}
	}
	return nil
}

func onAgenda(t *Table, e *event) bool { return e.index < len(t.agenda) && t.agenda[e.index] == e }

// checkLiveness: no present wait could go.
func checkLiveness(t *Table) error {
	for id, w := range t.waits {
		if w.isAbsent() {
			continue
		}
		l := t.locks[w.Key]
		if blocked, err := t.blocked(l, &w.Request, w.Place); !blocked && err == nil && !l.outside {
			return fmt.Errorf("wait %d of %v waits for nothing", id, w.Key)
		}
	}
	return nil
}
