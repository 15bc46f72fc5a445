package fs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Processes that the tests start and look at. Some are the test program itself,
// which then does one thing and is told what by its environment.

const childVariable = "LOCKFS_FS_TEST_CHILD"

var childRoles = map[string]func() error{
	"threads":    runThreads,
	"leaderless": runLeaderless,
	"resolve":    runResolve,
	"executes":   runExecutes,
	"watch":      runWatch,
	"reuse":      runReuse,
	"foreign":    runForeign,
}

func init() {
	if role := os.Getenv(childVariable); role != "" {
		if err := childRoles[role](); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// child is a process that says lines and may be told some.
type child struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// spawn starts a process, to be killed when the test ends.
func spawn(t testing.TB, argv ...string) *child {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &child{t, cmd, in, bufio.NewScanner(out)}
}

// role is the command that runs the test program in a role.
func role(name string) []string {
	return []string{"env", childVariable + "=" + name, os.Args[0]}
}

// in is what runs a command inside of something.
func in(wrapper string, command ...string) []string {
	return append(strings.Fields(wrapper), command...)
}

const newPidNamespace = "unshare --pid --fork --mount-proc --kill-child"

func (c *child) pid() uint32 { return uint32(c.cmd.Process.Pid) }

// line returns the next line the child says.
func (c *child) line() string {
	c.t.Helper()
	if !c.lines.Scan() {
		c.t.Fatalf("process %d said no more: %v", c.pid(), c.lines.Err())
	}
	return c.lines.Text()
}

// tell writes a line to the child.
func (c *child) tell(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.in, format+"\n", args...); err != nil {
		c.t.Fatal(err)
	}
}

// kin returns a living process.
func kin(t testing.TB, pid uint32) Kin {
	t.Helper()
	k, ok := Proc{}.Kin(pid)
	if !ok {
		t.Fatalf("process %d is not there", pid)
	}
	return k
}

// sleeper starts a process that does nothing.
func sleeper(t testing.TB) (*child, Kin) {
	t.Helper()
	c := spawn(t, "sleep", "300")
	return c, kin(t, c.pid())
}

// numbered waits for the process that sleeps for word too.
func numbered(t testing.TB, word string) (pid uint32) {
	t.Helper()
	eventually(t, "a process that sleeps for "+word, func() bool {
		names, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if b, _ := os.ReadFile(name); string(b) == "sleep\x00300\x00"+word+"\x00" {
				_, err := fmt.Sscanf(name, "/proc/%d/", &pid)
				return err == nil
			}
		}
		return false
	})
	return pid
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// drop makes this whole process an ordinary user's.
func drop() error {
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setresgid(1, 1, 1); err != nil {
		return err
	}
	return syscall.Setresuid(1, 1, 1)
}

// runThreads says its pid and the number of a thread, and waits.
func runThreads() error {
	tid := make(chan int)
	go func() {
		runtime.LockOSThread()
		tid <- unix.Gettid()
		select {}
	}()
	fmt.Println(os.Getpid(), <-tid)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// runLeaderless ends its first thread, and when told executes another program
// in a later one.
func runLeaderless() error {
	runtime.LockOSThread() // in init: the first thread
	if unix.Gettid() != os.Getpid() {
		return fmt.Errorf("thread %d is not the first", unix.Gettid())
	}
	go func() {
		for {
			b, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(os.Getpid()) + "/stat")
			if s, _ := parseStat(b); err != nil || strings.Contains(string(b), ") Z ") || s.gone {
				break
			}
		}
		fmt.Println("leaderless")
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			os.Exit(1)
		}
		fmt.Println(syscall.Exec("/bin/sh", []string{"sh", "-c", "echo executed; read -r _"}, nil))
	}()
	_, _, errno := unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return errno
}

// runExecutes executes itself in a thread that is not the first, as often as
// COUNT says, says so, and waits.
func runExecutes() error {
	n, err := strconv.Atoi(os.Getenv("COUNT"))
	if err != nil {
		return err
	}
	if n == 0 {
		fmt.Println("executed")
		_, err := io.Copy(io.Discard, os.Stdin)
		return err
	}
	runtime.LockOSThread() // in init: the first thread, which nobody else uses
	failed := make(chan error)
	go func() {
		env := []string{childVariable + "=executes", fmt.Sprint("COUNT=", n-1)}
		failed <- syscall.Exec(os.Args[0], os.Args, env)
	}()
	return <-failed
}

// runResolve answers "TID PID" with "PID START" or "no", as an ordinary user.
func runResolve() error {
	if err := drop(); err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		var tid, pid uint32
		if _, err := fmt.Scan(&tid, &pid); err != nil {
			return nil
		}
		if k, ok := (Proc{}).Resolve(tid, pid); ok {
			fmt.Println(k.Pid, k.Started)
		} else {
			fmt.Println("no")
		}
	}
}

// runWatch watches the processes "PID START" that it is told, as an ordinary
// user, and says "PID ended".
func runWatch() error {
	if err := drop(); err != nil {
		return err
	}
	w, err := NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	for {
		var p Kin
		if _, err := fmt.Scan(&p.Pid, &p.Started); err != nil {
			return nil
		}
		_, readable := Proc{}.Kin(p.Pid)
		fmt.Println("start known:", readable)
		w.Watch(p, func() { fmt.Println(p.Pid, "ended") })
	}
}

// runReuse watches, as the first process of a pid namespace, two processes that
// have the same number one after the other.
func runReuse() error {
	for _, room := range []int{1000, 0} {
		w, err := newWatcher(runningSystem{}, room, 50*time.Millisecond)
		if err != nil {
			return err
		}
		if err := watchReuse(w); err != nil {
			return fmt.Errorf("with %d pidfds: %w", room, err)
		}
		w.Close()
	}
	fmt.Println("told apart")
	return nil
}

func watchReuse(w *Watcher) error {
	watch := func(k Kin) chan struct{} {
		told := make(chan struct{})
		w.Watch(k, func() { close(told) })
		return told
	}
	soon := func(what string, told chan struct{}) error {
		select {
		case <-told:
			return nil
		case <-time.After(10 * time.Second):
			return fmt.Errorf("no word of the end of %s", what)
		}
	}
	end := func(c *exec.Cmd) error {
		if err := c.Process.Kill(); err != nil {
			return err
		}
		_ = c.Wait() // says that it was killed
		return nil
	}
	first := exec.Command("sleep", "300")
	if err := first.Start(); err != nil {
		return err
	}
	one, _ := Proc{}.Kin(uint32(first.Process.Pid))
	told := watch(one)
	if err := end(first); err != nil {
		return err
	}
	if err := soon("the first", told); err != nil {
		return err
	}
	time.Sleep(30 * time.Millisecond) // for the start to differ
	second, err := startAs(first.Process.Pid)
	if err != nil {
		return err
	}
	two, ok := Proc{}.Resolve(1, one.Pid)
	if !ok || two.Pid != one.Pid || two.Started <= one.Started {
		return fmt.Errorf("after %+v came %+v, %v", one, two, ok)
	}
	if err := soon("the first, whose number has another", watch(one)); err != nil {
		return err
	}
	told = watch(two)
	select {
	case <-told:
		return fmt.Errorf("the second is said to have ended")
	case <-time.After(200 * time.Millisecond): // it was looked at in turns
	}
	if err := end(second); err != nil {
		return err
	}
	return soon("the second", told)
}

// startAs starts a process with a number. The next process or thread of the
// namespace gets it, which may be one of this program's own.
func startAs(pid int) (*exec.Cmd, error) {
	for range 1000 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			return nil, err
		}
		c := exec.Command("sleep", "300")
		if err := c.Start(); err != nil {
			return nil, err
		}
		if c.Process.Pid == pid {
			return c, nil
		}
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	return nil, fmt.Errorf("%d is never given again", pid)
}

// runForeign resolves and watches where /proc is not that of its pid namespace.
func runForeign() error {
	self := uint32(os.Getpid())
	if k, ok := (Proc{}).Resolve(self, self); ok {
		return fmt.Errorf("resolved to %+v by another namespace's /proc", k)
	}
	w, err := NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close()
	c := exec.Command("sleep", "300")
	if err := c.Start(); err != nil {
		return err
	}
	told := make(chan struct{})
	w.Watch(Kin{Pid: uint32(c.Process.Pid), Started: never}, func() { close(told) })
	select {
	case <-told:
		return fmt.Errorf("the start of another namespace's process was believed")
	case <-time.After(200 * time.Millisecond):
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	<-told
	fmt.Println("not believed")
	return nil
}
