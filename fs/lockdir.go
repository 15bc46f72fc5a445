package fs

import (
	"cmp"
	"container/list"
	"fmt"
	"slices"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockspace"
)

// The directories DIR/.lockfs/lock/NAME, which tell of one lock each: lockfiles.go
// has what is in them, locknames.go how lock lists them.
//
// There is one for every name that a lock can have, held or not: who asks whether a
// lock is free is not told that there is none. lock lists those of names that are
// held or waited for.
//
// A name does not fit into the number of a node. So the directory is given a number
// when the name is looked up, and a record, and both go when the kernel has
// forgotten it and all that is in it. The kernel keeps such nodes until it needs the
// memory, and there is no end to names. So of those that nobody has open, or
// something in them, [maxLockDirs] are kept for each user who was the first to look
// them up, and [maxAllLockDirs] for all together: then that one of the user's goes
// that was not looked up for the longest time. Its number is stale from then on,
// which the kernel makes up for by looking the name up again, unless a process is in
// the directory: that gets ESTALE.
//
// The files of numbered locks in ids have these numbers too: see idfiles.go.
//
// Who may see the locks of DIR may look into lock; others get EACCES. See gather.go
// for who that is.

const (
	maxLockDirs    = 1024
	maxAllLockDirs = 64 * maxLockDirs
)

// LockDirRecord is what must outlive the process of a directory lock/NAME.
type LockDirRecord struct {
	// ID is its number, from the same count as those of nodes.
	ID  uint64
	Key lockspace.Key
	// Lookups is how many references the kernel holds to it and what is in it.
	Lookups uint64
	// UID is the user who was the first to look it up.
	UID uint32
}

// lockDir is a directory lock/NAME.
type lockDir struct {
	LockDirRecord
	// open is how many open files there are of it and what is in it.
	open int
	// idle is its place among those that are not open; nil: it is.
	idle *list.Element
}

// lockDirs are the directories lock/NAME that have a number.
type lockDirs struct {
	byID  map[uint64]*lockDir
	byKey map[lockspace.Key]*lockDir
	// idle are those of each user that are not open, the one that was looked up
	// last at the end; none of the lists is empty. idleCount is how many they are.
	idle      map[uint32]*list.List
	idleCount int
}

func newLockDirs() lockDirs {
	return lockDirs{
		byID:  make(map[uint64]*lockDir),
		byKey: make(map[lockspace.Key]*lockDir),
		idle:  make(map[uint32]*list.List),
	}
}

// of returns the one that a control node is, or is in; nil if it is none, or has no
// number any more.
func (l *lockDirs) of(id uint64) *lockDir {
	if id&lockDirNodes == 0 {
		return nil
	}
	return l.byID[id>>controlDirShift&maxNode]
}

// add adds one that is not open.
func (l *lockDirs) add(d *lockDir) {
	l.byID[d.ID], l.byKey[d.Key] = d, d
	l.rest(d)
}

// remove takes one away.
func (l *lockDirs) remove(d *lockDir) {
	l.unrest(d)
	delete(l.byID, d.ID)
	delete(l.byKey, d.Key)
}

// rest puts one that is not open behind its user's others.
func (l *lockDirs) rest(d *lockDir) {
	l.unrest(d)
	mine := l.idle[d.UID]
	if mine == nil {
		mine = list.New()
		l.idle[d.UID] = mine
	}
	d.idle = mine.PushBack(d)
	l.idleCount++
}

func (l *lockDirs) unrest(d *lockDir) {
	if d.idle == nil {
		return
	}
	mine := l.idle[d.UID]
	mine.Remove(d.idle)
	if mine.Len() == 0 {
		delete(l.idle, d.UID)
	}
	d.idle = nil
	l.idleCount--
}

// surplus returns the one that has to go before a user gets another; nil: none has.
func (l *lockDirs) surplus(uid uint32) *lockDir {
	mine := l.idle[uid]
	if mine == nil || mine.Len() < maxLockDirs && l.idleCount < maxAllLockDirs {
		return nil
	}
	return mine.Front().Value.(*lockDir)
}

// theLockDir is the entry of directories lock/NAME.
var theLockDir = controlEntry{number: controlOneLock, in: controlLock}

// lookupLock finds a name in the directory lock.
func (f *FS) lookupLock(in *fuse.InHeader, c controlNode, name string, out *fuse.EntryOut) fuse.Status {
	if status := checkName(name); status != fuse.OK {
		return status
	}
	if name == controlName {
		return fuse.ENOENT
	}
	d := f.lockDir(lockspace.Key{Dir: c.about.ID, Name: name}, in.Uid)
	f.enterControl(controlNode{controlEntry: &theLockDir, about: c.about, lock: d}, out)
	return fuse.OK
}

// lockDir returns the directory lock/NAME of a lock, a new one of this user's if it
// has no number.
func (f *FS) lockDir(k lockspace.Key, uid uint32) *lockDir {
	d := f.lockDirs.byKey[k]
	if d == nil {
		if old := f.lockDirs.surplus(uid); old != nil {
			f.dropLockDir(old)
		}
		d = &lockDir{LockDirRecord: LockDirRecord{ID: f.nodes.number(), Key: k, UID: uid}}
		f.lockDirs.add(d)
	}
	return d
}

// enteredLockDir counts a reference to it, or to what is in it, that an answer gives
// the kernel.
func (f *FS) enteredLockDir(d *lockDir) {
	if d.idle != nil {
		f.lockDirs.rest(d)
	}
	d.Lookups++
	f.journal.PutLockDir(&d.LockDirRecord)
}

// forgetControl takes the kernel's references to a control node back.
func (f *FS) forgetControl(id, count uint64) {
	d := f.lockDirs.of(id)
	if d == nil {
		return
	}
	if d.Lookups -= min(count, d.Lookups); d.Lookups == 0 && d.open == 0 {
		f.dropLockDir(d)
		return
	}
	f.journal.PutLockDir(&d.LockDirRecord)
}

// openedLockDir counts an open file of what has this number.
func (f *FS) openedLockDir(id uint64) {
	if d := f.lockDirs.of(id); d != nil {
		f.lockDirs.unrest(d)
		d.open++
	}
}

// closedLockDir is the end of an open file of what has this number.
func (f *FS) closedLockDir(id uint64) {
	d := f.lockDirs.of(id)
	if d == nil {
		return
	}
	switch d.open--; {
	case d.open > 0:
	case d.Lookups == 0:
		f.dropLockDir(d)
	default:
		f.lockDirs.rest(d)
	}
}

func (f *FS) dropLockDir(d *lockDir) {
	f.lockDirs.remove(d)
	f.journal.DropLockDir(d.ID)
}

// restoreLockDirs adds those that there were when the process died. In which order
// they were looked up is not known any more, but for the first time.
func (f *FS) restoreLockDirs(s *Saved) error {
	slices.SortFunc(s.lockDirs, func(a, b LockDirRecord) int { return cmp.Compare(a.ID, b.ID) })
	for _, r := range s.lockDirs {
		if r.ID > maxNode || f.lockDirs.byID[r.ID] != nil || f.lockDirs.byKey[r.Key] != nil {
			return fmt.Errorf("directory of a lock %d is there twice, or cannot be: %w", r.ID, ErrRecord)
		}
		f.lockDirs.add(&lockDir{LockDirRecord: r})
	}
	return nil
}
