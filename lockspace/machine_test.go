package lockspace

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestModel does at random whatever can be done to a table, on few locks with
// few processes and files, so that everything collides, and compares it with
// the model (model_test.go) after every step. What a step grants, the model
// follows call by call: each must be the first of its queue that may go. In
// the end nobody may be left who may go, nor a cycle.
func TestModel(t *testing.T) {
	for name, idioms := range map[string][]string{
		"posix":           {"posix"},
		"posix and ofd":   {"posix", "ofd"},
		"flock":           {"flock"},
		"posix and flock": {"posix", "flock"},
		"posix and open":  {"posix", "open"},
		"all":             {"posix", "ofd", "flock", "flock", "open", "excl", "named", "link", "mkdir"},
	} {
		t.Run(name, func(t *testing.T) { checkModel(t, idioms) })
	}
}

func checkModel(t *testing.T, idioms []string) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine(t, idioms)
		actions := rapid.StateMachineActions(m)
		// Nothing happens without requests, and little after a close: so
		// requests get a larger share, and a run is a long one.
		for i := range 12 {
			actions[fmt.Sprint("Request", i)] = m.Request
		}
		actions["Restart2"], actions["Cancel2"], actions["Unlock2"] = m.Restart, m.Cancel, m.Unlock
		for range 3 {
			t.Repeat(actions)
		}
	})
}

// machine is a table and a model of it, with the processes and files that use
// them.
type machine struct {
	t       *rapid.T
	world   *world
	model   *model
	keys    []Key
	started []time.Duration // by pid; pid 0 cannot be seen
	files   []*Party        // the handle's part of a Party
	keyOf   map[uint64]Key  // by handle
	handles uint64
	waits   WaitID
	detours []Request // on their way to be looked up
	idioms  []string  // in use
	// snapshots are those under way.
	snapshots []*modelSnapshot
	// What differs from run to run, for all to be reached:
	lazy   bool     // the class of a thread must be looked up
	calm   bool     // files are rarely closed, and locks rarely broken
	bytes  uint64   // how many there are
	people []uint32 // the pids of those who have inherited files
}

func newMachine(t *rapid.T, idioms []string) *machine {
	w := newWorld(t)
	if rapid.Bool().Draw(t, "mirror") {
		w.mirrored()
	}
	m := &machine{
		t:       t,
		world:   w,
		model:   &model{world: w, locks: make(map[Key]*modelLock)},
		keys:    []Key{{1, "a"}, {1, "b"}, {2, "a"}}[:rapid.IntRange(1, 3).Draw(t, "locks")],
		started: make([]time.Duration, 5),
		files:   make([]*Party, 8),
		keyOf:   make(map[uint64]Key),
		lazy:    rapid.Bool().Draw(t, "lazy"),
		calm:    rapid.Bool().Draw(t, "calm"),
		bytes:   rapid.SampledFrom([]uint64{2, 4, cells}).Draw(t, "bytes"),
		people: rapid.SampledFrom([][]uint32{
			{1, 2}, {1, 2, 3}, {1, 1, 2, 2, 3, 3, 4, 0},
		}).Draw(t, "people"),
		idioms: idioms,
	}
	for pid := range m.started {
		m.started[pid] = start - time.Duration(pid)*time.Second
	}
	for i := range m.files {
		m.open(i)
	}
	return m
}

// open gives slot i a new file.
func (m *machine) open(i int) {
	m.handles++
	k := rapid.IntRange(0, len(m.keys)-1).Draw(m.t, "key")
	m.files[i] = &Party{
		Handle: m.handles,
		// A lock may have two nodes.
		File:   uint64(10*k + rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(m.t, "node")),
		Opener: m.process(m.user(i)),
		Opened: m.world.clock.now,
	}
	m.keyOf[m.handles] = m.keys[k]
}

func (m *machine) process(pid uint32) Process {
	p := Process{Pid: pid, UID: 1000, Started: m.started[pid]}
	if pid == 0 {
		p.Started = 0
	}
	return p
}

// user draws who uses the file of slot i. The last three are never inherited,
// so that their OFD owners may bear each other's numbers, and a process's.
func (m *machine) user(i int) uint32 {
	switch i {
	case 5, 6, 7:
		return uint32(i - 4)
	}
	return rapid.SampledFrom(m.people).Draw(m.t, "pid")
}

func (m *machine) ofdOwner(i int) uint64 {
	switch i {
	case 5, 6:
		return 205
	case 7:
		return 101
	}
	return 200 + uint64(i)
}

// request draws who asks for what. Its process is not looked up now and then.
func (m *machine) request() Request {
	i := rapid.IntRange(0, len(m.files)-1).Draw(m.t, "file")
	r := Request{Party: *m.files[i], Range: Whole}
	r.Key = m.keyOf[r.Party.Handle]
	r.Party.Taker = m.process(m.user(i))
	if rapid.IntRange(0, 2).Draw(m.t, "not looked up") == 0 {
		r.Party.Taker.Started = 0
	}
	r.Thread = r.Party.Taker.Pid*2 + 2
	r.Mode = Mode(rapid.IntRange(0, 1).Draw(m.t, "mode"))
	switch rapid.SampledFrom(m.idioms).Draw(m.t, "idiom") {
	case "posix":
		r.Via, r.Party.Owner = ViaFcntl, 100+uint64(r.Party.Taker.Pid)
	case "ofd":
		r.Via, r.Party.Owner = ViaFcntl, m.ofdOwner(i)
		r.Thread++
		m.world.procs.class[r.Thread] = ClassOFD
	case "flock":
		r.Via = ViaFlock
	case "open":
		r.Via = ViaOpen
	case "excl":
		r.Via, r.Mode = ViaExcl, Exclusive
	case "named":
		r.Via, r.Mode, r.ByName = ViaExcl, Exclusive, true
	case "link":
		// The name may be of a node that others have open.
		r.Via, r.Mode, r.ByName, r.Party.Handle = ViaLink, Exclusive, true, 0
	case "mkdir":
		r.Via, r.Mode, r.ByName, r.Party.Handle = ViaMkdir, Exclusive, true, 0
		r.Party.File = 99
	}
	if r.Via == ViaFcntl {
		r.Range = m.someRange()
	}
	return r
}

func (m *machine) someRange() Range {
	first := rapid.Uint64Range(0, m.bytes-1).Draw(m.t, "first")
	last := rapid.Uint64Range(first, m.bytes-1).Draw(m.t, "last")
	if last == cells-1 {
		last = MaxOffset
	}
	return Range{first, last}
}

// spared reports whether something is not to happen this time.
func (m *machine) spared() bool {
	return m.calm && rapid.IntRange(0, 7).Draw(m.t, "spared") > 0
}

// alive reports whether r's process is; the dead ask for nothing.
func (m *machine) alive(r *Request) bool { return !m.world.procs.dead[r.Party.Taker.Pid] }

// posix says whether a request is a process's; half says what counts for those
// who have not been looked up.
func (m *machine) posix(half bool) func(*Request) bool {
	return func(r *Request) bool {
		if m.world.procs.unknown[r.Thread] {
			return half
		}
		return m.world.procs.class[r.Thread] != ClassOFD
	}
}

// direct is what a step does by itself, before anybody gains from it.
type direct struct {
	ended   []*claim
	reason  func(*claim) Reason
	refused []*standing
	err     error
}

// follow takes what the observer was told of a step, compares it with what
// the step had to do by itself, lets the model do the rest, and compares all
// there is to see.
func (m *machine) follow(d direct) {
	m.t.Helper()
	for _, h := range m.world.take() {
		switch {
		case h.wait == nil:
			m.ended(&d, h)
		case h.hold == nil:
			m.refused(&d, h)
		default:
			if len(d.ended)+len(d.refused) > 0 {
				m.t.Fatalf("%v, before all that was given back was told of", h)
			}
			m.granted(h)
		}
	}
	if len(d.ended)+len(d.refused) > 0 {
		m.t.Fatalf("the observer was not told of %v %v", d.ended, d.refused)
	}
	m.compare()
}

func (m *machine) ended(d *direct, h happening) {
	m.t.Helper()
	i := slices.IndexFunc(d.ended, func(c *claim) bool {
		return c.token == h.hold.Token && c.has == cellsOf(h.hold.Range) && c.r.Party == h.hold.Party
	})
	if i < 0 {
		m.t.Fatalf("%v, of %v", h, d.ended)
	}
	if d.reason != nil && d.reason(d.ended[i]) != h.reason {
		m.t.Fatalf("%v, for the wrong reason", h)
	}
	d.ended = slices.Delete(d.ended, i, i+1)
}

func (m *machine) refused(d *direct, h happening) {
	m.t.Helper()
	l := m.model.lock(h.wait.Key)
	same := func(s *standing) bool { return s.id == h.wait.ID }
	if errors.Is(h.err, ErrDeadlock) {
		i := slices.IndexFunc(l.queue, same)
		if i < 0 || !m.model.inCycle(&l.queue[i].r, m.posix(false)) {
			m.t.Fatalf("%v, which is in no cycle", h)
		}
		l.queue = slices.Delete(l.queue, i, i+1)
		return
	}
	i := slices.IndexFunc(d.refused, same)
	if i < 0 || !errors.Is(h.err, d.err) {
		m.t.Fatalf("%v, of %v with %v", h, d.refused, d.err)
	}
	d.refused = slices.Delete(d.refused, i, i+1)
}

func (m *machine) granted(h happening) {
	m.t.Helper()
	l := m.model.lock(h.wait.Key)
	s := m.model.first(l)
	if s == nil || s.id != h.wait.ID {
		m.t.Fatalf("%v; the first who may go is %v", h, s)
	}
	l.queue = slices.DeleteFunc(l.queue, func(o *standing) bool { return o == s })
	c := m.model.grant(l, &s.r)
	if c.token != h.hold.Token || c.has != cellsOf(h.hold.Range) {
		m.t.Fatalf("%v; the model gave %v", h, c)
	}
}

// compare checks that nothing is left to do, and that table and model agree on
// who holds what and on the queues.
func (m *machine) compare() {
	m.t.Helper()
	for k, l := range m.model.locks {
		if len(l.claims) == 0 {
			l.listed = 0
		}
		if s := m.model.first(l); s != nil {
			m.t.Fatalf("wait %d on %v may go and does not", s.id, k)
		}
		for _, s := range l.queue {
			if s.until == 0 && !m.lazy && m.model.inCycle(&s.r, m.posix(false)) {
				m.t.Fatalf("wait %d on %v is in a cycle of POSIX waits", s.id, k)
			}
		}
	}
	state := m.world.state()
	for _, k := range m.keys {
		l, st := m.model.lock(k), state[k]
		var holds, claims []string
		for _, c := range l.claims {
			for _, h := range st.holds {
				if h.Token == c.token && cellsOf(h.Range) == c.has && slices.Contains(c.maybe, h.Party.Taker) {
					c.r.Party.Taker = h.Party.Taker
				}
			}
			c.maybe = nil
		}
		for _, h := range st.holds {
			holds = append(holds, (&claim{r: h.Request, has: cellsOf(h.Range), token: h.Token, since: h.Since, renewed: h.Renewed}).String())
		}
		for _, c := range l.claims {
			claims = append(claims, c.String())
		}
		slices.Sort(holds)
		slices.Sort(claims)
		if !slices.Equal(holds, claims) {
			m.t.Fatalf("%v is held by\n%v\nin the table and by\n%v\nin the model", k, holds, claims)
		}
		if !slices.EqualFunc(st.queue, l.queue, func(w Wait, s *standing) bool {
			return w.ID == s.id && w.Since == s.since && w.AbsentUntil == s.until && w.Request == s.r
		}) {
			m.t.Fatalf("the queue of %v is\n%v\nin the table and\n%v\nin the model", k, st.queue, l.queue)
		}
		m.compareYoungest(k, l)
		present := slices.DeleteFunc(slices.Clone(l.queue), func(s *standing) bool { return s.until != 0 })
		waits := slices.Collect(m.world.table.Waits(k))
		if m.world.table.Waiting(k) != len(present) || !slices.EqualFunc(waits, present, func(w *Wait, s *standing) bool { return w.ID == s.id }) {
			m.t.Fatalf("%d wait for %v, %v, in the model %v", m.world.table.Waiting(k), k, waits, present)
		}
		if st.grace != l.grace {
			m.t.Fatalf("%v is in grace until %v, in the model until %v", k, st.grace, l.grace)
		}
	}
	m.compareListings()
}

func (m *machine) compareYoungest(k Key, l *modelLock) {
	m.t.Helper()
	youngest := uint64(0)
	for _, c := range l.claims {
		youngest = max(youngest, c.token)
	}
	h := m.world.table.Latest(k)
	if (h != nil) != (youngest > 0) || h != nil && h.Token != youngest || m.world.table.Held(k) != (youngest > 0) {
		m.t.Fatalf("the latest hold of %v is %v, in the model the one with token %d", k, h, youngest)
	}
}

func (m *machine) compareListings() {
	m.t.Helper()
	byPlace := slices.SortedFunc(maps.Keys(m.model.locks), func(a, b Key) int {
		return cmp.Compare(m.model.lock(a).listed, m.model.lock(b).listed)
	})
	for dir := uint64(1); dir <= 2; dir++ {
		want, last := []string{""}, uint64(0)
		for _, k := range byPlace {
			if l := m.model.lock(k); k.Dir == dir && l.listed != 0 {
				want = append(want, fmt.Sprint(l.listed, k.Name))
				last = l.listed
			}
		}
		got := []string{""}
		m.world.table.List(dir, 0, func(place uint64, name string) bool {
			got = append(got, fmt.Sprint(place, name))
			return true
		})
		if !slices.Equal(got, want) {
			m.t.Fatalf("directory %d lists %q, in the model %q", dir, got, want)
		}
		if place := m.world.table.LastListed(dir); place != last {
			m.t.Fatalf("the last place in directory %d is %d, in the model %d", dir, place, last)
		}
	}
}
