package fs

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// This file finds the process that another one means by a number. Tools write
// their pid into the lock file as they know it, and in a container that is not
// the number by which this daemon knows them.

// Resolve finds the process that thread tid calls pid, in tid's pid namespace.
// The thread has to stay where it is, as one in a write(2) does.
//
// A number may be given to another process at any moment, so the process is
// held by a descriptor, and only then asked for its start and whether it is
// the one that was meant.
func (Proc) Resolve(tid, pid uint32) (Kin, bool) {
	if pid == 0 || pid > maxPid || !procIsOurs() {
		return Kin{}, false
	}
	ns, ok := namespaceOf(tid)
	if !ok {
		return Kin{}, false
	}
	defer ns.close()
	return identify(ns, pid)
}

// pidNamespace is the pid namespace of some thread.
type pidNamespace interface {
	// find returns this daemon's number of the process or thread that has the
	// number pid there.
	find(pid uint32) (n uint32, ok bool)
	// has reports whether this daemon's n is pid there.
	has(n, pid uint32) bool
	close()
}

// identify returns the process that is pid in ns.
func identify(ns pidNamespace, pid uint32) (Kin, bool) {
	n, ok := ns.find(pid)
	if !ok {
		return Kin{}, false
	}
	fd, err := unix.PidfdOpen(int(n), 0) // fails for a thread
	if err != nil {
		return Kin{}, false
	}
	defer unix.Close(fd)
	// Until ended says no, the process has its number, and what was read under
	// that number is about it.
	kin, ok := Proc{}.Kin(n)
	if !ok || !ns.has(n, pid) || ended(fd) {
		return Kin{}, false
	}
	return kin, true
}

// ended reports whether every thread of a pidfd's process has ended. A process
// whose first thread has ended before the others has not (pidfd_open(2)); nor
// has one of which another thread is calling execve(2), which ends the first.
func ended(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err != nil || n > 0
		}
	}
}

// namespaceOf returns the pid namespace of a thread.
func namespaceOf(tid uint32) (pidNamespace, bool) {
	level, ok := levelOf(tid)
	switch {
	case !ok:
		return nil, false
	case level == 0:
		return ownNamespace{}, true
	}
	fd, err := openNamespace(tid)
	if err != nil {
		return nil, false
	}
	ns := nestedNamespace{fd, level}
	if _, err := ns.translate(1); errors.Is(err, unix.ENOTTY) {
		return scannedNamespace{ns}, true
	}
	return ns, true
}

// openNamespace opens the pid namespace of a thread, which takes the right to
// look at its memory (namespaces(7), PTRACE_MODE_READ_FSCREDS).
func openNamespace(tid uint32) (fd int, err error) {
	return unix.Open(fmt.Sprintf("/proc/%d/ns/pid", tid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// numbersOf returns the numbers of a process or thread, from this daemon's pid
// namespace down to its own.
func numbersOf(tid uint32) []string { return numbersIn(strconv.FormatUint(uint64(tid), 10)) }

// numbersIn is numbersOf for an entry of /proc.
func numbersIn(entry string) []string {
	status, err := os.ReadFile("/proc/" + entry + "/status")
	if err != nil {
		return nil
	}
	return parseStatus(string(status))["NSpid"]
}

// levelOf returns how many pid namespaces below this daemon's a thread is.
func levelOf(tid uint32) (int, bool) {
	n := len(numbersOf(tid))
	return n - 1, n > 0
}

// procIsOurs is whether /proc shows this daemon's pid namespace, and not that
// of a host on whose /proc a container looks.
var procIsOurs = sync.OnceValue(func() bool { return len(numbersIn("self")) == 1 })

// ownNamespace is this daemon's pid namespace.
type ownNamespace struct{}

func (ownNamespace) find(pid uint32) (uint32, bool) { return pid, true }
func (ownNamespace) has(n, pid uint32) bool         { return n == pid }
func (ownNamespace) close()                         {}

// nestedNamespace is a pid namespace below this daemon's, whose numbers the
// kernel translates (NS_GET_PID_FROM_PIDNS, Linux 6.11).
type nestedNamespace struct {
	fd    int
	level int // how far below
}

func (ns nestedNamespace) close() { unix.Close(ns.fd) }

func (ns nestedNamespace) translate(pid uint32) (uint32, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(ns.fd), unix.NS_GET_PID_FROM_PIDNS, uintptr(pid))
	if errno != 0 {
		return 0, errno
	}
	return uint32(n), nil
}

func (ns nestedNamespace) find(pid uint32) (uint32, bool) {
	n, err := ns.translate(pid)
	return n, err == nil && n != 0
}

func (ns nestedNamespace) has(n, pid uint32) bool {
	now, ok := ns.find(pid)
	return ok && now == n
}

// scannedNamespace is a nestedNamespace on a kernel that does not translate
// numbers: /proc/PID/status has them all. In which namespaces they are is known
// only of processes whose namespace this daemon may look at.
type scannedNamespace struct{ nestedNamespace }

func (ns scannedNamespace) find(pid uint32) (uint32, bool) {
	dir, err := os.Open("/proc")
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return 0, false
	}
	for _, name := range names {
		n, err := strconv.ParseUint(name, 10, 32)
		if err == nil && ns.has(uint32(n), pid) {
			return uint32(n), true
		}
	}
	return 0, false
}

// has compares the number at the namespace's level, and the namespace at that
// level: the process may be in one that is nested further.
func (ns scannedNamespace) has(n, pid uint32) bool {
	numbers := numbersOf(n)
	if len(numbers) <= ns.level || numbers[ns.level] != strconv.FormatUint(uint64(pid), 10) {
		return false
	}
	fd, err := openNamespace(n)
	if err != nil {
		return false
	}
	for range len(numbers) - 1 - ns.level {
		parent, err := unix.IoctlRetInt(fd, unix.NS_GET_PARENT)
		unix.Close(fd)
		if err != nil {
			return false
		}
		fd = parent
	}
	defer unix.Close(fd)
	var want, got unix.Stat_t
	return unix.Fstat(ns.fd, &want) == nil && unix.Fstat(fd, &got) == nil &&
		want.Dev == got.Dev && want.Ino == got.Ino
}
