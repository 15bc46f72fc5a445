package fs_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.7: the control directory.

const versionText = "program=1.2.3\nstate=7\n"

func serveControl(t testing.TB, records store) *served {
	t.Helper()
	return serveWith(t, func(o *fs.Options) {
		if records != nil {
			o.Journal = fs.NewRecords(records, new(fs.Saved))
		}
		o.Program, o.State, o.UID, o.GID = "1.2.3", 7, 42, 43
	})
}

// lookup returns the answer to a LOOKUP: the node, and its attributes.
func (k *kernel) lookup(dir uint64, name string) (node uint64, a attributes, errno unix.Errno) {
	k.t.Helper()
	r := k.call(opLookup, dir, cstring(name))
	if r.errno != 0 {
		return 0, a, r.errno
	}
	return native.Uint64(r.body), parseAttributes(r.body[40:]), 0
}

// walk looks up one name in the other, from the root, which must succeed.
func (k *kernel) walk(names ...string) (node uint64) {
	k.t.Helper()
	node = 1
	for _, name := range names {
		next, _, errno := k.lookup(node, name)
		if errno != 0 {
			k.t.Fatalf("look up %q in %q: %v", name, names, errno)
		}
		node = next
	}
	return node
}

// attributes are what is looked at of struct fuse_attr.
type attributes struct {
	ino, size             uint64
	mode, nlink, uid, gid uint32
}

func parseAttributes(b []byte) attributes {
	return attributes{
		ino: native.Uint64(b), size: native.Uint64(b[8:]),
		mode: native.Uint32(b[60:]), nlink: native.Uint32(b[64:]), uid: native.Uint32(b[68:]), gid: native.Uint32(b[72:]),
	}
}

func TestVersionTellsProgramAndState(t *testing.T) {
	s := serveControl(t, nil)
	f := s.mustOpen(s.walk(".lockfs", "version"), unix.O_RDONLY)
	if got, errno := s.read(f, 0, 4096); got != versionText || errno != 0 {
		t.Errorf("version is %q (%v), want %q", got, errno, versionText)
	}
	if got, errno := s.read(f, uint64(len(versionText)), 4096); got != "" || errno != 0 {
		t.Errorf("behind the end: %q, %v", got, errno)
	}
	if got, errno := s.read(f, 8, 5); got != "1.2.3" || errno != 0 {
		t.Errorf("in the middle: %q, %v", got, errno)
	}
	g := s.mustOpen(f.node, unix.O_RDONLY)
	if got, errno := s.read(g, 8, 5); got != "1.2.3" || errno != 0 {
		t.Errorf("in the middle, before the beginning was read: %q, %v", got, errno)
	}
	s.release(f)
	if _, errno := s.read(f, 0, 10); errno != unix.EBADF {
		t.Errorf("after the close: %v", errno)
	}
	if got, errno := s.read(g, 0, 4096); got != versionText || errno != 0 {
		t.Errorf("by another: %q, %v", got, errno)
	}
}

func TestControlDirectoryIsThereAndNotListed(t *testing.T) {
	s := serveControl(t, nil)
	if listed := s.list(); len(listed) != 0 {
		t.Errorf("the root lists %q", sorted(listed))
	}
	dir, a, errno := s.lookup(1, ".lockfs")
	if errno != 0 {
		t.Fatal("look up .lockfs:", errno)
	}
	if want := (attributes{ino: dir, mode: unix.S_IFDIR | 0o555, nlink: 2, uid: 42, gid: 43}); a != want {
		t.Errorf(".lockfs: %+v, want %+v", a, want)
	}
	file, a, errno := s.lookup(dir, "version")
	if want := (attributes{ino: file, mode: unix.S_IFREG | 0o444, nlink: 1, uid: 42, gid: 43}); errno != 0 || a != want {
		t.Errorf("version: %v, %+v, want %+v", errno, a, want)
	}
	for _, node := range []uint64{dir, file} {
		// Whatever the kernel says of its references, the number stays good.
		for range 3 {
			s.send(opForget, node, u64(1<<40))
		}
		r := s.call(opGetattr, node, zeros(16))
		if r.errno != 0 {
			t.Fatal("getattr:", r.errno)
		}
		if a := parseAttributes(r.body[16:]); a.ino != node || a.uid != 42 {
			t.Errorf("getattr: %+v", a)
		}
	}
	if again := s.walk(".lockfs", "version"); again != file {
		t.Errorf("version has number %d, and had %d", again, file)
	}
	if _, _, errno := s.lookup(dir, "nothing"); errno != unix.ENOENT {
		t.Errorf("look up what there is not: %v", errno)
	}
	if _, _, errno := s.lookup(dir, ".lockfs"); errno != unix.ENOENT {
		t.Errorf("look up .lockfs/.lockfs: %v", errno)
	}
	for _, size := range []uint32{4096, 40} { // 40: one entry at a time
		r := s.call(opOpendir, dir, u32(0), u32(0))
		if r.errno != 0 {
			t.Fatal("opendir:", r.errno)
		}
		handle, names := native.Uint64(r.body), []string{}
		for offset := uint64(0); ; {
			entries, next := s.readdirOf(dir, handle, offset, size)
			if len(entries) == 0 {
				break
			}
			names, offset = append(names, entries...), next
		}
		if got := fmt.Sprint(names); got != "[. .. version events metrics health policy locks locks.json waits.dot lock owner]" {
			t.Errorf(".lockfs lists %s by %d bytes", got, size)
		}
		s.call(opReleasedir, dir, u64(handle), zeros(16))
	}
}

// Numbers in the range of control nodes that are none are stale, whatever is
// done with them.
func TestControlNodesThatThereAreNot(t *testing.T) {
	s := serveControl(t, nil)
	dir := s.walk(".lockfs")
	lock := s.mustCreate("x", unix.O_EXCL)
	for _, node := range []uint64{
		dir + 200,                // no such entry
		1<<62 | lock.node<<8,     // about a lock
		1<<62 | (lock.node+9)<<8, // about nothing
		1<<62 | (1<<54-1)<<8 | 1, 1<<63 - 1, 1 << 62,
	} {
		for _, r := range []reply{
			s.call(opGetattr, node, zeros(16)),
			s.call(opLookup, node, cstring("version")),
			s.call(opOpen, node, u32(0), u32(0)),
			s.call(opOpendir, node, u32(0), u32(0)),
			s.call(opReaddir, node, u64(0), u64(0), u32(4096), zeros(20)),
			s.call(opAccess, node, u32(4), u32(0)),
			s.call(opSetattr, node, u32(8), u32(0), zeros(80)),
		} {
			if r.errno != unix.ESTALE {
				t.Errorf("node %#x: %v, want ESTALE", node, r.errno)
			}
		}
	}
}

// Nothing in a control directory can be changed, for root neither, and nothing
// locked.
func TestControlFilesCannotBeChangedOrLocked(t *testing.T) {
	s := serveControl(t, nil)
	dir, file := s.walk(".lockfs"), s.walk(".lockfs", "version")
	want := func(what string, errno, want unix.Errno) {
		t.Helper()
		if errno != want {
			t.Errorf("uid %d: %s: %v, want %v", s.caller.uid, what, errno, want)
		}
	}
	for _, c := range []caller{{0, 0, 100}, {42, 43, 101}, {1000, 1000, 102}} {
		s.caller = c
		for _, name := range []string{"version", "new"} {
			create := s.call(opCreate, dir, u32(unix.O_CREAT|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring(name))
			want("create "+name, create.errno, unix.EACCES)
			want("unlink "+name, s.call(opUnlink, dir, cstring(name)).errno, unix.EACCES)
			want("mkdir "+name, s.call(opMkdir, dir, u32(0o755), u32(0), cstring(name)).errno, unix.EACCES)
		}
		want("unlink .lockfs", s.call(opUnlink, 1, cstring(".lockfs")).errno, unix.EISDIR)
		want("rmdir .lockfs", s.call(opRmdir, 1, cstring(".lockfs")).errno, unix.EPERM)
		want("rmdir in it", s.call(opRmdir, dir, cstring("version")).errno, unix.EACCES)
		want("open for writing", s.call(opOpen, file, u32(unix.O_WRONLY), u32(0)).errno, unix.EACCES)
		want("open and truncate", s.call(opOpen, file, u32(unix.O_RDONLY|unix.O_TRUNC), u32(0)).errno, unix.EACCES)
		for valid, errno := range map[uint32]unix.Errno{1: unix.EPERM, 2: unix.EPERM, 4: unix.EPERM, 8: unix.EACCES, 32: unix.EPERM} {
			want(fmt.Sprint("setattr ", valid), s.call(opSetattr, file, u32(valid), u32(0), zeros(80)).errno, errno)
		}
		want("access W_OK", s.call(opAccess, file, u32(2), u32(0)).errno, unix.EACCES)
		want("access X_OK", s.call(opAccess, file, u32(1), u32(0)).errno, unix.EACCES)
		want("access R_OK", s.call(opAccess, file, u32(4), u32(0)).errno, 0)
		want("access W_OK, directory", s.call(opAccess, dir, u32(2), u32(0)).errno, unix.EACCES)
		want("access R_OK X_OK, directory", s.call(opAccess, dir, u32(5), u32(0)).errno, 0)

		f := s.mustOpen(file, unix.O_RDONLY)
		want("write", s.write(f, 0, "x"), unix.EBADF)
		want("fsync", s.call(opFsync, file, u64(f.handle), zeros(8)).errno, 0)
		for _, kind := range []uint32{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK} {
			want("flock", s.flock(f, kind), unix.EOPNOTSUPP)
			want("flock that may wait", s.await(s.startFlock(f, kind)).errno, unix.EOPNOTSUPP)
			want("fcntl", s.call(opSetlk, file, s.lockBody(f, 7, kind, 0, 9, false)).errno, unix.EOPNOTSUPP)
			want("getlk", s.call(opGetlk, file, s.lockBody(f, 7, kind, 0, 9, false)).errno, unix.EOPNOTSUPP)
		}
		s.release(f)
	}
	if listed := s.list(); len(listed) != 0 {
		t.Errorf("held is %q", sorted(listed))
	}
	s.journal.look(func() {
		if n := len(s.journal.holds) + len(s.journal.waits) + len(s.journal.handles); n != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

// Who may search the directory may look into its control directory; nobody
// else.
func TestTheDirectoryDecidesAboutItsControlDirectory(t *testing.T) {
	s := serveControl(t, nil)
	dir, file := s.walk(".lockfs"), s.walk(".lockfs", "version")
	for mode, want := range map[uint32]unix.Errno{0o777: 0, 0o711: 0, 0o701: 0, 0o776: unix.EACCES, 0o700: unix.EACCES} {
		s.caller = caller{42, 43, 101}
		if r := s.call(opSetattr, 1, u32(1), u32(0), zeros(8*6), zeros(12), u32(mode), zeros(16)); r.errno != 0 {
			t.Fatal("chmod:", r.errno)
		}
		for _, c := range []caller{{1000, 1000, 100}, {0, 0, 102}} {
			s.caller = c
			want := want
			if c.uid == 0 {
				want = 0
			}
			for what, r := range map[string]reply{
				"look up .lockfs": s.call(opLookup, 1, cstring(".lockfs")),
				"look up version": s.call(opLookup, dir, cstring("version")),
				"open":            s.call(opOpen, file, u32(unix.O_RDONLY), u32(0)),
				"opendir":         s.call(opOpendir, dir, u32(0), u32(0)),
				"access":          s.call(opAccess, file, u32(4), u32(0)),
			} {
				if r.errno != want {
					t.Errorf("uid %d, mode %o: %s: %v, want %v", c.uid, mode, what, r.errno, want)
				}
			}
		}
	}
}

// A reader that began before the process was replaced goes on in what it
// began with, and finds the new text when it begins anew. Numbers of nodes
// stay good.
func TestReadersOfControlFilesSurvive(t *testing.T) {
	records := store{}
	s := serveControl(t, records)
	dir, version := s.walk(".lockfs"), s.walk(".lockfs", "version")
	began, ended, fresh := s.mustOpen(version, unix.O_RDONLY), s.mustOpen(version, unix.O_RDONLY), s.mustOpen(version, unix.O_RDONLY)
	s.read(began, 0, 8)
	s.read(ended, 0, 4096)
	listing := native.Uint64(s.call(opOpendir, dir, u32(0), u32(0)).body)

	s.options.Program, s.options.State = "1.2.3-with-a-longer-name", 8
	for range 2 { // by the next process, and the one after
		s.restore(records)
		if got, errno := s.read(began, 8, 4096); got != versionText[8:] || errno != 0 {
			t.Errorf("who was in the middle goes on with %q (%v), want %q", got, errno, versionText[8:])
		}
		if got, errno := s.read(ended, uint64(len(versionText)), 4096); got != "" || errno != 0 {
			t.Errorf("who was at the end finds %q, %v", got, errno)
		}
	}
	want := "program=1.2.3-with-a-longer-name\nstate=8\n"
	now := s.mustOpen(version, unix.O_RDONLY)
	for i, f := range []file{fresh, began, now} {
		if got, errno := s.read(f, 0, 4096); got != want || errno != 0 {
			t.Errorf("%s finds %q, %v", []string{"who had not begun", "who begins anew", "who opens now"}[i], got, errno)
		}
	}
	if entries, _ := s.readdirOf(dir, listing, 2, 4096); fmt.Sprint(entries) != "[version events metrics health policy locks locks.json waits.dot lock owner]" {
		t.Errorf("the listing goes on with %q", entries)
	}
	if errno := s.flock(began, unix.F_WRLCK); errno != unix.EOPNOTSUPP {
		t.Errorf("flock: %v", errno)
	}
	for _, f := range []file{began, ended, fresh, now} {
		s.release(f)
	}
}

// A program that does not know an entry any more answers for it, and takes
// over all the same.
func TestAnEntryThatThereIsNotAnyMore(t *testing.T) {
	records := store{}
	s := serveControl(t, records)
	lock := s.mustCreate("x", unix.O_EXCL)
	f := s.mustOpen(s.walk(".lockfs", "version"), unix.O_RDONLY)
	known := f.node
	for k, data := range records {
		if k == [2]uint64{2, f.handle} { // its node comes first
			copy(data, u64(known+100))
		}
	}
	s.restore(records)
	if _, errno := s.read(file{known + 100, f.handle}, 0, 100); errno != unix.ESTALE {
		t.Errorf("read: %v, want ESTALE", errno)
	}
	if errno := s.write(lock, 0, "x"); errno != 0 {
		t.Errorf("the lock is lost: %v", errno)
	}
	s.release(file{known + 100, f.handle})
}
