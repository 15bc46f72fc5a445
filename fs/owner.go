package fs

import (
	"cmp"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Named owners (design, part 4): libvirt's lock manager as the directories
// owner/NAME in the control directory of the root. A named owner is given
// resources, each a lock on the mount, and takes all of them or none in one step.
// What is in its directory is in ownerfiles.go; what a resource is, in
// ownerresource.go; taking and giving back in ownerctl.go; the state that is handed
// on in ownerstate.go; its process in ownerprocess.go.
//
// mkdir(2) makes one, for whoever may search the root of the mount: it is of that
// user, and he and root alone may look into it, write to it and remove it. rmdir(2)
// gives back what it holds and removes it, in one step; its process is left alone
// (the RFC of the original has a supervisor that kills it, which is not lockfs's
// business). A name that is there is EEXIST, as always. EDQUOT is for more than
// [maxOwners] of one user, or [maxAllOwners], more than [maxResources] of one owner, or
// [maxGiven] of all of a user's. Others see the names, and whose they are.
//
// It holds what it has taken until it gives it back, it is removed, or its process
// ends; without a process, over a clean stop and start of the mount too. It is in
// the lock table as an open file that nobody closes, whose number has the bit
// [ownerParty] above the owner's.

const (
	maxOwners    = 1024
	maxAllOwners = 16 * maxOwners
	// maxGiven is how many resources all named owners of a user can have together.
	maxGiven = 16 * 1024
	// maxResources is how many resources a named owner can have: the state of all
	// of them is a line that a write to ctl can have.
	maxResources = 96

	ownerParty = uint64(1) << 63
)

// OwnerRecord is what must outlive the process of a named owner, but for its
// resources and what kept it from getting them.
type OwnerRecord struct {
	// ID is its number, from the same count as those of nodes.
	ID       uint64
	Name     string
	UID, GID uint32
	Made     lockspace.Instant
	// DomainID, UUID and Domain are what was written to id, uuid and name.
	DomainID, UUID, Domain string
	// Pid is what was written to pid, in the pid namespace of who wrote it, and
	// Process the process that was meant; 0 and none if there is none. Ended: it
	// has.
	Pid     uint32
	Process Identity
	Ended   bool
	// Restricted: its process has no say over it any more.
	Restricted bool
	// Action is what befalls its process when it loses a hold. Due: that has yet to
	// be done.
	Action uint8
	Due    bool
}

// namedOwner is a named owner.
type namedOwner struct {
	OwnerRecord
	// resources are in the order in which they were given.
	resources []*resource
	// conflicts is what kept it from getting them the last time, "" if nothing did.
	conflicts string
	// stop ends the watch for watched, nil if none is watched.
	stop    func()
	watched Identity
	// acting: its action is being done.
	acting bool
}

// isOf reports whether a user may use it.
func (o *namedOwner) isOf(uid uint32) bool { return uid == 0 || uid == o.UID }

// party is its number in the lock table.
func (o *namedOwner) party() uint64 { return ownerParty | o.ID }

// owners are the named owners.
type owners struct {
	journal Journal
	byID    map[uint64]*namedOwner
	byName  map[string]*namedOwner
	// order is all of them by their numbers, count how many each user has, and given
	// how many resources those have.
	order []*namedOwner
	count map[uint32]int
	given map[uint32]int
	// untended are those of which the end of the step has to see who is watched,
	// and whose action is due.
	untended []*namedOwner
	traces   traces
}

func newOwners(j Journal) owners {
	return owners{
		journal: j,
		byID:    make(map[uint64]*namedOwner),
		byName:  make(map[string]*namedOwner),
		count:   make(map[uint32]int),
		given:   make(map[uint32]int),
		traces:  newTraces(),
	}
}

// of returns the one whose directory a control node is, or is in; nil if it is none,
// or has been removed.
func (x *owners) of(id uint64) *namedOwner {
	if id&lockDirNodes == 0 {
		return nil
	}
	return x.byID[id>>controlDirShift&maxNode]
}

// ofHold returns the one that has a hold, nil if it is nobody's.
func (x *owners) ofHold(r *lockspace.Request) *namedOwner {
	if r.Via != lockspace.ViaOwner {
		return nil
	}
	return x.byID[r.Party.Handle&^ownerParty]
}

// add adds one whose number is higher than all before it.
func (x *owners) add(o *namedOwner) {
	x.byID[o.ID], x.byName[o.Name] = o, o
	x.order = append(x.order, o)
	x.count[o.UID]++
	x.untended = append(x.untended, o)
}

func (x *owners) remove(o *namedOwner) {
	delete(x.byID, o.ID)
	delete(x.byName, o.Name)
	i, _ := x.after(o.ID - 1)
	x.order = slices.Delete(x.order, i, i+1)
	x.counted(o, -len(o.resources))
	if x.count[o.UID]--; x.count[o.UID] == 0 {
		delete(x.count, o.UID)
	}
}

// counted counts n more resources of an owner, or fewer.
func (x *owners) counted(o *namedOwner, n int) {
	if x.given[o.UID] += n; x.given[o.UID] == 0 {
		delete(x.given, o.UID)
	}
}

// hasRoom reports whether an owner can have n more resources.
func (x *owners) hasRoom(o *namedOwner, n int) bool {
	return len(o.resources)+n <= maxResources && x.given[o.UID]+n <= maxGiven
}

// after returns the index of the first whose number is above id.
func (x *owners) after(id uint64) (int, bool) {
	return slices.BinarySearchFunc(x.order, id+1, func(o *namedOwner, id uint64) int { return cmp.Compare(o.ID, id) })
}

// keep puts the record of one, to be tended at the end of the step.
func (x *owners) keep(o *namedOwner) {
	x.journal.PutOwner(o.ID, encodeOwner(&o.OwnerRecord))
	x.untended = append(x.untended, o)
}

// list answers the READDIR of the directory owner.
func (x *owners) list(in *fuse.ReadIn, out *fuse.DirEntryList) {
	from, _ := x.after(max(in.Offset, firstPlace) - firstPlace)
	for _, o := range x.order[from:] {
		c := controlNode{controlEntry: &theOwnerDir, owner: o}
		if !out.AddDirEntry(fuse.DirEntry{Name: o.Name, Ino: c.id(), Mode: unix.S_IFDIR, Off: o.ID + firstPlace}) {
			return
		}
	}
}

// theOwnerDir is the entry of directories owner/NAME.
var theOwnerDir = controlEntry{number: controlOneOwner, in: controlOwner}

// isOneOwners reports whether it is a directory owner/NAME, or in one.
func (e *controlEntry) isOneOwners() bool {
	return e.number == controlOneOwner || e.in == controlOneOwner
}

// lookupOwner finds a name in the directory owner.
func (f *FS) lookupOwner(c controlNode, name string, out *fuse.EntryOut) fuse.Status {
	if status := checkName(name); status != fuse.OK {
		return status
	}
	o := f.owners.byName[name]
	if o == nil {
		return fuse.ENOENT
	}
	f.enterControl(controlNode{controlEntry: &theOwnerDir, about: c.about, owner: o}, out)
	return fuse.OK
}

// ownerAttr fills in what is other than in the rest of the control directory.
func (f *FS) ownerAttr(o *namedOwner, out *fuse.Attr) {
	out.Owner = fuse.Owner{Uid: o.UID, Gid: o.GID}
	out.Mtime, out.Mtimensec = seconds(o.Made)
	out.Atime, out.Atimensec = out.Mtime, out.Mtimensec
	out.Ctime, out.Ctimensec = out.Mtime, out.Mtimensec
}

// ownerPlace checks that a request to make or remove a named owner may: it returns
// EACCES anywhere else in control directories.
func (f *FS) ownerPlace(in *fuse.InHeader, name string) (controlNode, fuse.Status) {
	c, status := f.reach(in)
	switch {
	case status != fuse.OK:
		return c, status
	case c.number != controlOwner:
		return c, fuse.EACCES
	}
	return c, checkName(name)
}

// makeOwner is mkdir(2) in a control directory.
func (f *FS) makeOwner(in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	c, status := f.ownerPlace(in, name)
	x := &f.owners
	switch {
	case status != fuse.OK:
		return status
	case x.byName[name] != nil:
		return fuse.Status(unix.EEXIST)
	case x.count[in.Uid] >= maxOwners || len(x.order) >= maxAllOwners:
		return fuse.Status(unix.EDQUOT)
	}
	o := &namedOwner{OwnerRecord: OwnerRecord{
		ID: f.nodes.number(), Name: name, UID: in.Uid, GID: in.Gid, Made: f.clock.Now(),
	}}
	x.begin()
	x.add(o)
	x.keep(o)
	f.enterControl(controlNode{controlEntry: &theOwnerDir, about: c.about, owner: o}, out)
	return fuse.OK
}

// removeOwner is rmdir(2) in a control directory. Of another user's it is EACCES: EPERM
// is for whom it is restricted.
func (f *FS) removeOwner(in *fuse.InHeader, name string) fuse.Status {
	_, status := f.ownerPlace(in, name)
	o := f.owners.byName[name]
	switch {
	case status != fuse.OK:
		return status
	case o == nil:
		return fuse.ENOENT
	case !o.isOf(in.Uid):
		return fuse.EACCES
	}
	if status := f.hasSay(in, o); status != fuse.OK {
		return status
	}
	f.endHoldsOf(o, lockspace.Released)
	f.setConflicts(o, "")
	for _, r := range o.resources {
		f.journal.DropOwned(r.ID)
	}
	f.journal.DropOwner(o.ID)
	f.owners.remove(o)
	if o.stop != nil {
		o.stop()
	}
	return fuse.OK
}

// setConflicts keeps what keeps an owner from getting what it asks for.
func (f *FS) setConflicts(o *namedOwner, text string) {
	switch {
	case text == o.conflicts:
		return
	case text == "":
		f.journal.DropOwned(o.ID)
	default:
		f.journal.PutOwned(o.ID, encodeConflicts(text))
	}
	o.conflicts = text
}

// holdOf returns what an owner holds of a resource, nil if it does not.
func (f *FS) holdOf(o *namedOwner, r *resource) *lockspace.Hold {
	for h := range f.table.Holds(r.Key) {
		if h.Party.Handle == o.party() {
			return h
		}
	}
	return nil
}

// endHoldsOf ends all that an owner holds.
func (f *FS) endHoldsOf(o *namedOwner, why lockspace.Reason) {
	for _, r := range o.resources {
		f.table.EndHandle(r.Key, o.party(), why)
	}
}

// ownersHoldEnded keeps what must be known of a hold that a named owner had. It is
// called within the table's step.
func (f *FS) ownersHoldEnded(h *lockspace.Hold, why lockspace.Reason) {
	f.owners.trace(h, f.nodes.number)
	f.touchName(h.Key)
	o := f.owners.ofHold(&h.Request)
	if o == nil {
		return
	}
	for _, r := range o.resources {
		if r.Key == h.Key {
			r.Token, r.HeldAs = h.Token, h.Mode
			f.owners.keepResource(r)
		}
	}
	switch why {
	case lockspace.Broken, lockspace.Expired, lockspace.Lost:
		f.fail(o)
	}
}

// touchName has the step look, when it ends, whether the body of what is under a name
// still has its author.
func (f *FS) touchName(k lockspace.Key) {
	if d := f.nodes.lookup(k); d != nil {
		f.touch(d.ID)
	}
}

// onlyOwnersHold reports whether all that is held of a lock is held by named owners.
func (f *FS) onlyOwnersHold(k lockspace.Key) bool {
	for h := range f.table.Holds(k) {
		if h.Via != lockspace.ViaOwner {
			return false
		}
	}
	return f.table.Held(k)
}
