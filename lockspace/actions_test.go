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

// Request tries for a lock or waits for it.
func (m *machine) Request(*rapid.T) {
	r := m.request()
	if !m.alive(&r) {
		return
	}
	id := m.newWait()
	if m.lazy && rapid.Bool().Draw(m.t, "unknown class") {
		m.world.procs.unknown[r.Thread] = true
	}
	if rapid.IntRange(0, 2).Draw(m.t, "try") == 0 {
		id = 0
	}
	m.insist(&r, id)
}

// Restart is a call that the kernel makes again after an interruption, as a
// rule by the same process.
func (m *machine) Restart(*rapid.T) {
	var absent []*standing
	for _, k := range m.keys {
		for _, s := range m.model.lock(k).queue {
			if s.until != 0 && m.alive(&s.r) {
				absent = append(absent, s)
			}
		}
	}
	if len(absent) == 0 {
		return
	}
	r := rapid.SampledFrom(absent).Draw(m.t, "restarted").r
	m.insist(&r, m.newWait())
}

func (m *machine) newWait() WaitID {
	m.waits++
	return m.waits
}

// insist asks until the answer is not ErrLookup.
func (m *machine) insist(r *Request, id WaitID) {
	for range 8 {
		if m.ask(r, id) {
			return
		}
		// ErrLookup: answer what was asked.
		if r.anonymous() {
			r.Party.Taker.Started = m.started[r.Party.Taker.Pid]
		}
		m.world.procs.lookUp()
	}
	m.t.Fatalf("ErrLookup without end for %v", *r)
}

// ask makes one request, and reports whether it was answered.
func (m *machine) ask(r *Request, id WaitID) bool {
	lookUp, want := m.expect(r, id)
	var granted bool
	var err error
	if id == 0 {
		err = m.world.Try(*r)
		granted = err == nil
	} else {
		granted, err = m.world.Acquire(*r, id)
	}
	if errors.Is(err, ErrLookup) {
		if lookUp == no {
			m.t.Fatalf("ErrLookup for %v, for no reason", *r)
		}
		return false
	}
	if lookUp == yes {
		m.t.Fatalf("%v, %v for %v, which must be looked up", granted, err, *r)
	}
	if !errors.Is(err, want) {
		m.t.Fatalf("%v for %v; want %v", err, *r, want)
	}
	if err != nil {
		m.follow(direct{})
		return true
	}
	l := m.model.lock(r.Key)
	s := &standing{id: id, r: *r, since: m.world.clock.now}
	at := len(l.queue)
	if i := m.resumed(l, r); i >= 0 {
		at = i
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	free, _ := m.model.mayGo(l, r, l.queue[:at])
	if free != granted {
		m.t.Fatalf("granted %v, and may go %v: %v", granted, free, *r)
	}
	if granted {
		m.model.grant(l, r)
		m.follow(direct{})
		return true
	}
	l.queue = slices.Insert(l.queue, at, s)
	var ended []*claim
	if r.Via == ViaFlock {
		// A conversion that waits loses what it converts.
		ended = m.model.remove(l, cellsOf(Whole), func(c *claim) bool { return own(c, r) })
	}
	m.follow(direct{ended: ended})
	return true
}

// resumed returns the index of the place that r comes back to, or -1.
func (m *machine) resumed(l *modelLock, r *Request) int {
	return slices.IndexFunc(l.queue, func(s *standing) bool {
		return m.world.clock.now.Boot < s.until && s.r.Via == r.Via && s.r.Mode == r.Mode && s.r.Range == r.Range &&
			s.r.Party.Handle == r.Party.Handle && s.r.Party.Owner == r.Party.Owner
	})
}

// expect returns the error that r must get, and whether it may (doubt) or must
// (yes) get ErrLookup instead.
func (m *machine) expect(r *Request, id WaitID) (lookUp answer, want error) {
	l := m.model.lock(r.Key)
	if r.Via == ViaExcl && len(l.claims) > 0 {
		return no, ErrHeld
	}
	behind := l.queue
	if i := m.resumed(l, r); i >= 0 {
		behind = l.queue[:i]
	}
	free, sure := m.model.mayGo(l, r, behind)
	if !sure {
		lookUp = doubt
		if kept, _ := m.model.inTheWay(l, r); kept != yes && id == 0 {
			// Only a look-up can tell; unless somebody before it settles it.
			lookUp = m.undecided(l, r, behind)
		}
	}
	switch {
	case free:
		return lookUp, nil
	case id == 0:
		return lookUp, ErrHeld
	}
	if r.anonymous() {
		lookUp = max(lookUp, doubt) // who waits where idioms mix must be known
	}
	switch {
	case m.model.inCycle(r, m.posix(false)):
		return lookUp, ErrDeadlock
	case m.model.inCycle(r, m.posix(true)):
		return yes, nil
	case len(m.world.procs.unknown) > 0 && m.model.inCycle(r, func(*Request) bool { return true }):
		return doubt, nil // it asks for all who are near a cycle
	}
	return lookUp, nil
}

// undecided is yes if the answer for r, which holds keep out if anything does,
// depends on a look-up.
func (m *machine) undecided(l *modelLock, r *Request, behind []*standing) answer {
	known := *r
	known.Party.Taker.Started = 1 // as old as can be: of every process that it may be of
	freeIfOld, _ := m.model.mayGo(l, &known, behind)
	known.Party.Taker.Started = 1 << 62
	freeIfNew, _ := m.model.mayGo(l, &known, behind)
	if freeIfOld != freeIfNew {
		return yes
	}
	return doubt
}

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
