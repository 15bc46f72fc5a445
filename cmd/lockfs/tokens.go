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

// Fencing tokens. They are reserved on disk, in large blocks and ahead of time,
// so that no number comes again after a crash of the machine; and each that is
// given out is noted in the memory, so that none comes again after a worker's
// death, and none is left out: who waits was let in because there was one for
// him, and workers may die many times while the disk is full.
const (
	// diskBlock is how many are reserved on disk at once. The next block is
	// reserved when half of one is left, which is some seconds before it is
	// needed, however busy the mount. That many are left out by a restart.
	diskBlock = 1 << 18
	// retryTime is how long after a failure the disk is tried again.
	retryTime = time.Second
)

// tokens gives them out. Its methods are called in steps.
type tokens struct {
	memory *state.Memory
	reservation
	record [reservationSize]byte

	// dir is nil if there is no disk to ask.
	dir *state.Dir
	do  func(step func())
	log *slog.Logger
	// busy: a block is being reserved, or it failed a moment ago.
	busy atomic.Bool
}

// reservation says which tokens are there: those above used, up to onDisk.
type reservation struct{ used, onDisk uint64 }

const reservationSize = 16

// begin goes on from what was reserved. If that is nearly used up, it does not
// wait for somebody to ask: workers that die fast may never get there.
func (t *tokens) begin(r reservation) {
	t.reservation = r
	if t.onDisk-t.used >= diskBlock/4 {
		return
	}
	if t.dir != nil {
		if err := t.dir.Reserve(t.onDisk + diskBlock); err != nil {
			t.log.Error("cannot reserve tokens in the state directory", "err", err)
			return
		}
	}
	t.onDisk += diskBlock
}

// Next returns the next token. It panics if none is left.
func (t *tokens) Next() uint64 {
	if t.used >= t.onDisk {
		panic("lockfs: a token was asked for that is not reserved")
	}
	t.used++
	t.put()
	return t.used
}

// Left returns how many there are, and has the disk asked for more in time.
func (t *tokens) Left() uint64 {
	left := t.onDisk - t.used
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

// put records both in the memory, so that a successor need not ask the disk,
// for which clients would wait.
func (t *tokens) put() {
	binary.NativeEndian.PutUint64(t.record[:], t.used)
	binary.NativeEndian.PutUint64(t.record[8:], t.onDisk)
	t.memory.Tx().Put(kindTokens, 0, t.record[:])
}

func decodeTokens(b []byte) (reservation, error) {
	if len(b) != reservationSize {
		return reservation{}, fmt.Errorf("tokens: %w", fs.ErrRecord)
	}
	r := reservation{binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])}
	if r.used > r.onDisk {
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
