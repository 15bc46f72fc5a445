package lockspace

import (
	"math"
	"testing"
)

// Nothing is granted without a token, and who was let in to wait gets one.
func TestNoMoreIsLetInThanThereAreTokensFor(t *testing.T) {
	w := newWorld(t)
	*w.tokens = math.MaxUint64 - 3
	ask := func(name string, handle uint64) Request {
		return Request{
			Key:   Key{Dir: 1, Name: name},
			Party: Party{Handle: handle, File: 1, Taker: Process{Pid: uint32(handle), Started: 1}},
			Via:   ViaFlock, Mode: Exclusive, Range: Whole,
		}
	}
	wantErr(t, "the first", w.Try(ask("x", 1)), nil)
	for id := range WaitID(2) {
		if granted, err := w.Acquire(ask("x", uint64(2+id)), 1+id); granted || err != nil {
			t.Fatalf("wait %d: granted %v, %v", id, granted, err)
		}
	}
	wantErr(t, "a try without a token", w.Try(ask("y", 9)), ErrTokens)
	_, err := w.Acquire(ask("x", 9), 9)
	wantErr(t, "a wait without a token", err, ErrTokens)
	for handle := range uint64(2) {
		w.EndHandle(ask("x", 0).Key, 1+handle, Released)
	}
	if left := w.tokens.Left(); left != 0 {
		t.Fatalf("%d tokens are left", left)
	}
}
