package device

// Slot is a buffer for the request that is being read or carried out.
// *state.Slot is one that outlives the process.
type Slot interface {
	// Prepare empties the slot and returns the buffer to read a request into.
	Prepare() []byte
	// Request returns the request that was read, as long as its first word
	// says. Empty if there is none.
	Request() []byte
	// Done empties the slot.
	Done()
}

// Ledger keeps the requests that were read, and what was decided about them,
// with what they changed. It is what makes a connection outlive its process;
// see [Volatile] for one that does not. All methods but Slot are called in
// steps.
type Ledger interface {
	// Slot is the buffer to read into.
	Slot() Slot
	// Away keeps a request that is on a detour, under its number, until Back
	// is called; it is called again when something else of it has changed.
	Away(unique uint64, r Traveller)
	Back(unique uint64)
	// SaveInit keeps the first request of the connection, which a successor
	// needs.
	SaveInit(request []byte)
	// Commit ends a step. What it changed, that the request in the slot is
	// decided (if it is the slot's), and the answers become one transaction.
	// Nothing is written down of a step that changed nothing, unless must
	// says so. The answers are sent after Commit, and before the next step.
	Commit(slot Slot, answers [][]byte, must bool)
}

// Traveller is a request that is on a detour.
type Traveller struct {
	Request []byte
	// Interrupted: an INTERRUPT has come for it, which the kernel sends once.
	Interrupted bool
	// Place is the filesystem's, see [Conn.Detour].
	Place uint64
}

// Volatile returns a Ledger for connections that end with their process.
func Volatile() Ledger { return volatile{&heapSlot{make([]byte, readBuffer)}} }

type volatile struct{ slot *heapSlot }

func (v volatile) Slot() Slot                { return v.slot }
func (volatile) Away(uint64, Traveller)      {}
func (volatile) Back(uint64)                 {}
func (volatile) SaveInit([]byte)             {}
func (volatile) Commit(Slot, [][]byte, bool) {}

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
