package tests

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// answerLimit is how long a system call that should not wait may take, and
// how long [Pending.Wait] waits.
const answerLimit = 10 * time.Second

// errGone is the outcome of a call whose client process died.
var errGone = errors.New("the client process has gone")

// Client is a process that makes the system calls it is told to make.
//
// Methods may be called from several goroutines. Those which fail the test on
// an error (they return no error) only from the test's own.
type Client struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	// onMain has calls made by the process's first thread, whose number is the
	// process's. To be set while no call is under way; one at a time then.
	onMain bool
	ended  sync.Once

	mu      sync.Mutex // guards what follows, and writing to stdin
	lastID  uint64
	calls   map[uint64]*Pending // not yet answered
	gone    bool
	enc     *json.Encoder
	stopped chan struct{} // closed when the process was reaped
}

// newClient starts a client. It dies with the test.
func newClient(t testing.TB, opts ...clientOption) *Client {
	t.Helper()
	cmd := command(append(opts, withEnv(clientEnv+"=1")), program(t, "client"))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting a client: %v", err)
	}
	c := &Client{
		t: t, cmd: cmd, stdin: stdin, enc: json.NewEncoder(stdin),
		calls: map[uint64]*Pending{}, stopped: make(chan struct{}),
	}
	go c.readAnswers(stdout)
	t.Cleanup(c.Kill)
	return c
}

// Pid returns the process's number.
func (c *Client) Pid() int { return c.cmd.Process.Pid }

// Signal sends the process a signal, such as SIGSTOP and SIGCONT.
func (c *Client) Signal(sig syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		c.t.Fatalf("signal %v to client %d: %v", sig, c.Pid(), err)
	}
}

// Kill ends the process with SIGKILL and returns when it was reaped. It may be
// called more than once.
func (c *Client) Kill() {
	c.t.Helper()
	c.ended.Do(func() {
		c.cmd.Process.Kill()
		select {
		case <-c.stopped:
		case <-time.After(answerLimit):
			c.t.Errorf("client %d has not died %v after SIGKILL; its threads:\n%s", c.Pid(), answerLimit, threads(c.Pid()))
		}
		c.stdin.Close()
	})
}

// Exit ends the process in the ordinary way, without closing anything first,
// and returns when it was reaped.
func (c *Client) Exit() {
	c.t.Helper()
	c.ended.Do(func() {
		c.stdin.Close()
		select {
		case <-c.stopped:
		case <-time.After(answerLimit):
			c.t.Errorf("client %d has not ended after %v; its threads:\n%s", c.Pid(), answerLimit, threads(c.Pid()))
			c.cmd.Process.Kill()
		}
	})
}

func (c *Client) readAnswers(stdout io.Reader) {
	answers := json.NewDecoder(bufio.NewReader(stdout))
	for {
		var a answer
		if answers.Decode(&a) != nil {
			break
		}
		c.mu.Lock()
		p := c.calls[a.ID]
		delete(c.calls, a.ID)
		c.mu.Unlock()
		if p == nil {
			continue
		}
		if a.Errno != 0 {
			p.err = syscall.Errno(a.Errno)
		}
		p.answer = a
		close(p.done)
	}
	c.cmd.Wait()
	close(c.stopped)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	for id, p := range c.calls {
		p.err = errGone
		close(p.done)
		delete(c.calls, id)
	}
}

// start sends a request and returns without waiting for its answer.
func (c *Client) start(r request) *Pending {
	p := &Pending{c: c, what: r.Op + " " + string(r.Path), done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	r.ID, r.OnMain = c.lastID, c.onMain
	c.calls[r.ID] = p
	if c.gone || c.enc.Encode(&r) != nil {
		delete(c.calls, r.ID)
		p.err = errGone
		close(p.done)
	}
	return p
}

// call sends a request and waits for its answer.
func (c *Client) call(r request) (answer, error) {
	c.t.Helper()
	p := c.start(r)
	err := p.Wait(c.t)
	return p.answer, err
}

// do is call for requests that must succeed.
func (c *Client) do(r request) answer {
	c.t.Helper()
	a, err := c.call(r)
	if err != nil {
		c.t.Fatalf("client %d: %s %s: %v", c.Pid(), r.Op, r.Path, err)
	}
	return a
}

// Pending is a call under way in a client.
type Pending struct {
	c      *Client
	what   string
	done   chan struct{} // closed when the following are set
	answer answer
	err    error
}

// blockTime is how long a call must not return to count as waiting.
const blockTime = 100 * time.Millisecond

// Done reports whether the call has returned.
func (p *Pending) Done() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// MustBlock fails the test if the call returns within [blockTime].
func (p *Pending) MustBlock(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
		t.Fatalf("client %d: %s returned (%v), want it to wait", p.c.Pid(), p.what, p.err)
	case <-time.After(blockTime):
	}
}

// Number returns what the call returned, such as a descriptor, after Wait.
func (p *Pending) Number() int { return p.answer.N }

// Wait waits for the call to return and returns its error: nil, a
// syscall.Errno, or errGone. A call that takes longer than [answerLimit] fails
// the test.
func (p *Pending) Wait(t testing.TB) error {
	t.Helper()
	select {
	case <-p.done:
		return p.err
	case <-time.After(answerLimit):
		t.Fatalf("client %d: %s has not returned after %v; its threads:\n%s",
			p.c.Pid(), p.what, answerLimit, threads(p.c.Pid()))
		return nil
	}
}
