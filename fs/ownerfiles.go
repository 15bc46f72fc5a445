package fs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// The files in a directory owner/NAME. Their formats are contracts.
//
//	id, uuid,  what the owner is of, for people and other programs: a line each, of
//	name       at most 255 bytes; uuid is 32 hexadecimal digits, and hyphens
//	pid        the process that the owner is of, see ownerprocess.go; "0", or
//	           nothing, for none
//	resources  a line each, see ownerresource.go; writing adds, whether the file
//	           was opened for appending or not
//	state      what is handed on, see ownerstate.go
//	ctl        what the owner is to do, see ownerctl.go; it cannot be read
//	conflicts  what kept it from getting what it asked for the last time, a line
//	           each, see ownerctl.go
//	onfailure  what befalls its process when it loses a hold, see ownerprocess.go
//
// A write of one line is one value, with or without a newline; resources takes
// several lines, and of a write as long as a page, which may be the first part of a
// longer one, all that are whole. EINVAL is for what cannot be read, with the reason
// in the log, and nothing is changed then. Who writes is the user who opened the
// file (EACCES), and whom the owner is not restricted for (EPERM).

// ownerEntries are theirs in control directories.
func ownerEntries() []controlEntry {
	return []controlEntry{
		{number: controlOwner, in: controlDir, name: "owner", rootOnly: true},
		{number: controlOwnerID, in: controlOneOwner, name: "id", ofOwner: textOf(domainID), owned: setText(domainID, anyText)},
		{number: controlOwnerUUID, in: controlOneOwner, name: "uuid", ofOwner: textOf(domainUUID), owned: setText(domainUUID, isUUID)},
		{number: controlOwnerName, in: controlOneOwner, name: "name", ofOwner: textOf(domainName), owned: setText(domainName, anyText)},
		{number: controlOwnerPid, in: controlOneOwner, name: "pid", ofOwner: (*FS).ownersPid, owned: (*FS).setOwnersPid},
		{number: controlResources, in: controlOneOwner, name: "resources", ofOwner: (*FS).ownersResources, owned: (*FS).addResources},
		{number: controlOwnerState, in: controlOneOwner, name: "state", ofOwner: (*FS).ownersState},
		{number: controlOwnerCtl, in: controlOneOwner, name: "ctl", ofOwner: func(*FS, *namedOwner) []byte { return []byte{} }, owned: (*FS).control},
		{number: controlConflicts, in: controlOneOwner, name: "conflicts", ofOwner: (*FS).ownersConflicts},
		{number: controlOnFailure, in: controlOneOwner, name: "onfailure", ofOwner: (*FS).ownersAction, owned: (*FS).setOwnersAction},
	}
}

// ownerMode is the mode of the directory owner, and of what is below.
func (e *controlEntry) ownerMode() uint32 {
	switch e.number {
	case controlOwner:
		return unix.S_IFDIR | 0o777
	case controlOneOwner:
		return unix.S_IFDIR | 0o700
	case controlOwnerCtl:
		return unix.S_IFREG | 0o200
	}
	if e.owned == nil {
		return unix.S_IFREG | 0o400
	}
	return unix.S_IFREG | 0o600
}

// ownerWrite is a WRITE to a named owner's file.
type ownerWrite struct {
	in    *fuse.InHeader
	owner *namedOwner
	value string
	// why is the reason of an EINVAL.
	why error
}

// refuse is the status of a value that cannot be read.
func (w *ownerWrite) refuse(why error) fuse.Status {
	w.why = why
	return fuse.EINVAL
}

var (
	errLines  = errors.New("one line expected")
	errLength = fmt.Errorf("a line of less than %d bytes expected", maxBody)
)

// writeOwner does what is written to an open file in owner/NAME. It returns how many
// bytes of it were read.
func (f *FS) writeOwner(h *controlHandle, in *fuse.WriteIn, c controlNode, data []byte) (uint32, fuse.Status) {
	w := &ownerWrite{in: &in.InHeader, owner: c.owner}
	if in.Uid != h.Opener.UID || !c.owner.isOf(in.Uid) {
		return 0, fuse.EACCES
	}
	status := f.hasSay(w.in, w.owner)
	if status == fuse.OK {
		if data, status = w.take(c.controlEntry, data); status == fuse.OK {
			status = c.owned(f, w)
		}
	}
	switch {
	case status == fuse.OK:
		return uint32(len(data)), fuse.OK
	case status == fuse.EINVAL:
		f.log.Warn("value refused, nothing changed", "file", c.name, "owner", w.owner.Name,
			"err", w.why, "by_uid", in.Uid, "by_pid", in.Pid)
	}
	return 0, status
}

// take takes the value out of what is written, and returns the part of that in which
// it is.
func (w *ownerWrite) take(e *controlEntry, data []byte) ([]byte, fuse.Status) {
	if len(data) >= maxBody {
		end := bytes.LastIndexByte(data, '\n')
		if end < 0 || e.number != controlResources {
			return nil, w.refuse(errLength)
		}
		data = data[:end+1]
	}
	w.value = strings.TrimSuffix(string(data), "\n")
	switch {
	case strings.Contains(w.value, "\n") && e.number != controlResources:
		return nil, w.refuse(errLines)
	case strings.Contains(w.value, "\x00"):
		return nil, w.refuse(errText)
	}
	return data, fuse.OK
}

func domainID(o *namedOwner) *string   { return &o.DomainID }
func domainUUID(o *namedOwner) *string { return &o.UUID }
func domainName(o *namedOwner) *string { return &o.Domain }

// textOf makes what is read of a text.
func textOf(text func(*namedOwner) *string) func(*FS, *namedOwner) []byte {
	return func(_ *FS, o *namedOwner) []byte { return asLine(*text(o)) }
}

// asLine returns a text with a newline, but for an empty one.
func asLine(text string) []byte {
	if text == "" {
		return []byte{}
	}
	return append([]byte(text), '\n')
}

// setText sets a text that a function allows.
func setText(text func(*namedOwner) *string, check func(string) error) func(*FS, *ownerWrite) fuse.Status {
	return func(f *FS, w *ownerWrite) fuse.Status {
		if err := check(w.value); err != nil {
			return w.refuse(err)
		}
		*text(w.owner) = w.value
		f.owners.keep(w.owner)
		return fuse.OK
	}
}

// maxText is the longest text that an owner can have, in bytes.
const maxText = 255

var (
	errText = fmt.Errorf("not a text of at most %d bytes without control characters", maxText)
	errUUID = errors.New("not a UUID: 32 hexadecimal digits expected, and hyphens")
)

func anyText(text string) error {
	if len(text) > maxText || strings.ContainsFunc(text, unicode.IsControl) {
		return errText
	}
	return nil
}

func isUUID(text string) error {
	digits := strings.ReplaceAll(text, "-", "")
	if text != "" && len(digits) != 32 || len(text) > maxText || strings.Trim(digits, "0123456789abcdefABCDEF") != "" {
		return errUUID
	}
	return nil
}

// ownersResources is what is read of resources.
func (f *FS) ownersResources(o *namedOwner) []byte {
	b := []byte{}
	for _, r := range o.resources {
		b = append(append(b, r.line()...), '\n')
	}
	return b
}

// ownersConflicts is what is read of conflicts.
func (f *FS) ownersConflicts(o *namedOwner) []byte { return []byte(o.conflicts) }

// held returns what an owner holds, in the order of its resources.
func (f *FS) held(o *namedOwner) []*lockspace.Hold {
	var all []*lockspace.Hold
	for _, r := range o.resources {
		if h := f.holdOf(o, r); h != nil && !slices.Contains(all, h) {
			all = append(all, h)
		}
	}
	return all
}
