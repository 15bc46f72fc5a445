package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Unlink ends every hold of a name. Those of the caller, or of a process that
// the caller descends from, are given back: it is how a script cleans up.
// All others are broken: their open files become stale, and whoever gets the
// lock next has a higher token. Breaking is for the holder's user, the
// directory's owner and root; if the caller may not end all of the holds, none
// ends.
//
// Errors: EACCES without write permission on the directory, EPERM if a hold
// is another user's, ENOENT if nobody holds the name.
func (f *FS) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	dir := f.nodes.get(in.NodeId)
	if dir == nil {
		return errStale
	}
	if status := f.permit(in, dir, mayWrite|maySearch); status != fuse.OK {
		return status
	}
	key := lockspace.Key{Dir: dir.ID, Name: name}
	if !f.table.Held(key) {
		return fuse.ENOENT
	}
	if in.Pid != 0 && (f.facts == nil || f.facts.ancestors == nil) {
		tid := in.Pid
		f.lookUp(in.Unique, func(x *facts) { x.lookFamily(f.procs, tid) })
		return device.Parked
	}
	for h := range f.table.Holds(key) {
		if !f.ofFamily(h) && !f.mayEnd(in, dir, h) {
			return fuse.EPERM
		}
	}
	f.table.End(key, func(h *lockspace.Hold) lockspace.Reason {
		if f.ofFamily(h) {
			return lockspace.Released
		}
		f.log.Info("lock broken", "name", name, "by_pid", in.Pid, "by_uid", in.Uid,
			"holder_pid", f.holder(h).Pid, "holder_uid", f.holder(h).UID, "token", h.Token)
		return lockspace.Broken
	})
	return fuse.OK
}

// ofFamily reports whether the caller, whose ancestors the detour found, is
// the holder of h or descends from it. A process that started after the hold
// began only has the holder's number.
func (f *FS) ofFamily(h *lockspace.Hold) bool {
	if f.facts == nil {
		return false
	}
	holder, since := f.holder(h), h.Since
	if holder.Pid == 0 {
		return false
	}
	if holder != h.Party.Taker {
		since = h.Party.Opened
	}
	for i := range f.facts.ancestors {
		if p := &f.facts.ancestors[i]; p.Pid == holder.Pid {
			return p.Started <= since.Boot
		}
	}
	return false
}
