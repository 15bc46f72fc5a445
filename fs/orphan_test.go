package fs_test

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// A body goes with its file, also if its author has the lock in another way: by a
// name that was made when the file was open. A body without a file would keep every
// successor from taking over.
func TestNoBodyWithoutItsFile(t *testing.T) {
	records := store{}
	s := serveWith(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
	f := s.mustCreate("a", 0)
	if errno := s.call(opSymlink, 1, cstring("a"), cstring("text")).errno; errno != 0 {
		t.Fatal(errno)
	}
	if errno := s.write(f, 0, "body"); errno != 0 {
		t.Fatal(errno)
	}
	s.release(f)
	s.send(opForget, f.node, u64(1))
	s.call(opGetattr, 1, zeros(16)) // when that has been done
	s.restore(records)
	if errno := s.call(opGetattr, 1, zeros(16)).errno; errno != 0 {
		t.Errorf("the next worker: %v", errno)
	}
}

// A directory that the kernel does not know, or has forgotten, and that goes with
// its hold: nobody tells that it is not used any more.
func TestAForgottenDirectoryGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records := store{}
		s := serveInBubble(t, func(o *fs.Options) {
			o.Policy = mustPolicy(t, "lease=10s")
			o.Journal = fs.NewRecords(records, new(fs.Saved))
		})
		before := len(records)
		dir, errno := s.mkdir(1, "dir")
		if errno != 0 {
			t.Fatal(errno)
		}
		s.send(opForget, dir, u64(1))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := s.fs.Counts().Nodes; got != 1 {
			t.Errorf("%d nodes, want the root", got)
		}
		if n := len(records) - before; n > 2 { // what numbers are reserved
			t.Errorf("%d records more than before: %v", n, records)
		}
	})
}

// A file that is open, has another name, and had one in a directory that is gone: the
// kernel forgets file and directory before it tells of the file's close, which has
// to wait for its turn.
func TestTheDirectoryGoesBeforeTheOpenFile(t *testing.T) {
	records := store{}
	s := serveWith(t, func(o *fs.Options) {
		o.Policy = mustPolicy(t, "hold=name")
		o.Journal = fs.NewRecords(records, new(fs.Saved))
	})
	dir, errno := s.mkdir(1, "dir")
	if errno != 0 {
		t.Fatal(errno)
	}
	f := s.mustCreateIn(dir, "x", 0)
	if errno := s.link(f.node, "y"); errno != 0 {
		t.Fatal(errno)
	}
	for _, r := range []reply{s.call(opUnlink, dir, cstring("x")), s.call(opRmdir, 1, cstring("dir"))} {
		if r.errno != 0 {
			t.Fatal(r.errno)
		}
	}
	s.send(opForget, f.node, u64(1))
	s.send(opForget, dir, u64(1))
	s.call(opGetattr, 1, zeros(16)) // when that has been done
	s.restore(records)
	s.write(f, 0, "still open")
	s.flock(f, unix.F_WRLCK)
	s.release(f)
	if errno := s.call(opGetattr, 1, zeros(16)).errno; errno != 0 {
		t.Errorf("the next worker: %v", errno)
	}
	node, _, _ := s.lookup(1, "y")
	if text, errno := s.read(s.mustOpen(node, unix.O_RDONLY), 0, 100); text != "still open" || errno != 0 {
		t.Errorf("read %q, %v", text, errno)
	}
}

// A directory that nobody holds, as those of --space and those that have lapsed, is
// replaced by another one: there are not two of a name then.
func TestADirectoryReplacesOneThatNobodyHolds(t *testing.T) {
	records := store{}
	s := serveWith(t, func(o *fs.Options) {
		o.Lockspaces = []fs.Lockspace{{Name: "space"}}
		o.Journal = fs.NewRecords(records, new(fs.Saved))
	})
	s.caller.uid = 0
	mine, errno := s.mkdir(1, "mine")
	if errno != 0 {
		t.Fatal(errno)
	}
	if r := s.call(opRename2, 1, u64(1), u32(0), u32(0), cstring("mine"), cstring("space")); r.errno != 0 {
		t.Fatal(r.errno)
	}
	s.restore(records)
	if node, _, _ := s.lookup(1, "space"); node != mine {
		t.Errorf("found node %d, want %d", node, mine)
	}
	s.wantListed(t, "afterwards", "space")
	if r := s.call(opRmdir, 1, cstring("space")); r.errno != 0 {
		t.Errorf("rmdir: %v", r.errno)
	}
	s.wantListed(t, "when it is removed")
}
