package tests

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// This file is what the stress tests have in common. They run the numbers that
// the contract names; what is only a duration is short and can be made longer.

// longEnv is a factor for the duration of stress tests, for soak runs:
// LOCKFS_TEST_LONG=20 go test -run ...
const longEnv = "LOCKFS_TEST_LONG"

// stressTime returns how long a stress test that by default takes d runs.
func stressTime(t testing.TB, d time.Duration) time.Duration {
	t.Helper()
	return d * time.Duration(stressFactor(t))
}

func stressFactor(t testing.TB) int {
	t.Helper()
	text := os.Getenv(longEnv)
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a whole number from 1 on", longEnv, text)
	}
	return n
}

// stressed returns a number of rounds, or of locks, that the contract names. The
// race detector makes everything several times as slow, and finds with a
// quarter of them what it finds: they are meant for the plain daemon.
func stressed(n int) int {
	if raceEnabled {
		return n / 4
	}
	return n
}

// stressLimit is how long a single program of a stress test may run: enough
// for the slowest machine and the race detector. The mount's own deadline must
// be longer ([Mount.Deadline]), or its end is blamed instead.
const stressLimit = 5 * time.Minute

// stressMount is mount for tests that may use up [stressLimit].
func stressMount(t testing.TB, flags ...string) *Mount {
	t.Helper()
	m := mount(t, flags...)
	m.Deadline(time.Duration(stressFactor(t))*stressLimit + mountTimeout)
	return m
}

// background is a program that runs beside the test.
type background struct {
	argv           []string
	pid            int
	stdout, stderr bytes.Buffer
	exit           int
	done           chan struct{} // closed when it was reaped
}

// startProgram starts a program. It and the processes of its group die with
// the test.
func startProgram(t testing.TB, opts []clientOption, argv ...string) *background {
	t.Helper()
	cmd := command(opts, argv...)
	p := &background{argv: argv, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %.200q: %v", argv, err)
	}
	p.pid = cmd.Process.Pid
	go func() {
		cmd.Wait()
		p.exit = cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *background) kill() {
	select {
	case <-p.done:
	default:
		syscall.Kill(-p.pid, syscall.SIGKILL)
	}
}

// await waits for the program to end.
func (p *background) await(t testing.TB, limit time.Duration) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		t.Fatalf("%.200q has not ended within %v; its threads:\n%.5000s", p.argv, limit, threads(p.pid))
	}
}

// output runs one of the C clients to its end and returns what it printed. It
// must exit with 0.
func output(t testing.TB, opts []clientOption, name string, args ...string) string {
	t.Helper()
	p := startProgram(t, opts, append([]string{program(t, name)}, args...)...)
	p.await(t, time.Duration(stressFactor(t))*stressLimit)
	if p.exit != 0 {
		t.Fatalf("%.200q ended with %d: %s%s", p.argv, p.exit, p.stdout.String(), p.stderr.String())
	}
	return p.stdout.String()
}

// heldLocks returns how many holds there are on a mount, as statfs(2) tells:
// "the number of files".
func heldLocks(t testing.TB, m *Mount) int {
	t.Helper()
	out, _ := sh(t, m, `stat -f -c %c .`)
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatalf("stat -f printed %q", out)
	}
	return n
}

// wantNothingHeld fails the test unless nothing is held and nothing is listed.
func wantNothingHeld(t testing.TB, m *Mount) {
	t.Helper()
	if n := heldLocks(t, m); n != 0 {
		t.Errorf("%d holds are left", n)
	}
	if out, _ := sh(t, m, `ls -a | head -20`); out != ".\n..\n" {
		t.Errorf("names are left: %q", out)
	}
}

// hoarderPause is between the death of one hoarder and the birth of the next,
// or they would have the daemon to themselves.
const hoarderPause = 300 * time.Millisecond

// hoarders are processes that hold many locks each.
type hoarders struct {
	stop chan struct{}
	wait sync.WaitGroup

	mu     sync.Mutex
	killed int
	err    error
}

// killHoarders starts processes, so many at a time, that take locks whose
// paths begin with path, kills each as soon as it has them all, and goes on
// with the next after a pause.
func killHoarders(t testing.TB, processes, locks int, path string) *hoarders {
	t.Helper()
	hs := &hoarders{stop: make(chan struct{})}
	binary := program(t, "hoard")
	for i := range processes {
		hs.wait.Go(func() {
			for {
				err := hoardAndDie(binary, locks, fmt.Sprintf("%s%d.", path, i))
				hs.mu.Lock()
				hs.killed++
				if err != nil {
					hs.err = err
				}
				hs.mu.Unlock()
				select {
				case <-hs.stop:
					return
				case <-time.After(hoarderPause):
				}
				if err != nil {
					return
				}
			}
		})
	}
	return hs
}

// Killed returns how many processes were killed so far.
func (hs *hoarders) Killed() int {
	hs.mu.Lock()
	defer hs.mu.Unlock()
	return hs.killed
}

// Stop returns how many processes were killed, when the last one is dead.
func (hs *hoarders) Stop(t testing.TB) int {
	t.Helper()
	close(hs.stop)
	hs.wait.Wait()
	if hs.err != nil {
		t.Errorf("a process that takes many locks: %v", hs.err)
	}
	return hs.killed
}

// hoardAndDie is one process's life.
func hoardAndDie(binary string, locks int, path string) error {
	cmd := command(nil, binary, strconv.Itoa(locks), path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	said := make([]byte, len("held\n"))
	_, err = io.ReadFull(stdout, said)
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil || string(said) != "held\n" {
		return errors.New("it ended early: " + stderr.String())
	}
	return nil
}
