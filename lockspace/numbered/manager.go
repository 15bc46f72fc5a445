package numbered

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Files in a directory that has numbered locks.
const (
	allocFile     = ".lockfs/alloc"
	availableFile = ".lockfs/available"
	idsDirectory  = ".lockfs/ids"
	idsPolicy     = ".lockfs/policy/ids"
	holdPolicy    = ".lockfs/policy/hold"
	leasePolicy   = ".lockfs/policy/lease"

	unlimited = "unlimited"
)

// Manager allocates and retrieves the locks of a directory. Its methods may be called
// by several goroutines at once, and any number of Managers, in any number of
// processes, may be of one directory. Use [New], [Open] or [Create].
type Manager struct {
	dir  *os.File
	conn syscall.RawConn // dir's: no call uses its number when it has been closed
	path string
	// size is how many locks there were when that was last looked at.
	size atomic.Uint64
}

// New returns the Manager of a directory that has numbered locks. Errors:
// [ErrNotLockspace], [ErrNoIDs], [ErrPolicy], and those of opening it.
func New(dir string) (*Manager, error) {
	m, err := open(dir)
	if err != nil {
		return nil, err
	}
	if err := m.check(); err != nil {
		m.Close()
		return nil, fmt.Errorf("numbered locks in %s: %w", dir, err)
	}
	return m, nil
}

// Open is New for a directory that is known to have so many locks. Errors: [ErrSize]
// if it has not, and those of New.
func Open(dir string, locks uint32) (*Manager, error) {
	m, err := New(dir)
	if err != nil {
		return nil, err
	}
	if m.size.Load() != uint64(locks) {
		m.Close()
		return nil, fmt.Errorf("numbered locks in %s: want %d: %w", dir, locks, ErrSize)
	}
	return m, nil
}

// Create makes a directory on a lockfs mount, for the user to write to, with so many
// numbered locks: 0 to locks-1. Errors: [ErrSize] if that is 0, EEXIST (as errors.Is
// with [os.ErrExist]), and those of New. Who opens it before Create has returned may
// find that it has no locks yet.
func Create(dir string, locks uint32) (*Manager, error) {
	if locks == 0 {
		return nil, fmt.Errorf("numbered locks in %s: want 0: %w", dir, ErrSize)
	}
	return create(dir, strconv.FormatUint(uint64(locks), 10))
}

// CreateUnlimited is Create with as many locks as there are numbers.
func CreateUnlimited(dir string) (*Manager, error) { return create(dir, unlimited) }

func create(dir, ids string) (*Manager, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	m, err := open(dir)
	if err == nil {
		// What it inherits is its parent's business; ids come last.
		for _, s := range [][2]string{{holdPolicy, "handle"}, {leasePolicy, "0"}, {idsPolicy, ids}} {
			if err = m.write(s[0], s[1]); err != nil {
				break
			}
		}
		if err == nil {
			err = m.check()
		}
		if err != nil {
			m.Close()
		}
	}
	if err != nil {
		_ = os.Remove(dir) // what is in the way is what is told
		return nil, fmt.Errorf("create numbered locks in %s: %w", dir, err)
	}
	return m, nil
}

// open opens a directory of a lockfs mount.
func open(dir string) (*Manager, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	m := &Manager{dir: f, path: dir}
	if m.conn, err = f.SyscallConn(); err == nil {
		err = m.at(func(dir int) error {
			// A file of that name elsewhere is none of lockfs's.
			var s unix.Statfs_t
			if err := unix.Fstatfs(dir, &s); err != nil {
				return err
			}
			if s.Type != unix.FUSE_SUPER_MAGIC || unix.Faccessat(dir, idsPolicy, unix.F_OK, 0) != nil {
				return ErrNotLockspace
			}
			return nil
		})
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("numbered locks in %s: %w", dir, err)
	}
	return m, nil
}

// check looks at the directory's policy.
func (m *Manager) check() error {
	hold, err := m.read(holdPolicy)
	if err != nil {
		return err
	}
	lease, err := m.read(leasePolicy)
	if err != nil {
		return err
	}
	if hold != "handle" || lease != "0" {
		return fmt.Errorf("hold=%s lease=%s: %w", hold, lease, ErrPolicy)
	}
	size, err := m.lookAtSize()
	if err == nil && size == 0 {
		err = ErrNoIDs
	}
	return err
}

// lookAtSize finds out how many locks there are.
func (m *Manager) lookAtSize() (uint64, error) {
	ids, err := m.read(idsPolicy)
	if err != nil {
		return 0, err
	}
	size := uint64(math.MaxUint32 + 1)
	if ids != unlimited {
		if size, err = strconv.ParseUint(ids, 10, 32); err != nil {
			return 0, err
		}
	}
	m.size.Store(size)
	return size, nil
}

// has says whether there is a lock of a number: nil, [ErrRange], or an error. There
// may be more than there were.
func (m *Manager) has(id uint32) error {
	if uint64(id) < m.size.Load() {
		return nil
	}
	size, err := m.lookAtSize()
	if err == nil && uint64(id) >= size {
		err = ErrRange
	}
	return err
}

// Close gives the directory up. Lockers that have locked something keep it, and can
// be unlocked; everything else fails from then on.
func (m *Manager) Close() error { return m.dir.Close() }

// AllocateLock returns a lock that is not allocated, and is from now on. Errors:
// [ErrAllAllocated], [ErrNoIDs].
func (m *Manager) AllocateLock() (*Locker, error) {
	text, err := m.read(allocFile)
	switch {
	case errors.Is(err, unix.ENOSPC):
		err = ErrAllAllocated
	case errors.Is(err, unix.ENOENT):
		err = ErrNoIDs
	}
	var id uint64
	if err == nil {
		id, err = strconv.ParseUint(text, 10, 32)
	}
	if err != nil {
		return nil, fmt.Errorf("allocate a lock in %s: %w", m.path, err)
	}
	return &Locker{m: m, id: uint32(id)}, nil
}

// RetrieveLock returns the lock of a number, whether that is allocated or not: it is
// the same lock for everybody who retrieves it. Errors: [ErrRange].
func (m *Manager) RetrieveLock(id uint32) (*Locker, error) {
	if err := m.has(id); err != nil {
		return nil, m.failed("retrieve", id, err)
	}
	return &Locker{m: m, id: id}, nil
}

// AllocateAndRetrieveLock allocates the lock of a number. Errors: [ErrAllocated],
// [ErrRange], [ErrNoIDs].
func (m *Manager) AllocateAndRetrieveLock(id uint32) (*Locker, error) {
	fd, err := m.open(idsDirectory+"/"+name(id), unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	switch err {
	case nil:
		_ = unix.Close(fd) // it was made
		return &Locker{m: m, id: id}, nil
	case unix.EEXIST:
		err = ErrAllocated
	case unix.ERANGE:
		err = ErrRange
	case unix.ENOENT:
		err = ErrNoIDs
	}
	return nil, m.failed("allocate", id, err)
}

// FreeAllLocks frees all locks that are allocated. It is not one step: what others
// allocate meanwhile may be freed or not, and of what others still use they are not
// told. It is for tests, and for who numbers all that has locks anew.
func (m *Manager) FreeAllLocks() error {
	names, err := m.list(idsDirectory)
	if errors.Is(err, unix.ENOENT) {
		err = ErrNoIDs
	}
	for _, name := range names {
		if err == nil {
			err = m.unlink(idsDirectory + "/" + name)
		}
		if err == unix.ENOENT {
			err = nil // another has freed it
		}
	}
	if err != nil {
		return fmt.Errorf("free all locks in %s: %w", m.path, err)
	}
	return nil
}

// AvailableLocks returns how many locks can still be allocated, nil if there are as
// many as there are numbers. That the user may have too many of them elsewhere does
// not count. Errors: [ErrNoIDs].
func (m *Manager) AvailableLocks() (*uint32, error) {
	text, err := m.read(availableFile)
	if errors.Is(err, unix.ENOENT) {
		err = ErrNoIDs
	}
	if text == unlimited {
		return nil, nil
	}
	var n uint64
	if err == nil {
		n, err = strconv.ParseUint(text, 10, 32)
	}
	if err != nil {
		return nil, fmt.Errorf("available locks in %s: %w", m.path, err)
	}
	available := uint32(n)
	return &available, nil
}

// LocksHeld returns the numbers of the locks that somebody has locked, in their
// order: what ls shows of the directory. They were held at some time during the call.
func (m *Manager) LocksHeld() ([]uint32, error) {
	names, err := m.list(".")
	if err == nil {
		_, err = m.lookAtSize()
	}
	if err != nil {
		return nil, fmt.Errorf("locks held in %s: %w", m.path, err)
	}
	held := []uint32{}
	for _, text := range names {
		id, err := strconv.ParseUint(text, 10, 32)
		if err == nil && name(uint32(id)) == text && id < m.size.Load() {
			held = append(held, uint32(id))
		}
	}
	slices.Sort(held)
	return held, nil
}

// failed is an error about one lock.
func (m *Manager) failed(what string, id uint32, err error) error {
	return fmt.Errorf("%s lock %d in %s: %w", what, id, m.path, err)
}

// name is the name of a lock in the directory, and of its number in ids.
func name(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
