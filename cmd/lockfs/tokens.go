package main

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/state"
)

// Fencing tokens. They are reserved twice: on disk, in large blocks and ahead
// of time, so that no number comes again after a crash of the machine; and in
// the memory, in small ones, so that none comes again after a worker's death.
const (
	// diskBlock is how many are reserved on disk at once. The next block is
	// reserved when half of one is left, which is some seconds before it is
	// needed, however busy the mount. That many are left out by a restart.
	diskBlock = 1 << 18
	// memoryBlock may be left out when a worker dies. None is: who waits was let
	// in because a token was left for him, and workers may die many times while
	// the disk is full.
	memoryBlock = 1
	// retryTime is how long after a failure the disk is tried again.
	retryTime = time.Second
)

// tokens gives them out. Its methods are called in steps.
type tokens struct {
	memory *state.Memory
	// next is the last one given out, limit the last that may be, by the
	// memory, and onDisk by the disk.
	next, limit, onDisk uint64

	// dir is nil if there is no disk to ask.
	dir *state.Dir
	do  func(step func())
	log *slog.Logger
	// busy: a block is being reserved, or it failed a moment ago.
	busy atomic.Bool
}

// begin goes on from what was reserved. If that is nearly used up, it does not
// wait for somebody to ask: workers that die fast use up a block each.
func (t *tokens) begin(r reservation) {
	t.next, t.limit, t.onDisk = r.limit, r.limit, r.onDisk
	if t.dir == nil || t.onDisk-t.next >= diskBlock/4 {
		return
	}
	if err := t.dir.Reserve(t.onDisk + diskBlock); err != nil {
		t.log.Error("cannot reserve tokens in the state directory", "err", err)
		return
	}
	t.onDisk += diskBlock
}

// Next returns the next token. It panics if none is left.
func (t *tokens) Next() uint64 {
	if t.next >= t.limit {
		if t.next >= t.onDisk {
			panic("lockfs: a token was asked for that is not reserved")
		}
		t.limit = min(t.next+memoryBlock, t.onDisk)
		t.put()
	}
	t.next++
	return t.next
}

// Left returns how many there are, and has the disk asked for more in time.
func (t *tokens) Left() uint64 {
	left := t.onDisk - t.next
	if left < diskBlock/2 && t.busy.CompareAndSwap(false, true) {
		go t.reserve(t.onDisk + diskBlock)
	}
	return left
}

// reserve reserves tokens beside the steps.
func (t *tokens) reserve(upTo uint64) {
	if t.dir != nil {
		if err := t.dir.Reserve(upTo); err != nil {
			t.log.Error("cannot reserve tokens in the state directory; without them nothing more is granted soon. Is the disk full?", "err", err)
			time.Sleep(retryTime)
			t.busy.Store(false)
			return
		}
	}
	t.do(func() {
		t.onDisk = upTo
		t.put()
	})
	t.busy.Store(false)
}

// put records both limits in the memory, so that a successor need not ask the
// disk, for which clients would wait.
func (t *tokens) put() {
	b := binary.NativeEndian.AppendUint64(nil, t.limit)
	t.memory.Tx().Put(kindTokens, 0, binary.NativeEndian.AppendUint64(b, t.onDisk))
}

// reservation is what the memory says of tokens: limit may have been given out,
// and onDisk are reserved.
type reservation struct{ limit, onDisk uint64 }

func decodeTokens(b []byte) (reservation, error) {
	if len(b) != 16 {
		return reservation{}, fmt.Errorf("tokens: %w", fs.ErrRecord)
	}
	r := reservation{binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])}
	if r.limit > r.onDisk {
		return reservation{}, fmt.Errorf("tokens: %w", fs.ErrRecord)
	}
	return r, nil
}

// firstTokens reserves the first block of a new mount: dir is nil for none.
func firstTokens(dir *state.Dir) (reservation, error) {
	if dir == nil {
		now := state.TokensByTime()
		return reservation{now, now + diskBlock}, nil
	}
	used, err := dir.Reserved()
	if err != nil {
		return reservation{}, err
	}
	r := reservation{used, used + diskBlock}
	return r, dir.Reserve(r.onDisk)
}

var _ lockspace.Tokens = (*tokens)(nil)
