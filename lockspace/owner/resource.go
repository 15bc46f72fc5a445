package owner

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Mode is how a disk is held.
type Mode uint8

const (
	// Exclusive: nobody else has it.
	Exclusive Mode = iota
	// Shared: others may have it, shared.
	Shared
	// Readonly: it is not locked at all, as in libvirt.
	Readonly
)

// Resource is a disk, or a lease. The zero Resource is none.
type Resource struct {
	// Disk is the absolute path of a disk, "" for a lease.
	Disk string
	Mode Mode
	// Lockspace and Key are a lease's: a directory of the mount, by its path from the
	// root, and the name of a lock in it.
	Lockspace, Key string
	// Path and Offset are kept and shown with a lease, and mean nothing more. Path is
	// absolute, or "".
	Path   string
	Offset uint64
}

// Disk is the disk of a path: of what it leads to, if that can be found out, so that
// all its names are one.
func Disk(path string) Resource {
	if to, err := filepath.EvalSymlinks(path); err == nil {
		path = to
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return Resource{Disk: path}
}

// Lease is the lock key in a lockspace.
func Lease(lockspace, key string) Resource { return Resource{Lockspace: lockspace, Key: key} }

// InMode returns the disk to be held so.
func (r Resource) InMode(m Mode) Resource {
	r.Mode = m
	return r
}

// At returns the lease with where it is on a disk.
func (r Resource) At(path string, offset uint64) Resource {
	r.Path, r.Offset = path, offset
	return r
}

// String returns the line by which the mount knows it.
func (r Resource) String() string {
	if r.Disk == "" {
		line := "lease " + escape(r.Lockspace) + " " + escape(r.Key)
		if r.Path != "" {
			line += " " + escape(r.Path) + " " + strconv.FormatUint(r.Offset, 10)
		}
		return line
	}
	line := "disk " + escape(r.Disk)
	switch r.Mode {
	case Shared:
		line += " shared"
	case Readonly:
		line += " readonly"
	}
	return line
}

// escape writes what would end a word as three octal digits behind a backslash.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c == '\\' || c == '#' || c == 0x7f {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescape undoes it. It believes what the mount writes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// parse reads a line that the mount has written.
func parse(line string) (Resource, error) {
	words := strings.Fields(line)
	for i := range words {
		words[i] = unescape(words[i])
	}
	switch {
	case len(words) >= 2 && len(words) <= 3 && words[0] == "disk":
		r := Resource{Disk: words[1]}
		switch {
		case len(words) == 2:
		case words[2] == "shared":
			r.Mode = Shared
		case words[2] == "readonly":
			r.Mode = Readonly
		default:
			return r, fmt.Errorf("%w: %q", ErrInvalid, line)
		}
		return r, nil
	case len(words) == 3 && words[0] == "lease":
		return Lease(words[1], words[2]), nil
	case len(words) == 5 && words[0] == "lease":
		offset, err := strconv.ParseUint(words[4], 10, 64)
		return Lease(words[1], words[2]).At(words[3], offset), err
	}
	return Resource{}, fmt.Errorf("%w: %q", ErrInvalid, line)
}
