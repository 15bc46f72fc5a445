package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Create opens a name that was free when the kernel looked it up. With O_EXCL
// it takes the lock, or fails with EEXIST; without, it opens the name whether
// it is held by now or not.
//
// In a lockspace whose names hold it makes a file, which stays; and where opening
// takes the lock too, see openhold.go.
func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if isControl(in.NodeId) {
		return cannotMake(in.NodeId)
	}
	dir := f.nodes.dir(in.NodeId)
	if dir == nil {
		return errStale
	}
	if status := checkName(name); status != fuse.OK {
		return status
	}
	if name == controlName {
		return fuse.EPERM
	}
	key := lockspace.Key{Dir: dir.ID, Name: name}
	f.noteUse(&in.InHeader, key)
	e, excl := f.entry(key), in.Flags&unix.O_EXCL != 0
	if e != nil && !excl {
		return f.createExisting(in, f.nodes.of(e), out)
	}
	want := uint32(mayWrite | maySearch)
	if !dir.file.holdsByName() {
		// What is made here can be held by somebody else, now or later, and
		// read.
		want |= wanted(in.Flags)
	}
	if status := f.permit(&in.InHeader, dir, want); status != fuse.OK {
		return status
	}
	p, ok := f.caller(&in.InHeader)
	if !ok {
		return device.Parked
	}
	if excl && (e != nil || f.table.Held(key)) {
		f.meter.refusals[lockspace.ViaExcl]++
		return fuse.Status(unix.EEXIST)
	}
	if dir.file.holdsByOpen() {
		return f.createHold(in, key, out)
	}
	var d *node
	if dir.file.holdsByName() {
		x := f.newFile(dir.file, regular, in.Mode, in.Uid, in.Gid)
		if excl {
			if status := f.takeByName(&in.InHeader, key, lockspace.ViaExcl, x.Ino, f.lastHandle+1); status != fuse.OK {
				return status
			}
		}
		d = f.nodes.of(f.enterAs(key, x))
	} else {
		d = f.lockNode(key, in.Uid, in.Gid)
	}
	h := f.open(d, p)
	if excl && !dir.file.holdsByName() {
		if err := f.takeName(h, in.Pid); err != nil {
			f.close(h.ID)
			return makeStatus(err)
		}
	}
	f.enterOpen(d, h, out)
	return fuse.OK
}

// createExisting opens what somebody has made since the kernel looked.
func (f *FS) createExisting(in *fuse.CreateIn, d *node, out *fuse.CreateOut) fuse.Status {
	switch d.file.Kind {
	case directory:
		return fuse.EISDIR
	case symlink:
		return errStale // the kernel looks again, and follows it
	}
	if f.openHolds(d) {
		return f.createHeld(in, d, out)
	}
	h, status := f.openExisting(&in.InHeader, d, in.Flags)
	if status == fuse.OK {
		f.enterOpen(d, h, out)
	}
	return status
}

// openExisting opens what is there, for a request with these flags. The status
// is OK, or why not, or Parked for a detour.
func (f *FS) openExisting(in *fuse.InHeader, d *node, flags uint32) (*handle, fuse.Status) {
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

func (f *FS) enterOpen(d *node, h *handle, out *fuse.CreateOut) {
	f.enter(d, &out.EntryOut)
	out.Fh = h.ID
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
}

// takeName takes the lock for a handle that was opened with O_EXCL.
func (f *FS) takeName(h *handle, tid uint32) error {
	err := f.table.Try(lockspace.Request{
		Key: h.node.key,
		Party: lockspace.Party{
			Handle: h.ID,
			File:   h.Node,
			Taker:  h.Opener,
			Opener: h.Opener,
			Opened: h.Opened,
		},
		Via:    lockspace.ViaExcl,
		Mode:   lockspace.Exclusive,
		Range:  lockspace.Whole,
		Thread: tid,
	})
	f.touch(h.Node)
	return err
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

// Open opens a name that was held when the kernel looked it up. It may be free
// by now: an open file is not a hold, and to fail would break O_CREAT.
func (f *FS) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if isControl(in.NodeId) {
		fh, status := f.openControl(in)
		out.Fh = fh
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
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
		h, status = f.openExisting(&in.InHeader, d, in.Flags)
	}
	if status != fuse.OK {
		return status
	}
	out.Fh = h.ID
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}
