package fs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// What is written to ctl of a named owner.
//
//	acquire [STATE] [restrict] [register-only]
//	acquire RESOURCE
//	release [RESOURCE]
//
// acquire takes the locks of all resources that the owner does not have, or has
// weaker, or none of them, in one step. It waits for nobody: EBUSY, at once, if
// anybody is in the way. So two owners that ask in different orders cannot deadlock.
// To take a lock the user needs what he would need for it by O_EXCL: EACCES. If the
// owner has all, their leases are renewed and nothing else happens. With a state it
// takes up from that, see ownerstate.go. With restrict its process has no say any
// more when it has succeeded; with register-only nothing is taken, and the process
// must be there: see ownerprocess.go.
//
// acquire with a resource, a line as in the control file resources, takes that one
// alone, and puts it on the list, in one step: if it fails the list is as it was.
//
// release gives all back; the resources stay, and are taken again by the next
// acquire. With a resource, as it is in the control file resources (what says how,
// or where, is not needed), it gives that one back and takes it off the list: ENOENT
// if it is not there.
//
// What is in the way is in conflicts then, until the next acquire, a line each:
// words of the form key=value, "resource" with the line from resources last.
//
//	state=held     somebody holds it: pid, uid, via, mode, token as in a holder's
//	               record; owner is his name, of a named owner
//	state=waiting  somebody has been waiting for it: pid, uid, via, mode
//	state=outside  somebody holds it outside of the mount: pid (0: not known), mode
//	state=grace    nobody gets it for now, after an abnormal end
//	state=stale    the state that was given is out of date: token is that under
//	               which the lock was held exclusively since; 0: not known any more
//
// All who are in the way are told, as far as there is room in [maxConflicts] bytes.

const maxConflicts = 4000

var errCtl = errors.New("none of acquire [STATE] [restrict] [register-only], acquire RESOURCE, release [RESOURCE]")

// control does what is written to ctl.
func (f *FS) control(w *ownerWrite) fuse.Status {
	command, rest, _ := strings.Cut(strings.TrimSpace(w.value), " ")
	switch command {
	case "acquire":
		words := strings.Fields(rest)
		if len(words) > 0 && (words[0] == "disk" || words[0] == "lease") {
			return f.acquireOne(w, rest)
		}
		return f.acquire(w, words)
	case "release":
		return f.release(w, rest)
	}
	return w.refuse(errCtl)
}

// acquireFlags are the words behind acquire.
type acquireFlags struct {
	state                  *ownerState // nil: none
	restrict, registerOnly bool
}

func parseAcquire(words []string) (acquireFlags, error) {
	var a acquireFlags
	for _, word := range words {
		switch {
		case word == "restrict" && !a.restrict:
			a.restrict = true
		case word == "register-only" && !a.registerOnly:
			a.registerOnly = true
		case a.state == nil && word != "restrict" && word != "register-only":
			s, err := parseState(word)
			if err != nil {
				return a, err
			}
			a.state = s
		default:
			return a, errCtl
		}
	}
	if a.state != nil && a.registerOnly {
		return a, errors.New("register-only takes nothing, so it has no use for a state")
	}
	return a, nil
}

var errNoProcess = errors.New("the owner has no process: write its number to pid first")

func (f *FS) acquire(w *ownerWrite, words []string) fuse.Status {
	o := w.owner
	a, err := parseAcquire(words)
	switch {
	case err != nil:
		return w.refuse(err)
	case (a.restrict || a.registerOnly) && !o.hasProcess():
		return w.refuse(errNoProcess)
	case o.Ended:
		return fuse.Status(unix.ESRCH)
	}
	if !a.registerOnly {
		if status := f.acquireAll(w, a.state); status != fuse.OK {
			return status
		}
	}
	if a.restrict && !o.Restricted {
		o.Restricted = true
		f.owners.keep(o)
	}
	return fuse.OK
}

// wantedLock is a lock that an owner is to have, for a resource; another one may need the
// same.
type wantedLock struct {
	lockspace.Request
	resource *resource
}

// acquireAll takes the locks of all resources of an owner, or none.
func (f *FS) acquireAll(w *ownerWrite, s *ownerState) fuse.Status {
	o := w.owner
	all, status := f.wantedBy(w, o.resources)
	if status != fuse.OK {
		return status
	}
	if s != nil {
		stale, err := f.compare(o, s, all)
		if err != nil {
			return w.refuse(err)
		}
		if stale != "" {
			f.setConflicts(o, stale)
			return errStale
		}
	}
	return f.takeAll(w, all)
}

// acquireOne takes the lock of a resource, and gives it to the owner.
func (f *FS) acquireOne(w *ownerWrite, line string) fuse.Status {
	o := w.owner
	r, err := parseResource(line)
	if err != nil {
		return w.refuse(err)
	}
	if o.Ended {
		return fuse.Status(unix.ESRCH)
	}
	old := o.find(r.what())
	if old == nil && !f.owners.hasRoom(o, 1) {
		return fuse.Status(unix.EDQUOT)
	}
	dir, status := f.findSpace(w.in, &r)
	if status != fuse.OK {
		return status
	}
	r.Key.Dir = dir.ID
	if old != nil {
		r.Key, r.Mode = old.Key, max(old.Mode, r.Mode)
	}
	all, status := f.wantedBy(w, []*resource{{r}})
	if status == fuse.OK {
		status = f.takeAll(w, all)
	}
	if status == fuse.OK {
		if len(all) > 0 {
			r.Key = all[0].Key
		}
		if old != nil {
			old.Key, old.Token = r.Key, 0
		}
		f.addResource(o, &r)
	}
	return status
}

// takeAll takes what an owner wants, or nothing.
func (f *FS) takeAll(w *ownerWrite, all []wantedLock) fuse.Status {
	o := w.owner
	if f.closing { // as in takeByName
		return fuse.Status(unix.ENOLCK)
	}
	requests := make([]lockspace.Request, len(all))
	for i := range all {
		requests[i] = all[i].Request
	}
	f.asked, f.unopened = f.asked[:0], f.unopened[:0]
	refused := 0
	err := f.try(requests, func() (err error) {
		refused, err = f.table.TryAll(requests)
		return err
	})
	switch {
	case errors.Is(err, lockspace.ErrLookup) && (len(f.unopened) > 0 || f.made.inTheWay != nil):
		return f.makeOutside(w.in.Unique, err)
	case errors.Is(err, lockspace.ErrHeld):
		f.setConflicts(o, f.inTheWayOf(all))
		return fuse.EBUSY
	case err != nil:
		f.setConflicts(o, "")
		f.log.Warn("a named owner does not get what it asks for", "owner", o.Name, "path", f.path(requests[refused].Key), "err", err)
		return fuse.Status(lockErrno(err))
	}
	f.setConflicts(o, "")
	for i := range all {
		f.acquired(o, &all[i])
	}
	return fuse.OK
}

// acquired keeps that an owner has a lock.
func (f *FS) acquired(o *namedOwner, t *wantedLock) {
	for _, r := range o.resources {
		if same := r.Key == t.Key; r == t.resource || same {
			if r.Token != 0 || !same {
				r.Key, r.Token = t.Key, 0
				f.owners.keepResource(r)
			}
		}
	}
	if f.nodes.get(t.Key.Dir).file.Policy.lease > 0 {
		f.table.Renew(t.Key, func(h *lockspace.Hold) bool { return h.Party.Handle == o.party() })
	}
	f.touchName(t.Key)
}

// wantedBy returns the locks that the owner of a write is to have for resources: each
// once, in the strongest mode that it is wanted in. The status is OK; why the user may not have
// one of them; or Parked for a detour.
func (f *FS) wantedBy(w *ownerWrite, resources []*resource) ([]wantedLock, fuse.Status) {
	o := w.owner
	taker := o.holder(o.Process)
	if !o.hasProcess() {
		p, ok := f.caller(w.in)
		if !ok {
			return nil, device.Parked
		}
		taker = o.holder(Identity{Pid: p.Pid})
	}
	party := lockspace.Party{Handle: o.party(), Taker: taker, Opener: taker, Opened: f.clock.Now()}
	var all []wantedLock
	at := make(map[lockspace.Key]int)
	for _, r := range resources {
		if r.Mode == readonly {
			continue
		}
		key, mode := r.Key, r.lockMode()
		if h := f.holdOf(o, r); h != nil && h.Mode >= mode {
			mode = h.Mode
		} else if status := f.mayTake(w.in, r, h != nil, &key); status != fuse.OK {
			return nil, status
		}
		if i, twice := at[key]; twice {
			all[i].Mode = max(all[i].Mode, mode)
			continue
		}
		at[key] = len(all)
		all = append(all, wantedLock{lockspace.Request{
			Key: key, Party: party, Via: lockspace.ViaOwner, Mode: mode, Range: lockspace.Whole, Thread: w.in.Pid,
		}, r})
	}
	return all, fuse.OK
}

// mayTake checks that a user may take the lock of a resource, and finds it: where it
// is held, it is where it was. The status is OK; EACCES, or as of findSpace; EISDIR if
// the name is a directory's that nobody holds; or Parked for a detour.
func (f *FS) mayTake(in *fuse.InHeader, r *resource, held bool, key *lockspace.Key) fuse.Status {
	dir, status := f.nodes.dir(r.Key.Dir), fuse.OK
	if !held {
		dir, status = f.findSpace(in, &r.ResourceRecord)
	}
	if status == fuse.OK {
		status = f.permit(in, dir, mayWrite|maySearch)
	}
	if status != fuse.OK {
		return status
	}
	key.Dir = dir.ID
	if e := f.entry(*key); e != nil && e.file.Kind == directory && !f.table.Held(*key) {
		return fuse.EISDIR
	}
	return fuse.OK
}

// inTheWayOf says who is in the way of somebody who wants locks, for conflicts.
func (f *FS) inTheWayOf(all []wantedLock) string {
	var b conflictLines
	var unseen *resource // of which a step cannot find out who has it outside
	for i := range all {
		t := &all[i]
		f.table.InTheWay(t.Request, func(h *lockspace.Hold, q *lockspace.Wait) bool {
			if h != nil {
				p := f.holder(h)
				text := fmt.Sprintf("state=held pid=%d uid=%d via=%s mode=%s token=%d", p.Pid, p.UID, h.Via, h.Mode, h.Token)
				if other := f.owners.ofHold(&h.Request); other != nil {
					text += " owner=" + string(appendField(nil, other.Name))
				}
				return b.add(text, t.resource)
			}
			p := q.Party.Taker
			return b.add(fmt.Sprintf("state=waiting pid=%d uid=%d via=%s mode=%s", p.Pid, p.UID, q.Via, q.Mode), t.resource)
		})
		if f.table.InGrace(t.Key) {
			b.add("state=grace", t.resource)
		}
		if f.mirrors(t.Key.Dir) && f.holdOfParty(&t.Request) == nil {
			switch s, found, known, err := f.mirror.at(t.Key.Dir).probeFor(&t.Request); {
			case err != nil:
			case found:
				b.add(fmt.Sprintf("state=outside pid=%d mode=%s", s.Pid, s.Mode), t.resource)
			case !known:
				unseen = t.resource
			}
		}
	}
	if b.Len() == 0 && unseen != nil {
		b.add("state=outside pid=0", unseen)
	}
	return b.String()
}

// holdOfParty returns what who asks holds of the lock, nil if he does not.
func (f *FS) holdOfParty(r *lockspace.Request) *lockspace.Hold {
	for h := range f.table.Holds(r.Key) {
		if h.Party.Handle == r.Party.Handle {
			return h
		}
	}
	return nil
}

// conflictLines are the lines of conflicts.
type conflictLines struct{ strings.Builder }

// add adds a line about a resource, if there is room. A path that is longer than that
// is cut off.
func (b *conflictLines) add(text string, r *resource) bool {
	text = fmt.Sprintf("%s resource=%s", text, r.line())
	text = text[:min(len(text), maxConflicts-1)] + "\n"
	if b.Len()+len(text) > maxConflicts {
		return false
	}
	b.WriteString(text)
	return true
}

func (f *FS) release(w *ownerWrite, line string) fuse.Status {
	o := w.owner
	if strings.TrimSpace(line) == "" {
		f.endHoldsOf(o, lockspace.Released)
		return fuse.OK
	}
	what, err := parseResource(line)
	if err != nil {
		return w.refuse(err)
	}
	r := o.find(what.what())
	if r == nil {
		return fuse.ENOENT
	}
	f.dropResource(o, r)
	return fuse.OK
}

// dropResource takes a resource from an owner, and gives its lock back if no other one
// needs it.
func (f *FS) dropResource(o *namedOwner, r *resource) {
	needed := false
	rest := o.resources[:0:0]
	for _, other := range o.resources {
		if other != r {
			rest = append(rest, other)
			needed = needed || other.Key == r.Key && other.Mode != readonly
		}
	}
	if !needed {
		f.table.EndHandle(r.Key, o.party(), lockspace.Released)
	}
	o.resources = rest
	f.owners.counted(o, -1)
	f.journal.DropOwned(r.ID)
}
