package state

import (
	"cmp"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Requests in flight.
//
// A slot is numbered before something is read into it. The request's own
// length, its first word, is zeroed before, and is not zero as soon as the
// kernel has handed a request over; that happens in one system call, which
// SIGKILL does not end halfway as long as no page of the buffer is missing.
// So the slots are touched and locked in memory when they are opened. A
// transaction that decides the request writes the number down as decided. A
// slot with a length and a number that is not decided is a request that was
// taken from the kernel and has to be carried out.
//
// What a request changes and that it is decided are one transaction, so that
// each takes effect once. A request that changes nothing needs none: to carry
// it out twice is to answer it twice, and the kernel takes the first answer.

// The slot has a page for its own use, and two to read into: the kernel
// insists on 8 KiB.
const (
	slotHeader = pageSize
	// SlotBuffer is the room for a request, in bytes.
	SlotBuffer = 2 * pageSize
	slotSize   = slotHeader + SlotBuffer

	offSlotNumber  = 0 // uint64: the request's number
	offSlotDecided = 8 // uint64: the number of the last decided request
)

// Slot is a buffer for one request at a time.
type Slot struct {
	m      *Memory
	number int // of the slot
	base   uint64
	buffer []byte
}

// openSlots checks the slots and makes them ready to be read into.
func (m *Memory) openSlots() error {
	n := int(native.Uint32(m.mem[offSlots:]))
	if n < 1 || slotArea+n*slotSize > redoArea {
		return fmt.Errorf("%w: %d slots", ErrFormat, n)
	}
	area := m.mem[slotArea : slotArea+n*slotSize]
	for i := 0; i < len(area); i += pageSize {
		// A write to every page, with what is there: MADV_POPULATE_WRITE is
		// younger than some kernels.
		b := &area[i]
		*b = touch(*b)
	}
	if err := unix.Mlock(area); err != nil {
		return fmt.Errorf("lock %d bytes of requests in memory (see ulimit -l): %w", len(area), err)
	}
	for i := range n {
		base := uint64(slotArea + i*slotSize)
		s := &Slot{m: m, number: i, base: base, buffer: m.mem[base+slotHeader : base+slotSize]}
		if l := s.length(); l > SlotBuffer {
			return fmt.Errorf("%w: a request of %d bytes", ErrFormat, l)
		}
		m.slots = append(m.slots, s)
	}
	return nil
}

// touch returns its argument, in a way that keeps the compiler from knowing.
//
//go:noinline
func touch(b byte) byte { return b }

// Slots returns all slots.
func (m *Memory) Slots() []*Slot { return m.slots }

// Pending returns the slots with requests that have to be carried out, in the
// order in which they were read.
func (m *Memory) Pending() []*Slot {
	var pending []*Slot
	for _, s := range m.slots {
		if s.length() != 0 && s.sequence() != native.Uint64(s.m.mem[s.base+offSlotDecided:]) {
			pending = append(pending, s)
		}
	}
	slices.SortFunc(pending, func(a, b *Slot) int { return cmp.Compare(a.sequence(), b.sequence()) })
	return pending
}

// Prepare readies the slot for a request and returns the buffer to read it
// into, by one system call. It is called anew before every read, also after
// one that failed.
func (s *Slot) Prepare() []byte {
	s.Done()
	next := s.m.at(offSequence)
	n := next.Add(1)
	s.m.at(s.base + offSlotNumber).Store(n)
	s.m.crash("slot prepared")
	return s.buffer
}

// Done empties the slot: the request was answered.
func (s *Slot) Done() { native.PutUint32(s.buffer, 0) }

// Request returns the request in the slot.
func (s *Slot) Request() []byte { return s.buffer[:s.length()] }

func (s *Slot) length() int { return int(native.Uint32(s.buffer)) }

func (s *Slot) sequence() uint64 { return native.Uint64(s.m.mem[s.base+offSlotNumber:]) }

// decided notes a number as decided.
func (s *Slot) decided(number uint64) { s.m.at(s.base + offSlotDecided).Store(number) }
