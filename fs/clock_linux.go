package fs

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// SystemClock is the [lockspace.Clock] of a running system. It is used within
// steps only.
//
// The time since boot is not among the clocks that Go reads without a system
// call, so it is derived from the monotonic clock, which runs alike except
// that it stands still while the machine is suspended; the difference is
// measured anew when it is a second old. Within a second after a suspension
// times may come out too early. They are compared with the start of processes,
// where too early is the safe side: a process may be taken for another, not
// another for it.
type SystemClock struct {
	measured time.Time     // with the monotonic clock's reading
	boot     time.Duration // since boot, at measured or before
	last     time.Duration
}

// Now reads both clocks. The time since boot never goes back.
func (c *SystemClock) Now() lockspace.Instant {
	now := time.Now()
	if since := now.Sub(c.measured); since > time.Second || since < 0 {
		now = c.measure()
	}
	c.last = max(c.last, c.boot+now.Sub(c.measured))
	return lockspace.Instant{Wall: now.UnixNano(), Boot: c.last}
}

// measure reads both clocks together and returns the time at which it did.
//
// The one since boot is read first, so that it comes out too early by the time between
// the two, if the process had to wait there: then what was to last until a time, as a
// grace does, would end early in the next process, which has not. So it is tried again
// until that is short.
func (c *SystemClock) measure() time.Time {
	const tries, short = 10, 20 * time.Microsecond
	for i, least := 0, time.Duration(0); i < tries; i++ {
		before := time.Now()
		var ts unix.Timespec
		// Cannot fail: the clock exists since Linux 2.6.39.
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
		after := time.Now()
		if took := after.Sub(before); i == 0 || took < least {
			least, c.measured, c.boot = took, after, time.Duration(ts.Nano())
		}
		if least <= short {
			break
		}
	}
	return c.measured
}

// stepClock stands still within a step: one request happens at one time, and
// the clock is read once, if at all.
type stepClock struct {
	clock lockspace.Clock
	now   lockspace.Instant
	read  bool
}

// Now returns the time of this step.
func (c *stepClock) Now() lockspace.Instant {
	if !c.read {
		c.now, c.read = c.clock.Now(), true
	}
	return c.now
}

// stop ends the step.
func (c *stepClock) stop() { c.read = false }

var _ lockspace.Clock = (*SystemClock)(nil)
