package fs

import (
	"slices"
	"strings"

	"github.com/lockfs/lockfs/lockspace"
)

// path returns the path of a lock below the root of the mount, for people to
// read. What is in a directory that has been removed begins with "(removed)", what
// is deeper than anybody wants to read with "...".
func (f *FS) path(k lockspace.Key) string {
	parts := []string{k.Name}
	for dir := k.Dir; dir != rootDir; {
		d := f.nodes.get(dir)
		if len(parts) > maxShown {
			parts = append(parts, "...")
			break
		}
		if d == nil || len(d.file.entries) == 0 {
			parts = append(parts, "(removed)")
			break
		}
		e := d.file.entries[0]
		parts = append(parts, e.Name)
		dir = e.Dir
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// maxShown is how many directories of a path are shown. There is no end to how deep
// they can be.
const maxShown = 50

// directoryPath is path for a directory; the root is ".".
func (f *FS) directoryPath(d *node) string {
	switch {
	case d.ID == rootDir:
		return "."
	case len(d.file.entries) == 0:
		return "(removed)"
	}
	return f.path(d.file.entries[0].key())
}
