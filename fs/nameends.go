package fs

import (
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// What is done outside with names when a step has been recorded, and from time to
// time.

// endNames ends the names that requests have made of which nobody wants the result
// any more, and records what the last step has done outside. At the end of a step.
func (f *FS) endNames() {
	for _, x := range f.made.begun {
		if !x.away && !x.inherited {
			f.endName(x)
		}
	}
	if f.made.mount != f.made.inRecord { // not before the first step, whatever there was
		f.made.inRecord = f.made.mount
		f.journal.PutMount(f.made.mount)
	}
	for _, id := range f.made.dropped {
		f.journal.DropMade(id)
	}
	f.made.dropped = f.made.dropped[:0]
	for _, x := range f.made.written {
		if x.State == nameThere && !x.Unwritten {
			f.journal.PutMade(&x.MadeRecord)
		}
	}
	f.made.written = f.made.written[:0]
	f.made.subject, f.made.wanted, f.made.inTheWay = nil, nil, nil
}

// departs says that the present request takes a detour.
func (f *FS) departs(unique uint64) {
	if x := f.made.begun[unique]; x != nil {
		x.away = true
	}
}

// returns says that a request is back from it.
func (f *FS) returns(unique uint64) {
	if x := f.made.begun[unique]; x != nil {
		x.away = false
	}
}

// committedNames writes and removes outside what the step has changed and ended.
func (f *FS) committedNames() {
	if f.made.committed != nil {
		close(f.made.committed)
		f.made.committed = nil
	}
	for _, x := range f.made.writes {
		f.writeOutside(x)
	}
	// What is in a directory goes before it.
	slices.SortFunc(f.made.ends, func(a, b *made) int { return strings.Compare(b.Outside.Path, a.Outside.Path) })
	for i := 0; i < len(f.made.ends); i++ {
		x := f.made.ends[i]
		if x.State != nameGoing || f.removedLater(x) {
			continue
		}
		switch err := f.removeInStep(x); {
		case errors.Is(err, mirror.ErrMany):
			f.removeAside(x)
		case err != nil:
			f.failed(x, "the name of a lock stays in the backing directory", err)
		default:
			f.removedName(x)
		}
	}
	f.made.writes, f.made.ends = f.made.writes[:0], f.made.ends[:0]
}

// removedName says that a name is not outside any more.
func (f *FS) removedName(x *made) {
	if x.State != nameGoing {
		return
	}
	x.State = nameGone
	if f.made.byKey[x.Key] == x {
		delete(f.made.byKey, x.Key)
	}
	f.made.dropped = append(f.made.dropped, x.ID)
	f.removeAround(x)
	f.staysGone(x.Key, f.entry(x.Key)) // one that has lapsed
	f.reconsider(x.Key)
}

// removeAround has the directory removed in which x was, if it is to be and could not.
func (f *FS) removeAround(x *made) {
	f.made.failed = slices.DeleteFunc(f.made.failed, func(y *made) bool {
		around := y.State == nameGoing && y.Place == x.Place && y.Outside.Path == path.Dir(x.Outside.Path)
		if around {
			y.retried = false
			f.made.ends = append(f.made.ends, y)
		}
		return around
	})
}

// writeOutside writes outside what a file is.
func (f *FS) writeOutside(x *made) {
	e := f.entry(x.Key)
	if x.State != nameThere || e == nil || x.isMadeUp() { // for the last see madeUp
		return
	}
	if f.writtenLater(x, e.file) {
		return
	}
	f.wroteOutside(x, f.opsOf(x, 0).Write(x.Outside, stateOf(e.file)))
}

// wroteOutside takes in what has come of that.
func (f *FS) wroteOutside(x *made, err error) {
	switch {
	case err == nil:
		x.Unwritten, x.failures = false, 0
		f.made.written = append(f.made.written, x)
	case errors.Is(err, unix.ESTALE):
		f.mirrorLost(x.Key, mirror.ErrReplaced)
	default:
		f.failed(x, "what was written to a lock cannot be written to the backing directory", err)
	}
}

// failed has something tried again, later and later, that did not work outside, and says
// so once; but not of a directory that is here yet, since something in it is held.
func (f *FS) failed(x *made, what string, err error) {
	lapsed := x.State == nameGoing && errors.Is(err, unix.ENOTEMPTY) && f.entry(x.Key) != nil
	if !lapsed && (x.err == nil || x.err.Error() != err.Error()) {
		f.log.Error(what, "path", x.Outside.Path, "err", err)
	}
	x.err = err
	x.due = time.Now().Add(min(nameEvery<<min(x.failures, 30), mostBetween))
	x.failures++
	if !x.retried {
		x.retried = true
		f.made.failed = append(f.made.failed, x)
	}
}

// resumeNames does outside what the process before had yet to do.
func (f *FS) resumeNames() {
	f.committedNames()
	go f.watchNames()
}

// keptNames marks those that were kept while no process had them as this one's,
// now that they are locked.
func (f *FS) keptNames() {
	for _, x := range f.made.kept {
		marked := func(err error) {
			if err != nil && !errors.Is(err, unix.ESTALE) {
				f.log.Warn("the name of a lock stays marked in the backing directory", "path", x.Outside.Path, "err", err)
			}
		}
		if later := f.madeAt(x).later(); later != nil {
			later.MarkLater(x.Outside, mirror.ToHold, marked)
		} else {
			marked(f.opsOf(x, 0).Mark(x.Outside, mirror.ToHold))
		}
	}
	f.made.kept = nil
}

// watchNames looks from time to time whether the names are there.
func (f *FS) watchNames() {
	for range time.Tick(nameEvery) {
		var there []*made
		var ops []mirror.Names
		f.doWhenBegun(func() {
			there = f.lookedAfter()
			for _, x := range there {
				ops = append(ops, f.opsOf(x, onlookTime))
			}
		})
		var lost []*made
		silent := make(map[string]bool) // places that do not answer
		for i, x := range there {
			if silent[x.Place] {
				continue
			}
			is, err := ops[i].IsThere(x.Outside)
			if !is && err == nil {
				lost = append(lost, x)
			}
			silent[x.Place] = errors.Is(err, unix.ETIMEDOUT)
		}
		if len(lost) > 0 {
			f.doWhenBegun(func() {
				for _, x := range lost {
					if x.State == nameThere {
						f.mirrorLost(x.Key, mirror.ErrReplaced)
					}
				}
			})
		}
	}
}

// lookedAfter returns names to look at, of those that are no regular files: the
// mirror looks at these. What has failed is done again when the step is recorded, if it is
// time.
func (f *FS) lookedAfter() (there []*made) {
	now := time.Now()
	f.made.failed = slices.DeleteFunc(f.made.failed, func(x *made) bool {
		going, unwritten := x.State == nameGoing, x.State == nameThere && x.Unwritten
		if (going || unwritten) && now.Before(x.due) {
			return false
		}
		if x.retried = false; going {
			f.made.ends = append(f.made.ends, x)
		} else if unwritten {
			f.made.writes = append(f.made.writes, x)
		}
		return true
	})
	for _, x := range f.made.byKey {
		if x.State == nameThere && x.Kind != regular && !x.isMadeUp() {
			if there = append(there, x); len(there) == nameBatch {
				break // others, at random, the next time
			}
		}
	}
	return there
}

// nameBatch is how many names are looked at at a time.
const nameBatch = 1024

// saveNames saves the names that are held, or in grace, for the next mount, and has
// nobody take them for left behind until then; for agents see LeaveNames. What an agent
// has yet to remove is for the next mount to remove.
func (f *FS) saveNames(r *Records) {
	if f.made.mount != "" {
		r.PutMount(f.made.mount)
	}
	for x := range f.made.leaving {
		r.PutMade(&x.MadeRecord)
	}
	for _, x := range f.made.byKey {
		if x.State != nameThere {
			continue
		}
		r.PutMade(&x.MadeRecord)
		if f.madeAt(x).later() != nil {
			continue
		}
		if err := f.opsOf(x, 0).Mark(x.Outside, mirror.ToKeep); err != nil {
			f.log.Error("the name of a lock is not kept in the backing directory", "path", x.Outside.Path, "err", err)
		}
	}
}

// Abandon removes what is held by its name outside: of a mount that ends for good. For
// agents see LeaveNames. Within a step.
func (f *FS) Abandon() {
	for _, x := range f.made.byKey {
		if f.madeAt(x).later() != nil {
			continue
		}
		if err := f.opsOf(x, 0).Remove(x.Outside); err != nil {
			f.log.Error("the name of a lock stays in the backing directory", "path", x.Outside.Path, "err", err)
		}
	}
}

// takeUpNames makes the names this mount's that another one has left.
func (f *FS) takeUpNames(holds []*lockspace.Hold) {
	held := make(map[lockspace.Key]bool)
	for _, h := range holds {
		held[h.Key] = f.existsOutside(&h.Request)
	}
	for g := range f.table.Graces() {
		held[g.Key] = true
	}
	for _, x := range f.made.byKey {
		f.journal.PutMade(&x.MadeRecord)
		switch {
		case x.State == nameGoing:
		case x.isMadeUp():
			f.endName(x)
		case held[x.Key] && x.Place == f.mirrorOf(x.Key.Dir):
			f.made.kept = append(f.made.kept, x)
			continue
		default:
			f.unmakeName(x)
		}
		delete(f.made.byKey, x.Key) // another is made, if it is held
	}
	for _, h := range holds {
		if f.made.byKey[h.Key] == nil && f.existsOutside(&h.Request) {
			f.makeUp(h)
		}
	}
}

// unmakeName has nothing held outside by a name any more whose hold, if there is one
// yet, is only to be locked there: a file stays, for who may have it open.
func (f *FS) unmakeName(x *made) {
	if x.Kind != regular || x.State != nameThere {
		f.endName(x)
		return
	}
	if later := f.madeAt(x).later(); later != nil {
		later.MarkLater(x.Outside, mirror.ToLock, func(error) {})
	} else if f.opsOf(x, 0).Mark(x.Outside, mirror.ToLock) != nil {
		f.endName(x)
		return
	}
	x.State = nameGoing
	f.removedName(x)
}
