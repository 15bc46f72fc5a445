package fs

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// What control files tell about all locks is gathered on a detour of the READ,
// in short steps, from a snapshot of the table: it is one moment between the
// call and its return. Paths are of that moment too: a directory is held by its
// name wherever it is, so the snapshot says where. Only of one that has no
// hold, like those that the command line made, it is where it is a moment
// later. Processes are looked at last; one that has ended by then has no comm.
//
// Who sees what: /proc/locks and /proc/PID/{stat,status} show everybody who
// locks what, from when on and how. What they do not show is names. So the
// locks of a directory are shown to everybody if everybody may list it and
// come to it (mode o+rx, as have all directories down to it from the one that is
// asked), else to its owner and root. That somebody may list it as a member of
// its group does not count.

// gatherAtOnce is how many locks are looked at in one step, and gatherPause
// the time that everybody else has between two.
const (
	gatherAtOnce = 256
	gatherPause  = 50 * time.Microsecond
)

// listOfAll is listOf with those outside of the mount too.
func listOfAll(format func(*seenLocks) []byte) func(*FS, uint64, uint32) []byte {
	return func(f *FS, about uint64, uid uint32) []byte {
		var s *lockspace.Snapshot
		f.dev.Do(func() { s = f.table.Snapshot() })
		seen := f.gather(s, about, uid)
		f.gatherOutside(seen, about, uid)
		return format(seen)
	}
}

// gatherKey says for whom something is gathered: for readers of a control node
// who are one user.
type gatherKey struct {
	node uint64
	uid  uint32
}

// gathering is what readers wait for. Those who come before it has begun share
// it, so that a hundred of them cost as much as one.
type gathering struct {
	once    sync.Once
	reading *reading
}

// lookUpGathered sends the READ of an open control file on a detour to what is
// in it. It returns Parked.
func (f *FS) lookUpGathered(in *fuse.ReadIn, h *controlHandle, c controlNode) fuse.Status {
	key, about := gatherKey{h.Node, h.Opener.UID}, c.about.ID
	g := f.gatherings[key]
	if g == nil {
		g = new(gathering)
		f.gatherings[key] = g
	}
	f.lookUpLong(in.Unique, func(x *facts) {
		// Whoever is first in the line does it for all.
		g.once.Do(func() {
			f.dev.Do(func() { delete(f.gatherings, key) })
			g.reading = newReading(c.gathered(f, about, key.uid))
		})
		x.reading = g.reading
	})
	return device.Parked
}

// listOf makes what is gathered of lists of locks.
func listOf(format func(*seenLocks) []byte) func(*FS, uint64, uint32) []byte {
	return func(f *FS, about uint64, uid uint32) []byte {
		var s *lockspace.Snapshot
		f.dev.Do(func() { s = f.table.Snapshot() })
		return format(f.gather(s, about, uid))
	}
}

// seenLocks are holds and waits at one moment, for one reader: by path, the
// holds of a lock first, oldest first, then its queue.
type seenLocks struct {
	began lockspace.Instant
	locks []seenLock
}

// seenLock is a hold, or a wait.
type seenLock struct {
	path    string // from the directory that is asked
	request *lockspace.Request
	since   lockspace.Instant
	token   uint64 // 0: it waits
	who     lockspace.Process
	comm    string // "": not known
	// opener is the process that opened the file through which another one
	// waits, if it lives; else its pid is 0.
	opener     lockspace.Process
	openerComm string
	// outside: it is a hold outside of the mount, see gatheroutside.go. named: it is
	// known of it what another daemon has published, on host.
	outside, named bool
	host           string
}

// gather gathers a snapshot, of the locks in a directory and below that a user
// may see. On detours only.
func (f *FS) gather(s *lockspace.Snapshot, about uint64, uid uint32) *seenLocks {
	f.gatherAll(s)
	p := &sites{f: f, about: about, uid: uid, known: make(map[uint64]*site)}
	p.find(s)
	seen, look := &seenLocks{began: s.Began}, &oneLook{Processes: f.procs}
	for h := range s.Holds() {
		if path, ok := p.path(h.Key); ok {
			who, info := findHolder(look, h)
			seen.locks = append(seen.locks, seenLock{path: path, request: &h.Request, since: h.Since, token: h.Token, who: who, comm: info.Comm})
		}
	}
	for w := range s.Waits() {
		if path, ok := p.path(w.Key); ok {
			l := seenWait(look, w)
			l.path = path
			if o := w.Party.Opener; o.Pid != l.who.Pid {
				if comm, lives := commOf(look, o, w.Party.Opened); lives {
					l.opener, l.openerComm = o, comm
				}
			}
			seen.locks = append(seen.locks, l)
		}
	}
	slices.SortStableFunc(seen.locks, func(a, b seenLock) int { return strings.Compare(a.path, b.path) })
	return seen
}

// gatherAll has a snapshot be complete. On detours only.
func (f *FS) gatherAll(s *lockspace.Snapshot) {
	for complete := false; ; {
		f.dev.Do(func() { complete = s.Gather(gatherAtOnce) })
		if complete {
			return
		}
		time.Sleep(gatherPause)
	}
}

// seenWait returns a wait, but for its path. On detours only.
func seenWait(procs Processes, w *lockspace.Wait) seenLock {
	l := seenLock{request: &w.Request, since: w.Since, who: w.Party.Taker}
	l.comm, _ = commOf(procs, l.who, w.Since)
	return l
}

// commOf returns the name of a process that did something at a time, and whether
// it still lives.
func commOf(procs Processes, p lockspace.Process, at lockspace.Instant) (comm string, lives bool) {
	if p.Pid == 0 {
		return "", false
	}
	if info, ok := procs.Look(p.Pid); ok && !info.Gone && info.Started <= at.Boot {
		return info.Comm, true
	}
	return "", false
}

// isShown reports whether everybody may see what locks there are in a directory, as
// far as its own bits say, and isShownTo whether a user may: see above.
func (x *file) isShown() bool { return allows(x.Mode, mayRead|maySearch) }

func (x *file) isShownTo(uid uint32) bool { return uid == 0 || uid == x.UID || x.isShown() }

// sites are where directories are, seen from one of them, by one user.
type sites struct {
	f     *FS
	about uint64
	uid   uint32
	known map[uint64]*site
}

// site is where a directory is.
type site struct {
	at lockspace.Key
	// there: it has a name; open: the user may list it, as far as its own bits say.
	there, open bool
	// prefix is its path from the directory that is asked, with a slash behind;
	// seen says that it is below that, and all on the way are open.
	prefix     string
	seen, done bool
}

// find finds the directories of a snapshot's locks, and those above them.
func (p *sites) find(s *lockspace.Snapshot) {
	var next []uint64
	need := func(dir uint64) {
		if p.known[dir] == nil {
			p.known[dir] = new(site)
			next = append(next, dir)
		}
	}
	held := make(map[uint64]lockspace.Key)
	for h := range s.Holds() {
		need(h.Key.Dir)
		if h.ByName {
			held[h.Party.File] = h.Key
		}
	}
	for w := range s.Waits() {
		need(w.Key.Dir)
	}
	for len(next) > 0 {
		now := next[:min(len(next), gatherAtOnce)]
		next = next[len(now):]
		p.f.dev.Do(func() {
			for _, dir := range now {
				p.look(dir)
			}
		})
		for _, dir := range now {
			x := p.known[dir]
			if at, ok := held[dir]; ok && dir != rootDir {
				x.at, x.there = at, true
			}
			if x.there && dir != p.about {
				need(x.at.Dir)
			}
		}
		if len(next) > 0 {
			time.Sleep(gatherPause)
		}
	}
}

// look notes where a directory is now and what its bits say. One that has been
// removed meanwhile is nobody's but root's. Within a step.
func (p *sites) look(dir uint64) {
	x := p.known[dir]
	x.open = p.uid == 0
	d := p.f.nodes.dir(dir)
	if d == nil {
		return
	}
	x.open = d.file.isShownTo(p.uid)
	if len(d.file.entries) > 0 {
		x.at, x.there = d.file.entries[0].key(), true
	}
}

// path returns the path of a lock from the directory that is asked. ok is false
// if it is not below, or not for the user.
func (p *sites) path(k lockspace.Key) (path string, ok bool) {
	x := p.of(k.Dir)
	return x.prefix + k.Name, x.seen
}

func (p *sites) of(dir uint64) *site {
	x := p.known[dir]
	if x.done {
		return x
	}
	x.done = true // before it goes on: no loop is endless
	switch {
	case dir == p.about:
		x.seen = x.open
	case x.there:
		parent := p.of(x.at.Dir)
		x.prefix = parent.prefix + x.at.Name + "/"
		x.seen = parent.seen && x.open
	}
	return x
}
