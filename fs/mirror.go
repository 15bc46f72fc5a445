package fs

import (
	"errors"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Mirror has the locks of the mount outside of it too, for programs that do not use
// it (design 1.6); *mirror.Mirror is the one there is. All methods are called in
// steps.
type Mirror interface {
	lockspace.Mirror
	// Open returns what opens the file of a lock, by its path below the backing
	// directory, for a user, so that [lockspace.Mirror.Cover] can tell. It is
	// called outside of steps, and what it returns then within one.
	Open(k lockspace.Key, path string, uid, gid uint32) (open func() (takeIn func()))
	// Recorded is called when a step is recorded: what it has ended may be free
	// outside from then on.
	Recorded()
	// Test returns somebody outside who keeps a request from being granted, as
	// far as that can be told within a step.
	Test(r *lockspace.Request) (Stranger, bool)
}

// Stranger is who holds a lock outside of the mount.
type Stranger struct {
	Mode  lockspace.Mode
	Range lockspace.Range
	// Pid is his process, 0 if that cannot be told.
	Pid uint32
}

// mirrored is the table's mirror: it leaves out what is not mirrored.
type mirrored struct{ f *FS }

func (f *FS) beginMirror() {
	if f.mirror != nil {
		f.table.Mirrored(mirrored{f})
	}
}

// isMirrored reports whether a hold of r is outside too. Where names hold they are
// not; nor is a directory, in which others are, nor what is in one that has been
// removed, where nobody comes any more.
func (m mirrored) isMirrored(r *lockspace.Request) bool {
	dir := m.f.nodes.get(r.Key.Dir)
	return dir != nil && !dir.file.holdsByName() && !dir.file.isRemoved() && r.Via != lockspace.ViaMkdir
}

// Cover notes what is to be opened for a request, for the detour that follows.
func (m mirrored) Cover(r *lockspace.Request) error {
	if !m.isMirrored(r) {
		return nil
	}
	err := m.f.mirror.Cover(r)
	if errors.Is(err, lockspace.ErrLookup) {
		m.f.unopened = append(m.f.unopened, *r)
	}
	return err
}

// Await has the lock opened if it is not: nobody asks for it now who could take a
// detour.
func (m mirrored) Await(r *lockspace.Request) { m.f.mirror.Await(r) }

func (m mirrored) Settled(k lockspace.Key, holds []*lockspace.Hold) {
	n := 0
	for _, h := range holds {
		if m.isMirrored(&h.Request) {
			n++
		}
	}
	if n < len(holds) {
		some := make([]*lockspace.Hold, 0, n)
		for _, h := range holds {
			if m.isMirrored(&h.Request) {
				some = append(some, h)
			}
		}
		holds = some
	}
	m.f.mirror.Settled(k, holds)
}

// openOutside returns what opens, on a detour, what has yet to be opened outside
// for the present request.
func (f *FS) openOutside() func(*facts) {
	var opens []func() func()
	for i := range f.unopened {
		r := &f.unopened[i]
		opens = append(opens, f.mirror.Open(r.Key, f.outsidePath(r.Key), r.Party.Taker.UID, r.Party.Taker.GID))
	}
	f.unopened = f.unopened[:0]
	return func(x *facts) {
		x.opened = nil
		for _, open := range opens {
			x.opened = append(x.opened, open())
		}
	}
}

// takeInOpened takes in what a detour has opened outside.
func (f *FS) takeInOpened() {
	if f.facts == nil {
		return
	}
	for _, takeIn := range f.facts.opened {
		takeIn()
	}
	f.facts.opened = nil
}

// makeOutside is makeStatus for a call whose name may have yet to be opened
// outside: then it takes a detour.
func (f *FS) makeOutside(unique uint64, err error) fuse.Status {
	if !errors.Is(err, lockspace.ErrLookup) || len(f.unopened) == 0 {
		return makeStatus(err)
	}
	open := f.openOutside()
	f.lookUp(unique, open)
	return device.Parked
}

// outsidePath returns the path of a lock below the backing directory. It is empty
// for what is in a directory that has been removed.
func (f *FS) outsidePath(k lockspace.Key) string {
	path := k.Name
	for dir := k.Dir; dir != rootDir; {
		d := f.nodes.get(dir)
		if d == nil || len(d.file.entries) == 0 {
			return ""
		}
		e := d.file.entries[0]
		path = e.Name + "/" + path
		dir = e.Dir
	}
	return strings.TrimPrefix(path, "/")
}

// Committed gives back outside what the step has ended.
func (f *FS) Committed() {
	if f.mirror != nil {
		f.mirror.Recorded()
	}
}

// MirrorFreed looks again at a lock for which somebody waits who was kept out from
// outside. Within a step.
func (f *FS) MirrorFreed(k lockspace.Key) { f.table.Reconsider(k) }

// MirrorLost ends the holds of a lock that are not mirrored any more. Within a
// step.
func (f *FS) MirrorLost(k lockspace.Key, why error) {
	var lost []*lockspace.Hold
	for h := range f.table.Holds(k) {
		if (mirrored{f}).isMirrored(&h.Request) {
			lost = append(lost, h)
		}
	}
	if len(lost) > 0 {
		f.log.Error("the mirror of a lock is lost, and with it its holds", "path", f.path(k), "holds", len(lost), "err", why)
	}
	for _, h := range lost {
		if h.ByName {
			f.table.EndHold(h.ID, lockspace.Lost)
		} else {
			f.table.EndHandle(k, h.Party.Handle, lockspace.Lost)
		}
	}
}

// strangersLock is the answer to F_GETLK where nobody on the mount is in the way:
// who is outside, else that it is free.
func (f *FS) strangersLock(r *lockspace.Request, lk fuse.FileLock) fuse.FileLock {
	lk.Typ = unix.F_UNLCK
	if f.mirror == nil || !(mirrored{f}).isMirrored(r) {
		return lk
	}
	s, found := f.mirror.Test(r)
	if !found {
		return lk
	}
	lk = fuse.FileLock{Start: s.Range.First, End: s.Range.Last, Typ: unix.F_RDLCK, Pid: s.Pid}
	if s.Mode == lockspace.Exclusive {
		lk.Typ = unix.F_WRLCK
	}
	return lk
}
