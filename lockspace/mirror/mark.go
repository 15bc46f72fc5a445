package mirror

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// What lockfs makes in a backing directory is marked, so that it is not taken for
// what somebody else has made: by an extended attribute, which says
//
//	1 USE MOUNT NAME
//
// what it is for, which mount has made it, and under which temporary name. It is a
// format that outlives the program, and other programs of its kind read it.
//
// The attribute is trusted.lockfs, on anything, and set by root only; where that may not
// be, user.lockfs, which files and directories can have (xattr(7)), see attribute.go.
// Where neither can be set nothing is marked, and what is left behind by a mount that
// has died counts as somebody else's.

// mark is what the attribute says.
type mark struct {
	use              Use
	mount, temporary string
}

// Use is what something is for that lockfs has made.
type Use string

const (
	// ToHold: the name is held, and there as long as it is held. A regular file is
	// locked for as long, too: one that is not, was left behind.
	ToHold Use = "name"
	// ToKeep: the mount has been stopped, and holds it when it is started again.
	ToKeep Use = "kept"
	// ToLock: a file that is there to be locked, or a directory for such files. That it
	// is there says nothing.
	ToLock Use = "lock"
)

// maxMark is the longest mark that is read, in bytes.
const maxMark = 512

// fdPath is a path to what is open as fd, whatever it is: a symbolic link or
// something opened with O_PATH too. It ends there and is not followed further.
func fdPath(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// text is what the attribute says.
func (m mark) text() []byte {
	return []byte(strings.Join([]string{"1", string(m.use), m.mount, m.temporary}, " "))
}

// setMark marks what is open as fd, if that can be.
func (b *Backing) setMark(fd int, m mark) {
	if b.attribute != "" {
		_ = setAttribute(fd, b.attribute, m)
	}
}

// markOf returns the mark of what is open as fd, the zero mark if it has none that is
// believed and can be understood.
func (b *Backing) markOf(fd int) mark {
	if b.attribute == "" {
		return mark{}
	}
	buf := make([]byte, maxMark)
	n, err := unix.Getxattr(fdPath(fd), b.attribute, buf)
	if err != nil {
		return mark{}
	}
	parts := strings.Split(string(buf[:n]), " ")
	if len(parts) != 4 || parts[0] != "1" {
		return mark{}
	}
	return mark{Use(parts[1]), parts[2], parts[3]}
}

// isStrange reports whether it is known of a regular file that lockfs has not made it to be
// locked. Where nothing can be marked that is not known, nor of what has no mount's name.
func (b *Backing) isStrange(fd int) bool {
	switch {
	case b.existing:
		return true
	case b.attribute == "" || b.markOf(fd).use == ToLock:
		return false
	}
	_, err := unix.Getxattr(fdPath(fd), b.attribute, nil)
	return err != unix.EOPNOTSUPP
}

// makeFile makes a file that is there to be locked, marked from the first moment on
// if the filesystem can do that, and opens it. Errors: of openat2(2).
func (b *Backing) makeFile(path string) (fd int, err error) {
	if b.mount == "" {
		return b.openat2(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|openFlags, 0o644)
	}
	m := mark{ToLock, b.mount, "-"}
	at, err := b.spot(path)
	if err != nil {
		return -1, err
	}
	defer at.close()
	if fd, err = openat2(at.dir, ".", unix.O_RDWR|unix.O_TMPFILE, 0o644); err == nil {
		b.setMark(fd, m)
		err = unix.Linkat(unix.AT_FDCWD, fdPath(fd), at.dir, at.name, unix.AT_SYMLINK_FOLLOW)
		if err == nil {
			return fd, nil
		}
		unix.Close(fd)
		if err == unix.EEXIST {
			return -1, err
		}
	}
	fd, err = openat2(at.dir, at.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|openFlags, 0o644)
	if err == nil {
		b.setMark(fd, m)
	}
	return fd, err
}
