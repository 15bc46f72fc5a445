package fs_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
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

func TestResources(t *testing.T) {
	s := serve(t)
	space := s.mustMkdir(1, "space", 0o755)
	s.mustMkdir(space, "below", 0o755)
	s.made("vm", 0)
	for _, tc := range []struct {
		write string
		errno unix.Errno
		line  string // as it is read then; "": as it was written
	}{
		{"disk /a", 0, ""},
		{"disk /b/../c//d/./e/", 0, "disk /c/d/e"},
		{"disk  /blanks   shared ", 0, "disk /blanks shared"},
		{`disk /with\040blank\134\012`, 0, ""},
		{`disk /\303\244`, 0, "disk /ä"},
		{"disk /ro readonly", 0, ""},
		{"lease space key", 0, ""},
		{"lease space/below/ key", 0, "lease space/below key"},
		{"lease . key", 0, ""},
		{"lease space/../space key2 /dev/x 0", 0, "lease space key2 /dev/x 0"},
		{`lease space k\040y /dev/x 18446744073709551615`, 0, ""},
		{"disk a", unix.EINVAL, ""},
		{"disk", unix.EINVAL, ""},
		{"disk /a b", unix.EINVAL, ""},
		{"disk /a shared shared", unix.EINVAL, ""},
		{`disk /\08`, unix.EINVAL, ""},
		{`disk /\000`, unix.EINVAL, ""},
		{`disk /\400`, unix.EINVAL, ""},
		{`disk /\4`, unix.EINVAL, ""},
		{"disk /a\x00b", unix.EINVAL, ""},
		{"floppy /a", unix.EINVAL, ""},
		{"lease space", unix.EINVAL, ""},
		{"lease space key /x", unix.EINVAL, ""},
		{"lease space key x 1", unix.EINVAL, ""},
		{"lease space key /x -1", unix.EINVAL, ""},
		{"lease space key /x 18446744073709551616", unix.EINVAL, ""},
		{"lease space .lockfs", unix.EINVAL, ""},
		{"lease space ..", unix.EINVAL, ""},
		{"lease space .", unix.EINVAL, ""},
		{"lease space a/b", unix.EINVAL, ""},
		{"lease space " + strings.Repeat("n", 256), unix.EINVAL, ""},
		{"lease /space key", unix.EINVAL, ""},
		{"lease .. key", unix.EINVAL, ""},
		{"lease space/../.. key", unix.EINVAL, ""},
		{"lease nothing key", unix.ENOENT, ""},
		{"lease space/nothing key", unix.ENOENT, ""},
		{"lease .lockfs key", unix.ENOENT, ""},
		{"disk /good\ndisk bad", unix.EINVAL, ""},
	} {
		before := s.told("vm", "resources")
		errno := s.tell("vm", "resources", tc.write)
		want := before
		if tc.errno == 0 {
			line := tc.line
			if line == "" {
				line = tc.write
			}
			want += line + "\n"
		}
		if got := s.told("vm", "resources"); errno != tc.errno || got != want {
			t.Errorf("%q: %v, want %v; resources\n%swant\n%s", tc.write, errno, tc.errno, got, want)
		}
	}
	// What is given twice is one, in the stronger mode.
	s.mustTell("vm", "resources<disk /ro", "resources<disk /blanks readonly", "resources<lease space key /p 7")
	for _, want := range []string{"disk /ro\n", "disk /blanks shared\n", "lease space key /p 7\n"} {
		if got := s.told("vm", "resources"); strings.Count(got, want) != 1 {
			t.Errorf("resources are\n%swant %q once", got, want)
		}
	}
}

// A write of a page may be the first part of a longer one.
func TestResourcesInPages(t *testing.T) {
	s := serve(t)
	s.made("vm", 0)
	var text strings.Builder
	for i := range 60 {
		fmt.Fprintf(&text, "disk /%s/%d\n", strings.Repeat("x", 100), i)
	}
	whole := text.String()
	f := s.mustOpen(s.walk(".lockfs", "owner", "vm", "resources"), unix.O_WRONLY)
	for rest := whole; rest != ""; {
		part := rest[:min(4096, len(rest))]
		r := s.call(opWrite, f.node, u64(f.handle), u64(0), u32(uint32(len(part))), zeros(20), []byte(part))
		if r.errno != 0 {
			t.Fatal(r.errno)
		}
		rest = rest[native.Uint32(r.body):]
	}
	got := ""
	for {
		piece, errno := s.read(s.mustOpen(f.node, unix.O_RDONLY), uint64(len(got)), 4096)
		if errno != 0 || piece == "" {
			break
		}
		got += piece
	}
	if got != whole {
		t.Errorf("resources are %d bytes, want the %d that were written", len(got), len(whole))
	}
	if errno := s.write(f, 0, "disk /"+strings.Repeat("x", 4090)); errno != unix.EINVAL {
		t.Errorf("a line as long as a page: %v", errno)
	}
	for i := range 36 {
		s.mustTell("vm", fmt.Sprint("resources<disk /more/", i))
	}
	if errno := s.tell("vm", "resources", "disk /one/too/many"); errno != unix.EDQUOT {
		t.Errorf("the 97th resource: %v", errno)
	}
	s.mustTell("vm", "resources<disk /more/0 shared", "ctl<acquire", "ctl<release disk /more/0", "resources<disk /another")
	// The state of all of them can be written.
	state := strings.TrimSuffix(s.told("vm", "state"), "\n")
	s.mustTell("vm", "ctl<release", "ctl<acquire "+state)
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

// All resources of a user's owners are counted.
func TestOwnersResourcesHaveALimit(t *testing.T) {
	s := serve(t)
	var lines strings.Builder
	for i := range 96 {
		fmt.Fprintf(&lines, "disk /%d\n", i)
	}
	full := 16 * 1024 / 96
	for i := range full {
		s.made(fmt.Sprint("vm", i), 0)
		if errno := s.tell(fmt.Sprint("vm", i), "resources", lines.String()); errno != 0 {
			t.Fatalf("owner %d: %v", i, errno)
		}
	}
	s.made("last", 0)
	if errno := s.tell("last", "resources", lines.String()); errno != unix.EDQUOT {
		t.Errorf("more than a user can have: %v", errno)
	}
	for i := range 16*1024 - full*96 {
		s.mustTell("last", fmt.Sprint("resources<disk /last/", i))
	}
	if errno := s.tell("last", "ctl", "acquire disk /one/more"); errno != unix.EDQUOT {
		t.Errorf("one more: %v", errno)
	}
	s.mustTell("vm0", "ctl<release disk /0")
	s.mustTell("last", "ctl<acquire disk /one/more")
	s.rmOwner("vm1")
	s.made("another", 0)
	if errno := s.tell("another", "resources", lines.String()); errno != 0 {
		t.Errorf("when there is room: %v", errno)
	}
	if errno := s.tell("another", "ctl", "acquire disk /one/more/still"); errno != unix.EDQUOT {
		t.Errorf("one more: %v", errno)
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

// All or none; and what is in the way is told.
func TestAcquire(t *testing.T) {
	s := serve(t)
	s.made("one", 500, "/a", "/b shared")
	s.mustTell("one", "ctl<acquire")
	s.wantDisks("one has acquired", "/a", "/b")
	s.made("two", 600, "/c", "/b", "/d readonly", "/a shared")
	if errno := s.tell("two", "ctl", "acquire"); errno != unix.EBUSY {
		t.Errorf("two acquires: %v", errno)
	}
	s.wantDisks("two was refused", "/a", "/b")
	s.wantTells("two", "conflicts", "state=held pid=500 uid=1000 via=owner mode=shared token=2 owner=one resource=disk /b\n"+
		"state=held pid=500 uid=1000 via=owner mode=exclusive token=1 owner=one resource=disk /a shared\n")
	s.mustTell("one", "ctl<release disk /a")
	s.wantTells("one", "resources", "disk /b shared\n")
	s.mustTell("two", "ctl<release disk /b", "resources<disk /b shared", "ctl<acquire")
	s.wantTells("two", "conflicts", "")
	s.wantDisks("two has acquired", "/a", "/b", "/c")

	// Hot-plug: the new one, or nothing; what there was is kept, with its token.
	state := s.told("two", "state")
	s.mustTell("two", "resources<disk /e")
	s.mustTell("two", "ctl<acquire")
	if now := s.told("two", "state"); !strings.HasPrefix(now, strings.TrimSpace(state)+",x") {
		t.Errorf("the state was %q and is %q", state, now)
	}
	s.mustTell("one", "resources<disk /f", "resources<disk /e")
	if errno := s.tell("one", "ctl", "acquire"); errno != unix.EBUSY {
		t.Errorf("one acquires what two has: %v", errno)
	}
	s.wantDisks("one was refused", "/a", "/b", "/c", "/e")
	s.mustTell("one", "ctl<release")
	s.mustTell("two", "ctl<release", "ctl<release")
	s.wantDisks("both have released")
	s.wantTells("two", "resources", "disk /c\ndisk /d readonly\ndisk /a shared\ndisk /b shared\ndisk /e\n")
}

// A resource can be taken alone, and is on the list then, or nothing has changed.
func TestAcquireOne(t *testing.T) {
	s := serve(t)
	space := s.mustMkdir(1, "space", 0o755)
	s.mustMkdir(space, "below", 0o755)
	s.made("one", 500, "/a")
	s.mustTell("one", "ctl<acquire")
	s.made("two", 600, "/a", "/b")
	for _, line := range []string{"disk /a", "disk /a readonly x", "disk", "lease nothing key", "disk /a shared"} {
		if errno := s.tell("two", "ctl", "acquire "+line); errno == 0 {
			t.Errorf("acquire %s succeeded", line)
		}
		s.wantTells("two", "resources", "disk /a\ndisk /b\n")
	}
	s.mustTell("two", "ctl<acquire disk /c shared", "ctl<acquire lease space/below key /x 1", "ctl<acquire disk /d readonly")
	if got := s.list(); !maps.Equal(got, map[string]bool{"space": true, diskName("/a"): true, diskName("/c"): true}) {
		t.Errorf("held are %q", sorted(got))
	}
	s.wantTells("two", "resources", "disk /a\ndisk /b\ndisk /c shared\nlease space/below key /x 1\ndisk /d readonly\n")
	// Stronger, if nobody is in the way.
	s.mustTell("one", "ctl<acquire disk /c shared")
	if errno := s.tell("two", "ctl", "acquire disk /c"); errno != unix.EBUSY {
		t.Errorf("an upgrade of what another has too: %v", errno)
	}
	s.wantTells("two", "conflicts", "state=held pid=500 uid=1000 via=owner mode=shared token=6 owner=one resource=disk /c\n")
	if !strings.Contains(s.told("two", "resources"), "disk /c shared\n") {
		t.Error("a refused upgrade has changed the resource")
	}
	s.mustTell("one", "ctl<release disk /c")
	s.mustTell("two", "ctl<acquire disk /c", "ctl<acquire disk /b", "ctl<release disk /c")
	s.endAndStep(500)
	if errno := s.tell("one", "ctl", "acquire disk /x"); errno != unix.ESRCH {
		t.Errorf("its process has ended: %v", errno)
	}
}

// endAndStep is the end of a process, where the time is nobody's.
func (s *served) endAndStep(pid uint32) {
	s.t.Helper()
	s.procs.end(pid)
	s.call(opGetattr, 1, zeros(16))
}

// Whatever else holds the lock is in the way, and so is the owner to it.
func TestAcquireAgainstOthers(t *testing.T) {
	s := serve(t)
	s.made("vm", 500, "/a")
	f := s.mustCreate(diskName("/a"), 0)
	if errno := s.flock(f, unix.F_RDLCK); errno != 0 {
		t.Fatal(errno)
	}
	wait := s.startFlock(s.mustCreate(diskName("/a"), 0), unix.F_WRLCK)
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EBUSY {
		t.Errorf("acquire of what is locked: %v", errno)
	}
	s.wantTells("vm", "conflicts", "state=held pid=100 uid=1000 via=flock mode=shared token=1 resource=disk /a\n"+
		"state=waiting pid=100 uid=1000 via=flock mode=exclusive resource=disk /a\n")
	s.release(f)
	if r := s.await(wait); r.errno != 0 {
		t.Fatal(r.errno)
	}
	s.rmOwner("vm")
	s.made("vm", 500, "/b")
	s.mustTell("vm", "ctl<acquire")
	if _, errno := s.create(diskName("/b"), unix.O_EXCL); errno != unix.EEXIST {
		t.Errorf("O_EXCL: %v", errno)
	}
	// Its process is a stranger to its owner, as all are.
	s.caller.pid = 500
	if errno := s.flock(s.mustCreate(diskName("/b"), 0), unix.F_RDLCK); errno != unix.EAGAIN {
		t.Errorf("flock: %v", errno)
	}
	record := s.readAll(4096, diskName("/b"))
	if !strings.HasPrefix(record, "pid=500\nuid=1000\nuser=alice\ncomm=program\n") || !strings.Contains(record, "via=owner\n") {
		t.Errorf("the record is %q", record)
	}
}

// To take a lock takes what O_EXCL would take.
func TestAcquireTakesPermission(t *testing.T) {
	s := serveWith(t, func(o *fs.Options) { o.UID, o.GID = 42, 42 })
	alice, owner := s.caller, caller{uid: 42, gid: 42, pid: 400}
	s.made("vm", 0, "/a")
	s.caller = owner
	s.setMode(1, 0o755)
	closed := s.mustMkdir(1, "closed", 0o700)
	s.mustMkdir(closed, "open", 0o777)
	s.mustMkdir(1, "open", 0o777)
	s.mustMkdir(1, "looked", 0o755)
	s.setMode(s.walk("open"), 0o777) // whatever the umask was
	s.caller = alice
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EACCES {
		t.Errorf("a disk, without write permission on the root: %v", errno)
	}
	for space, want := range map[string]unix.Errno{"open": 0, "looked": 0, "closed": 0, "closed/open": unix.EACCES} {
		if errno := s.tell("vm", "resources", "lease "+space+" key"); errno != want {
			t.Errorf("a lease in %s: %v, want %v", space, errno, want)
		}
	}
	s.mustTell("vm", "ctl<release disk /a")
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EACCES {
		t.Errorf("a lease, without write permission: %v", errno)
	}
	s.mustTell("vm", "ctl<release lease looked key", "ctl<release lease closed key", "ctl<acquire")
	if got := s.readAll(4096, "open", "key"); !strings.Contains(got, "via=owner\n") {
		t.Errorf("the record is %q", got)
	}
	// It is given back though the directory is closed meanwhile.
	s.caller = owner
	s.setMode(s.walk("open"), 0o700)
	s.caller = alice
	s.mustTell("vm", "ctl<acquire", "ctl<release")
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EACCES {
		t.Errorf("a lease in a directory that has been closed: %v", errno)
	}
}

// setMode is chmod(2) by the directory's owner.
func (s *served) setMode(dir uint64, mode uint32) {
	s.t.Helper()
	r := s.call(opSetattr, dir, u32(1), zeros(64), u32(mode), zeros(16))
	if r.errno != 0 {
		s.t.Fatal("chmod:", r.errno)
	}
}

// The holds end with the process, and the owner gets nothing before it has another.
func TestTheProcessOfAnOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInBubble(t, nil)
		s.made("vm", 500, "/a", "/b")
		s.mustTell("vm", "ctl<acquire register-only")
		s.wantDisks("it was registered")
		s.mustTell("vm", "ctl<acquire")
		s.end(500)
		s.wantDisks("its process has ended")
		for _, command := range []string{"acquire", "acquire register-only", "acquire restrict"} {
			if errno := s.tell("vm", "ctl", command); errno != unix.ESRCH {
				t.Errorf("%s: %v", command, errno)
			}
		}
		s.mustTell("vm", "pid<600", "ctl<acquire")
		// What it holds goes to another process, with its token.
		state := s.told("vm", "state")
		s.mustTell("vm", "pid<700")
		s.wantTells("vm", "state", state)
		s.end(600)
		s.wantDisks("a process has ended that was its", "/a", "/b")
		if record := s.readAll(4096, diskName("/a")); !strings.HasPrefix(record, "pid=700\n") {
			t.Errorf("the record is %q", record)
		}
		// Nobody's, until it is given one.
		s.mustTell("vm", "pid<0")
		s.end(700)
		s.wantDisks("it has no process", "/a", "/b")
		s.mustTell("vm", "pid<800", "ctl<release")
		s.end(800)
		if errno := s.rmOwner("vm"); errno != 0 {
			t.Errorf("rmdir: %v", errno)
		}
	})
}

// Restricted, an owner is none of its process's business, nor of what that starts.
func TestRestrict(t *testing.T) {
	s := serve(t)
	s.procs.set(500, fs.ProcessInfo{Kin: fs.Kin{Pid: 500, Parent: 100, Started: 5}})
	s.procs.set(501, fs.ProcessInfo{Kin: fs.Kin{Pid: 501, Parent: 500, Started: 6}})
	s.procs.set(600, fs.ProcessInfo{Kin: fs.Kin{Pid: 600, Parent: 100, Started: 6}})
	s.made("vm", 500, "/a")
	s.caller.pid = 500
	s.mustTell("vm", "ctl<acquire register-only restrict")
	for _, pid := range []uint32{500, 501, 0} {
		s.caller.pid = pid
		for file, text := range map[string]string{"ctl": "acquire", "resources": "disk /b", "pid": "0", "name": "x", "onfailure": "ignore"} {
			if errno := s.tell("vm", file, text); errno != unix.EPERM {
				t.Errorf("process %d writes %q to %s: %v", pid, text, file, errno)
			}
		}
		if errno := s.rmOwner("vm"); errno != unix.EPERM {
			t.Errorf("rmdir by process %d: %v", pid, errno)
		}
	}
	s.caller.pid = 600
	s.mustTell("vm", "ctl<acquire")
	for _, pid := range []uint32{500, 501} {
		s.caller.pid = pid
		if errno := s.unlink(diskName("/a")); errno != unix.EPERM {
			t.Errorf("process %d removes what is held: %v", pid, errno)
		}
	}
	for _, pid := range []uint32{100, 600} {
		s.caller.pid = pid
		s.mustTell("vm", "ctl<acquire", "ctl<release", "resources<disk /b")
	}
	if errno := s.rmOwner("vm"); errno != 0 {
		t.Errorf("rmdir: %v", errno)
	}
}

// What befalls the process when a hold is taken away, and that it befalls it if the
// daemon dies before.
func TestOnFailure(t *testing.T) {
	for action, signal := range map[string]unix.Signal{
		"default": 0, "ignore": 0, "poweroff": unix.SIGKILL, "pause": unix.SIGSTOP, "restart": unix.SIGTERM,
	} {
		synctest.Test(t, func(t *testing.T) {
			records := store{}
			s := serveInBubble(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
			s.made("vm", 500, "/a", "/b")
			s.mustTell("vm", "onfailure<"+action, "ctl<acquire")
			sent := func(n int) {
				t.Helper()
				synctest.Wait()
				if signal == 0 {
					n = 0
				}
				if len(s.procs.signals) != n {
					t.Fatalf("%s: sent were %v, want %d", action, s.procs.signals, n)
				}
				for _, got := range s.procs.signals {
					if got != (sentSignal{fs.Identity{Pid: 500, Started: time.Nanosecond}, 1000, signal}) {
						t.Errorf("%s: sent was %v", action, got)
					}
				}
			}
			s.mustTell("vm", "ctl<release", "ctl<acquire")
			sent(0)
			s.caller.pid = 300 // neither the process nor started by it
			if errno := s.unlink(diskName("/a")); errno != 0 {
				t.Fatal(errno)
			}
			s.wantDisks("one was broken", "/b")
			sent(1)
			s.restore(maps.Clone(records))
			sent(1) // not again
			s.end(500)
			sent(1)
		})
	}
}

// What is due is done by the next process, if this one dies before; not if the owner
// has been given another process meanwhile.
func TestOnFailureIsDoneByTheNext(t *testing.T) {
	for _, another := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			records := store{}
			s := serveInBubble(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
			s.caller.uid = 0
			s.made("vm", 500, "/a")
			s.set(1, "lease", "1s")
			s.mustTell("vm", "onfailure<pause", "ctl<acquire")
			release := s.procs.hold()
			time.Sleep(2 * time.Second)
			synctest.Wait()
			s.wantDisks("the lease has run out")
			if another {
				s.mustTell("vm", "pid<0")
			}
			s.restore(records)
			synctest.Wait()
			release()
			synctest.Wait()
			// The process before this one has sent it too, as it has not died in truth.
			want := 2
			if another {
				want = 1
			}
			if len(s.procs.signals) != want {
				t.Errorf("sent were %v, want %d", s.procs.signals, want)
			}
			s.restore(records)
			synctest.Wait()
			if len(s.procs.signals) != want {
				t.Errorf("then sent were %v, want %d", s.procs.signals, want)
			}
		})
	}
}

// An owner and all it has is as it was in the next process, and over a clean stop and
// start; where its process has ended meanwhile, it holds nothing.
func TestOwnersSurvive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := store{}
		s := serveInBubble(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
		s.mustMkdir(1, "space", 0o755)
		s.made("vm", 500, "/a", "/b shared", "/c readonly")
		s.mustTell("vm", "id<7", "name<a name", "uuid<c7a5fdbdedaf9455926ad65c16db1809", "onfailure<restart",
			"resources<lease space key /x 9", "ctl<acquire")
		s.made("other", 600, "/d", "/a")
		if errno := s.tell("other", "ctl", "acquire"); errno != unix.EBUSY {
			t.Fatal(errno)
		}
		s.made("paused", 0, "/e", "/f")
		s.mustTell("paused", "ctl<acquire", "ctl<release disk /f", "ctl<release")
		s.made("nobodys", 0, "/g")
		s.mustTell("nobodys", "ctl<acquire")
		all := func() (text string) {
			for _, o := range s.listedBy(4096, ".lockfs", "owner") {
				for _, file := range []string{"id", "uuid", "name", "pid", "resources", "state", "conflicts", "onfailure"} {
					text += fmt.Sprintln(o, file, s.told(o, file))
				}
			}
			return text + fmt.Sprint(sorted(s.list()), s.readAll(4096, "space", "key"))
		}
		before := all()
		ctl := s.mustOpen(s.walk(".lockfs", "owner", "vm", "ctl"), unix.O_WRONLY)
		s.restore(records)
		if after := all(); after != before {
			t.Errorf("the next process has\n%s\nwant\n%s", after, before)
		}
		if errno := s.write(ctl, 0, "acquire"); errno != 0 {
			t.Errorf("a write through a file that was open: %v", errno)
		}
		s.release(ctl)
		s.stopAndStart(t)
		if after := all(); after != before {
			t.Errorf("the next mount has\n%s\nwant\n%s", after, before)
		}
		if errno := s.mkOwner("more"); errno != 0 {
			t.Errorf("mkdir: %v", errno)
		}
		saved := s.save()
		s.end(500)
		reaped := func(when string) {
			t.Helper()
			if got := s.list(); !maps.Equal(got, map[string]bool{"space": true, diskName("/g"): true}) {
				t.Errorf("%s: %q are held", when, sorted(got))
			}
			if _, _, errno := s.lookup(s.walk("space"), "key"); errno != unix.ENOENT {
				t.Errorf("%s: the lease is held: %v", when, errno)
			}
		}
		reaped("its process has ended")
		if err := s.startFrom(saved); err != nil {
			t.Fatal(err)
		}
		s.call(opGetattr, 1, zeros(16))
		synctest.Wait()
		reaped("it ended while the mount was stopped")
		if errno := s.tell("vm", "ctl", "acquire"); errno != unix.ESRCH {
			t.Errorf("acquire: %v", errno)
		}
	})
}

// What cannot be is not believed.
func TestRestoreRefusesOwners(t *testing.T) {
	held := func(s *served) {
		s.made("vm", 500, "/a")
		s.mustTell("vm", "ctl<acquire")
	}
	for name, change := range map[string]func(store){
		"no registry": func(r store) { delete(r, [2]uint64{21, 0}) },
		"no owner": func(r store) {
			for k := range r {
				if k[0] == 21 && k[1] != 0 {
					delete(r, k)
				}
			}
		},
		"no resource": func(r store) {
			for k := range r {
				if k[0] == 22 {
					delete(r, k)
				}
			}
		},
		"an owner twice":    func(r store) { r[[2]uint64{21, 9999}] = ownerOf(r) },
		"a cut owner":       func(r store) { o := ownerOf(r); r[[2]uint64{21, 9999}] = o[:len(o)-1] },
		"a long owner":      func(r store) { r[[2]uint64{21, 9999}] = append(slices.Clone(ownerOf(r)), 0) },
		"another kind":      func(r store) { r[[2]uint64{21, 9999}] = []byte{2} },
		"conflicts of none": func(r store) { r[[2]uint64{22, 9999}] = []byte{1, 0, 0, 0, 0} },
		"nothing":           func(r store) { r[[2]uint64{22, 9999}] = nil },
	} {
		records := store{}
		s := serveWith(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
		held(s)
		s.call(opGetattr, 1, zeros(16))
		if err := s.restorable(records); err != nil {
			t.Fatal(err)
		}
		broken := maps.Clone(records)
		change(broken)
		if err := s.restorable(broken); !errors.Is(err, fs.ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// ownerOf returns the record of the one owner.
func ownerOf(r store) []byte {
	for k, data := range r {
		if k[0] == 21 && k[1] != 0 {
			return data
		}
	}
	return nil
}

// A lease runs for what owners hold; to acquire again renews it.
func TestOwnersLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := serveInBubble(t, nil)
		s.caller.uid = 0
		s.made("vm", 500, "/a")
		s.set(1, "lease", "10s")
		s.mustTell("vm", "onfailure<pause", "ctl<acquire")
		for range 3 {
			time.Sleep(8 * time.Second)
			s.mustTell("vm", "ctl<acquire")
		}
		s.wantDisks("it was renewed", "/a")
		time.Sleep(11 * time.Second)
		synctest.Wait()
		s.wantDisks("it was not renewed")
		if len(s.procs.signals) != 1 {
			t.Errorf("sent were %v", s.procs.signals)
		}
		s.set(1, "lease", "0")
		s.set(1, "grace", "10s")
		s.mustTell("vm", "ctl<acquire")
		s.end(500)
		s.made("next", 600, "/a")
		if errno := s.tell("next", "ctl", "acquire"); errno != unix.EBUSY {
			t.Errorf("acquire in grace: %v", errno)
		}
		s.wantTells("next", "conflicts", "state=grace resource=disk /a\n")
		// What an owner holds is kept over a stop, so nobody needs grace for it.
		time.Sleep(11 * time.Second)
		s.mustTell("next", "ctl<acquire")
		s.stopAndStart(t)
		s.wantDisks("after a stop", "/a")
		s.mustTell("next", "ctl<release", "ctl<acquire")
	})
}

// The lock of a directory that nobody holds is not for owners.
func TestOwnersAndDirectories(t *testing.T) {
	s := serveWith(t, func(o *fs.Options) { o.Lockspaces = []fs.Lockspace{{Name: "space"}} })
	s.made("vm", 0)
	s.mustTell("vm", "resources<lease . space")
	if errno := s.tell("vm", "ctl", "acquire"); errno != unix.EISDIR {
		t.Errorf("acquire of a directory: %v", errno)
	}
	s.mustTell("vm", "ctl<release lease . space", "resources<lease space key", "ctl<acquire")
	if r := s.call(opRmdir, 1, cstring("space")); r.errno == 0 {
		t.Error("a directory was removed in which an owner holds something")
	}
	s.mustTell("vm", "ctl<release")
}
