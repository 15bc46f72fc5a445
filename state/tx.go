package state

import (
	"fmt"
)

// Transactions.
//
// The redo area holds one transaction: what is to be written where, and the
// answers. Two words in the header say what it is worth: begun is set to a new
// number before the first byte of a transaction is written into the area,
// committed is set to the same number, by one store, when it is all there.
//
// Whoever takes the memory over finds
//
//   - begun > committed: the area is being overwritten. The transaction before
//     had been carried out and its answers sent, or this one would not have
//     been begun. This one never counted. Nothing is to be done.
//   - begun = committed: the area holds the last transaction whole. It may have
//     been carried out in part or whole. It is carried out again: each entry
//     writes the same bytes to the same place, in the same order, so that the
//     end is the same. Its answers may have been sent; they are sent again.
//
// This needs three things of this package's user: one transaction at a time,
// the answers of one are sent before the next is begun, and to send an answer
// twice does no harm.
//
// SIGKILL ends a process between two instructions, and what it has stored is
// in memory for all who map it, so the order of stores is the order in which a
// successor finds them; the two words are stored atomically so that neither
// compiler nor processor moves others across.

// Tx is the transaction under way. It begins by itself with the first change.
type Tx struct {
	m       *Memory
	open    bool
	number  uint64
	length  uint64 // bytes of entries
	answers [][]byte
}

// The redo area begins with the transaction's number and the length of its
// entries. An entry is
//
//	0  uint64  where: an offset for entryWrite, a slot for entryDecide
//	8  uint32  bytes that follow, a multiple of 8 is reserved for them
//	12 uint32  kind of entry
const (
	redoEntries = redoArea + 16
	entryHeader = 16

	entryWrite  = 1
	entryDecide = 2
	entryAnswer = 3
)

// Tx returns the transaction under way.
func (m *Memory) Tx() *Tx { return &m.tx }

// Open reports whether anything has been changed since the last commit.
func (t *Tx) Open() bool { return t.open }

// Put adds a record, or replaces the one of this kind and number. It panics if
// data is longer than [MaxRecord] or kind is 0.
func (t *Tx) Put(kind Kind, id uint64, data []byte) {
	class := classOf(len(data))
	if class < 0 || kind == 0 {
		panic(fmt.Sprintf("state: record of kind %d with %d bytes", kind, len(data)))
	}
	t.m.await()
	index := t.m.index[kind]
	old, replace := index[id]
	same := replace && t.m.classOfExtent(old.extent()) == class
	p := old
	if !same {
		p = t.m.allocate(class)
		if index == nil {
			index = make(map[uint64]place)
			t.m.index[kind] = index
		}
		index[id] = p
	}
	b := t.entry(entryWrite, p.offset(), recordHeader+len(data))
	putHeader(b, key{kind, id}, len(data))
	copy(b[recordHeader:], data)
	if replace && !same {
		t.clear(old)
	}
}

// Drop removes a record. To drop one that there is not is no error.
func (t *Tx) Drop(kind Kind, id uint64) {
	t.m.await()
	index := t.m.index[kind]
	if p, ok := index[id]; ok {
		delete(index, id)
		t.clear(p)
	}
}

// clear empties a place. It can be used again within the same transaction:
// entries are carried out in order.
func (t *Tx) clear(p place) {
	b := t.entry(entryWrite, p.offset(), recordHeader)
	clear(b)
	class := t.m.classOfExtent(p.extent())
	t.m.free[class] = append(t.m.free[class], p)
}

// Decide says that the request in a slot is decided: it is not carried out
// again.
func (t *Tx) Decide(s *Slot) {
	native.PutUint64(t.entry(entryDecide, uint64(s.number), 8), s.sequence())
}

// Answer adds an answer, which a successor repeats.
func (t *Tx) Answer(b []byte) { copy(t.entry(entryAnswer, 0, len(b)), b) }

// entry adds an entry to the redo area and returns the bytes to fill in.
func (t *Tx) entry(kind uint32, where uint64, n int) []byte {
	if !t.open {
		t.open = true
		t.number++
		t.length = 0
		t.m.at(offBegun).Store(t.number)
		t.m.crash("begun")
	}
	at := redoEntries + t.length
	size := entryHeader + uint64(n+7)&^7
	if at+size > redoArea+redoSize {
		panic("state: transaction too large")
	}
	native.PutUint64(t.m.mem[at:], where)
	native.PutUint32(t.m.mem[at+8:], uint32(n))
	native.PutUint32(t.m.mem[at+12:], kind)
	t.length += size
	t.m.crash("entry")
	return t.m.mem[at+entryHeader : at+entryHeader+uint64(n)]
}

// Commit makes the transaction count and carries it out. A transaction with no
// change is none.
func (t *Tx) Commit() {
	if !t.open {
		return
	}
	t.open = false
	native.PutUint64(t.m.mem[redoArea:], t.number)
	native.PutUint64(t.m.mem[redoArea+8:], t.length)
	t.m.crash("written")
	t.m.at(offCommitted).Store(t.number)
	t.m.crash("committed")
	t.m.apply(t.length, nil)
	t.m.crash("applied")
}

// apply carries out the entries in the redo area. Answers are handed to answer,
// if there is one.
func (m *Memory) apply(length uint64, answer func([]byte)) {
	for at := uint64(redoEntries); at < redoEntries+length; {
		where := native.Uint64(m.mem[at:])
		n := uint64(native.Uint32(m.mem[at+8:]))
		data := m.mem[at+entryHeader : at+entryHeader+n]
		switch native.Uint32(m.mem[at+12:]) {
		case entryWrite:
			copy(m.mem[where:], data)
		case entryDecide:
			m.slots[where].decided(native.Uint64(data))
		case entryAnswer:
			if answer != nil {
				answer(data)
			}
		}
		at += entryHeader + (n+7)&^7
		m.crash("entry applied")
	}
}

// redo carries out again what the last user committed.
func (m *Memory) redo() error {
	begun, committed := m.at(offBegun).Load(), m.at(offCommitted).Load()
	m.tx.number = begun
	switch {
	case begun < committed:
		return fmt.Errorf("%w: transaction %d is committed and %d begun", ErrFormat, committed, begun)
	case begun > committed || begun == 0:
		return nil
	}
	length := native.Uint64(m.mem[redoArea+8:])
	if number := native.Uint64(m.mem[redoArea:]); number != committed {
		return fmt.Errorf("%w: transaction %d where %d is committed", ErrFormat, number, committed)
	}
	if err := m.checkRedo(length); err != nil {
		return err
	}
	m.apply(length, func(b []byte) {
		m.tx.answers = append(m.tx.answers, append([]byte(nil), b...))
	})
	return nil
}

// checkRedo makes sure that apply writes where there are records, and nowhere
// else.
func (m *Memory) checkRedo(length uint64) error {
	bad := func(at uint64, what string) error {
		return fmt.Errorf("%w: transaction entry at %d: %s", ErrFormat, at-redoEntries, what)
	}
	if length > redoSize-16 {
		return fmt.Errorf("%w: transaction of %d bytes", ErrFormat, length)
	}
	end := redoEntries + length
	for at := uint64(redoEntries); at < end; {
		if end-at < entryHeader {
			return bad(at, "cut off")
		}
		where := native.Uint64(m.mem[at:])
		n := uint64(native.Uint32(m.mem[at+8:]))
		if end-at-entryHeader < (n+7)&^7 {
			return bad(at, "longer than the transaction")
		}
		switch kind := native.Uint32(m.mem[at+12:]); kind {
		case entryWrite:
			if !m.isPlace(where, n) {
				return bad(at, "writes where no record is")
			}
		case entryDecide:
			if where >= uint64(len(m.slots)) || n != 8 {
				return bad(at, "decides in no slot")
			}
		case entryAnswer:
		default:
			return bad(at, fmt.Sprintf("unknown kind %d", kind))
		}
		at += entryHeader + (n+7)&^7
	}
	return nil
}

// isPlace reports whether a record, or its header, of n bytes can be written
// at an offset.
func (m *Memory) isPlace(at, n uint64) bool {
	if at < extentArea || at >= extentOffset(m.extents) || n < recordHeader {
		return false
	}
	class := m.classOfExtent(int((at - extentArea) / extentSize))
	in := (at - extentArea) % extentSize
	size := uint64(classes[class])
	return in%size == 0 && in/size < uint64(perExtent(class)) && n <= size
}

// Undelivered returns the answers of the last transaction that the memory was
// taken over with: some, all or none of them have been sent.
func (m *Memory) Undelivered() [][]byte { return m.tx.answers }
