package fs

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// maxName is the longest name, in bytes.
const maxName = 255

// checkName says what is wrong with a name that no directory can have.
func checkName(name string) fuse.Status {
	switch {
	case name == "":
		return fuse.EINVAL // the kernel sends none
	case len(name) > maxName:
		return errName
	}
	return fuse.OK
}

// Lookup finds a name, which is there while it is held, and while it has an
// entry. The control directory is there always.
func (f *FS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if isControl(in.NodeId) {
		return f.lookupControl(in, name, out)
	}
	dir := f.nodes.dir(in.NodeId)
	if dir == nil {
		return errStale
	}
	if status := checkName(name); status != fuse.OK {
		return status
	}
	if status := f.permit(in, dir, maySearch); status != fuse.OK {
		return status
	}
	if name == controlName {
		f.enterControl(controlNode{controlEntry: &theControlDir, about: dir}, out)
		return fuse.OK
	}
	key := lockspace.Key{Dir: dir.ID, Name: name}
	if status := f.lookAgainAt(in, f.entry(key)); status != fuse.OK {
		return status
	}
	d := f.find(key, in)
	if d == nil {
		switch held, known := f.heldOutside(in.Unique, key); {
		case !known:
			return device.Parked
		case !held:
			f.noteMiss(in, key)
			return fuse.ENOENT
		}
		switch s := f.madeOutside(); {
		case s == nil:
			d = f.lockNode(key, in.Uid, in.Gid)
		case s.Mode&unix.S_IFMT == unix.S_IFDIR:
			d = f.enterForeign(place{dir: dir, name: name, key: key}, s)
		default:
			d = f.foreignNode(key, s)
		}
	}
	f.noteUse(in, key)
	f.enter(d, out)
	return fuse.OK
}

// enter answers with a node. Nothing is cached by the kernel: the next moment
// it may be different.
func (f *FS) enter(d *node, out *fuse.EntryOut) {
	f.nodes.entered(d)
	out.NodeId = d.ID
	out.Generation = 1
	f.attr(d, &out.Attr)
}

// Forget takes the kernel's references to a node back. Of those to control nodes
// only the ones to what is in lock/NAME are counted.
func (f *FS) Forget(id, count uint64) {
	if isControl(id) {
		f.forgetControl(id, count)
		return
	}
	if d := f.nodes.get(id); d != nil {
		f.forget(d, count)
	}
}

// OpenDir opens a directory for listing.
func (f *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if isControl(in.NodeId) {
		fh, status := f.openControl(in)
		out.Fh = fh
		return status
	}
	dir := f.nodes.dir(in.NodeId)
	if status := f.permit(&in.InHeader, dir, mayRead); status != fuse.OK {
		return status
	}
	h := f.open(dir, lockspace.Process{Pid: in.Pid, UID: in.Uid, GID: in.Gid})
	out.Fh = h.ID
	return fuse.OK
}

// Offsets of a directory: where reading goes on after an entry.
const (
	afterDot    = 1
	afterDotDot = 2
	// An entry's offset is its number, above these; that of a name that is
	// there because it is held, its place in the table's listing, above those. One
	// that is held outside has its number among these.
	firstPlace    = 2
	firstHeld     = 1 << 62
	firstStranger = firstHeld | 1<<61
)

// ReadDir lists what has an entry, then what is there because it is held, and then
// what is held outside. A
// name that is there all the time, in the one way or the other, is listed exactly
// once, whatever else comes and goes meanwhile. What comes after the beginning is
// left out: a name that is given back and taken again all the time would be listed
// for ever.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if isControl(in.NodeId) {
		return f.readControlDir(in, out)
	}
	dir := f.nodes.dir(in.NodeId)
	if dir == nil {
		return errStale
	}
	strangers, known := f.strangersIn(in, dir)
	if !known {
		return device.Parked
	}
	end, lastEntry := uint64(math.MaxUint64), uint64(math.MaxUint64)
	if h := f.handles[in.Fh]; h != nil {
		if in.Offset == 0 {
			h.ListTo, h.EntriesTo = f.table.LastListed(dir.ID), f.lastEntry
			f.journal.PutHandle(&h.HandleRecord)
		}
		end, lastEntry = h.ListTo, h.EntriesTo
	}
	if in.Offset < afterDot && !out.AddDirEntry(fuse.DirEntry{Name: ".", Ino: dir.ID, Mode: unix.S_IFDIR, Off: afterDot}) {
		return fuse.OK
	}
	if in.Offset < afterDotDot && !out.AddDirEntry(fuse.DirEntry{Name: "..", Ino: max(dir.Parent, rootDir), Mode: unix.S_IFDIR, Off: afterDotDot}) {
		return fuse.OK
	}
	if in.Offset < firstHeld {
		after := max(in.Offset, firstPlace) - firstPlace
		for place, e := range dir.file.content.order.After(after) {
			if place > lastEntry {
				break
			}
			x := e.file
			if !f.listsForeign(x) {
				continue // it is among the strangers if it is there
			}
			if !out.AddDirEntry(fuse.DirEntry{Name: e.Name, Ino: x.Ino, Mode: x.fileType(), Off: place + firstPlace}) {
				return fuse.OK
			}
		}
	}
	if in.Offset < firstStranger && !f.listHeld(dir, in.Offset, end, out) {
		return fuse.OK
	}
	for i := max(in.Offset, firstStranger) - firstStranger; i < uint64(len(strangers)); i++ {
		k := lockspace.Key{Dir: dir.ID, Name: strangers[i].Name}
		if !f.isListed(k) && !out.AddDirEntry(fuse.DirEntry{Name: k.Name, Mode: strangers[i].shown(), Off: firstStranger + i + 1}) {
			break
		}
	}
	return fuse.OK
}

// isListed reports whether a name is listed for what it is on the mount.
func (f *FS) isListed(k lockspace.Key) bool {
	e := f.entry(k)
	return f.table.Held(k) || e != nil && f.listsForeign(e.file)
}

// listHeld lists what is there because it is held, up to a place. It reports whether
// there was room for all of it.
func (f *FS) listHeld(dir *node, from, end uint64, out *fuse.DirEntryList) (all bool) {
	all = true
	f.table.List(dir.ID, max(from, firstHeld)-firstHeld, func(place uint64, name string) bool {
		if place > end {
			return false
		}
		if dir.file.content.byName[name] != nil {
			return true // listed above
		}
		e := fuse.DirEntry{Name: name, Mode: unix.S_IFREG, Off: place + firstHeld}
		if d := f.nodes.lookup(lockspace.Key{Dir: dir.ID, Name: name}); d != nil {
			e.Ino = d.file.Ino
		}
		all = out.AddDirEntry(e)
		return all
	})
	return all
}

// ReleaseDir ends a listing.
func (f *FS) ReleaseDir(in *fuse.ReleaseIn) { f.close(in.Fh) }

// FsyncDir has nothing to do.
func (f *FS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// StatFs says what df(1) can show: there is no room to fill.
func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	_, holds, _ := f.table.Len()
	*out = fuse.StatfsOut{NameLen: maxName, Bsize: blockSize, Frsize: blockSize, Files: uint64(holds)}
	return fuse.OK
}
