package fs

import (
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/listing"
)

// Kinds of files.
const (
	regular = iota
	directory
	symlink
	kinds
)

// FileRecord is what must outlive the process of a file: what its names have
// in common.
type FileRecord struct {
	// Ino is st_ino: the number of the node that the file was made with.
	Ino  uint64
	Kind uint8
	// Mode is the permission bits.
	Mode     uint32
	UID, GID uint32
	// Modified, Accessed and Changed are st_mtim, st_atim and st_ctim.
	Modified, Accessed, Changed lockspace.Instant
	// Target is the text of a symbolic link.
	Target string
	// Policy is a directory's.
	Policy Policy
	// Lapsed: the directory's hold has lapsed, and it goes when nothing in it is
	// held any more.
	Lapsed bool
	// Foreign: somebody outside has made the directory, see foreigndir.go.
	Foreign bool
}

// When a directory goes, as records have it.
const (
	endsRemoved = iota // when somebody removes it
	endsUnused         // Lapsed
	endsOutside        // Foreign
)

func (x *FileRecord) end() uint8 {
	switch {
	case x.Lapsed:
		return endsUnused
	case x.Foreign:
		return endsOutside
	}
	return endsRemoved
}

func (x *FileRecord) setEnd(end uint8) {
	x.Lapsed, x.Foreign = end == endsUnused, end == endsOutside
}

// file is what names are names of: a body with an owner, permission and times,
// a symbolic link, or a directory. The file of a lock without a name of its own
// (see entry) is its node's, and ends with it.
type file struct {
	FileRecord
	// entries are its names; nodes is the number of nodes in memory.
	entries []*entry
	nodes   int
	// recorded says that there is a record of it.
	recorded bool
	body     *BodyRecord // nil: empty
	content  *content    // of a directory
	// looks is how often it was found again, of one that somebody outside has made.
	looks uint64
}

// EntryRecord is what must outlive the process of an entry.
type EntryRecord struct {
	// ID orders the entries of a directory as they were made. Never reused.
	ID   uint64
	Dir  uint64
	Name string
	File uint64
}

// entry is a name that is there whether it is held or not: made by link,
// symlink, mkdir or rename, or in a lockspace whose names hold, or in one where
// open(2) takes the lock. Other names are there exactly while they are held.
type entry struct {
	EntryRecord
	file *file
	// at is its index in the file's entries.
	at int
}

// name makes e a name of x.
func (x *file) name(e *entry) {
	e.file, e.at = x, len(x.entries)
	x.entries = append(x.entries, e)
}

// unname takes it away.
func (x *file) unname(e *entry) {
	last := len(x.entries) - 1
	x.entries[e.at] = x.entries[last]
	x.entries[e.at].at = e.at
	x.entries[last] = nil
	x.entries = x.entries[:last]
}

func (e *entry) key() lockspace.Key { return lockspace.Key{Dir: e.Dir, Name: e.Name} }

// content is the entries of a directory.
type content struct {
	byName map[string]*entry
	// order is the entries as they were made, by their numbers.
	order listing.List[entry]
	// directories is how many of the entries are directories.
	directories int
}

func newContent() *content { return &content{byName: make(map[string]*entry)} }

// add adds an entry, whose number is higher than all before it.
func (c *content) add(e *entry) {
	c.byName[e.Name] = e
	c.order.Add(e.ID, e)
	if e.file.Kind == directory {
		c.directories++
	}
}

// remove removes an entry.
func (c *content) remove(e *entry) {
	delete(c.byName, e.Name)
	c.order.Remove(e.ID)
	if e.file.Kind == directory {
		c.directories--
	}
}

// entry returns the entry of a name, nil if there is none.
func (f *FS) entry(k lockspace.Key) *entry {
	dir := f.nodes.get(k.Dir)
	if dir == nil || dir.file.content == nil {
		return nil
	}
	return dir.file.content.byName[k.Name]
}

// exists reports whether there is something under a name: an entry, or a hold.
func (f *FS) exists(k lockspace.Key) bool { return f.table.Held(k) || f.entry(k) != nil }

// enterAs makes a name for a file, which is kept from here on.
func (f *FS) enterAs(k lockspace.Key, to *file) *entry {
	f.lastEntry++
	e := &entry{EntryRecord: EntryRecord{ID: f.lastEntry, Dir: k.Dir, Name: k.Name, File: to.Ino}}
	dir := f.nodes.get(k.Dir)
	to.name(e)
	dir.file.content.add(e)
	f.journal.PutEntry(&e.EntryRecord)
	f.rewatch(e)
	f.changed(to)
	f.modified(dir.file)
	return e
}

// removeEntry takes a name away from its file, which ends with the last one if
// it is not open.
func (f *FS) removeEntry(e *entry) {
	dir := f.nodes.get(e.Dir)
	dir.file.content.remove(e)
	f.journal.DropEntry(e.ID)
	f.modified(dir.file)
	e.file.unname(e)
	d := f.nodes.lookup(e.key())
	if d != nil && d.file == e.file {
		// Who opens the name from now on opens something else.
		f.nodes.detach(d)
	}
	f.changed(e.file)
	if d != nil && d.file == e.file {
		f.collect(d) // the kernel may not know it, and so never forget it
	}
	f.endFile(e.file)
}

// endFile drops a file that nothing refers to any more.
func (f *FS) endFile(x *file) {
	if len(x.entries) > 0 || x.nodes > 0 || !x.recorded {
		return
	}
	x.recorded = false
	f.journal.DropFile(x.Ino)
	if x.Kind == directory {
		f.table.SetPolicy(x.Ino, lockspace.Policy{})
		f.freeNumbersOf(x.Ino)
		f.endPlace(x)
	}
	if x.body != nil {
		x.body = nil
		f.journal.DropBody(x.Ino)
	}
}

// changed sets st_ctim, and modified st_mtim too; both keep the record of a file
// that has one.
func (f *FS) changed(x *file) {
	x.Changed = f.clock.Now()
	f.keepFile(x)
}

func (f *FS) modified(x *file) {
	x.Modified = f.clock.Now()
	f.changed(x)
}

// keepFile records a file, if it has a name of its own or had one.
func (f *FS) keepFile(x *file) {
	if len(x.entries) > 0 || x.recorded || x.Ino == rootDir {
		x.recorded = true
		f.journal.PutFile(&x.FileRecord)
	}
}

// newFile makes a file that is not under any name yet, for a directory. In one
// with the set-group-ID bit it is of the directory's group.
func (f *FS) newFile(dir *file, kind uint8, mode, uid, gid uint32) *file {
	now := f.clock.Now()
	if dir.Mode&unix.S_ISGID != 0 {
		gid, mode = dir.GID, mode|unix.S_ISGID
	}
	x := &file{FileRecord: FileRecord{
		Ino: f.nodes.number(), Kind: kind, UID: uid, GID: gid,
		Modified: now, Accessed: now, Changed: now,
	}}
	x.Mode = mode & x.modeBits()
	if kind == directory {
		x.content = newContent()
	}
	return x
}

// promote makes the file of a lock without a name of its own one that can have
// names.
func (f *FS) promote(d *node) *file {
	x := d.file
	if d.File == 0 {
		f.ownNode(d)
		x.Mode, x.UID, x.GID = lockMode&0o777, d.UID, d.GID
		x.Modified, x.Accessed, x.Changed = d.Made, d.Made, d.Made
		x.recorded = true
		d.File = x.Ino
		f.journal.PutFile(&x.FileRecord)
		f.journal.PutNode(&d.NodeRecord)
	}
	return x
}

// holdsByName reports whether names hold in a directory, whether their files are
// open or not.
func (x *file) holdsByName() bool { return x.Policy.hold == holdName }

// modeBits returns the bits that a file's mode can have: no sticky bit, see the
// package comment, and on files nothing by which programs change their user.
func (x *file) modeBits() uint32 {
	if x.Kind == directory {
		return 0o777 | unix.S_ISUID | unix.S_ISGID
	}
	return 0o777
}

// fileType returns the type bits of a mode.
func (x *file) fileType() uint32 {
	switch x.Kind {
	case directory:
		return unix.S_IFDIR
	case symlink:
		return unix.S_IFLNK
	}
	return unix.S_IFREG
}

// isRemoved reports whether a directory has been removed. Nothing is made in it
// any more, or it would be there without a name for ever. The kernel knows that of
// one that rmdir(2) removed, but not of one that went with its hold.
func (x *file) isRemoved() bool { return len(x.entries) == 0 && x.Ino != rootDir }

// linkCount returns st_nlink: of a directory, its name, its own entry for itself,
// and those of the directories in it for their parent.
func (x *file) linkCount() uint32 {
	switch {
	case x.Kind != directory:
		return uint32(len(x.entries))
	case x.isRemoved():
		return 0
	default:
		return 2 + uint32(x.content.directories)
	}
}

// setTimes sets what utimes(2) asks for.
func (f *FS) setTimes(x *file, in *fuse.SetAttrIn) {
	now := f.clock.Now()
	set := func(to *lockspace.Instant, given, toNow uint32, sec uint64, nsec uint32) {
		switch {
		case in.Valid&toNow != 0:
			*to = now
		case in.Valid&given != 0:
			*to = lockspace.Instant{Wall: wall(int64(sec), nsec), Boot: now.Boot}
		}
	}
	set(&x.Modified, fuse.FATTR_MTIME, fuse.FATTR_MTIME_NOW, in.Mtime, in.Mtimensec)
	set(&x.Accessed, fuse.FATTR_ATIME, fuse.FATTR_ATIME_NOW, in.Atime, in.Atimensec)
}

// wall returns a time in nanoseconds since 1970, or the nearest that there is.
func wall(sec int64, nsec uint32) int64 {
	const last = math.MaxInt64 / 1_000_000_000 // seconds
	switch {
	case sec >= last:
		return last * 1e9
	case sec <= -last:
		return -last * 1e9
	}
	return sec*1e9 + int64(nsec)
}
