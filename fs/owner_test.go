package fs_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Named owners (design, part 4), as far as no mount is needed. Processes are the
// test's.

// mkOwner makes a named owner.
func (s *served) mkOwner(name string) unix.Errno {
	s.t.Helper()
	return s.call(opMkdir, s.walk(".lockfs", "owner"), u32(0o755), u32(0o022), cstring(name)).errno
}

func (s *served) rmOwner(name string) unix.Errno {
	s.t.Helper()
	return s.call(opRmdir, s.walk(".lockfs", "owner"), cstring(name)).errno
}

// tell writes to a file of an owner, and returns why that failed.
func (s *served) tell(owner, file, text string) unix.Errno {
	s.t.Helper()
	f := s.mustOpen(s.walk(".lockfs", "owner", owner, file), unix.O_WRONLY)
	defer s.release(f)
	return s.write(f, 0, text)
}

// mustTell is tell for what must succeed.
func (s *served) mustTell(owner string, lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		file, text, _ := strings.Cut(line, "<")
		if errno := s.tell(owner, file, text+"\n"); errno != 0 {
			s.t.Fatalf("%s: %q to %s: %v", owner, text, file, errno)
		}
	}
}

// told reads a file of an owner.
func (s *served) told(owner, file string) string {
	s.t.Helper()
	return s.readAll(4096, ".lockfs", "owner", owner, file)
}

func (s *served) wantTells(owner, file, want string) {
	s.t.Helper()
	if got := s.told(owner, file); got != want {
		s.t.Errorf("%s of %s is %q, want %q", file, owner, got, want)
	}
}

// diskName is the name of a disk's lock.
func diskName(path string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(path))) }

// wantDisks fails the test unless the locks of exactly these disks are held.
func (s *served) wantDisks(when string, paths ...string) {
	s.t.Helper()
	want := make(map[string]bool)
	for _, p := range paths {
		want[diskName(p)] = true
	}
	if got := s.list(); !maps.Equal(got, want) {
		s.t.Errorf("%s: %q are held, want the disks %q", when, sorted(got), paths)
	}
}

// made makes an owner with a process and some disks.
func (s *served) made(name string, pid uint32, paths ...string) {
	s.t.Helper()
	if errno := s.mkOwner(name); errno != 0 {
		s.t.Fatal(errno)
	}
	if pid != 0 {
		s.mustTell(name, fmt.Sprint("pid<", pid))
	}
	for _, p := range paths {
		s.mustTell(name, "resources<disk "+p)
	}
}

func TestOwnersFiles(t *testing.T) {
	s := serve(t)
	s.made("vm", 0)
	for _, tc := range []struct {
		file, write string
		errno       unix.Errno
		want        string
	}{
		{"id", "17", 0, "17\n"},
		{"id", "17\n18\n", unix.EINVAL, "17\n"},
		{"id", strings.Repeat("x", 256), unix.EINVAL, "17\n"},
		{"name", "a name, ä", 0, "a name, ä\n"},
		{"name", "\t", unix.EINVAL, "a name, ä\n"},
		{"name", "", 0, "a name, ä\n"}, // no bytes are no write
		{"name", "\n", 0, ""},
		{"uuid", "c7a5fdbd-edaf-9455-926a-d65c16db1809", 0, "c7a5fdbd-edaf-9455-926a-d65c16db1809\n"},
		{"uuid", "c7a5fdbdedaf9455926ad65c16db180", unix.EINVAL, "c7a5fdbd-edaf-9455-926a-d65c16db1809\n"},
		{"uuid", "g7a5fdbd-edaf-9455-926a-d65c16db1809", unix.EINVAL, "c7a5fdbd-edaf-9455-926a-d65c16db1809\n"},
		{"onfailure", "pause", 0, "pause\n"},
		{"onfailure", "explode", unix.EINVAL, "pause\n"},
		{"onfailure", "default", 0, "default\n"},
		{"pid", "123", 0, "123\n"},
		{"pid", "x", unix.EINVAL, "123\n"},
		{"pid", "-1", unix.EINVAL, "123\n"},
		{"pid", "4194305", unix.EINVAL, "123\n"},
		{"pid", "0", 0, ""},
		{"ctl", "dance", unix.EINVAL, ""},
		{"ctl", "acquire restrict", unix.EINVAL, ""},      // whom?
		{"ctl", "acquire register-only", unix.EINVAL, ""}, // whom?
		{"ctl", "acquire nonsense", unix.EINVAL, ""},
		{"ctl", "release floppy", unix.EINVAL, ""},
		{"ctl", "release disk /none", unix.ENOENT, ""},
		{"ctl", "acquire\nrelease", unix.EINVAL, ""},
	} {
		f := s.mustOpen(s.walk(".lockfs", "owner", "vm", tc.file), unix.O_WRONLY|unix.O_TRUNC)
		errno := unix.Errno(0)
		if tc.write != "" {
			errno = s.write(f, 0, tc.write)
		}
		s.release(f)
		if errno != tc.errno {
			t.Errorf("%q to %s: %v, want %v", tc.write, tc.file, errno, tc.errno)
		}
		if tc.file != "ctl" {
			s.wantTells("vm", tc.file, tc.want)
		}
	}
	s.procs.kill(77)
	if errno := s.tell("vm", "pid", "77"); errno != unix.ESRCH {
		t.Errorf("a process that is not there: %v", errno)
	}
	s.caller.pid = 0
	if errno := s.tell("vm", "pid", "123"); errno != unix.ESRCH {
		t.Errorf("by somebody who cannot be seen: %v", errno)
	}
	s.caller.pid = 100
	for _, file := range []string{"state", "conflicts"} {
		if r := s.call(opOpen, s.walk(".lockfs", "owner", "vm", file), u32(unix.O_WRONLY), u32(0)); r.errno != unix.EACCES {
			t.Errorf("open %s for writing: %v", file, r.errno)
		}
	}
	if r := s.call(opOpen, s.walk(".lockfs", "owner", "vm", "ctl"), u32(unix.O_RDONLY), u32(0)); r.errno != unix.EACCES {
		t.Errorf("open ctl for reading: %v", r.errno)
	}
}

// Owners are of their users.
func TestOwnersAreTheirUsers(t *testing.T) {
	s := serve(t)
	alice, bob, root := s.caller, caller{uid: 1001, gid: 1001, pid: 200}, caller{pid: 300}
	s.made("vm", 0, "/a")
	ctl := s.walk(".lockfs", "owner", "vm", "ctl")
	dir, attr, _ := s.lookup(s.walk(".lockfs", "owner"), "vm")
	if attr.uid != 1000 || attr.gid != 1000 || attr.mode != unix.S_IFDIR|0o700 {
		t.Errorf("stat says %+v", attr)
	}
	mine := s.mustOpen(ctl, unix.O_WRONLY)
	s.caller = bob
	if errno := s.mkOwner("vm"); errno != unix.EEXIST {
		t.Errorf("another's name: %v", errno)
	}
	if errno := s.rmOwner("vm"); errno != unix.EACCES {
		t.Errorf("rmdir by another: %v", errno)
	}
	if _, _, errno := s.lookup(dir, "ctl"); errno != unix.EACCES {
		t.Errorf("look up by another: %v", errno)
	}
	if r := s.call(opOpen, ctl, u32(unix.O_WRONLY), u32(0)); r.errno != unix.EACCES {
		t.Errorf("open by another: %v", r.errno)
	}
	if errno := s.write(mine, 0, "acquire"); errno != unix.EACCES {
		t.Errorf("another writes through a file that was passed on: %v", errno)
	}
	if names := s.listedBy(4096, ".lockfs", "owner"); !slices.Equal(names, []string{"vm"}) {
		t.Errorf("another sees %q", names)
	}
	s.caller = root
	if errno := s.write(mine, 0, "acquire"); errno != unix.EACCES {
		t.Errorf("root's program writes through a file that a user opened: %v", errno)
	}
	s.mustTell("vm", "ctl<acquire")
	s.wantDisks("root had it acquire", "/a")
	s.caller = alice
	if errno := s.rmOwner("vm"); errno != 0 {
		t.Errorf("rmdir by its user: %v", errno)
	}
	s.wantDisks("it was removed")
	for what, errno := range map[string]unix.Errno{
		"mkdir in .lockfs":      s.call(opMkdir, s.walk(".lockfs"), u32(0o755), u32(0), cstring("x")).errno,
		"rmdir of owner":        s.call(opRmdir, s.walk(".lockfs"), cstring("owner")).errno,
		"mkdir in lock":         s.call(opMkdir, s.walk(".lockfs", "lock"), u32(0o755), u32(0), cstring("x")).errno,
		"unlink in owner":       s.call(opUnlink, s.walk(".lockfs", "owner"), cstring("x")).errno,
		"symlink in owner":      s.call(opSymlink, s.walk(".lockfs", "owner"), cstring("x"), cstring("y")).errno,
		"a file in owner":       s.call(opCreate, s.walk(".lockfs", "owner"), u32(unix.O_CREAT|unix.O_WRONLY), u32(0o644), u32(0), u32(0), cstring("x")).errno,
		"rename to owner":       s.call(opRename2, 1, u64(s.walk(".lockfs", "owner")), u32(0), u32(0), cstring("x"), cstring("y")).errno,
		"write of what is gone": s.write(mine, 0, "acquire"),
	} {
		want := unix.EACCES
		if what == "write of what is gone" {
			want = unix.ESTALE
		}
		if errno != want {
			t.Errorf("%s: %v, want %v", what, errno, want)
		}
	}
	if errno := s.mkOwner(strings.Repeat("n", 256)); errno != unix.ENAMETOOLONG {
		t.Errorf("a long name: %v", errno)
	}
	if errno := s.rmOwner("vm"); errno != unix.ENOENT {
		t.Errorf("rmdir of what is gone: %v", errno)
	}
	if _, _, errno := s.lookup(s.walk(".lockfs", "owner"), "vm"); errno != unix.ENOENT {
		t.Errorf("look up of what is gone: %v", errno)
	}
	s.mustMkdir(1, "d", 0o755)
	if _, _, errno := s.lookup(s.walk("d", ".lockfs"), "owner"); errno != unix.ENOENT {
		t.Errorf("owners in another directory than the root: %v", errno)
	}
}

func TestOwnersHaveALimit(t *testing.T) {
	s := serve(t)
	for i := range 1024 {
		if errno := s.mkOwner(fmt.Sprint("vm", i)); errno != 0 {
			t.Fatalf("owner %d: %v", i, errno)
		}
	}
	if errno := s.mkOwner("more"); errno != unix.EDQUOT {
		t.Errorf("one more: %v", errno)
	}
	if names := s.listedBy(300, ".lockfs", "owner"); len(names) != 1024 {
		t.Errorf("%d are listed", len(names))
	}
	s.caller.uid = 1001
	if errno := s.mkOwner("more"); errno != 0 {
		t.Errorf("one of another user: %v", errno)
	}
	s.caller.uid = 1000
	s.rmOwner("vm7")
	if errno := s.mkOwner("vm7"); errno != 0 {
		t.Errorf("one for another: %v", errno)
	}
}
