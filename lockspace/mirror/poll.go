package mirror

import (
	"slices"
	"time"
)

// Waits without a thread: what they need is tried every now and then.

// poll has n looked at again. Who still waits then says so again.
func (m *Mirror) poll(n *name) {
	if n.polled {
		return
	}
	n.polled = true
	m.polls = append(m.polls, n)
	if !m.polling {
		m.polling = true
		go m.pollAll()
	}
}

// pollAll looks at those who wait for it until there is nobody.
func (m *Mirror) pollAll() {
	every := pollEvery
	if m.config.Backing.remote {
		every = pollRemoteEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for more := true; more; {
		select {
		case <-m.closed:
			return
		case <-tick.C:
		}
		more = false
		m.do(func() { more = m.pollSome() })
	}
}

// pollSome looks at some of them, those that have waited longest. It reports
// whether there are any left.
func (m *Mirror) pollSome() bool {
	batch := m.duePolls()
	for _, n := range batch {
		n.polled = false
		m.lookAt(n)
		if n.file != nil {
			m.touch(n.file)
		}
		m.config.Reconsider(n.key)
	}
	m.polling = len(m.polls) > 0
	return m.polling
}

// duePolls takes those whose turn it is out of polls.
func (m *Mirror) duePolls() (batch []*name) {
	if !m.config.Backing.remote {
		batch = append(batch, m.polls[:min(pollBatch, len(m.polls))]...)
		m.polls = append(m.polls[:0], m.polls[len(batch):]...)
		return batch
	}
	m.pollTick++
	m.polls = slices.DeleteFunc(m.polls, func(n *name) bool {
		if n.pollAt > m.pollTick || len(batch) >= pollRemoteBatch {
			return false
		}
		// Who waits for long asks more and more seldom.
		n.patience = min(max(1, 2*n.patience), maxPatience)
		n.pollAt = m.pollTick + n.patience
		batch = append(batch, n)
		return true
	})
	return batch
}
