package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Making a name outside for a request that takes its lock.

// coverName sees to it that a name that is asked for is outside, before it is
// granted. ErrLookup: makeName is to be called. A regular file has to be locked then.
func (f *FS) coverName(r *lockspace.Request) error {
	x := f.made.byKey[r.Key]
	if x != nil && x.Unique == f.made.unique && x.State < nameThere && f.isElsewhere(x) {
		f.endName(x) // its directory has another place by now, or another name
	}
	if x != nil && x.State == nameGoing && x.Place != f.mirrorOf(r.Key.Dir) {
		delete(f.made.byKey, r.Key) // it goes there, and is in nobody's way here
		x = nil
	}
	switch {
	case x == nil:
		if _, err := f.outsidePath(r.Key); err != nil {
			return err
		}
	case x.State == nameGoing:
		if f.facts != nil && f.facts.notOpened[r.Key] != nil {
			return f.facts.notOpened[r.Key]
		}
	case x.Unique != f.made.unique || x.State == nameThere:
		return lockspace.ErrForeign // another request makes it
	default:
		x.inherited = false
		if x.err != nil || x.revealed {
			return x.err
		}
	}
	asked := *r
	f.made.wanted = &asked
	return lockspace.ErrLookup
}

// isElsewhere reports whether a name is not made where its lock is outside: its
// directory has got another place, or it or one above it another name.
func (f *FS) isElsewhere(x *made) bool {
	path, err := f.outsidePath(x.Key)
	return x.Place != f.mirrorOf(x.Key.Dir) || err == nil && path != x.Outside.Path
}

// remakes has a name made anew that was removed outside before it was locked, as by
// who took it for left behind. It reports whether makeName is to be called.
func (f *FS) remakes(r *lockspace.Request) bool {
	x := f.made.byKey[r.Key]
	if x == nil || x.State != nameMade || !x.revealed || x.tries >= maxTries || !f.existsOutside(r) {
		return false
	}
	x.tries++
	x.State, x.revealed = nameMaking, false
	f.journal.PutMade(&x.MadeRecord)
	if f.facts != nil {
		delete(f.facts.notOpened, r.Key)
	}
	asked := *r
	f.made.wanted = &asked
	return true
}

// makes says for which file the present request makes a name.
func (f *FS) makes(unique uint64, x *file) {
	f.made.subject, f.made.unique, f.made.wanted, f.made.inTheWay = x, unique, nil, nil
	f.unopened = f.unopened[:0]
}

// makeName sends the present request on a detour to what is to be done next outside
// for the name that it makes.
func (f *FS) makeName(unique uint64) fuse.Status {
	r, x := f.made.wanted, f.made.byKey[f.made.wanted.Key]
	f.made.wanted = nil
	if x == nil {
		path, err := f.outsidePath(r.Key)
		if err != nil {
			return makeStatus(err)
		}
		x = &made{MadeRecord: MadeRecord{
			ID: f.nodes.number(), Key: r.Key, Kind: f.made.subject.Kind, Unique: unique, Place: f.mirrorOf(r.Key.Dir),
			Outside: mirror.MadeName{Path: path, Temporary: mirror.Temporary()},
		}}
		if err := x.fits(); err != nil {
			return makeStatus(err)
		}
		f.made.byKey[r.Key], f.made.begun[unique] = x, x
		f.journal.PutMade(&x.MadeRecord)
	}
	switch x.State {
	case nameMaking:
		f.lookUpAtName(unique, x, f.makeNow(r, x))
	case nameMade:
		f.lookUpAtName(unique, x, f.revealNow(x))
	default:
		f.lookUpAtName(unique, x, f.removeNow(x))
	}
	return device.Parked
}

// lookUpAtName is lookUp for what is done where a name is.
func (f *FS) lookUpAtName(unique uint64, x *made, find func(*facts)) {
	f.lookUpWhere(unique, 0, f.madeAt(x).mayHang(), find)
}

// recorded returns what is closed when the present step has been recorded.
func (f *FS) recorded() <-chan struct{} {
	if f.made.committed == nil {
		f.made.committed = make(chan struct{})
	}
	return f.made.committed
}

// makeNow returns what makes x for r, on a detour.
func (f *FS) makeNow(r *lockspace.Request, x *made) func(*facts) {
	x.from = stateOf(f.made.subject)
	n := mirror.NewName{
		Path: x.Outside.Path, Temporary: x.Outside.Temporary, Target: f.made.subject.Target, NameState: x.from,
	}
	var p *mirror.Preparation
	if x.Kind == regular {
		p = f.madeAt(x).prepareMade(r)
	}
	recorded, ops := f.recorded(), f.opsOf(x, makeTime)
	return func(found *facts) {
		<-recorded
		name, err := makeWith(ops, p, n)
		found.takeIn = func() { f.tookMade(x, p, name, err) }
	}
}

// makeWith makes something outside; p is what opens it if it is a regular file.
func makeWith(ops mirror.Names, p *mirror.Preparation, n mirror.NewName) (name mirror.MadeName, err error) {
	if p == nil {
		_, name, err = ops.Make(n)
		return name, err
	}
	err = p.RunMade(func() (o mirror.Opened, err error) {
		o, name, err = ops.Make(n)
		return o, err
	})
	return name, err
}

// tookMade takes in what a detour has made.
func (f *FS) tookMade(x *made, p *mirror.Preparation, name mirror.MadeName, err error) {
	if name.ID != (mirror.NameID{}) {
		x.Outside = name
	}
	if err != nil {
		x.err = err
		if p != nil {
			f.made.mirror.Discard(p)
		}
		return
	}
	x.State, x.file = nameMade, p
	f.journal.PutMade(&x.MadeRecord)
}

// revealNow returns what gives x its name, on a detour.
func (f *FS) revealNow(x *made) func(*facts) {
	name, recorded, ops := x.Outside, f.recorded(), f.opsOf(x, makeTime)
	return func(found *facts) {
		<-recorded
		err := ops.Reveal(name)
		found.takeIn = func() { f.tookRevealed(x, err) }
	}
}

// maxTries is how often something is made anew that somebody else keeps removing.
const maxTries = 10

func (f *FS) tookRevealed(x *made, err error) {
	p := x.file
	x.file = nil
	switch {
	case err == nil:
		x.revealed = true
		if p != nil {
			x.err = f.made.mirror.Adopt(p)
		}
		return
	case errors.Is(err, unix.EEXIST):
		x.err = lockspace.ErrForeign
	case errors.Is(err, unix.ESTALE) && x.tries < maxTries:
		x.tries++
		x.State = nameMaking
		f.journal.PutMade(&x.MadeRecord)
	default:
		x.err = err
	}
	if p != nil {
		f.made.mirror.Discard(p)
	}
}

// removeNow returns what removes x, which is in the way, on a detour, or waits until an
// agent has, or who is at it already.
func (f *FS) removeNow(x *made) func(*facts) {
	if x.asked || f.madeAt(x).later() != nil {
		return f.awaitRemoved(x)
	}
	name, recorded, ops := x.Outside, f.recorded(), f.opsOf(x, makeTime)
	return func(found *facts) {
		<-recorded
		err := ops.Remove(name)
		found.takeIn = func() {
			if err == nil {
				f.removedName(x)
				return
			}
			found.notRemoved(x, err)
		}
	}
}

// notRemoved says why what is in the way could not be removed.
func (found *facts) notRemoved(x *made, err error) {
	if errors.Is(err, unix.ENOTEMPTY) {
		err = lockspace.ErrForeign // others have made it theirs
	}
	if found.notOpened == nil {
		found.notOpened = make(map[lockspace.Key]error)
	}
	found.notOpened[x.Key] = err
}

// openingOf returns how the file of a lock is opened.
func (f *FS) openingOf(k lockspace.Key) mirror.Opening {
	o := mirror.Opening{}
	x := f.made.byKey[k]
	if x != nil && x.State == nameGoing {
		x = nil
	}
	if x != nil {
		o.Known = x.Outside
	}
	switch {
	case x != nil && x.Kind == regular && (x.revealed || x.State == nameThere):
		o.Way = mirror.OpenMade
	case f.namesOutside(k.Dir):
		o.Way = mirror.OpenLock
	default:
		return mirror.Opening{}
	}
	return o
}

// makeUp makes outside what another mount has left held by a name, and has not made
// there. If somebody else has the name it is lost. When a mount begins.
func (f *FS) makeUp(h *lockspace.Hold) {
	path, err := f.outsidePath(h.Key)
	e := f.entry(h.Key)
	if e == nil {
		return
	}
	if err != nil {
		f.mirrorLost(h.Key, err)
		return
	}
	x := &made{MadeRecord: MadeRecord{
		ID: f.nodes.number(), Key: h.Key, Kind: e.file.Kind, State: nameMade,
		Place:   f.mirrorOf(h.Key.Dir),
		Outside: mirror.MadeName{Path: path, Temporary: mirror.Temporary()},
	}}
	if err := x.fits(); err != nil {
		f.mirrorLost(h.Key, err)
		return
	}
	f.made.byKey[h.Key] = x
	n := mirror.NewName{
		Path: x.Outside.Path, Temporary: x.Outside.Temporary, Target: e.file.Target, NameState: stateOf(e.file),
	}
	if f.madeAt(x).later() != nil {
		f.makeUpByAgent(x, n)
		return
	}
	var p *mirror.Preparation
	ops := f.opsOf(x, 0)
	if x.Kind == regular {
		p = f.madeAt(x).prepareMade(&h.Request)
	}
	name, err := makeWith(ops, p, n)
	f.tookMade(x, p, name, err)
	if err == nil {
		f.tookRevealed(x, ops.Reveal(x.Outside))
		err = x.err
	}
	if err == nil && !x.revealed {
		err = unix.ESTALE
	}
	if err != nil {
		f.mirrorLost(h.Key, err)
	}
	x.State = nameThere
	f.journal.PutMade(&x.MadeRecord)
}
