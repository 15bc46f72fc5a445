package numbered

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// Locker is a lock that a [Manager] has allocated or retrieved. Its methods may be
// called by several goroutines at once.
//
// It locks by flock(2) on an open file of its own for each time that it is locked,
// which no child inherits over execve(2): so other Lockers, of the same process too,
// wait, and the lock is given back when the process ends.
type Locker struct {
	m  *Manager
	id uint32

	// turn is had from Lock to Unlock: the goroutines that lock through one Locker
	// come here one after the other, so that file is whose turn it is.
	turn sync.Mutex

	mu sync.Mutex // guards what follows; nobody waits while he has it
	// locked: file is the descriptor by which the lock is held.
	locked bool
	file   int
}

// ID returns the lock's number, by which any process can retrieve it.
func (l *Locker) ID() uint32 { return l.id }

// Lock returns when the lock is held, as long as that may take. A signal does not end
// the wait. It panics on errors, with an error: of [Manager.Close], of permission, of
// a mount that has ended.
func (l *Locker) Lock() {
	l.turn.Lock()
	file, err := l.take()
	if err != nil {
		l.turn.Unlock()
		panic(l.m.failed("lock", l.id, err))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.locked, l.file = true, file
}

// take opens the lock's name and locks it. An open file is no hold, and a name that
// nobody holds is no file: nothing is left if it fails.
func (l *Locker) take() (file int, err error) {
	file, err = l.m.open(name(l.id), unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return 0, err
	}
	if err := eintr.Retry(func() error { return unix.Flock(file, unix.LOCK_EX) }); err != nil {
		unix.Close(file)
		return 0, err
	}
	return file, nil
}

// Unlock gives the lock back. It panics if nobody has locked it through this Locker,
// and if the lock was taken away meanwhile: ESTALE if somebody has broken it, EIO if
// its mirror was lost. It is not locked through this Locker then.
func (l *Locker) Unlock() {
	l.mu.Lock()
	locked, file := l.locked, l.file
	l.locked = false
	l.mu.Unlock()
	if !locked {
		panic(l.m.failed("unlock", l.id, errNotLocked))
	}
	// A process that is being forked may have the file open a moment longer.
	err := eintr.Retry(func() error { return unix.Flock(file, unix.LOCK_UN) })
	unix.Close(file)
	l.turn.Unlock()
	if err != nil {
		panic(l.m.failed("unlock", l.id, err))
	}
}

var errNotLocked = errors.New("it is not locked through this Locker")

// Free says that the lock's number may be allocated again. The lock itself, and who
// holds it, does not notice. Errors: [ErrNotAllocated], [ErrNoIDs].
func (l *Locker) Free() error {
	err := l.m.unlink(idsDirectory + "/" + name(l.id))
	if err == unix.ENOENT {
		err = ErrNotAllocated
		if size, sizeErr := l.m.lookAtSize(); sizeErr != nil || size == 0 {
			err = ErrNoIDs
		}
	}
	if err != nil {
		return l.m.failed("free", l.id, err)
	}
	return nil
}

var _ sync.Locker = (*Locker)(nil)

// String returns the number and where it is, for messages.
func (l *Locker) String() string { return fmt.Sprintf("lock %d in %s", l.id, l.m.path) }
