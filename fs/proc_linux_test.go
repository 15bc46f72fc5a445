package fs

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

func TestParseStat(t *testing.T) {
	line := func(comm, state, threads string) []byte {
		return []byte("123 (" + comm + ") " + state + " 77" + strings.Replace(" 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 THREADS 0 22345 100 5", "THREADS", threads, 1))
	}
	for _, c := range []struct {
		comm, state, threads string
		gone                 bool
	}{
		{"bash", "S", "1", false},
		{"a) R 1 (b", "S", "1", false},
		{"with\nnewline (", "R", "4", false},
		{"", "Z", "1", true},
		{"leader gone", "Z", "3", false},
		{"dead", "X", "0", true},
	} {
		got, err := parseStat(line(c.comm, c.state, c.threads))
		want := stat{comm: c.comm, parent: 77, started: 223450 * time.Millisecond, gone: c.gone}
		if err != nil || got != want {
			t.Errorf("%q %s: %+v, %v; want %+v", c.comm, c.state, got, err, want)
		}
	}
	for _, bad := range []string{"", "1", "1 (x", ") 1 (", "1 (x) S 1 2 3", "1 (x) S 77 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 0 later"} {
		if _, err := parseStat([]byte(bad)); !errors.Is(err, errStat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseCgroup(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"0::/user.slice/session-1.scope\n", "/user.slice/session-1.scope"},
		{"12:cpu:/a\n0::/b:c\n", "/b:c"},
		{"3:name=systemd:/x\n2:cpu:/y\n", "/x"},
		{"", ""},
		{"nonsense\n", ""},
	} {
		if got := parseCgroup(c.file); got != c.want {
			t.Errorf("%q: %q, want %q", c.file, got, c.want)
		}
	}
}

func TestClassOfCall(t *testing.T) {
	for argument, want := range map[string]lockspace.Class{
		"0x7": lockspace.ClassPOSIX, "0x6": lockspace.ClassPOSIX, "0xe": lockspace.ClassPOSIX,
		"0x26": lockspace.ClassOFD, "0x25": lockspace.ClassOFD,
		"0x0": lockspace.ClassUnknown, "x": lockspace.ClassUnknown, "": lockspace.ClassUnknown,
	} {
		if got := classOfCall(argument); got != want {
			t.Errorf("%q: %v, want %v", argument, got, want)
		}
	}
}

// What /proc really says, of this process.
func TestProc(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, thread := uint32(os.Getpid()), uint32(unix.Gettid())
	var p Proc
	if !p.Leader(self) {
		t.Error("the process is not its own leader")
	}
	if thread != self && p.Leader(thread) {
		t.Errorf("thread %d of %d is said to be a process", thread, self)
	}
	if got, ok := p.LeaderOf(thread); !ok || got != self {
		t.Errorf("thread %d is of process %d, %v; want %d", thread, got, ok, self)
	}
	info, ok := p.Look(thread)
	if !ok || info.Pid != self || info.Parent != uint32(os.Getppid()) || info.Gone || info.Comm == "" {
		t.Errorf("look at %d: %+v, %v", thread, info, ok)
	}
	now := new(SystemClock).Now().Boot
	if info.Started > now || now-info.Started > time.Hour {
		t.Errorf("started %v after boot, now is %v", info.Started, now)
	}
	if kin, ok := p.Kin(self); !ok || kin != info.Kin {
		t.Errorf("kin: %+v, %v; want %+v", kin, ok, info.Kin)
	}
	if got := p.User(0); got != "root" {
		t.Errorf("user 0 is %q", got)
	}

	child := exec.Command("true")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(child.Process.Pid)
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if info, ok := p.Look(pid); ok && info.Gone {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("a process that has ended is not said to be gone")
		}
	}
	_ = child.Wait()
	if p.Alive(pid) {
		t.Error("a process that was reaped is said to live")
	}
	if _, ok := p.Look(pid); ok {
		t.Error("a process that was reaped can be looked at")
	}
}

func TestTheClockNeverGoesBack(t *testing.T) {
	var c SystemClock
	last := c.Now()
	for range 10000 {
		now := c.Now()
		if now.Boot < last.Boot {
			t.Fatalf("%v after %v", now.Boot, last.Boot)
		}
		last = now
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	if off := time.Duration(ts.Nano()) - last.Boot; off < 0 || off > time.Second {
		t.Errorf("the clock is %v behind", off)
	}
}
