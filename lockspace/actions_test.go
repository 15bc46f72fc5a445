package lockspace

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// The actions of TestModel: every method of Table, and what processes and
// daemons do. rapid calls the exported methods at random.

// Check is called after every action; follow has compared everything already.
func (m *machine) Check(*rapid.T) {}

func (m *machine) Unlock(*rapid.T) {
	r := m.request()
	l := m.model.lock(r.Key)
	var ended []*claim
	if r.Via == ViaFcntl {
		// The kernel does not say who unlocks: the number on the file decides.
		r.Party.Taker = Process{}
		ended = m.model.remove(l, cellsOf(r.Range), func(c *claim) bool {
			return c.r.Via == ViaFcntl && c.r.Party.Owner == r.Party.Owner && c.r.Party.File == r.Party.File
		})
	} else {
		ended = m.model.remove(l, cellsOf(Whole), func(c *claim) bool { return own(c, &r) })
	}
	m.world.Unlock(r.Key, r.Party, r.Via, r.Range)
	m.follow(direct{ended: ended})
}

func (m *machine) Flush(*rapid.T) {
	if m.spared() {
		return
	}
	r := m.request()
	owner := 100 + uint64(r.Party.Taker.Pid)
	ended := m.model.remove(m.model.lock(r.Key), cellsOf(Whole), func(c *claim) bool {
		return c.r.Via == ViaFcntl && c.r.Party.Owner == owner && c.r.Party.File == r.Party.File
	})
	m.world.Flush(r.Key, r.Party.File, owner)
	m.follow(direct{ended: ended})
}

// Close is a RELEASE; the slot is another file then.
func (m *machine) Close(*rapid.T) {
	if m.spared() {
		return
	}
	i := rapid.IntRange(0, len(m.files)-1).Draw(m.t, "file")
	handle := m.files[i].Handle
	k := m.keyOf[handle]
	l := m.model.lock(k)
	d := direct{err: ErrBroken}
	d.ended = m.model.remove(l, cellsOf(Whole), func(c *claim) bool { return c.r.Party.Handle == handle })
	d.refused = m.leave(l, func(s *standing) bool { return s.r.Party.Handle == handle })
	m.world.CloseHandle(k, handle)
	m.follow(d)
	m.open(i)
}

// leave takes waits out of a queue, and returns the present ones.
func (m *machine) leave(l *modelLock, which func(*standing) bool) (present []*standing) {
	l.queue = slices.DeleteFunc(l.queue, func(s *standing) bool {
		if which(s) && s.until == 0 {
			present = append(present, s)
		}
		return which(s)
	})
	return present
}

// Break is an unlink: the holds of one process are released, others broken.
func (m *machine) Break(*rapid.T) {
	if m.spared() {
		return
	}
	k := rapid.SampledFrom(m.keys).Draw(m.t, "key")
	by := rapid.Uint32Range(0, 4).Draw(m.t, "by")
	l := m.model.lock(k)
	d := direct{err: ErrBroken, reason: func(c *claim) Reason {
		if c.r.Party.Taker.Pid == by {
			return Released
		}
		return Broken
	}}
	d.ended = m.model.remove(l, cellsOf(Whole), func(*claim) bool { return true })
	d.refused = m.leave(l, func(s *standing) bool {
		return slices.ContainsFunc(d.ended, func(c *claim) bool {
			return c.r.Party.Handle == s.r.Party.Handle && d.reason(c) == Broken
		})
	})
	m.world.End(k, func(h *Hold) Reason { return d.reason(&claim{r: h.Request}) })
	m.follow(d)
}

func (m *machine) Cancel(*rapid.T) {
	var present []*standing
	for _, k := range m.keys {
		for _, s := range m.model.lock(k).queue {
			if s.until == 0 {
				present = append(present, s)
			}
		}
	}
	if len(present) > 0 {
		m.cancel(rapid.SampledFrom(present).Draw(m.t, "wait"))
	}
	if m.world.Cancel(m.waits + 1) {
		m.t.Fatalf("cancelled what does not wait")
	}
}

func (m *machine) cancel(s *standing) {
	if !m.world.Cancel(s.id) {
		m.t.Fatalf("wait %d was not there to be cancelled", s.id)
	}
	s.until = m.world.clock.now.Boot + ResumeGrace
	m.follow(direct{})
}

// Time passes, and places lapse; but Expire may be late.
func (m *machine) Time(*rapid.T) {
	m.world.clock.advance(time.Duration(rapid.IntRange(0, 700).Draw(m.t, "ms")) * time.Millisecond)
	if rapid.Bool().Draw(m.t, "expire") {
		m.world.Expire()
		for _, l := range m.model.locks {
			m.leave(l, func(s *standing) bool { return s.until != 0 && s.until <= m.world.clock.now.Boot })
		}
	}
	next, ok := m.world.table.NextExpiry()
	for _, l := range m.model.locks {
		for _, s := range l.queue {
			if s.until != 0 && (!ok || next > s.until) {
				m.t.Fatalf("NextExpiry is %v, %v; wait %d ends at %v", next, ok, s.id, s.until)
			}
		}
	}
	m.follow(direct{})
}

func (m *machine) Test(*rapid.T) {
	r := m.request()
	l := m.model.lock(r.Key)
	h, found, err := m.world.Test(r)
	kept, sure := m.model.inTheWay(l, &r)
	switch {
	case errors.Is(err, ErrLookup) && !sure:
	case err != nil || found != (kept == yes) || !found && !sure:
		m.t.Fatalf("Test found %v, %v; in the model %v, %v", found, err, kept, sure)
	case found && !slices.ContainsFunc(l.claims, func(c *claim) bool {
		return c.token == h.Token && c.has == cellsOf(h.Range) && m.model.conflict(&c.r, c.has, c.since, &r) == yes
	}):
		m.t.Fatalf("Test found %v, which is not in the way", h)
	}
	m.follow(direct{})
}

func (m *machine) Edges(*rapid.T) {
	var got, want []string
	m.world.table.Edges(func(e Edge) bool {
		if e.Hold != nil {
			got = append(got, fmt.Sprint(e.Wait.ID, " for ", e.Hold.Token, cellsOf(e.Hold.Range)))
		} else {
			got = append(got, fmt.Sprint(e.Wait.ID, " behind ", e.Before.ID))
		}
		return true
	})
	for _, l := range m.model.locks {
		for i, s := range l.queue {
			if s.until != 0 {
				continue
			}
			for _, c := range l.claims {
				if m.model.conflict(&c.r, c.has, c.since, &s.r) != no {
					want = append(want, fmt.Sprint(s.id, " for ", c.token, c.has))
				}
			}
			for _, o := range l.queue[:i] {
				if o.until == 0 && m.model.conflict(&o.r, cellsOf(o.r.Range), o.since, &s.r) != no {
					want = append(want, fmt.Sprint(s.id, " behind ", o.id))
				}
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Fatalf("edges are %q, in the model %q", got, want)
	}
}

// Die ends a process: its waits first, then all who may gain from its death.
// Whether its files are closed is another matter. Or its number comes back.
func (m *machine) Die(*rapid.T) {
	if m.spared() {
		return
	}
	pid := rapid.Uint32Range(1, 4).Draw(m.t, "pid")
	if m.world.procs.dead[pid] {
		delete(m.world.procs.dead, pid)
		m.started[pid] = m.world.clock.now.Boot
		m.follow(direct{})
		return
	}
	for _, k := range m.keys {
		for _, s := range slices.Clone(m.model.lock(k).queue) {
			if s.r.Party.Taker.Pid == pid && s.until == 0 && slices.Contains(m.model.lock(k).queue, s) {
				m.cancel(s)
			}
		}
	}
	m.world.died(pid)
	m.follow(direct{})
}

// Crash makes a new table from the journal.
func (m *machine) Crash(*rapid.T) {
	m.world.crash()
	m.follow(direct{})
	// Requests on a detour come anew.
	m.detours, m.model.place = nil, 0
	for _, l := range m.model.locks {
		for _, s := range l.queue {
			m.model.place = max(m.model.place, s.place)
		}
	}
}

func (m *machine) Shutdown(*rapid.T) {
	if rapid.IntRange(0, 19).Draw(m.t, "shutdown") != 0 {
		return
	}
	d := direct{err: ErrShutdown}
	for _, l := range m.model.locks {
		d.refused = append(d.refused, m.leave(l, func(*standing) bool { return true })...)
	}
	m.world.Shutdown()
	m.follow(d)
}
