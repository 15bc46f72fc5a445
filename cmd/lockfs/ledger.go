package main

import (
	"encoding/binary"
	"fmt"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/state"
)

// Kinds of records that are neither fs's nor the table's: 1 to 15, and from 19 on,
// are fs's.
const (
	kindInit   = 16 // the connection's first request, number 0
	kindTokens = 17 // which tokens are reserved, number 0
	kindAway   = 18 // a request on a detour, by its unique
)

// slots is how many requests can be being read.
const slots = 1

// ledger keeps a connection's requests and a filesystem's records in memory
// that outlives the process.
type ledger struct{ memory *state.Memory }

// Slot returns the memory's.
func (l ledger) Slot() device.Slot { return l.memory.Slots()[0] }

// Away keeps a request as a record: a byte that says whether it was
// interrupted, its place, and what was read.
func (l ledger) Away(unique uint64, r device.Traveller) {
	b := []byte{0}
	if r.Interrupted {
		b[0] = 1
	}
	b = binary.NativeEndian.AppendUint64(b, r.Place)
	l.memory.Tx().Put(kindAway, unique, append(b, r.Request...))
}

// awayHeader is how long a record is without the request.
const awayHeader = 9

// Back drops the record.
func (l ledger) Back(unique uint64) { l.memory.Tx().Drop(kindAway, unique) }

// SaveInit keeps the connection's first request.
func (l ledger) SaveInit(request []byte) { l.memory.Tx().Put(kindInit, 0, request) }

// Commit makes one transaction of a step.
func (l ledger) Commit(slot device.Slot, answers [][]byte, must bool) {
	tx := l.memory.Tx()
	if !tx.Open() && !must {
		return
	}
	if slot != nil {
		tx.Decide(slot.(*state.Slot))
	}
	for _, b := range answers {
		tx.Answer(b)
	}
	tx.Commit()
}

// recovered is what a memory tells its next user.
type recovered struct {
	saved  fs.Saved
	init   []byte // nil: the connection has not begun
	away   map[uint64]device.Traveller
	tokens reservation
	fresh  bool // nothing is in it
}

// readMemory reads the records.
func readMemory(m *state.Memory) (*recovered, error) {
	r := &recovered{fresh: true, away: make(map[uint64]device.Traveller)}
	for record := range m.Records() {
		r.fresh = false
		switch record.Kind {
		case kindInit:
			r.init = append([]byte(nil), record.Data...)
		case kindAway:
			if len(record.Data) < awayHeader || record.Data[0] > 1 {
				return nil, fmt.Errorf("request %d: %w", record.ID, fs.ErrRecord)
			}
			r.away[record.ID] = device.Traveller{
				Request:     append([]byte(nil), record.Data[awayHeader:]...),
				Interrupted: record.Data[0] == 1,
				Place:       binary.NativeEndian.Uint64(record.Data[1:]),
			}
		case kindTokens:
			var err error
			if r.tokens, err = decodeTokens(record.Data); err != nil {
				return nil, err
			}
		default:
			if err := r.saved.Load(record.Kind, record.ID, record.Data); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

var (
	_ device.Ledger = ledger{}
	_ device.Slot   = (*state.Slot)(nil)
	_ fs.Store      = (*state.Tx)(nil)
)
