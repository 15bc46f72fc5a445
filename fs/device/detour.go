package device

import (
	"time"

	"golang.org/x/sys/unix"
)

// Requests that go away for a while to find something out, and come back to be carried
// out again. See turn.go for who comes back in which order.

// detour is a request that is away, or about to leave.
type detour struct {
	unique uint64
	look   func() any
	found  any // what look returned
	long   bool
	aside  bool
	gone   chan struct{} // of one aside: closed when it has ended
	// ended: it was interrupted and has been answered. Nobody waits for it.
	ended bool
	// turn is the line that it stands in, nil for none, and waits says that look has
	// returned and others have not come back.
	turn  any
	waits bool
	Traveller
}

// Detour has look called outside of any step, and the request of the present
// step carried out again with what it returned. The request's method returns
// [Parked] and must not have changed anything that would be changed twice. place
// is a number that the request has when it comes back, also if the process dies
// meanwhile; what was found is lost then.
func (c *Conn) Detour(unique, place uint64, look func() any) {
	c.detour = &detour{unique: unique, look: look, Traveller: Traveller{Place: place}}
}

// LongDetour is [Conn.Detour] for a request that changes nothing and whose look
// may take seconds. It stands in a line of its own, where it keeps nobody else
// waiting, and an interrupt ends it in a second, with EINTR.
func (c *Conn) LongDetour(unique uint64, look func() any) {
	c.detour = &detour{unique: unique, look: look, long: true}
}

// Aside is [Conn.Detour] for a look that may hang for as long as something outside
// does: it stands in no line, costs no thread while it waits, and an interrupt ends the
// request soon, with EINTR. Then gone is closed, what look returns comes to [Filesystem]
// Recall, and the request is not carried out again.
func (c *Conn) Aside(unique, place uint64, look func(gone <-chan struct{}) any) {
	gone := make(chan struct{})
	c.detour = &detour{
		unique: unique, look: func() any { return look(gone) }, aside: true, gone: gone, Traveller: Traveller{Place: place},
	}
}

// Away returns how many requests are on a detour. Only within a step.
func (c *Conn) Away() int { return len(c.detours) }

// depart sends the request of this step on its detour. from is where it has
// been: nowhere yet, or on another detour.
func (c *Conn) depart(h header, from *detour) {
	d := c.detour
	c.detour = nil
	d.Request, d.Interrupted = from.Request, from.Interrupted
	if from.look == nil || d.Place != from.Place {
		c.ledger.Away(d.unique, d.Traveller)
	}
	c.takeTurn(d, from)
	c.detours[d.unique] = d
	if d.mayEnd() && d.Interrupted {
		c.endLater(d)
	}
	if d.aside {
		go func() {
			c.crash("away", h.opcode)
			d.found = d.look()
			c.arrive(d)
		}()
		return
	}
	line := c.lookups
	switch {
	case d.long:
		line = c.long
	case locksDirectory(h.opcode):
		line = c.urgent
	}
	go func() {
		line <- struct{}{}
		defer func() { <-line }()
		c.crash("away", h.opcode)
		d.found = d.look()
		c.arrive(d)
	}()
}

// arrive carries out a request that comes back from its detour.
func (c *Conn) arrive(d *detour) {
	c.mu.Lock()
	if c.awaitsTurn(d) {
		if !d.Interrupted {
			d.waits = true
			c.mu.Unlock()
			return
		}
		c.end(d)
	}
	if d.ended {
		c.takeIn(d)
		c.endStep(nil, false, 0)
		c.mu.Unlock()
		return
	}
	delete(c.detours, d.unique)
	h, _ := parseHeader(d.Request)
	c.crash("back", h.opcode)
	c.fs.Recall(d.found, d.Place)
	done := c.request(h, d.Request)
	c.fs.Recall(nil, 0)
	if !done {
		c.depart(h, d)
	} else {
		c.back(d)
		if d.Interrupted {
			// The interrupt came while it was away. If it is answered by now,
			// this does nothing.
			c.fs.Interrupt(h.unique)
		}
	}
	c.endStep(nil, false, h.opcode)
	c.checkSettled()
	c.mu.Unlock()
}

// back takes a request off the list of those on a detour: it is answered.
func (c *Conn) back(d *detour) {
	c.leaveTurn(d)
	delete(c.detours, d.unique)
	delete(c.inherited, d.unique)
	c.ledger.Back(d.unique)
}

// OnSettled has settled called when all requests are answered that were away
// when this process took over: at once if none is left. To be called after
// Resume.
func (c *Conn) OnSettled(settled func()) {
	c.mu.Lock()
	c.settled = settled
	c.checkSettled()
	c.mu.Unlock()
}

func (c *Conn) checkSettled() {
	if c.settled != nil && len(c.inherited) == 0 {
		c.settled()
		c.settled = nil
	}
}

// interrupt ends the wait of a request, or has it end when it comes back from
// its detour. A request that is not known has been answered.
func (c *Conn) interrupt(unique uint64) {
	if d := c.detours[unique]; d != nil {
		d.Interrupted = true
		c.ledger.Away(unique, d.Traveller)
		switch {
		case d.waits:
			c.end(d)
			c.takeIn(d)
		case d.mayEnd():
			c.endLater(d)
		}
		return
	}
	c.fs.Interrupt(unique)
}

// mayEnd reports whether the request can be ended while it is away.
func (d *detour) mayEnd() bool { return d.long || d.aside }

// endLater ends the detour of a request that was interrupted with EINTR, if it
// takes much longer.
func (c *Conn) endLater(d *detour) {
	after := interruptTime
	if h, _ := parseHeader(d.Request); d.aside && h.opcode == opSetlkw {
		after = waitTime
	}
	time.AfterFunc(after, func() {
		c.Do(func() {
			if c.detours[d.unique] == d {
				c.end(d)
			}
		})
	})
}

// end ends the detour of a request with EINTR.
func (c *Conn) end(d *detour) {
	d.ended = true
	if d.gone != nil {
		close(d.gone)
	}
	c.back(d)
	c.Answer(d.unique, unix.EINTR)
	c.checkSettled()
}

// takeIn has the filesystem hear what a detour found whose request has ended.
func (c *Conn) takeIn(d *detour) {
	c.fs.Recall(d.found, 0)
	c.fs.Recall(nil, 0)
}

// interruptTime is how long an interrupted request may still take. The kernel tells
// of every signal, of those too that end nothing, and no program expects that the
// reading of a file fails for one.
const interruptTime = time.Second

// waitTime is that of one who waits for a lock, of whom everybody knows that a signal
// may end it.
const waitTime = 100 * time.Millisecond
