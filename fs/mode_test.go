package fs_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// Where the directory decides, a file that comes from where it had a mode keeps
// that too: the owner of two directories does not get at another's file by
// renaming it from one to the other.
func TestAFileKeepsItsModeWhereTheDirectoryDecides(t *testing.T) {
	for _, hold := range []string{"handle", "open"} {
		t.Run(hold, func(t *testing.T) { keepsItsMode(t, hold) })
	}
}

func keepsItsMode(t *testing.T, hold string) {
	const other = 7 // a directory in which files have no mode
	records := store{}
	s := serveWith(t, func(o *fs.Options) {
		o.Policy = mustPolicy(t, "hold=name")
		o.Journal = fs.NewRecords(records, new(fs.Saved))
	})
	s.call(opGetattr, 1, zeros(16))
	r := fs.NewRecords(records, new(fs.Saved))
	r.PutFile(&fs.FileRecord{Ino: other, Kind: 1, Mode: 0o777, UID: 1002, GID: 1002, Policy: mustPolicy(t, "hold="+hold)})
	r.PutEntry(&fs.EntryRecord{ID: 7, Dir: 1, Name: "other", File: other})
	s.restore(records)

	bob := caller{uid: 1002, gid: 1002, pid: 200}
	dir := native.Uint64(s.must(bob, opMkdir, 1, u32(0o777), u32(0), cstring("by name")).body)
	made := s.must(alice, opCreate, dir, u32(unix.O_CREAT|unix.O_RDWR), u32(0o600), u32(0), u32(0), cstring("file"))
	node, h := native.Uint64(made.body), native.Uint64(made.body[128:])
	s.must(alice, opWrite, node, u64(h), u64(0), u32(uint32(len(secret))), zeros(20), []byte(secret))
	s.must(alice, opRelease, node, u64(h), zeros(16))
	s.must(bob, opRename2, dir, u64(other), u32(0), u32(0), cstring("file"), cstring("his"))

	found := s.must(bob, opLookup, other, cstring("his")).body
	node = native.Uint64(found)
	if mode := native.Uint32(found[40+60:]); mode != unix.S_IFREG|0o600 {
		t.Errorf("its mode is %o", mode)
	}
	for _, flags := range []uint32{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
		if r := s.as(bob, opOpen, node, u32(flags), u32(0)); r.errno != unix.EACCES {
			t.Errorf("bob opens it with flags %#x: %v", flags, r.errno)
		}
		h := native.Uint64(s.must(alice, opOpen, node, u32(flags), u32(0)).body)
		s.must(alice, opRelease, node, u64(h), zeros(16))
	}
	if r := s.as(bob, opAccess, node, u32(4), u32(0)); r.errno != unix.EACCES {
		t.Errorf("bob's access R_OK: %v", r.errno)
	}
	if r := s.as(bob, opLink, other, u64(node), cstring("other")); r.errno != unix.EPERM {
		t.Errorf("bob's link: %v", r.errno)
	}
}

// A thread that is not its process's first removes what nobody holds: there is
// nothing to look its process up for.
func TestAThreadRemovesWhatNobodyHolds(t *testing.T) {
	s := newIntruder(t, "name")
	s.procs.set(101, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Started: 1}})
	thread := caller{uid: alice.uid, gid: alice.gid, pid: 101}
	shared := s.dirs[2]
	s.must(thread, opUnlink, shared, cstring("public"))
	s.file(shared, "again", 0, 0o644)
	s.must(thread, opRename2, shared, u64(shared), u32(0), u32(0), cstring("again"), cstring("moved"))
	s.must(thread, opLookup, shared, cstring("moved"))
}
