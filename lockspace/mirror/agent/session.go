package agent

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// A session is what a client has to do with one line to an agent, from HELLO to the
// end of it.

// item is something to be sent: one of these.
type item struct {
	name    *name
	call    *call
	renamed bool
	text    *message
}

// put has something be sent. With mu held. A Renamed twice in a row is one.
func (c *Client) put(i item) {
	if n := len(c.queue); i.renamed && n > 0 && c.queue[n-1].renamed {
		return
	}
	c.queue = append(c.queue, i)
	c.some.Signal()
}

// run has sessions, one after the other.
func (c *Client) run() {
	again, wait := false, againAfter
	for {
		began := time.Now()
		socket, err := c.config.Connect(again)
		connected := err == nil
		if connected {
			err = c.session(socket)
			again = true
		}
		c.mu.Lock()
		closed := c.closed
		if !connected {
			c.settleReady(err)
			c.failAll(err)
		}
		c.mu.Unlock()
		if closed {
			return
		}
		c.config.Log.Error("a mirror's process is not there, and is started", "mirror", c.config.Name, "why", err)
		if wait = min(2*wait, againMost); time.Since(began) > againMost {
			wait = againAfter
		}
		time.Sleep(wait)
	}
}

// failAll answers what is asked, when there is no agent: nobody waits for what may
// never come. With mu held.
func (c *Client) failAll(why error) {
	for seq, call := range c.calls {
		call.end(&message{outcome: outcomeFailed, failure: failureOf(why)})
		delete(c.calls, seq)
	}
	c.queue = nil // the next agent is told everything
	for _, n := range c.names {
		n.queued, n.changed = false, false
		c.tell(n)
	}
}

// errEnded: the agent has.
var errEnded = errors.New("it has ended")

// errVersion: it is of another version.
var errVersion = errors.New("it speaks another language")

// session talks to an agent until its end, or that of the client.
func (c *Client) session(socket *Socket) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		socket.Close()
		return errClosed
	}
	c.socket = socket
	c.epoch = rand.Uint64()
	all := c.beginSession()
	epoch := c.epoch
	c.mu.Unlock()

	var sending sync.WaitGroup
	sending.Go(func() { c.sendAll(socket, epoch) })
	err := c.listen(socket, epoch, all)
	c.mu.Lock()
	c.endSession()
	c.mu.Unlock()
	socket.Close()
	sending.Wait()
	return err
}

// beginSession fills the queue with what an agent has to hear that knows of nothing:
// what is held, ALL, and what it is asked. With mu held. It returns the call that ALL
// is.
func (c *Client) beginSession() *call {
	c.queue = nil
	c.putKnown()
	for _, n := range c.names {
		n.queued = true
		c.put(item{name: n})
	}
	asked := slices.Sorted(maps.Keys(c.calls))
	all := c.newCall(message{kind: kindAll})
	c.send(all)
	for _, seq := range asked {
		c.put(item{call: c.calls[seq]})
	}
	return all
}

// endSession forgets what was known of an agent. With mu held.
func (c *Client) endSession() {
	c.socket = nil
	for seq, call := range c.calls {
		if k := call.ask.kind; k == kindAll || k == kindPing {
			call.end(&message{outcome: outcomeGone})
			delete(c.calls, seq)
		}
		call.names = nil
	}
	for _, n := range c.names {
		n.have.Clear()
		n.outdate(&message{outcome: outcomeGone})
	}
	c.some.Broadcast()
}

// outdate replaces the answers that have come and have not been taken in, if they
// promise something.
func (n *name) outdate(by *message) {
	for _, call := range n.open {
		if call.reply != nil && !call.taken && call.reply.outcome == outcomeOK {
			call.reply = by
		}
	}
}

// sendAll sends what there is, and what comes, until the end of the session.
func (c *Client) sendAll(socket *Socket, epoch uint64) {
	hello := message{kind: kindHello, epoch: epoch, seq: version, path: c.config.Mount}
	packet := hello.append(nil)
	if socket.send(packet) != nil {
		return
	}
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && c.socket == socket {
			c.some.Wait()
		}
		if c.socket != socket {
			c.mu.Unlock()
			return
		}
		i := c.queue[0]
		c.queue = c.queue[1:]
		m := c.messageOf(i)
		c.mu.Unlock()
		for rest := m.entries; ; {
			m.entries = rest[:min(len(rest), mostEntries)]
			rest = rest[len(m.entries):]
			m.epoch, m.more = epoch, len(rest) > 0
			packet = m.append(packet[:0])
			if socket.send(packet) != nil {
				return
			}
			if len(rest) == 0 {
				break
			}
		}
	}
}

// messageOf makes the message for what is to be sent, as things are. With mu held.
func (c *Client) messageOf(i item) message {
	switch {
	case i.renamed:
		return message{kind: kindRenamed}
	case i.text != nil:
		return *i.text
	case i.call != nil:
		return i.call.ask
	}
	n := i.name
	n.queued, n.changed = false, false
	m := message{kind: kindState, key: n.key, path: n.path, uid: n.uid, gid: n.gid, seq: c.last, who: n.heldBy, publish: n.publish}
	opening := n.opening
	if n.held.Empty() && len(n.removing) > 0 {
		opening = mirror.Opening{Way: mirror.OpenMade, Known: *n.removing[0]}
		m.entries = append(m.entries, entry{what: entryHeld, span: span{lockspace.Whole, lockspace.Exclusive}})
	}
	m.name = openingMessage(opening)
	for r, mode := range n.held.All() {
		m.entries = append(m.entries, entry{what: entryHeld, span: span{r, mode}})
	}
	for _, a := range n.awaits {
		m.entries = append(m.entries, entry{entryAwait, a.seq, a.span})
	}
	for seq := range n.open {
		m.entries = append(m.entries, entry{what: entryOpen, seq: seq})
	}
	c.tell(n)
	return m
}

// listen does what the agent says. It returns why it does not any more.
func (c *Client) listen(socket *Socket, epoch uint64, all *call) error {
	buffer := make([]byte, packetMax)
	for welcome := false; ; {
		packet, err := socket.receive(buffer)
		if err != nil {
			return errEnded
		}
		m, ok := parse(packet)
		switch {
		case ok && m.epoch != epoch: // it was for somebody before us
		case ok && m.kind == kindWelcome && m.seq != version:
			return errVersion
		case ok && m.kind == kindWelcome:
			welcome = true
		case ok && welcome && m.kind == kindReply:
			c.replied(&m, all)
		case ok && welcome && m.kind == kindGot:
			c.config.Do(func() { c.got(&m) })
		case ok && welcome && m.kind == kindLost:
			c.isLost(&m)
		case ok && welcome && m.kind == kindWho:
			c.tellWho(&m)
		default:
			c.config.Log.Error("a message of a mirror's process is not understood", "mirror", c.config.Name, "length", len(packet))
		}
	}
}

// replied passes an answer on.
func (c *Client) replied(m *message, all *call) {
	c.mu.Lock()
	call := c.calls[m.seq]
	if call == nil {
		c.mu.Unlock()
		return
	}
	call.names = append(call.names, m.names...)
	if m.more {
		c.mu.Unlock()
		return
	}
	delete(c.calls, m.seq)
	call.end(m)
	if call == all {
		c.settleReady(m.failure.err())
	}
	left := call.left
	c.mu.Unlock()
	switch {
	case call == all && m.outcome == outcomeOK:
		c.config.Do(c.synced)
	case left && call.name != nil:
		// Nobody takes it in; so that it is given back:
		c.config.Do(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			_ = c.takeIn(call)
		})
	}
}

// synced says that the agent has what is held, and what it has not is lost. Within a
// step.
func (c *Client) synced() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.names {
		if n.lost == nil {
			for r, m := range n.want.All() {
				n.have.Add(r, m)
			}
		}
	}
}

// got takes in what somebody has awaited, who gets it now. Within a step.
func (c *Client) got(m *message) {
	c.mu.Lock()
	n := c.names[m.key]
	i := -1
	if n != nil {
		i = slices.IndexFunc(n.awaits, func(a numbered) bool { return a.seq == m.seq })
	}
	if i < 0 { // nobody wants it any more, and the agent knows by what it was told
		c.mu.Unlock()
		return
	}
	a := n.awaits[i]
	n.awaits = slices.Delete(slices.Clone(n.awaits), i, i+1)
	n.open[a.seq] = &call{name: n, taken: true}
	c.touch(n)
	if m.outcome == outcomeOK {
		n.have.Add(a.Range, a.Mode)
	} else {
		n.answers = append(n.answers, refusal{a.span, m.failure.err()})
	}
	c.mu.Unlock()
	c.config.Reconsider(m.key)
}

// tellWho answers what is to be published about a lock: nothing, if others hold it by
// now.
func (c *Client) tellWho(ask *message) {
	go func() {
		var text func() []byte
		c.config.Do(func() {
			c.mu.Lock()
			n := c.names[ask.key]
			same := n != nil && n.heldBy == ask.who && n.who == ask.who
			c.mu.Unlock()
			if same {
				text = c.config.Text(ask.key)
			}
		})
		answer := &message{kind: kindText, seq: ask.seq}
		if text != nil {
			answer.names = []string{string(text())}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.socket != nil && c.epoch == ask.epoch {
			c.put(item{text: answer})
		}
	}()
}

// isLost takes in that what is held of a lock, or has been promised, is not locked.
func (c *Client) isLost(m *message) {
	c.mu.Lock()
	if n := c.names[m.key]; n != nil {
		n.outdate(&message{outcome: outcomeFailed, failure: m.failure})
	}
	c.mu.Unlock()
	c.config.Do(func() {
		c.mu.Lock()
		n := c.names[m.key]
		if n == nil || n.lost != nil || n.want.Empty() {
			c.mu.Unlock()
			return
		}
		n.lost = m.failure.err()
		n.have.Clear()
		c.touch(n)
		why := n.lost
		c.mu.Unlock()
		c.config.Lost(m.key, why)
	})
}
