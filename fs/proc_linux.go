package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Proc is the Processes of a running system, from system calls and /proc.
type Proc struct{}

// Leader sends no signal to thread tid of process tid: ESRCH says that there
// is no such thread in such a process.
func (Proc) Leader(tid uint32) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_TGKILL, uintptr(tid), uintptr(tid), 0)
	return errno != unix.ESRCH
}

// Alive sends no signal to process pid.
func (Proc) Alive(pid uint32) bool {
	_, _, errno := unix.RawSyscall(unix.SYS_KILL, uintptr(pid), 0, 0)
	return errno != unix.ESRCH
}

// Look reads /proc/TID/stat, status and cgroup. What an unprivileged daemon
// may not read stays empty.
func (Proc) Look(tid uint32) (ProcessInfo, bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return ProcessInfo{}, false
	}
	var info ProcessInfo
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		switch fields := strings.Fields(value); key {
		case "Tgid":
			info.Pid = number(fields)
		case "PPid":
			info.Parent = number(fields)
		case "State":
			info.Gone = len(fields) > 0 && (fields[0] == "Z" || fields[0] == "X")
		case "Groups":
			for _, g := range fields {
				info.Groups = append(info.Groups, number([]string{g}))
			}
		}
	}
	// Of the process, not the thread: its start, its name.
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", info.Pid))
	if err != nil {
		return ProcessInfo{}, false
	}
	if info.Comm, info.Started, err = parseStat(stat); err != nil {
		return ProcessInfo{}, false
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", info.Pid)); err == nil {
		info.Cgroup = parseCgroup(string(b))
	}
	return info, true
}

func number(fields []string) uint32 {
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseUint(fields[0], 10, 32)
	return uint32(n)
}

// userHZ is the unit of times in /proc, the same on every Linux that Go runs
// on.
const userHZ = 100

var errStat = errors.New("not a line of /proc/PID/stat")

// parseStat takes the name and the start time, field 22, out of
// /proc/PID/stat (proc(5)). The name is in parentheses and may contain some.
func parseStat(line []byte) (comm string, started time.Duration, err error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return "", 0, errStat
	}
	const first, start = 3, 22 // the field behind the name, and the one wanted
	fields := strings.Fields(string(line[end+1:]))
	if len(fields) <= start-first {
		return "", 0, errStat
	}
	ticks, err := strconv.ParseInt(fields[start-first], 10, 64)
	if err != nil {
		return "", 0, errStat
	}
	return string(line[open+1 : end]), time.Duration(ticks) * (time.Second / userHZ), nil
}

// parseCgroup returns the path in the unified hierarchy, or in the first there
// is, from /proc/PID/cgroup (cgroups(7)).
func parseCgroup(s string) string {
	path := ""
	for line := range strings.Lines(s) {
		line = strings.TrimSuffix(line, "\n")
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[0] == "0" {
			return parts[2]
		}
		if path == "" {
			path = parts[2]
		}
	}
	return path
}

// WaitClass looks at the system call that a thread is in: fcntl's second
// argument tells POSIX from OFD locks, which FUSE does not.
func (Proc) WaitClass(tid uint32) lockspace.Class {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
	if err != nil {
		return lockspace.ClassUnknown
	}
	fields := strings.Fields(string(b))
	if len(fields) < 3 {
		return lockspace.ClassUnknown // "running"
	}
	command, err := strconv.ParseUint(strings.TrimPrefix(fields[2], "0x"), 16, 64)
	if err != nil {
		return lockspace.ClassUnknown
	}
	// Not by the number of the call, which depends on the caller's word size:
	// a thread that waits for an fcntl lock is in some fcntl. 13 and 14 are
	// F_SETLK64 and F_SETLKW64 of 32-bit programs.
	switch command {
	case unix.F_SETLK, unix.F_SETLKW, 13, 14:
		return lockspace.ClassPOSIX
	case unix.F_OFD_SETLK, unix.F_OFD_SETLKW:
		return lockspace.ClassOFD
	}
	return lockspace.ClassUnknown
}

// User asks the system's user database.
func (Proc) User(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

// Host returns the host name.
func (Proc) Host() string {
	name, _ := os.Hostname()
	return name
}

// SystemClock is the [lockspace.Clock] of a running system. It is used within
// steps only.
//
// The time since boot is not among the clocks that Go reads without a system
// call, so it is derived from the monotonic clock, which runs alike except
// that it stands still while the machine is suspended; the difference is
// measured anew when it is a second old. Within a second after a suspension
// times may come out too early. They are compared with the start of processes,
// where too early is the safe side: a process may be taken for another, not
// another for it.
type SystemClock struct {
	measured time.Time     // with the monotonic clock's reading
	boot     time.Duration // since boot, at measured
}

// Now reads both clocks.
func (c *SystemClock) Now() lockspace.Instant {
	now := time.Now()
	if since := now.Sub(c.measured); since > time.Second || since < 0 {
		var ts unix.Timespec
		// Cannot fail: the clock exists since Linux 2.6.39.
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
		c.measured, c.boot = now, time.Duration(ts.Nano())
	}
	return lockspace.Instant{Wall: now.UnixNano(), Boot: c.boot + now.Sub(c.measured)}
}

var (
	_ Processes       = Proc{}
	_ lockspace.Clock = (*SystemClock)(nil)
)
