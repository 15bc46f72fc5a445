package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// This file starts programs that use the Go package of numbered locks: those of
// clients/numbered, which make the calls that they are told to make.

// numberedBuilt makes the program.
var numberedBuilt = sync.OnceValue(func() error {
	args := []string{"build", "-o", filepath.Join(workDir, "numbered")}
	if raceEnabled {
		args = append(args, "-race")
	}
	return runQuietly("go", append(args, modulePath+"/tests/clients/numbered")...)
})

// numberedClient is a process that has a Manager, and Lockers by name.
type numberedClient struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser

	mu    sync.Mutex // guards what follows
	calls map[string]*numberedCall
	last  int
}

// numberedCall is a call under way; result is there when done is closed.
type numberedCall struct {
	t      testing.TB
	what   string
	done   chan struct{}
	result string
}

// newNumberedClient starts one. It dies with the test.
func newNumberedClient(t testing.TB, opts ...clientOption) *numberedClient {
	t.Helper()
	if err := built(); err != nil {
		t.Fatal(err)
	}
	if err := numberedBuilt(); err != nil {
		t.Fatal(err)
	}
	c := &numberedClient{t: t, cmd: command(opts, filepath.Join(workDir, "numbered")), calls: map[string]*numberedCall{}}
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stderr = os.Stderr
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go c.readAnswers(stdout)
	t.Cleanup(c.Kill)
	return c
}

func (c *numberedClient) readAnswers(stdout io.Reader) {
	for in := bufio.NewScanner(stdout); in.Scan(); {
		tag, result, _ := strings.Cut(in.Text(), " ")
		c.mu.Lock()
		call := c.calls[tag]
		delete(c.calls, tag)
		c.mu.Unlock()
		if call != nil {
			call.result = result
			close(call.done)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, call := range c.calls {
		call.result = "the process has gone"
		close(call.done)
	}
	c.calls = nil
}

// Kill ends the process with SIGKILL. It may be called more than once.
func (c *numberedClient) Kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// Start makes a call, and does not wait.
func (c *numberedClient) Start(format string, args ...any) *numberedCall {
	c.t.Helper()
	call := &numberedCall{t: c.t, what: fmt.Sprintf(format, args...), done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.t.Fatalf("%s: the process has gone", call.what)
	}
	c.last++
	tag := fmt.Sprint(c.last)
	c.calls[tag] = call
	if _, err := fmt.Fprintln(c.stdin, tag, call.what); err != nil {
		c.t.Fatalf("%s: %v", call.what, err)
	}
	return call
}

// Wait returns the result.
func (c *numberedCall) Wait() string {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(answerLimit):
		c.t.Fatalf("%s has not returned after %v", c.what, answerLimit)
	}
	return c.result
}

// MustBlock fails the test if the call returns.
func (c *numberedCall) MustBlock() {
	c.t.Helper()
	select {
	case <-c.done:
		c.t.Errorf("%s has returned %q, want it to wait", c.what, c.result)
	case <-time.After(blockTime):
	}
}

// Do makes a call and returns the result.
func (c *numberedClient) Do(format string, args ...any) string {
	c.t.Helper()
	return c.Start(format, args...).Wait()
}

// Want makes a call whose result must be, or begin with, want.
func (c *numberedClient) Want(want, format string, args ...any) {
	c.t.Helper()
	got := c.Do(format, args...)
	if got != want && !(strings.HasSuffix(want, ":") && strings.HasPrefix(got, want)) {
		c.t.Errorf("%s: %q, want %q", fmt.Sprintf(format, args...), got, want)
	}
}
