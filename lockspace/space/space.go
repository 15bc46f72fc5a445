package space

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Space is a lockspace. Its methods may be called from several goroutines; they
// take effect one after the other, and none waits for a lock. To be made by [New]
// or [NewPostExec].
type Space struct {
	dir string // absolute; empty: resources are paths

	mu        sync.Mutex // guards what follows
	closed    bool
	resources map[string]*resource // those that are held, by name
}

// Flags say how a resource is acquired. The numbers are the original's, and part of
// a saved state.
type Flags uint

const (
	// Shared: with all others who acquire it so.
	Shared Flags = 1 << iota
	// AutoCreate: its file is made if it is missing, and removed, if it is empty,
	// when it is released by its last owner. Of those who share a resource through
	// one space, the first says whether it is.
	AutoCreate
)

// New returns a lockspace with a directory, which is made if it is missing (mode
// 0700, with its parents), or, with an empty dir, one whose resources are files
// anywhere. It remembers nothing of what others hold: their locks do.
//
// Errors: [ErrExists], [ErrPolicy], and those of mkdir(2).
func New(dir string) (*Space, error) {
	s := &Space{resources: map[string]*resource{}}
	if dir == "" {
		return s, nil
	}
	var err error
	if s.dir, err = filepath.Abs(dir); err == nil {
		err = makeDirectory(s.dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lockspace %s: %w", dir, err)
	}
	return s, nil
}

func makeDirectory(dir string) error {
	const mode = 0o700
	st, err := os.Stat(dir)
	switch {
	case err == nil && !st.IsDir():
		return ErrExists
	case err == nil:
		return checkPolicy(dir, policyDelay)
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), mode); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, mode); {
	case errors.Is(err, os.ErrExist): // by another, just now
		return makeDirectory(dir)
	case err != nil:
		return err
	}
	err = setPolicy(dir)
	if err != nil {
		os.Remove(dir) // or the next New would find it with the wrong policy
	}
	return err
}

// Directory returns the directory, absolute, and "" if there is none.
func (s *Space) Directory() string { return s.dir }

// Close releases everything that is held, for all owners, and ends the use of the
// space. Errors are those of releasing; the space is closed nevertheless.
func (s *Space) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for name, r := range s.resources {
		delete(s.resources, name)
		errs = append(errs, r.release())
	}
	return errors.Join(errs...)
}

// pathOf returns the path of a resource. Errors: [ErrBadName].
func (s *Space) pathOf(name string) (string, error) {
	switch {
	case strings.Contains(name, "\x00"), s.dir == "" && !filepath.IsAbs(name),
		s.dir != "" && !isFileName(name):
		return "", fmt.Errorf("%w: %q", ErrBadName, name)
	case s.dir == "":
		return name, nil
	}
	return s.dir + "/" + name, nil
}

// isFileName reports whether a file in a directory can have a name; .lockfs is the
// control directory, of lockfs.
func isFileName(name string) bool {
	const longest = 255 // NAME_MAX
	return name != "" && name != "." && name != ".." && name != controlName &&
		len(name) <= longest && !strings.Contains(name, "/")
}
