package fs_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// What is refused refers to nothing: what somebody else had made since the kernel
// looked goes with its name.
func TestWhatIsRefusedKeepsNothing(t *testing.T) {
	s := serveWith(t, func(o *fs.Options) { o.Policy = mustPolicy(t, "hold=name") })
	f := s.mustCreate("x", 0)
	s.release(f)
	s.send(opForget, f.node, u64(1))

	mine := s.caller
	s.caller = caller{uid: 2000, gid: 2000, pid: 200}
	nodes := func() (n int) {
		s.conn.Do(func() { n = s.fs.Counts().Nodes })
		return n
	}
	if _, errno := s.create("x", 0); errno != unix.EACCES || nodes() != 1 {
		t.Errorf("a stranger's CREATE: %v, and then there are %d nodes; want EACCES, and the root", errno, nodes())
	}
	r := s.call(opRename2, 1, u64(1), u32(0), u32(0), cstring("x"), cstring("y"))
	if r.errno != unix.EPERM || nodes() != 1 {
		t.Errorf("a stranger's RENAME: %v, and then there are %d nodes; want EPERM, and the root", r.errno, nodes())
	}
	s.caller = mine
	if errno := s.unlink("x"); errno != 0 {
		t.Fatal(errno)
	}
	s.journal.look(func() {
		if n := len(s.journal.files); n != 1 {
			t.Errorf("%d files are recorded, want the root", n)
		}
	})
}
