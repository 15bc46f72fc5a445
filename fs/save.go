package fs

import (
	"math"

	"github.com/lockfs/lockfs/lockspace"
)

// Save writes what outlives a clean stop to a store: who may use the mount, all
// that has a name of its own, what is held by name, the numbers that are reserved, the
// named owners and what they hold, and the graces. A restart must not let in whom an
// administrator kept out, nor give anybody what another holds, or what is kept from
// everybody. Within a step.
func (f *FS) Save(store Putter) {
	r := &Records{store: putOnly{store}, reserved: [counters]uint64{math.MaxUint64, math.MaxUint64, math.MaxUint64}, mirrors: make(map[uint64]bool)}
	r.PutPidNS(f.procs.Namespace())
	f.saveDirectory(r, f.nodes.get(rootDir).file, make(map[*file]bool))
	f.saveOwners(r)
	f.saveGraces(r)
	f.saveNames(r)
}

// saveGraces writes the graces, and one for each lock that an open file holds where
// there is grace: who holds it has not given it back when the mount ends, and may
// not know yet that it is gone.
func (f *FS) saveGraces(r *Records) {
	var last lockspace.GraceID
	in := make(map[lockspace.Key]bool)
	for g := range f.table.Graces() {
		last, in[g.Key] = max(last, g.ID), true
		r.PutGrace(g)
	}
	for id, d := range f.nodes.byID {
		if d.file.Kind != directory || id != d.ID || d.file.Policy.grace == 0 {
			continue
		}
		until := f.clock.Now().Boot + d.file.Policy.grace
		f.table.List(d.ID, 0, func(_ uint64, name string) bool {
			k := lockspace.Key{Dir: d.ID, Name: name}
			if f.table.Named(k) == nil && !f.onlyOwnersHold(k) && !in[k] {
				last++
				r.PutGrace(&lockspace.Grace{ID: last, Key: k, Until: until})
			}
			return true
		})
	}
}

func (f *FS) saveDirectory(r *Records, dir *file, saved map[*file]bool) {
	r.PutFile(&dir.FileRecord)
	f.saveNumbers(r, dir)
	for e := range dir.content.order.All() {
		x := e.file
		if !f.listsForeign(x) {
			continue // the next mount will find it
		}
		r.PutEntry(&e.EntryRecord)
		if h := f.table.Named(e.key()); h != nil {
			kept := *h
			kept.Party.Handle = 0 // the next mount has others of that number
			r.PutHold(&kept)
		}
		switch {
		case saved[x]:
			continue
		case x.Kind == directory:
			f.saveDirectory(r, x, saved)
		default:
			r.PutFile(&x.FileRecord)
		}
		saved[x] = true
		if x.body != nil {
			r.PutBody(x.body)
		}
	}
}

// putOnly is a Store that nothing is dropped from.
type putOnly struct{ Putter }

func (putOnly) Drop(uint8, uint64) {}
