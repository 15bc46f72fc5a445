package fs

import (
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Removing directories in this process: nobody waits for one in which there is very much,
// as anybody can have brought about who may write there, but who asks for its name.

// fewNames is how many names may be in a directory that is removed within a step: that
// takes some milliseconds. Who has removed such a one finds it removed outside, too.
const fewNames = 256

// removeInStep removes x, which this process has made. Errors: of [mirror.Names], and
// [mirror.ErrMany].
func (f *FS) removeInStep(x *made) error {
	ops := f.opsOf(x, 0)
	if b, ok := ops.(*mirror.Backing); ok && x.Kind == directory {
		return b.RemoveFew(x.Outside, fewNames)
	}
	return ops.Remove(x.Outside)
}

// removeAside removes x as if by an agent. In Committed.
func (f *FS) removeAside(x *made) {
	x.asked = true
	f.made.leaving[x] = true
	ops, name := f.opsOf(x, 0), x.Outside
	go func() {
		err := ops.Remove(name)
		f.doWhenBegun(func() { f.answeredRemoval(x, err) })
	}()
}

// leavingName returns what this mount had at a name and is being removed: that is nobody's
// until then, whatever is in it, and if somebody has something in it, it is his when it
// could not be removed.
func (f *FS) leavingName(k lockspace.Key) (id mirror.NameID) {
	if x := f.made.byKey[k]; x != nil && x.asked {
		id = x.Outside.ID
	}
	return id
}

// leavingIn returns the names in a directory that are being removed so: while that goes
// on, what is in one may look as if somebody used it.
func (f *FS) leavingIn(dir uint64) map[string]bool {
	names := make(map[string]bool)
	for x := range f.made.leaving {
		if x.Key.Dir == dir {
			names[x.Key.Name] = true
		}
	}
	return names
}
