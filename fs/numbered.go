package fs

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Numbered locks: the control files alloc and available, and the directory ids, of a
// directory whose policy has ids. numbers.go has which numbers are reserved, and
// idfiles.go what is in ids.
//
// A program that needs locks for things that it makes gives each a number that
// nothing else has: the lock is the name of the number in the directory, in decimal.
// To reserve a number, or to free it, is not to lock it: neither looks at the lock,
// nor changes it, so that one whose number has been freed stays usable.
//
// Who may write to the directory may take numbers and free them, and who may read it
// may list those that are reserved: as for locks. A number is nobody's property: who
// may write to the directory may free any.
//
// alloc gives a number to each open file that is read: the lowest that is free, when
// it is first read, and the same for as long as it is open. So cat(1) gets one, and
// one only, however many reads it makes; so does who reads a byte at a time; and a
// process that is replaced between them makes no difference. Whoever is killed
// between that and writing the number down has taken it all the same, and so has
// who reads all files that there are, as grep -r does: ids lists it.
//
// Errors: ENOENT in a directory whose policy has no ids, and in one that has been
// removed; EACCES; of a read, ENOSPC if all are reserved, EDQUOT and ENOLCK as
// numbers.go says.

// The policy ids.
const (
	// maxIDs is the highest count: it fits 32 bits itself, so that programs can tell
	// how many are available.
	maxIDs = 1<<32 - 1
	// unlimitedIDs are as many as there are numbers.
	unlimitedIDs = 1 << 32
)

// numberedEntries are there where the policy has ids.
var numberedEntries = []controlEntry{
	{number: controlAlloc, in: controlDir, name: "alloc", content: noContent, numbered: true},
	{number: controlAvailable, in: controlDir, name: "available", content: (*FS).available, numbered: true},
	{number: controlIDs, in: controlDir, name: "ids", numbered: true},
}

var errIDs = errors.New("how many numbers there are expected: 0, unlimited, or a count up to 4294967295")

func setIDs(to *uint64, value string) error {
	if value == "unlimited" {
		*to = unlimitedIDs
		return nil
	}
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil {
		return errIDs
	}
	*to = n
	return nil
}

func formatIDs(ids uint64) string {
	if ids == unlimitedIDs {
		return "unlimited"
	}
	return strconv.FormatUint(ids, 10)
}

// available tells how many numbers are not reserved. How many of them a user may
// have does not count.
func (f *FS) available(dir *node) []byte {
	ids := dir.file.Policy.ids
	if ids < unlimitedIDs {
		ids -= f.numbers.below(dir.ID, ids)
	}
	return append([]byte(formatIDs(ids)), '\n')
}

// readAlloc reads from an open file of alloc. Who begins behind the beginning has
// reached the end, and gets no number.
func (f *FS) readAlloc(h *controlHandle, in *fuse.ReadIn, c controlNode) (fuse.ReadResult, fuse.Status) {
	switch {
	case h.reading != nil:
		return f.readOn(h, in)
	case in.Offset > 0:
		return part(nil, in), fuse.OK
	}
	n, status := f.allocate(c.about, h.Opener.UID)
	if status != fuse.OK {
		return nil, status
	}
	f.beginReading(h, newReading(fmt.Appendf(nil, "%d\n", n)))
	return f.readOn(h, in)
}

// permitNumbered is permitControl for what is about numbered locks: alloc is read,
// and ids written to, by who may write to the directory. Nothing is there without
// ids, which somebody may have taken away since it was looked up.
func (f *FS) permitNumbered(in *fuse.InHeader, c controlNode, want uint32) fuse.Status {
	ofDir := want & mayRead
	switch {
	case !c.isThere(c.about):
		return fuse.ENOENT
	case c.number == controlIDs:
		ofDir = want
	case want&^mayRead != 0:
		return fuse.EACCES // for root too
	case c.number == controlAvailable:
		return fuse.OK
	case c.number == controlAlloc && want != 0:
		ofDir = mayWrite
	case c.number == controlID && !f.isReserved(c):
		return errStale // the kernel looks again
	}
	return f.permit(in, c.about, ofDir)
}

// numberedAttr fills in the mode that tells who is let in by permitNumbered, and
// whether a number's file is there.
func (f *FS) numberedAttr(c controlNode, out *fuse.Attr) {
	of := c.about.file.Mode
	switch c.number {
	case controlAlloc:
		out.Mode = unix.S_IFREG | of&0o222<<1
	case controlIDs:
		out.Mode = unix.S_IFDIR | of&0o777
	case controlID:
		out.Mode = unix.S_IFREG | of&0o444
		if !f.isReserved(c) {
			out.Nlink = 0
		}
	}
}
