package space

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// What is done with resources.

// CreateResource makes the file of a resource (mode 0600), for AcquireResource
// without [AutoCreate]. If it is there already, that is fine.
//
// Errors: [ErrBusy] if the resource is held through this space, [ErrBadName],
// [ErrPolicy] if the file does not stay, and those of open(2).
func (s *Space) CreateResource(name string) error {
	return s.with("create", name, func(path string) error {
		if s.resources[name] != nil {
			return ErrBusy
		}
		if s.dir == "" {
			if err := checkStays(filepath.Dir(path)); err != nil {
				return err
			}
		}
		fd, err := open(path, s.openFlags()|unix.O_CREAT)
		if err != nil {
			return openError(err, AutoCreate)
		}
		unix.Close(fd)
		return nil
	})
}

// DeleteResource removes the file of a resource. If it is missing, that is fine.
//
// Errors: [ErrBusy] if anybody holds the resource, in whatever process; [ErrBadName],
// and those of open(2) and unlink(2).
func (s *Space) DeleteResource(name string) error {
	return s.with("delete", name, func(path string) error {
		if s.resources[name] != nil {
			return ErrBusy
		}
		r, err := acquire(name, path, 0, s.openFlags())
		if errors.Is(err, ErrNoResource) {
			return nil
		}
		if err != nil {
			return err
		}
		defer unix.Close(r.fd)
		return unlink(path)
	})
}

// AcquireResource takes a resource for an owner: exclusively, or [Shared]. Who has
// it shared may have it once more; each time is to be released. It does not wait.
//
// Errors: [ErrBusy], [ErrNoResource], [ErrBadName], [ErrBadFlags], those of open(2)
// and fcntl(2).
func (s *Space) AcquireResource(name string, owner int, flags Flags) error {
	return s.with("acquire", name, func(path string) error {
		if flags&^(Shared|AutoCreate) != 0 {
			return fmt.Errorf("%w: %#x", ErrBadFlags, uint(flags))
		}
		r := s.resources[name]
		if r != nil {
			if !r.shared() || flags&Shared == 0 {
				return ErrBusy
			}
			if err := r.check(); err != nil { // not to be shared with anybody new
				return fmt.Errorf("%w: %w", ErrBusy, err)
			}
			r.owners = append(r.owners, owner)
			return nil
		}
		r, err := acquire(name, path, flags, s.openFlags())
		if err != nil {
			return err
		}
		r.owners = []int{owner}
		s.resources[name] = r
		return nil
	})
}

// ReleaseResource gives back what an owner has acquired: once, if he has it several
// times. When the last owner has released it, it is unlocked.
//
// Errors: [ErrNotLocked], [ErrWrongOwner], [ErrBadName]. All others tell of a release
// that took place: [ErrLost], and that a file of [AutoCreate] could not be removed.
func (s *Space) ReleaseResource(name string, owner int) error {
	return s.with("release", name, func(string) error {
		r := s.resources[name]
		if r == nil {
			return ErrNotLocked
		}
		if !r.drop(owner) {
			return fmt.Errorf("%w: %d", ErrWrongOwner, owner)
		}
		return s.released(r)
	})
}

// ReleaseResourcesForOwner gives back all that an owner has acquired, of every
// resource and as many times as he has it, and returns how many times that was in
// all; 0 is no error. All errors tell of releases that took place, as with
// [Space.ReleaseResource], but [ErrClosed].
func (s *Space) ReleaseResourcesForOwner(owner int) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	var errs []error
	for _, r := range s.resources {
		dropped := 0
		for r.drop(owner) {
			dropped++
		}
		if n += dropped; dropped > 0 {
			errs = append(errs, s.released(r))
		}
	}
	return n, errors.Join(errs...)
}

// released unlocks a resource if it has lost its last owner.
func (s *Space) released(r *resource) error {
	if len(r.owners) > 0 {
		return r.check()
	}
	delete(s.resources, r.name)
	return r.release()
}

// Check tells with an error for each resource whose lock was lost, all [ErrLost],
// and nil if there is none. What can be known of it depends on the filesystem: a
// file that was removed or replaced everywhere, on a lockfs mount also that the
// lock was broken, that its lease is over, or that its mirror is lost. A lost lock
// stays in the space until its owners release it.
func (s *Space) Check() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, r := range s.resources {
		errs = append(errs, r.check())
	}
	return errors.Join(errs...)
}

// with does something with a resource, one at a time.
func (s *Space) with(what, name string, do func(path string) error) error {
	path, err := s.pathOf(name)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err = ErrClosed; !s.closed {
			err = do(path)
		}
	}
	if err != nil {
		return fmt.Errorf("%s resource %q: %w", what, name, err)
	}
	return nil
}

// openFlags are for opening files of resources. Who may write to a space's
// directory must not lead it elsewhere.
func (s *Space) openFlags() int {
	if s.dir != "" {
		return unix.O_NOFOLLOW
	}
	return 0
}
