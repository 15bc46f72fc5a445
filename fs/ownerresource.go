package fs

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// The resources of named owners. A line in the control file resources is one of
//
//	disk PATH [readonly|shared]
//	lease SPACE KEY [PATH OFFSET]
//
// A disk is the lock in the root of the mount whose name is the SHA-256 of its path,
// in lower-case hexadecimal digits. The path is absolute, and cleaned of what POSIX
// says means nothing (pathname resolution: "//", "/./", and "/.." with the name
// before it). Links in it are not resolved: to look a path up may take for ever, or
// lead elsewhere for this process than for who wrote it. Who gives a disk of which
// there are several paths resolves it first. A disk that is readonly takes no lock,
// as in libvirt (lockd and sanlock leave it out); shared takes it shared.
//
// A lease is the lock KEY in the directory SPACE of the mount, the path of which
// begins at the root: "." is that itself. The directory must be there (ENOENT), and
// the user must be able to come to it. PATH and OFFSET, where sanlock has the lease
// on a disk, are kept and shown, and mean nothing more.
//
// Bytes that would end a word are written as three octal digits behind a backslash,
// as in /proc/mounts: "\040" is a blank.

// Kinds of resources.
const (
	disk = iota
	lease
	resourceKinds
)

// Modes in which an owner has a resource, the weakest first.
const (
	readonly = iota
	shared
	exclusive
	resourceModes
)

// ResourceRecord is what must outlive the process of a resource of a named owner.
type ResourceRecord struct {
	// ID is its number, from the same count as those of nodes: they are ordered by
	// it.
	ID    uint64
	Owner uint64
	Kind  uint8
	Mode  uint8
	// Path is the disk's, or what was given with the lease, "" if nothing was.
	Path   string
	Offset uint64
	// Space is the path of the lease's directory, "." if it is the root.
	Space string
	// Key is its lock. The directory's number is that of the last time that the
	// lock was taken, or that it was looked for.
	Key lockspace.Key
	// Token is that under which it was held last, as HeldAs, by an owner that does
	// not hold it now. 0: it was not, or has been taken anew.
	Token  uint64
	HeldAs lockspace.Mode
}

type resource struct{ ResourceRecord }

var errResource = errors.New("not a resource: disk PATH [readonly|shared], or lease SPACE KEY [PATH OFFSET]")

// parseResource reads a line. The key's directory is missing where it is a lease.
func parseResource(line string) (ResourceRecord, error) {
	words := strings.Fields(line)
	for i, w := range words {
		var err error
		if words[i], err = unescape(w); err != nil {
			return ResourceRecord{}, err
		}
	}
	switch {
	case len(words) >= 2 && len(words) <= 3 && words[0] == "disk":
		return parseDisk(words[1:])
	case (len(words) == 3 || len(words) == 5) && words[0] == "lease":
		return parseLease(words[1:])
	}
	return ResourceRecord{}, errResource
}

func parseDisk(words []string) (ResourceRecord, error) {
	r := ResourceRecord{Kind: disk, Mode: exclusive}
	var err error
	if r.Path, err = cleanPath(words[0]); err != nil {
		return r, err
	}
	if len(words) == 2 {
		switch words[1] {
		case "readonly":
			r.Mode = readonly
		case "shared":
			r.Mode = shared
		default:
			return r, fmt.Errorf("%q: neither readonly nor shared", words[1])
		}
	}
	sum := sha256.Sum256([]byte(r.Path))
	r.Key = lockspace.Key{Dir: rootDir, Name: hex.EncodeToString(sum[:])}
	return r, nil
}

func parseLease(words []string) (ResourceRecord, error) {
	r := ResourceRecord{Kind: lease, Mode: exclusive, Space: path.Clean(words[0])}
	r.Key.Name = words[1]
	switch {
	case r.Key.Name == "." || r.Key.Name == ".." || r.Key.Name == controlName || strings.Contains(r.Key.Name, "/") || len(r.Key.Name) > maxName:
		return r, fmt.Errorf("%q: not a name that a lock can have", r.Key.Name)
	case path.IsAbs(r.Space) || r.Space == ".." || strings.HasPrefix(r.Space, "../"):
		return r, fmt.Errorf("%q: not a path below the root of the mount", words[0])
	case len(words) == 2:
		return r, nil
	}
	var err error
	if r.Path, err = cleanPath(words[2]); err != nil {
		return r, err
	}
	if r.Offset, err = strconv.ParseUint(words[3], 10, 64); err != nil {
		return r, fmt.Errorf("%q: not an offset in bytes", words[3])
	}
	return r, nil
}

func cleanPath(p string) (string, error) {
	if !path.IsAbs(p) {
		return "", fmt.Errorf("%q: not an absolute path", p)
	}
	return path.Clean(p), nil
}

// line returns it as it is read, without a newline.
func (r *ResourceRecord) line() string {
	b := r.appendWhat(nil)
	switch {
	case r.Kind == lease && r.Path != "":
		b = appendField(append(b, ' '), r.Path)
		b = strconv.AppendUint(append(b, ' '), r.Offset, 10)
	case r.Mode == readonly:
		b = append(b, " readonly"...)
	case r.Mode == shared:
		b = append(b, " shared"...)
	}
	return string(b)
}

// appendWhat writes what tells it from all others.
func (r *ResourceRecord) appendWhat(b []byte) []byte {
	if r.Kind == disk {
		return appendField(append(b, "disk "...), r.Path)
	}
	b = appendField(append(b, "lease "...), r.Space)
	return appendField(append(b, ' '), r.Key.Name)
}

// what is the text that tells it from all others.
func (r *ResourceRecord) what() string { return string(r.appendWhat(nil)) }

// digest is the first half of the first half of the SHA-256 of what: in a state.
func (r *ResourceRecord) digest() string {
	sum := sha256.Sum256(r.appendWhat(nil))
	return hex.EncodeToString(sum[:8])
}

// lockMode is the mode of its lock; of one that is readonly there is none.
func (r *ResourceRecord) lockMode() lockspace.Mode {
	if r.Mode == exclusive {
		return lockspace.Exclusive
	}
	return lockspace.Shared
}

// find returns the resource of an owner that is what another one is, nil if it has
// none.
func (o *namedOwner) find(what string) *resource {
	for _, r := range o.resources {
		if r.what() == what {
			return r
		}
	}
	return nil
}

// findSpace finds the directory of a resource, for a user who may search all on the
// way to it. The status is OK; ENOENT, ENOTDIR, EACCES; or Parked for a detour.
func (f *FS) findSpace(in *fuse.InHeader, r *ResourceRecord) (*node, fuse.Status) {
	dir := f.nodes.get(rootDir)
	if r.Kind == disk || r.Space == "." {
		return dir, fuse.OK
	}
	for name := range strings.SplitSeq(r.Space, "/") {
		if status := f.permit(in, dir, maySearch); status != fuse.OK {
			return nil, status
		}
		e := f.entry(lockspace.Key{Dir: dir.ID, Name: name})
		switch {
		case e == nil:
			return nil, fuse.ENOENT
		case e.file.Kind != directory:
			return nil, fuse.ENOTDIR
		}
		dir = f.nodes.of(e)
	}
	return dir, fuse.OK
}

// addResources gives an owner the resources in some lines; what it has already has
// the stronger of both modes from then on. All are good, or none is added.
func (f *FS) addResources(w *ownerWrite) fuse.Status {
	o := w.owner
	var fresh []ResourceRecord
	for line := range strings.SplitSeq(w.value, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		r, err := parseResource(line)
		if err != nil {
			return w.refuse(err)
		}
		dir, status := f.findSpace(w.in, &r)
		if status != fuse.OK {
			return status
		}
		r.Key.Dir = dir.ID
		fresh = append(fresh, r)
	}
	added := 0
	in := make(map[string]bool)
	for i := range fresh {
		if what := fresh[i].what(); o.find(what) == nil && !in[what] {
			in[what] = true
			added++
		}
	}
	if !f.owners.hasRoom(o, added) {
		return fuse.Status(unix.EDQUOT)
	}
	for i := range fresh {
		f.addResource(o, &fresh[i])
	}
	return fuse.OK
}

func (f *FS) addResource(o *namedOwner, r *ResourceRecord) {
	old := o.find(r.what())
	if old == nil {
		old = &resource{*r}
		old.ID, old.Owner = f.nodes.number(), o.ID
		o.resources = append(o.resources, old)
		f.owners.counted(o, 1)
	}
	old.Mode = max(old.Mode, r.Mode)
	if r.Kind == lease && r.Path != "" {
		old.Path, old.Offset = r.Path, r.Offset
	}
	f.owners.keepResource(old)
}

func (x *owners) keepResource(r *resource) {
	x.journal.PutOwned(r.ID, encodeResource(&r.ResourceRecord))
}
