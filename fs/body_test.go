package fs_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.4, Writing: the holder's body, at most 4096 bytes.
func TestBody(t *testing.T) {
	s := serve(t)
	f := s.mustCreate("x", unix.O_EXCL)
	if e := s.write(f, 0, "one\ntwo\n"); e != 0 {
		t.Fatal(e)
	}
	if e := s.write(f, 4, "TWO"); e != 0 {
		t.Fatal(e)
	}
	if got, _ := s.read(f, 0, 4096); got != "one\nTWO\n" {
		t.Errorf("body %q", got)
	}
	if got, _ := s.read(f, 4, 2); got != "TW" {
		t.Errorf("part of the body %q", got)
	}
	if got, _ := s.read(f, 100, 10); got != "" {
		t.Errorf("behind the body %q", got)
	}
	// A short write, then no room.
	r := s.call(opWrite, f.node, u64(f.handle), u64(4090), u32(10), zeros(20), []byte("0123456789"))
	if r.errno != 0 || native.Uint32(r.body) != 6 {
		t.Errorf("write over the end: %v, % x", r.errno, r.body)
	}
	if e := s.write(f, 4096, "x"); e != unix.ENOSPC {
		t.Errorf("write behind the end: %v", e)
	}
	if got, _ := s.read(f, 0, 8192); len(got) != 4096 || !strings.HasPrefix(got[8:], "\x00\x00") {
		t.Errorf("%d bytes, %q", len(got), got[:16])
	}
}

func TestWhoWritesAsTheHolder(t *testing.T) {
	s := serve(t)
	f := s.mustCreate("x", 0)
	// flock(1), 101, takes it through the shell's descriptor and exits.
	s.caller.pid = 101
	if e := s.flock(f, unix.F_WRLCK); e != 0 {
		t.Fatal(e)
	}
	s.procs.kill(101)
	s.caller.pid = 100
	other := s.mustOpen(f.node, unix.O_WRONLY)
	for _, c := range []struct {
		who  string
		pid  uint32
		file file
		want unix.Errno
	}{
		{"the shell, through the descriptor that was locked", 100, f, 0},
		{"the shell, through another one", 100, other, 0},
		{"a child, through the inherited descriptor", 102, f, 0},
		{"another process, through its own", 103, other, unix.EBUSY},
		{"a process out of sight", 0, other, unix.EBUSY},
	} {
		s.caller.pid = c.pid
		if e := s.write(c.file, 0, c.who); e != c.want {
			t.Errorf("%s: %v, want %v", c.who, e, c.want)
		}
	}
	// One that started after the lock was taken only has its number.
	s.procs.set(100, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Started: 1 << 62}})
	s.caller.pid = 100
	if e := s.write(other, 0, "x"); e != unix.EBUSY {
		t.Errorf("a process with the opener's old number: %v", e)
	}
}

func TestTheBodyGoesWithItsHold(t *testing.T) {
	s := serve(t)
	a, b := s.mustCreate("x", 0), s.mustCreate("x", 0)
	if e := s.flock(a, unix.F_WRLCK); e != 0 {
		t.Fatal(e)
	}
	if e := s.write(a, 0, "a's"); e != 0 {
		t.Fatal(e)
	}
	w := s.startFlock(b, unix.F_WRLCK)
	s.flock(a, unix.F_UNLCK)
	if r := s.await(w); r.errno != 0 {
		t.Fatal(r.errno)
	}
	if got, _ := s.read(b, 0, 4096); strings.Contains(got, "a's") || !strings.HasPrefix(got, "pid=") {
		t.Errorf("the next holder shows %q", got)
	}
	s.flock(b, unix.F_UNLCK)
	if got, _ := s.read(b, 0, 4096); got != "" {
		t.Errorf("a free lock shows %q", got)
	}
	// Written before the lock is taken, by the file that takes it.
	if e := s.write(b, 0, "before"); e != 0 {
		t.Fatal(e)
	}
	s.flock(b, unix.F_WRLCK)
	if got, _ := s.read(a, 0, 4096); got != "before" {
		t.Errorf("written before taking: %q", got)
	}
	s.flock(b, unix.F_UNLCK)
	// By another file than the one that takes it.
	if e := s.write(b, 0, "somebody's"); e != 0 {
		t.Fatal(e)
	}
	s.flock(a, unix.F_WRLCK)
	if got, _ := s.read(a, 0, 4096); strings.Contains(got, "somebody's") {
		t.Errorf("somebody else's words are shown as the holder's: %q", got)
	}
}

func TestTruncationByOthersIsIgnored(t *testing.T) {
	s := serve(t)
	f := s.mustCreate("x", unix.O_EXCL)
	if e := s.write(f, 0, "body"); e != 0 {
		t.Fatal(e)
	}
	s.caller.pid = 200
	s.mustOpen(f.node, unix.O_WRONLY|unix.O_TRUNC)
	if got, _ := s.read(f, 0, 4096); got != "body" {
		t.Errorf("after O_TRUNC by another process: %q", got)
	}
	s.caller.pid = 100
	s.mustOpen(f.node, unix.O_WRONLY|unix.O_TRUNC)
	if got, _ := s.read(f, 0, 4096); got == "body" {
		t.Error("after O_TRUNC by the holder the body is still there")
	}
}

// The record is a contract: keys and order (1.4).
func TestRecord(t *testing.T) {
	s := serve(t)
	s.procs.set(100, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Started: 1}, Comm: "a\nb\\", Cgroup: "/user.slice"})
	a, b := s.mustCreate("x", 0), s.mustCreate("x", 0)
	s.flock(a, unix.F_RDLCK)
	s.caller = caller{1001, 1001, 101}
	s.flock(b, unix.F_RDLCK)
	got, errno := s.read(a, 0, 4096)
	if errno != 0 {
		t.Fatal(errno)
	}
	var shape []string
	for _, line := range strings.Split(got, "\n") {
		key, value, _ := strings.Cut(line, "=")
		if key == "since" {
			value = "T"
		}
		shape = append(shape, key+"="+value)
	}
	want := []string{
		"pid=100", "uid=1000", "user=alice", `comm=a\012b\134`, "host=host", "cgroup=/user.slice",
		"mode=shared", "via=flock", "since=T", "token=1", "waiting=0", "=",
		"pid=101", "uid=1001", "user=", "comm=program", "host=host", "cgroup=/",
		"mode=shared", "via=flock", "since=T", "token=2", "waiting=0", "=",
	}
	if strings.Join(shape, "|") != strings.Join(want, "|") {
		t.Errorf("record:\n%s\nwant the shape\n%s", got, strings.Join(want, "\n"))
	}
	// Short reads see one moment.
	first, _ := s.read(a, 0, 7)
	s.release(b)
	rest, _ := s.read(a, 7, 4096)
	if !strings.HasPrefix(first+rest, "pid=100\nuid=1000\n") || !strings.Contains(rest, "pid=101") {
		t.Errorf("a reader in the middle saw it change: %q, %q", first, rest)
	}
}
