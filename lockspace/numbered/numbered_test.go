package numbered

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What is tested of mounts is in tests: here is what is not on one.

// libpod's interfaces Locker and Manager, but that Lockers have the type that
// they have here.
type locker interface {
	ID() uint32
	Lock()
	Unlock()
	Free() error
}

type manager[L locker] interface {
	AllocateLock() (L, error)
	RetrieveLock(id uint32) (L, error)
	AllocateAndRetrieveLock(id uint32) (L, error)
	FreeAllLocks() error
	AvailableLocks() (*uint32, error)
	LocksHeld() ([]uint32, error)
}

var _ manager[*Locker] = (*Manager)(nil)

func TestElsewhereThanOnLockfs(t *testing.T) {
	dir := t.TempDir()
	// It takes more than a file of that name.
	if err := os.MkdirAll(filepath.Join(dir, ".lockfs/policy"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, idsPolicy), []byte("10\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(dir); !errors.Is(err, ErrNotLockspace) {
		t.Errorf("New: %v", err)
	}
	if _, err := Open(dir, 10); !errors.Is(err, ErrNotLockspace) {
		t.Errorf("Open: %v", err)
	}
	if _, err := New(filepath.Join(dir, "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("New of nothing: %v", err)
	}
	made := filepath.Join(dir, "made")
	if _, err := Create(made, 10); !errors.Is(err, ErrNotLockspace) {
		t.Errorf("Create: %v", err)
	}
	if _, err := os.Stat(made); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Create has left a directory: %v", err)
	}
	if _, err := Create(dir, 10); !errors.Is(err, os.ErrExist) {
		t.Errorf("Create of what is there: %v", err)
	}
	if _, err := Create(made, 0); !errors.Is(err, ErrSize) {
		t.Errorf("Create of none: %v", err)
	}
}
