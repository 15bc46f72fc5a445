package fs

import (
	"maps"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Reaping (design 1.3): a hold by name ends when the process ends that is watched
// for it, and so leaves no stale lock. That is the process whose pid is in the
// body, as the one who wrote it meant it, or the one that made the name.

// watches are the processes that are watched for holds.
type watches struct {
	byHold    map[lockspace.HoldID]Identity
	byProcess map[Identity]*dependents
}

// dependents are the holds that end with a process.
type dependents struct {
	holds map[lockspace.HoldID]bool
	stop  func()
}

func newWatches() watches {
	return watches{make(map[lockspace.HoldID]Identity), make(map[Identity]*dependents)}
}

// bodyNames finds out which process a body names that is being written. The
// status is OK, or Parked for a detour.
func (f *FS) bodyNames(in *fuse.InHeader, body []byte) (named Identity, whole bool, status fuse.Status) {
	pid, whole := bodyPid(body)
	if pid == 0 || in.Pid == 0 {
		return Identity{}, true, fuse.OK
	}
	if f.facts != nil && f.facts.named[pid] != nil {
		return *f.facts.named[pid], whole, fuse.OK
	}
	f.lookUp(in.Unique, func(x *facts) {
		x.named = map[uint32]*Identity{pid: new(Identity)}
		if k, ok := f.procs.Resolve(in.Pid, pid); ok {
			*x.named[pid] = k.identity()
		}
	})
	return Identity{}, true, device.Parked
}

// closeBody has the pid in a body count that was written through an open file
// which is being closed.
func (f *FS) closeBody(h *handle) {
	if b := h.node.file.body; b != nil && b.Unclosed == h.ID {
		b.Unclosed = 0
		f.journal.PutBody(b)
		f.rewatchFile(h.node.file)
	}
}

// rewatch has the step find out, when it ends, who is watched for the hold of an
// entry.
func (f *FS) rewatch(e *entry) { f.unwatched = append(f.unwatched, e.key()) }

// rewatchFile is rewatch for all names of a file.
func (f *FS) rewatchFile(x *file) {
	for _, e := range x.entries {
		f.rewatch(e)
	}
}

// watchProcesses watches for the holds of which it has to be found out. Not
// before a step ends: only then is a filesystem that was made again ready for
// what the watcher may do at once. Of very many some are left to the next steps,
// so that nobody has to wait for it.
func (f *FS) watchProcesses() {
	n := min(len(f.unwatched), watchAtOnce)
	for _, k := range f.unwatched[:n] {
		h := f.table.Named(k)
		if h == nil {
			continue
		}
		p := f.watched(h)
		if f.watches.byHold[h.ID] == p {
			continue
		}
		f.unwatch(h.ID)
		if p != (Identity{}) {
			f.watch(p, h.ID)
		}
	}
	if n < len(f.unwatched) {
		f.unwatched = f.unwatched[n:]
	} else {
		f.unwatched = f.unwatched[:0]
	}
}

const watchAtOnce = 512

// watch has a hold end with a process.
func (f *FS) watch(p Identity, id lockspace.HoldID) {
	f.watches.byHold[id] = p
	w := f.watches.byProcess[p]
	if w == nil {
		w = &dependents{holds: make(map[lockspace.HoldID]bool)}
		f.watches.byProcess[p] = w
		w.stop = f.ends.Watch(Kin{Pid: p.Pid, Started: p.Started}, func() { f.dev.Do(func() { f.reap(p) }) })
	}
	w.holds[id] = true
}

// watched returns the process whose end is the end of a hold by name.
func (f *FS) watched(h *lockspace.Hold) Identity {
	dir := f.nodes.get(h.Key.Dir)
	switch e := f.entry(h.Key); {
	case e == nil:
	case dir.file.Policy.reap == reapCreator:
		return creator(h.Party.Taker)
	case dir.file.Policy.reap == reapPid:
		if b := e.file.body; b != nil && b.Unclosed == 0 {
			return b.Names
		}
	}
	return Identity{}
}

// creator returns the identity of a process that was looked up when it made a
// name, if it was.
func creator(p lockspace.Process) Identity {
	switch p.Started {
	case 0:
		return Identity{}
	case 1: // see facts.started
		return Identity{Pid: p.Pid}
	}
	return Identity{p.Pid, p.Started}
}

// unwatch ends the watch for a hold.
func (f *FS) unwatch(id lockspace.HoldID) {
	p, ok := f.watches.byHold[id]
	if !ok {
		return
	}
	delete(f.watches.byHold, id)
	w := f.watches.byProcess[p]
	if delete(w.holds, id); len(w.holds) == 0 {
		delete(f.watches.byProcess, p)
		w.stop()
	}
}

// reap ends the holds for which a process was watched that has ended: the oldest
// first, and of very many some at a time, so that nobody has to wait for it.
func (f *FS) reap(p Identity) {
	w := f.watches.byProcess[p]
	if w == nil {
		return
	}
	f.reapSome(p, slices.Sorted(maps.Keys(w.holds)))
}

// reapSome is reap for holds that were watched for when the process ended.
func (f *FS) reapSome(p Identity, ids []lockspace.HoldID) {
	for _, id := range ids[:min(len(ids), reapAtOnce)] {
		if f.watches.byHold[id] == p {
			f.table.EndHold(id, lockspace.Reaped)
		}
	}
	if len(ids) > reapAtOnce {
		go f.dev.Do(func() { f.reapSome(p, ids[reapAtOnce:]) })
	}
}

const reapAtOnce = 128

// removeLapsed removes the names whose hold has lapsed: it was reaped, or its
// lease ran out. A directory goes with what is in it, and not before nothing of
// that is held any more; until then it is there, held by nobody.
func (f *FS) removeLapsed() {
	for i := range f.lapsed {
		h := &f.lapsed[i]
		e := f.entry(h.Key)
		switch {
		case e == nil || e.File != h.Party.File:
		case f.nodes.get(h.Key.Dir).file.holdsByOpen() && f.table.Held(h.Key):
			// It is his now who waited to open it, as in passedOn.
		case e.file.Kind == directory && f.isInUse(e.file):
			e.file.Lapsed = true
			f.keepFile(e.file)
			f.log.Warn("directory stays until nothing in it is held", "path", f.path(h.Key))
		default:
			f.removeAll(e)
		}
	}
	f.lapsed = f.lapsed[:0]
}

// vacate has the step look, when it ends, whether a directory goes, now that a hold
// in it has ended or been moved away. The one that this is in is in use as long as
// it is there.
func (f *FS) vacate(dir uint64) {
	if d := f.nodes.dir(dir); d != nil && (d.file.Lapsed || d.file.Foreign && d.isUnknown()) {
		f.vacated = append(f.vacated, dir)
	}
}

// removeVacated removes the directories that were to go when nothing in them is
// held. Of very many in each other some go with the next step.
func (f *FS) removeVacated() {
	n := 0
	for ; n < len(f.vacated) && n < vacatedAtOnce; n++ {
		d := f.nodes.dir(f.vacated[n])
		if d != nil && f.leaveForeign(d) {
			continue
		}
		if d == nil || !d.file.Lapsed || d.file.isRemoved() || f.isInUse(d.file) {
			continue
		}
		parent := d.Parent
		f.removeAll(d.file.entries[0])
		f.vacate(parent)
	}
	f.vacated = append(f.vacated[:0], f.vacated[n:]...)
}

const vacatedAtOnce = 128

// isInUse reports whether anything in a directory is held.
func (f *FS) isInUse(x *file) bool {
	if f.table.LastListed(x.Ino) != 0 {
		return true
	}
	if x.content.directories == 0 {
		return false
	}
	for e := range x.content.order.All() {
		if e.file.Kind == directory && f.isInUse(e.file) {
			return true
		}
	}
	return false
}

// removeAll removes a name, and all that is in it if it is a directory.
func (f *FS) removeAll(e *entry) {
	if e.file.Kind == directory {
		for _, in := range e.file.content.byName {
			f.removeAll(in)
		}
	}
	f.removeEntry(e)
}
