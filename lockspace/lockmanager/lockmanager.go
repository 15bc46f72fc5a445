// Package lockmanager is the lock manager of libvirt's RFC "The internal lock manager
// API" (libvir-list, September 2010) on a lockfs mount: a process that is supervised,
// and resources that it has while it runs, acquired and released one by one.
//
//	m, err := lockmanager.New("/run/lockfs", lockmanager.Parameters{ID: "7", UUID: uuid, Name: "vm1", Pid: pid})
//	...
//	err = m.AcquireResource(owner.Disk("/images/vm1.img"))
//	...
//	err = m.Free()
//
// What the RFC leaves open is not open here: a resource that is not acquired is not
// held, one whose release failed is held still, and Shutdown releases all. What it
// asks of a supervisor is not done: Free leaves the process alone, which the RFC has
// killed; who started it sees to its end. The locks end with the process whoever has
// forgotten them.
//
// The RFC waits for a lock unless it is told to probe; here AcquireResource tries, and
// [Manager.AcquireResourceWait] waits.
package lockmanager

import (
	"context"
	"errors"
	"fmt"

	"github.com/lockfs/lockfs/lockspace/owner"
)

// Parameters are those of the supervised process (virLockManagerSetParameter).
type Parameters struct {
	// ID, UUID and Name are the domain's; UUID, or if there is none, Name is the
	// owner's name on the mount.
	ID, UUID, Name string
	// Pid is the process, 0 if it has yet to be started.
	Pid int
}

// Errors beside those of package owner.
var (
	// ErrParameter: a domain has a UUID or a name.
	ErrParameter = errors.New("a parameter is missing")
	// ErrNotStarted: there is no process that could have resources.
	ErrNotStarted = errors.New("the process has not been started")
	// ErrStarted: it is too late for that.
	ErrStarted = errors.New("the process has been started")
)

// Manager manages the locks of one process. Several, in different processes too, may
// manage those of the same; of each, one method is to be called at a time.
type Manager struct {
	owner   *owner.Owner
	started bool
	freed   bool
}

// New makes a manager, and the owner on the lockfs at mount. Errors: [ErrParameter],
// and those of package owner.
func New(mount string, p Parameters) (*Manager, error) {
	name := p.UUID
	if name == "" {
		name = p.Name
	}
	if name == "" {
		return nil, fmt.Errorf("%w: uuid or name", ErrParameter)
	}
	o, err := owner.Make(mount, name)
	if err != nil {
		return nil, err
	}
	m := &Manager{owner: o}
	for _, v := range []struct{ file, value string }{{"id", p.ID}, {"uuid", p.UUID}, {"name", p.Name}} {
		if v.value != "" {
			err = errors.Join(err, o.Set(v.file, v.value))
		}
	}
	if err == nil && p.Pid != 0 {
		err = m.Start(p.Pid)
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// SetParameter sets id, uuid or name of a process that has not been started. Errors:
// [ErrStarted]; [ErrParameter] for another.
func (m *Manager) SetParameter(key, value string) error {
	switch {
	case m.started:
		return ErrStarted
	case key != "id" && key != "uuid" && key != "name":
		return fmt.Errorf("%w: %q is none", ErrParameter, key)
	}
	return m.owner.Set(key, value)
}

// Start says which process it is, when it runs. Errors: [owner.ErrEnded].
func (m *Manager) Start(pid int) error {
	err := m.owner.SetPid(pid)
	m.started = m.started || err == nil
	return err
}

// AcquireResource acquires a resource for the running process: [owner.ErrBusy] if it
// cannot be had at once. If it fails the process does not have it, or has it as before.
// Acquired again, it is in the stronger mode.
func (m *Manager) AcquireResource(r owner.Resource) error {
	if !m.started {
		return ErrNotStarted
	}
	return m.owner.AcquireOne(r)
}

// AcquireResourceWait is AcquireResource until it can be had, or the context ends.
func (m *Manager) AcquireResourceWait(ctx context.Context, r owner.Resource) error {
	return owner.Retry(ctx, func() error { return m.AcquireResource(r) })
}

// ReleaseResource releases a resource of the running process, in whatever mode it has
// it. If it fails, that is held as before. Errors: [owner.ErrUnknown].
func (m *Manager) ReleaseResource(r owner.Resource) error {
	if !m.started {
		return ErrNotStarted
	}
	return m.owner.ReleaseOne(r)
}

// Conflicts tells who was in the way the last time.
func (m *Manager) Conflicts() ([]owner.Conflict, error) { return m.owner.Conflicts() }

// Shutdown says that the process has ended, or may: all it has is released.
func (m *Manager) Shutdown() error {
	_, err := m.owner.Release()
	return err
}

// Free is Shutdown, and the end of the manager and of the owner on the mount, in one
// step. Called again it does nothing.
func (m *Manager) Free() error {
	if m.freed {
		return nil
	}
	err := m.owner.Remove()
	if errors.Is(err, owner.ErrUnknown) {
		err = nil // somebody else did
	}
	m.freed = err == nil
	return err
}
