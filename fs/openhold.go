package fs

import (
	"errors"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Lockspaces in which open(2) takes the lock (hold=open), as ocfs2's dlmfs
// promises (Documentation/filesystems/dlmfs.rst, fs/ocfs2/dlmfs):
//
//   - O_RDONLY takes it shared, O_WRONLY and O_RDWR exclusive, and O_CREAT|O_EXCL
//     exclusive too, for as long as the file is open. Who has to wait does so in
//     open(2), in the queue with flock and fcntl; with O_NONBLOCK it is ETXTBSY.
//   - A name that was made stays until it is removed, held or not. While an open
//     file holds it that is EBUSY, for everybody.
//   - The body is the lock value block: it stays with the name, from holder to
//     holder. A write replaces bytes of it, from the file's beginning on;
//     O_TRUNC, O_APPEND and truncation are accepted and ignored.
//   - poll(2) says POLLIN exactly while somebody waits for the lock, see poll.go.
//
// Not as there: the body is as long as what was written, up to 4096 bytes (64
// there, always), and an empty one of a held lock reads as the holder's record;
// names and directories nest and may be as long as elsewhere; the directory's
// permission decides, and mode bits do not, but for those that a file has brought
// from where it had a mode; and open(2) that a signal ends is
// EINTR with SA_RESTART as well, or if its process is only stopped and continued,
// since FUSE has no way to say otherwise. (Who makes the call again within a second
// has its place in the queue.)
//
// flock and fcntl work on what is open, beside the open's own hold. But two
// programs that open for reading, and then lock exclusively, as flock(1) does,
// both have the lock shared and wait for each other for ever: this is no lockspace
// for them. Nor can cat(1) look at what is held exclusively: it waits.
//
// What holds by name, holds here too: it is waited for in the same way.
//
// A directory that becomes such a lockspace, or ceases to be one: what is held
// stays held as it was taken, until that ends, and what waits waits on. Names
// that were made stay. Files that were open before hold nothing, and are ready
// for poll(2). When names that were there only while held, or while open, are
// opened here, they stay.

// holdsByOpen reports whether opening a name in a directory takes its lock.
func (x *file) holdsByOpen() bool { return x.Policy.hold == holdOpen }

// openHolds reports whether opening a file takes its lock.
func (f *FS) openHolds(d *node) bool {
	parent := f.nodes.get(d.Parent)
	return parent != nil && parent.file.holdsByOpen()
}

// openHold opens a name and takes its lock, or with wait waits for it: the
// request is parked then, and answered when [observer] is told how it went.
//
// Errors: EACCES; ETXTBSY with O_NONBLOCK, if it would have to wait; ESTALE if it
// would and must not, or if the name is another file's by now: the kernel looks
// again, once; ENOLCK at the end of the mount.
func (f *FS) openHold(in *fuse.InHeader, d *node, flags uint32, wait bool) (*handle, fuse.Status) {
	nonblock := flags&unix.O_NONBLOCK != 0
	wait = wait && !nonblock
	if status := f.permitOpen(in, d, flags); status != fuse.OK {
		return nil, f.inTurn(status, d.key, wait)
	}
	// To take is to write to the directory.
	if status := f.permit(in, f.nodes.get(d.Parent), mayWrite); status != fuse.OK {
		return nil, f.inTurn(status, d.key, wait)
	}
	p, ok := f.caller(in)
	if !ok {
		return nil, f.inTurn(device.Parked, d.key, wait)
	}
	if f.nodes.lookup(d.key) != d {
		return nil, errStale
	}
	r := f.openRequest(in, d, p, flags)
	f.lastHandle = r.Party.Handle
	if wait {
		f.await(in.Unique, d)
	}
	granted, err := f.ask(&r, in.Unique, wait)
	if granted || err != nil {
		f.awaited(in.Unique)
	}
	switch {
	case errors.Is(err, lockspace.ErrLookup):
		return nil, f.lookUpForLock(&r, in.Unique, wait)
	case errors.Is(err, lockspace.ErrHeld) && nonblock:
		return nil, errTxtBsy
	case errors.Is(err, lockspace.ErrHeld):
		return nil, errStale
	case err != nil:
		return nil, fuse.Status(lockErrno(err))
	case !granted:
		f.tellHolders(d.key)
		return nil, device.Parked
	}
	return f.opened(d, &r.Party), fuse.OK
}

// openRequest is what an open(2) asks of the table. Its open file has a number
// already, which nobody else gets.
func (f *FS) openRequest(in *fuse.InHeader, d *node, p lockspace.Process, flags uint32) lockspace.Request {
	r := lockspace.Request{
		Key: d.key,
		Party: lockspace.Party{
			Handle: f.lastHandle + 1,
			File:   d.ID,
			Taker:  p,
			Opener: p,
			Opened: f.clock.Now(),
		},
		Via:    lockspace.ViaOpen,
		Mode:   lockspace.Shared,
		Range:  lockspace.Whole,
		Thread: in.Pid,
	}
	r.Party.Taker.Started = f.facts.started(p.Pid)
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_EXCL != 0 {
		r.Mode = lockspace.Exclusive
	}
	if f.facts != nil {
		r.Reserved = f.facts.place
	}
	return r
}

// opened makes the open file that holds d's lock. The name is there from now on,
// if it was there only while it was held.
func (f *FS) opened(d *node, p *lockspace.Party) *handle {
	f.keepName(d)
	return f.addHandle(d, HandleRecord{ID: p.Handle, Node: d.ID, Opener: p.Opener, Opened: p.Opened})
}

// keepName gives a lock that has no name of its own one that stays.
func (f *FS) keepName(d *node) {
	if f.entry(d.key) == nil && f.openHolds(d) && f.nodes.lookup(d.key) == d && !f.nodes.get(d.Parent).file.isRemoved() {
		f.enterAs(d.key, f.promote(d))
	}
}

// createHold is the CREATE of a name that has no entry: it is made, and its lock
// is taken. It never waits: the kernel has the directory locked.
func (f *FS) createHold(in *fuse.CreateIn, key lockspace.Key) (*handle, fuse.Status) {
	d := f.lockNode(key, in.Uid, in.Gid)
	h, status := f.openHold(&in.InHeader, d, in.Flags, false)
	if status == fuse.OK {
		return h, fuse.OK
	}
	if status == errStale || status == errTxtBsy { // it would have to wait
		if in.Flags&unix.O_EXCL != 0 {
			status = fuse.Status(unix.EEXIST)
		} else {
			f.keepName(d) // where it is waited for, the next time
		}
	}
	f.collect(d)
	return nil, status
}

// await keeps the node on which a request waits to open a file.
func (f *FS) await(unique uint64, d *node) {
	f.opening[unique] = d
	d.open++
}

// awaited is the end of a request's wait to open a file, if it was one; it
// returns the node.
func (f *FS) awaited(unique uint64) *node {
	d := f.opening[unique]
	if d != nil {
		delete(f.opening, unique)
		d.open--
	}
	return d
}

// unawaited is awaited for a request that opens nothing.
func (f *FS) unawaited(unique uint64) {
	if d := f.awaited(unique); d != nil {
		f.collect(d)
	}
}

// grantedOpen answers an OPEN that waited.
func (f *FS) grantedOpen(w *lockspace.Wait) {
	d := f.awaited(uint64(w.ID))
	h := f.opened(d, &w.Party)
	f.dev.AnswerOpen(uint64(w.ID), h.ID, fuse.FOPEN_DIRECT_IO)
}

// passedOn reports whether a name that is being removed has gone to somebody who
// waited to open it: it is that one's now, and stays.
func (f *FS) passedOn(at place) bool { return at.dir.file.holdsByOpen() && f.table.Held(at.key) }

// restoreOpening finds the node of an OPEN that was waiting when the process
// died, and makes sure that the number of its open file is nobody else's. An
// absent wait has neither.
func (f *FS) restoreOpening(w *lockspace.Wait) error {
	d := f.nodes.byID[w.Party.File]
	switch {
	case w.AbsentUntil != 0:
		return nil
	case d == nil || d.key != w.Key || d.file.Kind != regular:
		return ErrRecord
	case w.Party.Handle > f.lastHandle || f.handles[w.Party.Handle] != nil || f.opening[uint64(w.ID)] != nil:
		return ErrRecord
	}
	f.await(uint64(w.ID), d)
	return nil
}
