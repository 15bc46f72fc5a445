package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/state"
)

// steps makes steps of functions, as a connection does.
type steps struct{ mu sync.Mutex }

func (s *steps) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// newTokens returns the tokens of a new mount, or of the worker after one.
func newTokens(t testing.TB, memory int, path string, r reservation) (*tokens, *steps) {
	t.Helper()
	m, err := state.Open(memory, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := new(steps)
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	dir := state.AdoptDir(fd, quiet.Warn)
	tk := &tokens{memory: m, dir: dir, do: func(f func()) {
		s.do(func() { f(); m.Tx().Commit() })
	}, log: quiet}
	t.Cleanup(func() { dir.Close() })
	tk.begin(r)
	return tk, s
}

func onDisk(t testing.TB, path string) uint64 {
	t.Helper()
	d, err := state.OpenDir(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	n, err := d.Reserved()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// No token is given out that is not reserved, on disk and in the memory, and
// nobody waits for the disk.
func TestTokensAreReservedBeforeTheyAreGivenOut(t *testing.T) {
	path := t.TempDir()
	memory, err := state.Create(1)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := state.OpenDir(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := firstTokens(dir)
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
	tk, s := newTokens(t, memory, path, first)
	last, waited := uint64(0), time.Time{}
	for last < 3*diskBlock {
		left := uint64(0)
		s.do(func() {
			if left = tk.Left(); left == 0 {
				return
			}
			token := tk.Next()
			if token != last+1 {
				t.Fatalf("token %d after %d", token, last)
			}
			last = token
			tk.memory.Tx().Commit()
		})
		if left == 0 { // no disk is that slow; this loop is that fast
			if waited.IsZero() {
				waited = time.Now()
			}
			if time.Since(waited) > 10*time.Second {
				t.Fatal("no more tokens")
			}
			time.Sleep(time.Millisecond)
		}
		if last%20_000 == 0 && onDisk(t, path) < last {
			t.Fatalf("token %d was given out, and %d are reserved", last, onDisk(t, path))
		}
	}
	for tk.busy.Load() { // or there would be two who write the file
		time.Sleep(time.Millisecond)
	}
	// The next worker goes on behind what the memory says.
	found, err := readMemory(tk.memory)
	if err != nil {
		t.Fatal(err)
	}
	next, _ := newTokens(t, memory, path, found.tokens)
	if token := next.Next(); token != last+1 {
		t.Errorf("token %d after %d", token, last)
	}
}

// With a disk that takes nothing, locks are refused when the tokens are used
// up, and granted again when it does.
func TestTokensWithoutADisk(t *testing.T) {
	path := t.TempDir()
	memory, err := state.Create(1)
	if err != nil {
		t.Fatal(err)
	}
	tk, s := newTokens(t, memory, path, reservation{0, 5})
	// Its first block was topped up; from here on no file can be made.
	if tk.onDisk != 5+diskBlock {
		t.Fatalf("%d reserved", tk.onDisk)
	}
	obstacle := filepath.Join(path, "tokens.new")
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	given := uint64(0)
	for range diskBlock + 100 {
		s.do(func() {
			if tk.Left() > 0 {
				given = tk.Next()
				tk.memory.Tx().Commit()
			}
		})
	}
	if given != 5+diskBlock {
		t.Errorf("%d tokens were given out of %d", given, 5+diskBlock)
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := uint64(0)
		s.do(func() { left = tk.Left() })
		if left > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no more tokens though the disk takes them again")
		}
	}
}

func TestDecodeTokens(t *testing.T) {
	for _, b := range [][]byte{nil, make([]byte, 15), make([]byte, 17), append(make([]byte, 7), 1, 0, 0, 0, 0, 0, 0, 0, 0)} {
		if _, err := decodeTokens(b); err == nil {
			t.Errorf("%v was accepted", b)
		}
	}
}
