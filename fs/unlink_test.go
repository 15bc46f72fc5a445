package fs_test

import (
	"testing"
	"time"

	"github.com/lockfs/lockfs/fs"
)

// Where names hold, an ordinary file is removed by a thread as by its process's
// first: there is no hold to end, and nobody to look up.
func TestUnlinkOfAnOrdinaryFileByAThread(t *testing.T) {
	s := serveWith(t, func(o *fs.Options) { o.Policy = mustPolicy(t, "hold=name") })
	s.procs.set(101, fs.ProcessInfo{Kin: fs.Kin{Pid: 100, Started: time.Nanosecond}})
	s.release(s.mustCreate("x", 0))
	s.caller.pid = 101
	if e := s.call(opUnlink, 1, cstring("x")).errno; e != 0 {
		t.Error("unlink:", e)
	}
	if got := s.list(); len(got) != 0 {
		t.Errorf("listed are %v", got)
	}
}
