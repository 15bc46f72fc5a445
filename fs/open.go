package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Create opens a name that was free when the kernel looked it up. With O_EXCL
// it takes the lock, or fails with EEXIST; without, it opens the name whether
// it is held by now or not. What it makes is the policy's to say.
func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if isControl(in.NodeId) {
		return f.createID(in, name, out)
	}
	at, status := f.named(&in.InHeader, in.NodeId, name)
	switch {
	case status != fuse.OK:
		return status
	case name == controlName:
		return fuse.EPERM
	}
	var h *handle
	if e := f.entry(at.key); e != nil && in.Flags&unix.O_EXCL == 0 {
		h, status = f.createExisting(in, f.nodes.of(e))
	} else {
		h, status = f.createNew(in, at.dir, at.key)
	}
	if status != fuse.OK {
		return status
	}
	f.enter(h.node, &out.EntryOut)
	out.Fh, out.OpenFlags = h.ID, fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// createExisting opens what somebody has made since the kernel looked.
func (f *FS) createExisting(in *fuse.CreateIn, d *node) (h *handle, status fuse.Status) {
	switch {
	case d.file.Kind == directory:
		status = fuse.EISDIR
	case d.file.Kind == symlink:
		status = errStale // the kernel looks again, and follows it
	case f.openHolds(d):
		h, status = f.openHold(&in.InHeader, d, in.Flags, false)
	default:
		h, status = f.openFile(&in.InHeader, d, in.Flags)
	}
	if status != fuse.OK {
		f.collect(d)
	}
	return h, status
}

// createNew makes a name that has no entry; with O_EXCL, it takes its lock.
func (f *FS) createNew(in *fuse.CreateIn, dir *node, key lockspace.Key) (*handle, fuse.Status) {
	want := uint32(mayWrite | maySearch)
	if !dir.file.holdsByName() {
		// What is made here can be held by somebody else, now or later, and
		// read.
		want |= wanted(in.Flags)
	}
	if status := f.permit(&in.InHeader, dir, want); status != fuse.OK {
		return nil, status
	}
	p, ok := f.caller(&in.InHeader)
	if !ok {
		return nil, device.Parked
	}
	if in.Flags&unix.O_EXCL != 0 && f.exists(key) {
		f.meter.refusals[lockspace.ViaExcl]++
		return nil, fuse.Status(unix.EEXIST)
	}
	switch dir.file.Policy.hold {
	case holdName:
		return f.createFile(in, dir, key, p)
	case holdOpen:
		return f.createHold(in, key)
	}
	return f.createLock(in, key, p)
}

// createFile makes a file, whose name holds if it was made with O_EXCL
// (hold=name).
func (f *FS) createFile(in *fuse.CreateIn, dir *node, key lockspace.Key, p lockspace.Process) (*handle, fuse.Status) {
	x := f.newFile(dir.file, regular, in.Mode, in.Uid, in.Gid)
	if in.Flags&unix.O_EXCL != 0 {
		if status := f.takeByName(&in.InHeader, key, lockspace.ViaExcl, x, f.lastHandle+1); status != fuse.OK {
			return nil, status
		}
	}
	return f.open(f.nodes.of(f.enterAs(key, x)), p), fuse.OK
}

// createLock opens a lock without an entry, and holds it by the open file if that
// was made with O_EXCL (hold=handle).
func (f *FS) createLock(in *fuse.CreateIn, key lockspace.Key, p lockspace.Process) (*handle, fuse.Status) {
	h := f.open(f.lockNode(key, in.Uid, in.Gid), p)
	if in.Flags&unix.O_EXCL == 0 {
		return h, fuse.OK
	}
	err := f.tryOne(lockspace.Request{Key: key, Party: h.party(p), Via: lockspace.ViaExcl, Thread: in.Pid})
	if err != nil {
		f.close(h.ID)
		return nil, f.makeOutside(in.Unique, err)
	}
	f.touch(h.Node)
	return h, fuse.OK
}

// openFile opens what is there, for a request with these flags. The status is OK,
// or why not, or Parked for a detour.
func (f *FS) openFile(in *fuse.InHeader, d *node, flags uint32) (*handle, fuse.Status) {
	if status := f.permitOpen(in, d, flags); status != fuse.OK {
		return nil, status
	}
	p, ok := f.caller(in)
	if !ok {
		return nil, device.Parked
	}
	if flags&unix.O_TRUNC != 0 {
		if status := f.truncate(in.Unique, d, nil, p, 0); status != fuse.OK {
			return nil, status
		}
	}
	h := f.open(d, p)
	if flags&unix.O_TRUNC != 0 {
		f.truncateLater(h)
	}
	return h, fuse.OK
}

// wanted is what the flags of an open(2) ask of the directory.
func wanted(flags uint32) uint32 {
	var want uint32
	if flags&unix.O_ACCMODE != unix.O_WRONLY {
		want |= mayRead
	}
	if flags&unix.O_ACCMODE != unix.O_RDONLY || flags&unix.O_TRUNC != 0 {
		want |= mayWrite
	}
	return want
}

// Open opens a name that was there when the kernel looked it up. A lock may be
// free by now: an open file is not a hold, and to fail would break O_CREAT.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if isControl(in.NodeId) {
		fh, status := f.openControl(in)
		out.Fh, out.OpenFlags = fh, fuse.FOPEN_DIRECT_IO
		return status
	}
	d := f.nodes.get(in.NodeId)
	if d == nil || d.file.Kind == directory {
		return errStale
	}
	var h *handle
	var status fuse.Status
	if f.openHolds(d) {
		h, status = f.openHold(&in.InHeader, d, in.Flags, true)
	} else {
		h, status = f.openFile(&in.InHeader, d, in.Flags)
	}
	if status != fuse.OK {
		return status
	}
	out.Fh, out.OpenFlags = h.ID, fuse.FOPEN_DIRECT_IO
	return fuse.OK
}
