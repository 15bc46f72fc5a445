package space

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/sys/unix"
)

// A process that becomes another program, a newer version of itself as a rule,
// keeps its open files, and with them its locks. The rest of a space goes along as
// text.

// savedSpace is a state. Keys and numbers are libvirt's; those that end in _base64
// are there for what is not UTF-8.
type savedSpace struct {
	Directory       *string         `json:"directory,omitempty"` // none: resources are paths
	DirectoryBase64 []byte          `json:"directory_base64,omitempty"`
	Resources       []savedResource `json:"resources"`
}

type savedResource struct {
	Name       string `json:"name"`
	NameBase64 []byte `json:"name_base64,omitempty"`
	Path       string `json:"path"`
	PathBase64 []byte `json:"path_base64,omitempty"`
	FD         int    `json:"fd"`
	LockHeld   bool   `json:"lockHeld"`
	Flags      Flags  `json:"flags"`
	Owners     []int  `json:"owners"`
}

// PreExec makes the process ready to become another program by execve(2), and
// returns the state of the space, as JSON, for [NewPostExec] in that program; how it
// comes there, in the environment or in a file, is the caller's affair. From then on
// all other calls on the space wait. If execve(2) fails, undo makes the space as it
// was before; it must be called just once then.
//
// In between, programs that other goroutines start would inherit the locks: whoever
// has such goroutines holds [syscall.ForkLock] for reading meanwhile.
func (s *Space) PreExec() (state []byte, undo func(), err error) {
	s.mu.Lock()
	keep := false
	undo = func() {
		for _, r := range s.resources {
			setInherited(r.fd, false)
		}
		s.mu.Unlock()
	}
	defer func() {
		if !keep {
			undo()
		}
	}()
	if s.closed {
		return nil, nil, ErrClosed
	}
	saved := savedSpace{Resources: []savedResource{}}
	if s.dir != "" {
		text, binary := saveName(s.dir)
		saved.Directory, saved.DirectoryBase64 = &text, binary
	}
	for _, r := range s.resources {
		if err := setInherited(r.fd, true); err != nil {
			return nil, nil, err
		}
		x := savedResource{FD: r.fd, LockHeld: true, Flags: r.flags, Owners: r.owners}
		x.Name, x.NameBase64 = saveName(r.name)
		x.Path, x.PathBase64 = saveName(r.path)
		saved.Resources = append(saved.Resources, x)
	}
	if state, err = json.Marshal(saved); err != nil {
		return nil, nil, err
	}
	keep = true
	return state, undo, nil
}

// NewPostExec returns the space of which [Space.PreExec] returned the state, in the
// program that the process has become. It may be called once.
//
// Errors: [ErrState]. Then nothing has been touched, and the files are still open. A
// lock that was lost meanwhile is none: [Space.Check] tells.
func NewPostExec(state []byte) (*Space, error) {
	var saved savedSpace
	if err := json.Unmarshal(state, &saved); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	if saved.Resources == nil {
		return nil, fmt.Errorf("%w: no resources", ErrState)
	}
	s := &Space{resources: map[string]*resource{}}
	if saved.Directory != nil {
		if s.dir = restoreName(*saved.Directory, saved.DirectoryBase64); s.dir == "" {
			return nil, fmt.Errorf("%w: the directory has no name", ErrState)
		}
	}
	files := map[int]bool{}
	for i := range saved.Resources {
		r, err := s.restore(&saved.Resources[i])
		if err != nil {
			return nil, fmt.Errorf("%w: resource %q: %w", ErrState, saved.Resources[i].Name, err)
		}
		if s.resources[r.name] != nil || files[r.fd] {
			return nil, fmt.Errorf("%w: resource %q is there twice", ErrState, r.name)
		}
		s.resources[r.name], files[r.fd] = r, true
	}
	for _, r := range s.resources {
		if err := setInherited(r.fd, false); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrState, err)
		}
	}
	return s, nil
}

// restore returns a resource as it was saved, if it can have been so.
func (s *Space) restore(x *savedResource) (*resource, error) {
	r := &resource{
		name: restoreName(x.Name, x.NameBase64), path: restoreName(x.Path, x.PathBase64),
		fd: x.FD, flags: x.Flags, owners: slices.Clone(x.Owners),
	}
	path, err := s.pathOf(r.name)
	switch {
	case err != nil:
		return nil, err
	case path != r.path:
		return nil, fmt.Errorf("it cannot be %s", r.path)
	case !x.LockHeld:
		return nil, errors.New("it is not held")
	case r.flags&^(Shared|AutoCreate) != 0:
		return nil, ErrBadFlags
	case len(r.owners) == 0, len(r.owners) > 1 && !r.shared():
		return nil, fmt.Errorf("%d owners", len(r.owners))
	case r.fd <= unix.Stderr || r.fd > math.MaxInt32:
		return nil, fmt.Errorf("descriptor %d", r.fd)
	}
	st, err := fstat(r.fd)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", r.fd, err)
	}
	if kind := st.Mode & unix.S_IFMT; kind != unix.S_IFREG && kind != unix.S_IFBLK {
		return nil, fmt.Errorf("descriptor %d is no file", r.fd)
	}
	return r, nil
}
