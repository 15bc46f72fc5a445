package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// handle is an open file description.
type handle struct {
	HandleRecord
	node *node
	// record is the holder record that a reader is in the middle of: made at
	// offset 0, so that short reads see one moment.
	record []byte
	// strangers are the names in a directory that were held outside when its
	// listing began; nil: not known.
	strangers []strangersName
}

// open makes a handle on d for process p.
func (f *FS) open(d *node, p lockspace.Process) *handle {
	return f.addHandle(d, f.newHandle(d.ID, p))
}

// addHandle makes the handle on d that has a record.
func (f *FS) addHandle(d *node, r HandleRecord) *handle {
	h := &handle{HandleRecord: r, node: d}
	f.handles[h.ID] = h
	d.open++
	f.journal.PutHandle(&h.HandleRecord)
	return h
}

// newHandle returns the record of an open file, not yet in the journal.
func (f *FS) newHandle(node uint64, p lockspace.Process) HandleRecord {
	f.lastHandle++
	return HandleRecord{ID: f.lastHandle, Node: node, Opener: p, Opened: f.clock.Now()}
}

// party is who asks for locks through the open file, for a process.
func (h *handle) party(taker lockspace.Process) lockspace.Party {
	return lockspace.Party{Handle: h.ID, File: h.Node, Taker: taker, Opener: h.Opener, Opened: h.Opened}
}

// takenAway marks the open file whose lock was taken away, for a reason.
func (f *FS) takenAway(id uint64, why lockspace.Reason) {
	if h := f.handles[id]; h != nil && h.gone() == fuse.OK {
		h.Stale, h.Lost = why != lockspace.Lost, why == lockspace.Lost
		f.journal.PutHandle(&h.HandleRecord)
	}
}

// gone is the status of what needs the lock of an open file from which it was
// taken away: ESTALE, or EIO if its mirror was lost. It is OK for all others.
func (h *handle) gone() fuse.Status {
	switch {
	case h.Lost:
		return fuse.EIO
	case h.Stale:
		return errStale
	}
	return fuse.OK
}

// Release is the end of an open file: its last close, or the death of the last
// process that had it.
func (f *FS) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { f.close(in.Fh) }

func (f *FS) close(id uint64) {
	if c := f.controls[id]; c != nil {
		f.closeControl(c)
		return
	}
	h := f.handles[id]
	if h == nil {
		return
	}
	if h.node.file.Kind != directory {
		f.releasing = h.ID
		f.table.EndHandle(h.node.key, h.ID, h.why())
		f.releasing = 0
	}
	delete(f.handles, h.ID)
	f.journal.DropHandle(h.ID)
	h.node.open--
	if h.node.file.body != nil {
		f.touched = append(f.touched, h.node)
	}
	if !f.collect(h.node) {
		f.leaveForeign(h.node)
	}
}

// Flush is one close of possibly many, by one process: POSIX gives its fcntl
// locks on the file back, and nothing else. In a lockspace with grace it has to
// be found out whether that is a process that a signal ended.
func (f *FS) Flush(_ <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	h := f.handles[in.Fh]
	if h == nil {
		return fuse.OK
	}
	killed := false
	if in.Pid != 0 && f.policyOf(h.node).grace > 0 && f.table.Held(h.node.key) {
		if f.facts == nil || f.facts.killed == nil {
			f.lookUp(in.Unique, func(x *facts) {
				killed := f.procs.Killed(in.Pid)
				x.killed = &killed
			})
			return device.Parked
		}
		killed = *f.facts.killed
	}
	if killed != h.Killed {
		h.Killed = killed
		f.journal.PutHandle(&h.HandleRecord)
	}
	f.table.EndOwner(h.node.key, h.node.ID, in.LockOwner, h.why())
	f.closeBody(h)
	return fuse.OK
}

// why is the reason for which a hold ends with the last close of the file.
func (h *handle) why() lockspace.Reason {
	if h.Killed {
		return lockspace.Died
	}
	return lockspace.Released
}

// Fsync tells who has lost a lock.
func (f *FS) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	h := f.handles[in.Fh]
	switch {
	case f.controls[in.Fh] != nil:
		return fuse.OK
	case h == nil:
		return fuse.EBADF
	}
	return h.gone()
}
