package rwlock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Lock is somebody who uses a lock: he holds it, waits for it, or does neither. To
// be made by [Init]. Its methods may be called from several goroutines, see the
// package comment.
type Lock struct {
	path  string // absolute
	check string // the file that tells the state of the lock

	mu    sync.Mutex // guards what follows; not held while waiting
	state state
	fd    int // that holds the lock, when reading and writing
}

// state is what a [Lock] does.
type state int

const (
	idle state = iota
	waiting
	reading
	writing
)

func (s state) String() string {
	return [...]string{"idle", "waiting", "reading", "writing"}[s]
}

// Init returns somebody new who uses the lock with a path, MOUNT/NAME or
// MOUNT/DIR/NAME. It does not change the lock: others may have it, and there need not be
// a file.
//
// Errors: [ErrNotLockfs], [ErrPolicy], [ErrBadName].
func Init(path string) (*Lock, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(path)
	const longest = 255 // NAME_MAX
	if name == "" || name == control || len(name) > longest || strings.Contains(path, "\x00") {
		return nil, fmt.Errorf("%w: %q", ErrBadName, name)
	}
	hold, err := os.ReadFile(filepath.Join(dir, control, "policy", "hold"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: %s", ErrNotLockfs, dir)
	case err != nil:
		return nil, err
	case strings.TrimSpace(string(hold)) == "open":
		return nil, fmt.Errorf("%w: %s", ErrPolicy, dir)
	}
	return &Lock{path: path, check: filepath.Join(dir, control, "lock", name, "check"), fd: -1}, nil
}

// control is the name of the control directory.
const control = ".lockfs"

// ObtainReadLock waits until it holds the lock together with no writer.
//
// Errors: [ErrTwice]; those of open(2) and flock(2): the lock is not held then.
func (l *Lock) ObtainReadLock() error { return l.ObtainReadLockContext(context.Background()) }

// ObtainWriteLock waits until it holds the lock together with nobody. Errors as of
// [Lock.ObtainReadLock].
func (l *Lock) ObtainWriteLock() error { return l.ObtainWriteLockContext(context.Background()) }

// ObtainReadLockContext is ObtainReadLock, and gives up, with the error of the context,
// when that is done. With a context that can be done, a child process waits,
// flock(1) of util-linux; waiting is in order nevertheless.
func (l *Lock) ObtainReadLockContext(ctx context.Context) error {
	return l.obtain(ctx, unix.LOCK_SH, reading)
}

// ObtainWriteLockContext is ObtainWriteLock with a context, as
// [Lock.ObtainReadLockContext].
func (l *Lock) ObtainWriteLockContext(ctx context.Context) error {
	return l.obtain(ctx, unix.LOCK_EX, writing)
}

func (l *Lock) obtain(ctx context.Context, how int, then state) error {
	l.mu.Lock()
	if now := l.state; now != idle {
		l.mu.Unlock()
		return fmt.Errorf("%w: %s is %v", ErrTwice, l.path, now)
	}
	l.state = waiting
	l.mu.Unlock()

	fd, err := take(ctx, l.path, how)

	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.state = idle
		return fmt.Errorf("lock %s: %w", l.path, err)
	}
	l.state, l.fd = then, fd
	return nil
}

// ReleaseReadLock gives back what [Lock.ObtainReadLock] obtained.
//
// Errors: [ErrNotHeld], [ErrMode]. With [ErrLost] the lock is released nevertheless.
func (l *Lock) ReleaseReadLock() error { return l.release(reading) }

// ReleaseWriteLock gives back what [Lock.ObtainWriteLock] obtained. Errors as of
// [Lock.ReleaseReadLock].
func (l *Lock) ReleaseWriteLock() error { return l.release(writing) }

func (l *Lock) release(held state) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.state == idle || l.state == waiting:
		return fmt.Errorf("%w: %s", ErrNotHeld, l.path)
	case l.state != held:
		return fmt.Errorf("%w: %s is %v", ErrMode, l.path, l.state)
	}
	err := flock(l.fd, unix.LOCK_UN)
	unix.Close(l.fd)
	l.state, l.fd = idle, -1
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrLost, l.path, err)
	}
	return nil
}

// CheckLock tells of the lock, whoever holds it and by whatever call: -1 if somebody
// holds it exclusively, else how many hold it shared, 0 if nobody does. What it says
// may have changed by the time it returns.
//
// Errors are those of open(2) and read(2): EACCES for who may not list the directory.
func (l *Lock) CheckLock() (int, error) {
	text, err := os.ReadFile(l.check)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
