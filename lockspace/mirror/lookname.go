package mirror

import (
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Names that others have made in a backing directory, and hold by that.

// Outside is something that somebody else has made.
type Outside struct {
	ID NameID
	// Mode has the type and the permission: for nobody but the owner if the directory
	// that it is in is not for everybody.
	Mode     uint32
	UID, GID uint32
	Size     uint64
	Modified time.Time
	// Target is the text of a symbolic link, and Body the beginning of a regular file.
	Target string
	Body   []byte
}

// maxOutside is how much is read of a file, in bytes.
const maxOutside = 4096

// Look implements [Names]. Of what is neither a regular file, nor a directory, nor a
// symbolic link, no more is found out than that it is there.
func (b *Backing) Look(path string, known MadeName) (*Outside, error) {
	at, err := b.spot(path)
	if elsewhere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("look at", path, err)
	}
	defer at.close()
	fd, x, err := b.see(at)
	if err == unix.ENOENT {
		b.notThere(path)
		return nil, nil
	}
	if err != nil {
		return nil, wrap("look at", path, err)
	}
	defer unix.Close(fd)
	if held, err := b.heldByOthers(at, fd, x, &known); !held || err != nil {
		return nil, wrap("look at", path, err)
	}
	o := &Outside{
		ID: x.NameID, Mode: x.mode, UID: x.st.Uid, GID: x.st.Gid, Size: x.st.Size,
		Modified: time.Unix(x.st.Mtime.Sec, int64(x.st.Mtime.Nsec)),
	}
	if x.kind() != unix.S_IFLNK {
		o.Mode = listedMode(fd, o.Mode)
	}
	if !searchable(at.dir) {
		o.Mode &^= 0o077
	}
	if x.kind() == unix.S_IFDIR {
		b.isThereBy(path)
	}
	switch x.kind() {
	case unix.S_IFREG:
		o.Body, err = readBody(fd)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		var n int
		n, err = unix.Readlinkat(fd, "", buf)
		o.Target = string(buf[:max(n, 0)])
	}
	return o, wrap("read", path, err)
}

// heldByOthers reports whether what is open, and was seen at a spot, is there because
// somebody holds it who is not known. Of directories that lockfs has made, those are
// theirs too in which others have something, or lock files: nobody can have the name
// until they have left.
func (b *Backing) heldByOthers(at spot, fd int, x *seen, known *MadeName) (bool, error) {
	ours := known.ID != (NameID{}) && b.is(x, known) || b.knows(x)
	switch {
	case ours && x.kind() != unix.S_IFDIR:
		return false, nil
	case x.kind() == unix.S_IFDIR && (ours || b.mayBeLeft(x)):
		return b.isInUse(at)
	case x.mark.use == ToLock:
		return x.kind() == unix.S_IFDIR, nil
	case !b.mayBeLeft(x):
		return true, nil
	case x.kind() != unix.S_IFREG:
		return false, nil
	}
	return lockedBySomebody(fd)
}

// searchable reports whether everybody may come to what is in a directory.
func searchable(dir int) bool {
	var st unix.Stat_t
	return unix.Fstat(dir, &st) == nil && st.Mode&0o001 != 0
}

// readBody reads the beginning of a regular file that is open with O_PATH. What must
// not be read is empty.
func readBody(path int) ([]byte, error) {
	fd, err := reopen(path, unix.O_RDONLY)
	if err == unix.EACCES || err == unix.EPERM {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, maxOutside)
	for {
		n, err := unix.Pread(fd, buf, 0)
		if err != unix.EINTR {
			return buf[:max(n, 0)], err
		}
	}
}

// OpenLock opens the file at path to lock it, which is made if it is missing, for a lock
// of which others hold the name by having made it: then it fails with
// [lockspace.ErrForeign].
func (b *Backing) OpenLock(path string, known MadeName, uid, gid uint32) (Opened, error) {
	for range attempts {
		o, err := b.openLockOnce(path, &known, uid, gid)
		if err == errMoved {
			continue
		}
		if err == lockspace.ErrForeign {
			return Opened{}, err
		}
		return o, wrap("open", path, err)
	}
	return Opened{}, wrap("open", path, unix.ESTALE)
}

func (b *Backing) openLockOnce(path string, known *MadeName, uid, gid uint32) (Opened, error) {
	at, err := b.spot(path)
	if err == unix.ENOENT {
		return b.create(path, uid, gid, false)
	}
	if err != nil {
		return Opened{}, err
	}
	defer at.close()
	o, x, err := b.openRegular(at)
	if err == unix.ENOENT {
		return b.create(path, uid, gid, false)
	}
	if x == nil {
		return Opened{}, err
	}
	if err == nil {
		if x.mark.use == ToLock || known.ID != (NameID{}) && b.is(x, known) {
			return b.verified(path, o)
		}
		unix.Close(o.FD)
	}
	gone, err := b.removeLeftover(at)
	switch {
	case err != nil && err != unix.ENOTEMPTY:
		return Opened{}, err
	case gone:
		return Opened{}, errMoved
	}
	return Opened{}, lockspace.ErrForeign
}

// Listed is a name that somebody holds.
type Listed struct {
	Name string
	Mode uint32 // its type
}

// List implements [Names]: at most as many as [Backing.Locked], in the order of the
// alphabet.
func (b *Backing) List(dir string, directories bool) ([]Listed, error) {
	path := dir
	if dir == "" {
		path = "."
	} else if !valid(dir) {
		return nil, wrap("open", dir, unix.EINVAL)
	}
	fd, err := b.openat2(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if elsewhere(err) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("open", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	var all []Listed
	for len(all) < maxListed {
		entries, err := f.ReadDir(1024)
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			name := e.Name()
			if isTemporary(name) {
				b.removeTemporary(spot{dir: fd, name: name})
				continue
			}
			if directories && !e.IsDir() {
				continue
			}
			path, x, err := b.see(spot{dir: fd, name: name})
			if err != nil {
				continue // it is gone
			}
			held, err := b.heldByOthers(spot{dir: fd, name: name}, path, x, new(MadeName))
			unix.Close(path)
			if held && err == nil && !b.isGone(spot{dir: fd, name: name}, x) {
				all = append(all, Listed{name, x.kind()})
			}
		}
		if err != nil {
			break
		}
	}
	slices.SortFunc(all, func(a, b Listed) int { return strings.Compare(a.Name, b.Name) })
	return all[:min(len(all), maxListed)], nil
}
