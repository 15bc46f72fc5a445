package fs

import (
	"slices"

	"github.com/lockfs/lockfs/lockspace"
)

// Who holds a lock is written into its backing file, for other daemons on the same
// backing directory, on this host or another (design 1.6): see published.go for the
// text, and package mirror for when it is written and what it means.

// Whether holders are published.
const (
	// publishAuto: where everybody may see who holds what, see gather.go. Backing
	// files can be read by others than may look into the directory on the mount.
	publishAuto = iota
	publishYes
	publishNo
	publishValues
)

var publishNames = [publishValues]string{"auto", "yes", "no"}

// publishes reports whether who holds the locks of a directory is published. What
// is published already when that changes stays until its hold ends. Where names hold
// that are outside they say it, and what is in the files is theirs.
func (f *FS) publishes(dir uint64) bool {
	if !f.mirrors(dir) || f.namesOutside(dir) {
		return false
	}
	switch f.nodes.dir(dir).file.Policy.publish {
	case publishAuto:
		return f.isShownToAll(dir)
	case publishYes:
		return true
	}
	return false
}

// isShownToAll reports whether everybody may see what locks there are in a
// directory, and come to it.
func (f *FS) isShownToAll(dir uint64) bool {
	for {
		d := f.nodes.dir(dir)
		switch {
		case d == nil || !d.file.isShown():
			return false
		case dir == rootDir:
			return true
		case len(d.file.entries) == 0: // it has been removed
			return false
		}
		dir = d.file.entries[0].Dir
	}
}

// publishesLock is publishes for the file of a lock that has to be made.
func (f *FS) publishesLock(k lockspace.Key) bool { return f.publishes(k.Dir) }

// textOf returns what makes the text about those who hold a lock now; nil if they
// are not published.
func (f *FS) textOf(k lockspace.Key) func() []byte {
	if !f.publishes(k.Dir) {
		return nil
	}
	holds := slices.Collect(f.table.Holds(k))
	holds = slices.DeleteFunc(holds, func(h *lockspace.Hold) bool { return !(mirrored{f}).isMirrored(&h.Request) })
	return func() []byte { return formatPublished(&oneLook{Processes: f.procs}, holds) }
}
