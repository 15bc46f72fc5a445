package rwlock

import "errors"

// Errors of a call that has changed nothing.
var (
	// ErrTwice: the Lock is held, or somebody waits for it, and is asked for
	// again. Waiting would be a deadlock.
	ErrTwice = errors.New("asked for twice without release")
	// ErrNotHeld: what is released is not held.
	ErrNotHeld = errors.New("the lock is not held")
	// ErrMode: what is released as a read lock is held as a write lock, or the
	// other way round.
	ErrMode = errors.New("the lock is held in the other mode")
	// ErrNotLockfs: the directory is not there, or not on a lockfs mount.
	ErrNotLockfs = errors.New("not a directory of a lockfs mount")
	// ErrPolicy: in the directory, opening a file takes the lock already.
	ErrPolicy = errors.New("the directory has the policy hold=open; it takes hold=handle or hold=name")
	// ErrBadName: no lock can have this name.
	ErrBadName = errors.New("not a name of a lock")
)

// ErrLost: the lock that was released was not held any more: it was broken, its
// lease was over, or its mirror lost. Another may have been inside too.
var ErrLost = errors.New("the lock was lost")
