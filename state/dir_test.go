package state

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// warnings collects what a Dir warns of.
type warnings []string

func (w *warnings) add(msg string, args ...any) { *w = append(*w, fmt.Sprint(msg, args)) }

func openDir(t testing.TB, path string) (*Dir, *warnings) {
	t.Helper()
	var w warnings
	d, err := OpenDir(path, w.add)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, &w
}

func mustReserved(t testing.TB, d *Dir) uint64 {
	t.Helper()
	n, err := d.Reserved()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestTokensAreReserved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, w := openDir(t, path)
	if n := mustReserved(t, d); n != 0 {
		t.Errorf("in a new directory: %d", n)
	}
	for _, want := range []uint64{1, 262144, maxTokens} {
		if err := d.Reserve(want); err != nil {
			t.Fatal(err)
		}
		if n := mustReserved(t, d); n != want {
			t.Errorf("got %d, want %d", n, want)
		}
	}
	d.Close()
	d, _ = openDir(t, path)
	if n := mustReserved(t, d); n != maxTokens {
		t.Errorf("opened again: %d", n)
	}
	if names := list(t, path); !slices.Equal(names, []string{"tokens"}) || len(*w) > 0 {
		t.Errorf("files %v, warnings %v", names, *w)
	}
}

func list(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A file that is not whole is set aside, with what is in it, and tokens go on
// above all that can have been given out.
func TestForeignTokensAreSetAside(t *testing.T) {
	good := encodeTokens(4711)
	cases := map[string][]byte{
		"empty":        {},
		"cut off":      good[:len(good)-1],
		"longer":       append(bytes.Clone(good), '\n'),
		"other number": bytes.Replace(good, []byte("4711"), []byte("4712"), 1),
		"other format": bytes.Replace(good, []byte("tokens 1"), []byte("tokens 2"), 1),
		"zeros":        make([]byte, len(good)),
		"large":        make([]byte, 1<<20),
		"too many":     encodeTokens(maxTokens + 1),
		"sign":         bytes.Replace(good, []byte("4711"), []byte("+4711"), 1),
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.WriteFile(filepath.Join(path, "tokens"), content, 0o600); err != nil {
				t.Fatal(err)
			}
			d, w := openDir(t, path)
			before := uint64(time.Now().UnixMicro())
			if n := mustReserved(t, d); n < before {
				t.Errorf("tokens go on from %d, want %d at least", n, before)
			}
			names := list(t, path)
			if len(names) != 1 || !strings.HasPrefix(names[0], "tokens.damaged-") {
				t.Fatalf("files %v", names)
			}
			if b, _ := os.ReadFile(filepath.Join(path, names[0])); !bytes.Equal(b, content) {
				t.Error("what was set aside was changed")
			}
			if len(*w) != 1 || !strings.Contains((*w)[0], names[0]) {
				t.Errorf("warnings %v", *w)
			}
		})
	}
	for name, make := range map[string]func(string) error{
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"symlink":   func(p string) error { return os.Symlink("/etc/passwd", p) },
		"fifo":      func(p string) error { return unix.Mkfifo(p, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			if err := make(filepath.Join(path, "tokens")); err != nil {
				t.Fatal(err)
			}
			d, _ := openDir(t, path)
			if n := mustReserved(t, d); n == 0 {
				t.Error("tokens begin anew")
			}
			if err := d.Reserve(5); err != nil || mustReserved(t, d) != 5 {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestADirectoryIsUsedByOne(t *testing.T) {
	path := t.TempDir()
	d, _ := openDir(t, path)
	if _, err := OpenDir(path, nil); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v", err)
	}
	d.Close()
	openDir(t, path)
}

// What others could have written there is not read.
func TestADirectoryOfOthersIsRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o777, 0o770, 0o702} {
		path := t.TempDir()
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenDir(path, nil); !errors.Is(err, ErrUntrusted) {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}

// A process that dies while it writes leaves the old number or the new one.
func TestTokensSurviveTheirWriter(t *testing.T) {
	if path := os.Getenv("STATE_TEST_DIR"); path != "" {
		d, err := OpenDir(path, nil)
		for n := uint64(1); err == nil; n++ {
			err = d.Reserve(n)
		}
		t.Fatal(err)
	}
	path := t.TempDir()
	last := uint64(0)
	for range 20 {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestTokensSurviveTheirWriter$")
		cmd.Env = append(os.Environ(), "STATE_TEST_DIR="+path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if _, err := os.Stat(filepath.Join(path, "tokens")); err == nil {
				break
			}
		}
		time.Sleep(20 * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		d, w := openDir(t, path)
		n := mustReserved(t, d)
		if len(*w) > 0 {
			t.Fatalf("after %d: %v", last, *w)
		}
		last = max(last, n)
		d.Close()
	}
	if last == 0 {
		t.Error("no reservation was made")
	}
}

func mustTakeUp(t testing.TB, d *Dir) []Record {
	t.Helper()
	r, err := d.Saved()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.DropSaved(); err != nil {
		t.Fatal(err)
	}
	return r
}

func sample() *Saved {
	var s Saved
	s.Put(1, 7, []byte("one"))
	s.Put(200, 1<<63, nil)
	s.Put(3, 9, bytes.Repeat([]byte("x"), MaxRecord))
	return &s
}

func TestSavedIsTakenUpOnce(t *testing.T) {
	path := t.TempDir()
	d, w := openDir(t, path)
	if r := mustTakeUp(t, d); r != nil {
		t.Errorf("from a new directory: %v", r)
	}
	if err := d.Save(&Saved{}); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(sample()); err != nil {
		t.Fatal(err)
	}
	d.Close()
	d, _ = openDir(t, path)
	equal := func(a, b Record) bool { return a.Kind == b.Kind && a.ID == b.ID && bytes.Equal(a.Data, b.Data) }
	if got := mustTakeUp(t, d); !slices.EqualFunc(got, sample().records, equal) {
		t.Errorf("got %.100v", got)
	}
	if r := mustTakeUp(t, d); r != nil || len(list(t, path)) > 0 {
		t.Errorf("a second time: %.100v", r)
	}
	if len(*w) > 0 {
		t.Error(*w)
	}
}

func TestARebootKeepsNothing(t *testing.T) {
	path := t.TempDir()
	d, w := openDir(t, path)
	other := encodeSaved("00000000-0000-0000-0000-000000000000", sample().records)
	if err := os.WriteFile(filepath.Join(path, "saved"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	if r := mustTakeUp(t, d); r != nil || len(list(t, path)) > 0 || len(*w) > 0 {
		t.Errorf("%.100v, files %v, warnings %v", r, list(t, path), *w)
	}
}

func TestForeignSavedIsSetAside(t *testing.T) {
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	good := encodeSaved(boot, sample().records)
	for i := 0; i < len(good); i += 1 + len(good)/97 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		checkSetAside(t, bad)
	}
	for _, n := range []int{0, 1, 16, 52, 84, len(good) - 1} {
		checkSetAside(t, good[:n])
	}
}

func checkSetAside(t *testing.T, content []byte) {
	t.Helper()
	path := t.TempDir()
	if err := os.WriteFile(filepath.Join(path, "saved"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	d, w := openDir(t, path)
	r := mustTakeUp(t, d)
	names := list(t, path)
	if r != nil || len(names) != 1 || !strings.HasPrefix(names[0], "saved.damaged-") || len(*w) != 1 {
		t.Errorf("%d bytes: took up %.100v, files %v, warnings %v", len(content), r, names, *w)
	}
}

func FuzzSaved(f *testing.F) {
	f.Add(encodeSaved(strings.Repeat("b", bootIDSize), sample().records))
	f.Add([]byte(savedMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		boot, records, err := decodeSaved(b)
		if err == nil && !bytes.Equal(encodeSaved(boot, records), b) {
			t.Error("accepted what would not have been written")
		}
	})
}

func FuzzTokens(f *testing.F) {
	f.Add(encodeTokens(1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeTokens(b); err == nil && !bytes.Equal(encodeTokens(n), b) {
			t.Error("accepted what would not have been written")
		}
	})
}

// Whoever comes next waits until the one before is gone.
func TestClaim(t *testing.T) {
	fd := create(t)
	if os.Getenv("STATE_TEST_CLAIM") != "" {
		if err := Claim(3); err != nil {
			t.Fatal(err)
		}
		fmt.Println("claimed")
		time.Sleep(time.Minute)
	}
	start := func() (*exec.Cmd, chan struct{}) {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestClaim$")
		cmd.Env = append(os.Environ(), "STATE_TEST_CLAIM=1")
		dup, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = []*os.File{os.NewFile(uintptr(dup), "state")}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		claimed := make(chan struct{})
		go func() {
			if _, err := out.Read(make([]byte, 8)); err == nil {
				close(claimed)
			}
		}()
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return cmd, claimed
	}
	first, claimed := start()
	select {
	case <-claimed:
	case <-time.After(10 * time.Second):
		t.Fatal("not claimed")
	}
	_, second := start()
	select {
	case <-second:
		t.Fatal("claimed by two")
	case <-time.After(200 * time.Millisecond):
	}
	first.Process.Kill()
	select {
	case <-second:
	case <-time.After(10 * time.Second):
		t.Fatal("not claimed after the first died")
	}
}
