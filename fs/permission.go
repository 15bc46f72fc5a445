package fs

import (
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockspace"
)

// Permission, checked here on every request (the kernel is not asked to): the
// directory's bits decide about its locks, free or held.

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
		info, looked := f.facts.known(in.Pid)
		if !looked {
			return f.lookUpProcess(in.Unique, in.Pid)
		}
		ok = asOther
		if info != nil && slices.Contains(info.Groups, x.GID) {
			ok = asGroup
		}
	}
	if !ok {
		return fuse.EACCES
	}
	return fuse.OK
}

// allows reports whether the lowest three bits of mode have all of want.
func allows(mode, want uint32) bool { return mode&want == want }

// mayEnd reports whether the user of a request may end a hold that is not his
// process's: the holder's user, the directory's owner and root may (restricted
// deletion, as with a sticky bit).
func (f *FS) mayEnd(in *fuse.InHeader, dir *node, h *lockspace.Hold) bool {
	return in.Uid == 0 || in.Uid == dir.file.UID || in.Uid == f.holder(h).UID
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
	if f.hasMode(d) {
		if in.Mask&fuse.X_OK != 0 && d.file.Mode&0o111 == 0 {
			return fuse.EACCES // for root too
		}
		return f.permitFile(&in.InHeader, d.file, in.Mask&7)
	}
	if in.Mask&fuse.X_OK != 0 {
		return fuse.EACCES
	}
	return f.permit(&in.InHeader, f.nodes.get(d.Parent), in.Mask&(mayRead|mayWrite))
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
		return false
	}
	parent := f.nodes.get(d.Parent)
	return parent == nil || parent.file.holdsByName()
}

// permitOpen checks that the caller of a request may open a file.
func (f *FS) permitOpen(in *fuse.InHeader, d *node, flags uint32) fuse.Status {
	if f.hasMode(d) {
		return f.permitFile(in, d.file, wanted(flags))
	}
	return f.permit(in, f.nodes.get(d.Parent), wanted(flags))
}
