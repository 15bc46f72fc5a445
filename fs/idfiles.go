package fs

import (
	"math"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// The directory ids of numbered locks: a file for each number that is reserved, which
// reads as the number. To make one with O_EXCL reserves the number, and to remove it
// frees it; see numbered.go.
//
// Without O_EXCL none is made: who asks so could not know whether the number is his
// now or was another's all the time, and both would use its lock. Nor is one opened for
// writing, but by who makes it, so that the shell's > fails on a number that is
// reserved, with set -C or without. Nothing can be written.
//
// The numbers of nodes are those of directories lock/NAME, see lockdir.go, with
// another entry. The offset of a number in the listing is made of the number itself:
// so it is read in pieces, of any size, over any number of processes, and what is
// reserved all the time is listed exactly once.

// theID is the entry of files in ids.
var theID = controlEntry{number: controlID, in: controlIDs, content: noContent, numbered: true}

// idsOf returns the directory ids in which a request is to change something. The
// status is OK, EACCES if it is another control directory or the caller may not
// write to the directory that it is about, ENOENT without ids, or Parked for a detour.
func (f *FS) idsOf(in *fuse.InHeader) (controlNode, fuse.Status) {
	if c, ok := f.controlNode(in.NodeId); !ok || c.number != controlIDs {
		return c, fuse.EACCES
	}
	c, status := f.reach(in)
	if status == fuse.OK {
		status = f.permitControl(in, c, mayWrite|maySearch)
	}
	return c, status
}

// lookupID finds a number in ids.
func (f *FS) lookupID(in *fuse.InHeader, c controlNode, name string, out *fuse.EntryOut) fuse.Status {
	n, ok := parseNumber(name)
	if !ok || n > math.MaxUint32 || !f.numbers.has(c.about.ID, uint32(n)) {
		return fuse.ENOENT
	}
	f.enterID(in, c, name, out)
	return fuse.OK
}

// enterID answers with the file of a number that is reserved, and returns its node.
func (f *FS) enterID(in *fuse.InHeader, ids controlNode, name string, out *fuse.EntryOut) controlNode {
	d := f.lockDir(lockspace.Key{Dir: ids.about.ID, Name: name}, in.Uid)
	c := controlNode{controlEntry: &theID, about: ids.about, lock: d}
	f.enterControl(c, out)
	return c
}

// createID makes a name in a control directory: in ids, a number, and that with
// O_EXCL only, which reserves it. Errors: EINVAL if the name is not a number in
// decimal as it is listed, without zeros before it (it would be another name for the
// same); ERANGE if there is no such number; EEXIST; EPERM without O_EXCL; what
// reserve says. In other control directories it is EACCES.
func (f *FS) createID(in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	ids, status := f.idsOf(&in.InHeader)
	if status != fuse.OK {
		return status
	}
	n, ok := parseNumber(name)
	switch {
	case !ok:
		return fuse.EINVAL
	case n >= ids.about.file.Policy.ids:
		return fuse.Status(unix.ERANGE)
	case in.Flags&unix.O_EXCL == 0:
		return fuse.EPERM
	}
	if status := f.reserve(ids.about, uint32(n), in.Uid); status != fuse.OK {
		return status
	}
	c := f.enterID(&in.InHeader, ids, name, &out.EntryOut)
	out.Fh, out.OpenFlags = f.addControl(&in.InHeader, c).ID, fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

// unlinkID removes a name from a control directory: from ids a number, which is
// freed. Errors: EACCES, and those of free.
func (f *FS) unlinkID(in *fuse.InHeader, name string) fuse.Status {
	ids, status := f.idsOf(in)
	if status != fuse.OK {
		return status
	}
	n, ok := parseNumber(name)
	if !ok || n > math.MaxUint32 {
		return fuse.ENOENT
	}
	return f.free(ids.about, uint32(n))
}

// listIDs lists the numbers that are reserved, in their order.
func (f *FS) listIDs(c controlNode, in *fuse.ReadIn, out *fuse.DirEntryList) {
	set, next := f.numbers.sets[c.about.ID], max(in.Offset, firstPlace)-firstPlace
	if set == nil || next > math.MaxUint32 {
		return
	}
	for n := range set.From(uint32(next)) {
		entry := fuse.DirEntry{Name: strconv.FormatUint(uint64(n), 10), Mode: unix.S_IFREG, Off: uint64(n) + 1 + firstPlace}
		if !out.AddDirEntry(entry) {
			return
		}
	}
}
