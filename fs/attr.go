package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

const (
	blockSize = 4096
	// lockMode is what every lock shows: its directory decides.
	lockMode = unix.S_IFREG | 0o666
)

// attr fills in what stat(2) shows of a node. Of a held lock: the holder's
// user and group, and when it was taken; of several holders the latest.
func (f *FS) attr(d *node, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino:     d.ID,
		Nlink:   1,
		Mode:    lockMode,
		Owner:   fuse.Owner{Uid: d.UID, Gid: d.GID},
		Blksize: blockSize,
	}
	since := d.Made
	switch {
	case d.Dir:
		out.Mode = unix.S_IFDIR | d.Mode
		out.Nlink = 2
	default:
		if d.body != nil {
			out.Size = uint64(len(d.body.Data))
			out.Blocks = (out.Size + 511) / 512
		}
		if h := f.table.Latest(d.key); h != nil {
			p := f.holder(h)
			out.Owner = fuse.Owner{Uid: p.UID, Gid: p.GID}
			since = h.Since
		}
	}
	out.Mtime, out.Mtimensec = seconds(since)
	out.Atime, out.Atimensec = out.Mtime, out.Mtimensec
	out.Ctime, out.Ctimensec = out.Mtime, out.Mtimensec
}

func seconds(i lockspace.Instant) (sec uint64, nsec uint32) {
	return uint64(i.Wall / 1e9), uint32(i.Wall % 1e9)
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
		return f.setControlAttr(in)
	}
	d := f.nodes.get(in.NodeId)
	if d == nil {
		return errStale
	}
	var status fuse.Status
	if d.Dir {
		status = f.setDirAttr(d, in)
	} else {
		status = f.setLockAttr(d, in)
	}
	if status != fuse.OK {
		return status
	}
	f.attr(d, &out.Attr)
	return fuse.OK
}

// setDirAttr changes a directory's permissions: its owner and root may.
func (f *FS) setDirAttr(d *node, in *fuse.SetAttrIn) fuse.Status {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) == 0 {
		return fuse.OK // times are not kept
	}
	if in.Caller.Uid != 0 && in.Caller.Uid != d.UID {
		return fuse.EPERM
	}
	mode, uid, gid := d.Mode, d.UID, d.GID
	if m, ok := in.GetMode(); ok {
		mode = m & 0o777 // no sticky bit, see the package comment
	}
	if u, ok := in.GetUID(); ok {
		uid = u
	}
	if g, ok := in.GetGID(); ok {
		gid = g
	}
	if in.Caller.Uid != 0 && (uid != d.UID || gid != d.GID && gid != in.Caller.Gid) {
		return fuse.EPERM
	}
	d.Mode, d.UID, d.GID = mode, uid, gid
	f.journal.PutNode(&d.NodeRecord)
	return fuse.OK
}

// setLockAttr truncates a body. Mode and owner of a lock are not its own, so
// chmod and chown by who might do so elsewhere change nothing; times follow
// the hold.
func (f *FS) setLockAttr(d *node, in *fuse.SetAttrIn) fuse.Status {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 && in.Caller.Uid != 0 {
		if h := f.table.Latest(d.key); h != nil && f.holder(h).UID != in.Caller.Uid {
			return fuse.EPERM
		}
	}
	size, ok := in.GetSize()
	if !ok {
		return fuse.OK
	}
	var h *handle
	if fh, ok := in.GetFh(); ok {
		h = f.handles[fh]
	}
	if h != nil && h.Stale {
		return errStale
	}
	if h == nil {
		// By path; through a descriptor open(2) has checked it.
		if status := f.permit(&in.InHeader, f.nodes.get(d.Parent), mayWrite); status != fuse.OK {
			return status
		}
	}
	p, ok := f.caller(&in.InHeader)
	if !ok {
		return device.Parked
	}
	return f.truncate(in.Unique, d, h, p, size)
}
