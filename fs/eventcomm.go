package fs

import (
	"time"
)

// The comm of who is in a line of events. Nobody waits for it: /proc is looked at on a
// goroutine of its own, some processes at a time, while a line waits for its readers,
// who are woken a little later anyway ([streamDelay]). What is not known when the line
// is written stays empty: of a process that ended before, or if there is more to look
// at than there is time for. While nobody reads events, nobody is looked at.
//
// What was found is remembered for what the same process does next, and for the end of
// what it holds, when it is often gone. It is the same process if it had started by the
// time when it asked for the lock, and was looked at after that. (So one that has
// become another program by execve(2) since is looked at again.)

const (
	// commsAtOnce is how many processes are looked at before a pause.
	commsAtOnce = 16
	commPause   = 10 * time.Millisecond
	// maxUnnamed is how many lines may wait for it, and maxComms how many processes
	// are remembered.
	maxUnnamed = 1024
	maxComms   = 4096
)

// comms is what is known, and to be found out, about the processes in lines.
type comms struct {
	known   map[uint32]seenComm
	unnamed []*event
	looking bool
}

// seenComm is what was found of a process that had started, and lived at a time
// (both since boot).
type seenComm struct {
	comm          string
	started, seen time.Duration
}

// of returns the comm of the process that had a number at a time; ok is false if it is
// not known.
func (c *comms) of(pid uint32, at time.Duration) (comm string, ok bool) {
	k, ok := c.known[pid]
	if !ok || k.started > at || k.seen < at {
		return "", false
	}
	return k.comm, true
}

// nameTaker sees to the comm in a line about a lock that is asked for, or was, at a
// time since boot.
func (f *FS) nameTaker(e *event, asked time.Duration) {
	c := &f.stream.comms
	if e.taker.Pid == 0 {
		return
	}
	if comm, ok := c.of(e.taker.Pid, asked); ok {
		e.comm = comm
		return
	}
	if len(c.unnamed) >= maxUnnamed {
		return
	}
	e.asked = asked
	c.unnamed = append(c.unnamed, e)
	if !c.looking {
		c.looking = true
		go f.lookAtTakers()
	}
}

// lookAtTakers looks at processes until there is none to be looked at.
func (f *FS) lookAtTakers() {
	for {
		pids := make([]uint32, 0, commsAtOnce)
		var now time.Duration
		f.dev.Do(func() {
			now = f.clock.Now().Boot
			pids = f.stream.comms.next(pids)
		})
		if len(pids) == 0 {
			return
		}
		found := make(map[uint32]seenComm, len(pids))
		for _, pid := range pids {
			if info, ok := f.procs.Look(pid); ok && !info.Gone && info.Pid == pid {
				found[pid] = seenComm{info.Comm, info.Started, now}
			}
		}
		f.dev.Do(func() { f.stream.comms.found(pids, found) })
		time.Sleep(commPause)
	}
}

// next adds the processes that are to be looked at next. If there are none, nobody is
// looking any more.
func (c *comms) next(pids []uint32) []uint32 {
	in := make(map[uint32]bool, commsAtOnce)
	for _, e := range c.unnamed {
		if len(in) == commsAtOnce {
			break
		}
		if pid := e.taker.Pid; !in[pid] {
			in[pid] = true
			pids = append(pids, pid)
		}
	}
	c.looking = len(pids) > 0
	return pids
}

// found takes in what was found of processes that were looked at, and names them in the
// lines that wait for it. It is too late for those that are written.
func (c *comms) found(pids []uint32, found map[uint32]seenComm) {
	if c.known == nil || len(c.known)+len(found) > maxComms {
		c.known = make(map[uint32]seenComm)
	}
	looked := make(map[uint32]bool, len(pids))
	for _, pid := range pids {
		looked[pid] = true
		delete(c.known, pid)
		if k, ok := found[pid]; ok {
			c.known[pid] = k
		}
	}
	later := c.unnamed[:0]
	for _, e := range c.unnamed {
		if comm, ok := c.of(e.taker.Pid, e.asked); ok && e.line == nil {
			e.comm = comm
		} else if !looked[e.taker.Pid] {
			later = append(later, e)
		}
	}
	clear(c.unnamed[len(later):])
	c.unnamed = later
}

// forget forgets all, since nobody reads any more.
func (c *comms) forget() { c.known, c.unnamed = nil, nil }
