// Package tests holds the end-to-end tests: real mounts, real programs, one
// process for each party. They read like the contract; the numbers in their
// comments are the sections of the design they come from.
//
// The harness has four parts:
//
//   - [mount] and [mountAs] start the daemon on a fresh directory and check
//     at the end of the test that it leaves cleanly ([Mount]);
//   - [Client] is a separate process that makes the system calls that a test
//     tells it to, each on a thread of its own, so that one can wait in a
//     lock while others go on;
//   - [process] is any other program that takes a lock, says so, and keeps it
//     until its standard input ends; [sh] and [bash] run a script to its end;
//   - the watchdog (watchdog_test.go) ends a mount on which a test hangs.
//
// The rule that goes with them: the test process itself makes no system call
// on a mount. A thread that waits for a FUSE server that does not answer
// cannot even be killed.
//
// What the tests need beyond Go: root, /dev/fuse, and the Debian packages that
// tests/run installs. Nothing is skipped where something is missing.
package tests

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const modulePath = "github.com/lockfs/lockfs"

// workDir is a directory for what the tests build, which every user may
// enter. Made by TestMain.
var workDir string

func TestMain(m *testing.M) {
	if os.Getenv(clientEnv) != "" {
		os.Exit(clientMain(os.Args[1:]))
	}
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lockfs-tests-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests: no directory for what is built:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	workDir = dir
	return m.Run()
}

// built makes the daemon, the C clients and a copy of the test binary that
// every user may execute: once, when the first test needs one of them, so
// that benchmarks of the bare table need neither root nor gcc.
var built = sync.OnceValue(func() error {
	args := []string{"build", "-o", filepath.Join(workDir, "lockfs")}
	if raceEnabled {
		args = append(args, "-race")
	}
	if err := runQuietly("go", append(args, modulePath+"/cmd/lockfs")...); err != nil {
		return err
	}
	sources, err := filepath.Glob("clients/*.c")
	if err != nil {
		return err
	}
	for _, source := range sources {
		name := filepath.Base(source[:len(source)-len(".c")])
		err := runQuietly("gcc", "-std=gnu11", "-O1", "-Wall", "-Werror", "-pthread",
			"-o", filepath.Join(workDir, name), source)
		if err != nil {
			return err
		}
	}
	return copyTestBinary(filepath.Join(workDir, "client"))
})

// crashBuilt makes the daemon that dies where a plan says, without the race
// detector: it dies thousands of times.
var crashBuilt = sync.OnceValue(func() error {
	return runQuietly("go", "build", "-tags", "crashpoints", "-o", filepath.Join(workDir, crashDaemon), modulePath+"/cmd/lockfs")
})

const crashDaemon = "lockfs-crash"

// program returns the path of something that was built: "lockfs", crashDaemon,
// "client" or a C client's name without ".c".
func program(t testing.TB, name string) string {
	t.Helper()
	build := built
	if name == crashDaemon {
		build = crashBuilt
	}
	if err := build(); err != nil {
		t.Fatalf("building what the tests run: %v", err)
	}
	return filepath.Join(workDir, name)
}

func runQuietly(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %v\n%s", name, args, err, out)
	}
	return nil
}

// copyTestBinary copies the running program: go test leaves it in a directory
// that only root may enter.
func copyTestBinary(to string) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// eventually waits until cond is true, and fails the test if it is not after
// d. what says what is waited for.
func eventually(t testing.TB, d time.Duration, cond func() bool, what string) {
	t.Helper()
	for end := time.Now().Add(d); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}
