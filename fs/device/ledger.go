package device

// Slot is a buffer for one request at a time. *state.Slot is one that outlives
// the process.
type Slot interface {
	// Prepare empties the slot and returns the buffer to read a request into.
	Prepare() []byte
	// Request returns the request that was read, as long as its first word
	// says. Empty if there is none.
	Request() []byte
	// Done empties the slot.
	Done()
}

// Ledger keeps requests that were read, and what was decided about them, with
// what they changed. It is what makes a connection outlive its process; see
// [Volatile] for one that does not.
type Ledger interface {
	// Slots are the buffers to read into: one for the reader and one for each
	// request that can be on a detour at the same time.
	Slots() []Slot
	// Commit ends a step. What it changed, that the request in decided was
	// decided (nil: the step was of none), and the answers become one
	// transaction. Nothing is written down of a step that changed nothing,
	// unless must says so. The answers are sent after Commit, and before the
	// next step.
	Commit(decided Slot, answers [][]byte, must bool)
	// SaveInit keeps the first request of the connection, which a successor
	// needs.
	SaveInit(request []byte)
}

// Volatile is a Ledger for connections that end with their process.
type Volatile struct{}

// Slots returns buffers on the heap.
func (Volatile) Slots() []Slot {
	slots := make([]Slot, 64)
	for i := range slots {
		slots[i] = &heapSlot{b: make([]byte, readBuffer)}
	}
	return slots
}

func (Volatile) Commit(Slot, [][]byte, bool) {}
func (Volatile) SaveInit([]byte)             {}

// heapSlot is a Slot in the memory of the process.
type heapSlot struct{ b []byte }

func (s *heapSlot) Prepare() []byte {
	s.Done()
	return s.b
}

func (s *heapSlot) Done() { native.PutUint32(s.b, 0) }

func (s *heapSlot) Request() []byte {
	return s.b[:min(int(native.Uint32(s.b)), len(s.b))]
}
