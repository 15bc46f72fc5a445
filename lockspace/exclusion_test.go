package lockspace

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Whatever call takes a lock, it excludes every other call that would (design
// 1.2): all pairs of idioms, both ways, by strangers.
func TestExclusion(t *testing.T) {
	idioms := []string{"excl", "flock s", "flock x", "open s", "open x", "posix s 0-", "posix x 0-", "ofd s 0-", "ofd x 0-"}
	shared := func(idiom string) bool { return strings.Contains(idiom, " s") }
	for _, first := range idioms {
		for _, then := range idioms {
			t.Run(first+"/"+then, func(t *testing.T) {
				// An exclusive creation fails on any hold; it never waits.
				switch {
				case then == "excl":
					play(t, fmt.Sprintf(`
						a %s     -> got
						b excl   -> held
						b try %s -> held
						a close  -> -a
						b try %s -> got`, first, then, then))
				case shared(first) && shared(then):
					play(t, fmt.Sprintf(`
						a %s     -> got
						b try %s -> got
						c %s     -> got`, first, then, then))
				default:
					play(t, fmt.Sprintf(`
						a %s     -> got
						b try %s -> held
						b %s     -> waits
						a close  -> -a +b
						b close  -> -b`, first, then, then))
				}
			})
		}
	}
}

// Exclusion does not depend on which lock of the directory it is, nor on the
// directory.
func TestOtherLocksDoNotMatter(t *testing.T) {
	play(t, `
		a flock x      -> got
		a flock x on M -> got
		b flock x on N -> got
		b try flock x on M -> held
		c try flock x on N -> held
		= a x
		=M a x
		=N b x`)
	w := newWorld(t)
	for dir := range uint64(3) {
		r := Request{Key: Key{dir, "L"}, Party: Party{Handle: dir + 1}, Via: ViaExcl, Mode: Exclusive, Range: Whole}
		wantErr(t, "excl", w.Try(r), nil)
	}
}

// One party never excludes itself (design 1.2).
func TestOneParty(t *testing.T) {
	tests := map[string]string{
		"a handle, by every idiom": `
			a excl         -> got
			a flock x      -> got
			a posix x 0-9  -> got
			a ofd x 20-    -> got
			= a x, a x, a x 0-9, a x 20-`,
		"a process, fcntl after flock": `
			a flock x      -> got
			a' posix x 0-9 -> got
			a' ofd x 10-   -> got
			b try posix x 0-0 -> held`,
		"a process, flock after fcntl": `
			a posix x 0-9  -> got
			a' flock x     -> got
			b try flock s  -> held`,
		"a process, fcntl after excl": `
			a excl         -> got
			a' posix x 0-9 -> got`,
		"a process that creates what it locked by fcntl: the name is held": `
			a posix x 0-9  -> got
			a' excl        -> held
			a excl         -> held`,
		"two flock handles of a process exclude each other": `
			a flock x      -> got
			a' try flock s -> held
			a' flock x     -> waits
			a unflock      -> -a +a'`,
		"excl and flock through two handles, too": `
			a excl         -> got
			a' try flock s -> held`,
		"two posix handles of a process are one owner": `
			a posix x 0-9  -> got
			a' posix x 5-14 -> got
			= a x 0-4, a' x 5-14    # each byte through the file that it was last taken by
			a posix x 0-9  -> got
			= a' x 10-14, a x 0-9
			a unposix 0-   -> -a' -a`,
		"two OFD handles of a process exclude each other": `
			a ofd x 0-9    -> got
			a' try ofd s 5-5 -> held
			a' ofd x 10-19 -> got`,
		"two opens of a process exclude each other": `
			a open x       -> got
			a' try open s  -> held
			a' open x      -> waits
			a close        -> -a +a'`,
		"open and flock through two handles, too": `
			a open x       -> got
			a' try flock s -> held`,
		"open, and flock and fcntl through the same handle": `
			a open x       -> got
			a flock x      -> got
			a posix x 0-9  -> got
			a ofd x 20-    -> got
			= a x, a x, a x 0-9, a x 20-`,
		"a process, fcntl after open": `
			a open x       -> got
			a' posix x 0-9 -> got
			b try posix x 0-0 -> held`,
		"a process, open after fcntl": `
			a posix x 0-9  -> got
			a' open x      -> got
			b try open s   -> held`,
		"a process, open after the link that it made": `
			a link         -> got
			a open x       -> got
			b try open s   -> held`,
		"posix and OFD of a process exclude each other": `
			a posix x 0-9  -> got
			a' try ofd s 5-5 -> held`,
		"posix and OFD through one handle, too: the kernel's owner differs": `
			a posix x 0-9  -> got
			a try ofd s 5-5 -> held`,
		"an inherited handle is one flock": `
			a flock x      -> got
			c@a flock x    -> got
			c@a unflock    -> -a
			b try flock x  -> got`,
		"an inherited handle is one OFD owner": `
			a ofd x 0-9    -> got
			c@a ofd x 5-14 -> got
			= a x 0-14`,
		"an inherited handle is two posix owners": `
			a posix x 0-9  -> got
			c@a try posix x 5-5 -> held`,
		"an inherited handle mixes fcntl and flock": `
			a flock x      -> got
			c@a posix x 0-9 -> got
			b try posix s 0-0 -> held`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// A hold is the taker's while that lives, else the opener's (design 1.1):
// exec 9>lock; flock 9.
func TestHolderIsTheTakerElseTheOpener(t *testing.T) {
	tests := map[string]string{
		"the opener, while the taker lives": `
			c@a flock x      -> got
			a' try posix s 0-0 -> held
			c' try posix s 0-0 -> got`,
		"the opener, when the taker is dead": `
			c@a flock x      -> got
			c dies           ->
			a' try posix s 0-0 -> got
			b try posix s 0-0  -> held`,
		"a taker's number that is another process now": `
			c@a flock x      -> got
			c dies           ->
			c reborn         ->
			c' try posix s 0-0 -> held
			a' try posix s 0-0 -> held  # errs towards conflict`,
		"an opener's number that is another process now": `
			c@a flock x      -> got
			a dies           ->
			a reborn         ->
			c dies           ->
			a' try posix s 0-0 -> held`,
		"also for those who wait already": `
			c@a flock x      -> got
			a' posix s 0-0   -> waits
			c dies           -> +a'`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// Nobody is let in beside a holder because he has its pid, when that is 0: a
// process in a pid namespace that cannot be seen (design 1.9).
func TestPidZeroIsNobodysEqual(t *testing.T) {
	w := newWorld(t)
	r := Request{
		Key: Key{1, "L"}, Via: ViaFlock, Mode: Exclusive, Range: Whole,
		Party: Party{Handle: 1, File: 1},
	}
	wantErr(t, "flock", w.Try(r), nil)
	other := r
	other.Party.Handle = 2
	other.Via, other.Party.Owner = ViaFcntl, 7
	wantErr(t, "fcntl through another handle", w.Try(other), ErrHeld)
	other.Party.Handle = 1
	wantErr(t, "fcntl through the same handle", w.Try(other), nil)
	w.Unlock(r.Key, r.Party, ViaFlock, Whole)
	other.Party.Handle = 3
	wantErr(t, "the same owner number through a third handle", w.Try(other), ErrHeld)
}

// Owner numbers are recycled before the RELEASE of the file that had them has
// been read (fact 10).
func TestRecycledOwnerNumber(t *testing.T) {
	w := newWorld(t)
	key := Key{1, "L"}
	ofd := func(handle uint64, pid uint32, mode Mode) Request {
		return Request{
			Key: key, Via: ViaFcntl, Mode: mode, Range: Range{0, 9},
			Party: Party{Handle: handle, File: 1, Owner: 7, Taker: Process{Pid: pid, Started: 1}},
		}
	}
	wantErr(t, "the first", w.Try(ofd(1, 100, Exclusive)), nil)
	wantErr(t, "an unrelated one with its number", w.Try(ofd(2, 200, Shared)), ErrHeld)
	if granted, err := w.Acquire(ofd(2, 200, Exclusive), 1); granted || err != nil {
		t.Fatalf("it should wait: %v, %v", granted, err)
	}
	// The first file's RELEASE at last. It must not take the other's hold.
	w.EndHandle(key, 1, Released)
	w.EndHandle(key, 1, Released)
	if h := w.state()[key].holds; len(h) != 1 || h[0].Party.Handle != 2 {
		t.Fatalf("held by %v", h)
	}
}

// The number may come back to the same process, which closes a file and opens
// another: what it takes through the new one must not end with the old one.
func TestRecycledOwnerNumberOfOneProcess(t *testing.T) {
	for _, again := range []Range{{0, 9}, {2, 3}, {5, 14}, {10, 14}} {
		w := newWorld(t)
		key := Key{1, "L"}
		ofd := func(handle uint64, pid uint32, r Range) Request {
			return Request{
				Key: key, Via: ViaFcntl, Mode: Exclusive, Range: r,
				Party: Party{Handle: handle, File: 1, Owner: 7, Taker: Process{Pid: pid, Started: 1}},
			}
		}
		wantErr(t, "through the first file", w.Try(ofd(1, 100, Range{0, 9})), nil)
		w.clock.advance(time.Second)
		wantErr(t, "through the second, with its number", w.Try(ofd(2, 100, again)), nil)
		w.EndHandle(key, 1, Released) // its RELEASE at last
		wantErr(t, "a stranger", w.Try(ofd(3, 200, again)), ErrHeld)
		if h := w.state()[key].holds; len(h) != 1 || h[0].Range != again {
			t.Fatalf("held is %v, want %v", h, again)
		}
	}
}

// Who may be of the process that somebody waits for is let past him, though
// nobody has looked: it takes nothing from anybody.
func TestPassingNeedsNoLookup(t *testing.T) {
	w := newWorld(t)
	request := func(handle uint64, pid uint32, via Via, mode Mode) Request {
		r := Request{
			Key: Key{1, "L"}, Via: via, Mode: mode, Range: Whole,
			Party: Party{Handle: handle, File: 1, Taker: Process{Pid: pid}},
		}
		if via == ViaFcntl {
			r.Party.Owner = uint64(pid)
		}
		return r
	}
	wantErr(t, "a reader", w.Try(request(1, 100, ViaFlock, Shared)), nil)
	_, err := w.Acquire(request(2, 200, ViaFlock, Exclusive), 1)
	wantErr(t, "a writer waits", err, nil)
	wantErr(t, "the reader reads more", w.Try(request(3, 100, ViaFcntl, Shared)), nil)
	wantErr(t, "a stranger does not", w.Try(request(4, 300, ViaFcntl, Shared)), ErrHeld)
}

// The table says when it must know since when a process runs, and only then.
func TestLookup(t *testing.T) {
	w := newWorld(t)
	key := Key{1, "L"}
	process := func(pid uint32) Process { return Process{Pid: pid} }
	flock := Request{
		Key: key, Via: ViaFlock, Mode: Exclusive, Range: Whole,
		Party: Party{Handle: 1, File: 1, Taker: process(100), Opener: process(100)},
	}
	fcntl := func(handle uint64, pid uint32) Request {
		return Request{
			Key: key, Via: ViaFcntl, Mode: Shared, Range: Range{0, 0},
			Party: Party{Handle: handle, File: 1, Owner: uint64(pid), Taker: process(pid), Opener: process(pid)},
		}
	}
	wantErr(t, "flock", w.Try(flock), nil)
	wantErr(t, "a stranger's try", w.Try(fcntl(2, 200)), ErrHeld)
	own := fcntl(3, 100)
	wantErr(t, "a process with the holder's number", w.Try(own), ErrLookup)
	if _, _, err := w.Test(own); err != ErrLookup {
		t.Fatalf("Test: %v", err)
	}
	own.Party.Taker.Started = w.clock.now.Boot + 1
	wantErr(t, "a later one", w.Try(own), ErrHeld)
	own.Party.Taker.Started = w.clock.now.Boot
	wantErr(t, "the one that took it", w.Try(own), nil)
}

// Who waits where idioms mix is known, even if a stranger is in the way first:
// once that one is gone there is nobody to ask, and a process would wait for
// itself.
func TestLookupBeforeWaiting(t *testing.T) {
	w := newWorld(t)
	request := func(handle uint64, pid uint32, via Via, mode Mode) Request {
		p := Process{Pid: pid}
		r := Request{
			Key: Key{1, "L"}, Via: via, Mode: mode, Range: Whole,
			Party: Party{Handle: handle, File: 1, Taker: p, Opener: p},
		}
		if via == ViaFcntl {
			r.Party.Owner = uint64(pid)
		}
		return r
	}
	wantErr(t, "a stranger", w.Try(request(1, 200, ViaFlock, Shared)), nil)
	wantErr(t, "the process", w.Try(request(2, 100, ViaFlock, Shared)), nil)
	more := request(3, 100, ViaFcntl, Exclusive)
	wantErr(t, "it tries for more", w.Try(more), ErrHeld)
	_, err := w.Acquire(more, 1)
	wantErr(t, "it waits for more", err, ErrLookup)
	more.Party.Taker.Started = 1
	_, err = w.Acquire(more, 1)
	wantErr(t, "looked up", err, nil)
	w.EndHandle(more.Key, 1, Released)
	if h := w.take(); len(h) != 2 || h[1].wait == nil || h[1].wait.ID != 1 {
		t.Fatalf("the stranger left, and %v", h)
	}
}
