package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Unlink ends every hold of a name. Those of the caller, or of a process that
// the caller descends from, are given back: it is how a script cleans up.
// All others are broken: their open files become stale, and whoever gets the
// lock next has a higher token.
//
// The holder itself may, its user, the directory's owner and root. Descent
// gives no right: what root's service starts for a user is that user's. If the
// caller may not end all of the holds, none ends.
//
// Errors: EACCES without write permission on the directory, EPERM if a hold
// is another user's, ENOENT if nobody holds the name.
func (f *FS) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if isControl(in.NodeId) {
		return cannotMake(in.NodeId)
	}
	dir := f.nodes.get(in.NodeId)
	if dir == nil {
		return errStale
	}
	if status := f.permit(in, dir, mayWrite|maySearch); status != fuse.OK {
		return status
	}
	if name == controlName {
		return fuse.EISDIR
	}
	key := lockspace.Key{Dir: dir.ID, Name: name}
	if !f.table.Held(key) {
		return fuse.ENOENT
	}
	p, ok := f.caller(in)
	if !ok {
		return device.Parked
	}
	if f.facts == nil || f.facts.holders == nil {
		f.lookUpHolders(in.Unique, key, p.Pid)
		return device.Parked
	}
	why := make(map[lockspace.HoldID]lockspace.Reason)
	for h := range f.table.Holds(key) {
		kinship := f.kinship(h)
		if kinship != self && !f.mayEnd(in, dir, h) {
			return fuse.EPERM
		}
		if kinship == stranger {
			why[h.ID] = lockspace.Broken
		}
	}
	f.table.End(key, func(h *lockspace.Hold) lockspace.Reason {
		if why[h.ID] == lockspace.Broken {
			f.log.Info("lock broken", "name", name, "by_pid", p.Pid, "by_uid", p.UID,
				"holder_pid", f.holder(h).Pid, "holder_uid", f.holder(h).UID, "token", h.Token)
		}
		return why[h.ID]
	})
	return fuse.OK
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
	for i := range f.facts.ancestors {
		switch p := &f.facts.ancestors[i]; {
		case p.Pid != holder.Pid:
		case p.Started > since.Boot:
			return stranger
		case i == 0:
			return self
		default:
			return descendant
		}
	}
	return stranger
}
