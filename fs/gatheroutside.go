package fs

import (
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// What lists of locks tell of those who hold locks outside of the mount: the names
// in backing directories that ls shows, and who holds them as far as cat does. A lock
// is one line however many they are, or one for each holder that another daemon has
// published. Directories are looked at one after the other, so this is not of the
// moment of which the rest is.

// maxOutsideDirs is in how many directories it is looked for such, the first that
// there are below the one that is asked.
const maxOutsideDirs = 1000

// outsideDir is a directory of the mount in which others may hold locks.
type outsideDir struct {
	id uint64
	// prefix is its path from the directory that is asked, with a slash behind, and
	// behind that below the backing directory.
	prefix, behind string
	// list lists who holds names in it outside, and byName whether they do by making
	// them.
	list   func(skip func(name string) bool) []strangersName
	byName bool
}

// gatherOutside adds them to what a user sees in a directory and below. On detours
// only.
func (f *FS) gatherOutside(seen *seenLocks, about uint64, uid uint32) {
	if f.mirror == nil {
		return
	}
	held := make(map[string]bool) // exclusively, and wholly: nobody else can
	for i := range seen.locks {
		if l := &seen.locks[i]; l.token != 0 && l.request.Mode == lockspace.Exclusive && l.request.Range == lockspace.Whole {
			held[l.path] = true
		}
	}
	todo := []outsideDir{{id: about}}
	for n := 0; n < len(todo) && n < maxOutsideDirs; n++ {
		var d outsideDir
		mirrored := false
		f.dev.Do(func() { d, mirrored, todo = f.outsideDirs(todo[n], uid, todo) })
		if !mirrored {
			continue
		}
		for _, s := range d.list(func(name string) bool { return held[d.prefix+name] }) {
			if !held[d.prefix+s.Name] && (d.byName || s.Mode != unix.S_IFDIR) {
				f.lookOutside(seen, d, s.Name)
			}
		}
	}
	slices.SortStableFunc(seen.locks, func(a, b seenLock) int { return strings.Compare(a.path, b.path) })
}

// outsideDirs returns d with all that is known of it, whether its locks are
// mirrored, and all with the directories in it, if the user may list it. Within a
// step.
func (f *FS) outsideDirs(d outsideDir, uid uint32, all []outsideDir) (_ outsideDir, mirrored bool, _ []outsideDir) {
	n := f.nodes.dir(d.id)
	if n == nil || !n.file.isShownTo(uid) {
		return d, false, all
	}
	for e := range n.file.content.order.All() {
		if len(all) >= maxOutsideDirs {
			break
		}
		if e.file.Kind == directory {
			all = append(all, outsideDir{id: e.file.Ino, prefix: d.prefix + e.Name + "/"})
		}
	}
	if !f.mirrors(d.id) {
		return d, false, all
	}
	if !f.beginsPlace(n.file) {
		var err error
		if d.behind, err = f.outsidePath(n.file.entries[0].key()); err != nil {
			return d, false, all
		}
	}
	d.list, d.byName = f.strangersLister(d.id, d.behind), f.namesOutside(d.id)
	return d, true, all
}

// lookOutside adds who holds a name outside, if it is so.
func (f *FS) lookOutside(seen *seenLocks, d outsideDir, name string) {
	var look func() *outsider
	f.dev.Do(func() { look, _ = f.lookForStranger(lockspace.Key{Dir: d.id, Name: name}) })
	s := look()
	if s == nil {
		return
	}
	path := d.prefix + name
	for i := range s.published {
		seen.locks = append(seen.locks, s.published[i].seen(path, s.Range))
	}
	if len(s.published) > 0 {
		return
	}
	l := seenLock{
		path: path, outside: true,
		request: &lockspace.Request{Mode: s.Mode, Range: s.Range, Via: s.via()},
		who:     lockspace.Process{Pid: uint32(s.Pid)},
	}
	if info, ok := f.procs.Look(l.who.Pid); ok && l.who.Pid != 0 {
		l.comm = info.Comm
	}
	seen.locks = append(seen.locks, l)
}

// seen returns a holder as lists show him. Which bytes he holds is not published: r
// is what is locked.
func (p *published) seen(path string, r lockspace.Range) seenLock {
	l := seenLock{path: path, outside: true, named: true, comm: asWritten(p.value("comm")), host: asWritten(p.value("host"))}
	l.request = &lockspace.Request{Mode: lockspace.Shared, Range: r}
	if p.value("mode") == lockspace.Exclusive.String() {
		l.request.Mode = lockspace.Exclusive
	}
	for via := range vias {
		if p.value("via") == via.String() {
			l.request.Via = via
		}
	}
	l.who = lockspace.Process{Pid: uint32(p.number("pid")), UID: uint32(p.number("uid"))}
	since, _ := time.Parse(time.RFC3339Nano, p.value("since"))
	l.since.Wall = since.UnixNano()
	return l
}

// asWritten returns what a value in a record stood for. Whoever wrote the file may have
// written what stands for nothing: that is shown as it is.
func asWritten(value string) string {
	if plain, err := unescape(value); err == nil {
		return plain
	}
	return value
}
