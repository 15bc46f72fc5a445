package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Unlink removes a name, and ends every hold of it. Those of the caller, or of a
// process that the caller descends from, are given back: it is how a script
// cleans up; a hold by name is given back by anybody of its user. All others are
// broken, those of named owners always: open files become stale, and whoever gets the
// lock next has a higher token.
//
// The holder itself may, its user, the directory's owner and root, and of a file
// with a mode of its own its owner. Descent gives no right: what root's service
// starts for a user is that user's. If the caller may not end all of the holds,
// none ends. A file that nobody holds by its name may be removed by its owner, the
// directory's, and root.
//
// Where open(2) takes the lock, nobody removes what an open file holds: EBUSY.
//
// Errors: EACCES without write permission on the directory, EPERM if a hold or
// the file is another user's, EBUSY if somebody outside holds it, ENOENT if there
// is nothing under the name, EISDIR.
func (f *FS) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if isControl(in.NodeId) {
		return f.unlinkID(in, name)
	}
	at, status := f.placeOf(in, in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	e := f.entry(at.key)
	switch {
	case name == controlName || e != nil && e.file.Kind == directory:
		return fuse.EISDIR
	case e == nil && !f.table.Held(at.key):
		return f.removeStrangers(in.Unique, at.key)
	}
	if status := f.permitEnd(in, at); status != fuse.OK {
		return status
	}
	f.endHolds(in, at)
	if e != nil && !f.passedOn(at) {
		f.removeEntry(e)
	}
	return fuse.OK
}

// mayRemove reports whether the caller of a request may remove a file that
// nobody holds by its name from a directory: restricted deletion, as with a sticky
// bit.
func mayRemove(in *fuse.InHeader, dir *node, x *file) bool {
	return in.Uid == 0 || in.Uid == dir.file.UID || in.Uid == x.UID
}

// permitEnd says whether the caller of a request may remove a name, and end what
// is held of it: OK, EPERM, EBUSY, or Parked for a detour.
func (f *FS) permitEnd(in *fuse.InHeader, at place) fuse.Status {
	byName, byFile := false, false
	for h := range f.table.Holds(at.key) {
		byName = byName || h.ByName
		byFile = byFile || !h.ByName
	}
	// Who has locked another's file has not made the name.
	if e := f.entry(at.key); e != nil && !byName && !mayRemove(in, at.dir, e.file) {
		return fuse.EPERM
	}
	switch {
	case !byName && !byFile:
		return fuse.OK
	case byFile && at.dir.file.holdsByOpen():
		return fuse.EBUSY
	}
	p, ok := f.caller(in)
	if !ok {
		return device.Parked
	}
	if byFile && (f.facts == nil || f.facts.holders == nil) {
		f.lookUpHolders(in.Unique, at.key, p.Pid)
		return device.Parked
	}
	for h := range f.table.Holds(at.key) {
		ofOwner := h.Via == lockspace.ViaOwner
		if (h.ByName || ofOwner || f.kinship(h) != self) && !f.mayEnd(in, at.dir, h) {
			return fuse.EPERM
		}
		if o := f.owners.ofHold(&h.Request); o != nil && o.Restricted && f.facts.descendsFrom(o.Process) {
			return fuse.EPERM
		}
	}
	return fuse.OK
}

// endHolds ends what is held of a name that is being removed, as permitEnd has
// found to be right.
func (f *FS) endHolds(in *fuse.InHeader, at place) {
	f.table.End(at.key, func(h *lockspace.Hold) lockspace.Reason {
		if f.givesBack(in, h) {
			return lockspace.Released
		}
		p, _ := f.caller(in) // known: permitEnd asks if anything is held
		f.log.Info("lock broken", "name", at.name, "by_pid", p.Pid, "by_uid", p.UID,
			"holder_pid", f.holder(h).Pid, "holder_uid", f.holder(h).UID, "token", h.Token)
		f.breaker = p
		return lockspace.Broken
	})
}

// givesBack reports whether a hold is given back by a removal, not broken.
func (f *FS) givesBack(in *fuse.InHeader, h *lockspace.Hold) bool {
	switch {
	case h.ByName:
		return in.Uid == h.Party.Taker.UID
	case h.Via == lockspace.ViaOwner:
		return false // that is its ctl's business
	}
	return f.kinship(h) != stranger
}

// lookUpHolders finds out who is behind the holds of a lock, and what the
// caller descends from.
func (f *FS) lookUpHolders(unique uint64, k lockspace.Key, caller uint32) {
	var holds []lockspace.Hold
	for h := range f.table.Holds(k) {
		holds = append(holds, *h)
	}
	f.lookUp(unique, func(x *facts) {
		x.holders = make(map[lockspace.HoldID]lockspace.Process)
		for i := range holds {
			x.holders[holds[i].ID], _ = findHolder(f.procs, &holds[i])
		}
		x.lookFamily(f.procs, caller)
	})
}

// Kinships of a caller to the holder of a lock.
const (
	stranger   = iota
	descendant // the holder started it, or started who started it ...
	self
)

// kinship returns what the caller, whose family the detour found, is to the
// holder of h. A process that started after the hold began only has the
// holder's number.
func (f *FS) kinship(h *lockspace.Hold) int {
	holder := f.holder(h)
	if holder.Pid == 0 {
		return stranger
	}
	since := h.Since
	if holder != h.Party.Taker {
		since = h.Party.Opened
	}
	return f.facts.kinTo(holder.Pid, since.Boot)
}

// kinTo returns what the process whose family the detour found is to the one
// that had a number at a time.
func (x *facts) kinTo(pid uint32, at time.Duration) int {
	for i := range x.ancestors {
		switch p := &x.ancestors[i]; {
		case p.Pid != pid:
		case p.Started > at:
			return stranger
		case i == 0:
			return self
		default:
			return descendant
		}
	}
	return stranger
}
