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
		var ts unix.Timespec
		// Cannot fail: the clock exists since Linux 2.6.39. Read first, so
		// that what happens between the two readings makes it too early.
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
		now = time.Now()
		c.measured, c.boot = now, time.Duration(ts.Nano())
	}
	c.last = max(c.last, c.boot+now.Sub(c.measured))
	return lockspace.Instant{Wall: now.UnixNano(), Boot: c.last}
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
