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
func (f *FS) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if isControl(in.NodeId) {
		return cannotMake(in.NodeId)
	}
	dir := f.nodes.get(in.NodeId)
	if dir == nil || !dir.Dir {
		return errStale
	}
	if status := checkName(name); status != fuse.OK {
		return status
	}
	if name == controlName {
		return fuse.EPERM
	}
	// What is made here can be held by somebody else, now or later, and read.
	if status := f.permit(&in.InHeader, dir, mayWrite|maySearch|wanted(in.Flags)); status != fuse.OK {
		return status
	}
	p, ok := f.caller(&in.InHeader)
	if !ok {
		return device.Parked
	}
	key := lockspace.Key{Dir: dir.ID, Name: name}
	if in.Flags&unix.O_EXCL != 0 && f.table.Held(key) {
		return fuse.Status(unix.EEXIST)
	}
	d := f.nodes.make(key, in.Uid, in.Gid, f.clock.Now())
	h := f.open(d, p)
	if in.Flags&unix.O_EXCL != 0 {
		if err := f.takeName(h, in.Pid); err != nil {
			// Nobody holds it, so only a mirror could refuse it.
			f.close(h.ID)
			return fuse.Status(lockErrno(err))
		}
	}
	f.enter(d, &out.EntryOut)
	out.Fh = h.ID
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
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
	if d == nil || d.Dir {
		return errStale
	}
	if status := f.permit(&in.InHeader, f.nodes.get(d.Parent), wanted(in.Flags)); status != fuse.OK {
		return status
	}
	p, ok := f.caller(&in.InHeader)
	if !ok {
		return device.Parked
	}
	if in.Flags&unix.O_TRUNC != 0 {
		if status := f.truncate(in.Unique, d, nil, p, 0); status != fuse.OK {
			return status
		}
	}
	h := f.open(d, p)
	out.Fh = h.ID
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}
