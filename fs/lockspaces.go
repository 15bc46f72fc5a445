package fs

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lockfs/lockfs/lockspace"
)

// What metrics tells of each lockspace: of the root, and of each directory whose
// policy is not that of the directory that it is in. The holds and waits of those
// below that have the same policy are its own.
//
// Directories are looked at on a detour of the READ, some in each step, so the
// counts of different ones are of different moments. The table has counts by
// directory: what this costs depends on how many nodes there are, and not on holds.
//
// The name of a lockspace is told to whom locks shows it, see gather.go: it is in
// the listing of the directory that it is in. At most shownSpaces are told, those
// that were made first, as far as shownText is enough: whoever makes many, or deep
// ones, leaves the text short.

const (
	shownSpaces = 1000
	shownText   = 128 << 10
	// longestSpace is the longest path that is told, in bytes.
	longestSpace = 4096
)

// census is the directories of the mount, as they are counted for a user.
type census struct {
	f    *FS
	uid  uint32
	dirs map[uint64]*counted
}

// counted is a directory.
type counted struct {
	id           uint64
	at           lockspace.Key // its name; none of the root
	policy       Policy        // but for when it began
	open         bool          // the user may list it
	holds, waits int           // of the locks in it, or, of a lockspace, in all of it

	found bool
	// space is the lockspace that it is of, nil if it has been removed, or renamed
	// meanwhile. path is how long its path is. seen says that all directories above it
	// may be listed, and below that it may be too.
	space       *counted
	path        int
	seen, below bool
}

// take counts all directories. On detours only.
func (c *census) take() {
	next, stop := iter.Pull(maps.Values(c.f.nodes.byID))
	defer stop()
	for {
		more := false
		c.f.dev.Do(func() {
			for range gatherAtOnce {
				d, ok := next()
				if !ok {
					return
				}
				c.look(d)
			}
			more = true
		})
		if !more {
			break
		}
		time.Sleep(gatherPause)
	}
	for _, d := range c.dirs {
		c.find(d)
	}
	for _, d := range c.dirs {
		if s := d.space; s != nil && s != d {
			s.holds += d.holds
			s.waits += d.waits
		}
	}
}

// look counts a node, if it is a directory that has a name. Within a step.
func (c *census) look(n *node) {
	x := n.file
	if x.Kind != directory || n.ID != rootDir && len(x.entries) == 0 {
		return
	}
	d := &counted{id: n.ID, policy: x.Policy, open: x.isShownTo(c.uid)}
	d.policy.leaseFrom, d.policy.mirror = 0, c.f.mirrorOf(n.ID)
	d.holds, d.waits = c.f.table.Count(n.ID)
	if d.id != rootDir {
		d.at = x.entries[0].key()
	}
	c.dirs[d.id] = d
}

// find finds out of which lockspace a directory is, and all above it.
func (c *census) find(d *counted) {
	var way []*counted
	for ; d != nil && !d.found; d = c.dirs[d.at.Dir] {
		d.found = true // before it goes on: no loop is endless
		way = append(way, d)
	}
	for _, d := range slices.Backward(way) {
		above := c.dirs[d.at.Dir]
		switch {
		case d.id == rootDir:
			d.space, d.seen, d.below = d, true, d.open
		case above == nil || above.space == nil:
		default:
			d.path = above.path + len(d.at.Name) + 1
			d.seen = above.below
			d.below = above.below && d.open
			if d.space = d; d.policy == above.policy {
				d.space = above.space
			}
		}
	}
}

// pathOf returns the path of a lockspace, below the root of the mount.
func (c *census) pathOf(d *counted) string {
	if d.id == rootDir {
		return "."
	}
	var parts []string
	for ; d.id != rootDir; d = c.dirs[d.at.Dir] {
		parts = append(parts, d.at.Name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// metricsOf writes the control file metrics for a user. On detours only.
func metricsOf(f *FS, _ uint64, uid uint32) []byte {
	c := &census{f: f, uid: uid, dirs: make(map[uint64]*counted)}
	c.take()
	var w metricWriter
	f.dev.Do(func() { f.writeMetrics(&w) })
	c.write(&w)
	return append(w.b, "# EOF\n"...)
}

// write writes what is told of lockspaces.
func (c *census) write(w *metricWriter) {
	var told []*counted
	all := 0
	for _, d := range c.dirs {
		if d.space != d {
			continue
		}
		all++
		if d.seen && d.path <= longestSpace {
			told = append(told, d)
		}
	}
	slices.SortFunc(told, func(a, b *counted) int { return cmp.Compare(a.id, b.id) })
	told = told[:min(len(told), shownSpaces)]
	labels, room := make([]string, 0, len(told)), shownText
	for _, d := range told {
		l := label("lockspace", labelValue(c.pathOf(d)))
		if room -= 2 * (len(l) + len("lockfs_lockspace_waiters{} 1000000\n")); room < 0 {
			break
		}
		labels = append(labels, l)
	}
	told = told[:len(labels)]
	w.family("lockfs_lockspaces", "gauge", "", "Directories that are lockspaces of their own: the root,"+
		" and those whose policy is not that of the directory that they are in.")
	w.value("lockfs_lockspaces", "", uint64(all))
	w.family("lockfs_lockspaces_untold", "gauge", "", "Those of which no holds and waiters are told below:"+
		" the reader may not list all directories on the way to them, or there are too many.")
	w.value("lockfs_lockspaces_untold", "", uint64(all-len(told)))
	const path = " The label is the path from the root of the mount, which is . itself. Blanks, control characters," +
		` #, \\, and bytes that are not UTF-8, are written as \\ and three octal digits in it.`
	w.family("lockfs_lockspace_holds", "gauge", "", "Holds in a lockspace."+path)
	for i, d := range told {
		w.value("lockfs_lockspace_holds", labels[i], uint64(d.holds))
	}
	w.family("lockfs_lockspace_waiters", "gauge", "", "Requests that wait in a lockspace, as lockfs_waiters has them."+path)
	for i, d := range told {
		w.value("lockfs_lockspace_waiters", labels[i], uint64(d.waits))
	}
}

// labelValue writes a path as the value of a label, which is UTF-8: as a field of
// the control file locks, and bytes that are not UTF-8 as the others that are
// escaped there. In that, backslashes and quotes are written as OpenMetrics has
// them. Whoever undoes the one and then the other has the bytes of the path.
func labelValue(path string) string {
	var b strings.Builder
	for field := string(appendField(nil, path)); field != ""; {
		r, n := utf8.DecodeRuneInString(field)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\\%03o`, field[0])
		case r == '\\' || r == '"':
			b.WriteByte('\\')
			fallthrough
		default:
			b.WriteString(field[:n])
		}
		field = field[n:]
	}
	return b.String()
}
