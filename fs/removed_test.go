package fs_test

import (
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// A directory that went with its lease: the kernel does not know, and lets who is
// in it go on. A name made there would be in no directory when that is forgotten,
// and no successor could take over.
func TestNothingIsMadeInADirectoryThatIsGone(t *testing.T) {
	for hold, settings := range map[string]string{
		"handle": "lease=10s", "name": "lease=10s,hold=name", "open": "lease=10s,hold=open",
	} {
		t.Run(hold, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				records := store{}
				s := serveInBubble(t, func(o *fs.Options) {
					o.Policy = mustPolicy(t, settings)
					o.Journal = fs.NewRecords(records, new(fs.Saved))
				})
				dir, errno := s.mkdir(1, "dir")
				if errno != 0 {
					t.Fatal(errno)
				}
				inside := s.mustCreate("outside", 0)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if s.list()["dir"] {
					t.Fatal("the directory is there")
				}
				for what, r := range map[string]reply{
					"open":    s.call(opCreate, dir, u32(unix.O_CREAT|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring("a")),
					"O_EXCL":  s.call(opCreate, dir, u32(unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring("b")),
					"mkdir":   s.call(opMkdir, dir, u32(0o777), u32(0), cstring("c")),
					"symlink": s.call(opSymlink, dir, cstring("d"), cstring("text")),
					"link":    s.call(opLink, dir, u64(inside.node), cstring("e")),
					"rename":  s.call(opRename2, 1, u64(dir), u32(0), u32(0), cstring("outside"), cstring("f")),
				} {
					if r.errno != unix.ENOENT {
						t.Errorf("%s: %v, want ENOENT", what, r.errno)
					}
				}
				s.send(opForget, dir, u64(100))
				s.restore(records)
				if errno := s.call(opGetattr, 1, zeros(16)).errno; errno != 0 {
					t.Errorf("the next worker: %v", errno)
				}
			})
		})
	}
}
