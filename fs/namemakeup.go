package fs

import (
	"math"

	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Names that another mount has left held, and not made outside, where an agent makes them:
// when it can. Until then they are held all the same, as they were before. A process that
// takes over goes on.
//
// What has been made is recorded before it gets its name, as of others: so it is known
// afterwards whose that is. In memory it is not known before it has the name, and is not
// locked, or looked for, until then.

// makingUp is in the place of the request in the record of what has yet to get its name.
const makingUp = math.MaxUint64

// isMadeUp reports whether x, which is held, has yet to be made, or to get its name.
func (x *MadeRecord) isMadeUp() bool {
	return x.State == nameThere && (x.Unique == makingUp || x.Outside.ID == mirror.NameID{})
}

// makeUpByAgent is makeUp where an agent makes x.
func (f *FS) makeUpByAgent(x *made, n mirror.NewName) {
	x.State, x.Unique = nameThere, makingUp
	f.journal.PutMade(&x.MadeRecord)
	go f.makeUpAside(x, n, f.opsOf(x, 0), x.Outside)
}

// makeUpAside makes what n says for x, unless that was made already, and gives it its name.
func (f *FS) makeUpAside(x *made, n mirror.NewName, ops mirror.Names, name mirror.MadeName) {
	var err error
	if name.ID == (mirror.NameID{}) {
		_, name, err = ops.Make(n)
	}
	if err == nil {
		var recorded <-chan struct{}
		f.doWhenBegun(func() {
			if x.State == nameThere {
				made := x.MadeRecord
				made.Outside = name
				f.journal.PutMade(&made)
			}
			recorded = f.recorded()
		})
		<-recorded
		err = ops.Reveal(name)
	}
	f.doWhenBegun(func() { f.madeUp(x, name, err) })
}

// madeUp takes in what has come of that.
func (f *FS) madeUp(x *made, name mirror.MadeName, err error) {
	if name.ID != (mirror.NameID{}) {
		x.Outside = name
	}
	x.Unique = 0
	switch {
	case x.State != nameThere: // it was given back meanwhile
		x.State = nameGoing
		f.made.ends = append(f.made.ends, x)
		f.journal.PutMade(&x.MadeRecord)
	case err != nil:
		f.mirrorLost(x.Key, err)
	default:
		f.journal.PutMade(&x.MadeRecord)
		if x.Unwritten {
			f.made.writes = append(f.made.writes, x)
		}
	}
	f.table.Reconsider(x.Key)
}

// resumeMakeUp goes on with what the process before has not made up. Before the table is
// told of its mirrors; nothing is recorded yet.
func (f *FS) resumeMakeUp() {
	for _, x := range f.made.byKey {
		if !x.isMadeUp() {
			continue
		}
		name, e := x.Outside, f.entry(x.Key)
		x.Outside.ID, x.Outside.Marked = mirror.NameID{}, false
		switch {
		case e == nil: // nothing is held there
			x.State, x.Outside = nameGoing, name
			f.made.ends = append(f.made.ends, x)
		case f.madeAt(x).later() == nil:
			f.mirrorLost(x.Key, mirror.ErrReplaced)
		default:
			n := mirror.NewName{
				Path: name.Path, Temporary: name.Temporary, Target: e.file.Target, NameState: stateOf(e.file),
			}
			go f.makeUpAside(x, n, f.opsOf(x, 0), name)
		}
	}
}
