package fs_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

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
