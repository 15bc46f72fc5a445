package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file ends mounts on which a test hangs. A process that waits for a
// FUSE server which never answers cannot be killed; aborting the connection
// gives every waiting system call an error, and the test goes on to fail.

// mountTimeout is how long a test may use a mount unless it says otherwise
// with [Mount.Deadline].
const mountTimeout = 60 * time.Second

const fusectl = "/sys/fs/fuse/connections"

type watchdog struct {
	m *Mount

	mu      sync.Mutex
	timer   *time.Timer
	limit   time.Duration
	stopped bool
	expired bool
}

func watchMount(m *Mount) *watchdog {
	w := &watchdog{m: m, limit: mountTimeout}
	w.timer = time.AfterFunc(w.limit, w.expire)
	return w
}

func (w *watchdog) reset(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped && !w.expired {
		w.limit = d
		w.timer.Reset(d)
	}
}

// stop ends the watch and reports whether it had to end the mount.
func (w *watchdog) stop() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
	w.timer.Stop()
	return w.expired
}

// expire runs when the time is over. It holds the mutex, so that the test
// cannot end while it reports.
func (w *watchdog) expire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	w.expired = true
	w.m.t.Errorf("the test has used %s for longer than %v, the connection is aborted; the daemon's threads:\n%s",
		w.m.Dir, w.limit, threads(w.m.Pid()))
	w.m.abort()
}

// abort makes the daemon print its goroutines, aborts the connection, and
// takes the mount away.
func (m *Mount) abort() {
	for _, pid := range append(children(m.Pid()), m.Pid()) {
		if pid > 0 {
			syscall.Kill(pid, syscall.SIGQUIT) // Go prints every goroutine and exits
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	select {
	case <-m.exited:
	case <-time.After(2 * time.Second):
	}
	if mi := mountAt(m.Dir); mi != nil {
		mi.abortConnection(m.t)
		detach(m.Dir)
	}
	select {
	case <-m.exited:
	case <-time.After(2 * time.Second):
		m.t.Errorf("killing the daemon, which ends neither by SIGQUIT nor when its connection is aborted")
		m.Signal(syscall.SIGKILL)
		<-m.exited
	}
}

// mountInfo is a line of /proc/self/mountinfo.
type mountInfo struct {
	minor  int // of st_dev: the connection's name in fusectl
	point  string
	fsType string
}

// mountAt returns the last mount on dir, without touching it, or nil.
func mountAt(dir string) *mountInfo {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	var found *mountInfo
	for line := range strings.Lines(string(text)) {
		// 36 35 0:52 / /mnt rw,noatime shared:1 - fuse.lockfs source options
		before, after, _ := strings.Cut(line, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(g) < 1 || unescapeMount(f[4]) != dir {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		n, _ := strconv.Atoi(minor)
		found = &mountInfo{minor: n, point: dir, fsType: g[0]}
	}
	return found
}

var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescapeMount(s string) string { return mountEscapes.Replace(s) }

func (mi *mountInfo) abortConnection(t testing.TB) {
	if entries, _ := os.ReadDir(fusectl); len(entries) == 0 {
		if err := unix.Mount("none", fusectl, "fusectl", 0, ""); err != nil && err != unix.EBUSY {
			t.Errorf("mounting fusectl: %v", err)
		}
	}
	file := filepath.Join(fusectl, strconv.Itoa(mi.minor), "abort")
	if err := os.WriteFile(file, []byte("1"), 0); err != nil && !os.IsNotExist(err) {
		t.Errorf("aborting the connection: %v", err)
	}
}

// detach takes everything that is mounted on dir away.
func detach(dir string) {
	for range 5 {
		if mountAt(dir) == nil {
			return
		}
		// umount -l, by a process that may hang instead of this one.
		cmd := exec.Command("umount", "-l", dir)
		if cmd.Start() != nil {
			return
		}
		done := make(chan struct{})
		go func() { cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			return
		}
	}
}

// children returns the direct children of a process. Not from
// /proc/PID/task/TID/children, which some kernels are built without.
func children(parent int) []int {
	var pids []int
	entries, _ := filepath.Glob("/proc/[0-9]*/status")
	line := fmt.Sprintf("\nPPid:\t%d\n", parent)
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		if err != nil || !strings.Contains(string(text), line) {
			continue // ended meanwhile
		}
		if n, err := strconv.Atoi(filepath.Base(filepath.Dir(entry))); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// threads describes what the threads of a process are doing.
func threads(pid int) string {
	var b strings.Builder
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, task := range tasks {
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join(task, name))
			return strings.TrimSpace(string(text))
		}
		fmt.Fprintf(&b, "  %s %s wchan=%s syscall=%s\n", filepath.Base(task), read("comm"), read("wchan"), read("syscall"))
	}
	if b.Len() == 0 {
		return "  no such process\n"
	}
	return b.String()
}
