package fs_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// A CREATE of what somebody has made since the kernel looked, and which is
// refused, refers to nothing.
func TestARefusedCreateKeepsNothing(t *testing.T) {
	s := serveWith(t, func(o *fs.Options) { o.Policy = mustPolicy(t, "hold=name") })
	f := s.mustCreate("x", 0)
	s.release(f)
	s.send(opForget, f.node, u64(1))

	mine := s.caller
	s.caller = caller{uid: 2000, gid: 2000, pid: 200}
	if _, errno := s.create("x", 0); errno != unix.EACCES {
		t.Fatalf("a stranger's CREATE: %v, want EACCES", errno)
	}
	var counts fs.Counts
	s.conn.Do(func() { counts = s.fs.Counts() })
	if counts.Nodes != 1 {
		t.Errorf("%d nodes, want the root", counts.Nodes)
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
