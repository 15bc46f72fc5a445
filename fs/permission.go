package fs

import (
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Permission, checked here on every request (the kernel is not asked to). The
// directory's bits decide about its locks, free or held, and where names hold a
// file's own about the file.

// Bits of access, as in a mode.
const (
	maySearch = 1
	mayWrite  = 2
	mayRead   = 4
)

// permit checks that the caller of a request may do what want says in dir: OK,
// EACCES, or Parked for a detour to the caller's supplementary groups.
func (f *FS) permit(in *fuse.InHeader, dir *node, want uint32) fuse.Status {
	if dir == nil {
		return errStale
	}
	return f.permitFile(in, dir.file, want)
}

// permitFile is permit for a file or directory with permission bits of its own.
func (f *FS) permitFile(in *fuse.InHeader, x *file, want uint32) fuse.Status {
	var ok bool
	switch asGroup, asOther := allows(x.Mode>>3, want), allows(x.Mode, want); {
	case in.Uid == 0:
		ok = true
	case in.Uid == x.UID:
		ok = allows(x.Mode>>6, want)
	case in.Gid == x.GID:
		ok = asGroup
	case asGroup == asOther || in.Pid == 0:
		// The groups make no difference, or cannot be looked up.
		ok = asGroup && asOther
	default:
		member, status := f.isMember(in, x.GID)
		if status != fuse.OK {
			return status
		}
		ok = asOther
		if member {
			ok = asGroup
		}
	}
	if !ok {
		return fuse.EACCES
	}
	return fuse.OK
}

// isMember reports whether the caller of a request is in a group. The status is
// OK, or Parked for a detour to his supplementary groups. Those of a process out
// of sight cannot be looked up: it is in none.
func (f *FS) isMember(in *fuse.InHeader, gid uint32) (bool, fuse.Status) {
	if in.Gid == gid {
		return true, fuse.OK
	}
	if in.Pid == 0 {
		return false, fuse.OK
	}
	info, looked := f.facts.known(in.Pid)
	if !looked {
		return false, f.lookUpProcess(in.Unique, in.Pid)
	}
	return info != nil && slices.Contains(info.Groups, gid), fuse.OK
}

// allows reports whether the lowest three bits of mode have all of want.
func allows(mode, want uint32) bool { return mode&want == want }

// mayEnd reports whether the user of a request may end a hold that is not his
// process's: the holder's user, the directory's owner and root may (restricted
// deletion, as with a sticky bit). So may the owner of a file with a mode of its
// own that somebody has locked: to read it is enough to do that, and must not
// keep anybody from removing what is his.
func (f *FS) mayEnd(in *fuse.InHeader, dir *node, h *lockspace.Hold) bool {
	if in.Uid == 0 || in.Uid == dir.file.UID || in.Uid == f.holder(h).UID {
		return true
	}
	d := f.nodes.get(h.Party.File)
	return !h.ByName && d != nil && f.hasMode(d) && in.Uid == d.file.UID
}

// Access answers access(2).
func (f *FS) Access(_ <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	if isControl(in.NodeId) {
		return f.accessControl(in)
	}
	d := f.nodes.get(in.NodeId)
	if d == nil {
		return errStale
	}
	if d.file.Kind == directory {
		return f.permit(&in.InHeader, d, in.Mask&7)
	}
	if in.Mask&fuse.X_OK != 0 && (!f.hasMode(d) || d.file.Mode&0o111 == 0) {
		return fuse.EACCES // for root too
	}
	return f.permitUse(&in.InHeader, d, in.Mask&7)
}

// policyOf returns the policy of the lockspace that a node is in.
func (f *FS) policyOf(d *node) *Policy {
	if dir := f.nodes.get(d.Parent); dir != nil {
		return &dir.file.Policy
	}
	return new(Policy) // it has been removed
}

// hasMode reports whether permission bits of its own decide about a file: in a
// lockspace whose names hold. Elsewhere the directory's do.
func (f *FS) hasMode(d *node) bool {
	if d.File == 0 {
		return d.foreign != nil
	}
	parent := f.nodes.get(d.Parent)
	return parent == nil || parent.file.holdsByName()
}

// permitOpen checks that the caller of a request may open a file.
func (f *FS) permitOpen(in *fuse.InHeader, d *node, flags uint32) fuse.Status {
	if f.hasMode(d) && flags&fuse.FMODE_EXEC != 0 { // execve(2)
		return f.permitUse(in, d, maySearch)
	}
	return f.permitUse(in, d, wanted(flags))
}

// permitUse checks that the caller of a request may do what want says with a
// file. Where the directory decides, a file that comes from where it had a mode
// keeps that too: nobody gets at another's by renaming it.
func (f *FS) permitUse(in *fuse.InHeader, d *node, want uint32) fuse.Status {
	if d.File != 0 || d.foreign != nil {
		if status := f.permitFile(in, d.file, want); status != fuse.OK || f.hasMode(d) {
			return status
		}
	}
	return f.permit(in, f.nodes.get(d.Parent), want)
}

// permitLock checks that the caller of a request may lock d through an open
// file. For a file with a mode of its own that is all it takes, as anywhere; the
// kernel sees to it that a write lock of fcntl(2) comes from a descriptor that can
// write. Otherwise a lock is taken by writing to the directory, whatever the
// descriptor was opened for: flock(1) opens for reading.
//
// The lock is the name's. Of a file that has lost its name it is that of what
// comes after it, and the old file's mode says nothing about that.
func (f *FS) permitLock(in *fuse.InHeader, d *node) fuse.Status {
	if f.hasMode(d) && d.foreign == nil && f.nodes.lookup(d.key) == d {
		return fuse.OK
	}
	return f.permit(in, f.nodes.get(d.Parent), mayWrite)
}

// permitLink checks that the caller of a request may give d another name: EPERM
// unless it is his, or he may read and write it, as elsewhere with
// fs.protected_hardlinks. (The kernel leaves the question to the filesystem.)
// What others hold by an open file is not for everybody to name, or to write to
// by another name.
func (f *FS) permitLink(in *fuse.InHeader, d *node) fuse.Status {
	if in.Uid == 0 {
		return fuse.OK
	}
	his := d.File != 0 && in.Uid == d.file.UID
	if !f.hasMode(d) {
		for h := range f.table.Holds(d.key) {
			if f.holder(h).UID != in.Uid {
				return fuse.EPERM
			}
			his = true
		}
	}
	switch {
	case his:
		return fuse.OK
	case d.file.Kind != regular:
		return fuse.EPERM
	}
	status := f.permitOpen(in, d, unix.O_RDWR)
	if status == fuse.EACCES {
		return fuse.EPERM
	}
	return status
}
