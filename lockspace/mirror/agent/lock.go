package agent

import (
	"errors"
	"slices"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// lock is what an agent knows of a lock. It is there while there is something to
// know.
type lock struct {
	key      lockspace.Key
	path     string
	uid, gid uint32
	// held is as of the last STATE, and before what was locked when the epoch began.
	held, before mirror.Ranges
	pins, awaits []numbered
	// covering is how many COVERs are under way.
	covering int
	// lost is why what is held of it is not locked, until nothing is held any more.
	lost    error
	changed bool
	// who tells those who hold it from others, and publish says that they are published.
	who     uint64
	publish bool
	opening mirror.Opening
}

// numbered is a pin, or an await.
type numbered struct {
	seq uint64
	span
}

// beginEpoch keeps what is locked as a whole.
func (l *lock) beginEpoch() {
	l.before = l.wanted()
	l.held.Clear()
	l.pins, l.awaits = nil, nil
}

// wanted is all that is to be locked.
func (l *lock) wanted() mirror.Ranges {
	w := l.held.Clone()
	for r, m := range l.before.All() {
		w.Add(r, m)
	}
	for _, p := range l.pins {
		w.Add(p.Range, p.Mode)
	}
	return w
}

// request is what is asked of the mirror for a part of it.
func (l *lock) request(s span) *lockspace.Request {
	r := &lockspace.Request{Key: l.key, Mode: s.Mode, Range: s.Range, Via: lockspace.ViaFcntl}
	r.Party.Taker.UID, r.Party.Taker.GID = l.uid, l.gid
	return r
}

// lock returns the lock that a message is about, with what that says of it.
func (s *server) lock(m *message) *lock {
	l := s.locks[m.key]
	if l == nil {
		l = &lock{key: m.key}
		s.locks[m.key] = l
	}
	if l.path != m.path && s.mirror != nil {
		s.mirror.Moved(m.key) // RENAMED may have been before what was asked with the old one
	}
	l.path, l.uid, l.gid = m.path, m.uid, m.gid
	s.change(l)
	return l
}

// change has the mirror hear of l when the step ends.
func (s *server) change(l *lock) {
	if !l.changed {
		l.changed = true
		s.changed = append(s.changed, l)
	}
}

// settle tells the mirror what is wanted of the locks that have changed, and forgets
// those of which there is nothing.
func (s *server) settle() {
	for _, l := range s.changed {
		l.changed = false
		wanted := l.wanted()
		var holds []*lockspace.Hold
		for r, m := range wanted.All() {
			holds = append(holds, &lockspace.Hold{ID: lockspace.HoldID(l.who), Request: *l.request(span{r, m})})
		}
		if s.mirror != nil {
			s.mirror.Settled(l.key, holds)
		}
		if len(holds) > 0 {
			continue
		}
		l.lost = nil
		if len(l.awaits) == 0 && l.covering == 0 {
			delete(s.locks, l.key)
		}
	}
	clear(s.changed)
	s.changed = s.changed[:0]
}

// state makes what a STATE says what is.
func (s *server) state(m *message) {
	l := s.lock(m)
	l.who, l.publish, l.opening = m.who, m.publish, m.opening()
	if len(m.entries) > 0 {
		s.adoptMade(l)
	}
	held := mirror.Ranges{}
	awaits := []numbered(nil)
	open := make(map[uint64]bool)
	for _, e := range m.entries {
		switch e.what {
		case entryHeld:
			held.Add(e.span.Range, e.span.Mode)
		case entryAwait:
			open[e.seq] = true
			if !slices.ContainsFunc(l.pins, func(p numbered) bool { return p.seq == e.seq }) {
				awaits = append(awaits, numbered{e.seq, e.span})
			}
		case entryOpen:
			open[e.seq] = true
		}
	}
	// First who gets something, then who gives it back.
	l.awaits = awaits
	s.tryAwaits(l)
	l.held = held
	l.pins = slices.DeleteFunc(l.pins, func(p numbered) bool { return p.seq <= m.seq && !open[p.seq] })
}

// tryAwaits pins what is awaited and can be had by now.
func (s *server) tryAwaits(l *lock) {
	if s.mirror == nil || len(l.awaits) == 0 {
		return
	}
	s.change(l)
	left := l.awaits[:0]
	for _, a := range l.awaits {
		got := &message{kind: kindGot, epoch: s.epoch, key: l.key, seq: a.seq}
		switch err := s.mirror.Cover(l.request(a.span)); {
		case err == nil:
			l.pins = append(l.pins, a)
		case errors.Is(err, lockspace.ErrForeign), errors.Is(err, lockspace.ErrLookup):
			s.mirror.Await(l.request(a.span))
			left = append(left, a)
			continue
		default:
			got.outcome, got.failure = outcomeFailed, failureOf(err)
		}
		s.out.put(got)
	}
	l.awaits = left
}

// cover is a COVER under way.
type cover struct {
	*message
	opens int
	// renames is the server's when it was begun with.
	renames int
	next    *mirror.Preparation // nil: it is answered
	begun   bool
}

// cover carries on with a COVER, and answers it if it can be.
func (s *server) cover(c *cover) {
	c.next = nil
	if c.epoch != s.epoch {
		s.endCover(c)
		return
	}
	l := s.locks[c.key]
	if !c.begun {
		l = s.lock(c.message)
		l.publish, l.opening = c.publish, c.opening()
		s.adoptMade(l)
		c.begun, c.renames = true, s.renames
		l.covering++
	}
	s.change(l)
	out := new(message)
	switch err := s.mirror.Cover(l.request(c.span)); {
	case err == nil:
		l.pins = append(l.pins, numbered{c.seq, c.span})
	case errors.Is(err, lockspace.ErrForeign):
		out.outcome = outcomeForeign
	case !errors.Is(err, lockspace.ErrLookup):
		out.outcome, out.failure = outcomeFailed, failureOf(err)
	case c.opens >= mirror.MaxOpens:
		out.outcome, out.failure = outcomeFailed, failureOf(mirror.ErrUnsteady)
	default:
		c.opens++
		c.next = s.mirror.Prepare(l.request(c.span))
		return
	}
	s.endCover(c)
	s.reply(c.message, out)
}

// errRenamed is the answer to a COVER in whose time directories were renamed.
var errRenamed = errors.New("a directory was renamed meanwhile")

// endCover is the end of a COVER.
func (s *server) endCover(c *cover) {
	if !c.begun {
		return
	}
	c.begun = false
	if l := s.locks[c.key]; l != nil {
		l.covering--
		s.change(l)
	}
}

// goOn opens what a COVER needs, and carries on with it.
func (s *server) goOn(c *cover) {
	if c.next == nil {
		return
	}
	s.aside(func() {
		for p := c.next; p != nil; p = c.next {
			p.Run()
			s.step(func() {
				err := s.mirror.Adopt(p)
				if c.renames != s.renames {
					// What was opened may be another's file by now. The worker knows, and
					// asks again.
					s.mirror.Renamed()
					err = errRenamed
				}
				if err != nil {
					c.next = nil
					s.endCover(c)
					out := &message{outcome: outcomeFailed, failure: failureOf(err)}
					if errors.Is(err, lockspace.ErrForeign) { // who has made the name
						out = &message{outcome: outcomeForeign}
					}
					s.reply(c.message, out)
					return
				}
				s.cover(c)
			})
		}
	})
}
