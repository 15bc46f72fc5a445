package tests

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is a program that takes a lock, then prints a line that begins with
// "held", and keeps the lock until its standard input ends.
type process struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr *logBuffer
	exited chan struct{} // closed when it was reaped
	held   chan struct{} // closed when it said "held", or its output ended
	end    sync.Once
	limit  time.Duration // how long it may take to answer

	mu   sync.Mutex
	line string // what it said: "held" and more; empty if it never did
}

// startProcess starts a program. It and the processes of its group die with
// the test.
func startProcess(t testing.TB, opts []clientOption, argv ...string) *process {
	t.Helper()
	p := &process{
		t: t, cmd: command(opts, argv...), stderr: newLogBuffer("\x00"),
		exited: make(chan struct{}), held: make(chan struct{}), limit: answerLimit,
	}
	// Pipes of our own: Wait must neither wait for a child that keeps the
	// output nor end the input of one that stays.
	inR, inW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = inW
	outR, outW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = inR, outW, errW
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %q: %v", argv, err)
	}
	inR.Close()
	outW.Close()
	errW.Close()
	go p.stderr.copyFrom(errR)
	go p.readOutput(outR)
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) readOutput(r io.ReadCloser) {
	defer r.Close()
	lines, said := bufio.NewReader(r), false
	for {
		line, err := lines.ReadString('\n')
		if !said && strings.HasPrefix(line, "held") {
			p.mu.Lock()
			p.line = strings.TrimSpace(line)
			p.mu.Unlock()
			said = true
			close(p.held)
		}
		if err != nil {
			if !said {
				close(p.held)
			}
			return
		}
	}
}

// Pid returns the number of the process that was started.
func (p *process) Pid() int { return p.cmd.Process.Pid }

// said returns the line that began with "held".
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.line
}

// Held waits until the process says that it holds the lock.
func (p *process) Held(t testing.TB) {
	t.Helper()
	if !p.got(t) {
		t.Fatalf("%q ended without the lock: %v %s", p.cmd.Args, p.cmd.ProcessState, p.stderr)
	}
}

// Refused waits until the process ends without having held the lock.
func (p *process) Refused(t testing.TB) {
	t.Helper()
	if p.got(t) {
		t.Fatalf("%q got the lock, want it refused", p.cmd.Args)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 1 {
		t.Fatalf("%q ended with %v, want exit code 1 for a lock that is refused: %s", p.cmd.Args, p.cmd.ProcessState, p.stderr)
	}
}

// got waits until the process has the lock (true) or has ended without it.
func (p *process) got(t testing.TB) bool {
	t.Helper()
	select {
	case <-p.held:
	case <-time.After(p.limit):
		t.Fatalf("%q neither got the lock nor ended within %v; its threads:\n%s", p.cmd.Args, p.limit, threads(p.Pid()))
	}
	if p.said() != "" {
		return true
	}
	p.awaitExit(t)
	return false
}

// MustBlock fails the test if the process gets the lock or ends within
// [blockTime].
func (p *process) MustBlock(t testing.TB) {
	t.Helper()
	select {
	case <-p.held:
		t.Fatalf("%q said %q, want it to wait for the lock: %s", p.cmd.Args, p.said(), p.stderr)
	case <-time.After(blockTime):
	}
}

// Release ends the process's standard input and waits for it to exit.
func (p *process) Release(t testing.TB) {
	t.Helper()
	p.stdin.Close()
	p.awaitExit(t)
}

// Kill ends the process that was started, but not its children, with SIGKILL
// and waits for it.
func (p *process) Kill(t testing.TB) {
	t.Helper()
	p.cmd.Process.Kill()
	p.awaitExit(t)
}

// Signal sends the process a signal.
func (p *process) Signal(sig syscall.Signal) { p.cmd.Process.Signal(sig) }

func (p *process) awaitExit(t testing.TB) {
	t.Helper()
	select {
	case <-p.exited:
	case <-time.After(p.limit):
		t.Fatalf("%q has not ended within %v; its threads:\n%s", p.cmd.Args, p.limit, threads(p.Pid()))
	}
}

// kill ends the process, with its group, when the test is over. If it has
// ended already, its children see their standard input end; the group's number
// may be another's by then.
func (p *process) kill() {
	p.end.Do(func() {
		select {
		case <-p.exited:
		default:
			syscall.Kill(-p.Pid(), syscall.SIGKILL)
		}
		p.stdin.Close()
		select {
		case <-p.exited:
		case <-time.After(answerLimit):
			p.t.Errorf("%q has not died %v after SIGKILL", p.cmd.Args, answerLimit)
		}
	})
}

// scriptLimit is how long a script may run.
const scriptLimit = 20 * time.Second

// sh runs a script with /bin/sh in the mount's directory, as the user who
// mounted it or as an option says, and returns what it wrote to standard
// output and its exit code. What it writes to standard error is logged if the
// test fails.
func sh(t testing.TB, m *Mount, script string, opts ...clientOption) (stdout string, exit int) {
	t.Helper()
	return runScript(t, m, "/bin/sh", script, opts)
}

// bash is sh with bash.
func bash(t testing.TB, m *Mount, script string, opts ...clientOption) (stdout string, exit int) {
	t.Helper()
	return runScript(t, m, "/bin/bash", script, opts)
}

func runScript(t testing.TB, m *Mount, shell, script string, opts []clientOption) (string, int) {
	t.Helper()
	// The shell changes the directory: the test process must not touch it.
	script = "cd " + m.Dir + " || exit 125\n" + script
	opts = append([]clientOption{asUser(m.uid, m.gid)}, opts...)
	stdout, stderr, exit := run(t, opts, shell, "-c", script)
	if stderr != "" {
		t.Logf("the script's standard error: %s", stderr)
	}
	return stdout, exit
}

// run runs a program to its end.
func run(t testing.TB, opts []clientOption, argv ...string) (stdout, stderr string, exit int) {
	t.Helper()
	return runFor(t, scriptLimit, opts, argv...)
}

// runFor is run for a program that may take longer.
func runFor(t testing.TB, limit time.Duration, opts []clientOption, argv ...string) (stdout, stderr string, exit int) {
	t.Helper()
	cmd := command(opts, argv...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting %q: %v", argv, err)
	}
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
		what := threads(cmd.Process.Pid)
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		t.Fatalf("%q has not ended within %v; its threads:\n%s", argv, limit, what)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
