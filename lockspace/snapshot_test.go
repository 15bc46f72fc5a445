package lockspace

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"
)

// watched is a snapshot under way, and what it has to show in the end.
type watched struct {
	*Snapshot
	want map[Key]lockState
}

// begin begins a snapshot of some directories, or of all. From here on its law
// is checked after every step.
func (w *world) begin(dirs ...uint64) *watched {
	w.tb.Helper()
	x := &watched{w.table.Snapshot(dirs...), make(map[Key]lockState)}
	if x.Began != w.clock.now {
		w.tb.Fatalf("a snapshot began at %v, and it is %v", x.Began, w.clock.now)
	}
	for k, st := range w.state() {
		if len(dirs) == 0 || slices.Contains(dirs, k.Dir) {
			show(x.want, k, st.holds, st.queue)
		}
	}
	w.snapshots = append(w.snapshots, x)
	w.check()
	return x
}

// gather gathers a snapshot further, by n.
func (w *world) gather(x *watched, n int) (complete bool) {
	w.tb.Helper()
	holds, waits := x.Len()
	if complete = x.Gather(n); complete {
		w.leave(x)
	}
	w.check()
	longest := 0
	for _, st := range x.want {
		longest = max(longest, len(st.holds)+len(st.queue))
	}
	if h, q := x.Len(); h+q > holds+waits+n+longest {
		w.tb.Fatalf("a step of %d gathered %d holds and %d waits", n, h-holds, q-waits)
	}
	if got := x.shown(); complete && !reflect.DeepEqual(got, x.want) {
		w.tb.Fatalf("the snapshot shows\n%v\nand began with\n%v", got, x.want)
	}
	return complete
}

// drop drops a snapshot.
func (w *world) drop(x *watched) {
	w.tb.Helper()
	x.Drop()
	w.leave(x)
	w.check()
	if h, q := x.Len(); h+q != 0 || !x.Gather(1) {
		w.tb.Fatalf("a dropped snapshot has %d holds and %d waits, or goes on", h, q)
	}
}

func (w *world) leave(x *watched) {
	w.snapshots = slices.DeleteFunc(w.snapshots, func(o *watched) bool { return o == x })
}

// show adds what a snapshot shows of a lock: its holds and its present waits.
func show(in map[Key]lockState, k Key, holds []Hold, queue []Wait) {
	st := in[k]
	st.holds = append(st.holds, holds...)
	for _, q := range queue {
		if q.AbsentUntil == 0 {
			st.queue = append(st.queue, q)
		}
	}
	if len(st.holds)+len(st.queue) > 0 {
		in[k] = st
	}
}

// shown returns what s shows so far.
func (s *Snapshot) shown() map[Key]lockState {
	got := make(map[Key]lockState)
	for h := range s.Holds() {
		show(got, h.Key, []Hold{*h}, nil)
	}
	for q := range s.Waits() {
		show(got, q.Key, nil, []Wait{*q})
	}
	return got
}

// checkSnapshots checks the law of [Snapshot]: what each has, and what it still
// comes by, is what it has to show.
func (w *world) checkSnapshots() {
	w.tb.Helper()
	if len(w.snapshots) != len(w.table.snapshots) {
		w.tb.Fatalf("%d snapshots are under way, should be %d", len(w.table.snapshots), len(w.snapshots))
	}
	state := w.state()
	for _, x := range w.snapshots {
		got := x.shown()
		for _, l := range x.toCome() {
			if l.saved < x.number {
				if _, twice := got[l.key]; twice {
					w.tb.Fatalf("%v was handed over and counts as if it were not", l.key)
				}
				show(got, l.key, state[l.key].holds, state[l.key].queue)
			}
		}
		if !reflect.DeepEqual(got, x.want) {
			w.tb.Fatalf("a snapshot would show\n%v\nand began with\n%v", got, x.want)
		}
	}
}

// toCome returns the locks that a snapshot still comes by.
func (s *Snapshot) toCome() (locks []*lock) {
	c := *s // to walk where it will, and take nothing
	for {
		if c.at != nil {
			for place, l := range c.at.After(c.after) {
				if place <= c.end {
					locks = append(locks, l)
				}
			}
			c.at = nil
		}
		if !c.nextListing() {
			break
		}
	}
	for m := c.mark; m != nil; m = m.next {
		if s.isOf(m.lock.key.Dir) && !slices.Contains(locks, m.lock) {
			locks = append(locks, m.lock)
		}
	}
	return locks
}

// busy is a world in which many come and go.
type busy struct {
	*world
	random  *rand.Rand
	handles uint64
	waits   WaitID
}

func newBusy(t *testing.T, seed uint64) *busy {
	return &busy{world: newWorld(t), random: rand.New(rand.NewPCG(seed, 7))}
}

func (b *busy) key() Key {
	return Key{uint64(1 + b.random.IntN(4)), strconv.Itoa(b.random.IntN(12))}
}

// stir changes something.
func (b *busy) stir() {
	b.tb.Helper()
	k := b.key()
	b.clock.advance(time.Millisecond)
	switch b.random.IntN(12) {
	case 0:
		b.End(k, func(*Hold) Reason { return Released })
	case 1:
		b.End(k, func(*Hold) Reason { return Died })
	case 2:
		b.Cancel(WaitID(1 + b.random.Uint64N(uint64(b.waits)+1)))
	case 3:
		b.Renew(k, func(*Hold) bool { return true })
	case 4:
		b.clock.advance(300 * time.Millisecond)
		b.Expire()
	case 5:
		if err := b.Move(k, b.key()); err != nil {
			return
		}
	case 6:
		b.handles++
		_ = b.Try(Request{Key: k, Via: ViaMkdir, Party: Party{File: b.handles}})
	default:
		b.handles++
		b.waits++
		r := Request{Key: k, Via: ViaFlock, Mode: Mode(b.random.IntN(2)), Range: Whole, Party: Party{Handle: b.handles}}
		if _, err := b.Acquire(r, b.waits); err != nil {
			b.tb.Fatalf("%v: %v", r, err)
		}
	}
}

// A snapshot shows the moment at which it began, in steps of any length,
// whatever happens in between; several do at once.
func TestSnapshot(t *testing.T) {
	for n := 1; n <= 64; n *= 4 {
		t.Run(fmt.Sprint("by ", n), func(t *testing.T) {
			b := newBusy(t, uint64(n))
			b.SetPolicy(2, Policy{Grace: time.Second})
			b.SetPolicy(3, Policy{Grace: time.Minute, Lease: time.Second})
			for range 300 {
				b.stir()
			}
			complete, largest := 0, 0
			for complete < 10 {
				if len(b.snapshots) < 4 && b.random.IntN(4) == 0 {
					var dirs []uint64
					for len(b.snapshots)%2 == 1 && len(dirs) < 2 {
						dirs = append(dirs, 1+b.random.Uint64N(5))
					}
					x := b.begin(dirs...)
					largest = max(largest, len(x.want))
				}
				for range b.random.IntN(8) {
					b.stir()
				}
				for _, x := range slices.Clone(b.snapshots) {
					switch {
					case b.random.IntN(100) == 0:
						b.drop(x)
					case b.gather(x, n):
						complete++
					}
				}
			}
			if largest < 10 {
				t.Fatalf("the largest snapshot had %d locks", largest)
			}
		})
	}
}

// Who waits for a lock that nobody holds, since it is in grace, is shown too.
func TestSnapshotOfWhoWaitsInGrace(t *testing.T) {
	w := newWorld(t)
	w.SetPolicy(1, Policy{Grace: time.Minute})
	request := func(name string, handle uint64) Request {
		return Request{Key: Key{1, name}, Via: ViaFlock, Mode: Exclusive, Range: Whole, Party: Party{Handle: handle}}
	}
	for i, name := range []string{"a", "b", "c"} {
		handle := uint64(2*i + 1)
		wantErr(t, "take", w.Try(request(name, handle)), nil)
		if granted, err := w.Acquire(request(name, handle+1), WaitID(handle)); granted || err != nil {
			t.Fatal(granted, err)
		}
		w.EndHandle(Key{1, name}, handle, Died)
	}
	whole, dir, other := w.begin(), w.begin(1), w.begin(2)
	for !w.gather(whole, 1) {
		// Its graces end one after the other while it goes along.
		w.clock.advance(time.Minute)
		w.Expire()
	}
	for _, x := range []*watched{dir, other} {
		for !w.gather(x, 1) {
		}
	}
	for x, want := range map[*watched]int{whole: 3, dir: 3, other: 0} {
		if holds, waits := x.Len(); holds != 0 || waits != want {
			t.Errorf("%d holds and %d waits, want 0 and %d", holds, waits, want)
		}
	}
}

// What is complete or dropped costs the table nothing any more, and one that
// nobody goes on with has no more than the table had.
func TestSnapshotsEnd(t *testing.T) {
	b := newBusy(t, 1)
	for range 200 {
		b.stir()
	}
	left := b.begin()
	dropped := b.begin()
	first := b.begin()
	for !b.gather(first, 10) {
	}
	for range 3000 {
		b.stir()
	}
	total := 0
	for _, st := range left.want {
		total += len(st.holds) + len(st.queue)
	}
	if holds, waits := left.Len(); holds+waits > total || total == 0 {
		t.Errorf("one that nobody goes on with has %d holds and %d waits of %d", holds, waits, total)
	}
	b.drop(dropped)
	b.drop(dropped)
	b.drop(left)
	b.drop(first)
	if b.table.snapshots != nil {
		t.Error("the table still has snapshots")
	}
}

// An empty table, and directories that there are not, have empty snapshots.
func TestSnapshotOfNothing(t *testing.T) {
	w := newWorld(t)
	for _, dirs := range [][]uint64{nil, {1}, {3, 1, 3, 2}} {
		x := w.begin(dirs...)
		for !w.gather(x, 1) {
		}
		for range x.Holds() {
			t.Error("there is a hold")
		}
	}
}
