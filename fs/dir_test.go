package fs_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func sorted(m map[string]bool) []string { return slices.Sorted(maps.Keys(m)) }

// list reads the root directory from the beginning to the end.
func (s *served) list() map[string]bool {
	s.t.Helper()
	names := map[string]bool{}
	dir := s.opendir()
	defer s.call(opReleasedir, 1, u64(dir), zeros(16))
	for offset := uint64(0); ; {
		entries, next := s.readdir(dir, offset, 4096)
		if len(entries) == 0 {
			return names
		}
		for _, e := range entries {
			if names[e] {
				s.t.Errorf("%q is listed twice", e)
			}
			names[e] = true
		}
		offset = next
		delete(names, ".")
		delete(names, "..")
	}
}

func (s *served) opendir() (handle uint64) {
	s.t.Helper()
	r := s.call(opOpendir, 1, u32(0), u32(0))
	if r.errno != 0 {
		s.t.Fatal("opendir:", r.errno)
	}
	return native.Uint64(r.body)
}

// readdir reads some entries, and returns where to go on.
func (s *served) readdir(dir, offset uint64, size uint32) (names []string, next uint64) {
	s.t.Helper()
	return s.readdirOf(1, dir, offset, size)
}

// readdirOf is readdir of another directory than the root.
func (s *served) readdirOf(node, dir, offset uint64, size uint32) (names []string, next uint64) {
	s.t.Helper()
	r := s.call(opReaddir, node, u64(dir), u64(offset), u32(size), zeros(20))
	if r.errno != 0 {
		s.t.Fatal("readdir:", r.errno)
	}
	for b := r.body; len(b) >= 24; {
		next = native.Uint64(b[8:])
		n := int(native.Uint32(b[16:]))
		names = append(names, string(b[24:24+n]))
		b = b[min(len(b), (24+n+7)&^7):]
	}
	return names, next
}

// A name that is held all the time is listed once, whatever comes and goes.
func TestListingWhileItChanges(t *testing.T) {
	s := serve(t)
	for i := range 50 {
		s.mustCreate(fmt.Sprintf("stays%02d", i), unix.O_EXCL)
		s.release(s.mustCreate(fmt.Sprintf("left%02d", i), unix.O_EXCL))
	}
	passing := s.mustCreate("passing", unix.O_EXCL)
	seen := map[string]int{}
	dir := s.opendir()
	for offset := uint64(0); ; {
		names, next := s.readdir(dir, offset, 200)
		if len(names) == 0 {
			break
		}
		for _, n := range names {
			seen[n]++
		}
		offset = next
		s.release(passing)
		passing = s.mustCreate("passing", unix.O_EXCL)
		if seen["passing"] > 1 {
			t.Fatal("a name that is taken again and again is listed again and again")
		}
	}
	for i := range 50 {
		if n := seen[fmt.Sprintf("stays%02d", i)]; n != 1 {
			t.Errorf("stays%02d was listed %d times", i, n)
		}
		if n := seen[fmt.Sprintf("left%02d", i)]; n != 0 {
			t.Errorf("left%02d is free and was listed", i)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, name := range []string{"a", ".", "..", ".lockfs", ".go-fuse-epoll-hack", "a b\n\"", "\xff\xfe", strings.Repeat("n", 255), strings.Repeat("n", 256)} {
		f.Add(name)
	}
	s := serve(f)
	f.Fuzz(func(t *testing.T, name string) {
		if strings.ContainsAny(name, "/\x00") || name == "." || name == ".." || len(name) > 4000 {
			return // no kernel sends them
		}
		s.t = t
		got, errno := s.create(name, unix.O_EXCL)
		want := unix.Errno(0)
		switch {
		case name == "":
			want = unix.EINVAL
		case len(name) > 255:
			want = unix.ENAMETOOLONG
		case name == ".lockfs":
			want = unix.EPERM
		}
		if errno != want {
			t.Fatalf("create %q: %v, want %v", name, errno, want)
		}
		if errno != 0 {
			return
		}
		if _, errno := s.create(name, unix.O_EXCL); errno != unix.EEXIST {
			t.Errorf("create %q again: %v", name, errno)
		}
		if listed := s.list(); len(listed) != 1 || !listed[name] {
			t.Errorf("%q is held, listed are %q", name, sorted(listed))
		}
		s.release(got)
		if listed := s.list(); len(listed) != 0 {
			t.Errorf("%q is free, listed are %q", name, sorted(listed))
		}
		s.send(opForget, got.node, u64(1))
	})
}
