package mirror

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

func TestParseLocks(t *testing.T) {
	got := make(map[uint64]bool)
	parseLocks([]byte(`1: OFDLCK ADVISORY  WRITE -1 00:01:101435 0 EOF
2: POSIX  ADVISORY  READ  812 fe:00:7 0 0
2: -> POSIX  ADVISORY  WRITE 813 fe:00:8 0 0
3: FLOCK  ADVISORY  WRITE 8388 fe:00:9 0 EOF
4: LEASE  ACTIVE    READ  99 fe:00:10 0 EOF
nonsense
`), got)
	if want := []uint64{7, 101435}; !slices.Equal(slices.Sorted(maps.Keys(got)), want) {
		t.Errorf("inodes %v, want %v", got, want)
	}
}

// What is locked all the time is found, but for one of very many, whoever locks and
// unlocks something else meanwhile.
func TestLockedWhileOthersComeAndGo(t *testing.T) {
	const stay, come = 450, 50
	dir := t.TempDir()
	var inodes []uint64
	lock := func(name string) func(typ int16) {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		fd := f.Fd()
		return func(typ int16) {
			lk := unix.Flock_t{Type: typ}
			if err := eintr.Retry(func() error { return unix.FcntlFlock(fd, unix.F_OFD_SETLK, &lk) }); err != nil {
				t.Error(err)
			}
		}
	}
	var others []func(int16)
	for i := range come {
		others = append(others, lock(fmt.Sprint("other", i)))
	}
	for i := range stay {
		name := fmt.Sprint("stays", i)
		lock(name)(unix.F_WRLCK)
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil {
			t.Fatal(err)
		}
		inodes = append(inodes, st.Ino)
	}
	stop := make(chan struct{})
	var churn sync.WaitGroup
	defer churn.Wait()
	defer close(stop)
	churn.Go(func() {
		for {
			for _, typ := range []int16{unix.F_WRLCK, unix.F_UNLCK} {
				for _, set := range others {
					select {
					case <-stop:
						return
					default:
						set(typ)
					}
				}
			}
		}
	})
	file, err := os.Open("/proc/locks")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	missing := func(found map[uint64]bool) (n int) {
		for _, inode := range inodes {
			if !found[inode] {
				n++
			}
		}
		return n
	}
	once, all := 0, 0
	for end := time.Now().Add(time.Minute); once < 200 && time.Now().Before(end); {
		text, _, err := readAgain(file)
		if err != nil {
			t.Fatal(err)
		}
		found := make(map[uint64]bool)
		parseLocks(text, found)
		once += missing(found)
		if found, err = lockedInodes(); err != nil {
			t.Fatal(err)
		}
		all += missing(found)
	}
	t.Logf("%d were missing when it was read once, %d of as many altogether", once, all)
	if all > once/10 {
		t.Errorf("%d were missing when it was read once, %d of as many altogether", once, all)
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
