package fs

import (
	"slices"
	"strconv"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// The files in a directory lock/NAME. Their formats are contracts. Each is of the
// moment when it is read from the beginning, but for what /proc says.
//
//	holder   the record of each hold, oldest first (but what is left of one of
//	         which a part was given back is behind), with an empty line between
//	         two: what cat(1) of the held lock shows if nothing was written to it,
//	         see formatRecord
//	token    the fencing token of each hold, a line each, in the order of holder
//	mode     the mode of each, likewise: "exclusive" or "shared", and where it is
//	         not the whole lock the range of bytes behind a space, as in locks;
//	         "free" if nobody holds it
//	waiting  the queue, in order: lines as in locks, with NAME for the path
//	check    -1 if the lock, or a part of it, is held exclusively, else how many
//	         shared holds it has: 0 if it is free
//
// Who holds the lock outside of the mount, on its backing file, comes behind all
// others, and is one however many they are. He has no token: "-".

// lockEntries are theirs in control directories.
var lockEntries = []controlEntry{
	{number: controlHolder, in: controlOneLock, name: "holder", ofLock: formatHolder},
	{number: controlToken, in: controlOneLock, name: "token", ofLock: formatToken},
	{number: controlMode, in: controlOneLock, name: "mode", ofLock: formatMode},
	{number: controlWaiting, in: controlOneLock, name: "waiting", ofLock: formatWaiting},
	{number: controlCheck, in: controlOneLock, name: "check", ofLock: formatCheck},
}

// lockSeen is a lock at one moment: its holds, oldest first, and its queue.
type lockSeen struct {
	name  string
	holds []*lockspace.Hold
	waits []lockspace.Wait
	// stranger holds it outside of the mount, nil if nobody does.
	stranger *outsider
}

// lookUpLock sends the READ of a file in lock/NAME on a detour to what is in it. It
// returns Parked.
func (f *FS) lookUpLock(in *fuse.ReadIn, c controlNode) fuse.Status {
	k := c.lock.Key
	seen := &lockSeen{name: k.Name, holds: slices.Collect(f.table.Holds(k))}
	for w := range f.table.Waits(k) {
		seen.waits = append(seen.waits, *w)
	}
	stranger, hangs := f.lookForStranger(k)
	lookUp := func(unique uint64, find func(*facts)) { f.lookUpWhere(unique, 0, hangs, find) }
	if !hangs && len(seen.holds)+len(seen.waits) > gatherAtOnce {
		lookUp = f.lookUpLong
	}
	lookUp(in.Unique, func(x *facts) {
		seen.stranger = stranger()
		x.reading = newReading(c.ofLock(seen, &oneLook{Processes: f.procs}))
	})
	return device.Parked
}

func formatHolder(seen *lockSeen, procs Processes) []byte {
	return appendStranger(procs, formatRecord(procs, seen.holds, len(seen.waits)), seen.stranger, len(seen.waits))
}

func formatToken(seen *lockSeen, _ Processes) []byte {
	b := []byte{}
	for _, h := range seen.holds {
		b = append(strconv.AppendUint(b, h.Token, 10), '\n')
	}
	if seen.stranger != nil {
		b = append(b, "-\n"...)
	}
	return b
}

func formatMode(seen *lockSeen, _ Processes) []byte {
	b := []byte{}
	for _, h := range seen.holds {
		b = appendMode(b, h.Mode, h.Range)
	}
	switch s := seen.stranger; {
	case s != nil:
		b = appendMode(b, s.Mode, s.Range)
	case len(seen.holds) == 0:
		b = append(b, "free\n"...)
	}
	return b
}

func appendMode(b []byte, mode lockspace.Mode, r lockspace.Range) []byte {
	b = append(b, mode.String()...)
	if r != lockspace.Whole {
		b = append(append(b, ' '), r.String()...)
	}
	return append(b, '\n')
}

func formatWaiting(seen *lockSeen, procs Processes) []byte {
	list := new(seenLocks)
	for i := range seen.waits {
		l := seenWait(procs, &seen.waits[i])
		l.path = seen.name
		list.locks = append(list.locks, l)
	}
	return formatLocks(list)
}

func formatCheck(seen *lockSeen, _ Processes) []byte {
	n := int64(len(seen.holds))
	exclusive := slices.ContainsFunc(seen.holds, func(h *lockspace.Hold) bool { return h.Mode == lockspace.Exclusive })
	if s := seen.stranger; s != nil {
		n++
		exclusive = exclusive || s.Mode == lockspace.Exclusive
	}
	if exclusive {
		n = -1
	}
	return append(strconv.AppendInt(nil, n, 10), '\n')
}
