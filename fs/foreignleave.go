package fs

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Directories that somebody outside has made do not stay here for having been looked up
// once: anybody can make one after the other there. One goes when the kernel has forgotten
// it and there is nothing about it that the next lookup would not find again. The kernel
// keeps what it knows until it needs the memory: so one goes, too, when its parent is
// listed and it is gone outside.

// isUnknown reports whether the kernel does not know a node.
func (d *node) isUnknown() bool { return d.Lookups == 0 && d.open == 0 }

// leaveForeign forgets a directory that somebody outside has made and that the kernel does
// not know, if there is nothing in it, and nothing about it that is not outside. It reports
// whether it has.
func (f *FS) leaveForeign(d *node) bool {
	x := d.file
	if !x.Foreign || !d.isUnknown() || x.isRemoved() || !f.isFoundAgain(x) {
		return false
	}
	e := x.entries[0]
	k := e.key()
	path, err := f.outsidePath(k)
	ops := f.makerOf(k.Dir)
	f.removeEntry(e)
	if err == nil && ops != nil {
		ops.Forget(path)
	}
	f.vacate(k.Dir)
	return true
}

// isFoundAgain reports whether a directory that somebody outside has made is what it would
// be if it was looked up for the first time.
func (f *FS) isFoundAgain(x *file) bool {
	parent := f.nodes.dir(x.entries[0].Dir)
	_, waits := f.table.Count(x.Ino)
	return f.isEmpty(x) && waits == 0 && f.numbers.sets[x.Ino] == nil &&
		x.Policy == parent.file.Policy.inherited() && !f.mayBeGraceIn(x.Ino)
}

// mayBeGraceIn reports whether a lock in a directory is in grace. If very many locks are,
// it may be.
func (f *FS) mayBeGraceIn(dir uint64) bool {
	n := 0
	for g := range f.table.Graces() {
		if n++; g.Key.Dir == dir || n > gracesLookedAt {
			return true
		}
	}
	return false
}

const gracesLookedAt = 1000

// foreignSeen is a directory that somebody outside had made, when it was last seen.
type foreignSeen struct {
	name  string
	entry uint64
	looks uint64
	known mirror.MadeName
}

// goneAtOnce is how many of those are looked for outside when their parent is listed:
// others are the next time.
const goneAtOnce = 1024

// goneForeign returns what finds, on a detour, the directories in one at a path outside
// that somebody there had made, that are not listed there any more and in which there is
// nothing; and that returns what drops them, within a step.
func (f *FS) goneForeign(dir *node, path string) func(listed []strangersName) func() {
	var all []foreignSeen
	ops := f.makerOf(dir.ID)
	if ops != nil && dir.file.content.directories > 0 {
		for e := range dir.file.content.order.All() {
			if !f.listsForeign(e.file) {
				all = append(all, foreignSeen{e.Name, e.ID, e.file.looks, f.knownName(e.key())})
			}
		}
	}
	if path != "" {
		path += "/"
	}
	return func(listed []strangersName) func() {
		there := make(map[string]bool)
		for _, s := range listed {
			there[s.Name] = true
		}
		var gone []foreignSeen
		looked := 0
		for _, s := range all {
			if there[s.name] {
				continue
			}
			if looked++; looked > goneAtOnce {
				break
			}
			at, err := ops.Look(path+s.name, s.known)
			if err != nil {
				break
			}
			if at == nil || at.Mode&unix.S_IFMT != unix.S_IFDIR {
				gone = append(gone, s)
			}
		}
		return func() { f.dropGone(dir.ID, gone) }
	}
}

// dropGone drops those that have not been seen since.
func (f *FS) dropGone(dir uint64, gone []foreignSeen) {
	for _, s := range gone {
		k := lockspace.Key{Dir: dir, Name: s.name}
		e := f.entry(k)
		if e == nil || e.ID != s.entry || !e.file.Foreign || e.file.looks != s.looks {
			continue
		}
		f.dropForeign(e)
		f.staysGone(k, e)
	}
}
