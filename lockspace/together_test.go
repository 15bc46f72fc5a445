package lockspace

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

// Holds that are taken together: all of them, or none (design, part 4).

func (w *world) TryAll(requests ...Request) (refused int, err error) {
	w.tb.Helper()
	err = w.request(func() error {
		var err error
		refused, err = w.table.TryAll(requests)
		return err
	})
	return refused, err
}

// ownerAsks is what a named owner asks for.
func ownerAsks(owner uint64, mode Mode, name string) Request {
	return Request{
		Key: Key{1, name}, Via: ViaOwner, Mode: mode, Range: Whole,
		Party: Party{Handle: owner, Taker: Process{Pid: 100 + uint32(owner), Started: 1}},
	}
}

// flockAsks is what an open file asks for, of the process of the same number.
func flockAsks(handle uint64, mode Mode, name string) Request {
	r := ownerAsks(handle, mode, name)
	r.Via, r.Party.File = ViaFlock, 9
	return r
}

func (w *world) wantAll(wantRefused int, want error, requests ...Request) {
	w.tb.Helper()
	refused, err := w.TryAll(requests...)
	if err != want || err != nil && refused != wantRefused {
		w.tb.Fatalf("%v: request %d: %v, want request %d: %v", requests, refused, err, wantRefused, want)
	}
}

func (w *world) wantHolds(name string, want ...Mode) {
	w.tb.Helper()
	var got []Mode
	for h := range w.table.Holds(Key{1, name}) {
		got = append(got, h.Mode)
	}
	if len(got) != len(want) {
		w.tb.Fatalf("%s is held %v, want %v", name, got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			w.tb.Fatalf("%s is held %v, want %v", name, got, want)
		}
	}
}

func TestAllOrNone(t *testing.T) {
	w := newWorld(t)
	w.wantAll(0, nil, ownerAsks(1, Exclusive, "a"), ownerAsks(1, Shared, "b"))
	w.wantAll(1, ErrHeld, ownerAsks(2, Exclusive, "c"), ownerAsks(2, Exclusive, "b"), ownerAsks(2, Shared, "a"))
	w.wantHolds("c")
	w.wantAll(0, nil, ownerAsks(2, Shared, "b"), ownerAsks(2, Exclusive, "c"))
	w.wantHolds("b", Shared, Shared)
	// What it has is not taken again, and keeps its token.
	before := w.table.Latest(Key{1, "a"}).Token
	w.wantAll(0, nil, ownerAsks(1, Exclusive, "a"), ownerAsks(1, Exclusive, "d"))
	if now := w.table.Latest(Key{1, "a"}).Token; now != before {
		t.Errorf("the token was %d and is %d", before, now)
	}
	// An upgrade that others are in the way of takes nothing.
	w.wantAll(0, ErrHeld, ownerAsks(1, Exclusive, "b"), ownerAsks(1, Exclusive, "e"))
	w.wantHolds("e")
	w.EndHandle(Key{1, "b"}, 2, Released)
	w.wantAll(0, nil, ownerAsks(1, Exclusive, "b"))
	w.wantHolds("b", Exclusive)
	w.wantAll(0, nil, ownerAsks(1, Shared, "b"))
	w.wantHolds("b", Shared)
	w.wantAll(0, nil)
}

// It excludes every other idiom, its process's own too, and is excluded.
func TestANamedOwnerIsAPartyOfItsOwn(t *testing.T) {
	w := newWorld(t)
	w.wantAll(0, nil, ownerAsks(1, Exclusive, "a"))
	for _, r := range []Request{
		{Via: ViaFcntl, Party: Party{Handle: 7, Owner: 7}}, {Via: ViaFlock, Party: Party{Handle: 7}},
		{Via: ViaExcl, Party: Party{Handle: 7}}, {Via: ViaLink}, {Via: ViaOpen, Party: Party{Handle: 7}},
	} {
		r.Key, r.Range, r.Mode, r.Party.Taker = Key{1, "a"}, Whole, Exclusive, Process{Pid: 101, Started: 1}
		wantErr(t, r.Via.String()+" of what an owner holds", w.Try(r), ErrHeld)
		r.Key.Name = r.Via.String()
		wantErr(t, r.Key.Name, w.Try(r), nil)
		w.wantAll(0, ErrHeld, ownerAsks(1, Exclusive, r.Key.Name))
		var in []Hold
		w.table.InTheWay(ownerAsks(1, Exclusive, r.Key.Name), func(h *Hold, _ *Wait) bool {
			in = append(in, *h)
			return true
		})
		if len(in) != 1 || in[0].Via != r.Via {
			t.Errorf("in the way of the owner is %v, want one hold by %v", in, r.Via)
		}
	}
}

// Who waits for it gets it, and is not passed by one that came later.
func TestOwnersAndQueues(t *testing.T) {
	w := newWorld(t)
	w.wantAll(0, nil, ownerAsks(1, Shared, "a"), ownerAsks(1, Exclusive, "b"))
	if granted, err := w.Acquire(flockAsks(7, Exclusive, "a"), 1); granted || err != nil {
		t.Fatalf("a wait: %v, %v", granted, err)
	}
	if granted, err := w.Acquire(flockAsks(8, Shared, "b"), 2); granted || err != nil {
		t.Fatalf("a wait: %v, %v", granted, err)
	}
	w.wantAll(0, ErrHeld, ownerAsks(2, Shared, "a"))
	var before []WaitID
	w.table.InTheWay(ownerAsks(2, Shared, "a"), func(h *Hold, q *Wait) bool {
		if h != nil {
			t.Errorf("%v is in the way of a reader", *h)
			return false
		}
		before = append(before, q.ID)
		return true
	})
	if len(before) != 1 || before[0] != 1 {
		t.Errorf("the waits %v are in the way, want 1", before)
	}
	// The owner's own is no new request.
	w.wantAll(0, nil, ownerAsks(1, Shared, "a"))
	w.wantAll(0, nil, ownerAsks(1, Shared, "b"))
	w.wantHolds("b", Shared, Shared)
	w.EndHandle(Key{1, "a"}, 1, Reaped)
	w.wantHolds("a", Exclusive)
}

func TestTogetherInGraceAndWithoutTokens(t *testing.T) {
	w := newWorld(t)
	w.SetPolicy(1, Policy{Grace: time.Second})
	w.wantAll(0, nil, ownerAsks(1, Exclusive, "a"))
	w.EndHandle(Key{1, "a"}, 1, Reaped)
	if !w.table.InGrace(Key{1, "a"}) || w.table.InGrace(Key{1, "b"}) {
		t.Error("grace is not where a hold was reaped")
	}
	w.wantAll(1, ErrGrace, ownerAsks(2, Exclusive, "b"), ownerAsks(2, Exclusive, "a"))
	w.clock.advance(2 * time.Second)
	w.Expire()
	*w.tokens = Counter(^uint64(0) - 1) // one is left
	w.wantAll(0, ErrTokens, ownerAsks(2, Exclusive, "b"), ownerAsks(2, Exclusive, "a"))
	w.wantAll(0, nil, ownerAsks(2, Exclusive, "a"))
}

// What a mirror covered of a step that fails is given back.
func TestTogetherWithAMirror(t *testing.T) {
	w := newWorld(t)
	o := w.mirrored()
	o.strangers[Key{1, "b"}] = []strange{{cellsOf(Whole), Shared}}
	w.wantAll(1, ErrForeign, ownerAsks(1, Exclusive, "a"), ownerAsks(1, Exclusive, "b"))
	if len(o.covered) > 0 {
		t.Errorf("covered after a refusal: %v", o.covered)
	}
	// A stranger decides it, whatever else has yet to be opened; what the table
	// knows comes first.
	o.closed[Key{1, "a"}] = true
	w.wantAll(1, ErrForeign, ownerAsks(1, Exclusive, "a"), ownerAsks(1, Exclusive, "b"))
	w.wantAll(0, ErrLookup, ownerAsks(1, Exclusive, "a"), ownerAsks(1, Shared, "b"))
	wantErr(t, "flock", w.Try(flockAsks(7, Exclusive, "c")), nil)
	w.wantAll(2, ErrHeld, ownerAsks(1, Exclusive, "a"), ownerAsks(1, Exclusive, "b"), ownerAsks(1, Shared, "c"))
	clear(o.closed)
	w.wantAll(0, nil, ownerAsks(1, Exclusive, "a"), ownerAsks(1, Shared, "b"))
	if o.take(Key{1, "a"}, strange{cellsOf(Whole), Shared}) {
		t.Error("a stranger has what an owner holds exclusively")
	}
}

// Holds that go to another process are the same holds.
func TestPassOn(t *testing.T) {
	w := newWorld(t)
	w.mirrored()
	w.wantAll(0, nil, ownerAsks(1, Shared, "a"))
	w.wantAll(0, nil, ownerAsks(2, Shared, "a"))
	before := *w.table.Latest(Key{1, "a"})
	to := Process{Pid: 555, Started: 5}
	w.table.PassOn(Key{1, "a"}, 2, Party{Taker: to, Opener: to})
	w.check()
	after := *w.table.Latest(Key{1, "a"})
	if after.Party.Taker != to || after.Token != before.Token || after.ID != before.ID || after.Since != before.Since {
		t.Errorf("the hold was %v and is %v", before, after)
	}
	for h := range w.table.Holds(Key{1, "a"}) {
		if h.Party.Handle == 1 && h.Party.Taker.Pid != 101 {
			t.Errorf("another owner's hold is now %v", *h)
		}
	}
	w.crash()
	w.table.PassOn(Key{1, "nobody's"}, 2, Party{})
	w.check()
}

// Owners ask for what they like in any order, beside others who wait, over crashes.
func TestTogetherAtRandom(t *testing.T) {
	for seed := range uint64(20) {
		w := newWorld(t)
		rng := rand.New(rand.NewPCG(seed, 11))
		names := []string{"a", "b", "c", "d", "e"}
		had := make(map[uint64]map[string]Mode) // by owner
		nextWait := WaitID(1)
		mine := func(owner uint64) map[string]Mode {
			now := make(map[string]Mode)
			for _, name := range names {
				for h := range w.table.Holds(Key{1, name}) {
					if h.Party.Handle == owner {
						now[name] = h.Mode
					}
				}
			}
			return now
		}
		for range 300 {
			who := 1 + rng.Uint64N(4)
			switch rng.IntN(6) {
			default:
				var ask []Request
				want := maps.Clone(had[who])
				if want == nil {
					want = make(map[string]Mode)
				}
				for _, i := range rng.Perm(len(names))[:1+rng.IntN(4)] {
					r := ownerAsks(who, Mode(rng.IntN(2)), names[i])
					ask = append(ask, r)
					want[names[i]] = r.Mode
				}
				if _, err := w.TryAll(ask...); err == nil {
					had[who] = want
				}
			case 0:
				name := names[rng.IntN(len(names))]
				w.EndHandle(Key{1, name}, who, Released)
				delete(had[who], name)
			case 1:
				_, err := w.Acquire(flockAsks(50+rng.Uint64N(3), Mode(rng.IntN(2)), names[rng.IntN(len(names))]), nextWait)
				wantErr(t, "flock", err, nil)
				nextWait++
			case 2:
				w.EndHandle(Key{1, names[rng.IntN(len(names))]}, 50+rng.Uint64N(3), Released)
			}
			if rng.IntN(30) == 0 {
				w.crash()
			}
			if now := mine(who); !maps.Equal(now, had[who]) {
				t.Fatalf("seed %d: owner %d has %v, want %v", seed, who, now, had[who])
			}
		}
	}
}
