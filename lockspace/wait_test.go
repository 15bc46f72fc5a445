package lockspace

import (
	"slices"
	"testing"
)

// A wait that is interrupted ends at once and keeps its place for a second:
// the kernel restarts the call of a process that was stopped and continued
// (design 1.5).
func TestCancelAndResume(t *testing.T) {
	tests := map[string]string{
		"it keeps its place": `
			a flock x      -> got
			b flock x      -> waits
			c flock x      -> waits
			b interrupted  ->
			= a x | b~ c
			pass 900ms     ->
			b flock x      -> waits
			= a x | b c
			a close        -> -a +b`,
		"not for ever": `
			a flock x      -> got
			b flock x      -> waits
			c flock x      -> waits
			b interrupted  ->
			next           -> 999ms
			pass 996ms     ->
			expire         ->
			= a x | b~ c
			pass 1ms       ->
			expire         ->
			= a x | c
			b flock x      -> waits
			= a x | c b
			next           -> never`,
		"not for ever, also when nobody calls Expire in time": `
			a flock x      -> got
			b flock x      -> waits
			c flock x      -> waits
			b interrupted  ->
			pass 1s        ->
			b flock x      -> waits
			= a x | b~ c b
			expire         ->
			= a x | c b`,
		"an open that is made again has another file, and the same thread": `
			a open x       -> got
			b open x       -> waits
			c open x       -> waits
			b interrupted  ->
			= a x | b~ c
			b' open s      -> waits      # it asks for something else
			= a x | b~ c b'
			d open x       -> waits      # somebody else
			b'' open x     -> waits
			= a x | b'' c b' d
			a close        -> -a +b''`,
		"it keeps nobody waiting": `
			a flock s      -> got
			b flock x      -> waits
			c flock s      -> waits
			b interrupted  -> +c
			d flock s      -> got
			= a s, c s, d s | b~`,
		"it is not granted what it does not wait for": `
			a flock x      -> got
			b flock x      -> waits
			b interrupted  ->
			a close        -> -a
			= | b~
			c excl         -> got
			c close        -> -c
			b flock x      -> got
			= b x`,
		"what came back is granted in its old place": `
			a posix x 0-9  -> got
			b posix x 0-4  -> waits
			c posix x 0-9  -> waits
			b interrupted  ->
			a unposix 0-4  ->
			= a x 5-9 | b~ c
			b posix x 0-4  -> got
			a close        -> -a
			b close        -> -b +c`,
		"only the same call by the same party comes back": `
			a flock x      -> got
			b posix x 0-9  -> waits
			c posix x 0-9  -> waits
			b interrupted  ->
			b posix x 0-8  -> waits
			b posix s 0-9  -> waits
			b ofd x 0-9    -> waits
			b' posix x 0-9 -> waits
			= a x | b~ c b b b b'
			b posix x 0-9  -> waits
			= a x | b c b b b b'`,
		"twice": `
			a flock x      -> got
			b flock x      -> waits
			c flock x      -> waits
			b interrupted  ->
			b flock x      -> waits
			pass 900ms     ->
			b interrupted  ->
			b interrupted  -> nothing
			pass 500ms     ->
			expire         ->
			= a x | b~ c
			b flock x      -> waits
			= a x | b c`,
		"a place is gone when its file is": `
			a flock x      -> got
			b flock x      -> waits
			b interrupted  ->
			b close        ->
			= a x`,
		"a place does not keep a lock listed": `
			a flock x      -> got
			b flock x      -> waits
			b interrupted  ->
			a close        -> -a
			= | b~
			pass 2s        ->
			expire         ->
			=`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// A resumed wait makes those behind it depend on what it waits for; and a
// resumed request that is granted at once is waited for by those behind it.
func TestResumeChangesTheGraph(t *testing.T) {
	tests := map[string]string{
		"a holder may pass now, on another lock": `
			a posix x 0-0       -> got        # what r waits for
			u posix x 1-1       -> got        # what q waits for
			q posix x 0-0 on M  -> got
			r posix x 0-1       -> waits
			q posix x 1-1       -> waits
			r interrupted       ->
			y posix x 0-9 on M  -> waits      # for q, who waits for u only
			a posix s 5-5 on M  -> waits      # behind y
			r posix x 0-1       -> waits +a   # q stands behind r, who waits for a`,
		"a cycle is closed by a grant at once": `
			z posix x 5-5       -> got
			y posix x 0-0       -> got
			q posix x 0-0 on M  -> got
			p posix x 0-0       -> waits      # for y
			q posix x 0-9       -> waits      # for y and z
			p interrupted       ->
			p' posix x 0-0 on M -> waits      # another thread of p, for q
			y close             -> -y
			p posix x 0-0       -> got q:deadlock`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// A request that is sent back to be looked up may keep the place at which it
// arrived.
func TestReserve(t *testing.T) {
	w := newWorld(t)
	request := func(handle uint64) Request {
		return Request{Key: Key{1, "L"}, Via: ViaFlock, Mode: Exclusive, Range: Whole, Party: Party{Handle: handle}}
	}
	wantErr(t, "the holder", w.Try(request(1)), nil)
	place := w.table.Reserve()
	for _, handle := range []uint64{3, 4} {
		_, err := w.Acquire(request(handle), WaitID(handle))
		wantErr(t, "one who came later", err, nil)
	}
	first := request(2)
	first.Reserved = place
	_, err := w.Acquire(first, 2)
	wantErr(t, "one who comes back", err, nil)
	for holder := uint64(1); holder < 4; holder++ {
		w.take()
		w.EndHandle(request(holder).Key, holder, Released)
		if h := w.take(); len(h) != 2 || h[1].wait == nil || h[1].wait.ID != WaitID(holder+1) {
			t.Fatalf("after %d came %v", holder, h)
		}
	}
}

// Shutdown refuses every wait, lets nobody in on the way, and leaves the
// holds alone.
func TestShutdown(t *testing.T) {
	play(t, `
		a flock s      -> got
		b flock x      -> waits
		c flock s      -> waits     # would enter if b left alone
		d flock x      -> waits
		d interrupted  ->
		e posix x 0-9 on M -> got
		f posix x 0-9 on M -> waits
		shutdown       -> b:shutdown c:shutdown f:shutdown
		= a s
		=M e x 0-9
		next           -> never
		a close        -> -a`)
}

// NextExpiry is when Expire has something to do.
func TestNextExpiry(t *testing.T) {
	play(t, `
		next           -> never
		a flock x      -> got
		b flock x      -> waits
		c flock x      -> waits
		next           -> never
		c interrupted  ->
		pass 500ms     ->
		b interrupted  ->
		next           -> 497ms
		pass 498ms     ->
		expire         ->
		= a x | b~
		next           -> 498ms
		crash          ->
		next           -> 496ms
		pass 1s        ->
		expire         ->
		next           -> never
		= a x`)
}

// Whoever waits is told how it ended exactly once.
func TestEveryWaitEndsOnce(t *testing.T) {
	w := newWorld(t)
	key := Key{1, "L"}
	request := func(handle uint64) Request {
		return Request{Key: key, Via: ViaFlock, Mode: Exclusive, Range: Whole, Party: Party{Handle: handle}}
	}
	for handle := range uint64(8) {
		if granted, err := w.Acquire(request(handle+1), WaitID(handle+1)); err != nil || granted != (handle == 0) {
			t.Fatalf("handle %d: %v, %v", handle+1, granted, err)
		}
	}
	w.Cancel(3)
	w.EndHandle(key, 1, Released)                    // 2 enters
	w.EndHandle(key, 4, Released)                    // a file that is closed while it waits
	w.End(key, func(*Hold) Reason { return Broken }) // 2 is broken, 5 enters
	w.Unlock(key, request(5).Party, ViaFlock, Whole) // 6 enters
	w.Shutdown()                                     // 7 and 8 are refused
	want := []WaitID{2, 4, 5, 6, 7, 8}
	var got []WaitID
	for _, h := range w.take() {
		if h.wait != nil {
			got = append(got, h.wait.ID)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("waits that ended: %v, want %v", got, want)
	}
}
