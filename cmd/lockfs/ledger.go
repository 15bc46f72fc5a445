package main

import (
	"fmt"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/state"
)

// Kinds of records that are neither fs's nor the table's: 1 to 15 are fs's.
const (
	kindInit   = 16 // the connection's first request, number 0
	kindTokens = 17 // the highest token that may have been given out, number 0
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
// interrupted, and what was read.
func (l ledger) Away(unique uint64, r device.Traveller) {
	b := []byte{0}
	if r.Interrupted {
		b[0] = 1
	}
	l.memory.Tx().Put(kindAway, unique, append(b, r.Request...))
}

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

// tokens gives out fencing tokens in blocks that are reserved in the memory.
type tokens struct {
	memory      *state.Memory
	next, limit uint64
}

// tokenBlock is how many tokens are reserved at once. That many may be left
// out when a worker dies.
const tokenBlock = 1 << 16

// Next returns the next token. It is called within steps.
func (t *tokens) Next() uint64 {
	if t.next >= t.limit {
		t.limit = t.next + tokenBlock
		t.memory.Tx().Put(kindTokens, 0, encodeToken(t.limit))
	}
	t.next++
	return t.next
}

// recovered is what a memory tells its next user.
type recovered struct {
	saved fs.Saved
	init  []byte // nil: the connection has not begun
	away  map[uint64]device.Traveller
	token uint64
	fresh bool // nothing is in it
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
			if len(record.Data) < 1 || record.Data[0] > 1 {
				return nil, fmt.Errorf("request %d: %w", record.ID, fs.ErrRecord)
			}
			r.away[record.ID] = device.Traveller{
				Request:     append([]byte(nil), record.Data[1:]...),
				Interrupted: record.Data[0] == 1,
			}
		case kindTokens:
			token, err := decodeToken(record.Data)
			if err != nil {
				return nil, err
			}
			r.token = token
		default:
			if err := r.saved.Load(record.Kind, record.ID, record.Data); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

func encodeToken(v uint64) []byte { return fmt.Appendf(nil, "%020d", v) }

func decodeToken(b []byte) (v uint64, err error) {
	if _, err := fmt.Sscanf(string(b), "%d", &v); err != nil {
		return 0, fmt.Errorf("tokens: %w", fs.ErrRecord)
	}
	return v, nil
}

var (
	_ device.Ledger    = ledger{}
	_ device.Slot      = (*state.Slot)(nil)
	_ fs.Store         = (*state.Tx)(nil)
	_ lockspace.Tokens = (*tokens)(nil)
)
