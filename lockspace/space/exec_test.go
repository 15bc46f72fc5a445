package space_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/lockfs/lockfs/lockspace/space"
)

// A process that becomes another program keeps its locks: the test binary itself,
// first with beforeExec set, then, by execve(2), with afterExec.
const (
	beforeExec = "SPACE_TEST_BEFORE_EXEC" // the directory
	afterExec  = "SPACE_TEST_AFTER_EXEC"  // the state
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(afterExec) != "":
		fatal(after(os.Getenv(afterExec)))
	case os.Getenv(beforeExec) != "":
		fatal(before(os.Getenv(beforeExec)))
	default:
		os.Exit(m.Run())
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

const oddName = "caf\xe9\n\"\\"

func before(dir string) error {
	s, err := space.New(dir)
	if err != nil {
		return err
	}
	err = errors.Join(
		s.AcquireResource("excl", 1, space.AutoCreate),
		s.AcquireResource(oddName, 1, space.Shared|space.AutoCreate),
		s.AcquireResource(oddName, 2, space.Shared),
		s.AcquireResource(oddName, 2, space.Shared),
	)
	if err != nil {
		return err
	}
	// One that fails first: nothing is lost by it, and nothing is inherited.
	_, undo, err := s.PreExec()
	if err != nil {
		return err
	}
	if err := syscall.Exec("/nonexistent", nil, nil); err == nil {
		return errors.New("exec of nothing succeeded")
	}
	undo()
	inherited, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
	if err != nil || strings.Contains(string(inherited), dir) {
		return fmt.Errorf("a child has the files: %s (%v)", inherited, err)
	}
	if err := errors.Join(s.AcquireResource("third", 3, space.AutoCreate), s.ReleaseResource("third", 3)); err != nil {
		return err
	}

	state, _, err := s.PreExec()
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(exe, os.Args[:1], append(os.Environ(), afterExec+"="+string(state)))
}

// after says "held" when it has the space, checks it when it may go on, and ends
// when its input does.
func after(state string) error {
	s, err := space.NewPostExec([]byte(state))
	if err != nil {
		return err
	}
	fmt.Println("held")
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	if err := s.Check(); err != nil {
		return err
	}
	inherited, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
	if err != nil || strings.Contains(string(inherited), s.Directory()) {
		return fmt.Errorf("a child has the files: %s (%v)", inherited, err)
	}
	if err := s.ReleaseResource("excl", 2); !errors.Is(err, space.ErrWrongOwner) {
		return fmt.Errorf("release by the wrong owner: %v", err)
	}
	n, err := s.ReleaseResourcesForOwner(2)
	if n != 2 || err != nil {
		return fmt.Errorf("owner 2 had %d (%v), want 2", n, err)
	}
	if err := s.ReleaseResource(oddName, 1); err != nil {
		return err
	}
	fmt.Println("released")
	io.Copy(io.Discard, in)
	return s.Close()
}

func TestAProcessThatBecomesAnotherProgramKeepsItsLocks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "space")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), beforeExec+"="+dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	out := bufio.NewReader(stdout)
	says := func(want string) {
		t.Helper()
		if line, err := out.ReadString('\n'); line != want+"\n" {
			rest, _ := io.ReadAll(out)
			t.Fatalf("it says %q %s (%v), want %q", line, rest, err, want)
		}
	}
	try := func(s *space.Space, name string, flags space.Flags, want error) {
		t.Helper()
		if err := s.AcquireResource(name, 9, flags); !errors.Is(err, want) {
			t.Errorf("acquire %q: %v, want %v", name, err, want)
		}
	}
	says("held")
	s, err := space.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	try(s, "excl", 0, space.ErrBusy)
	try(s, oddName, 0, space.ErrBusy)
	try(s, oddName, space.Shared, nil)
	if _, err := s.ReleaseResourcesForOwner(9); err != nil {
		t.Error(err)
	}
	fmt.Fprintln(stdin)
	says("released")
	try(s, "excl", 0, space.ErrBusy)
	if _, err := os.Stat(filepath.Join(dir, oddName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("autocreate was forgotten: %v", err)
	}
	stdin.Close()
	if rest, err := io.ReadAll(out); len(rest) > 0 || err != nil {
		t.Errorf("it says %s (%v)", rest, err)
	}
	try(s, "excl", space.AutoCreate, nil)
}
