package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Directories that somebody outside has made. He holds their names, as those of
// anything else that he makes where names hold: making one here is EEXIST, removing or
// renaming it EBUSY, and so are chmod and chown. And whoever may can use the locks in
// one, here and outside, as the tools do that keep theirs in a directory of the one
// that the mount covers.
//
// So one has an entry and a file as other directories here have, from when it is first
// looked up, with the owner and mode that it has outside and its parent's policy. When
// it is looked up again, it is looked at outside again. When it is gone there, it is here
// too, if nothing is in it; and when the kernel has forgotten it, see foreignleave.go.

// enterForeign makes a directory of what somebody outside has made at a place.
func (f *FS) enterForeign(at place, s *mirror.Outside) *node {
	x := f.newFile(at.dir.file, directory, 0, s.UID, s.GID)
	x.Foreign = true
	x.become(s)
	x.Policy = at.dir.file.Policy.inherited()
	f.applyPolicy(x)
	e := f.enterAs(at.key, x)
	f.staysGone(at.key, e) // it may have been forgotten since it was looked at
	return f.nodes.of(e)
}

// become makes x what s says, and reports whether it was something else.
func (x *file) become(s *mirror.Outside) bool {
	mode := s.Mode & x.modeBits()
	changed := x.Mode != mode || x.UID != s.UID || x.GID != s.GID
	x.Mode, x.UID, x.GID = mode, s.UID, s.GID
	return changed
}

// looked is what is found of a name outside.
type looked struct {
	at  *mirror.Outside // nil: there is nothing
	err error
}

// lookAgain looks again at a directory of which it is known that somebody outside had
// made it. Its entry is gone then if the directory is. known is false if the request
// takes a detour to find out.
func (f *FS) lookAgain(in *fuse.InHeader, e *entry) (known bool) {
	x, k := e.file, e.key()
	ops := f.makerOf(k.Dir)
	if ops == nil { // nothing is outside any more
		f.dropForeign(e)
		return true
	}
	if f.facts == nil || f.facts.looked == nil {
		path, err := f.outsidePath(k)
		if err != nil {
			return true
		}
		known := f.knownName(k)
		f.lookUpWhere(in.Unique, 0, f.mirror.at(k.Dir).mayHang(), func(found *facts) {
			at, err := ops.Look(path, known)
			found.looked = &looked{at, err}
		})
		return false
	}
	switch l := f.facts.looked; {
	case l.err != nil: // it stays what it is
	case l.at == nil || l.at.Mode&unix.S_IFMT != unix.S_IFDIR:
		f.dropForeign(e)
		f.staysGone(k, e)
	default:
		if x.looks++; x.become(l.at) {
			f.changed(x)
		}
	}
	return true
}

// dropForeign removes the entry of a directory that is not outside any more, unless
// there is something in it.
func (f *FS) dropForeign(e *entry) {
	if f.isEmpty(e.file) {
		f.removeEntry(e)
	}
}

// staysGone says, of a directory that is not outside any more, that it is not to be
// made there for what is asked for in it: if it is here yet.
func (f *FS) staysGone(k lockspace.Key, e *entry) {
	if e == nil || f.entry(k) != e || e.file.Kind != directory {
		return
	}
	if path, err := f.outsidePath(k); err == nil {
		if ops := f.makerOf(k.Dir); ops != nil {
			ops.Know(mirror.MadeName{Path: path})
		}
	}
}

// knowForeign tells of those directories that there are here what makes names beside
// them.
func (f *FS) knowForeign() {
	for _, d := range f.nodes.byID {
		if d.file.Foreign && len(d.file.entries) > 0 {
			e := d.file.entries[0]
			f.staysGone(e.key(), e)
		}
	}
}

// listsForeign reports whether a directory is listed when its parent is, as others:
// of one in which there is nothing it is looked whether it is there.
func (f *FS) listsForeign(x *file) bool { return !x.Foreign || !f.isEmpty(x) }

// lookAgainAt is lookAgain at a name, if there is such a directory.
func (f *FS) lookAgainAt(in *fuse.InHeader, e *entry) fuse.Status {
	if e != nil && e.file.Foreign && !f.lookAgain(in, e) {
		return device.Parked
	}
	return fuse.OK
}
