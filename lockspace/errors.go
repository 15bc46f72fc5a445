package lockspace

import (
	"errors"
	"fmt"
)

// Errors of requests. A request that fails has changed nothing.
var (
	// ErrHeld: the request would have to wait and must not. EEXIST, EAGAIN or
	// EWOULDBLOCK, by idiom.
	ErrHeld = errors.New("held by another")
	// ErrGrace: nobody holds what is asked for, but nobody gets it either for
	// now, see [Policy.Grace]. It is a kind of ErrHeld.
	ErrGrace = fmt.Errorf("in grace after an abnormal end, as good as %w", ErrHeld)
	// ErrForeign: nobody in the table holds what is asked for, but somebody
	// outside of the mount does, see [Mirror]. It is a kind of ErrHeld.
	ErrForeign = fmt.Errorf("held outside of the mount, as good as %w", ErrHeld)
	// ErrDeadlock: waiting would close a cycle of POSIX fcntl waits (fcntl(2),
	// EDEADLK).
	ErrDeadlock = errors.New("waiting would be a deadlock")
	// ErrLookup: the answer depends on something that has not been looked up:
	// Party.Taker.Started of the request, or what [Processes] was asked for
	// and did not know. The user looks it up and asks again.
	ErrLookup = errors.New("process must be looked up first")
	// ErrTokens: there is no fencing token for it at present, see [Tokens].
	ErrTokens = errors.New("no fencing tokens are left")
	// ErrRange: the byte range is empty or ends beyond MaxOffset.
	ErrRange = errors.New("byte range is not valid")
)

// ErrBroken ends the waits of an open file whose hold was taken away (broken,
// expired, reaped, lost), or that was closed.
var ErrBroken = errors.New("the lock was broken")

// ErrInterrupted is why a wait ended that was cancelled, for a [Listener].
var ErrInterrupted = errors.New("the wait was interrupted")

// ErrShutdown ends every wait when the table is closed down.
var ErrShutdown = errors.New("the lock service is shutting down")
