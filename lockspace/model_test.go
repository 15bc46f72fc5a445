package lockspace

import (
	"fmt"
	"slices"
	"time"
)

// A model of the rules, written from the package comment and the design, as
// simple as it can be: a lock's bytes are cells of a small array, its queue is
// a slice, the wait graph is searched from scratch whenever somebody asks, and
// nothing is indexed or remembered. machine_test.go compares it with the table.

// cells are the bytes that the model knows: 0 to 7, and everything behind
// them as one.
const cells = 9

type cellSet [cells]bool

func cellsOf(r Range) (s cellSet) {
	for i := range s {
		s[i] = r.First <= uint64(i) && uint64(i) <= r.Last
	}
	return s
}

func (s cellSet) overlaps(o cellSet) bool {
	for i := range s {
		if s[i] && o[i] {
			return true
		}
	}
	return false
}

// near reports whether s and o overlap or have cells side by side.
func (s cellSet) near(o cellSet) bool {
	for i := range s {
		if s[i] && (o[i] || i > 0 && o[i-1] || i < cells-1 && o[i+1]) {
			return true
		}
	}
	return false
}

// claim is a hold: what somebody has of a lock, in cells that are one range.
type claim struct {
	r     Request // its Range is without meaning
	has   cellSet
	token uint64
	since Instant
	// renewed is when its lease began.
	renewed time.Duration
	// maybe are the processes that may as well be the taker: of two claims of
	// one age that became one, either may go on.
	maybe []Process
}

func (c *claim) String() string {
	return fmt.Sprintf("%v by name %v %v %v token %d since %v, renewed %v, by %v",
		c.r.Via, c.r.ByName, c.r.Mode, c.has, c.token, c.since.Boot, c.renewed, c.r.Party)
}

// standing is a wait.
type standing struct {
	id    WaitID
	place uint64 // the queue is in this order
	r     Request
	since Instant
	until time.Duration // while it is absent, the end of its place
}

type modelLock struct {
	claims []*claim
	queue  []*standing
	listed uint64
	grace  time.Duration // its end; 0: none
}

type model struct {
	world *world // for the clock and the processes
	locks map[Key]*modelLock
	token uint64
	place uint64 // the last one given
}

func (m *model) lock(k Key) *modelLock {
	if m.locks[k] == nil {
		m.locks[k] = new(modelLock)
	}
	return m.locks[k]
}

// oneOwner: fcntl owners are named by a number that is recycled. Two with one
// number are one owner if it is one open file or one process.
func oneOwner(a, b *Party) bool {
	if a.Owner != b.Owner {
		return false
	}
	return a.Handle == b.Handle || a.Taker.Pid != 0 && a.Taker.Pid == b.Taker.Pid
}

type answer int

const (
	no answer = iota
	yes
	doubt // it would have to be looked up
)

// oneParty: does a, there since some time, never exclude the later b?
func (m *model) oneParty(a *Request, since Instant, b *Request) answer {
	fcntl := 0
	for _, r := range []*Request{a, b} {
		if r.Via == ViaFcntl {
			fcntl++
		}
	}
	if fcntl == 2 {
		if oneOwner(&a.Party, &b.Party) {
			return yes
		}
		return no
	}
	if a.Party.Handle != 0 && a.Party.Handle == b.Party.Handle {
		return yes
	}
	// Who made a name without a file has only his process to be known by.
	if fcntl == 0 && a.Party.Handle != 0 || b.Party.Taker.Pid == 0 {
		return no
	}
	// The holder is the taker while it lives, else the opener.
	takerLives := a.Party.Taker.Pid == 0 || !m.world.procs.dead[a.Party.Taker.Pid]
	ran := since
	if a.Party.Taker.Pid != b.Party.Taker.Pid {
		if takerLives || a.Party.Opener.Pid != b.Party.Taker.Pid {
			return no
		}
		ran = a.Party.Opened
	}
	switch {
	case b.Party.Taker.Started == 0:
		return doubt
	case b.Party.Taker.Started <= ran.Boot:
		return yes
	}
	return no
}

// conflict: would a and b be two inside?
func (m *model) conflict(a *Request, has cellSet, since Instant, b *Request) answer {
	if a.Mode == Shared && b.Mode == Shared || !has.overlaps(cellsOf(b.Range)) {
		return no
	}
	return map[answer]answer{yes: no, no: yes, doubt: doubt}[m.oneParty(a, since, b)]
}

// inTheWay returns whether claims of the lock keep r out.
func (m *model) inTheWay(l *modelLock, r *Request) (result answer, sure bool) {
	sure = true
	for _, c := range l.claims {
		switch m.conflict(&c.r, c.has, c.since, r) {
		case yes:
			result = yes
		case doubt:
			sure = false
		}
	}
	return result, sure
}

// own: is c what r's owner can convert and give back?
func own(c *claim, r *Request) bool {
	if c.r.Via != r.Via || c.r.ByName {
		return false
	}
	if r.Via == ViaFcntl {
		return c.r.Party.File == r.Party.File && oneOwner(&c.r.Party, &r.Party)
	}
	return c.r.Party.Handle == r.Party.Handle
}

// hasAlready: does r ask for nothing that its owner has not, as strongly?
func hasAlready(l *modelLock, r *Request) bool {
	for i, wanted := range cellsOf(r.Range) {
		if wanted && !slices.ContainsFunc(l.claims, func(c *claim) bool {
			return own(c, r) && c.has[i] && (c.r.Mode == Exclusive || r.Mode == Shared)
		}) {
			return false
		}
	}
	return true
}

// waitsFor returns every claim that s waits for, directly and through others.
func (m *model) waitsFor(s *standing) (all []*claim) {
	seen := make(map[*standing]bool)
	var visit func(s *standing)
	visit = func(s *standing) {
		if seen[s] || s.until != 0 {
			return
		}
		seen[s] = true
		l := m.lock(s.r.Key)
		for _, c := range l.claims {
			if m.conflict(&c.r, c.has, c.since, &s.r) == no {
				continue
			}
			all = append(all, c)
			for _, other := range m.locks {
				for _, o := range other.queue {
					if o.r.Party.Handle == c.r.Party.Handle || c.r.Via == ViaFcntl && o.r.Via == ViaFcntl && oneOwner(&c.r.Party, &o.r.Party) {
						visit(o)
					}
				}
			}
		}
		for _, before := range l.queue {
			if before == s {
				break
			}
			if m.conflict(&before.r, cellsOf(before.r.Range), before.since, &s.r) != no {
				visit(before)
			}
		}
	}
	visit(s)
	return all
}

// dependsOn: does s wait for r's party? On other locks only fcntl owners count.
func (m *model) dependsOn(s *standing, r *Request) bool {
	return slices.ContainsFunc(m.waitsFor(s), func(c *claim) bool {
		if c.r.Key != r.Key {
			return c.r.Via == ViaFcntl && r.Via == ViaFcntl && oneOwner(&c.r.Party, &r.Party)
		}
		return m.oneParty(&c.r, c.since, r) != no
	})
}

// mayGo: is r, behind some of the queue, kept by nothing, outside of the table
// too? sure is false if that could be otherwise after a look-up.
func (m *model) mayGo(l *modelLock, r *Request, behind []*standing) (free, sure bool) {
	free, sure = m.mayGoInside(l, r, behind)
	return free && !m.keptOutside(r), sure
}

// keptOutside: does anybody outside hold what r asks for?
func (m *model) keptOutside(r *Request) bool {
	return m.world.mirror != nil && m.world.mirror.keepsOut(r)
}

// closed: can nothing be said about the outside for now?
func (m *model) closed(k Key) bool { return m.world.mirror != nil && m.world.mirror.closed[k] }

// mayGoInside: is r, behind some of the queue, kept by nothing? sure is false if
// that could be otherwise after a look-up.
func (m *model) mayGoInside(l *modelLock, r *Request, behind []*standing) (free, sure bool) {
	if l.grace != 0 && !hasAlready(l, r) {
		return false, true
	}
	kept, sure := m.inTheWay(l, r)
	if kept == yes {
		return false, sure
	}
	if !sure || hasAlready(l, r) {
		return sure, sure
	}
	for _, s := range behind {
		if s.until != 0 {
			continue
		}
		switch m.conflict(&s.r, cellsOf(s.r.Range), s.since, r) {
		case doubt:
			sure = false
		case yes:
			if !m.dependsOn(s, r) {
				return false, sure
			}
		}
	}
	return sure, sure
}

// first returns the first of a queue who may go.
func (m *model) first(l *modelLock) *standing {
	for i, s := range l.queue {
		if s.until != 0 {
			continue
		}
		if free, _ := m.mayGo(l, &s.r, l.queue[:i]); free && !m.closed(s.r.Key) {
			return s
		}
	}
	return nil
}

// inCycle: do POSIX waits lead from r back to a claim of its own owner? Which
// requests are POSIX, posix says.
func (m *model) inCycle(r *Request, posix func(*Request) bool) bool {
	// linked: the owner of claim c is a process, which waits in o.
	linked := func(c *claim, o *Request) bool {
		return c.r.Via == ViaFcntl && o.Via == ViaFcntl && oneOwner(&c.r.Party, &o.Party) &&
			(c.r.Party.Handle != o.Party.Handle || posix(o))
	}
	seen := make(map[*Request]bool)
	var leadsBack func(from *Request) bool
	leadsBack = func(from *Request) bool {
		seen[from] = true
		for _, c := range m.lock(from.Key).claims {
			if c.r.Via != ViaFcntl || m.conflict(&c.r, c.has, c.since, from) == no {
				continue
			}
			if from != r && oneOwner(&c.r.Party, &r.Party) {
				if linked(c, r) {
					return true
				}
				continue
			}
			for _, l := range m.locks {
				for _, s := range l.queue {
					if s.until == 0 && !seen[&s.r] && linked(c, &s.r) && leadsBack(&s.r) {
						return true
					}
				}
			}
		}
		return false
	}
	return r.Via == ViaFcntl && leadsBack(r)
}

// grant gives r what it asks for.
func (m *model) grant(l *modelLock, r *Request) *claim {
	wanted := cellsOf(r.Range)
	for _, c := range l.claims {
		if own(c, r) && c.r.Mode == r.Mode && c.r.Party.Handle == r.Party.Handle && !slices.ContainsFunc(indexes(wanted), func(i int) bool { return !c.has[i] }) {
			return c // asked again
		}
	}
	m.token++
	now := m.world.clock.now
	g := &claim{r: *r, has: wanted, token: m.token, since: now, renewed: now.Boot}
	// One owner's holds of one mode through one file that are side by side are
	// one hold.
	for again := true; again; {
		again = false
		l.claims = slices.DeleteFunc(l.claims, func(c *claim) bool {
			if !own(c, r) || c.r.Mode != r.Mode || c.r.Party.Handle != r.Party.Handle || !c.has.near(g.has) {
				return false
			}
			for _, i := range indexes(c.has) {
				g.has[i] = true
			}
			if c.since.Boot < g.since.Boot {
				g.since = c.since
				g.r.Party = c.r.Party // what was begun goes on
				g.maybe = nil
			}
			if c.since.Boot == g.since.Boot {
				g.maybe = append(g.maybe, c.r.Party.Taker)
			}
			again = true
			return true
		})
	}
	m.remove(l, wanted, func(c *claim) bool { return own(c, r) })
	l.claims = append(l.claims, g)
	if l.listed == 0 {
		l.listed = g.token
	}
	return g
}

// remove takes cells out of some claims, and returns those of which nothing
// was left.
func (m *model) remove(l *modelLock, taken cellSet, which func(*claim) bool) (ended []*claim) {
	var after []*claim
	for _, c := range l.claims {
		if !which(c) || !c.has.overlaps(taken) {
			after = append(after, c)
			continue
		}
		n := len(after)
		var part *claim
		for i := range c.has {
			if !c.has[i] || taken[i] {
				part = nil
				continue
			}
			if part == nil {
				copied := *c
				part = &copied
				part.has = cellSet{}
				after = append(after, part)
			}
			part.has[i] = true
		}
		if len(after) == n {
			ended = append(ended, c)
		}
	}
	l.claims = after
	return ended
}

// policy returns the policy of a lock.
func (m *model) policy(k Key) Policy { return m.world.policies[k.Dir] }

// end ends whole claims that were not given back: grace begins, and unless
// their party died, the waits of their files end.
func (m *model) end(k Key, ended []*claim, why func(*claim) Reason) (refused []*standing) {
	l := m.lock(k)
	for _, c := range ended {
		if why(c) == Released {
			continue
		}
		if d := m.policy(k).Grace; d > 0 {
			l.grace = max(l.grace, m.world.clock.now.Boot+d)
		}
		if why(c) == Died || c.r.Party.Handle == 0 {
			continue
		}
		refused = append(refused, m.leave(l, func(s *standing) bool { return s.r.Party.Handle == c.r.Party.Handle })...)
	}
	return refused
}

// leave takes waits out of a queue, and returns the present ones.
func (m *model) leave(l *modelLock, which func(*standing) bool) (present []*standing) {
	l.queue = slices.DeleteFunc(l.queue, func(s *standing) bool {
		if which(s) && s.until == 0 {
			present = append(present, s)
		}
		return which(s)
	})
	return present
}

// renew renews claims, if there is a lease or the user asked for it.
func (m *model) renew(k Key, asked bool, which func(*claim) bool) {
	if !asked && m.policy(k).Lease == 0 {
		return
	}
	for _, c := range m.lock(k).claims {
		if which(c) {
			c.renewed = m.world.clock.now.Boot
		}
	}
}

func indexes(s cellSet) (list []int) {
	for i, in := range s {
		if in {
			list = append(list, i)
		}
	}
	return list
}

// modelSnapshot is a snapshot, and what the model had when it began.
type modelSnapshot struct {
	*watched
	model []string
}

// shown returns what a snapshot of some directories, or all, has to show.
func (m *model) shown(dirs []uint64) (list []string) {
	for k, l := range m.locks {
		if dirs != nil && !slices.Contains(dirs, k.Dir) {
			continue
		}
		for _, c := range l.claims {
			list = append(list, fmt.Sprint("hold ", k, c.token, c.r.Mode, c.has))
		}
		for _, s := range l.queue {
			if s.until == 0 {
				list = append(list, fmt.Sprint("wait ", k, s.id, s.r.Mode))
			}
		}
	}
	slices.Sort(list)
	return list
}
