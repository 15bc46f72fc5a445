package agent

import (
	"time"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// call is something that the agent is asked and answers.
type call struct {
	ask   message
	since time.Time
	name  *name // of a COVER
	// done is closed when reply is there.
	done  chan struct{}
	reply *message
	names []string // of a LOCKED, so far
	// left: whoever waited for it does not any more. taken: a COVER's answer has been
	// taken in. outdated: it may be about another file.
	left, taken, outdated bool
}

// end is its answer. With the client's mu held.
func (c *call) end(reply *message) {
	if c.reply == nil {
		c.reply = reply
		close(c.done)
	}
}

// newCall makes a call. With mu held.
func (c *Client) newCall(ask message) *call {
	c.last++
	ask.seq = c.last
	return &call{ask: ask, since: time.Now(), done: make(chan struct{})}
}

// send has a call be sent. With mu held.
func (c *Client) send(call *call) {
	if c.closed {
		call.end(&message{outcome: outcomeFailed, failure: failureOf(errClosed)})
		return
	}
	call.since = time.Now()
	c.calls[call.ask.seq] = call
	c.put(item{call: call})
}

// isOverrun reports whether who would wait for some seconds only need not begin: the
// agent is known not to answer, or so much was asked already that nobody waits for any
// more. So there is an end to what is kept of it. With mu held.
func (c *Client) isOverrun() bool { return c.hung || len(c.calls) > mostLeft && c.left() > mostLeft }

// left counts the calls for whose answers nobody waits. With mu held.
func (c *Client) left() (n int) {
	for _, call := range c.calls {
		if call.left {
			n++
		}
	}
	return n
}

// await waits for an answer for as long as limit says, 0 for ever, or until gone is
// closed.
func (c *Client) await(call *call, limit time.Duration, gone <-chan struct{}) {
	var late <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case <-call.done:
	case <-late:
	case <-gone:
	}
}

// Preparation is what is being covered, as a [mirror.Preparation] is a file that is
// being opened.
type Preparation struct {
	client *Client
	call   *call
	unsent bool
	err    error
}

// Prepare begins what Cover answered [lockspace.ErrLookup] to for r.
func (c *Client) Prepare(r *lockspace.Request) *Preparation {
	path, err := c.config.Path(r.Key)
	p := &Preparation{client: c, err: err}
	if err != nil {
		return p
	}
	publish, opening := c.config.Publish(r.Key), c.config.Opening(r.Key)
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.name(r.Key)
	n.setOpening(opening)
	n.path, n.uid, n.gid = path, r.Party.Taker.UID, r.Party.Taker.GID
	// What was asked already by somebody who did not wait for it comes in handy: so
	// there is no end of them while the agent does not answer.
	for _, call := range n.open {
		if call.left && call.reply == nil && !call.outdated && call.ask.span == (span{r.Range, r.Mode}) && call.ask.opening() == opening {
			call.left, call.since = false, time.Now()
			p.call = call
			return p
		}
	}
	p.call = c.newCall(message{
		kind: kindCover, key: r.Key, path: path, uid: n.uid, gid: n.gid, span: span{r.Range, r.Mode}, publish: publish,
		name: openingMessage(opening),
	})
	p.call.name, p.unsent = n, true
	n.open[p.call.ask.seq] = p.call
	return p
}

// Run asks, and waits for the answer, outside of steps: for as long as limit says at
// most, 0: however long it takes; and until gone is closed.
func (p *Preparation) Run(limit time.Duration, gone <-chan struct{}) {
	if p.err != nil {
		return
	}
	c := p.client
	c.mu.Lock()
	over := limit > 0 && c.isOverrun()
	switch {
	case p.unsent && over:
		p.call.end(&message{outcome: outcomeFailed, failure: failureOf(ErrNoAnswer)})
	case p.unsent && p.call.outdated:
		p.call.end(&message{}) // who wants it asks again, where it is now
	case p.unsent:
		c.send(p.call)
	}
	c.mu.Unlock()
	if !over {
		c.await(p.call, limit, gone)
	}
}

// Adopt takes in what it has come to, in a step. Then Cover can be asked again, in the
// same step. Errors: [ErrNoAnswer]; what Config.Path returned; the agent's, as those of
// [mirror.Mirror.Adopt] and [mirror.Mirror.Cover].
func (p *Preparation) Adopt() error {
	if p.err != nil {
		return p.err
	}
	c := p.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.call.reply == nil {
		p.call.left = true
		return ErrNoAnswer
	}
	return c.takeIn(p.call)
}

// takeIn takes in the answer to a COVER, within a step. With mu held.
func (c *Client) takeIn(call *call) error {
	n, s := call.name, call.ask.span
	call.taken = true
	c.touch(n)
	if call.outdated {
		return nil // whoever wants it asks again
	}
	switch call.reply.outcome {
	case outcomeForeign:
		n.answers = append(n.answers, refusal{s, lockspace.ErrForeign})
	case outcomeFailed:
		return call.reply.failure.err()
	case outcomeOK:
		n.have.Add(s.Range, s.Mode)
	}
	return nil
}

// ask asks the agent something, on a detour, and waits for as long as limit says.
// Errors: [ErrNoAnswer], the agent's.
func (c *Client) ask(m message, limit time.Duration) (*call, error) {
	c.mu.Lock()
	if c.isOverrun() {
		c.mu.Unlock()
		return nil, ErrNoAnswer
	}
	call := c.newCall(m)
	c.send(call)
	c.mu.Unlock()
	c.await(call, limit, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if call.reply == nil {
		call.left = true
		return call, ErrNoAnswer
	}
	if call.reply.outcome == outcomeFailed {
		return call, call.reply.failure.err()
	}
	return call, nil
}

// ProbeFor returns who outside is in the way of r, whose lock is at path, as
// [mirror.Mirror.ProbeFor]. On detours, for as long as limit says.
func (c *Client) ProbeFor(path string, r *lockspace.Request, limit time.Duration) (f mirror.Foreign, found bool, err error) {
	call, err := c.ask(message{
		kind: kindProbe, key: r.Key, path: path, span: span{r.Range, r.Mode},
		uid: r.Party.Taker.UID, gid: r.Party.Taker.GID,
	}, limit)
	if err != nil || !call.reply.found {
		return f, false, err
	}
	m := call.reply
	return mirror.Foreign{Mode: m.span.Mode, Range: m.span.Range, Pid: int(m.pid)}, true, nil
}

// Locked returns the names that are locked in a directory, as
// [mirror.Backing.Locked]. On detours, for as long as limit says.
func (c *Client) Locked(dir string, limit time.Duration) ([]string, error) {
	call, err := c.ask(message{kind: kindLocked, path: dir}, limit)
	if err != nil {
		return nil, err
	}
	return call.names, nil
}

// Published returns what somebody has published of the lock at a path, as
// [mirror.Backing.Published]. On detours, for as long as limit says.
func (c *Client) Published(path string, limit time.Duration) ([]byte, error) {
	call, err := c.ask(message{kind: kindPublished, path: path}, limit)
	if err != nil || len(call.names) == 0 {
		return nil, err
	}
	return []byte(call.names[0]), nil
}

// Leads reports whether nobody outside can have published anything for k, as
// [mirror.Mirror.Leads].
func (c *Client) Leads(k lockspace.Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.names[k]
	return n != nil && n.have.Has(lockspace.Range{}, lockspace.Exclusive)
}

// Ready waits until it is known that the agent can use its directory, and returns why
// it cannot, or [ErrNoAnswer] after limit. Not in steps.
func (c *Client) Ready(limit time.Duration) error {
	select {
	case <-c.ready:
	case <-time.After(limit):
		return ErrNoAnswer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// settleReady says that it is known. With mu held.
func (c *Client) settleReady(why error) {
	c.failure = why
	select {
	case <-c.ready:
	default:
		close(c.ready)
	}
}

// Wrong says what is wrong with the agent or its directory, for people; "" if nothing
// is.
func (c *Client) Wrong() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failure != nil:
		return "the mirror of " + c.config.Name + " cannot be used: " + c.failure.Error()
	case c.hung:
		return "the mirror of " + c.config.Name + " does not answer"
	}
	return ""
}

// watch asks the agent for a sign of life every now and then, and says if it gives
// none.
func (c *Client) watch() {
	var ping *call
	var asked time.Time
	for range time.Tick(lookEvery) {
		now := time.Now()
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return
		}
		if ping == nil && c.socket != nil && now.Sub(asked) >= pingEvery {
			ping, asked = c.newCall(message{kind: kindPing}), now
			c.send(ping)
		}
		if ping != nil && ping.reply != nil {
			if ping.reply.kind == kindReply {
				c.stats = ping.reply.stats
				c.settleReady(ping.reply.failure.err())
			}
			ping = nil
		}
		oldest := now
		for _, call := range c.calls {
			if !call.left && call.since.Before(oldest) {
				oldest = call.since
			}
		}
		if ping != nil && ping.since.Before(oldest) {
			oldest = ping.since
		}
		hung := now.Sub(oldest) > hungAfter
		was := c.hung
		c.hung = hung
		c.mu.Unlock()
		switch {
		case hung && !was:
			c.config.Log.Error("the mirror does not answer: who wants a lock there waits", "mirror", c.config.Name)
		case was && !hung:
			c.config.Log.Info("the mirror answers again", "mirror", c.config.Name)
		}
	}
}
