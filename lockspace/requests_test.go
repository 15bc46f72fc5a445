package lockspace

import (
	"errors"
	"slices"

	"pgregory.net/rapid"
)

// The actions of TestModel that ask for locks, and what must come of it.

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
	if m.fails(&r, id) || m.ask(&r, id) {
		return
	}
	if id != 0 && rapid.Bool().Draw(m.t, "detour") {
		// It is looked up while others go on, and keeps its place.
		m.model.place++
		r.Reserved = m.world.table.Reserve()
		if r.Reserved != m.model.place {
			m.t.Fatalf("the place %d was reserved, want %d", r.Reserved, m.model.place)
		}
		m.detours = append(m.detours, r)
		return
	}
	m.lookUp(&r)
	m.insist(&r, id)
}

// Return is the end of a detour.
func (m *machine) Return(*rapid.T) {
	if len(m.detours) == 0 {
		return
	}
	r := m.detours[0]
	m.detours = m.detours[1:]
	open := slices.ContainsFunc(m.files, func(p *Party) bool { return p.Handle == r.Party.Handle })
	if open && m.alive(&r) {
		m.lookUp(&r)
		m.insist(&r, m.newWait())
	}
}

// lookUp answers what ErrLookup asked for.
func (m *machine) lookUp(r *Request) {
	if r.anonymous() {
		r.Party.Taker.Started = m.started[r.Party.Taker.Pid]
	}
	m.world.procs.lookUp()
	if m.world.mirror != nil {
		delete(m.world.mirror.closed, r.Key)
		m.world.Reconsider(r.Key)
		m.follow(direct{})
	}
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
		m.lookUp(r)
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
	place, before := m.place(l, r)
	if i := m.resumed(l, r); i >= 0 {
		l.queue = slices.Delete(l.queue, i, i+1)
	}
	free, _ := m.model.mayGo(l, r, l.queue[:before])
	if free != granted {
		m.t.Fatalf("granted %v, and may go %v: %v", granted, free, *r)
	}
	// A call that is not refused is a sign of life.
	m.model.renew(r.Key, false, func(c *claim) bool { return m.model.oneParty(&c.r, c.since, r) == yes })
	if granted {
		m.model.grant(l, r)
		m.follow(direct{})
		return true
	}
	m.model.place = max(m.model.place, place)
	s := &standing{id: id, place: place, r: *r, since: m.world.clock.now}
	s.r.Reserved = 0
	l.queue = slices.Insert(l.queue, before, s)
	var ended []*claim
	if r.Via == ViaFlock {
		// A conversion that waits loses what it converts.
		ended = m.model.remove(l, cellsOf(Whole), func(c *claim) bool { return own(c, r) })
	}
	m.follow(direct{ended: ended})
	return true
}

// place returns the place at which r arrives, and how many stand before it.
func (m *machine) place(l *modelLock, r *Request) (place uint64, before int) {
	place = m.model.place + 1
	if r.Reserved != 0 {
		place = r.Reserved
	}
	if i := m.resumed(l, r); i >= 0 {
		place = min(place, l.queue[i].place)
	}
	for before < len(l.queue) && l.queue[before].place < place {
		before++
	}
	return place, before
}

// resumed returns the index of the place that r comes back to, or -1.
func (m *machine) resumed(l *modelLock, r *Request) int {
	return slices.IndexFunc(l.queue, func(s *standing) bool {
		if m.world.clock.now.Boot >= s.until || s.r.Via != r.Via || s.r.Mode != r.Mode || s.r.Range != r.Range {
			return false
		}
		if r.Via == ViaOpen { // the file that is to be opened is another one
			return s.r.Thread == r.Thread && s.r.Party.Taker.Pid == r.Party.Taker.Pid
		}
		return s.r.Party.Handle == r.Party.Handle && s.r.Party.Owner == r.Party.Owner
	})
}

// expect returns the error that r must get, and whether it may (doubt) or must
// (yes) get ErrLookup instead.
func (m *machine) expect(r *Request, id WaitID) (lookUp answer, want error) {
	l := m.model.lock(r.Key)
	if r.Via.makes() && len(l.claims) > 0 {
		return no, ErrHeld
	}
	if l.grace != 0 && !hasAlready(l, r) && (id == 0 || r.Via.makes()) {
		return no, ErrGrace
	}
	_, before := m.place(l, r)
	behind := l.queue[:before]
	free, sure := m.model.mayGo(l, r, behind)
	if m.model.closed(r.Key) {
		inside, certain := m.model.mayGoInside(l, r, behind)
		switch {
		case inside && certain:
			return yes, nil
		case inside || !certain:
			lookUp = doubt
		}
		free, sure = inside, certain
	}
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
	case id == 0 || r.Via.makes():
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

// fails makes a request of which the mirror fails, if it would be asked about it,
// now and then. It reports whether it did.
func (m *machine) fails(r *Request, id WaitID) bool {
	mirror := m.world.mirror
	if mirror == nil || rapid.IntRange(0, 9).Draw(m.t, "fails") > 0 {
		return false
	}
	if lookUp, want := m.expect(r, id); lookUp != no || want != nil || m.model.keptOutside(r) {
		return false
	}
	l := m.model.lock(r.Key)
	_, before := m.place(l, r)
	if free, sure := m.model.mayGo(l, r, l.queue[:before]); !free || !sure {
		return false
	}
	asked := *r
	asked.complete()
	mirror.broken = func(o *Request) bool { return *o == asked }
	var err error
	if id == 0 {
		err = m.world.Try(*r)
	} else {
		_, err = m.world.Acquire(*r, id)
	}
	mirror.broken = nil
	if !errors.Is(err, errOutside) {
		m.t.Fatalf("%v for %v, of which the mirror fails", err, *r)
	}
	m.follow(direct{})
	return true
}
