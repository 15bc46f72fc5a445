package fs

import (
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockspace"
)

// The hint for misused lockspaces (design 1.5). A tool that makes its lock with
// O_EXCL, closes it, works, and then removes it, means the name to hold. Where
// O_EXCL holds by the open file it has no lock while it works, and nothing tells
// it: so the log does.
//
// Its unlink(2) is never seen. The name is gone with the hold, the kernel's LOOKUP
// finds nothing, and the call ends there. What is seen is that LOOKUP: of a name
// that was held through O_EXCL and closed, by the process that had it or one that
// descends from that, which does not go on to make something of that name. A LOOKUP
// does not say what call it is for, so a program that had the lock and only
// looks whether somebody has it now (test -e, stat, an open without O_CREAT) is
// taken for one. So is one that holds its lock open as it should, and removes the
// name after its close instead of before, and one that is killed on its way from
// the LOOKUP to the CREATE. The message says what it looks like.
//
// What is not seen: a removal by a process that neither took the lock nor
// descends from who did, as where a subshell took it and has ended; one whose
// process was gone before /proc was read; what looks more often than is looked up;
// and a lock that was closed so long ago that others have taken its slot.
//
// Nothing of this outlives the process, and no request waits for it.

// hints is what is remembered for it. It changes in steps.
type hints struct {
	// closed are the locks that were closed last, by the hash of their key.
	closed [closedSlots]closedLock
	// open is how many of them somebody is looking for; running: a timer runs
	// for these.
	open    int
	running bool
	// own and others limit the look-ups of those who took the lock themselves,
	// and of others.
	own, others limiter

	count  uint64
	spaces map[uint64]*misuse
}

const (
	closedSlots = 256
	// hintDelay is how long at least somebody who looks for a name has time to
	// make it; at most twice as long.
	hintDelay = 100 * time.Millisecond
	// hintEvery is how often a lockspace is told of, at most.
	hintEvery = time.Minute
)

// Look-ups for hints, twice: of all locks, and of each, so that one for which
// many contend leaves something to the others. Of one lock two of others than its
// taker are looked up: a tool that comes again looks for the name when it takes the
// lock, as another process than last time, and when it removes it.
var (
	allLookups   = rate{every: time.Second / 5, burst: 5}
	oneLookup    = rate{every: time.Second, burst: 1}
	othersLookup = rate{every: time.Second, burst: 2}
)

// allowOne is allow for a look-up for one lock, which the limiter of all has to
// allow too.
func (l *limiter) allowOne(one *limiter, each rate, now time.Duration) bool {
	return one.ready(each, now) && l.allow(allLookups, now) && one.allow(each, now)
}

// closedLock is a lock that was held through O_EXCL until its file was closed.
type closedLock struct {
	key   lockspace.Key
	hold  lockspace.HoldID // 0: none
	taker uint32
	// thread is the one that took it, and since when it had it.
	thread uint32
	since  time.Duration
	// own and others limit the look-ups of those who look for it.
	own, others limiter

	// asker is the thread that looked for the name and has made nothing yet; 0:
	// nobody.
	asker uint32
	// ripe: a first timer has run since.
	ripe  bool
	asked askerState
	// suspect is the asker's process, once it is kin.
	suspect ProcessInfo
}

// askerState is what is known of who looks for a closed lock.
type askerState uint8

const (
	// isTaker: it has the number of the taker, which takes it so often that it
	// is looked up when it has made nothing.
	isTaker askerState = iota
	beingLookedUp
	isKin
)

func newHints() hints {
	return hints{spaces: make(map[uint64]*misuse)}
}

// slot returns the place of a key; it may be another's. Who finds names that share
// one makes the hint miss something, and could do that without.
func (h *hints) slot(k lockspace.Key) *closedLock {
	// FNV-1a, and an odd number, so that numbers that follow each other spread.
	const offset, prime, spread = 0xcbf29ce484222325, 0x100000001b3, 0x9e3779b97f4a7c15
	hash := uint64(offset)
	for i := range len(k.Name) {
		hash = (hash ^ uint64(k.Name[i])) * prime
	}
	return &h.closed[(hash^k.Dir*spread)%closedSlots]
}

// dismiss forgets who looks for a lock.
func (h *hints) dismiss(c *closedLock) {
	if c.asker != 0 {
		c.asker = 0
		h.open--
	}
}

// noteClose remembers a lock whose open file is being closed, if it was held
// through O_EXCL.
func (f *FS) noteClose(hold *lockspace.Hold) {
	if hold.Via != lockspace.ViaExcl || hold.Party.Taker.Pid == 0 {
		return
	}
	c := f.hints.slot(hold.Key)
	f.hints.dismiss(c)
	if c.key != hold.Key {
		c.key, c.own, c.others = hold.Key, limiter{}, limiter{}
	}
	c.hold, c.taker, c.thread, c.since = hold.ID, hold.Party.Taker.Pid, hold.Thread, hold.Since.Boot
}

// noteMiss is a LOOKUP that found nothing.
func (f *FS) noteMiss(in *fuse.InHeader, k lockspace.Key) {
	c := f.hints.slot(k)
	if c.hold == 0 || c.key != k || c.asker != 0 || in.Pid == 0 {
		return
	}
	own := in.Pid == c.taker || in.Pid == c.thread
	mayLookUp := false
	switch {
	case !own:
		if mayLookUp = f.hints.others.allowOne(&c.others, othersLookup, f.clock.Now().Boot); !mayLookUp {
			return
		}
	case c.own.ready(oneLookup, c.since):
		mayLookUp = f.hints.own.allowOne(&c.own, oneLookup, f.clock.Now().Boot)
	default:
		// It was looked up shortly before it took the lock once more. Who does
		// so over and over is not even to cost a look at the clock.
	}
	c.asker, c.ripe, c.asked = in.Pid, false, isTaker
	f.hints.open++
	f.armHints()
	if mayLookUp {
		f.lookUpAsker(c, own)
	}
}

// noteUse is a request for a name that shows that the LOOKUP before it was for
// another call than unlink: to make the name, or another LOOKUP that found it.
func (f *FS) noteUse(in *fuse.InHeader, k lockspace.Key) {
	if f.hints.open == 0 {
		return
	}
	if c := f.hints.slot(k); c.asker == in.Pid && c.key == k {
		f.hints.dismiss(c)
	}
}

func (f *FS) armHints() {
	if f.hints.running {
		return
	}
	f.hints.running = true
	time.AfterFunc(hintDelay, func() { f.dev.Do(f.judgeAskers) })
}

// judgeAskers counts those who have looked for a name for long enough.
func (f *FS) judgeAskers() {
	f.hints.running = false
	for i := range f.hints.closed {
		c := &f.hints.closed[i]
		switch {
		case c.asker == 0:
		case !c.ripe:
			c.ripe = true
		case c.asked == isKin:
			f.misused(c)
		case c.asked == beingLookedUp:
			// Judged by a timer after it is known.
		case !f.hints.own.allow(allLookups, f.clock.Now().Boot):
			f.hints.dismiss(c)
		default:
			f.lookUpAsker(c, false)
		}
	}
	if f.hints.open > 0 {
		f.armHints()
	}
}

// lookUpAsker finds out whether the thread that looks for a lock is of the
// process that took it, or of one that descends from it. At once: rm(1) is gone
// in no time. own: it has the taker's number now, which says enough should it be
// gone already.
func (f *FS) lookUpAsker(c *closedLock, own bool) {
	c.asked = beingLookedUp
	tid, hold, taker, since := c.asker, c.hold, c.taker, c.since
	go func() {
		k, ok := f.procs.Kin(tid)
		info, looked := f.procs.Look(tid)
		if !looked {
			info = ProcessInfo{Kin: k}
		}
		kin := ok && f.isFamily(info.Kin, taker, since)
		if !ok && own {
			kin, info.Pid = true, taker
		}
		f.dev.Do(func() {
			switch {
			case c.hold != hold || c.asker != tid:
				// It has made something, or another lock has the slot.
			case !kin:
				f.hints.dismiss(c)
			default:
				// Judged by the next timer: the first may have run at once.
				c.asked, c.suspect = isKin, info
			}
		})
	}()
}

// isFamily reports whether a process is the one that had a number at a time, or
// descends from it.
func (f *FS) isFamily(k Kin, pid uint32, at time.Duration) bool {
	if k.Pid == pid {
		return k.Started <= at
	}
	var x facts
	x.lookFamily(f.procs, k.Parent)
	if len(x.ancestors) == 0 {
		return k.Parent == pid // it lived when its child was looked at
	}
	return x.kinTo(pid, at) != stranger
}

// misuse is what a lockspace was told of.
type misuse struct {
	count uint64
	told  time.Duration
}

// misused counts a lock that was closed and looked for by its holder's family.
func (f *FS) misused(c *closedLock) {
	f.hints.dismiss(c)
	c.hold = 0 // of one hold it is told once
	dir := f.nodes.dir(c.key.Dir)
	if dir == nil || dir.file.holdsByName() {
		return // removed, or set right, meanwhile
	}
	f.hints.count++
	now := f.clock.Now().Boot
	m := f.hints.spaces[dir.ID]
	if m == nil {
		f.forgetSpaces()
		m = &misuse{told: now - hintEvery}
		f.hints.spaces[dir.ID] = m
	}
	m.count++
	if now-m.told < hintEvery {
		return
	}
	m.told = now
	f.log.Warn("a lock was closed, and so given back, and its name looked for later: this looks like a tool"+
		" whose locks are to hold until they are removed, and which has none. If it is one, set hold=name",
		"name", c.key.Name, "directory", f.directoryPath(dir), "holder_pid", c.taker,
		"by_pid", c.suspect.Pid, "by_comm", c.suspect.Comm, "times", m.count,
		"set", "echo name > DIR/"+controlName+"/policy/hold")
}

// forgetSpaces forgets the lockspaces that were removed.
func (f *FS) forgetSpaces() {
	for id := range f.hints.spaces {
		if f.nodes.dir(id) == nil {
			delete(f.hints.spaces, id)
		}
	}
}
