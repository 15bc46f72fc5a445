package fs

import (
	"errors"
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// The locks of the mount outside of it, for programs that do not use it (design
// 1.6): the table's mirror has them on the files of a backing directory.

// Backing is where the locks of a mount are mirrored.
type Backing struct {
	// ByAgent: by an agent, see [Agents]. The rest is not used then.
	ByAgent bool
	Dir     *mirror.Backing
	// Keeper has the mirror's open files, and so their locks, if this process
	// dies, and Inherited are those that it has from the process before.
	Keeper    mirror.Keeper
	Inherited []Inherited
}

// Inherited is an open file that a process before this one gave to the Keeper.
type Inherited struct {
	ID    uint64
	Label []byte
	FD    int
}

// mirrored is the table's mirror: it leaves out what is not mirrored.
type mirrored struct{ f *FS }

// newInline returns a mirror in this process, with what the process before left.
func (f *FS) newInline(b *Backing) outside {
	b.Dir.As(f.mountName())
	m := mirror.New(mirror.Config{
		Backing:    b.Dir,
		Keeper:     b.Keeper,
		Do:         f.doWhenBegun,
		Reconsider: f.table.Reconsider,
		Path:       f.outsidePath,
		Opener: func(k lockspace.Key) func(path string, uid, gid uint32) (mirror.Opened, error) {
			return b.Dir.Opener(f.openingOf(k))
		},
		Lost:    f.mirrorLost,
		Publish: f.publishesLock,
		Text:    f.textOf,
	})
	for _, x := range b.Inherited {
		if err := m.Inherit(x.ID, x.Label, x.FD); err != nil {
			f.log.Error("a backing file of the process before cannot be used", "err", err)
		}
	}
	f.made.mirror = m
	return inline{m, b.Dir}
}

// doWhenBegun makes a step of what the mirror does by itself, when there has been
// one: until then the connection is not ready, and has yet to repeat the answers of
// the process before.
func (f *FS) doWhenBegun(step func()) {
	<-f.begun
	f.dev.Do(step)
}

// beganSteps says that this is a step.
func (f *FS) beganSteps() {
	if f.mirror != nil && !f.stepped {
		f.stepped = true
		close(f.begun)
	}
}

// isMirrored reports whether a hold of r is outside too. A directory is by its name or
// not at all: others are in it. In one that has been removed nothing is held, see
// covered.
func (m mirrored) isMirrored(r *lockspace.Request) bool {
	if r.Via == lockspace.ViaMkdir {
		return m.f.existsOutside(r)
	}
	return m.f.mirrors(r.Key.Dir)
}

// mirrors reports whether the locks of a directory are outside too.
func (f *FS) mirrors(dir uint64) bool { return f.outsideOf(dir) != nil }

// outsideOf returns what has the locks of a directory outside, nil if nothing has:
// where names hold, and are not outside, see makesNames, they alone would be missing.
func (f *FS) outsideOf(dir uint64) outside {
	d := f.nodes.dir(dir)
	if f.mirror == nil || d == nil || d.file.isRemoved() {
		return nil
	}
	o := f.mirror.at(dir)
	if o == nil || d.file.holdsByName() && !o.makesNames() {
		return nil
	}
	return o
}

// Cover notes what is to be opened for a request, for the detour that follows. If
// that failed, so does the request.
func (m mirrored) Cover(r *lockspace.Request) error {
	if !m.isMirrored(r) {
		return m.f.covered(r)
	}
	if x := m.f.passing(r); x != nil {
		return m.f.coverPassing(x, r)
	}
	if m.f.existsOutside(r) {
		err := m.f.coverName(r)
		switch {
		case err == lockspace.ErrLookup || err == lockspace.ErrForeign:
			return err
		case err != nil:
			m.f.noteUnmirrored(r, err)
			return err
		case m.f.made.byKey[r.Key].Kind != regular:
			return nil
		}
	}
	err := m.f.mirror.at(r.Key.Dir).Cover(r)
	if x := m.f.facts; err == lockspace.ErrLookup && x != nil && (m.f.tried == nil || m.f.isTried(r)) {
		switch why := x.notOpened[r.Key]; {
		case why != nil:
			err = why
		case x.opens >= mirror.MaxOpens:
			err = mirror.ErrUnsteady
		}
	}
	if errors.Is(err, unix.ESTALE) && m.f.remakes(r) {
		return lockspace.ErrLookup
	}
	switch err {
	case nil, lockspace.ErrForeign:
	case lockspace.ErrLookup:
		m.f.unopened = append(m.f.unopened, *r)
	default:
		m.f.noteUnmirrored(r, err)
	}
	return err
}

// covered is the answer for what is not mirrored: nil. But of what would be, had its
// directory not been removed, nobody could say that somebody outside does not hold it.
func (f *FS) covered(r *lockspace.Request) error {
	if d := f.nodes.dir(r.Key.Dir); d == nil || d.file.isRemoved() {
		return errRemoved
	}
	return nil
}

// noteUnmirrored says why a lock is not granted that nobody holds. The caller gets
// the errno alone.
func (f *FS) noteUnmirrored(r *lockspace.Request, err error) {
	if now := f.clock.Now().Boot; f.unmirrored.allow(unmirroredRate, now) {
		f.log.Warn("a lock is not granted since it cannot be mirrored", "path", f.path(r.Key),
			"by_pid", r.Party.Taker.Pid, "by_uid", r.Party.Taker.UID, "err", err)
	}
}

// unmirroredRate is how often that is said: anybody can bring it about.
var unmirroredRate = rate{every: 10 * time.Second, burst: 10}

// isMirroredBelow reports whether anything is waited for in a directory or below, or
// held of what is mirrored and counts. Those below it are few, or nothing is mirrored
// there.
func (f *FS) isMirroredBelow(dir *file, counts func(*lockspace.Request) bool) bool {
	if f.isHeldIn(dir.Ino, func(r *lockspace.Request) bool { return counts(r) && mirrored{f}.isMirrored(r) }) {
		return true
	}
	for e := range dir.content.order.All() {
		if e.file.Kind == directory && f.isMirroredBelow(e.file, counts) {
			return true
		}
	}
	return false
}

// isDirectory and isNone tell what is held by being a directory from the rest.
func isDirectory(r *lockspace.Request) bool { return r.Via == lockspace.ViaMkdir }
func isNone(r *lockspace.Request) bool      { return r.Via != lockspace.ViaMkdir }

// Await has the lock opened if it is not: nobody asks for it now who could take a
// detour.
func (m mirrored) Await(r *lockspace.Request) {
	if m.f.passing(r) != nil {
		return // its end has it looked at again
	}
	if o := m.f.mirror.at(r.Key.Dir); o != nil {
		o.Await(r)
	}
}

// Settled tells those too that do not have the directory's locks: that nothing of it is
// held there.
func (m mirrored) Settled(k lockspace.Key, holds []*lockspace.Hold) {
	at := m.f.outsideOf(k.Dir)
	if at == nil {
		holds = nil
	}
	locked := m.f.settleName(k, holds)
	for _, o := range m.f.mirror.each {
		if o == at {
			o.Settled(k, locked)
		} else {
			o.Settled(k, nil)
		}
	}
}

// openOutside returns what opens, on a detour, what has yet to be opened outside
// for the present request, and whether that may hang. It waits for what hangs as long
// as limit says, 0: for ever.
func (f *FS) openOutside(limit time.Duration) (open func(*facts), hangs bool) {
	if len(f.unopened) == 0 {
		return func(*facts) {}, false
	}
	var all []preparation
	var keys []lockspace.Key
	for i := range f.unopened {
		o := f.mirror.at(f.unopened[i].Key.Dir)
		hangs = hangs || o.mayHang()
		all = append(all, o.Prepare(&f.unopened[i]))
		keys = append(keys, f.unopened[i].Key)
	}
	f.unopened = f.unopened[:0]
	return func(x *facts) {
		x.opens++
		for _, p := range all {
			p.Run(limit, x.gone)
		}
		x.takeIn = func() {
			for i, p := range all {
				if err := p.Adopt(); err != nil {
					if x.notOpened == nil {
						x.notOpened = make(map[lockspace.Key]error)
					}
					x.notOpened[keys[i]] = err
				}
			}
		}
	}, hangs
}

// takeInOpened takes in what a detour has opened outside.
func (f *FS) takeInOpened() {
	if f.facts != nil && f.facts.takeIn != nil {
		f.facts.takeIn()
		f.facts.takeIn = nil
	}
}

// makeOutside is makeStatus for a call whose name may have yet to be opened
// outside: then it takes a detour.
func (f *FS) makeOutside(unique uint64, err error) fuse.Status {
	if errors.Is(err, lockspace.ErrLookup) && f.made.wanted != nil {
		return f.makeName(unique)
	}
	if x := f.made.inTheWay; errors.Is(err, lockspace.ErrLookup) && x != nil {
		f.lookUpAtName(unique, x, f.removeNow(x))
		return device.Parked
	}
	if !errors.Is(err, lockspace.ErrLookup) || len(f.unopened) == 0 {
		return makeStatus(err)
	}
	open, hangs := f.openOutside(makeTime)
	f.lookUpWhere(unique, 0, hangs, open)
	return device.Parked
}

// errRemoved is why a lock has no place outside.
var errRemoved = fmt.Errorf("its directory has been removed (%w)", unix.ESTALE)

// outsidePath returns the path of a lock below its place.
func (f *FS) outsidePath(k lockspace.Key) (string, error) {
	path := k.Name
	for dir := k.Dir; dir != rootDir; {
		d := f.nodes.get(dir)
		if d == nil || len(d.file.entries) == 0 {
			return "", errRemoved
		}
		if f.beginsPlace(d.file) {
			break
		}
		e := d.file.entries[0]
		if path = e.Name + "/" + path; len(path) >= unix.PathMax {
			// No call takes it, and there is no end to how deep directories can be.
			return "", fmt.Errorf("%.50s...: %w", path, unix.ENAMETOOLONG)
		}
		dir = e.Dir
	}
	return path, nil
}

// Committed gives back outside what the step has ended.
func (f *FS) Committed() {
	if f.mirror != nil {
		f.committedNames()
		f.mirror.Recorded()
		f.keptNames()
	}
}

// lostMirror is a lock of which the mirror is lost.
type lostMirror struct {
	key lockspace.Key
	why error
}

// mirrorLost has the holds of a lock ended that are not mirrored any more, when
// the step ends, or if it has ended, in one of its own.
func (f *FS) mirrorLost(k lockspace.Key, why error) {
	f.lost = append(f.lost, lostMirror{k, why})
	go f.doWhenBegun(func() {})
}

// endLost ends them. That may have others be noticed.
func (f *FS) endLost() {
	for i := 0; i < len(f.lost); i++ {
		l := f.lost[i]
		var lost []*lockspace.Hold
		for h := range f.table.Holds(l.key) {
			if (mirrored{f}).isMirrored(&h.Request) {
				lost = append(lost, h)
			}
		}
		if len(lost) > 0 {
			f.log.Error("the mirror of a lock is lost, and with it its holds", "path", f.path(l.key), "holds", len(lost), "err", l.why)
		}
		for _, h := range lost {
			if h.ByName {
				f.table.EndHold(h.ID, lockspace.Lost)
			} else {
				f.table.EndHandle(l.key, h.Party.Handle, lockspace.Lost)
			}
		}
	}
	f.lost = f.lost[:0]
}

// inTheWay is somebody outside who is in the way of a request, if there is one.
type inTheWay struct {
	stranger mirror.Foreign
	found    bool
}

// strangersLock is the answer to F_GETLK where nobody on the mount is in the way:
// who is outside, else that it is free. known is false if the request takes a
// detour to find out, on which it then is.
func (f *FS) strangersLock(unique uint64, r *lockspace.Request, lk fuse.FileLock) (answer fuse.FileLock, known bool) {
	lk.Typ = unix.F_UNLCK
	if !f.mirrors(r.Key.Dir) {
		return lk, true
	}
	var s inTheWay
	if f.facts != nil && f.facts.inTheWay != nil {
		s = *f.facts.inTheWay
	} else {
		var err error
		o := f.mirror.at(r.Key.Dir)
		if s.stranger, s.found, known, err = o.probeFor(r); !known && err == nil {
			path, err := f.outsidePath(r.Key)
			if err != nil {
				return lk, true
			}
			byName := func() *mirror.Foreign { return nil }
			if f.namesOutside(r.Key.Dir) {
				byName = f.lookForForeign(r.Key)
			}
			f.lookUpWhere(unique, 0, o.mayHang(), func(x *facts) {
				x.inTheWay = new(inTheWay)
				if s := byName(); s != nil && s.Name != nil {
					x.inTheWay.stranger, x.inTheWay.found = *s, true
					return
				}
				// What cannot be found out is told to who asks for the lock.
				x.inTheWay.stranger, x.inTheWay.found, _ = o.find(path, r)
			})
			return lk, false
		}
	}
	if !s.found {
		return lk, true
	}
	lk = fuse.FileLock{Start: s.stranger.Range.First, End: s.stranger.Range.Last, Typ: unix.F_RDLCK, Pid: uint32(s.stranger.Pid)}
	if s.stranger.Mode == lockspace.Exclusive {
		lk.Typ = unix.F_WRLCK
	}
	return lk, true
}
