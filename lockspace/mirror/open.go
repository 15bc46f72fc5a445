package mirror

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// Opening the file of a lock.

// Opened is the open file of a lock.
type Opened struct {
	FD int
	// ReadOnly: it can be locked shared only.
	ReadOnly bool
	// Created: it was missing.
	Created bool
	// strange: it is known that lockfs has not made it.
	strange bool
	inode   inode
}

// Open opens the regular file at path, names with a slash between them, for
// locking. If it is missing it is made, as the file of uid and gid if the caller
// may give it away (mode 0644, less the umask), and so are directories on the way
// (0755). It opens nothing but a regular file, waits for nobody (a FIFO has two
// ends), and returns a file that path led to after it had been opened.
//
// Errors, each a [fs.PathError] with an errno: ELOOP, it is a link, or there is one
// on the way; EISDIR; ENXIO, it is a FIFO, a socket or a device; EXDEV, something is
// mounted there; ESTALE, it is replaced faster than it can be opened, or its directory
// has been removed, and is not to be made again; and what openat2(2) says. It may take
// as long as the filesystem does: not for steps.
func (b *Backing) Open(path string, uid, gid uint32) (Opened, error) {
	return b.open(path, uid, gid, false)
}

// openBegun is Open for a file that can be written to if it is made now, see
// publication.go.
func (b *Backing) openBegun(path string, uid, gid uint32) (Opened, error) {
	return b.open(path, uid, gid, true)
}

func (b *Backing) open(path string, uid, gid uint32, begun bool) (Opened, error) {
	if !valid(path) {
		return Opened{}, wrap("open", path, unix.EINVAL)
	}
	for range attempts {
		o, err := b.openOnce(path, uid, gid, begun)
		if err == errMoved {
			continue
		}
		return o, wrap("open", path, err)
	}
	return Opened{}, wrap("open", path, unix.ESTALE)
}

// errMoved: what was found is gone by now, or something came meanwhile.
const errMoved = unix.ESTALE

func (b *Backing) openOnce(path string, uid, gid uint32, begun bool) (Opened, error) {
	// Looked at without opening it first: to open a device can do something.
	err := b.look(path)
	if err == unix.ENOENT && !b.existing {
		return b.create(path, uid, gid, begun)
	}
	if err != nil {
		return Opened{}, err
	}
	o, err := b.openExisting(path)
	if err == unix.ENOENT && !b.existing {
		return Opened{}, errMoved
	}
	return o, err
}

// look returns nil if path leads to a regular file, and else an error that says
// what is there.
func (b *Backing) look(path string) error {
	fd, err := b.openat2(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = regular(fd)
	return err
}

// regular returns which file fd is open on if it is a regular one.
func regular(fd int) (inode, error) {
	var st unix.Stat_t
	if err := eintr.Retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return inode{}, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return inodeOf(&st), nil
	case unix.S_IFLNK:
		return inode{}, unix.ELOOP
	case unix.S_IFDIR:
		return inode{}, unix.EISDIR
	}
	return inode{}, unix.ENXIO
}

// openFlags: whatever path leads to by now, opening it waits for nothing, follows
// nothing and makes nobody's terminal ours.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY

// openExisting opens what is there.
func (b *Backing) openExisting(path string) (Opened, error) {
	var o Opened
	var err error
	o.FD, err = b.openat2(path, unix.O_RDWR|openFlags, 0)
	if readOnlyError(err) {
		o.ReadOnly = true
		o.FD, err = b.openat2(path, unix.O_RDONLY|openFlags, 0)
	}
	if err != nil {
		return Opened{}, err
	}
	o.strange = b.isStrange(o.FD)
	return b.verified(path, o)
}

// readOnlyError reports whether err says that a file cannot be opened for writing: it
// is not ours to write, immutable, or running. Shared locks need no more than
// reading.
func readOnlyError(err error) bool {
	return err == unix.EACCES || err == unix.EPERM || err == unix.EROFS || err == unix.ETXTBSY
}

// verified returns o if path leads to it, and closes it otherwise. A lock on a
// file that was replaced between the opening and now would exclude nobody.
func (b *Backing) verified(path string, o Opened) (Opened, error) {
	var err error
	if o.inode, err = regular(o.FD); err == nil {
		var same bool
		if same, err = b.leadsTo(path, o.inode); err == nil && same {
			return o, nil
		}
		if err == nil {
			err = errMoved
		}
	}
	unix.Close(o.FD)
	return Opened{}, err
}

// create makes the file. With O_EXCL, so that it is known whose it is; and because
// O_CREAT on a file that is there already is refused in a directory like /tmp
// (proc_sys_fs(5), protected_regular).
func (b *Backing) create(path string, uid, gid uint32, begun bool) (Opened, error) {
	fd, err := b.makeFile(path)
	switch err {
	case nil:
	case unix.EEXIST:
		return Opened{}, errMoved
	case unix.ENOENT:
		if err := b.makeParents(path); err != nil {
			return Opened{}, err
		}
		return Opened{}, errMoved
	default:
		return Opened{}, err
	}
	if unix.Geteuid() == 0 {
		err := eintr.Retry(func() error { return unix.Fchown(fd, int(uid), int(gid)) })
		// EPERM: root is somebody else on this filesystem. EINVAL: the user is
		// nobody in this user namespace. It is locked all the same.
		if err != nil && err != unix.EPERM && err != unix.EINVAL {
			unix.Close(fd)
			return Opened{}, err
		}
	}
	if begun {
		begin(fd)
	}
	return b.verified(path, Opened{FD: fd, Created: true})
}

// makeParents makes the directories on the way to path that are missing, but for
// those that are not to be made: errGone.
func (b *Backing) makeParents(path string) error {
	names := strings.Split(path, "/")
	dir := b.fd
	defer func() {
		if dir != b.fd {
			unix.Close(dir)
		}
	}()
	for i, name := range names[:len(names)-1] {
		made, mayMake := false, !b.isThere(strings.Join(names[:i+1], "/"))
		if mayMake {
			err := eintr.Retry(func() error { return unix.Mkdirat(dir, name, 0o755) })
			if made = err == nil; made {
				b.reach(stepMade)
			} else if err != unix.EEXIST {
				return err
			}
		}
		next, err := openat2(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if err == unix.ENOENT && !mayMake {
			return errGone
		}
		if err == unix.ENOENT {
			return errMoved
		}
		if err != nil {
			return err
		}
		if made {
			// Others may have put something in it by now. What is not even ours is not
			// what was made.
			if own, _, err := b.isOwn(next); err == nil && own {
				b.setMark(next, mark{ToLock, b.mount, "-"})
			}
		}
		if dir != b.fd {
			unix.Close(dir)
		}
		dir = next
	}
	return nil
}
