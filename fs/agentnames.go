package fs

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Names that agents make: what is done with them without anybody waiting for it, and who
// waits for that.

// removedLater has an agent remove x, which is going, and reports whether it is for one to
// do. In Committed.
func (f *FS) removedLater(x *made) bool {
	o := f.madeAt(x)
	if o == nil { // it was gone once, and its place with it
		f.removedName(x)
		return true
	}
	later := o.later()
	if later == nil || x.asked {
		return x.asked
	}
	x.asked = true
	f.made.leaving[x] = true
	later.RemoveLater(x.Key, x.Outside, x.Kind == regular, func(err error) {
		f.doWhenBegun(func() { f.answeredRemoval(x, err) })
	})
	return true
}

// answeredRemoval takes in that x has been removed by an agent, or aside, or why it has not.
func (f *FS) answeredRemoval(x *made, err error) {
	x.asked = false
	delete(f.made.leaving, x)
	if err != nil {
		f.failed(x, "the name of a lock stays in the backing directory", err)
	} else {
		f.removedName(x)
		if x.Place != f.mirrorOf(x.Key.Dir) {
			f.mirror.leaveUnused()
		}
	}
	if x.leaving != nil {
		close(x.leaving)
		x.leaving = nil
	}
}

// awaitRemoved returns what waits, on a detour, until x has been removed, which is in the
// way, by an agent or aside.
func (f *FS) awaitRemoved(x *made) func(*facts) {
	if x.leaving == nil {
		x.leaving = make(chan struct{})
	}
	if !x.asked {
		f.made.ends = append(f.made.ends, x)
	}
	left := x.leaving
	return func(found *facts) {
		timer := time.NewTimer(makeTime)
		defer timer.Stop()
		late := false
		select {
		case <-left:
		case <-timer.C:
			late = true
		}
		found.takeIn = func() {
			switch {
			case x.State != nameGoing:
			case late || x.err == nil:
				found.notRemoved(x, unix.ETIMEDOUT)
			default:
				found.notRemoved(x, x.err)
			}
		}
	}
}

// writtenLater has an agent write what a file is to x, and reports whether it is for one to
// do. In Committed.
func (f *FS) writtenLater(x *made, to *file) bool {
	later := f.madeAt(x).later()
	if later == nil {
		return false
	}
	if x.writing {
		x.again = true
		return true
	}
	x.writing, x.again = true, false
	later.WriteLater(x.Outside, stateOf(to), func(err error) {
		f.doWhenBegun(func() {
			again := x.again
			x.writing, x.again = false, false
			switch {
			case x.State != nameThere:
			case again:
				f.made.writes = append(f.made.writes, x)
			default:
				f.wroteOutside(x, err)
			}
		})
	})
	return true
}

// resumeByAgents has agents remove what the process before had yet to have removed: before
// they are told what is held, so that it stays locked until then.
func (f *FS) resumeByAgents() {
	for _, x := range f.made.ends {
		f.removedLater(x)
	}
}

// LeaveNames has agents leave what is held by its name as it is to be found by the next
// mount, with kept, or else remove it: of a mount that ends. It waits for them for some
// seconds, and for what they have yet to remove. Not within a step.
func (f *FS) LeaveNames(kept bool) {
	if f.mirror == nil {
		return
	}
	var all sync.WaitGroup
	f.dev.Do(func() {
		for x := range f.made.leaving {
			all.Add(1)
			if x.leaving == nil {
				x.leaving = make(chan struct{})
			}
			left := x.leaving
			go func() { <-left; all.Done() }()
		}
		for _, x := range f.made.byKey {
			later := f.madeAt(x).later()
			if later == nil || x.State != nameThere {
				continue
			}
			all.Add(1)
			done := func(err error) {
				if err != nil && !errors.Is(err, unix.ESTALE) {
					f.log.Error("the name of a lock is not left in the backing directory as it should be", "path", x.Outside.Path, "err", err)
				}
				all.Done()
			}
			if kept {
				later.MarkLater(x.Outside, mirror.ToKeep, done)
			} else {
				later.RemoveLater(x.Key, x.Outside, x.Kind == regular, done)
			}
		}
	})
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(makeTime):
		f.log.Error("a backing directory does not answer: names of locks stay there")
	}
}
