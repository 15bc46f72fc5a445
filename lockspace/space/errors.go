package space

import "errors"

// Errors of a call that has changed nothing.
var (
	// ErrBusy: the resource is held, and not shared by all sides; or, for
	// CreateResource and DeleteResource, it is held at all.
	ErrBusy = errors.New("the resource is locked")
	// ErrNotLocked: nobody holds the resource through this space.
	ErrNotLocked = errors.New("the resource is not locked")
	// ErrWrongOwner: it is held, but not by the owner who would release it.
	ErrWrongOwner = errors.New("the owner does not hold the resource")
	// ErrNoResource: there is no such resource, and AutoCreate was not asked for.
	ErrNoResource = errors.New("no such resource")
	// ErrBadName: no resource can have this name.
	ErrBadName = errors.New("not a name of a resource")
	// ErrBadFlags: flags that there are not.
	ErrBadFlags = errors.New("unknown flags")
	// ErrExists: the directory of a space cannot be made, since something else
	// has its name.
	ErrExists = errors.New("exists already and is not a directory")
	// ErrPolicy: files do not stay in the directory unless somebody holds them,
	// as in a directory of a lockfs mount with another policy than hold=name.
	ErrPolicy = errors.New("the lockspace has the wrong policy")
	// ErrState: what NewPostExec was given is not the state of a space, or not
	// one whose files this process has open.
	ErrState = errors.New("not a state of a lockspace that can be taken over")
	// ErrClosed: the space was closed.
	ErrClosed = errors.New("the lockspace is closed")
)

// ErrLost: a lock that was held is not held any more, and another may have it: its
// file was removed or replaced, or the filesystem has taken it away. Calls that
// release have released nevertheless.
var ErrLost = errors.New("the lock on the resource was lost")
