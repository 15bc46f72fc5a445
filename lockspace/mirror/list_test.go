package mirror

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseLocks(t *testing.T) {
	got, err := parseLocks(strings.NewReader(`1: OFDLCK ADVISORY  WRITE -1 00:01:101435 0 EOF
2: POSIX  ADVISORY  READ  812 fe:00:7 0 0
2: -> POSIX  ADVISORY  WRITE 813 fe:00:8 0 0
3: FLOCK  ADVISORY  WRITE 8388 fe:00:9 0 EOF
4: LEASE  ACTIVE    READ  99 fe:00:10 0 EOF
nonsense
`))
	if want := []uint64{7, 101435}; err != nil || !slices.Equal(slices.Sorted(maps.Keys(got)), want) {
		t.Errorf("inodes %v, %v, want %v", got, err, want)
	}
}

func TestLockedLists(t *testing.T) {
	dir := t.TempDir()
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for _, path := range []string{"sub", "sub/deep"} {
		if err := os.Mkdir(filepath.Join(dir, path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, locked := range map[string]bool{
		"b": true, "a\n ": true, "free": false, "sub/deep/x": true, "sub/deep/y": false,
	} {
		f, err := os.Create(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		lk := unix.Flock_t{Type: unix.F_WRLCK}
		if locked {
			if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink("b", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	b := NewBacking(root)
	for path, want := range map[string][]string{
		"": {"a\n ", "b"}, "sub": nil, "sub/deep": {"x"}, "missing": nil,
	} {
		if got, err := b.Locked(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q has the locked files %q, %v, want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]error{"..": unix.EINVAL, "a/../b": unix.EINVAL, "link": unix.ENOTDIR, "b": unix.ENOTDIR} {
		if got, err := b.Locked(path); !errors.Is(err, want) {
			t.Errorf("%q: %q, %v, want %v", path, got, err, want)
		}
	}
}
