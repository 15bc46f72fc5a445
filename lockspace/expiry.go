package lockspace

import (
	"container/heap"
	"time"
)

// What the table does when time has passed: places of absent waits lapse,
// leases run out, graces end. There are no timers in it: its user asks for the
// next time, and calls when it has come.

// event is something that happens to a lock at a time, on the clock of
// [Instant.Boot], unless it is put off or taken back: a lease runs out, or its
// grace ends.
type event struct {
	at    time.Duration
	lock  *lock
	hold  HoldID // whose lease; 0: the grace
	index int    // in the agenda
}

// agenda is a heap of events, the earliest first.
type agenda []*event

func (a agenda) Len() int           { return len(a) }
func (a agenda) Less(i, j int) bool { return a[i].at < a[j].at }

func (a agenda) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].index, a[j].index = i, j
}

// Push and Pop are for package heap.
func (a *agenda) Push(x any) {
	e := x.(*event)
	e.index = len(*a)
	*a = append(*a, e)
}

func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	return e
}

func (a *agenda) add(e *event)    { heap.Push(a, e) }
func (a *agenda) remove(e *event) { heap.Remove(a, e.index) }
func (a *agenda) fix(e *event)    { heap.Fix(a, e.index) }

// Expire does what is due: it gives up the places that have lapsed, ends the
// holds that were not renewed in time and the graces that are over, and then
// lets in who waited for that. The user calls it at the time that
// [Table.NextExpiry] tells, or later. Of leases and graces it ends expireAtOnce at
// most, so that nobody has to wait while thousands of them end, and no journal has
// to take them in one step; what is left is due at once.
func (t *Table) Expire() {
	now := t.clock.Now().Boot
	for len(t.absent) > 0 && t.absent[0].until <= now {
		t.giveUp(t.absent[0])
		t.absent = t.absent[1:]
	}
	// A grace that begins here is not due yet.
	for n := 0; n < expireAtOnce && len(t.agenda) > 0 && t.agenda[0].at <= now; n++ {
		e := t.agenda[0]
		if e.hold == 0 {
			t.endGrace(e.lock)
		} else {
			t.end(e.lock, e.lock.find(e.hold), Expired)
		}
		t.unsettle(e.lock)
	}
	t.settleRest()
}

const expireAtOnce = 128

// NextExpiry returns when [Table.Expire] has something to do next, on the
// clock of [Instant.Boot]. Any step may make it earlier or later.
func (t *Table) NextExpiry() (at time.Duration, ok bool) {
	if len(t.absent) > 0 {
		at, ok = t.absent[0].until, true
	}
	if len(t.agenda) > 0 && (!ok || t.agenda[0].at < at) {
		at, ok = t.agenda[0].at, true
	}
	return at, ok
}
