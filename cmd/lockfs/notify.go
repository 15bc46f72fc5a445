package main

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The service manager, if there is one: sd_notify(3) and sd_listen_fds(3). What
// systemd says in environment variables is for the keeper, not for workers.

// manager is the connection to the service manager. A nil manager is none.
type manager struct {
	socket int
	// keeps: it keeps descriptors over our death.
	keeps bool
	// watchdog is within which time it wants a sign of life, 0 for never.
	watchdog time.Duration
	log      *slog.Logger
}

// Environment variables of sd_notify(3), sd_watchdog_enabled(3) and
// sd_listen_fds(3). FDSTORE is set by systemd 254 and later; a unit for older
// ones can set it itself, beside FileDescriptorStoreMax.
const (
	envNotify       = "NOTIFY_SOCKET"
	envWatchdog     = "WATCHDOG_USEC"
	envWatchdogPid  = "WATCHDOG_PID"
	envStore        = "FDSTORE"
	envListenPid    = "LISTEN_PID"
	envListenFds    = "LISTEN_FDS"
	envListenNames  = "LISTEN_FDNAMES"
	listenFirst     = 3
	storedPrefix    = "lockfs-"
	watchdogPerTime = 3 // signs of life within the time
)

// managerVariables are kept from workers.
var managerVariables = []string{envNotify, envWatchdog, envWatchdogPid, envStore, envListenPid, envListenFds, envListenNames, envHandover}

// connectManager returns the service manager that the environment names, nil
// if none.
func connectManager(log *slog.Logger) *manager {
	name := os.Getenv(envNotify)
	if name == "" {
		return nil
	}
	socket, err := dial(name)
	if err != nil {
		log.Warn("the service manager does not listen", "socket", name, "err", err)
		return nil
	}
	m := &manager{socket: socket, log: log}
	if n, err := strconv.Atoi(os.Getenv(envStore)); err == nil && n > 0 {
		m.keeps = true
	}
	if pid := os.Getenv(envWatchdogPid); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if usec, err := strconv.ParseInt(os.Getenv(envWatchdog), 10, 64); err == nil && usec > 0 {
			m.watchdog = time.Duration(usec) * time.Microsecond
		}
	}
	return m
}

// dial connects a datagram socket. Nobody may stop a lock service by not reading
// its messages: they wait for a second at most.
func dial(name string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1})
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: name}); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// keepsDescriptors reports whether it keeps descriptors over our death.
func (m *manager) keepsDescriptors() bool { return m != nil && m.keeps }

// say sends lines of sd_notify(3).
func (m *manager) say(lines ...string) {
	if m == nil {
		return
	}
	m.send(strings.Join(lines, "\n"))
}

func (m *manager) send(message string, fds ...int) {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(m.socket, []byte(message), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		m.log.Warn("the service manager does not take a message", "message", message, "err", err)
	}
}

// reloading says that a SIGHUP is being obeyed, and since when.
func (m *manager) reloading() {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	m.say("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/1000))
}

// store has the manager keep a descriptor for the next keeper.
func (m *manager) store(name string, fd int) {
	// systemd would close one that poll(2) reports an error for, as it does for
	// a connection that was aborted. What is to be done then, the keeper does.
	m.send("FDSTORE=1\nFDNAME="+storedPrefix+name+"\nFDPOLL=0", fd)
}

// forget has it give one up.
func (m *manager) forget(name string) {
	m.say("FDSTOREREMOVE=1", "FDNAME="+storedPrefix+name)
}

// ticks tells when a sign of life is due; never if none is wanted.
func (m *manager) ticks() <-chan time.Time {
	if m == nil || m.watchdog == 0 {
		return nil
	}
	return time.Tick(m.watchdog / watchdogPerTime)
}

// stored returns the descriptors that the manager kept, by name.
func stored() map[string]int {
	if os.Getenv(envListenPid) != strconv.Itoa(os.Getpid()) {
		return nil
	}
	n, err := strconv.Atoi(os.Getenv(envListenFds))
	if err != nil {
		return nil
	}
	fds := make(map[string]int)
	for i, name := range strings.Split(os.Getenv(envListenNames), ":") {
		if i >= n {
			break
		}
		unix.CloseOnExec(listenFirst + i)
		if name, ok := strings.CutPrefix(name, storedPrefix); ok {
			fds[name] = listenFirst + i
		}
	}
	return fds
}
