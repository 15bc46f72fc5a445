package numbered

import "errors"

// What allocating and freeing fail with. Everything else has the errno of the call
// that failed: EACCES, EDQUOT if one user, and ENOLCK if all of them have as many
// numbers as they may, or the mount is ending, ENOTCONN if it has ended.
var (
	ErrAllAllocated = errors.New("all locks are allocated")
	ErrAllocated    = errors.New("the lock is already allocated")
	ErrNotAllocated = errors.New("the lock is not allocated")
	ErrRange        = errors.New("there is no lock of that number")
	// ErrNoIDs: the directory has no numbered locks (ids=0), or has been removed.
	ErrNoIDs = errors.New("the directory has no numbered locks")
)

// What [New], [Open] and [Create] fail with besides.
var (
	ErrNotLockspace = errors.New("not a directory of a lockfs mount that knows numbered locks")
	ErrPolicy       = errors.New("the directory's policy is not hold=handle without a lease")
	// ErrSize: not as many locks as were asked for; of Create, none at all.
	ErrSize = errors.New("the wrong number of locks")
)
