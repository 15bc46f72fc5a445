package fs

import "time"

// How often something is done, at most.

// rate is how often something may be done: every so often, and burst times at
// once after a rest.
type rate struct {
	every time.Duration
	burst int
}

// limiter keeps to a rate. The zero limiter has rested.
type limiter struct {
	// due is when all that was done would have been done at even intervals.
	due time.Duration
}

// ready reports whether it may be done now.
func (l *limiter) ready(r rate, now time.Duration) bool {
	return l.due-now <= time.Duration(r.burst-1)*r.every
}

// allow is ready, and counts it as done if so.
func (l *limiter) allow(r rate, now time.Duration) bool {
	if !l.ready(r, now) {
		return false
	}
	l.due = max(l.due, now) + r.every
	return true
}
