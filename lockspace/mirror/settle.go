package mirror

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// Settled implements [lockspace.Mirror].
func (m *Mirror) Settled(k lockspace.Key, holds []*lockspace.Hold) {
	n := m.names[k]
	if n == nil {
		if len(holds) == 0 {
			return
		}
		n = m.name(k)
	}
	n.want = n.want[:0]
	before := n.holds
	n.holds = 0
	for _, h := range holds {
		if mirrored(&h.Request) {
			n.want = n.want.with(h.Range, h.Mode)
			n.uid, n.gid = h.Party.Taker.UID, h.Party.Taker.GID
			n.holds = n.holds*31 + uint64(h.ID)<<1 + uint64(h.Mode) + h.Range.First<<7 + h.Range.Last<<17
		}
	}
	if n.file != nil && n.holds != before {
		n.file.settled = m.step
	}
	if len(n.want) == 0 && n.lost != nil {
		n.lost = nil
		if n.file != nil {
			m.detach(n) // what it leads to is to be found out
		}
		m.poll(n)
	}
	if n.file != nil {
		m.touch(n.file)
	} else {
		m.lookAt(n)
	}
}

// Recorded says that the step has been recorded. It is called after every step,
// before the step's answers are given: who is told that he has given a lock back
// finds it free. From its return on, no more is locked than what is held.
func (m *Mirror) Recorded() {
	m.chooseExtras()
	m.restoring = m.restoring && m.anyMissing()
	left := 0
	for i := 0; i < len(m.dirty); i++ { // leave adds to them
		f := m.dirty[i]
		if m.restoring && f.more {
			m.regain(f, f.want())
			m.dirty[left] = f
			left++
			continue
		}
		f.dirty = false
		m.bring(f)
	}
	clear(m.dirty[left:])
	m.dirty = m.dirty[:left]
	for _, n := range m.unsure {
		n.unsure = false
		n.failed = nil
		if m.names[n.key] == n && n.file == nil && len(n.want) == 0 && n.lost == nil && !n.opening && !n.polled {
			delete(m.names, n.key)
		}
	}
	clear(m.unsure)
	m.unsure = m.unsure[:0]
	m.evict(0)
	m.step++
}

// anyMissing reports whether something is held that has no file.
func (m *Mirror) anyMissing() bool {
	for _, n := range m.names {
		if n.missing() {
			return true
		}
	}
	return false
}

// missing reports whether n is held and has no file.
func (n *name) missing() bool { return n.file == nil && len(n.want) > 0 && n.lost == nil }

// bring makes what is locked of f what is held of its names, or closes it.
func (m *Mirror) bring(f *file) {
	if f.closed {
		return
	}
	want := f.want()
	if !m.regain(f, want) {
		return // more than it should be is locked, and what is lost is to end
	}
	m.retract(f)
	changes := f.excess(want)
	// Of what is to be given back nothing counts as locked from here on: a call that
	// fails may have done it, and those before it have.
	f.have = append(f.have[:0], want...)
	for _, c := range changes {
		typ := int16(unix.F_RDLCK)
		if c.unlock {
			typ = unix.F_UNLCK
		}
		f.changes++
		if err := m.setlk(f.fd, typ, c.Range); err != nil {
			m.leave(f, len(want) > 0)
			return
		}
	}
	f.more = false
	m.consider(f)
	m.putAway(f)
}

// want returns what is held of all of f's names. It is not to be changed.
func (f *file) want() spans {
	if len(f.names) == 1 {
		return f.names[0].want
	}
	var all spans
	for _, n := range f.names {
		for _, sp := range n.want {
			all = all.with(sp.Range, sp.Mode)
		}
	}
	return all
}

// excess returns the calls that give back what f has beyond want, without memory
// where nothing is wanted.
func (f *file) excess(want spans) []change {
	if len(want) == 0 {
		if len(f.have) == 0 && !f.more {
			return nil
		}
		return unlockAll
	}
	return reduce(f.have, want, f.more)
}

var unlockAll = []change{{lockspace.Whole, true}}

// regain locks what is held of f and not locked: after the table was restored. It
// reports whether f is as it should be then, but for what is too much.
func (m *Mirror) regain(f *file, want spans) bool {
	whole, took := true, false
	for _, sp := range want {
		for _, part := range f.have.missing(sp.Range, sp.Mode) {
			err := m.take(f, part, sp.Mode)
			if err == nil {
				took = true
				continue
			}
			whole = false
			if taken(err) {
				err = ErrTaken
			}
			for _, n := range f.names {
				if n.want.overlap(part) {
					m.lose(n, err)
				}
			}
		}
	}
	if took && m.config.Text != nil && f.have.leads() {
		if eintr.Retry(func() error { return unix.Fstat(f.fd, &m.st) }) == nil {
			m.clearStale(f, m.st.Size)
		}
	}
	return whole
}

// leave deals with a lock of f that cannot be given back. With nothing held, it is
// closed, which gives everything back; otherwise it is tried again with the next
// step on it, and when the files are looked at.
func (m *Mirror) leave(f *file, held bool) {
	m.stuck++
	f.more = true
	if held || len(f.awaits) > 0 || f.pins > 0 {
		return
	}
	for len(f.names) > 0 {
		m.detach(f.names[0])
	}
	m.closeFile(f)
}
