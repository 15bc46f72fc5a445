package space

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// The file of a resource, and its lock.

const (
	fileMode = 0o600
	// attempts is how often a file may be replaced between opening and locking it.
	attempts = 100
)

// resource is a resource that is held.
type resource struct {
	name, path string
	fd         int
	flags      Flags // of the first owner
	owners     []int // one or more; if not shared, one
}

func (r *resource) shared() bool { return r.flags&Shared != 0 }

// acquire opens and locks the file of a resource, as flags say, and makes sure
// that it is the one that the path leads to: it may have been removed before it was
// locked, and another made, which somebody else has.
func acquire(name, path string, flags Flags, openFlags int) (*resource, error) {
	if flags&AutoCreate != 0 {
		openFlags |= unix.O_CREAT
	}
	for range attempts {
		fd, err := open(path, openFlags)
		if err != nil {
			return nil, openError(err, flags)
		}
		found, err := lockFound(path, fd, flags&Shared != 0)
		if found {
			return &resource{name: name, path: path, fd: fd, flags: flags}, nil
		}
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: %s keeps being replaced", ErrBusy, path)
}

// lockFound locks a file that was opened. It is not found, without an error, if
// the path does not lead to it any more.
func lockFound(path string, fd int, shared bool) (found bool, err error) {
	st, err := fstat(fd)
	if err != nil {
		return false, fmt.Errorf("fstat %s: %w", path, err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFBLK {
		return false, fmt.Errorf("%w: %s is neither a regular file nor a block device", ErrBadName, path)
	}
	switch err := lock(fd, shared); {
	case errors.Is(err, unix.ESTALE): // removed, says the filesystem itself
		return false, nil
	case err != nil:
		return false, err
	}
	return leadsTo(path, fd)
}

// openError says what it means that a file cannot be opened.
func openError(err error, flags Flags) error {
	switch {
	case errors.Is(err, unix.ETXTBSY): // where open(2) itself takes the lock
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, fs.ErrNotExist) && flags&AutoCreate == 0:
		return fmt.Errorf("%w: %w", ErrNoResource, err)
	}
	return err
}

// check fails with [ErrLost] if the lock was lost, as far as can be known.
func (r *resource) check() error {
	err := stillLocked(r.fd, r.shared())
	if err == nil {
		var same bool
		if same, err = leadsTo(r.path, r.fd); err == nil && !same {
			err = fmt.Errorf("%s was removed or replaced", r.path)
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %q: %w", ErrLost, r.name, err)
	}
	return nil
}

// drop takes an owner away, once, and reports whether he was there.
func (r *resource) drop(owner int) bool {
	i := slices.Index(r.owners, owner)
	if i < 0 {
		return false
	}
	r.owners = slices.Delete(r.owners, i, i+1)
	return true
}

// release gives the lock back, and removes the file if that was asked for. An error
// tells what is wrong; the lock is not held any more in any case.
func (r *resource) release() error {
	err := r.check()
	if err == nil && r.flags&AutoCreate != 0 {
		err = r.remove()
	}
	unix.Close(r.fd)
	return err
}

// remove removes the file, unless another process shares the lock: the last one
// does it then. Nor is a file removed that somebody has data in.
func (r *resource) remove() error {
	if r.shared() {
		if err := lock(r.fd, false); errors.Is(err, ErrBusy) {
			return nil
		} else if err != nil {
			return err
		}
	}
	st, err := fstat(r.fd)
	if err != nil {
		return fmt.Errorf("fstat %s: %w", r.path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 0 {
		return nil
	}
	return unlink(r.path)
}
