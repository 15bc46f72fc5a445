// Package lockdriver is the interface of libvirt's lock drivers (virLockDriver: New,
// AddResource, Acquire, Release, Inquire, Free) on a lockfs mount. Its flows are those
// of libvirt's domain_lock.c:
//
//	start    in the child that becomes the emulator, with all resources:
//	         Acquire("", Restrict|RegisterOnly, action); exec
//	resume   with all resources: Acquire(state, 0, action)
//	pause    with all resources: state = Release()
//	migrate  there: state = Inquire(), or of a domain that stands, what its pause
//	         has returned; here, when it is released there: as resume
//	plug in  with what is new: Attach()
//	unplug   with what goes: Detach()
//
// A Lock is made anew for each of them, and freed after: what is held is the domain's,
// and stays until it is released or its process ends.
//
// Attach and Detach are Acquire and Release of libvirt without a state, which the
// driver has to tell from resume and pause by the resources that were added.
//
// # Caveats
//
// "Restrict" is what lockd and sanlock make of it: the process that is registered,
// and what it starts, cannot change its own locks; whoever is outside of it can, and
// does, when the domain is resumed.
package lockdriver

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/lockfs/lockfs/lockspace/owner"
)

// Params are the parameters of a domain.
type Params struct {
	ID         int
	UUID, Name string
	// Pid is its process, 0 if there is none: in the child that is to become it,
	// os.Getpid(). A pid that was given before stays if this is 0.
	Pid int
}

// Flags of Acquire.
type Flags uint8

const (
	// Restrict: see the package comment.
	Restrict Flags = 1 << iota
	// RegisterOnly: the process is registered, and nothing is acquired.
	RegisterOnly
)

// Action is what befalls the process of a domain that loses a lock (on_lockfailure).
type Action uint8

const (
	Default  Action = iota // nothing
	Poweroff               // SIGKILL
	Restart                // SIGTERM: who looks after it starts it anew
	Pause                  // SIGSTOP
	Ignore                 // nothing
)

var actionNames = [...]string{"default", "poweroff", "restart", "pause", "ignore"}

// String returns libvirt's word.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return fmt.Sprintf("action(%d)", uint8(a))
}

// Errors beside those of package owner.
var (
	// ErrParams: a domain has an ID above 0, a UUID and a name, as in libvirt.
	ErrParams = errors.New("a parameter is missing")
	// ErrFlags: there is no such flag, or action.
	ErrFlags = errors.New("unknown flag or action")
)

// Lock is an object of the driver. One of its methods is to be called at a time.
type Lock struct {
	owner     *owner.Owner
	params    Params
	resources []owner.Resource
}

// New makes a Lock of a domain, and nothing yet on the lockfs at mount: the owner there
// has the domain's UUID for its name. Errors: [ErrParams], [owner.ErrName].
func New(mount string, p Params) (*Lock, error) {
	if p.ID <= 0 || p.UUID == "" || p.Name == "" {
		return nil, fmt.Errorf("%w: id %d, uuid %q, name %q", ErrParams, p.ID, p.UUID, p.Name)
	}
	o, err := owner.Open(mount, strings.ToLower(p.UUID))
	if err != nil {
		return nil, err
	}
	return &Lock{owner: o, params: p}, nil
}

// AddResource adds a disk or a lease to those that the Lock is about. Errors:
// [owner.ErrInvalid].
func (l *Lock) AddResource(r owner.Resource) error {
	if (r.Disk == "") == (r.Lockspace == "" || r.Key == "") || r.Disk == "" && r.Mode != owner.Exclusive {
		return fmt.Errorf("%w: %v", owner.ErrInvalid, r)
	}
	l.resources = append(l.resources, r)
	return nil
}

// register makes the owner what the parameters say.
func (l *Lock) register(action Action) error {
	if int(action) >= len(actionNames) {
		return fmt.Errorf("%w: %v", ErrFlags, action)
	}
	if err := l.owner.Make(); err != nil {
		return err
	}
	for _, v := range []struct{ file, value string }{
		{"id", strconv.Itoa(l.params.ID)}, {"uuid", l.params.UUID}, {"name", l.params.Name}, {"onfailure", action.String()},
	} {
		if err := l.owner.Set(v.file, v.value); err != nil {
			return err
		}
	}
	if l.params.Pid == 0 {
		return nil
	}
	return l.owner.SetPid(l.params.Pid)
}

// Acquire acquires all resources of the domain, or none, taking up from a state ("":
// from none); with RegisterOnly, none. What was plugged in beside those of the Lock is
// acquired with them. Errors: [owner.ErrBusy] (see Conflicts), [owner.ErrStale],
// [owner.ErrEnded], and others of package owner.
func (l *Lock) Acquire(state string, flags Flags, action Action) error {
	if flags&^(Restrict|RegisterOnly) != 0 {
		return fmt.Errorf("%w: %#x", ErrFlags, flags)
	}
	if err := l.register(action); err != nil {
		return err
	}
	if err := l.owner.Add(l.resources...); err != nil {
		return err
	}
	opts := owner.Options{Restrict: flags&Restrict != 0, RegisterOnly: flags&RegisterOnly != 0}
	if !opts.RegisterOnly {
		opts.State = state
	}
	return l.owner.Acquire(opts)
}

// Release releases all that the domain has, and returns the state to resume it from.
func (l *Lock) Release() (state string, err error) { return l.owner.Release() }

// Inquire returns the state of what the domain has, without releasing anything; of one
// that has nothing, what it had last.
func (l *Lock) Inquire() (state string, err error) { return l.owner.State() }

// Attach acquires the resources of the Lock for a domain that has others. If one
// cannot be had, those before it, as far as they were not the domain's already, are
// given back.
func (l *Lock) Attach() error {
	had, err := l.owner.Resources()
	if err != nil {
		return err
	}
	old := make(map[string]bool)
	for _, r := range had {
		old[what(r)] = true
	}
	for i, r := range l.resources {
		if err := l.owner.AcquireOne(r); err != nil {
			for _, before := range l.resources[:i] {
				if !old[what(before)] {
					err = errors.Join(err, l.owner.ReleaseOne(before))
				}
			}
			return err
		}
	}
	return nil
}

// what tells a resource from others, however it is held.
func what(r owner.Resource) string { return r.InMode(owner.Exclusive).At("", 0).String() }

// Detach releases the resources of the Lock: the domain does not have them any more.
// One that it does not have is [owner.ErrUnknown]; the others are released even so.
func (l *Lock) Detach() error {
	var errs error
	for _, r := range l.resources {
		errs = errors.Join(errs, l.owner.ReleaseOne(r))
	}
	return errs
}

// Conflicts tells who was in the way the last time.
func (l *Lock) Conflicts() ([]owner.Conflict, error) { return l.owner.Conflicts() }

// Free is the end of the Lock. What the domain has it keeps.
func (l *Lock) Free() { l.resources = nil }

// Remove releases all that the domain has, and has the mount forget it: when it is not
// to be started again.
func (l *Lock) Remove() error {
	err := l.owner.Remove()
	if errors.Is(err, owner.ErrUnknown) {
		return nil
	}
	return err
}
