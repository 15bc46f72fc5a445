package mirror

import "time"

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
	tick := time.NewTicker(pollEvery)
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
	most := pollBatch
	if m.config.Backing.remote {
		most = pollRemote
	}
	batch := append([]*name(nil), m.polls[:min(most, len(m.polls))]...)
	m.polls = append(m.polls[:0], m.polls[len(batch):]...)
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
