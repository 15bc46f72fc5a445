package lockspace

import (
	"math"
	"testing"
	"time"
)

// A hold in a lockspace with a lease ends unless it is renewed in time (design
// 1.3).
func TestLease(t *testing.T) {
	tests := map[string]string{
		"it runs out": `
			policy 10s 0s  ->
			a flock x      -> got
			b flock x      -> waits
			next           -> 9.998s
			pass 9995ms    ->
			expire         ->
			expire         -> a(expired) +b
			next           -> 9.999s
			= b x`,
		"a touch renews it": `
			policy 10s 0s  ->
			a link         -> got
			pass 9s        ->
			a touches      ->
			next           -> 9.999s
			pass 9s        ->
			expire         ->
			pass 1s        ->
			expire         -> a(expired)
			=`,
		"before it is ended it is in time": `
			policy 10s 0s  ->
			a link         -> got
			pass 1m        ->
			b try link     -> held
			a touches      ->
			expire         ->
			= a x link`,
		"another's touch renews his own": `
			policy 10s 0s  ->
			a flock s      -> got
			b flock s      -> got
			pass 9s        ->
			b touches      ->
			pass 5s        ->
			expire         -> a(expired)
			= b s`,
		"a lock call renews what its party has there": `
			policy 10s 0s  ->
			a named        -> got
			a flock x      -> got
			pass 9s        ->
			a posix x 0-0  -> got
			pass 9s        ->
			expire         ->
			a unposix 0-   -> -a
			pass 9s        ->
			expire         ->
			pass 1s        ->
			expire         -> a(expired) a(expired)`,
		"on that lock": `
			policy 10s 0s  ->
			a posix x 0-0  -> got
			a posix x 0-0 on M -> got
			pass 9s        ->
			a posix x 0-0  -> got
			pass 1s        ->
			expire         -> a(expired)
			= a x 0-0
			=M`,
		"so does an unlock, of what is left": `
			policy 10s 0s  ->
			a posix x 0-9  -> got
			pass 9s        ->
			a unposix 3-4  ->
			pass 9s        ->
			expire         ->
			= a x 0-2, a x 5-9
			pass 1s        ->
			expire         -> a(expired) a(expired)`,
		"so does one that waits": `
			policy 10s 0s  ->
			a posix s 0-9  -> got
			b posix s 0-9  -> got
			pass 9s        ->
			a posix x 0-9  -> waits
			pass 1s        ->
			expire         -> b(expired) +a`,
		"one that is refused does not": `
			policy 10s 0s  ->
			a posix s 0-9  -> got
			b posix s 0-9  -> got
			pass 9s        ->
			a try posix x 0-9 -> held
			pass 1s        ->
			expire         -> a(expired) b(expired)`,
		"others' calls do not": `
			policy 10s 0s  ->
			a flock s      -> got
			pass 9s        ->
			b flock s      -> got
			a' flock s     -> got
			b unflock      -> -b
			pass 1s        ->
			expire         -> a(expired)
			= a' s`,
		"the waits of the file that loses its hold end": `
			policy 10s 0s  ->
			a posix x 0-4  -> got
			b posix x 5-9  -> got
			pass 5s        ->
			b touches      ->
			a posix x 5-9  -> waits
			pass 9s        ->
			b touches      ->
			pass 1s        ->
			expire         -> a:broken a(expired)
			= b x 5-9`,
		"a new lease counts from the last renewal": `
			policy 10s 0s  ->
			a flock x      -> got
			pass 4s        ->
			policy 20s 0s  ->
			next           -> 15.997s
			policy 2s 0s   ->
			next           -> -2.005s
			expire         -> a(expired)`,
		"also for those who had none": `
			a flock x      -> got
			pass 4s        ->
			b try flock x on M -> got
			policy 5s 0s   ->
			next           -> 996ms
			pass 995ms     ->
			expire         -> a(expired)
			=M b x`,
		"and what was renewed when there was none is": `
			a flock x      -> got
			pass 4s        ->
			a touches      ->
			policy 5s 0s   ->
			next           -> 4.998s`,
		"a lease that is taken back": `
			policy 10s 0s  ->
			a flock x      -> got
			policy 0s 0s   ->
			next           -> never
			pass 1h        ->
			expire         ->
			= a x`,
		"who gave back needs no lease": `
			policy 10s 0s  ->
			a flock x      -> got
			a unflock      -> -a
			next           -> never`,
		"places and leases lapse in one order": `
			policy 10s 0s  ->
			a flock x      -> got
			b flock x      -> waits
			b interrupted  ->
			next           -> 999ms
			pass 1s        ->
			expire         ->
			next           -> 8.994s
			= a x`,
		"what is due at once ends before anybody enters": `
			policy 10s 0s  ->
			a flock s      -> got
			b flock x      -> waits
			a flock s on M -> got
			b flock x on M -> waits
			pass 10s       ->
			expire         -> a(expired) a(expired) +b +b`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// After an abnormal end nobody gets the lock for a while.
func TestGrace(t *testing.T) {
	tests := map[string]string{
		"nobody gets it": `
			policy 0s 5s   ->
			a link         -> got
			a ends reaped  -> a(reaped)
			grace          -> 4.999s
			=
			b try flock s  -> grace
			b try named    -> grace
			b try mkdir    -> grace
			b mkdir        -> grace
			a try link     -> grace
			b test posix x 0-9 -> free
			b flock x      -> waits
			c flock x      -> waits
			next           -> 4.99s
			pass 4990ms    ->
			expire         -> +b
			grace          -> none
			= b x | c`,
		"who waits already goes on waiting": `
			policy 0s 5s   ->
			a flock x      -> got
			b posix s 0-4  -> waits
			c posix s 3-9  -> waits
			d breaks       -> !a
			= | b c
			pass 5s        ->
			expire         -> +b +c`,
		"not after an ordinary end": `
			policy 0s 5s   ->
			a flock x      -> got
			b flock x      -> waits
			a unflock      -> -a +b
			b close        -> -b
			a named        -> got
			a removes      -> -a
			a posix x 0-4  -> got
			a flush        -> -a
			grace          -> none
			a try mkdir    -> got`,
		"a holder that is killed": `
			policy 0s 5s   ->
			a flock x      -> got
			a posix x 0-4  -> got
			b flock x      -> waits
			a killed       -> a(died) a(died)
			= | b
			pass 5s        ->
			expire         -> +b`,
		"a holder whose file others have": `
			policy 0s 5s   ->
			a posix x 0-4  -> got
			b posix x 5-9  -> got
			c@a posix x 5-9 -> waits
			a exits        -> a(died)
			= b x 5-9 | c@a
			b close        -> -b
			pass 5s        ->
			expire         -> +c@a`,
		"who dies holding nothing leaves no grace": `
			policy 0s 5s   ->
			a flock x      -> got
			b flock x      -> waits
			b interrupted  ->
			b killed       ->
			grace          -> none`,
		"a lease that runs out": `
			policy 2s 5s   ->
			a symlink      -> got
			b flock x      -> waits
			pass 2s        ->
			expire         -> a(expired)
			next           -> 4.999s
			pass 5s        ->
			expire         -> +b`,
		"it is of one lock": `
			policy 0s 5s   ->
			a link         -> got
			a ends lost    -> a(lost)
			b try link on M -> got`,
		"those who hold go on, and get no more": `
			policy 0s 5s   ->
			a flock s      -> got
			b flock s      -> got
			a killed       -> a(died)
			b flock s      -> got
			b try flock x  -> grace
			c try flock s  -> grace
			c flock s      -> waits
			= b s | c
			pass 5s        ->
			expire         -> +c
			= b s, c s`,
		"a weaker lock is no more": `
			policy 0s 5s   ->
			a posix x 0-4  -> got
			b posix x 5-9  -> got
			a killed       -> a(died)
			b posix s 5-7  -> got
			b try posix s 4-7 -> grace
			= b x 8-9, b s 5-7`,
		"another abnormal end makes it longer": `
			policy 0s 5s   ->
			a flock s      -> got
			b flock s      -> got
			a killed       -> a(died)
			pass 3s        ->
			grace          -> 1.998s
			b killed       -> b(died)
			grace          -> 4.999s
			pass 2s        ->
			expire         ->
			c try link     -> grace
			pass 3s        ->
			expire         ->
			c try link     -> got`,
		"one that has begun is as long as it was to be": `
			policy 0s 5s   ->
			a link         -> got
			a ends reaped  -> a(reaped)
			policy 0s 0s   ->
			next           -> 4.998s
			policy 0s 1h   ->
			next           -> 4.996s
			pass 5s        ->
			expire         ->
			grace          -> none`,
		"a wait that is given up in it": `
			policy 0s 5s   ->
			a link         -> got
			b flock x      -> waits
			a ends reaped  -> a(reaped)
			b interrupted  ->
			= | b~
			pass 2s        ->
			expire         ->
			=
			grace          -> 2.996s
			b flock x      -> waits
			shutdown       -> b:shutdown
			grace          -> 2.993s`,
		"an open file cannot come back to a place in it before its end": `
			policy 0s 5s   ->
			a link         -> got
			b flock x      -> waits
			c flock x      -> waits
			a ends reaped  -> a(reaped)
			b interrupted  ->
			b flock x      -> waits
			= | b c
			pass 5s        ->
			expire         -> +b`,
		"a conversion that waits for its end loses what it converts": `
			policy 0s 5s   ->
			a flock s      -> got
			b flock s      -> got
			a killed       -> a(died)
			b flock x      -> waits -b
			= | b
			pass 5s        ->
			expire         -> +b`,
		"a queue of everybody": `
			policy 0s 5s   ->
			a named        -> got
			b flock s      -> waits
			c posix s 0-9  -> waits
			d ofd x 4-     -> waits
			a ends broken  -> !a
			pass 5s        ->
			expire         -> +b +c
			b close        -> -b
			c close        -> -c +d`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// Times that cannot be told from never, and durations that are none.
func TestPolicyExtremes(t *testing.T) {
	w := newWorld(t)
	r := Request{Key: Key{1, "L"}, Via: ViaLink}
	w.SetPolicy(1, Policy{Lease: math.MaxInt64, Grace: math.MaxInt64})
	wantNext := func(want time.Duration) {
		t.Helper()
		if at, ok := w.table.NextExpiry(); ok != (want > 0) || ok && at != want {
			t.Fatalf("NextExpiry is %v, %v, want %v", at, ok, want)
		}
	}
	wantErr(t, "link", w.table.Try(r), nil)
	wantNext(math.MaxInt64)
	w.table.Expire()
	w.table.EndHold(w.table.Named(r.Key).ID, Reaped)
	if until, ok := w.inGrace(r.Key); !ok || until != math.MaxInt64 {
		t.Fatalf("in grace until %v, %v", until, ok)
	}
	w.table.SetPolicy(1, Policy{Lease: -1, Grace: -1})
	r.Key.Name = "M"
	wantErr(t, "link", w.table.Try(r), nil)
	w.table.EndHold(w.table.Named(r.Key).ID, Reaped)
	wantErr(t, "link again", w.table.Try(r), nil)
	if len(w.table.policies) != 0 {
		t.Fatal("a policy of nothing is kept")
	}
	wantNext(math.MaxInt64)
}

// When a hold was renewed is told on both clocks.
func TestLastRenewal(t *testing.T) {
	w := newWorld(t)
	r := Request{Key: Key{1, "L"}, Via: ViaLink}
	wantErr(t, "link", w.Try(r), nil)
	w.clock.advance(3 * time.Second)
	w.Renew(r.Key, func(*Hold) bool { return true })
	if h := w.table.Named(r.Key); h.LastRenewal() != w.clock.now || h.Since == w.clock.now {
		t.Fatalf("since %v, renewed at %v, now is %v", h.Since, h.LastRenewal(), w.clock.now)
	}
}

// Records of damaged memory: one lock with two graces.
func TestRestoreTwoGraces(t *testing.T) {
	w := newWorld(t)
	k := Key{1, "L"}
	table := Restore(w.env(), nil, nil, []Grace{{ID: 3, Key: k, Until: start}, {ID: 9, Key: k, Until: start}})
	if err := checkInvariants(table); err != nil {
		t.Fatal(err)
	}
}

// TestWhatWasHeldHasAWholeLease: a lease that is set later, and runs from then
// on, ends nothing at once.
func TestWhatWasHeldHasAWholeLease(t *testing.T) {
	w := newWorld(t)
	r := Request{Key: Key{1, "a"}, Party: Party{Handle: 1, Taker: Process{Pid: 1}}, Via: ViaFlock, Mode: Exclusive, Range: Whole}
	if err := w.Try(r); err != nil {
		t.Fatal(err)
	}
	w.clock.advance(time.Hour)
	now := w.clock.now.Boot
	w.SetPolicy(1, Policy{Lease: 10 * time.Second, From: now})
	w.Expire()
	if at, ok := w.table.NextExpiry(); !w.table.Held(r.Key) || !ok || at != now+10*time.Second {
		t.Fatalf("held: %t; ends at %v, want %v", w.table.Held(r.Key), at, now+10*time.Second)
	}
	w.clock.advance(10 * time.Second)
	w.Expire()
	if w.table.Held(r.Key) {
		t.Error("still held after its lease")
	}
}
