package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// control is the name of the control directory, which no lock can have.
const control = ".lockfs"

// maxName is the longest name, in bytes.
const maxName = 255

// Lookup finds a name: there is one exactly while the lock is held.
func (f *FS) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir := f.nodes.get(in.NodeId)
	if dir == nil || !dir.Dir {
		return errStale
	}
	if len(name) > maxName {
		return errName
	}
	if status := f.permit(in, dir, maySearch); status != fuse.OK {
		return status
	}
	key := lockspace.Key{Dir: dir.ID, Name: name}
	if !f.table.Held(key) {
		return fuse.ENOENT
	}
	d := f.nodes.make(key, in.Uid, in.Gid, f.clock.Now())
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

// Forget takes the kernel's references to a node back.
func (f *FS) Forget(id, count uint64) {
	if d := f.nodes.get(id); d != nil {
		f.nodes.forget(d, count)
	}
}

// OpenDir opens a directory for listing.
func (f *FS) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	return f.permit(&in.InHeader, f.nodes.get(in.NodeId), mayRead)
}

// Offsets of a directory: where reading goes on after an entry.
const (
	afterDot    = 1
	afterDotDot = 2
	// A name's offset is its place in the table's listing, above these.
	firstPlace = 2
)

// ReadDir lists what is held. A name that is held all the time is listed
// exactly once, whatever else comes and goes meanwhile.
func (f *FS) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir := f.nodes.get(in.NodeId)
	if dir == nil || !dir.Dir {
		return errStale
	}
	if in.Offset < afterDot && !out.AddDirEntry(fuse.DirEntry{Name: ".", Ino: dir.ID, Mode: unix.S_IFDIR, Off: afterDot}) {
		return fuse.OK
	}
	if in.Offset < afterDotDot && !out.AddDirEntry(fuse.DirEntry{Name: "..", Ino: dir.ID, Mode: unix.S_IFDIR, Off: afterDotDot}) {
		return fuse.OK
	}
	after := max(in.Offset, firstPlace) - firstPlace
	f.table.List(dir.ID, after, func(place uint64, name string) bool {
		e := fuse.DirEntry{Name: name, Mode: unix.S_IFREG, Off: place + firstPlace}
		if d := f.nodes.lookup(lockspace.Key{Dir: dir.ID, Name: name}); d != nil {
			e.Ino = d.ID
		}
		return out.AddDirEntry(e)
	})
	return fuse.OK
}

// ReleaseDir has nothing to do: an open directory has no state.
func (f *FS) ReleaseDir(*fuse.ReleaseIn) {}

// FsyncDir has nothing to do.
func (f *FS) FsyncDir(<-chan struct{}, *fuse.FsyncIn) fuse.Status { return fuse.OK }

// StatFs says what df(1) can show: there is no room to fill.
func (f *FS) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	_, holds, _ := f.table.Len()
	*out = fuse.StatfsOut{NameLen: maxName, Bsize: blockSize, Frsize: blockSize, Files: uint64(holds)}
	return fuse.OK
}
