package agent

import (
	"cmp"
	"slices"
	"sync"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Client is the mirror of a table that an agent has. Like that of a [mirror.Mirror]
// its methods are called in the table's steps, but where another thing is said; none
// of them waits for anything.
//
// Its law: have of a name is what the agent is known to have locked, and keeps until
// it is told otherwise. The table grants nothing beyond it, and the agent is told only
// of steps that were recorded. mu is for moments; the steps of the table may be waited
// for while it is not held, and never while it is.
type Client struct {
	config Config

	mu    sync.Mutex
	some  sync.Cond // there is something to be sent, or no more reason to wait for it
	names map[lockspace.Key]*name
	// touched are those of this step.
	touched []*name
	last    uint64 // number given out
	calls   map[uint64]*call
	queue   []item
	socket  *Socket // nil: there is none at present
	epoch   uint64
	closed  bool

	// ready is closed when it is known whether the agent can use the directory, and
	// failure is why it cannot, or why there is no agent.
	ready   chan struct{}
	failure error
	hung    bool
	stats   mirror.Stats

	// known are the temporary names of what was made, and not removed, with their paths,
	// and foreign the paths of directories that others have made.
	known   map[string]string
	foreign map[string]bool
}

var _ lockspace.Mirror = (*Client)(nil)

// name is a lock of which the agent knows, or is about to.
type name struct {
	key      lockspace.Key
	path     string
	uid, gid uint32
	// want is what is held, as of the last Settled, and held that of the last step
	// that was recorded.
	want, held mirror.Ranges
	// who tells who has want from others, and heldBy who has held.
	who, heldBy uint64
	publish     bool
	have        mirror.Ranges
	// opening is how its file is opened, and removing is what is being removed of what
	// has held its name: until that is gone it stays locked.
	opening  mirror.Opening
	removing []*mirror.MadeName
	// awaits are as of the last Settled; said those since then.
	awaits []numbered
	said   []span
	// open are the COVERs, and awaits that came true, that no recorded step has taken
	// in.
	open map[uint64]*call
	// answers are the refusals that this step has been told.
	answers []refusal
	lost    error
	touched bool
	// changed: the agent is to hear of it. queued: it is on its way.
	changed, queued bool
}

// refusal is why something is not covered.
type refusal struct {
	span
	err error
}

// New returns a client for a table that it has not heard of yet. Then come
// [Table.Mirrored] and Begin.
func New(c Config) *Client {
	client := &Client{
		config: c, names: make(map[lockspace.Key]*name), calls: make(map[uint64]*call), ready: make(chan struct{}),
		known: make(map[string]string), foreign: make(map[string]bool),
	}
	client.some.L = &client.mu
	return client
}

// Begin begins to talk to the agent, when the table has told all that is held. It is
// called once, within a step or before the first.
func (c *Client) Begin() {
	c.Recorded()
	go c.run()
	go c.watch()
}

// Close ends it. It gives nothing back: that is for the agent, when the last copy of
// its line is closed.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if c.socket != nil {
		c.socket.Close()
	}
	c.settleReady(errClosed)
	for _, call := range c.calls {
		call.end(&message{outcome: outcomeFailed, failure: failureOf(errClosed)})
	}
	clear(c.calls)
	c.some.Broadcast()
}

// name returns the name of k, making it if there is none. With mu held.
func (c *Client) name(k lockspace.Key) *name {
	n := c.names[k]
	if n == nil {
		n = &name{key: k, open: make(map[uint64]*call)}
		c.names[k] = n
	}
	return n
}

// touch has Recorded look at n. With mu held.
func (c *Client) touch(n *name) {
	if !n.touched {
		n.touched = true
		c.touched = append(c.touched, n)
	}
}

// Cover implements [lockspace.Mirror]. ErrLookup: somebody makes a [Preparation], as
// for a [mirror.Mirror].
func (c *Client) Cover(r *lockspace.Request) error {
	if r.Via == lockspace.ViaMkdir {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.names[r.Key]
	switch {
	case n == nil:
		return lockspace.ErrLookup
	case n.lost != nil:
		return lockspace.ErrForeign
	case n.have.Has(r.Range, r.Mode):
		c.touch(n)
		return nil
	}
	for _, a := range n.answers {
		// Who is refused a part is refused the whole.
		if r.Mode >= a.Mode && r.Range.Covers(a.Range) {
			return a.err
		}
	}
	return lockspace.ErrLookup
}

// Await implements [lockspace.Mirror].
func (c *Client) Await(r *lockspace.Request) {
	if r.Via == lockspace.ViaMkdir {
		return
	}
	path, err := c.config.Path(r.Key)
	opening := c.config.Opening(r.Key)
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.name(r.Key)
	n.setOpening(opening)
	c.touch(n)
	if err != nil {
		c.refuseLater(n, span{r.Range, r.Mode}, err)
		return
	}
	n.path, n.uid, n.gid = path, r.Party.Taker.UID, r.Party.Taker.GID
	if s := (span{r.Range, r.Mode}); !slices.Contains(n.said, s) {
		n.said = append(n.said, s)
	}
}

// refuseLater refuses who waits for something, in a step of its own: this one cannot.
func (c *Client) refuseLater(n *name, s span, why error) {
	go c.config.Do(func() {
		c.mu.Lock()
		n := c.name(n.key)
		c.touch(n)
		n.answers = append(n.answers, refusal{s, why})
		c.mu.Unlock()
		c.config.Reconsider(n.key)
	})
}

// Settled implements [lockspace.Mirror].
func (c *Client) Settled(k lockspace.Key, holds []*lockspace.Hold) {
	c.mu.Lock()
	n := c.names[k]
	c.mu.Unlock()
	if n == nil && len(holds) == 0 {
		return
	}
	var want mirror.Ranges
	var uid, gid uint32
	var who uint64
	if len(holds) > 1 { // in order, since there may be thousands
		holds = slices.SortedFunc(slices.Values(holds), func(a, b *lockspace.Hold) int { return cmp.Compare(a.Range.First, b.Range.First) })
	}
	for _, h := range holds {
		if h.Via != lockspace.ViaMkdir {
			want.Add(h.Range, h.Mode)
			uid, gid = h.Party.Taker.UID, h.Party.Taker.GID
			who = who*31 + uint64(h.ID)<<1 + uint64(h.Mode)
		}
	}
	if n == nil && want.Empty() {
		return
	}
	publish := !want.Empty() && c.config.Publish(k)
	opening := c.config.Opening(k)
	path := ""
	if n == nil || n.path == "" {
		path, _ = c.config.Path(k) // what has none is lost, by the agent's word
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n = c.name(k)
	c.touch(n)
	if path != "" {
		n.path = path
	}
	if !want.Empty() {
		n.setOpening(opening)
		n.uid, n.gid = uid, gid
	} else if n.lost != nil {
		n.lost, n.changed = nil, true
	}
	n.want, n.who, n.publish = want, who, publish
	c.setAwaits(n)
}

// setAwaits makes what was said since the last Settled what is awaited.
func (c *Client) setAwaits(n *name) {
	var awaits []numbered
	for _, s := range n.said {
		i := slices.IndexFunc(n.awaits, func(a numbered) bool { return a.span == s })
		if i >= 0 {
			awaits = append(awaits, n.awaits[i])
			continue
		}
		c.last++
		awaits = append(awaits, numbered{c.last, s})
	}
	n.said = n.said[:0]
	n.changed = n.changed || !slices.Equal(awaits, n.awaits)
	n.awaits = awaits
}

// Recorded says that the step has been recorded, as for a [mirror.Mirror].
func (c *Client) Recorded() {
	if len(c.touched) == 0 { // only steps write to it
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.touched {
		n.touched = false
		n.answers = nil
		if !n.want.Equal(&n.held) || n.who != n.heldBy {
			n.held, n.heldBy, n.changed = n.want.Clone(), n.who, true
		}
		for seq, call := range n.open {
			if call.taken {
				delete(n.open, seq)
				n.changed = true
			}
		}
		// What is held was covered, unless the agent has ended meanwhile.
		var have mirror.Ranges
		for r, m := range n.want.All() {
			if n.have.Has(r, m) {
				have.Add(r, m)
			}
		}
		n.have = have
		c.tell(n)
	}
	clear(c.touched)
	c.touched = c.touched[:0]
}

// tell has the agent be told of n, if there is something new, and forgets it if there
// is nothing.
func (c *Client) tell(n *name) {
	switch {
	case n.changed && !n.queued:
		n.queued = true
		c.put(item{name: n})
	case !n.changed && n.isIdle() && c.names[n.key] == n:
		delete(c.names, n.key)
	}
}

func (n *name) isIdle() bool {
	return !n.touched && !n.queued && n.lost == nil && n.want.Empty() && n.held.Empty() && len(n.awaits) == 0 && len(n.open) == 0 &&
		len(n.removing) == 0
}

// setOpening says how the file is opened from now on.
func (n *name) setOpening(o mirror.Opening) {
	n.changed = n.changed || n.opening != o && !n.held.Empty()
	n.opening = o
}

// Renamed says that paths lead to other files than before. What is being covered is
// covered anew.
func (c *Client) Renamed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.names {
		if path, err := c.config.Path(n.key); err == nil {
			n.path = path
		}
		for _, call := range n.open {
			call.outdated = true
		}
	}
	c.put(item{renamed: true})
}

// Stats returns what the agent has said last.
func (c *Client) Stats() mirror.Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}
