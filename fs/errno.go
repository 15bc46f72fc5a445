package fs

import (
	"errors"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Statuses that go-fuse has no names for.
const (
	errStale  = fuse.Status(unix.ESTALE)
	errNoSpc  = fuse.Status(unix.ENOSPC)
	errName   = fuse.Status(unix.ENAMETOOLONG)
	errTxtBsy = fuse.Status(unix.ETXTBSY)
	errNotSup = fuse.Status(unix.EOPNOTSUPP)
)

// makeStatus is the status of a call that makes a name to take its lock. A free
// name is refused in grace.
func makeStatus(err error) fuse.Status {
	if errors.Is(err, lockspace.ErrHeld) {
		return fuse.Status(unix.EEXIST)
	}
	return fuse.Status(lockErrno(err))
}

// lockErrno is the errno of a lock call that the table refused. (An exclusive
// creation that finds the name held is EEXIST instead of EAGAIN.) What is wrong with
// a lock's mirror is told by the errno of the call that failed, else it is EIO.
func lockErrno(err error) syscall.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, lockspace.ErrHeld):
		return unix.EAGAIN // = EWOULDBLOCK
	case errors.Is(err, lockspace.ErrDeadlock):
		return unix.EDEADLK
	case errors.Is(err, lockspace.ErrRange):
		return unix.EINVAL
	case errors.Is(err, lockspace.ErrBroken):
		return unix.ESTALE
	case errors.Is(err, lockspace.ErrShutdown), errors.Is(err, lockspace.ErrTokens):
		return unix.ENOLCK
	}
	// The mirror's errors have the errno of a call on a backing file. ENOSYS would
	// have the kernel lock by itself from then on, and grant what it likes.
	var errno syscall.Errno
	if errors.As(err, &errno) && errno != unix.ENOSYS {
		return errno
	}
	return unix.EIO
}
