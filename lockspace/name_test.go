package lockspace

import (
	"math"
	"slices"
	"testing"
)

// Holds that are owned by the existence of a name (design 1.2, 1.3).
func TestByName(t *testing.T) {
	tests := map[string]string{
		"every way to make a name excludes every other": `
			a link          -> got
			b try link      -> held
			b try symlink   -> held
			b try mkdir     -> held
			b try rename    -> held
			b try named     -> held
			b try excl      -> held
			b try flock s   -> held
			b try posix s 7-7 -> held
			b test posix s 7-7 -> a x link
			= a x link`,
		"and by every one of these": `
			a flock s       -> got
			b try link      -> held
			a unflock       -> -a
			a posix s 7-7   -> got
			b try symlink   -> held
			a unposix 0-    -> -a
			a excl          -> got
			b try mkdir     -> held
			a unexcl        -> -a
			a symlink       -> got
			b try rename    -> held
			= a x symlink`,
		"the caller's own hold as well": `
			a link          -> got
			a try link      -> held
			a try named     -> held
			a removes       -> -a
			a flock x       -> got
			a try mkdir     -> held`,
		"who makes a name does not wait for it": `
			a mkdir         -> got
			b mkdir         -> held
			b named         -> held
			= a x mkdir`,
		"no close of a file ends it": `
			a named         -> got
			a unexcl        ->
			a flush         ->
			a release       ->
			a killed        ->
			= a x excl`,
		"but what was taken beside it through the file": `
			a named         -> got
			a flock x       -> got
			a close         -> -a
			= a x excl`,
		"its end lets the next one in": `
			a named         -> got
			b flock x       -> waits
			c posix s 0-9   -> waits
			a close         ->
			a removes       -> -a +b
			= b x | c`,
		"the name is removed, what is held through files stays": `
			a named         -> got
			a flock x       -> got
			a removes       -> -a
			a removes       -> nothing
			= a x`,
		"an unlink breaks it": `
			a symlink       -> got
			b flock x       -> waits
			c breaks        -> !a +b`,
		"and the waits of the file that made it": `
			a named         -> got
			b posix s 0-0   -> waits
			c@a flock x     -> got
			c@a posix x 0-0 -> got
			d breaks        -> !a !c@a !c@a +b`,
		"it is ended by its number": `
			a link          -> got
			b flock x       -> waits
			a ends reaped   -> a(reaped) +b
			a ends reaped   -> nothing`,
		"through the file that made it, more can be taken": `
			a named         -> got
			a flock x       -> got
			a posix x 0-9   -> got
			a' try flock s  -> held
			a' posix x 10-  -> got
			= a x excl, a x, a x 0-9, a' x 10-`,
		"who made the name without a file does not block himself": `
			a link          -> got
			a flock x       -> got
			a posix x 0-9   -> got
			b try flock s   -> held
			= a x link, a x, a x 0-9`,
		"but his files exclude each other": `
			a mkdir         -> got
			a flock x       -> got
			a' try flock s  -> held`,
		"he is let past those who wait for him": `
			a symlink       -> got
			b flock x       -> waits
			a flock x       -> got
			a removes       -> -a
			a unflock       -> -a +b`,
		"another process with his number does not get in": `
			a link          -> got
			a dies          ->
			a reborn        ->
			a try flock x   -> held
			a try posix s 0-0 -> held`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// A directory that is renamed takes its hold along.
func TestMove(t *testing.T) {
	tests := map[string]string{
		"the hold moves": `
			a mkdir         -> got
			move L M        ->
			=
			=M a x mkdir
			b try flock s on M -> held
			b try mkdir     -> got
			a removes on M  -> -a
			=M`,
		"who waits for the old name gets it": `
			a mkdir         -> got
			b flock x       -> waits
			c flock x       -> waits
			b try flock s on M -> got
			move L M        -> held
			b unflock on M  -> -b
			move L M        -> +b
			= b x | c
			=M a x mkdir`,
		"not what is held or in grace": `
			policy 0s 1s    ->
			a mkdir         -> got
			b flock x on M  -> got
			move L M        -> held
			b killed on M   -> b(died)
			move L M        -> grace
			pass 1s         ->
			expire          ->
			move L M        ->
			=M a x mkdir`,
		"what has no hold by name does not": `
			a flock x       -> got
			move L M        ->
			= a x
			=M`,
		"a name that is its own": `
			a mkdir         -> got
			move L L        ->
			= a x mkdir`,
		"the lease goes along": `
			policy 10s 0s   ->
			a mkdir         -> got
			pass 4s         ->
			move L M        ->
			next            -> 5.997s
			pass 6s         ->
			expire          -> a(expired)
			=M`,
		"places that are kept stay": `
			a mkdir         -> got
			b flock x on M  -> got
			c flock x on M  -> waits
			c interrupted on M ->
			b unflock on M  -> -b
			=M | c~
			move L M        ->
			=M a x mkdir | c~
			c flock x on M  -> waits
			a removes on M  -> -a +c`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) { play(t, text) })
	}
}

// What is held and waited for through files of the directory itself goes along
// with it; it keeps its number and its token, and is listed anew.
func TestMoveTakesTheNodeAlong(t *testing.T) {
	w := newWorld(t)
	from, to := Key{1, "L"}, Key{2, "M"}
	request := func(handle, file uint64, pid uint32, via Via) Request {
		return Request{
			Key: from, Via: via, Mode: Exclusive, Range: Whole,
			Party: Party{Handle: handle, File: file, Taker: Process{Pid: pid, Started: 1}},
		}
	}
	wantErr(t, "mkdir", w.Try(request(0, 7, 100, ViaMkdir)), nil)
	id, token := w.table.Named(from).ID, w.table.Named(from).Token
	wantErr(t, "flock of the directory", w.Try(request(1, 7, 100, ViaFlock)), nil)
	for i, file := range []uint64{7, 8} {
		if granted, err := w.Acquire(request(2+uint64(i), file, 200, ViaFlock), WaitID(1+i)); granted || err != nil {
			t.Fatal(granted, err)
		}
	}
	other := request(9, 9, 300, ViaFlock)
	other.Key = Key{2, "N"}
	wantErr(t, "another name", w.Try(other), nil)
	wantErr(t, "the directory moves", w.Move(from, to), nil)
	if h := w.table.Named(to); h == nil || h.ID != id || h.Token != token {
		t.Fatalf("it is held by %v, want hold %d with token %d", h, id, token)
	}
	if got := names(w.table, 2, 0); !slices.Equal(got, []string{"N", "M"}) {
		t.Fatalf("listed are %q", got)
	}
	if h := w.take(); len(h) != 1 || h[0].wait == nil || h[0].wait.ID != 2 {
		t.Fatalf("the old name is free, and %v", h)
	}
	w.crash()
	w.EndHandle(to, 1, Released)
	wantErr(t, "ended by its number", nil, nil)
	if !w.EndHold(id, Reaped) || w.EndHold(id, Reaped) {
		t.Fatal("the hold was not found by its number once")
	}
	if h := w.take(); len(h) != 3 || h[2].wait == nil || h[2].wait.ID != 1 || h[2].hold.Key != to {
		t.Fatalf("the new name is free, and %v", h)
	}
}

func TestMoveNeedsAPlace(t *testing.T) {
	w := newWorld(t)
	*w.tokens = math.MaxUint64 - 1
	r := Request{Key: Key{1, "L"}, Via: ViaMkdir}
	wantErr(t, "mkdir", w.Try(r), nil)
	wantErr(t, "the directory moves", w.Move(r.Key, Key{1, "M"}), ErrTokens)
}

// A hold that is not by name is found by its number too.
func TestEndHold(t *testing.T) {
	w := newWorld(t)
	key := Key{1, "L"}
	for handle := range uint64(3) {
		wantErr(t, "flock", w.Try(Request{
			Key: key, Via: ViaFlock, Mode: Shared, Range: Whole, Party: Party{Handle: handle + 1},
		}), nil)
	}
	if !w.EndHold(2, Lost) || w.EndHold(2, Lost) || w.EndHold(0, Lost) || w.EndHold(99, Lost) {
		t.Fatal("it was not there once")
	}
	if h := w.take(); len(h) != 1 || h[0].hold.ID != 2 || h[0].reason != Lost {
		t.Fatalf("%v", h)
	}
	if h := w.state()[key].holds; len(h) != 2 || h[0].ID != 1 || h[1].ID != 3 {
		t.Fatalf("held by %v", h)
	}
}

// What the idiom says of a request need not be said again, and what cannot be
// is not believed.
func TestRequestsAreCompleted(t *testing.T) {
	w := newWorld(t)
	for i, via := range []Via{ViaExcl, ViaLink, ViaSymlink, ViaMkdir, ViaRename, ViaFlock, ViaOpen, ViaOwner} {
		key := Key{1, via.String()}
		r := Request{Key: key, Via: via, Range: Whole, Party: Party{Handle: uint64(i + 1)}, ByName: !via.makes()}
		wantErr(t, key.Name, w.Try(r), nil)
		for h := range w.table.Holds(key) {
			made := via.makes()
			waits := via == ViaFlock || via == ViaOpen
			if (h.Mode == Exclusive) != made || h.ByName != (made && via != ViaExcl) || !h.Valid(false) || h.Valid(true) != waits {
				t.Errorf("%v: %v", via, *h)
			}
		}
	}
	for _, r := range []Request{
		{Via: ViaLink, Mode: Exclusive, Range: Whole},
		{Via: ViaLink, Range: Whole, ByName: true},
		{Via: ViaMkdir, Mode: Exclusive, Range: Range{0, 9}, ByName: true},
		{Via: ViaExcl, Range: Whole},
		{Via: ViaFlock, Range: Range{0, 9}},
		{Via: ViaFlock, Range: Whole, ByName: true},
		{Via: ViaFcntl, Range: Range{0, 9}, ByName: true},
		{Via: ViaFcntl, Range: Range{9, 0}},
		{Via: ViaOpen, Range: Range{0, 9}},
		{Via: ViaOpen, Range: Whole, ByName: true},
		{Via: ViaOwner, Range: Whole},
		{Via: ViaOwner, Range: Range{0, 9}, Party: Party{Handle: 1}},
		{Via: ViaOwner, Range: Whole, Party: Party{Handle: 1}, ByName: true},
		{Via: ViaOwner + 1, Mode: Exclusive, Range: Whole, Party: Party{Handle: 1}},
		{Via: ViaFlock, Mode: Exclusive + 1, Range: Whole},
	} {
		if r.Valid(false) || r.Valid(true) {
			t.Errorf("%v is said to be possible", r)
		}
	}
	if got := Via(99).String() + " " + Reason(99).String(); got != "via(99) reason(99)" {
		t.Error(got)
	}
}
