package fs

import (
	"fmt"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Names that somebody outside has made, where names hold: he holds them, as long as
// they are there. They are shown as what they are, and nothing can be done to them
// here but to look, and to wait.
//
//   - A file shows its first 4096 bytes to whom its mode lets, and its directory.
//     Writing to it is EBUSY, truncation is accepted and ignored, all that changes
//     attributes is EBUSY.
//   - For a directory see foreigndir.go.
//   - What is none of these and no link is a file without content that nobody but
//     root may open.
//
// What is on the mount under a name is what is seen of it, whatever is outside: an
// ordinary file stays one, and cannot be locked.
//
// They are looked at when the name is looked up, and when the file is read, on
// detours. What a node was then has a record: to the kernel a node stays what it is.

// ForeignRecord is what must outlive the process of a node of such a name.
type ForeignRecord struct {
	// Node is the node's number.
	Node uint64
	mirror.Outside
}

// foreignNode returns the node of a name that somebody outside has made: the one that
// there is if it is the same yet.
func (f *FS) foreignNode(k lockspace.Key, s *mirror.Outside) *node {
	old := f.nodes.byKey[k]
	if old != nil && old.foreign != nil && old.foreign.ID == s.ID {
		if changed := *old.foreign; !sameForeign(&changed, s) {
			f.journal.PutForeign(&ForeignRecord{old.ID, *s})
		}
		old.setForeign(s)
		return old
	}
	if old != nil {
		f.nodes.detach(old)
	}
	d := f.lockNode(k, s.UID, s.GID)
	d.setForeign(s)
	f.journal.PutForeign(&ForeignRecord{d.ID, *s})
	if old != nil {
		f.collect(old)
	}
	return d
}

// ownNode makes a node one of a lock of this mount, whoever had made its name: it is
// held here, or names do not hold there any more.
func (f *FS) ownNode(d *node) {
	if d.foreign != nil {
		d.foreign = nil
		f.journal.DropForeign(d.ID)
	}
}

// setForeign makes a node one of what s says.
func (d *node) setForeign(s *mirror.Outside) {
	d.foreign = s
	x := d.file
	x.UID, x.GID, x.Target = s.UID, s.GID, s.Target
	x.Modified = lockspace.Instant{Wall: s.Modified.UnixNano()}
	x.Accessed, x.Changed = x.Modified, x.Modified
	switch s.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		x.Kind = symlink
	}
	if x.Mode = s.Mode & x.modeBits(); s.Mode&unix.S_IFMT != x.fileType() {
		x.Mode = 0
	}
}

// foreignAttr fills in what stat(2) shows of it.
func (d *node) foreignAttr(out *fuse.Attr) {
	x := d.file
	out.Owner = fuse.Owner{Uid: x.UID, Gid: x.GID}
	out.Mtime, out.Mtimensec = seconds(x.Modified)
	out.Atime, out.Atimensec = out.Mtime, out.Mtimensec
	out.Ctime, out.Ctimensec = out.Mtime, out.Mtimensec
	out.Mode = x.fileType() | x.Mode
	switch x.Kind {
	case symlink:
		out.Size = uint64(len(x.Target))
	default:
		out.Size = min(d.foreign.Size, maxBody)
	}
}

// setForeignAttr answers chmod, chown, truncate and utimes of it.
func (f *FS) setForeignAttr(d *node, in *fuse.SetAttrIn) fuse.Status {
	const about = fuse.FATTR_FH | fuse.FATTR_LOCKOWNER | fuse.FATTR_SIZE
	if in.Valid&^about != 0 || d.file.Kind != regular {
		return fuse.EBUSY
	}
	if _, ok := in.GetFh(); ok {
		return fuse.OK
	}
	return f.permitOpen(&in.InHeader, d, unix.O_WRONLY)
}

// readForeign returns what is to be read of it, of what was found there now: it may be
// another's by now, and not for the same readers.
func readForeign(opened *mirror.Outside, s *outsider) []byte {
	if s == nil || s.Name == nil || s.Name.ID != opened.ID || s.Name.Mode != opened.Mode {
		return []byte{}
	}
	return append([]byte{}, s.Name.Body...)
}

// lookForForeign returns what looks, on a detour, who outside holds a name where names
// hold, by having made it or else by a lock.
func (f *FS) lookForForeign(k lockspace.Key) func() *mirror.Foreign {
	path, err := f.outsidePath(k)
	if err != nil {
		return func() *mirror.Foreign { return nil }
	}
	ops, known, o, leaving := f.makerOf(k.Dir), f.knownName(k), f.mirror.at(k.Dir), f.leavingName(k)
	return func() *mirror.Foreign {
		switch found, err := ops.Look(path, known); {
		case err != nil || found != nil && found.ID == leaving:
			return nil
		case found != nil:
			return foreignOf(found)
		case known.ID != (mirror.NameID{}):
			return nil // it is this mount that has it locked
		}
		if s, found, err := o.find(path, anybody(k)); err == nil && found {
			return &s
		}
		return nil
	}
}

// knownName is what this mount has made at a name.
func (f *FS) knownName(k lockspace.Key) (known mirror.MadeName) {
	if x := f.made.byKey[k]; x != nil {
		known = x.Outside
	}
	return known
}

// madeOutside returns what was found to have been made outside at the name that the
// present request asks about; nil if nothing was.
func (f *FS) madeOutside() *mirror.Outside {
	if f.facts == nil || f.facts.stranger == nil {
		return nil
	}
	return f.facts.stranger.Name
}

// foreignOf is who has made a name, as far as it can be told: the process whose pid is
// in it.
func foreignOf(o *mirror.Outside) *mirror.Foreign {
	pid, _ := bodyPid(o.Body)
	return &mirror.Foreign{Mode: lockspace.Exclusive, Range: lockspace.Whole, Pid: int(pid), Name: o}
}

// vacantOutside says whether a directory that is outside can be removed there: OK,
// ENOTEMPTY if others have put something into it, or Parked for a detour.
func (f *FS) vacantOutside(unique uint64, k lockspace.Key) fuse.Status {
	x := f.made.byKey[k]
	if x == nil || x.State != nameThere {
		return fuse.OK
	}
	if f.facts == nil || f.facts.vacant == nil {
		name, ops := x.Outside, f.opsOf(x, makeTime)
		f.lookUpAtName(unique, x, func(found *facts) {
			err := ops.Vacant(name)
			found.vacant = &err
		})
		return device.Parked
	}
	return makeStatus(*f.facts.vacant)
}

// sameForeign reports whether two looks at one thing have the same record.
func sameForeign(a, b *mirror.Outside) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Size == b.Size && a.Modified.Equal(b.Modified)
}

// PutForeign records the node of a name that somebody outside has made, with the
// numbers of nodes, which no name has that is made outside.
func (r *Records) PutForeign(x *ForeignRecord) {
	e := r.begin()
	e.byte(foreignName)
	e.u64(x.ID.Dev)
	e.u64(x.ID.Ino)
	e.u64(uint64(x.ID.Born))
	e.u32(x.Mode)
	e.u32(x.UID)
	e.u32(x.GID)
	e.u64(x.Size)
	e.u64(uint64(x.Modified.UnixNano()))
	e.text(x.Target)
	r.put(kindMade, x.Node, e)
}

func (r *Records) DropForeign(node uint64) { r.store.Drop(kindMade, node) }

// loadForeign reads a record of that kind, behind its first byte.
func (s *Saved) loadForeign(id uint64, d *decoder) error {
	x := ForeignRecord{Node: id, Outside: mirror.Outside{
		ID:   mirror.NameID{Dev: d.u64(), Ino: d.u64(), Born: int64(d.u64())},
		Mode: d.u32(), UID: d.u32(), GID: d.u32(), Size: d.u64(), Modified: time.Unix(0, int64(d.u64())),
		Target: string(d.bytes(unix.PathMax)),
	}}
	s.foreign = append(s.foreign, x)
	return d.end("node of a name outside", id)
}

// restoreForeign makes the nodes of names outside what they were.
func (f *FS) restoreForeign(s *Saved) error {
	for i := range s.foreign {
		x := &s.foreign[i]
		d := f.nodes.byID[x.Node]
		if d == nil || d.File != 0 {
			return fmt.Errorf("node of a name outside %d: there is none: %w", x.Node, ErrRecord)
		}
		d.setForeign(&x.Outside)
	}
	return nil
}
