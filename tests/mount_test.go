package tests

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	readyLimit  = 20 * time.Second
	leaveLimit  = 10 * time.Second
	readyMarker = "msg=ready"
)

// Mount is a running daemon and the directory it is mounted on.
type Mount struct {
	// Dir is the mount point. The test process does not touch it.
	Dir string

	// program is the daemon's file.
	program  string
	t        testing.TB
	parent   string // Dir's directory, removed at the end
	uid, gid uint32 // who runs the daemon
	// namespaces are CLONE_NEW... flags: what the daemon does not share with
	// the tests.
	namespaces uintptr

	wrapper []string   // what runs the daemon, as prlimit(1) does
	argv    []string   // how the daemon was started
	env     []string   // what it gets beside the tests' environment
	lent    []*os.File // its descriptors from 3 on
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the daemon was reaped
	stderr  *logBuffer
	watch   *watchdog
	stop    sync.Once
	killed  bool // by Kill: no clean end is expected
}

// mount starts `lockfs --backing none FLAGS DIR` as root on a fresh
// directory and returns when it is usable. When the test is over, the daemon
// must leave the mount on SIGTERM, exit with 0 and have reported neither a
// data race nor a panic.
func mount(t testing.TB, flags ...string) *Mount {
	t.Helper()
	return startMount(t, 0, 0, flags)
}

// mountAs is mount by an ordinary user, through fusermount3. Nobody else, not
// even root, can enter the mount: use clients with [asUser].
func mountAs(t testing.TB, uid, gid uint32, flags ...string) *Mount {
	t.Helper()
	return startMount(t, uid, gid, flags)
}

// mountOf is mount with a daemon of its own, which the test may replace.
func mountOf(t testing.TB, binary string, flags ...string) *Mount {
	t.Helper()
	needRoot(t)
	m := newMount(t)
	m.program = binary
	m.mount(flags)
	return m
}

func startMount(t testing.TB, uid, gid uint32, flags []string) *Mount {
	t.Helper()
	needRoot(t)
	if uid != 0 {
		openDevice(t)
	}
	m := newMount(t)
	m.uid, m.gid = uid, gid
	m.mount(flags)
	return m
}

// newMount returns a mount that has not been started.
func newMount(t testing.TB) *Mount {
	t.Helper()
	return &Mount{t: t, program: program(t, "lockfs"), parent: mountParent(t)}
}

// mount starts the daemon with the usual arguments, and some flags.
func (m *Mount) mount(flags []string) {
	t := m.t
	t.Helper()
	m.Dir = filepath.Join(m.parent, "m")
	if err := os.Mkdir(m.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(m.Dir, int(m.uid), int(m.gid)); err != nil {
		t.Fatal(err)
	}
	state := m.StateDir()
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(state, int(m.uid), int(m.gid)); err != nil {
		t.Fatal(err)
	}
	argv := append(slices.Clone(m.wrapper), m.program)
	argv = append(append(argv, "--log-level", "debug", "--state-dir", state), flags...)
	m.start(append(argv, m.Dir))
	t.Cleanup(m.Stop)
	m.awaitReady()
	m.watch = watchMount(m)
}

// mountParent makes a directory for a mount point that every user may enter.
func mountParent(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockfs-mount-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// openDevice lets every user open /dev/fuse for the time of the test, as the
// udev rule of Debian's fuse3 does; where udev does not run, nobody did it.
func openDevice(t testing.TB) {
	t.Helper()
	st, err := os.Stat("/dev/fuse")
	if err != nil {
		t.Fatalf("without /dev/fuse nothing can be mounted: %v", err)
	}
	if st.Mode().Perm() == 0o666 {
		return
	}
	if err := os.Chmod("/dev/fuse", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod("/dev/fuse", st.Mode().Perm()) })
}

// start starts the daemon.
func (m *Mount) start(argv []string) {
	m.t.Helper()
	m.argv = argv
	m.cmd = command([]clientOption{asUser(m.uid, m.gid), withEnv(m.env...)}, argv...)
	m.cmd.ExtraFiles = m.lent
	m.cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM // so that it unmounts
	m.cmd.SysProcAttr.Cloneflags = m.namespaces
	m.stderr = newLogBuffer(readyMarker)
	r, w, err := os.Pipe()
	if err != nil {
		m.t.Fatal(err)
	}
	m.cmd.Stderr = w
	if err := m.cmd.Start(); err != nil {
		m.t.Fatalf("starting the daemon: %v", err)
	}
	w.Close()
	go m.stderr.copyFrom(r)
	m.exited = make(chan struct{})
	go func() {
		m.cmd.Wait()
		close(m.exited)
	}()
}

func (m *Mount) awaitReady() {
	m.t.Helper()
	select {
	case <-m.stderr.seen:
	case <-m.exited:
		m.t.Fatalf("the daemon ended (%v) before it was ready:\n%s", m.cmd.ProcessState, m.Stderr())
	case <-time.After(readyLimit):
		m.t.Fatalf("no %q on standard error within %v:\n%s", readyMarker, readyLimit, m.Stderr())
	}
}

// StateDir returns the directory where the daemon keeps its state.
func (m *Mount) StateDir() string { return filepath.Join(m.parent, "state") }

// Path returns the path of a name on the mount.
func (m *Mount) Path(name string) string { return m.Dir + "/" + name }

// Pid returns the process that the test started; 0 once it was reaped.
func (m *Mount) Pid() int {
	select {
	case <-m.exited:
		return 0
	default:
		return m.cmd.Process.Pid
	}
}

// Worker returns the process that serves the mount now, or is about to, 0 if
// there is none at the moment.
func (m *Mount) Worker() int {
	if m.namespaces == 0 {
		return m.stderr.lastWorker()
	}
	// The daemon logs numbers that are not ours.
	for _, pid := range children(m.Pid()) {
		return pid
	}
	return 0
}

// Stderr returns what the daemon has written to standard error so far.
func (m *Mount) Stderr() string { return m.stderr.String() }

// Deadline sets how long the test may still use the mount (default:
// [mountTimeout] from the start).
func (m *Mount) Deadline(d time.Duration) { m.watch.reset(d) }

// AwaitExit waits for the daemon to end by itself and returns its exit code.
func (m *Mount) AwaitExit(t testing.TB) int {
	t.Helper()
	select {
	case <-m.exited:
		return m.cmd.ProcessState.ExitCode()
	case <-time.After(leaveLimit):
		t.Fatalf("the daemon has not ended within %v", leaveLimit)
		return -1
	}
}

// Signal sends the daemon a signal.
func (m *Mount) Signal(sig syscall.Signal) {
	if pid := m.Pid(); pid != 0 {
		syscall.Kill(pid, sig)
	}
}

// SignalAll sends a signal to keeper and worker.
func (m *Mount) SignalAll(sig syscall.Signal) {
	worker := m.Worker()
	m.Signal(sig)
	if worker != 0 {
		syscall.Kill(worker, sig)
	}
}

// Kill ends keeper and worker with SIGKILL and leaves a dead mount behind,
// until the end of the test. Both are stopped first: the keeper would start
// another worker, and a worker ends the mount of a keeper that is gone.
func (m *Mount) Kill() {
	m.killed = true
	worker := m.Worker()
	m.SignalAll(syscall.SIGSTOP)
	m.Signal(syscall.SIGKILL)
	if worker != 0 {
		syscall.Kill(worker, syscall.SIGKILL)
	}
	<-m.exited
}

// Restart starts the daemon again, as it was, when end has ended it.
func (m *Mount) Restart(end func()) {
	m.t.Helper()
	end()
	m.AwaitExit(m.t)
	<-m.stderr.ended
	if mountAt(m.Dir) != nil {
		detach(m.Dir)
	}
	m.killed = false
	m.start(m.argv)
	m.awaitReady()
}

// Quit tells the daemon to end.
func (m *Mount) Quit() { m.Signal(syscall.SIGTERM) }

// Stop ends the mount and checks that it ends well. It may be called more
// than once.
func (m *Mount) Stop() { m.stop.Do(m.end) }

func (m *Mount) end() {
	m.t.Helper()
	if m.exited == nil {
		return // it never started
	}
	expired := m.watch != nil && m.watch.stop()
	m.awaitReplaced()
	m.Signal(syscall.SIGTERM)
	select {
	case <-m.exited:
	case <-time.After(leaveLimit):
		m.t.Errorf("the daemon is still there %v after SIGTERM", leaveLimit)
		m.abort()
	}
	if code := m.cmd.ProcessState.ExitCode(); code != 0 && !m.killed && !expired {
		m.t.Errorf("the daemon ended with %v, want exit code 0", m.cmd.ProcessState)
	}
	if mountAt(m.Dir) != nil {
		if !m.killed && !expired {
			m.t.Errorf("%s is still mounted after the daemon ended", m.Dir)
		}
		detach(m.Dir)
	}
	select {
	case <-m.stderr.ended:
	case <-time.After(leaveLimit):
		m.t.Errorf("the daemon ended, but a process that it started still has its standard error")
	}
	for _, bad := range []string{"DATA RACE", "panic"} {
		if strings.Contains(m.Stderr(), bad) && !expired {
			m.t.Errorf("the daemon reported %q", bad)
		}
	}
	if m.t.Failed() {
		m.t.Logf("the daemon on %s wrote:\n%s", m.Dir, m.Stderr())
	}
	if mountAt(m.Dir) == nil { // never walk into a mount
		os.Remove(m.Dir)
		os.RemoveAll(m.StateDir())
		os.Remove(m.parent)
	}
}

// awaitReplaced waits until a keeper that is being replaced is: a SIGTERM ends it
// meanwhile, and the mount with it, but not with exit code 0.
func (m *Mount) awaitReplaced() {
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		log := m.Stderr()
		begun := strings.LastIndex(log, `msg="replacing the program"`)
		if begun < 0 {
			return
		}
		for _, done := range []string{"the program was replaced", "cannot be the keeper", "cannot take over"} {
			if strings.Contains(log[begun:], done) {
				return
			}
		}
	}
}

// logBuffer collects a stream and tells when a marker has come by.
type logBuffer struct {
	seen   chan struct{} // closed when a line with the marker has come
	ended  chan struct{} // closed at the end of the stream
	marker string

	mu  sync.Mutex
	buf bytes.Buffer
	// worker is the one whose start, and not yet whose death, was logged;
	// serving is the last that was logged to serve, dead are those that died.
	worker, serving, dead int
}

func newLogBuffer(marker string) *logBuffer {
	return &logBuffer{seen: make(chan struct{}), ended: make(chan struct{}), marker: marker}
}

func (b *logBuffer) copyFrom(r io.ReadCloser) {
	defer close(b.ended)
	defer r.Close()
	lines, seen := bufio.NewReader(r), false
	for {
		line, err := lines.ReadString('\n')
		b.mu.Lock()
		b.buf.WriteString(line)
		if pid, ok := logged(line, "msg=\"worker started\" worker="); ok {
			b.worker = pid
		} else if pid, ok := logged(line, " worker="); ok && (strings.Contains(line, b.marker) || strings.Contains(line, "a new worker serves")) {
			b.serving = pid
		} else if pid, ok := logged(line, "msg=\"the worker died\" worker="); ok {
			b.dead++
			if pid == b.worker {
				b.worker = 0
			}
		}
		b.mu.Unlock()
		if !seen && strings.Contains(line, b.marker) {
			seen = true
			close(b.seen)
		}
		if err != nil {
			return
		}
	}
}

// logged returns the number that follows a text in a line.
func logged(line, text string) (n int, ok bool) {
	_, after, ok := strings.Cut(line, text)
	if ok {
		_, err := fmt.Sscan(after, &n)
		ok = err == nil
	}
	return n, ok
}

func (b *logBuffer) lastWorker() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.worker
}

// lastServing returns the last worker that was logged to serve, and how many
// workers were logged to have died.
func (b *logBuffer) lastServing() (pid, dead int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.serving, b.dead
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
