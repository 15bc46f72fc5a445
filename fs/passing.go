package fs

import (
	"slices"

	"github.com/lockfs/lockfs/lockspace"
)

// What is held by its name is outside for a moment before the hold begins, and one after
// it has ended. Who gets the lock in that moment by other means than making the name must
// not have it on what is not to stay: there he would exclude nobody.

// passing returns what is outside under the name of what r asks for, of another request
// that makes it, or of a hold that has ended; nil if nothing is, or r makes the name.
func (f *FS) passing(r *lockspace.Request) *made {
	x := f.made.byKey[r.Key]
	switch {
	case x == nil || f.existsOutside(r), x.State == nameGoing && x.Place != f.mirrorOf(r.Key.Dir):
		return nil
	case x.State == nameMade, x.State == nameGoing, x.State == nameThere && !f.table.Held(r.Key):
		return x
	}
	return nil
}

// coverPassing is Cover of a request while x is in its way. Who waits does until x is
// gone, see removedName, or what made it has it. Who does not takes a detour, if the hold
// has ended: others have been told that it is free.
func (f *FS) coverPassing(x *made, r *lockspace.Request) error {
	switch {
	case !f.isTried(r) || x.State != nameGoing:
		return lockspace.ErrForeign
	case f.facts != nil && f.facts.notOpened[r.Key] != nil:
		return f.facts.notOpened[r.Key]
	}
	f.made.inTheWay = x
	return lockspace.ErrLookup
}

// reconsider has a lock looked at again, in a later step, if somebody may wait for it.
func (f *FS) reconsider(k lockspace.Key) {
	if _, waits := f.table.Count(k.Dir); waits > 0 {
		go f.doWhenBegun(func() { f.table.Reconsider(k) })
	}
}

// try has the table asked, by ask, for what takes a detour if that says ErrLookup, also
// to what is in its way.
func (f *FS) try(all []lockspace.Request, ask func() error) error {
	f.tried, f.made.inTheWay = all, nil
	err := ask()
	f.tried = nil
	return err
}

// tryOne is try for one request.
func (f *FS) tryOne(r lockspace.Request) error {
	f.triedOne[0] = r
	return f.try(f.triedOne[:], func() error { return f.table.Try(f.triedOne[0]) })
}

// isTried reports whether the table is being asked for r, and not, in the same step, for
// somebody who waits: what detours have found is not for him.
func (f *FS) isTried(r *lockspace.Request) bool {
	return slices.ContainsFunc(f.tried, func(t lockspace.Request) bool {
		return t.Key == r.Key && t.Via == r.Via && t.Thread == r.Thread && t.Party.Handle == r.Party.Handle && t.Party.Owner == r.Party.Owner
	})
}
