package lockspace

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// bitmap is a range of the 64 bytes from base, a bit for each.
func bitmap(r Range, base uint64) (bits uint64) {
	for i := range uint64(64) {
		if r.First <= base+i && base+i <= r.Last {
			bits |= 1 << i
		}
	}
	return bits
}

// FuzzRange compares the arithmetic of ranges with that of bitmaps, at both
// ends of what can be locked.
func FuzzRange(f *testing.F) {
	for _, s := range [][4]uint8{{0, 0, 0, 0}, {0, 63, 5, 9}, {5, 9, 0, 63}, {3, 5, 6, 8}, {3, 6, 6, 8}, {6, 8, 3, 5}, {0, 0, 63, 63}, {9, 3, 3, 9}} {
		f.Add(s[0], s[1], s[2], s[3], false)
		f.Add(s[0], s[1], s[2], s[3], true)
	}
	f.Fuzz(func(t *testing.T, aFirst, aLast, bFirst, bLast uint8, high bool) {
		base := uint64(0)
		if high {
			base = MaxOffset - 63
		}
		make := func(first, last uint8) Range { return Range{base + uint64(first%64), base + uint64(last%64)} }
		a, b := make(aFirst, aLast), make(bFirst, bLast)
		x, y := bitmap(a, base), bitmap(b, base)
		if a.Valid() != (x != 0) || b.Valid() != (y != 0) {
			t.Fatalf("%v valid %v, %v valid %v", a, a.Valid(), b, b.Valid())
		}
		if !a.Valid() || !b.Valid() {
			return
		}
		if a.Overlaps(b) != (x&y != 0) || a.Covers(b) != (x&y == y) {
			t.Fatalf("%v overlaps %v: %v, covers it: %v", a, b, a.Overlaps(b), a.Covers(b))
		}
		touches := x&(y|y<<1|y>>1) != 0
		if a.touches(b) != touches {
			t.Fatalf("%v touches %v: %v", a, b, a.touches(b))
		}
		if touches && bitmap(a.union(b), base) != x|y {
			t.Fatalf("%v and %v together are %v", a, b, a.union(b))
		}
		parts, n := a.minus(b)
		var left uint64
		for i, p := range parts[:n] {
			if !p.Valid() || left&bitmap(p, base) != 0 || i > 0 && parts[i-1].Last >= p.First {
				t.Fatalf("%v without %v is %v", a, b, parts[:n])
			}
			left |= bitmap(p, base)
		}
		if left != x&^y {
			t.Fatalf("%v without %v is %v", a, b, parts[:n])
		}
		if a.String() == b.String() && a != b {
			t.Fatalf("%#v and %#v are both called %v", a, b, a)
		}
	})
}

// FuzzNames takes, lists and releases locks of arbitrary names in several
// directories. The names are what the input has between newlines, the first
// byte of each says where and how.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"", "a", "a\nb\nc", "aL\nbL\naL\ncM\n", "\x00\n\n\n", "1.\n1..\n2/\n3\xff\xfe", strings.Repeat("xyz\nxzz\n", 20)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		w := newWorld(t)
		held := make(map[Key]bool)
		var order []Key
		for i, word := range bytes.Split(input, []byte("\n")) {
			if len(word) == 0 {
				continue
			}
			k := Key{Dir: uint64(word[0] % 4), Name: string(word[1:])}
			r := Request{Key: k, Via: Via(word[0] / 4 % 2), Mode: Exclusive, Range: Whole, Party: Party{Handle: uint64(i + 1)}}
			err := w.Try(r)
			if held[k] != errors.Is(err, ErrHeld) || err != nil && !errors.Is(err, ErrHeld) {
				t.Fatalf("%v held %v: %v", k, held[k], err)
			}
			if err != nil && word[0]&0x80 != 0 {
				w.End(k, func(*Hold) Reason { return Broken })
				delete(held, k)
				order = slices.DeleteFunc(order, func(o Key) bool { return o == k })
			}
			if err == nil {
				held[k] = true
				order = append(order, k)
			}
			listed(t, w, held, order)
		}
		w.crash()
		listed(t, w, held, order)
		for k := range maps.Keys(held) {
			w.End(k, func(*Hold) Reason { return Released })
		}
		if locks, holds, waits := w.table.Len(); locks+holds+waits != 0 {
			t.Fatalf("left over are %d locks, %d holds, %d waits", locks, holds, waits)
		}
	})
}

// listed compares the listings with the keys in the order of their holds.
func listed(t *testing.T, w *world, held map[Key]bool, order []Key) {
	t.Helper()
	for dir := range uint64(4) {
		var want []string
		for _, k := range order {
			if k.Dir == dir {
				want = append(want, k.Name)
			}
		}
		var got []string
		w.table.List(dir, 0, func(place uint64, name string) bool {
			got = append(got, name)
			if !w.table.Held(Key{dir, name}) {
				t.Fatalf("%q is listed and not held", name)
			}
			// From every place on, the rest follows.
			if rest := names(w.table, dir, place); !slices.Equal(rest, want[min(len(got), len(want)):]) {
				t.Fatalf("behind %q is %q", name, rest)
			}
			return true
		})
		if !slices.Equal(got, want) {
			t.Fatalf("directory %d lists %q, want %q", dir, got, want)
		}
	}
}

// FuzzSteps takes its input for steps of the table, four bytes each: what, who,
// and two for the range. The law is checked after each.
func FuzzSteps(f *testing.F) {
	const try, wait, unlock, flush, closeHandle, end, cancel, expire, crash = 0, 1, 4, 5, 6, 7, 8, 9, 10
	f.Add([]byte{try, 0, 0, 0, wait, 9, 0, 0, wait, 18, 0, 0, unlock, 0, 0, 0, closeHandle, 9, 0, 0})
	f.Add([]byte{try, 0x40, 0, 3, wait, 0x49, 0, 9, try, 0x40, 4, 9, cancel, 1, 0, 0, wait, 0x49, 0, 9, expire, 0, 0, 0})
	f.Add([]byte{try, 0x80, 0, 4, try, 0x89, 5, 9, wait, 0x80, 5, 5, wait, 0x89, 4, 4, crash, 0, 0, 0, end, 0, 0, 0})
	f.Add([]byte{try, 0xc0, 0, 4, wait, 0xc9, 0, 4, wait, 0xd2, 0, 4, flush, 0xc0, 0, 0, closeHandle, 0xc9, 0, 0})
	const snapshot, other, policy, renew, endNamed, endHold, move, died = 14, 15, 0, 1, 2, 3, 4, 5
	f.Add([]byte{other, 0x12, policy, 0, try, 0x40, 1, 0, wait, 0x09, 0, 0, expire, 250, 0, 0, other, 0, move, 2, expire, 250, 0, 0, crash, 0, 0, 0})
	f.Add([]byte{other, 0x11, policy, 0, try, 0x40, 2, 0, wait, 0x02, 0, 0, other, 1, endHold, 2, crash, 0, 0, 0, expire, 250, 0, 0})
	f.Add([]byte{try, 0x41, 3, 0, try, 1, 0, 0, wait, 0x0b, 0, 0, other, 1, move, 1, other, 1, died, 4, other, 1, endNamed, 0, other, 1, renew, 0})
	// A snapshot in grace, one of a directory, and what changes meanwhile.
	f.Add([]byte{other, 0xf0, policy, 1, try, 1, 0, 0, wait, 0x0b, 0, 0, try, 0x0a, 0, 0, snapshot, 0, 3, 0, snapshot, 0, 1, 0, end, 1, 0, 0, snapshot, 2, 0, 0,
		snapshot, 0, 3, 0, wait, 0x0d, 0, 0, cancel, 2, 0, 0, expire, 250, 0, 0, snapshot, 2, 4, 0, snapshot, 1, 0, 0, snapshot, 2, 4, 1, crash, 0, 0, 0})
	f.Add(bytes.Repeat([]byte{wait, 0x88, 0, 9, wait, 0x91, 3, 12, cancel, 2, 0, 0, unlock, 0x88, 2, 4}, 8))
	f.Fuzz(func(t *testing.T, input []byte) {
		w := newWorld(t)
		lastID := WaitID(0)
		for ; len(input) >= 4 && lastID < 64; input = input[4:] {
			w.clock.advance(50 * time.Millisecond)
			step(t, w, [4]byte(input), &lastID)
		}
		w.Shutdown()
		for k := range w.state() {
			w.End(k, func(*Hold) Reason { return Reaped })
		}
		w.clock.advance(time.Minute)
		w.Expire()
		if locks, holds, waits := w.table.Len(); locks+holds+waits != 0 {
			t.Fatalf("left over are %d locks, %d holds, %d waits", locks, holds, waits)
		}
	})
}

func step(t *testing.T, w *world, b [4]byte, lastID *WaitID) {
	r := fuzzRequest(b)
	switch b[0] & 15 {
	case 0:
		if err := w.Try(r); errors.Is(err, ErrLookup) {
			r.Party.Taker.Started = time.Duration(b[0])
			if err := w.Try(r); errors.Is(err, ErrLookup) {
				t.Fatalf("%v was looked up", r)
			}
		}
	case 1, 2, 3:
		*lastID++
		if _, err := w.Acquire(r, *lastID); errors.Is(err, ErrLookup) {
			r.Party.Taker.Started = time.Duration(b[0])
			if _, err := w.Acquire(r, *lastID); errors.Is(err, ErrLookup) {
				t.Fatalf("%v was looked up", r)
			}
		}
	case 4:
		w.Unlock(r.Key, r.Party, r.Via, r.Range)
	case 5:
		w.EndOwner(r.Key, r.Party.File, r.Party.Owner, Released)
	case 6:
		w.EndHandle(r.Key, r.Party.Handle, Released)
	case 7:
		w.End(r.Key, func(h *Hold) Reason { return Reason(h.Party.Handle % 6) })
	case 8:
		w.Cancel(WaitID(b[1]))
	case 9:
		w.clock.advance(time.Duration(b[1]) * 10 * time.Millisecond)
		w.Expire()
	case 10:
		w.crash()
	case 11:
		if _, _, err := w.Test(r); err != nil && !errors.Is(err, ErrLookup) && !errors.Is(err, ErrRange) {
			t.Fatal(err)
		}
	case 12:
		w.died(uint32(b[1]%4) + 1)
	case 13:
		clear(w.procs.dead)
	case 14:
		snapshotStep(w, b)
	case 15:
		nameStep(t, w, b, &r)
	}
}

// snapshotStep begins a snapshot or goes on with one.
func snapshotStep(w *world, b [4]byte) {
	w.table.Edges(func(Edge) bool { return true })
	switch n := len(w.snapshots); {
	case n == 0 || b[1]&3 == 0 && n < 4:
		if b[2]&3 == 3 {
			w.begin()
		} else {
			w.begin(uint64(b[2]&1), uint64(b[2]>>1&1))
		}
	case b[1]&15 == 1:
		w.drop(w.snapshots[0])
	default:
		w.gather(w.snapshots[int(b[3])%n], int(b[2]%5)+1)
	}
}

// nameStep is a step that has to do with names and policies.
func nameStep(t *testing.T, w *world, b [4]byte, r *Request) {
	switch b[2] % 6 {
	case 0:
		w.SetPolicy(uint64(b[3]%2), Policy{
			Lease: time.Duration(b[1]&15) * 500 * time.Millisecond,
			Grace: time.Duration(b[1]>>4) * 500 * time.Millisecond,
		})
	case 1:
		w.Renew(r.Key, func(h *Hold) bool { return uint64(h.ID)&3 == uint64(b[3]&3) })
	case 2:
		w.EndNamed(r.Key, Reason(b[3]%6))
	case 3:
		id := HoldID(b[1])
		if w.EndHold(id, Reason(b[3]%6)) && w.EndHold(id, Released) {
			t.Fatalf("hold %d ended twice", id)
		}
	case 4:
		to := Key{uint64(b[3] % 2), "L"}
		if b[3]&2 != 0 {
			to.Name = "M"
		}
		if err := w.Move(r.Key, to); err != nil && !errors.Is(err, ErrHeld) {
			t.Fatal(err)
		}
	case 5:
		w.EndOwner(r.Key, r.Party.File, r.Party.Owner, Reason(b[3]%6))
		w.EndHandle(r.Key, r.Party.Handle, Reason(b[3]%6))
	}
}

// fuzzRequest reads a request: three bits of the second byte for the handle,
// three for the process, two for the idiom, and one byte each for the first
// and the last byte of the range; with 15 it goes to the end. Who makes a name
// has no range, but a way to make it; flock has none, and may be open.
func fuzzRequest(b [4]byte) Request {
	handle := uint64(b[1]&7) + 1
	p := Process{Pid: uint32(b[1] >> 3 & 7 % 5), Started: 1}
	if b[0]&0x80 != 0 {
		p.Started = 0
	}
	r := Request{
		Key:  Key{handle % 2, "L"},
		Mode: Exclusive, Range: Whole,
		Party: Party{Handle: handle, File: handle % 2, Taker: p, Opener: Process{Pid: uint32(handle % 5), Started: 1}},
	}
	if b[0]&0x40 != 0 {
		r.Mode = Shared
	}
	switch b[1] >> 6 {
	case 0:
		if r.Via = ViaFlock; b[2]&1 != 0 {
			r.Via = ViaOpen
		}
	case 1:
		switch b[2] & 3 {
		case 0:
			r.Via = ViaExcl
		case 1:
			r.Via, r.ByName = ViaExcl, true
		case 2:
			r.Via, r.Party.Handle = ViaLink, 0
		case 3:
			r.Via, r.Party.Handle, r.Party.File = ViaMkdir, 0, 99
		}
	case 2:
		r.Via, r.Party.Owner = ViaFcntl, 100+uint64(p.Pid)
	case 3:
		r.Via, r.Party.Owner = ViaFcntl, 200+handle
	}
	if r.Via == ViaFcntl {
		r.Range = Range{uint64(b[2] & 15), uint64(b[3] & 15)}
		if r.Range.Last == 15 {
			r.Range.Last = MaxOffset
		}
	}
	return r
}
