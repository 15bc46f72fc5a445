package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
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

// LeaderOf reads /proc/TID/status.
func (Proc) LeaderOf(tid uint32) (pid uint32, ok bool) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, false
	}
	pid = number(parseStatus(string(status))["Tgid"])
	return pid, pid != 0
}

// Kin reads /proc/PID/stat.
func (Proc) Kin(pid uint32) (Kin, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Kin{}, false
	}
	s, err := parseStat(b)
	return Kin{Pid: pid, Parent: s.parent, Started: s.started}, err == nil
}

// Killed reads /proc/TID/stat: the flags say that the thread is at its end, and
// the code, which the kernel has set by then, that a signal ended it. The code
// takes the right to trace the process; without it nobody was killed.
func (Proc) Killed(tid uint32) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", tid))
	if err != nil {
		return false
	}
	s, err := parseStat(b)
	return err == nil && s.killed
}

// Namespace is the number of the file that stands for the namespace.
func (Proc) Namespace() uint64 {
	var st unix.Stat_t
	_ = unix.Stat("/proc/self/ns/pid", &st)
	return st.Ino
}

// Look reads /proc/TID/stat, status and cgroup. What an unprivileged daemon
// may not read stays empty.
func (p Proc) Look(tid uint32) (ProcessInfo, bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return ProcessInfo{}, false
	}
	status := parseStatus(string(text))
	pid := number(status["Tgid"])
	// Of the process, not the thread: its start, its name, its end.
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ProcessInfo{}, false
	}
	s, err := parseStat(b)
	if err != nil {
		return ProcessInfo{}, false
	}
	info := ProcessInfo{
		Kin:  Kin{Pid: pid, Parent: s.parent, Started: s.started},
		Gone: s.gone,
		Comm: s.comm,
	}
	for _, g := range status["Groups"] {
		info.Groups = append(info.Groups, number([]string{g}))
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err == nil {
		info.Cgroup = parseCgroup(string(b))
	}
	return info, true
}

// parseStatus takes /proc/PID/status apart (proc(5)).
func parseStatus(s string) map[string][]string {
	fields := make(map[string][]string)
	for line := range strings.Lines(s) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Fields(value)
	}
	return fields
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

// stat is what is wanted of /proc/PID/stat.
type stat struct {
	comm    string
	parent  uint32
	started time.Duration
	// gone: every thread has ended. A process whose first thread has ended
	// shows that one's state, and lives.
	gone bool
	// killed: the thread is ending, because of a signal.
	killed bool
}

// parseStat takes a line of /proc/PID/stat apart (proc(5)). The name is in
// parentheses and may contain some.
func parseStat(line []byte) (stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, errStat
	}
	// The fields as proc(5) numbers them; behind the name comes the third.
	const state, parent, flags, threads, start, exitCode = 3, 4, 9, 20, 22, 52
	const exiting = 4 // PF_EXITING
	fields := strings.Fields(string(line[end+1:]))
	if len(fields) <= start-state {
		return stat{}, errStat
	}
	field := func(n int) string { return fields[n-state] }
	ticks, err := strconv.ParseInt(field(start), 10, 64)
	if err != nil {
		return stat{}, errStat
	}
	var code string
	if len(fields) > exitCode-state {
		code = field(exitCode)
	}
	return stat{
		killed:  number([]string{field(flags)})&exiting != 0 && number([]string{code})&0x7f != 0, // wait(2)
		comm:    string(line[open+1 : end]),
		parent:  number([]string{field(parent)}),
		started: time.Duration(ticks) * (time.Second / userHZ),
		gone:    (field(state) == "Z" || field(state) == "X") && number([]string{field(threads)}) <= 1,
	}, nil
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
// argument tells POSIX from OFD locks, which FUSE does not. That takes the
// right to trace the thread (ptrace(2), PTRACE_MODE_ATTACH_FSCREDS); without
// it the class is not known.
func (Proc) WaitClass(tid uint32) lockspace.Class {
	// A thread whose request has arrived may not have gone to sleep yet, and
	// then is said to be running.
	for range 20 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/syscall", tid))
		if err != nil {
			return lockspace.ClassUnknown
		}
		if fields := strings.Fields(string(b)); len(fields) >= 3 {
			return classOfCall(fields[2])
		}
		time.Sleep(time.Millisecond)
	}
	return lockspace.ClassUnknown
}

// classOfCall returns the class of an fcntl by its command, as /proc/TID/syscall
// shows it. The number of the call, which depends on the caller's word size, is
// not needed: a thread that waits for an fcntl lock is in some fcntl. 13 and 14
// are F_SETLK64 and F_SETLKW64 of 32-bit programs.
func classOfCall(argument string) lockspace.Class {
	command, err := strconv.ParseUint(strings.TrimPrefix(argument, "0x"), 16, 64)
	if err != nil {
		return lockspace.ClassUnknown
	}
	switch command {
	case unix.F_SETLK, unix.F_SETLKW, 13, 14:
		return lockspace.ClassPOSIX
	case unix.F_OFD_SETLK, unix.F_OFD_SETLKW:
		return lockspace.ClassOFD
	}
	return lockspace.ClassUnknown
}

// User reads /etc/passwd. Not os/user, which may ask a directory service over
// the network: a record must not wait for that.
func (Proc) User(uid uint32) string {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == strconv.FormatUint(uint64(uid), 10) {
			return f[0]
		}
	}
	return ""
}

// Host returns the host name.
func (Proc) Host() string {
	name, _ := os.Hostname()
	return name
}

var _ Processes = Proc{}
