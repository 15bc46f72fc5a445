package fs

import (
	"cmp"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// What the directory lock lists: the names in its directory that are held or waited
// for, at the moment when it is read from the beginning. They are gathered on a
// detour, as what control files tell about all locks, see gather.go, and kept with
// the open directory. The next process gathers them anew, without those that came
// after that moment.

// listedName is a name, and where it is in the listing: first the locks that are
// only waited for (one in grace may be) by the place of the first wait, then those
// that are held, by their place in the table's listing.
type listedName struct {
	offset uint64
	name   string
}

// beginNames sees to it that it is known what the listing of an open directory lock
// has. It is OK, EBADF, or Parked for a detour.
func (f *FS) beginNames(in *fuse.ReadIn, about *node) fuse.Status {
	h := f.controls[in.Fh]
	switch {
	case h == nil:
		return fuse.EBADF
	case in.Offset > 0 && h.names != nil:
		return fuse.OK // short reads see one moment
	case f.facts == nil || f.facts.names == nil:
		f.lookUpNames(in.Unique, about.ID)
		return device.Parked
	}
	h.names = f.facts.names
	if in.Offset > afterDotDot { // the process that gathered them has died
		h.names = slices.DeleteFunc(h.names, func(n listedName) bool {
			return n.offset > h.EntriesTo && n.offset < firstHeld || n.offset > h.ListTo
		})
		return fuse.OK
	}
	h.EntriesTo, h.ListTo = 0, 0
	for _, n := range h.names {
		if n.offset < firstHeld {
			h.EntriesTo = n.offset
		} else {
			h.ListTo = n.offset
		}
	}
	f.journal.PutHandle(&h.HandleRecord)
	return fuse.OK
}

// lookUpNames sends a READDIR on a detour to the names of a directory.
func (f *FS) lookUpNames(unique, dir uint64) {
	f.lookUpLong(unique, func(x *facts) {
		var s *lockspace.Snapshot
		f.dev.Do(func() { s = f.table.Snapshot(dir) })
		f.gatherAll(s)
		x.names = []listedName{}
		last := ""
		for h := range s.Holds() {
			if h.Key.Name != last || len(x.names) == 0 {
				last = h.Key.Name
				x.names = append(x.names, listedName{h.Listed + firstHeld, last})
			}
		}
		held := make(map[string]bool)
		if _, waits := s.Len(); waits > 0 {
			for _, n := range x.names {
				held[n.name] = true
			}
		}
		for w := range s.Waits() {
			if !held[w.Key.Name] {
				held[w.Key.Name] = true
				x.names = append(x.names, listedName{w.Place + firstPlace, w.Key.Name})
			}
		}
		slices.SortFunc(x.names, func(a, b listedName) int { return cmp.Compare(a.offset, b.offset) })
	})
}

// listNames answers the READDIR of a directory lock.
func (f *FS) listNames(in *fuse.ReadIn, out *fuse.DirEntryList) {
	names := f.controls[in.Fh].names
	next, _ := slices.BinarySearchFunc(names, in.Offset+1, func(n listedName, offset uint64) int {
		return cmp.Compare(n.offset, offset)
	})
	for _, n := range names[next:] {
		// Which number it has is found out when it is looked up.
		if !out.AddDirEntry(fuse.DirEntry{Name: n.name, Mode: unix.S_IFDIR, Off: n.offset}) {
			return
		}
	}
}
