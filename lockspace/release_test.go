package lockspace

import (
	"slices"
	"testing"
)

// What gives what back (design 1.2, fact 17).
func TestRelease(t *testing.T) {
	tests := map[string]string{
		"an unlock gives back its idiom only": `
			a excl         -> got
			a flock x      -> got
			a posix x 0-9  -> got
			a unflock      -> -a
			= a x, a x 0-9
			a unposix 0-   -> -a
			= a x
			a unexcl       -> -a
			=`,
		"an unlock gives back its own only": `
			a flock s      -> got
			b flock s      -> got
			c unflock      ->
			b unflock      -> -b
			= a s`,
		"to unlock what is free is no error": `
			a unflock      ->
			a unposix 0-9  ->
			a unexcl       ->
			=`,
		"an inherited handle's flock is given back by any who has it": `
			a flock x      -> got
			c@a unflock    -> -a`,
		"flush gives the process's posix ranges back, through whatever handle": `
			a posix x 0-4  -> got
			a' posix x 9-9 -> got
			a flock x      -> got
			b posix s 5-5  -> waits
			a flush        -> -a -a'
			a release      -> -a +b`,
		"a forked child's close does not": `
			a posix x 0-4  -> got
			c@a flush      ->
			= a x 0-4`,
		"flush does not give OFD ranges back": `
			a ofd x 0-4    -> got
			a flush        ->
			a' close       ->
			= a x 0-4
			a close        -> -a`,
		"flush is of one file": `
			a posix x 0-4  -> got
			a posix x 0-4 on M -> got
			a flush        -> -a
			=M a x 0-4`,
		"release gives back everything that was taken through the handle": `
			a excl         -> got
			a flock x      -> got
			a ofd x 0-4    -> got
			c@a posix x 5-9 -> got
			a' posix s 20- -> got
			b flock s      -> waits
			a release      -> -a -a -a -c@a +b`,
		"release of a handle that holds nothing": `
			a flock s      -> got
			b release      ->
			= a s`,
		"a part that is unlocked is not the end of the hold": `
			a posix x 0-9  -> got
			b posix x 0-0  -> waits
			a unposix 0-4  -> +b
			a unposix 5-7  ->
			a unposix 0-   -> -a`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// An unlink by somebody else breaks the lock: it is free at once, and the next
// grant has a higher token (design 1.5).
func TestBreak(t *testing.T) {
	tests := map[string]string{
		"the holder's own unlink is a release": `
			a excl         -> got
			a breaks       -> -a`,
		"another's is not": `
			a excl         -> got
			b breaks       -> !a
			=`,
		"the next in the queue has it": `
			a excl         -> got
			b flock x      -> waits
			c flock x      -> waits
			d breaks       -> !a +b
			= b x | c`,
		"every hold ends, each for its own reason": `
			a flock s      -> got
			b flock s      -> got
			a posix s 0-9  -> got
			a breaks       -> -a !b -a`,
		"the waits of a broken file end": `
			a posix x 0-4  -> got
			b posix x 5-9  -> got
			c flock x      -> waits
			a posix x 5-9  -> waits
			d breaks       -> a:broken !a !b +c`,
		"also the absent ones, in silence": `
			a posix x 0-4  -> got
			b posix x 5-9  -> got
			a posix x 5-9  -> waits
			a interrupted  ->
			d breaks       -> !a !b
			=`,
		"not those of a file that is released": `
			a posix x 0-4  -> got
			b posix x 5-9  -> got
			a posix x 5-9  -> waits
			a breaks       -> -a !b +a
			= a x 5-9`,
		"a free lock": `
			b breaks       ->
			=`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
	w := newWorld(t)
	request := func(handle uint64) Request {
		return Request{Key: Key{1, "L"}, Via: ViaExcl, Mode: Exclusive, Range: Whole, Party: Party{Handle: handle}}
	}
	var tokens []uint64
	for handle := range uint64(3) {
		wantErr(t, "excl", w.Try(request(handle+1)), nil)
		w.End(request(1).Key, func(h *Hold) Reason { tokens = append(tokens, h.Token); return Broken })
	}
	if !slices.Equal(tokens, []uint64{1, 2, 3}) {
		t.Fatalf("tokens %v", tokens)
	}
}

// F_GETLK names what is in the way, and never one's own.
func TestTest(t *testing.T) {
	play(t, `
		a test posix x 0-9  -> free
		b posix s 0-4       -> got
		c posix x 5-9       -> got
		a test posix x 0-9  -> b s 0-4
		a test posix s 0-9  -> c x 5-9
		a test posix s 0-4  -> free
		a test posix x 10-  -> free
		c test posix x 5-9  -> free
		c' test posix x 5-9 -> free
		c test ofd x 5-9    -> c x 5-9
		d flock s on M      -> got
		a test posix x 3-3 on M -> d s
		d test posix x 3-3 on M -> free`)
}

// A process that has a lock open through two nodes holds it twice: to the
// kernel they are two files. What it gives back through one it keeps through
// the other.
func TestTwoNodesOfALock(t *testing.T) {
	w := newWorld(t)
	key := Key{1, "L"}
	request := func(file uint64, mode Mode, r Range) Request {
		return Request{
			Key: key, Via: ViaFcntl, Mode: mode, Range: r,
			Party: Party{Handle: file, File: file, Owner: 7, Taker: Process{Pid: 100, Started: 1}},
		}
	}
	wantErr(t, "shared, through the one", w.Try(request(1, Shared, Range{0, 9})), nil)
	wantErr(t, "exclusive, through the other", w.Try(request(2, Exclusive, Range{0, 9})), nil)
	wantErr(t, "a neighbour", w.Try(request(2, Shared, Range{10, 19})), nil)
	w.Unlock(key, request(2, Shared, Whole).Party, ViaFcntl, Whole)
	stranger := request(3, Exclusive, Range{0, 0})
	stranger.Party.Owner, stranger.Party.Taker.Pid = 8, 200
	wantErr(t, "a stranger, while the one is held", w.Try(stranger), ErrHeld)
	w.EndOwner(key, 2, 7, Released)
	wantErr(t, "after a close of the other", w.Try(stranger), ErrHeld)
	w.EndOwner(key, 1, 7, Released)
	wantErr(t, "after a close of the one", w.Try(stranger), nil)
}
