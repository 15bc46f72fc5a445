package mirror

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// spot is a place in a backing directory: a directory that is open, and a name in
// it. What is done to the name cannot lead elsewhere, whatever becomes of the way to
// the directory.
type spot struct {
	dir   int
	name  string
	owned bool // dir is to be closed
}

// spot opens the directory that path is in. Errors: of openat2(2), EINVAL.
func (b *Backing) spot(path string) (spot, error) {
	if !valid(path) {
		return spot{}, unix.EINVAL
	}
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return spot{dir: b.fd, name: path}, nil
	}
	dir, err := b.openat2(path[:i], unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	return spot{dir: dir, name: path[i+1:], owned: true}, err
}

// spotMade is spot, for something new: directories on the way that are missing are
// made.
func (b *Backing) spotMade(path string) (at spot, err error) {
	for range attempts {
		if at, err = b.spot(path); err != unix.ENOENT {
			return at, err
		}
		if err = b.makeParents(path); err != nil && err != errMoved {
			return at, err
		}
	}
	return at, err
}

func (s spot) close() {
	if s.owned {
		unix.Close(s.dir)
	}
}

// beside is another name in the same directory.
func (s spot) beside(name string) spot { return spot{dir: s.dir, name: name} }

// open opens what is there as it is: a link as a link, and nothing is done to it.
// Errors: ENOENT and others of openat2(2).
func (s spot) open() (fd int, err error) {
	return openat2(s.dir, s.name, unix.O_PATH|unix.O_NOFOLLOW, 0)
}

// remove removes what is there, which is of a type (S_IFMT).
func (s spot) remove(mode uint32) error {
	flags := 0
	if mode&unix.S_IFMT == unix.S_IFDIR {
		flags = unix.AT_REMOVEDIR
	}
	return eintr.Retry(func() error { return unix.Unlinkat(s.dir, s.name, flags) })
}

// moveTo gives what is there another name in the directory, which must be free:
// EEXIST. errNoMove: the filesystem cannot do that.
func (s spot) moveTo(name string) error {
	err := eintr.Retry(func() error { return unix.Renameat2(s.dir, s.name, s.dir, name, unix.RENAME_NOREPLACE) })
	if err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP {
		return errNoMove
	}
	return err
}

const errNoMove = unix.ENOSYS

// NameID tells something that has a name from what has the name at other times.
type NameID struct {
	Dev, Ino uint64
	// Born is when it was made, in nanoseconds since 1970: its number in the
	// filesystem may be another's later. 0: the filesystem does not tell.
	Born int64
}

// seen is what is known of something that is open.
type seen struct {
	NameID
	mode uint32
	mark mark
	st   unix.Statx_t
}

// seeOpen looks at what is open as fd.
func (b *Backing) seeOpen(fd int) (*seen, error) {
	x := new(seen)
	err := eintr.Retry(func() error {
		return unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &x.st)
	})
	if err != nil {
		return nil, err
	}
	x.Dev, x.Ino = unix.Mkdev(x.st.Dev_major, x.st.Dev_minor), x.st.Ino
	if x.st.Mask&unix.STATX_BTIME != 0 {
		x.Born = x.st.Btime.Sec*1e9 + int64(x.st.Btime.Nsec)
	}
	x.mode = uint32(x.st.Mode)
	x.mark = b.markOf(fd)
	return x, nil
}

// see looks at what is at a spot. It is open then, to be closed by the caller, -1 on an
// error.
func (b *Backing) see(s spot) (fd int, x *seen, err error) {
	if fd, err = s.open(); err != nil {
		return -1, nil, err
	}
	if x, err = b.seeOpen(fd); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, x, nil
}

// isGone reports whether what was seen is not there any more: what this mount has made is
// not known any more when it has been removed, so who has not known it looks again.
func (b *Backing) isGone(s spot, x *seen) bool {
	fd, now, err := b.see(s)
	if err != nil {
		return err == unix.ENOENT
	}
	unix.Close(fd)
	return now.NameID != x.NameID
}

func (x *seen) kind() uint32 { return x.mode & unix.S_IFMT }

// inode returns which file it is, as [regular] does.
func (x *seen) inode() inode { return inode{x.Dev, x.Ino} }
