package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// What takes a lock by making a name for something (design 1.2): link, symlink,
// mkdir, and rename that replaces nothing. The name holds until it is removed.

// place is a name in a directory that a request wants to change.
type place struct {
	dir  *node
	name string
	key  lockspace.Key
}

// named returns the place that a request to change it names, whoever the caller is.
func (f *FS) named(in *fuse.InHeader, dir uint64, name string) (place, fuse.Status) {
	if isControl(dir) {
		return place{}, fuse.EACCES
	}
	d := f.nodes.dir(dir)
	if d == nil {
		return place{}, errStale
	}
	if status := checkName(name); status != fuse.OK {
		return place{}, status
	}
	if d.file.isRemoved() {
		return place{}, fuse.ENOENT
	}
	key := lockspace.Key{Dir: d.ID, Name: name}
	f.noteUse(in, key)
	return place{d, name, key}, fuse.OK
}

// placeOf is named for a caller who may change the directory.
func (f *FS) placeOf(in *fuse.InHeader, dir uint64, name string) (place, fuse.Status) {
	at, status := f.named(in, dir, name)
	if status == fuse.OK {
		status = f.permit(in, at.dir, mayWrite|maySearch)
	}
	return at, status
}

// freePlaceOf is placeOf for something new.
func (f *FS) freePlaceOf(in *fuse.InHeader, dir uint64, name string) (place, fuse.Status) {
	at, status := f.placeOf(in, dir, name)
	switch {
	case status != fuse.OK:
		return at, status
	case name == controlName:
		return at, fuse.EPERM
	case f.exists(at.key):
		return at, fuse.Status(unix.EEXIST)
	}
	return at, fuse.OK
}

// takeByName takes the lock of a free name of a file for as long as the name is
// there; handle is the open file that made it, 0 for none. The status is OK, or
// why not, or Parked for a detour. At the end of the mount it is ENOLCK: what is to be
// kept is written down by then, and who takes a name after that would lose it.
func (f *FS) takeByName(in *fuse.InHeader, k lockspace.Key, via lockspace.Via, x *file, handle uint64) fuse.Status {
	if f.closing {
		return fuse.Status(unix.ENOLCK)
	}
	p, ok := f.caller(in)
	if !ok {
		return device.Parked
	}
	if f.nodes.get(k.Dir).file.Policy.reap == reapCreator && p.Pid != 0 {
		switch started := f.facts.started(p.Pid); started {
		case 0:
			return f.lookUpProcess(in.Unique, p.Pid)
		case never: // it cannot be looked at, so it cannot be watched
		default:
			p.Started = started
		}
	}
	f.makes(in.Unique, x)
	return f.makeOutside(in.Unique, f.tryOne(lockspace.Request{
		Key:    k,
		Party:  lockspace.Party{Handle: handle, File: x.Ino, Taker: p, Opener: p, Opened: f.clock.Now()},
		Via:    via,
		ByName: true,
		Thread: in.Pid,
	}))
}

// Link gives a file another name, and takes its lock. EPERM: directories have
// one name; and what is another's is not for everybody to name, see permitLink.
func (f *FS) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	at, status := f.freePlaceOf(&in.InHeader, in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	d := f.nodes.get(in.Oldnodeid)
	switch {
	case isControl(in.Oldnodeid):
		return fuse.EPERM
	case d == nil:
		return errStale
	case d.file.Kind == directory:
		return fuse.EPERM
	case d.foreign != nil:
		return fuse.EBUSY
	}
	if status := f.permitLink(&in.InHeader, d); status != fuse.OK {
		return status
	}
	if status := f.takeByName(&in.InHeader, at.key, lockspace.ViaLink, d.file, 0); status != fuse.OK {
		return status
	}
	f.enter(f.nodes.of(f.enterAs(at.key, f.promote(d))), out)
	return fuse.OK
}

// Symlink makes a symbolic link, and takes its lock.
func (f *FS) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	at, status := f.freePlaceOf(in, in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	if len(target) > maxBody {
		return errName
	}
	x := f.newFile(at.dir.file, symlink, 0o777, in.Uid, in.Gid)
	x.Target = target
	if status := f.takeByName(in, at.key, lockspace.ViaSymlink, x, 0); status != fuse.OK {
		return status
	}
	f.enter(f.nodes.of(f.enterAs(at.key, x)), out)
	return fuse.OK
}

// Readlink returns the text of a symbolic link.
func (f *FS) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	switch d := f.nodes.get(in.NodeId); {
	case d == nil:
		return nil, errStale
	case d.file.Kind != symlink:
		return nil, fuse.EINVAL
	default:
		return []byte(d.file.Target), fuse.OK
	}
}

// Mkdir makes a directory, which is a lockspace with its parent's policy, and
// takes its lock.
func (f *FS) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if isControl(in.NodeId) {
		return f.makeOwner(&in.InHeader, name, out)
	}
	at, status := f.freePlaceOf(&in.InHeader, in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	x := f.newFile(at.dir.file, directory, in.Mode, in.Uid, in.Gid)
	if status := f.takeByName(&in.InHeader, at.key, lockspace.ViaMkdir, x, 0); status != fuse.OK {
		return status
	}
	x.Policy = at.dir.file.Policy.inherited()
	f.applyPolicy(x)
	f.enter(f.nodes.of(f.enterAs(at.key, x)), out)
	return fuse.OK
}

// Rmdir removes an empty directory, and ends its hold as Unlink does.
func (f *FS) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if isControl(in.NodeId) {
		return f.removeOwner(in, name)
	}
	at, status := f.placeOf(in, in.NodeId, name)
	if status != fuse.OK {
		return status
	}
	e := f.entry(at.key)
	switch {
	case name == controlName:
		return fuse.EPERM
	case e == nil && !f.table.Held(at.key):
		return f.removeStrangers(in.Unique, at.key)
	case e == nil || e.file.Kind != directory:
		return fuse.ENOTDIR
	case e.file.Foreign:
		return fuse.Status(unix.EBUSY)
	case !f.isEmpty(e.file):
		return fuse.Status(unix.ENOTEMPTY)
	}
	if status := f.permitEnd(in, at); status != fuse.OK {
		return status
	}
	if status := f.vacantOutside(in.Unique, at.key); status != fuse.OK {
		return status
	}
	f.endHolds(in, at)
	f.removeEntry(e)
	return fuse.OK
}

// isEmpty reports whether a directory has no entries and nothing in it is held.
func (f *FS) isEmpty(x *file) bool {
	return len(x.content.byName) == 0 && f.table.LastListed(x.Ino) == 0
}

// Rename gives what is under a name another one, and the old name's lock back.
// With RENAME_NOREPLACE it takes the new name's lock; without, what is there
// afterwards is an ordinary file that nobody holds, in the place of another such
// file. A directory is held wherever it is. Errors: EBUSY if the new name is
// held; those of Unlink for both names; EACCES without write permission on a
// directory that gets another parent; EINVAL for other flags; of a directory, EBUSY if
// something in it is held outside too, and EXDEV if that is directories only.
func (f *FS) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	if in.Flags&^unix.RENAME_NOREPLACE != 0 {
		return fuse.EINVAL
	}
	from, status := f.placeOf(&in.InHeader, in.NodeId, oldName)
	if status != fuse.OK {
		return status
	}
	to, status := f.placeOf(&in.InHeader, in.Newdir, newName)
	if status != fuse.OK {
		return status
	}
	if oldName == controlName || newName == controlName {
		return fuse.EPERM
	}
	d := f.find(from.key, &in.InHeader)
	if d == nil {
		return f.removeStrangers(in.Unique, from.key)
	}
	status = f.rename(in, from, to, d)
	f.collect(d) // it may have been made for this
	return status
}

// rename is Rename of a node.
func (f *FS) rename(in *fuse.RenameIn, from, to place, d *node) fuse.Status {
	target := f.entry(to.key)
	switch {
	case in.Flags&unix.RENAME_NOREPLACE != 0 && f.exists(to.key):
		return fuse.Status(unix.EEXIST)
	case from.key == to.key || target != nil && target.file == d.file:
		return fuse.OK // as POSIX says
	case target != nil && target.file.Kind == directory && d.file.Kind != directory:
		return fuse.EISDIR
	case target != nil && target.file.Kind != directory && d.file.Kind == directory:
		return fuse.ENOTDIR
	}
	if d.file.Kind == directory && from.dir != to.dir { // ".." in it becomes another
		if !mayRemove(&in.InHeader, from.dir, d.file) {
			return fuse.EPERM
		}
		if status := f.permit(&in.InHeader, d, mayWrite); status != fuse.OK {
			return status
		}
	}
	switch {
	case target != nil && target.file.Kind == directory && !f.isEmpty(target.file):
		return fuse.Status(unix.ENOTEMPTY)
	case f.table.Held(to.key):
		return fuse.EBUSY
	case target != nil && !mayRemove(&in.InHeader, to.dir, target.file):
		return fuse.EPERM
	}
	switch held, known := f.heldOutside(in.Unique, to.key); {
	case !known:
		return device.Parked
	case held && in.Flags&unix.RENAME_NOREPLACE != 0:
		return fuse.Status(unix.EEXIST)
	case held:
		return fuse.EBUSY
	}
	if d.file.Kind == directory {
		return f.renameDirectory(in, from, to, d, target)
	}
	// Everything that can fail, or takes a detour, comes before what changes
	// anything.
	if status := f.permitEnd(&in.InHeader, from); status != fuse.OK {
		return status
	}
	if in.Flags&unix.RENAME_NOREPLACE != 0 {
		if status := f.takeByName(&in.InHeader, to.key, lockspace.ViaRename, d.file, 0); status != fuse.OK {
			return status
		}
	}
	x := f.promote(d)
	if target != nil {
		f.removeEntry(target)
	}
	e := f.entry(from.key)
	f.enterAs(to.key, x)
	f.endHolds(&in.InHeader, from)
	if e != nil {
		f.removeEntry(e)
	} else {
		f.nodes.detach(d)
	}
	return fuse.OK
}

// renameDirectory is Rename of a directory to a name that is free, or in the place of
// target, which is empty and which nobody holds.
func (f *FS) renameDirectory(in *fuse.RenameIn, from, to place, d *node, target *entry) fuse.Status {
	if !mayRemove(&in.InHeader, from.dir, d.file) {
		return fuse.EPERM
	}
	if d.file.Foreign || target != nil && target.file.Foreign {
		return fuse.EBUSY
	}
	if f.mirror != nil {
		// The backing files would stay where they are.
		if f.isMirroredBelow(d.file, isNone) || f.movesPlace(d.file, to.dir.ID) && f.isHeldBelow(d.file, f.mirrorOf(to.dir.ID)) {
			return fuse.Status(unix.EBUSY)
		}
		if f.isMirroredBelow(d.file, isDirectory) {
			return fuse.Status(unix.EXDEV) // so that mv(1) makes them anew, one by one
		}
		switch status := f.vacantOutside(in.Unique, from.key); status {
		case fuse.OK:
		case fuse.Status(unix.ENOTEMPTY):
			return fuse.EBUSY
		default:
			return status
		}
		f.makes(in.Unique, d.file)
		defer f.mirror.Renamed()
	}
	if err := f.table.Move(from.key, to.key); err != nil {
		return f.makeOutside(in.Unique, err)
	}
	if target != nil {
		f.removeEntry(target)
	}
	old := d.file.entries[0]
	f.nodes.detach(d)
	f.enterAs(to.key, d.file)
	f.removeEntry(old)
	f.vacate(from.dir.ID)
	if d.file.Lapsed { // who moves it takes care of it
		d.file.Lapsed = false
		f.keepFile(d.file)
	}
	d.Parent, d.Name, d.key = to.dir.ID, to.name, to.key
	f.nodes.byKey[to.key] = d
	f.journal.PutNode(&d.NodeRecord)
	return fuse.OK
}
