package agent

import (
	"sync"

	"github.com/lockfs/lockfs/lockspace"
)

// inbox is what an agent has been told and has not carried out yet. It is always
// taken in, whatever hangs; what there is of it depends on how many requests and
// locks the worker has, and not on for how long it hangs.
type inbox struct {
	mu    sync.Mutex
	some  sync.Cond
	queue []*message
	// states are the STATEs in the queue, by lock, parts what has come of the next.
	states map[lockspace.Key]*message
	parts  []entry
}

func newInbox() *inbox {
	b := &inbox{states: make(map[lockspace.Key]*message)}
	b.some.L = &b.mu
	return b
}

// put adds a message. A STATE takes the place of one that is there: since it names
// what it does not know yet, it may overtake what is between them. A HELLO is the
// first of all: what an epoch that is over had asked for is of no use.
func (b *inbox) put(m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch m.kind {
	case kindHello:
		b.queue, b.parts = nil, nil
		clear(b.states)
	case kindState:
		b.parts = append(b.parts, m.entries...)
		if m.more {
			return
		}
		m.entries, b.parts = b.parts, nil
		if old := b.states[m.key]; old != nil {
			*old = *m
			return
		}
		b.states[m.key] = m
	}
	b.queue = append(b.queue, m)
	b.some.Signal()
}

// take waits for a message.
func (b *inbox) take() *message {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.queue) == 0 {
		b.some.Wait()
	}
	m := b.queue[0]
	b.queue = b.queue[1:]
	if m.kind == kindState {
		delete(b.states, m.key)
	}
	return m
}

// outbox is what an agent has to say, so that nobody waits for a worker to read it.
type outbox struct {
	mu    sync.Mutex
	some  sync.Cond
	queue []*message
}

func newOutbox() *outbox {
	b := new(outbox)
	b.some.L = &b.mu
	return b
}

func (b *outbox) put(m *message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.kind == kindWelcome { // nobody listens to what is before it
		b.queue = nil
	}
	b.queue = append(b.queue, m)
	b.some.Signal()
}

// send sends what there is, and what comes, until the other end is closed.
func (b *outbox) send(to *Socket) {
	var packet []byte
	for {
		b.mu.Lock()
		for len(b.queue) == 0 {
			b.some.Wait()
		}
		m := b.queue[0]
		b.queue = b.queue[1:]
		b.mu.Unlock()
		packet = m.append(packet[:0])
		if to.send(packet) != nil {
			return
		}
	}
}
