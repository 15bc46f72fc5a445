package fs_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.4: the directory's bits decide: write to take, read to look, the same
// whether the lock is free or held.
func TestTheDirectoryDecides(t *testing.T) {
	owner, member, supplementary, other, root := caller{0, 0, 1}, caller{1001, 50, 101}, caller{1002, 60, 102}, caller{1003, 70, 103}, caller{0, 0, 104}
	_ = owner
	for _, c := range []struct {
		who        string
		caller     caller
		mode       uint32
		take, look bool
	}{
		{"anybody", other, 0o777, true, true},
		{"other, looking only", other, 0o775, false, true},
		{"other, nothing", other, 0o770, false, false},
		{"member by gid", member, 0o770, true, true},
		{"member by gid, looking only", member, 0o750, false, true},
		{"member by gid, less than others", member, 0o707, false, false},
		{"member by supplementary group", supplementary, 0o770, true, true},
		{"member by supplementary group, less than others", supplementary, 0o707, false, false},
		{"root", root, 0o000, true, true},
	} {
		s := serve(t)
		s.procs.set(102, fs.ProcessInfo{Kin: fs.Kin{Pid: 102, Started: 1}, Groups: []uint32{7, 50}})
		s.procs.set(103, fs.ProcessInfo{Kin: fs.Kin{Pid: 103, Started: 1}})
		s.caller = root
		held := s.mustCreate("held", unix.O_EXCL)
		open := s.mustCreate("open", 0)
		if r := s.call(opSetattr, 1, u32(1|4), u32(0), zeros(8*6), zeros(12), u32(c.mode), u32(0), u32(0), u32(50), u32(0)); r.errno != 0 {
			t.Fatal("chmod, chgrp:", r.errno)
		}
		s.caller = c.caller
		expect := func(what string, got unix.Errno, want bool, granted unix.Errno) {
			t.Helper()
			if want && got != granted {
				t.Errorf("%s, %o: %s: %v, want %v", c.who, c.mode, what, got, granted)
			}
			if !want && got != unix.EACCES {
				t.Errorf("%s, %o: %s: %v, want EACCES", c.who, c.mode, what, got)
			}
		}
		_, errno := s.create("free", unix.O_EXCL)
		expect("take a free one by O_EXCL", errno, c.take, 0)
		_, errno = s.create("free2", 0)
		expect("open a free one", errno, c.take, 0)
		expect("open a held one for writing", s.call(opOpen, held.node, u32(unix.O_RDWR), u32(0)).errno, c.take, 0)
		expect("open a held one for reading", s.call(opOpen, held.node, u32(unix.O_RDONLY), u32(0)).errno, c.look, 0)
		expect("flock a free one", s.flock(open, unix.F_WRLCK), c.take, 0)
		expect("flock a held one", s.flock(held, unix.F_RDLCK), c.take, 0)
		expect("access W_OK", s.call(opAccess, held.node, u32(2), u32(0)).errno, c.take, 0)
		expect("access R_OK", s.call(opAccess, held.node, u32(4), u32(0)).errno, c.look, 0)
		expect("list", s.call(opOpendir, 1, u32(0), u32(0)).errno, c.look, 0)
		if !c.take {
			expect("unlink", s.call(opUnlink, 1, cstring("held")).errno, false, 0)
		}
	}
}

// Writing to the directory is not reading it.
func TestOpeningToReadTakesReadPermission(t *testing.T) {
	s := serve(t)
	s.caller = caller{0, 0, 1}
	held := s.mustCreate("held", unix.O_EXCL)
	s.call(opSetattr, 1, u32(1), u32(0), zeros(8*6), zeros(12), u32(0o733), u32(0), u32(0), u32(0), u32(0))
	s.caller = caller{1003, 70, 103}
	for _, c := range []struct {
		flags uint32
		want  unix.Errno
	}{
		{unix.O_RDONLY, unix.EACCES},
		{unix.O_RDWR, unix.EACCES},
		{unix.O_RDONLY | unix.O_TRUNC, unix.EACCES},
		{unix.O_WRONLY, 0},
		{unix.O_WRONLY | unix.O_TRUNC, 0},
	} {
		if r := s.call(opOpen, held.node, u32(c.flags), u32(0)); r.errno != c.want {
			t.Errorf("open with flags %#x: %v, want %v", c.flags, r.errno, c.want)
		}
	}
}

// 1.5: who may end whose hold, and how.
func TestWhoMayUnlink(t *testing.T) {
	const (
		gone   = unix.Errno(0)
		broken = unix.Errno(unix.ESTALE)
	)
	for _, c := range []struct {
		who    string
		caller caller
		want   unix.Errno // of unlink
		victim unix.Errno // of a lock call through the holder's open file after it
	}{
		{"the holder", caller{1000, 1000, 100}, 0, gone},
		{"a child of the holder", caller{1000, 1000, 110}, 0, gone},
		{"a grandchild of another user", caller{1001, 1001, 111}, unix.EPERM, gone},
		{"the holder, as another user by now", caller{1001, 1001, 100}, 0, gone},
		{"a thread of the holder", caller{1000, 1000, 120}, 0, gone},
		{"the holder's user", caller{1000, 1000, 130}, 0, broken},
		{"the holder's user from a namespace out of sight", caller{1000, 1000, 0}, 0, broken},
		{"somebody who got the holder's number", caller{1000, 1000, 100}, 0, broken},
		{"another user", caller{1001, 1001, 150}, unix.EPERM, gone},
		{"root, who owns the directory", caller{0, 0, 160}, 0, broken},
	} {
		s := serve(t)
		const old, young = 1, 1 << 62
		s.procs.set(100, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Parent: 1, Started: old}})
		s.procs.set(110, fs.ProcessInfo{Kin: fs.Kin{Pid: 110, Parent: 100, Started: young}})
		s.procs.set(111, fs.ProcessInfo{Kin: fs.Kin{Pid: 111, Parent: 110, Started: young}})
		s.procs.set(120, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Parent: 1, Started: old}})
		s.procs.set(130, fs.ProcessInfo{Kin: fs.Kin{Pid: 130, Parent: 1, Started: old}})
		s.procs.set(1, fs.ProcessInfo{Kin: fs.Kin{Pid: 1}})
		f := s.mustCreate("x", unix.O_EXCL)
		if c.who == "somebody who got the holder's number" {
			s.procs.set(100, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Parent: 1, Started: young}})
		}
		s.caller = c.caller
		if r := s.call(opUnlink, 1, cstring("x")); r.errno != c.want {
			t.Errorf("unlink by %s: %v, want %v", c.who, r.errno, c.want)
			continue
		}
		if r := s.call(opLookup, 1, cstring("x")); (r.errno == unix.ENOENT) != (c.want == 0) {
			t.Errorf("unlink by %s: lookup after it: %v", c.who, r.errno)
		}
		s.caller = caller{1000, 1000, 100}
		if errno := s.flock(f, unix.F_WRLCK); errno != c.victim {
			t.Errorf("unlink by %s: the holder's next call: %v, want %v", c.who, errno, c.victim)
		}
		if c.victim == broken {
			if errno := s.write(f, 0, "x"); errno != unix.ESTALE {
				t.Errorf("unlink by %s: the holder's write: %v", c.who, errno)
			}
			if r := s.call(opFsync, f.node, u64(f.handle), zeros(8)); r.errno != unix.ESTALE {
				t.Errorf("unlink by %s: the holder's fsync: %v", c.who, r.errno)
			}
		}
	}
}

func TestUnlinkOfSharedHoldsIsAllOrNothing(t *testing.T) {
	s := serve(t)
	a := s.mustCreate("x", 0)
	if e := s.flock(a, unix.F_RDLCK); e != 0 {
		t.Fatal(e)
	}
	s.caller = caller{1001, 1001, 200}
	b := s.mustCreate("x", 0)
	if e := s.flock(b, unix.F_RDLCK); e != 0 {
		t.Fatal(e)
	}
	if r := s.call(opUnlink, 1, cstring("x")); r.errno != unix.EPERM {
		t.Errorf("by one of two holders: %v, want EPERM", r.errno)
	}
	s.caller = caller{0, 0, 300}
	if r := s.call(opUnlink, 1, cstring("x")); r.errno != 0 {
		t.Errorf("by root: %v", r.errno)
	}
	for _, f := range []file{a, b} {
		if e := s.flock(f, unix.F_RDLCK); e != unix.ESTALE {
			t.Errorf("a victim's next call: %v", e)
		}
	}
}
