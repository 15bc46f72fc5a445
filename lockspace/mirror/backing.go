package mirror

import (
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// Backing is the directory whose files are locked. Nothing that is done through
// it leads out of it: every path is resolved beneath it, without links and
// without crossing into another filesystem. It is safe for concurrent use.
type Backing struct {
	fd int
	// existing: no file is made.
	existing bool
	// remote: others than this kernel may have locks.
	remote bool
	// mount is who makes what is made, "" if that is not said, see As.
	mount string
	// attribute is what marks are in, "" if there are none.
	attribute string
	// maker is whose what is made is, before it is given to anybody.
	maker uint32
	// known is what this mount has made and not removed, by its temporary name.
	known sync.Map
	// there are the directories that are not to be made, see there.go.
	there sync.Map
	// leftovers is for one after the other to remove what was left behind.
	leftovers sync.Mutex
	// reached is called when something new has been made by its name and is not open
	// yet, and when it is marked. Only tests have it: they see to it that somebody
	// comes in between.
	reached func(step string)
}

// NewBacking returns the backing directory that is open as fd, with O_PATH or
// for reading; it stays the caller's. Files and directories that are missing in
// it are made.
func NewBacking(fd int) *Backing {
	return &Backing{fd: fd, remote: isRemote(fd), maker: uint32(unix.Geteuid())}
}

// NewDirect returns a backing directory in which nothing is made: the locks are
// those of the files that are there (design 1.6, direct). A missing one is
// ENOENT.
func NewDirect(fd int) *Backing { return &Backing{fd: fd, existing: true, remote: isRemote(fd)} }

// Check returns what is wrong with the backing directory's permission: who else
// may write into it can replace files that are locked, so that locks are lost,
// or plant what is refused when it is to be locked. It is no way out of the
// directory. "" if nobody may but its owner, who is root or the caller.
func (b *Backing) Check() (string, error) {
	var st unix.Stat_t
	if err := eintr.Retry(func() error { return unix.Fstat(b.fd, &st) }); err != nil {
		return "", &fs.PathError{Op: "fstat", Path: "backing directory", Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return "", &fs.PathError{Op: "fstat", Path: "backing directory", Err: unix.ENOTDIR}
	case st.Uid != 0 && int(st.Uid) != unix.Geteuid():
		return fmt.Sprintf("it belongs to uid %d, who can replace its files", st.Uid), nil
	case st.Mode&0o002 != 0 && st.Mode&unix.S_ISVTX == 0:
		return "everybody may write into it and replace its files", nil
	case st.Mode&0o002 != 0:
		return "everybody may write into it and replace files of his own", nil
	case st.Mode&0o020 != 0: // the mask of an access list is shown as the group's bits
		return "its group, or somebody in its access list, may write into it", nil
	}
	return "", nil
}

// inode is which file a name leads to.
type inode struct {
	dev, ino uint64
}

func inodeOf(st *unix.Stat_t) inode { return inode{uint64(st.Dev), st.Ino} }

// stat fills in st with what path leads to, which may be a link. st is the
// caller's so that what is asked often costs no memory.
func (b *Backing) stat(path string, st *unix.Stat_t) error {
	if !strings.Contains(path, "/") && !b.remote { // one step, and it does not follow links
		return wrap("stat", path, b.statLocal(path, st))
	}
	fd, err := b.openat2(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return wrap("stat", path, err)
	}
	defer unix.Close(fd)
	return wrap("stat", path, eintr.Retry(func() error { return unix.Fstat(fd, st) }))
}

// statLocal is stat of a name in the directory. Somebody may have mounted something
// there: with AT_STATX_DONT_SYNC its filesystem is not asked, which may be a process of
// his, on FUSE, that never answers. Its device tells.
func (b *Backing) statLocal(name string, st *unix.Stat_t) error {
	x := statxs.Get().(*unix.Statx_t)
	defer statxs.Put(x)
	const flags, mask = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE | unix.STATX_INO | unix.STATX_SIZE
	if err := eintr.Retry(func() error { return unix.Statx(b.fd, name, flags, mask, x) }); err != nil {
		return err
	}
	*st = unix.Stat_t{Dev: unix.Mkdev(x.Dev_major, x.Dev_minor), Ino: x.Ino, Size: int64(x.Size), Mode: uint32(x.Mode)}
	return nil
}

var statxs = sync.Pool{New: func() any { return new(unix.Statx_t) }}

// openat2 opens path beneath the directory.
func (b *Backing) openat2(path string, flags int, mode uint32) (fd int, err error) {
	return openat2(b.fd, path, flags, mode)
}

func openat2(dir int, path string, flags int, mode uint32) (fd int, err error) {
	how := unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC),
		Mode:  uint64(mode),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS |
			unix.RESOLVE_NO_XDEV,
	}
	for range attempts {
		fd, err = unix.Openat2(dir, path, &how)
		// EAGAIN: something was renamed meanwhile, and the kernel cannot tell
		// whether the path left the directory (openat2(2)).
		if err != unix.EINTR && err != unix.EAGAIN {
			break
		}
	}
	return fd, err
}

// attempts is how often something is tried that others keep from succeeding by
// what they do at the same moment.
const attempts = 100

// wrap tells what was being done, and with what. The errno stays what it is for
// [errors.Is].
func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// valid reports whether path, names with a slash between them, can be resolved
// beneath a directory.
func valid(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.Contains(part, "\x00") {
			return false
		}
	}
	return true
}
