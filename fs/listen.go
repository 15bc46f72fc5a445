package fs

import (
	"errors"
	"time"

	"github.com/lockfs/lockfs/lockspace"
)

// listener counts all that happens to locks, and makes events of it while
// somebody reads them.
type listener struct{ f *FS }

// Took is an event, and a grant.
func (l listener) Took(h *lockspace.Hold, after *lockspace.Wait) {
	l.f.meter.took(l.f, h, after)
	l.f.owners.traced(h)
	if !l.f.stream.isRead() {
		return
	}
	e := l.f.lockEvent(eventTaken, &h.Request)
	e.token = h.Token
	e.waited = l.f.waited(after)
	l.f.nameTaker(e, l.f.clock.Now().Boot)
	l.f.happened(e)
}

// Left is an event, and the end of a hold.
func (l listener) Left(h *lockspace.Hold, r lockspace.Range, why lockspace.Reason) {
	held := l.f.clock.Now().Boot - h.Since.Boot
	l.f.meter.left(held, why)
	by := l.f.breaker
	l.f.breaker = lockspace.Process{}
	if !l.f.stream.isRead() {
		return
	}
	e := l.f.lockEvent(eventReleased, &h.Request)
	e.token, e.bytes, e.held = h.Token, r, held
	switch why {
	case lockspace.Broken:
		e.kind, e.by = eventBroken, by
	case lockspace.Reaped:
		e.kind = eventReaped
	case lockspace.Expired:
		e.kind = eventExpired
	case lockspace.Lost:
		e.kind = eventLost
	default:
		e.reason = why.String()
	}
	l.f.nameTaker(e, h.Since.Boot)
	l.f.happened(e)
}

// Waits is an event.
func (l listener) Waits(w *lockspace.Wait) {
	l.f.meter.waits++
	if !l.f.stream.isRead() {
		return
	}
	e := l.f.lockEvent(eventWaiting, &w.Request)
	l.f.nameTaker(e, w.Since.Boot)
	l.f.happened(e)
}

// Denied is an event if it is the end of a wait, or a deadlock.
func (l listener) Denied(r *lockspace.Request, after *lockspace.Wait, err error) {
	l.f.meter.denied(l.f, r, after, err)
	deadlock := errors.Is(err, lockspace.ErrDeadlock)
	if !l.f.stream.isRead() || after == nil && !deadlock {
		return
	}
	e := l.f.lockEvent(eventRefused, r)
	e.waited = l.f.waited(after)
	switch {
	case deadlock:
		e.kind = eventDeadlock
	case errors.Is(err, lockspace.ErrInterrupted):
		e.reason = "interrupted"
	case errors.Is(err, lockspace.ErrShutdown):
		e.reason = "shutdown"
	default:
		e.reason = "broken"
	}
	l.f.nameTaker(e, l.f.clock.Now().Boot-e.waited)
	l.f.happened(e)
}

// waited is how long a wait that ends now has lasted.
func (f *FS) waited(w *lockspace.Wait) time.Duration {
	if w == nil {
		return 0
	}
	return f.clock.Now().Boot - w.Since.Boot
}

// lockEvent returns an event about a request.
func (f *FS) lockEvent(kind eventKind, r *lockspace.Request) *event {
	return &event{
		kind: kind, via: r.Via, mode: r.Mode, path: f.path(r.Key), at: f.clock.Now().Time(),
		taker: r.Party.Taker, opener: r.Party.Opener.Pid, bytes: r.Range, audience: f.audienceOf(r.Key.Dir),
	}
}

var _ lockspace.Listener = listener{}
