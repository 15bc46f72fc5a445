package lockspace

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"
)

// The world around a table under test: a clock that only the test moves,
// processes that live and die as it says, and a ledger that is journal and
// observer in one. Every step goes through the world, which checks everything
// it can after it.

// start is the time since boot at which every world begins.
const start = time.Hour

// reporter is what a world needs of a *testing.T, *testing.F or *rapid.T.
type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

// clock stands still unless it is told to move.
type clock struct{ now Instant }

func (c *clock) Now() Instant { return c.now }

func (c *clock) advance(d time.Duration) {
	c.now.Boot += d
	c.now.Wall += int64(d)
}

// processes is a fake of the world's processes: all of them live and wait in a
// POSIX call unless it says otherwise.
type processes struct {
	dead    map[uint32]bool
	class   map[uint32]Class // by thread
	unknown map[uint32]bool  // threads that must be looked up
	asked   []uint32         // of these, the ones the table asked for
}

func newProcesses() *processes {
	return &processes{
		dead:    make(map[uint32]bool),
		class:   make(map[uint32]Class),
		unknown: make(map[uint32]bool),
	}
}

func (p *processes) Alive(pid uint32) bool {
	if pid == 0 {
		panic("Alive was asked for pid 0")
	}
	return !p.dead[pid]
}

func (p *processes) WaitClass(thread uint32) (Class, bool) {
	if p.unknown[thread] {
		p.asked = append(p.asked, thread)
		return ClassUnknown, false
	}
	if c, ok := p.class[thread]; ok {
		return c, true
	}
	return ClassPOSIX, true
}

// lookUp answers everything that was asked for, as the table's user does on
// ErrLookup. It reports whether there was anything.
func (p *processes) lookUp() bool {
	for _, thread := range p.asked {
		delete(p.unknown, thread)
	}
	found := len(p.asked) > 0
	p.asked = nil
	return found
}

// happening is one call of the observer.
type happening struct {
	wait   *Wait // nil for Ended
	hold   *Hold // nil for Refused
	err    error // Refused only
	reason Reason
}

// ledger keeps what a journal is told, and fails on records that cannot be
// right; and it keeps what an observer is told until the test takes it.
type ledger struct {
	fail       func(format string, args ...any)
	holds      map[HoldID]Hold
	waits      map[WaitID]Wait
	graces     map[GraceID]Grace
	happenings []happening
}

func (l *ledger) PutHold(h *Hold) { l.holds[h.ID] = *h }
func (l *ledger) PutWait(w *Wait) { l.waits[w.ID] = *w }

func (l *ledger) PutGrace(g *Grace) { l.graces[g.ID] = *g }

func (l *ledger) DropHold(id HoldID) {
	if _, ok := l.holds[id]; !ok {
		l.fail("journal: hold %d was dropped and never put", id)
	}
	delete(l.holds, id)
}

func (l *ledger) DropWait(id WaitID) {
	if _, ok := l.waits[id]; !ok {
		l.fail("journal: wait %d was dropped and never put", id)
	}
	delete(l.waits, id)
}

func (l *ledger) DropGrace(id GraceID) {
	if _, ok := l.graces[id]; !ok {
		l.fail("journal: grace %d was dropped and never put", id)
	}
	delete(l.graces, id)
}

func (l *ledger) Granted(w Wait, h Hold) {
	l.happenings = append(l.happenings, happening{wait: &w, hold: &h})
}

func (l *ledger) Refused(w Wait, err error) {
	l.happenings = append(l.happenings, happening{wait: &w, err: err})
}

func (l *ledger) Ended(h Hold, why Reason) {
	l.happenings = append(l.happenings, happening{hold: &h, reason: why})
}

// world is a table with everything around it. Its methods are the table's.
type world struct {
	tb     reporter
	clock  *clock
	tokens *Counter
	procs  *processes
	ledger *ledger
	heard  *heard
	table  *Table
	// mirror is the table's, nil if it has none.
	mirror *outside
	// policies are told to every table anew.
	policies map[uint64]Policy
	// snapshots are those under way.
	snapshots []*watched
}

func newWorld(tb reporter) *world {
	w := &world{
		tb:     tb,
		clock:  &clock{Instant{Wall: 1_700_000_000_000_000_000, Boot: start}},
		tokens: new(Counter),
		procs:  newProcesses(),
		ledger: &ledger{
			fail:   tb.Fatalf,
			holds:  make(map[HoldID]Hold),
			waits:  make(map[WaitID]Wait),
			graces: make(map[GraceID]Grace),
		},
		policies: make(map[uint64]Policy),
	}
	w.heard = newHeard(tb.Fatalf)
	w.table = New(w.env())
	w.table.Listen(w.heard)
	return w
}

func (w *world) env() Environment {
	return Environment{Clock: w.clock, Tokens: w.tokens, Processes: w.procs, Observer: w.ledger, Journal: w.ledger}
}

// crash throws the table away and makes another from the journal's records,
// in an order that means nothing.
func (w *world) crash() {
	w.tb.Helper()
	before := w.state()
	var holds []*Hold
	for _, h := range w.ledger.holds {
		holds = append(holds, &h)
	}
	next, ok := w.table.NextExpiry()
	w.snapshots = nil // they die with it
	w.table = Restore(w.env(), holds, slices.Collect(maps.Values(w.ledger.waits)), slices.Collect(maps.Values(w.ledger.graces)))
	w.table.Listen(w.heard)
	if w.mirror != nil {
		clear(w.mirror.settled)
		clear(w.mirror.awaited)
		w.table.Mirrored(w.mirror)
		w.table.ReconsiderAll()
	}
	w.check()
	for dir, p := range w.policies {
		w.SetPolicy(dir, p)
	}
	if again, okAgain := w.table.NextExpiry(); okAgain && (!ok || again < next) || w.table.agenda.Len() > 0 && !okAgain {
		w.tb.Fatalf("NextExpiry was %v, %v and is %v, %v in a restored table", next, ok, again, okAgain)
	}
	if after := w.state(); !reflect.DeepEqual(before, after) {
		w.tb.Fatalf("a restored table differs:\n before %v\n after  %v", before, after)
	}
}

// take returns what happened since the last take.
func (w *world) take() []happening {
	h := w.ledger.happenings
	w.ledger.happenings = nil
	return h
}

// check fails the test unless the table keeps its law and the journal knows
// all of it.
func (w *world) check() {
	w.tb.Helper()
	if err := checkInvariants(w.table); err != nil {
		w.tb.Fatalf("%v\nin %v", err, w.state())
	}
	holds, waits, graces := records(w.table)
	if !maps.Equal(holds, w.ledger.holds) {
		w.tb.Fatalf("the journal has the holds\n%v\nand the table\n%v", w.ledger.holds, holds)
	}
	if !maps.Equal(waits, w.ledger.waits) {
		w.tb.Fatalf("the journal has the waits\n%v\nand the table\n%v", w.ledger.waits, waits)
	}
	if !maps.Equal(graces, w.ledger.graces) {
		w.tb.Fatalf("the journal has the graces\n%v\nand the table\n%v", w.ledger.graces, graces)
	}
	w.heard.check(w.table)
	if w.mirror != nil {
		w.mirror.check(w.table)
	}
	w.checkSnapshots()
}

// records returns what a table's journal must have of it.
func records(t *Table) (map[HoldID]Hold, map[WaitID]Wait, map[GraceID]Grace) {
	holds, waits, graces := make(map[HoldID]Hold), make(map[WaitID]Wait), make(map[GraceID]Grace)
	for _, l := range t.locks {
		for _, h := range l.holds {
			holds[h.ID] = *h
		}
	}
	for id, w := range t.waits {
		waits[id] = w.Wait
	}
	for _, g := range t.graces {
		graces[g.ID] = g.Grace
	}
	return holds, waits, graces
}

// lockState is what can be seen of a lock.
type lockState struct {
	holds []Hold
	queue []Wait
	grace time.Duration // its end; 0: none
}

// state returns what can be seen of the table.
func (w *world) state() map[Key]lockState {
	s := make(map[Key]lockState)
	for k, l := range w.table.locks {
		var st lockState
		for h := range w.table.Holds(k) {
			st.holds = append(st.holds, *h)
		}
		for q := l.first; q != nil; q = q.next {
			st.queue = append(st.queue, q.Wait)
		}
		st.grace, _ = w.inGrace(k)
		s[k] = st
	}
	return s
}

// request makes sure that one that fails has changed nothing.
func (w *world) request(do func() error) error {
	w.tb.Helper()
	before, token, n := w.state(), *w.tokens, len(w.ledger.happenings)
	err := do()
	w.check()
	if err == nil {
		return nil
	}
	if after := w.state(); !reflect.DeepEqual(before, after) {
		w.tb.Fatalf("failed with %v, but changed\n%v\nto\n%v", err, before, after)
	}
	if token != *w.tokens || n != len(w.ledger.happenings) {
		w.tb.Fatalf("failed with %v, but used a token or told the observer", err)
	}
	return err
}

func (w *world) Try(r Request) error {
	w.tb.Helper()
	return w.request(func() error { return w.table.Try(r) })
}

func (w *world) Acquire(r Request, id WaitID) (granted bool, err error) {
	w.tb.Helper()
	err = w.request(func() error {
		var err error
		granted, err = w.table.Acquire(r, id)
		return err
	})
	return granted, err
}

func (w *world) Test(r Request) (h Hold, found bool, err error) {
	w.tb.Helper()
	before := w.state()
	h, found, err = w.table.Test(r)
	w.check()
	if !reflect.DeepEqual(before, w.state()) {
		w.tb.Fatalf("Test changed %v to %v", before, w.state())
	}
	return h, found, err
}

func (w *world) Unlock(k Key, p Party, via Via, r Range) {
	w.tb.Helper()
	w.table.Unlock(k, p, via, r)
	w.check()
}

func (w *world) End(k Key, why func(*Hold) Reason) {
	w.tb.Helper()
	w.table.End(k, why)
	w.check()
}

func (w *world) EndHandle(k Key, handle uint64, why Reason) {
	w.tb.Helper()
	w.table.EndHandle(k, handle, why)
	w.check()
}

func (w *world) EndOwner(k Key, file, owner uint64, why Reason) {
	w.tb.Helper()
	w.table.EndOwner(k, file, owner, why)
	w.check()
}

// EndNamed ends the hold by name of k, and reports whether there was one.
func (w *world) EndNamed(k Key, why Reason) bool {
	w.tb.Helper()
	h := w.table.Named(k)
	return h != nil && w.EndHold(h.ID, why)
}

// inGrace reports whether k is in grace, and until when.
func (w *world) inGrace(k Key) (until time.Duration, ok bool) {
	g := w.table.graces[k]
	if g == nil {
		return 0, false
	}
	return g.Until, true
}

func (w *world) EndHold(id HoldID, why Reason) bool {
	w.tb.Helper()
	was := w.table.EndHold(id, why)
	w.check()
	return was
}

func (w *world) Renew(k Key, which func(*Hold) bool) {
	w.tb.Helper()
	w.table.Renew(k, which)
	w.check()
}

func (w *world) SetPolicy(dir uint64, p Policy) {
	w.tb.Helper()
	w.policies[dir] = p
	w.table.SetPolicy(dir, p)
	w.check()
}

func (w *world) Move(from, to Key) error {
	w.tb.Helper()
	return w.request(func() error { return w.table.Move(from, to) })
}

func (w *world) Cancel(id WaitID) bool {
	w.tb.Helper()
	was := w.table.Cancel(id)
	w.check()
	return was
}

func (w *world) Expire() {
	w.tb.Helper()
	w.table.Expire()
	w.check()
}

// mirrored gives the table a mirror.
func (w *world) mirrored() *outside {
	w.mirror = newOutside(w.tb.Fatalf)
	w.table.Mirrored(w.mirror)
	return w.mirror
}

func (w *world) Reconsider(k Key) {
	w.tb.Helper()
	delete(w.mirror.awaited, k)
	w.table.Reconsider(k)
	w.check()
}

func (w *world) Shutdown() {
	w.tb.Helper()
	w.table.Shutdown()
	w.check()
}

// died tells the world that a process is gone. The table is not told: it asks
// when a step on the lock needs to know. So that the law can be checked,
// there is such a step on every lock at once, until nothing more happens.
func (w *world) died(pid uint32) {
	w.tb.Helper()
	w.procs.dead[pid] = true
	for n := -1; n != len(w.ledger.happenings); {
		n = len(w.ledger.happenings)
		for k := range w.state() {
			w.table.Unlock(k, Party{}, ViaFlock, Whole)
		}
	}
	w.check()
}

// wantErr fails the test unless err is want.
func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

func (h happening) String() string {
	switch {
	case h.wait == nil:
		return fmt.Sprintf("ended(%v, %v)", *h.hold, h.reason)
	case h.hold == nil:
		return fmt.Sprintf("refused(%v, %v)", *h.wait, h.err)
	}
	return fmt.Sprintf("granted(%v, %v)", *h.wait, *h.hold)
}
