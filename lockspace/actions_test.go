package lockspace

import (
	"cmp"
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
	m.model.renew(r.Key, false, func(c *claim) bool {
		return c.r.Party.Handle == r.Party.Handle && r.Party.Handle != 0 ||
			r.Via == ViaFcntl && c.r.Via == ViaFcntl && c.r.Party.Owner == r.Party.Owner && c.r.Party.File == r.Party.File
	})
	m.world.Unlock(r.Key, r.Party, r.Via, r.Range)
	m.follow(direct{ended: ended})
}

// whyClosed draws why a file is closed.
func (m *machine) whyClosed() (Reason, func(*claim) Reason) {
	why := rapid.SampledFrom([]Reason{Released, Released, Died}).Draw(m.t, "why")
	return why, func(*claim) Reason { return why }
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
	why, reason := m.whyClosed()
	m.model.end(r.Key, ended, reason)
	m.world.EndOwner(r.Key, r.Party.File, owner, why)
	m.follow(direct{ended: ended, reason: reason})
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
	why, reason := m.whyClosed()
	d := direct{err: ErrBroken, reason: reason}
	d.ended = m.model.remove(l, cellsOf(Whole), func(c *claim) bool { return c.r.Party.Handle == handle && !c.r.ByName })
	m.model.end(k, d.ended, reason)
	d.refused = m.model.leave(l, func(s *standing) bool { return s.r.Party.Handle == handle })
	m.world.EndHandle(k, handle, why)
	m.follow(d)
	m.open(i)
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
	d.refused = m.model.end(k, d.ended, d.reason)
	m.world.End(k, func(h *Hold) Reason { return d.reason(&claim{r: h.Request}) })
	m.follow(d)
}

// Remove is the end of a hold by name, with others left, or of any hold by its
// number.
func (m *machine) Remove(*rapid.T) {
	if m.spared() {
		return
	}
	k := rapid.SampledFrom(m.keys).Draw(m.t, "key")
	why := rapid.SampledFrom([]Reason{Released, Broken, Reaped, Lost}).Draw(m.t, "why")
	l := m.model.lock(k)
	d := direct{err: ErrBroken, reason: func(*claim) Reason { return why }}
	if len(l.claims) == 0 || rapid.Bool().Draw(m.t, "named") {
		d.ended = m.model.remove(l, cellsOf(Whole), func(c *claim) bool { return c.r.ByName })
		d.refused = m.model.end(k, d.ended, d.reason)
		if m.world.EndNamed(k, why) != (len(d.ended) == 1) {
			m.t.Fatalf("the hold by name of %v is in the model %v", k, d.ended)
		}
		m.follow(d)
		return
	}
	h := rapid.SampledFrom(m.world.state()[k].holds).Draw(m.t, "hold")
	d.ended = m.model.remove(l, cellsOf(h.Range), func(c *claim) bool {
		return c.token == h.Token && c.has == cellsOf(h.Range)
	})
	d.refused = m.model.end(k, d.ended, d.reason)
	if !m.world.EndHold(h.ID, why) || m.world.EndHold(h.ID, why) {
		m.t.Fatalf("hold %d was not there once", h.ID)
	}
	m.follow(d)
}

// Touch renews the holds of a process.
func (m *machine) Touch(*rapid.T) {
	k := rapid.SampledFrom(m.keys).Draw(m.t, "key")
	by := rapid.Uint32Range(0, 4).Draw(m.t, "by")
	m.model.renew(k, true, func(c *claim) bool { return c.r.Party.Taker.Pid == by })
	m.world.Renew(k, func(h *Hold) bool { return h.Party.Taker.Pid == by })
	m.follow(direct{})
}

// Policy changes the policy of a directory.
func (m *machine) Policy(*rapid.T) {
	draw := func(what string) time.Duration {
		return time.Duration(rapid.SampledFrom([]int{0, 0, 1, 3}).Draw(m.t, what)) * time.Second
	}
	p := Policy{Lease: draw("lease"), Grace: draw("grace")}
	if rapid.Bool().Draw(m.t, "from now") {
		p.From = m.world.clock.now.Boot
	}
	m.world.SetPolicy(rapid.Uint64Range(1, 2).Draw(m.t, "dir"), p)
	m.follow(direct{})
}

// Move is a directory that is renamed. The files that are open on the node of
// its hold go along.
func (m *machine) Move(*rapid.T) {
	from := rapid.SampledFrom(m.keys).Draw(m.t, "from")
	to := rapid.SampledFrom(m.keys).Draw(m.t, "to")
	l, dest := m.model.lock(from), m.model.lock(to)
	i := slices.IndexFunc(l.claims, func(c *claim) bool { return c.r.ByName })
	var want error
	switch {
	case i < 0 || from == to:
	case len(dest.claims) > 0:
		want = ErrHeld
	case dest.grace != 0:
		want = ErrGrace
	default:
		node := l.claims[i].r.Party.File
		for _, c := range l.claims {
			r := c.r
			if r.Key = to; c.r.ByName || c.r.Party.File == node {
				r.Range = rangeOf(c.has)
				if m.model.closed(to) {
					want = ErrLookup
				} else if m.model.keptOutside(&r) {
					want = ErrForeign
				}
			}
		}
	}
	if err := m.world.Move(from, to); !errors.Is(err, want) || want == nil && err != nil {
		m.t.Fatalf("%v is moved to %v: %v, want %v", from, to, err, want)
	}
	if i < 0 || from == to || want != nil {
		m.follow(direct{})
		return
	}
	node := l.claims[i].r.Party.File
	m.model.token++
	dest.listed = m.model.token
	l.claims = slices.DeleteFunc(l.claims, func(c *claim) bool {
		goes := c.r.ByName || c.r.Party.File == node
		if goes {
			c.r.Key = to
			dest.claims = append(dest.claims, c)
		}
		return goes
	})
	l.queue = slices.DeleteFunc(l.queue, func(s *standing) bool {
		goes := s.r.Party.File == node
		if goes {
			s.r.Key = to
			dest.queue = append(dest.queue, s)
		}
		return goes
	})
	slices.SortFunc(dest.queue, func(a, b *standing) int { return cmp.Compare(a.place, b.place) })
	for _, f := range m.files {
		if m.keyOf[f.Handle] == from && f.File == node {
			m.keyOf[f.Handle] = to
		}
	}
	m.detours = slices.DeleteFunc(m.detours, func(r Request) bool { return r.Key == from && r.Party.File == node })
	m.follow(direct{})
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
	var d direct
	if rapid.Bool().Draw(m.t, "expire") {
		d = m.expire()
		m.world.Expire()
	}
	next, ok := m.world.table.NextExpiry()
	for k, l := range m.model.locks {
		var ends []time.Duration
		for _, s := range l.queue {
			ends = append(ends, s.until)
		}
		for _, c := range l.claims {
			if p := m.model.policy(k); p.Lease > 0 {
				ends = append(ends, max(c.renewed, p.From)+p.Lease)
			}
		}
		for _, end := range append(ends, l.grace) {
			if end != 0 && (!ok || next > end) {
				m.t.Fatalf("NextExpiry is %v, %v; something of %v ends at %v", next, ok, k, end)
			}
		}
	}
	m.follow(d)
}

// expire ends in the model what is due.
func (m *machine) expire() (d direct) {
	now := m.world.clock.now.Boot
	d = direct{err: ErrBroken, reason: func(*claim) Reason { return Expired }}
	for k, l := range m.model.locks {
		m.model.leave(l, func(s *standing) bool { return s.until != 0 && s.until <= now })
		if l.grace <= now {
			l.grace = 0
		}
		if p := m.model.policy(k); p.Lease > 0 {
			ended := m.model.remove(l, cellsOf(Whole), func(c *claim) bool { return max(c.renewed, p.From)+p.Lease <= now })
			d.refused = append(d.refused, m.model.end(k, ended, d.reason)...)
			d.ended = append(d.ended, ended...)
		}
	}
	return d
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
	m.snapshots = nil
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
		d.refused = append(d.refused, m.model.leave(l, func(*standing) bool { return true })...)
	}
	m.world.Shutdown()
	m.follow(d)
}

// Begin begins a snapshot, with what the model has by now.
func (m *machine) Begin(*rapid.T) {
	if len(m.world.snapshots) == 3 {
		return
	}
	dirs := rapid.SampledFrom([][]uint64{nil, nil, {1}, {2}, {3, 1, 2, 1}}).Draw(m.t, "directories")
	m.snapshots = append(m.snapshots, &modelSnapshot{m.world.begin(dirs...), m.model.shown(dirs)})
}

// Gather gathers one further, and compares it with what the model had.
func (m *machine) Gather(*rapid.T) {
	if len(m.snapshots) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.snapshots)-1).Draw(m.t, "snapshot")
	s := m.snapshots[i]
	if !m.world.gather(s.watched, rapid.IntRange(1, 4).Draw(m.t, "by")) {
		return
	}
	m.snapshots = slices.Delete(m.snapshots, i, i+1)
	var got []string
	for h := range s.Holds() {
		got = append(got, fmt.Sprint("hold ", h.Key, h.Token, h.Mode, cellsOf(h.Range)))
	}
	for q := range s.Waits() {
		got = append(got, fmt.Sprint("wait ", q.Key, q.ID, q.Mode))
	}
	slices.Sort(got)
	if !slices.Equal(got, s.model) {
		m.t.Fatalf("the snapshot shows\n%q\nin the model it began with\n%q", got, s.model)
	}
}

// Drop drops one.
func (m *machine) Drop(*rapid.T) {
	if len(m.snapshots) == 0 || m.spared() {
		return
	}
	m.world.drop(m.snapshots[0].watched)
	m.snapshots = m.snapshots[1:]
}

// Stranger takes a lock outside of the table, if he can, or gives all back that
// strangers have of it.
func (m *machine) Stranger(*rapid.T) {
	if m.world.mirror == nil {
		return
	}
	k := rapid.SampledFrom(m.keys).Draw(m.t, "key")
	if rapid.Bool().Draw(m.t, "takes") {
		m.world.mirror.take(k, strange{cellsOf(m.someRange()), Mode(rapid.IntRange(0, 1).Draw(m.t, "mode"))})
		return
	}
	if len(m.world.mirror.strangers[k]) > 0 {
		delete(m.world.mirror.strangers, k)
		m.world.Reconsider(k)
		m.follow(direct{})
	}
}

// Outside closes or opens the mirror of a lock.
func (m *machine) Outside(*rapid.T) {
	if m.world.mirror == nil {
		return
	}
	k := rapid.SampledFrom(m.keys).Draw(m.t, "key")
	if !m.world.mirror.closed[k] {
		// Only what holds nothing and is not waited for is closed.
		if len(m.model.lock(k).claims) == 0 && len(m.world.mirror.awaited[k]) == 0 {
			m.world.mirror.closed[k] = true
		}
		return
	}
	delete(m.world.mirror.closed, k)
	m.world.Reconsider(k)
	m.follow(direct{})
}

// rangeOf returns the range that one run of cells is.
func rangeOf(s cellSet) Range {
	r := Range{Last: MaxOffset}
	for !s[r.First] {
		r.First++
	}
	for i := r.First; i < cells; i++ {
		if !s[i] {
			r.Last = i - 1
			break
		}
	}
	return r
}
