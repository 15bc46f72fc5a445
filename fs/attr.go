package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

const (
	blockSize = 4096
	// lockMode is what a lock without an entry shows: its directory decides.
	lockMode = unix.S_IFREG | 0o666
)

// attr fills in what stat(2) shows of a node.
func (f *FS) attr(d *node, out *fuse.Attr) {
	x := d.file
	*out = fuse.Attr{Ino: x.Ino, Nlink: 1, Mode: lockMode, Blksize: blockSize}
	if x.body != nil {
		out.Size = uint64(len(x.body.Data))
		out.Blocks = (out.Size + 511) / 512
	}
	if d.foreign != nil {
		d.foreignAttr(out)
		return
	}
	if d.File == 0 {
		f.lockAttr(d, out)
		return
	}
	out.Owner = fuse.Owner{Uid: x.UID, Gid: x.GID}
	out.Mtime, out.Mtimensec = seconds(x.Modified)
	out.Atime, out.Atimensec = seconds(x.Accessed)
	out.Ctime, out.Ctimensec = seconds(x.Changed)
	out.Mode = x.fileType() | x.Mode
	out.Nlink = x.linkCount()
	switch x.Kind {
	case symlink:
		out.Size = uint64(len(x.Target))
	case regular:
		if f.nodes.lookup(d.key) == d && f.entry(d.key) == nil && f.table.Held(d.key) {
			out.Nlink++ // a name that is there because it is held
		}
	}
}

// lockAttr fills in what stat(2) shows of a lock without a name of its own: the
// holder's user and group, and when it was taken or last renewed; of several
// holders those of the latest.
func (f *FS) lockAttr(d *node, out *fuse.Attr) {
	owner, mtime := fuse.Owner{Uid: d.UID, Gid: d.GID}, d.Made
	if h := f.table.Latest(d.key); h != nil {
		p := f.holder(h)
		owner, mtime = fuse.Owner{Uid: p.UID, Gid: p.GID}, h.LastRenewal()
	}
	out.Owner = owner
	out.Mtime, out.Mtimensec = seconds(mtime)
	out.Atime, out.Atimensec = out.Mtime, out.Mtimensec
	out.Ctime, out.Ctimensec = out.Mtime, out.Mtimensec
}

// seconds splits a time, which may be before 1970: the nanoseconds count upwards
// even so.
func seconds(i lockspace.Instant) (sec uint64, nsec uint32) {
	s, ns := i.Wall/1e9, i.Wall%1e9
	if ns < 0 {
		s, ns = s-1, ns+1e9
	}
	return uint64(s), uint32(ns)
}

// GetAttr answers stat(2) and fstat(2).
func (f *FS) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if isControl(in.NodeId) {
		return f.getControlAttr(in, out)
	}
	d := f.nodes.get(in.NodeId)
	if d == nil {
		return errStale
	}
	f.attr(d, &out.Attr)
	return fuse.OK
}

// SetAttr answers chmod, chown, truncate and utimes.
func (f *FS) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if isControl(in.NodeId) {
		return f.setControlAttr(in, out)
	}
	d := f.nodes.get(in.NodeId)
	if d == nil {
		return errStale
	}
	var status fuse.Status
	switch {
	case d.foreign != nil || d.file.Foreign:
		status = f.setForeignAttr(d, in)
	case d.file.Kind == directory, f.hasMode(d):
		status = f.setFileAttr(d, in)
	default:
		status = f.setLockAttr(d, in)
	}
	if status != fuse.OK {
		return status
	}
	f.attr(d, &out.Attr)
	return fuse.OK
}

// setFileAttr changes what has permission bits of its own: its owner and root
// may, and who may write to it may truncate it and set its times to now.
func (f *FS) setFileAttr(d *node, in *fuse.SetAttrIn) fuse.Status {
	x := d.file
	mode, uid, gid := x.Mode, x.UID, x.GID
	if m, ok := in.GetMode(); ok {
		mode = m & x.modeBits()
	}
	if u, ok := in.GetUID(); ok {
		uid = u
	}
	if g, ok := in.GetGID(); ok {
		gid = g
	}
	const owners = fuse.FATTR_MODE | fuse.FATTR_UID | fuse.FATTR_GID
	const times = fuse.FATTR_MTIME | fuse.FATTR_ATIME
	const toNow = fuse.FATTR_MTIME_NOW | fuse.FATTR_ATIME_NOW
	isOwner := in.Caller.Uid == 0 || in.Caller.Uid == x.UID
	if in.Valid&owners != 0 && !isOwner {
		return fuse.EPERM
	}
	if in.Caller.Uid != 0 && uid != x.UID {
		return fuse.EPERM
	}
	toSetGID := in.Valid&fuse.FATTR_MODE != 0 && mode&unix.S_ISGID != 0
	if in.Caller.Uid != 0 && (gid != x.GID || toSetGID) {
		switch member, status := f.isMember(&in.InHeader, gid); {
		case status != fuse.OK:
			return status
		case !member && gid != x.GID:
			return fuse.EPERM
		case !member:
			mode &^= unix.S_ISGID
		}
	}
	if in.Valid&times != 0 && !isOwner {
		if in.Valid&toNow != toNow {
			return fuse.EPERM // one of them is given, or stays
		}
		if status := f.permitFile(&in.InHeader, x, mayWrite); status != fuse.OK {
			return status
		}
	}
	if size, ok := in.GetSize(); ok && x.Kind == regular {
		if status := f.resize(d, in, size); status != fuse.OK {
			return status
		}
	}
	x.Mode, x.UID, x.GID = mode, uid, gid
	if in.Valid&(times|toNow) != 0 {
		f.setTimes(x, in)
		f.renewBy(d, in)
	}
	const about = fuse.FATTR_FH | fuse.FATTR_LOCKOWNER
	if in.Valid&(owners|times|toNow) != 0 || in.Valid&^about == 0 { // chown(2) of nothing
		f.changed(x)
		f.wroteFile(x)
	}
	return fuse.OK
}

// setLockAttr truncates a body. Mode and owner of a lock are not its own, so
// chmod and chown by who might do so elsewhere change nothing; times follow
// the hold, which touch(1) renews.
func (f *FS) setLockAttr(d *node, in *fuse.SetAttrIn) fuse.Status {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 && in.Caller.Uid != 0 {
		if h := f.table.Latest(d.key); h != nil && f.holder(h).UID != in.Caller.Uid {
			return fuse.EPERM
		}
	}
	if in.Valid&(fuse.FATTR_MTIME|fuse.FATTR_MTIME_NOW) != 0 {
		f.renewBy(d, in)
	}
	size, ok := in.GetSize()
	if !ok {
		return fuse.OK
	}
	return f.resize(d, in, size)
}

// resize answers truncate(2) and ftruncate(2).
func (f *FS) resize(d *node, in *fuse.SetAttrIn, size uint64) fuse.Status {
	var h *handle
	if fh, ok := in.GetFh(); ok {
		h = f.handles[fh]
	}
	if h != nil && h.gone() != fuse.OK {
		return h.gone()
	}
	if h == nil {
		// By path; through a descriptor open(2) has checked it.
		if status := f.permitOpen(&in.InHeader, d, unix.O_WRONLY); status != fuse.OK {
			return status
		}
	}
	p, ok := f.caller(&in.InHeader)
	if !ok {
		return device.Parked
	}
	status := f.truncate(in.Unique, d, h, p, size)
	if status == fuse.OK && size == 0 && h != nil {
		f.truncateLater(h)
	}
	return status
}
