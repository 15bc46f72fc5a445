package tests

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.8: "under systemd [the keeper] leaves its descriptors in the FD store". The
// service manager of these tests does what sd_notify(3) and sd_listen_fds(3)
// say of systemd.

// serviceManager receives what a daemon says, and keeps its descriptors.
type serviceManager struct {
	t    testing.TB
	path string
	conn *net.UnixConn

	mu    sync.Mutex
	lines []string
	from  map[string]int // the process that said a line last
	store map[string]*os.File
}

func newServiceManager(t testing.TB, dir string) *serviceManager {
	t.Helper()
	s := &serviceManager{t: t, path: filepath.Join(dir, "notify"), from: map[string]int{}, store: map[string]*os.File{}}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	s.conn = conn
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}); err != nil {
		t.Fatal(err)
	}
	go s.receive()
	t.Cleanup(func() {
		conn.Close()
		os.Remove(s.path)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range s.store {
			f.Close()
		}
	})
	return s
}

func (s *serviceManager) receive() {
	b, oob := make([]byte, 4096), make([]byte, 1024)
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUnix(b, oob)
		if err != nil {
			return
		}
		s.obey(strings.Split(string(b[:n]), "\n"), oob[:oobn])
	}
}

// obey takes a message in.
func (s *serviceManager) obey(lines []string, oob []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	values := map[string]string{}
	for _, line := range lines {
		key, value, _ := strings.Cut(line, "=")
		values[key] = value
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		s.t.Errorf("a message of %q with strange extras: %v", lines, err)
	}
	for _, m := range messages {
		if c, err := unix.ParseUnixCredentials(&m); err == nil {
			for _, line := range lines {
				s.from[line] = int(c.Pid)
			}
		}
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			f := os.NewFile(uintptr(fd), values["FDNAME"])
			if values["FDSTORE"] != "1" || values["FDNAME"] == "" || s.store[f.Name()] != nil {
				f.Close()
				continue
			}
			s.store[f.Name()] = f
		}
	}
	if values["FDSTOREREMOVE"] == "1" {
		if f := s.store[values["FDNAME"]]; f != nil {
			f.Close()
			delete(s.store, values["FDNAME"])
		}
	}
	s.lines = append(s.lines, lines...)
}

// said returns how often a line that begins with something has come.
func (s *serviceManager) said(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

func (s *serviceManager) await(prefix string, times int) {
	s.t.Helper()
	eventually(s.t, readyLimit, func() bool { return s.said(prefix) >= times }, fmt.Sprintf("%d times %q", times, prefix))
}

func (s *serviceManager) stored() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.store {
		names = append(names, name)
	}
	return names
}

// environment is what the service manager says to a daemon.
func (s *serviceManager) environment() []string {
	return []string{"NOTIFY_SOCKET=" + s.path, "FDSTORE=16", "WATCHDOG_USEC=600000"}
}

// again has a mount's daemon started once more, as the main process of the
// same service.
func (s *serviceManager) again(m *Mount) {
	s.t.Helper()
	<-m.exited
	<-m.stderr.ended
	s.mu.Lock()
	var names []string
	m.lent = nil
	for name, f := range s.store {
		copied, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			s.t.Fatal(err)
		}
		names, m.lent = append(names, name), append(m.lent, os.NewFile(uintptr(copied), name))
	}
	s.mu.Unlock()
	defer func() {
		for _, f := range m.lent {
			f.Close()
		}
	}()
	argv := m.argv
	m.env = append(s.environment(), "LISTEN_FDS="+strconv.Itoa(len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	m.start(append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, argv...))
	m.argv = argv
	m.awaitReady()
}

// managed starts a mount as a service.
func managed(t testing.TB) (*Mount, *serviceManager) {
	t.Helper()
	needRoot(t)
	m := newMount(t)
	s := newServiceManager(t, m.parent)
	m.env = s.environment()
	m.mount(nil)
	return m, s
}

func TestAServiceSaysHowItIs(t *testing.T) {
	m, s := managed(t)
	keeper := m.Pid()
	s.await("READY=1", 1)
	s.await("WATCHDOG=1", 3)
	m.Signal(syscall.SIGHUP)
	s.await("RELOADING=1", 1)
	s.await("MONOTONIC_USEC=", 1)
	s.await("READY=1", 2)
	s.await("WATCHDOG=1", 6)
	m.Stop()
	s.await("STOPPING=1", 1)
	s.mu.Lock() // something may yet come
	for line, pid := range s.from {
		if pid != keeper && !strings.HasPrefix(line, "FD") {
			t.Errorf("%q came from process %d, not from the main process %d", line, pid, keeper)
		}
	}
	s.mu.Unlock()
	eventually(t, readyLimit, func() bool { return len(s.stored()) == 0 }, "the store is empty")
}

// The keeper may die where somebody keeps its descriptors.
func TestAServiceSurvivesItsKeeper(t *testing.T) {
	m, s := managed(t)
	s.await("READY=1", 1)
	holder := newClient(t)
	fd := holder.Open(m.Path("lock"), takeFlags)
	wantErr(t, "write", holder.Write(fd, "text"), nil)
	first := queueUp(t, m.Path("lock"), exclusively)
	second := queueUp(t, m.Path("lock"), exclusively)
	token := nextToken(t, m)
	for range 3 {
		worker := m.Worker()
		m.Signal(syscall.SIGKILL)
		s.again(m)
		if now := m.Worker(); now == worker {
			t.Errorf("worker %d outlived its keeper", worker)
		}
		first.wait.MustBlock(t)
		if out, _ := sh(t, m, "cat lock"); out != "text" {
			t.Errorf("the body is %q", out)
		}
		if now := nextToken(t, m); now <= token {
			t.Errorf("token %d after %d", now, token)
		}
	}
	_, err := newClient(t).TryOpen(m.Path("lock"), takeFlags)
	wantErr(t, "another taker", err, syscall.EEXIST)
	wantErr(t, "close", holder.Close(fd), nil)
	wantErr(t, "the first waiter", first.wait.Wait(t), nil)
	second.wait.MustBlock(t)
	first.Kill()
	wantErr(t, "the second waiter", second.wait.Wait(t), nil)
	m.Stop()
	eventually(t, readyLimit, func() bool { return len(s.stored()) == 0 }, "the store is empty")
}

// Keeper and worker at once: nobody is left but the descriptors.
func TestAServiceSurvivesAllItsProcesses(t *testing.T) {
	m, s := managed(t)
	s.await("READY=1", 1)
	holder := newClient(t)
	holder.Open(m.Path("lock"), takeFlags)
	m.Kill()
	m.killed = false
	c := newClient(t)
	waiting := c.StartOpen(m.Path("lock"), takeFlags)
	time.Sleep(50 * time.Millisecond)
	s.again(m)
	wantErr(t, "a call that began while nobody served", waiting.Wait(t), syscall.EEXIST)
	wantHolder(t, m.Path("lock"), holder.Pid())
}
