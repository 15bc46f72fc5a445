package fs_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
)

// byName is a hold by name in the root, of file 7.
func byName(name string, via lockspace.Via) *lockspace.Hold {
	return &lockspace.Hold{
		ID: 7, Token: 7, Listed: 7,
		Since:   lockspace.Instant{Wall: 1, Boot: 1},
		Renewed: 2,
		Request: lockspace.Request{
			Key:   lockspace.Key{Dir: 1, Name: name},
			Party: lockspace.Party{File: 7, Taker: lockspace.Process{Pid: 100, Started: 1}},
			Via:   via, Mode: lockspace.Exclusive, ByName: true, Range: lockspace.Whole,
		},
	}
}

// What is held by name, and a lock in grace, are taken over without an open
// file.
func TestRestoreNames(t *testing.T) {
	records := store{}
	s := serveWith(t, func(o *fs.Options) {
		o.Journal = fs.NewRecords(records, new(fs.Saved))
		*o.Tokens.(*lockspace.Counter) = 7
	})
	s.call(opGetattr, 1, zeros(16))
	r := fs.NewRecords(records, new(fs.Saved))
	r.PutFile(&fs.FileRecord{Ino: 7})
	r.PutEntry(&fs.EntryRecord{ID: 7, Dir: 1, Name: "held", File: 7})
	r.PutHold(byName("held", lockspace.ViaLink))
	r.PutGrace(&lockspace.Grace{ID: 1, Key: lockspace.Key{Dir: 1, Name: "grace"}, Until: 1 << 62})
	s.restore(records)
	if got := sorted(s.list()); len(got) != 1 || got[0] != "held" {
		t.Errorf("listed are %q, want what is held", got)
	}
	if _, errno := s.create("held", unix.O_EXCL); errno != unix.EEXIST {
		t.Errorf("what is held by name was made again: %v", errno)
	}
	if _, errno := s.create("grace", unix.O_EXCL); errno == 0 {
		t.Error("what is in grace was made")
	}
	r.DropGrace(1)
	s.restore(records)
	if _, errno := s.create("grace", unix.O_EXCL); errno != 0 {
		t.Errorf("when the grace was over: %v", errno)
	}
}

// Records of holds that there cannot be are damaged.
func TestRestoreRefusesNames(t *testing.T) {
	for name, change := range map[string]func(*lockspace.Hold){
		"shared":             func(h *lockspace.Hold) { h.Mode = lockspace.Shared },
		"of some bytes":      func(h *lockspace.Hold) { h.Range.Last = 5 },
		"by flock":           func(h *lockspace.Hold) { h.Via = lockspace.ViaFlock },
		"by nothing known":   func(h *lockspace.Hold) { h.Via = lockspace.ViaOwner + 1 },
		"with an empty name": func(h *lockspace.Hold) { h.Key.Name = "" },
		"without a place":    func(h *lockspace.Hold) { h.Listed = 0 },
		"in no directory":    func(h *lockspace.Hold) { h.Key.Dir = 99 },
		"of no node":         func(h *lockspace.Hold) { h.Party.File = 99 },
	} {
		records := store{}
		s := serveWith(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
		s.call(opGetattr, 1, zeros(16))
		h := byName("x", lockspace.ViaSymlink)
		change(h)
		r := fs.NewRecords(records, new(fs.Saved))
		r.PutFile(&fs.FileRecord{Ino: 7})
		r.PutEntry(&fs.EntryRecord{ID: 7, Dir: 1, Name: "x", File: 7})
		r.PutHold(h)
		err := s.restorable(records)
		if !errors.Is(err, fs.ErrRecord) {
			t.Errorf("a hold %s: %v", name, err)
		}
	}
}
