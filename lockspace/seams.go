package lockspace

import (
	"fmt"
	"math"
)

// The interfaces through which the table reaches the world. Its user
// implements them; tests fake them.

// Clock tells the time.
type Clock interface {
	Now() Instant
}

// Tokens gives out fencing tokens: strictly increasing, also over restarts if
// the implementation outlives the process.
type Tokens interface {
	Next() uint64
	// Left returns how many more can be given out at present. The table asks
	// before it lets a request in, and lets in no more than can be granted.
	Left() uint64
}

// Class says what kind of owner makes an fcntl call.
type Class uint8

const (
	ClassUnknown Class = iota // cannot be found out
	ClassPOSIX                // F_SETLK, F_SETLKW: the process
	ClassOFD                  // F_OFD_SETLK, F_OFD_SETLKW: the open file
)

// Processes answers what the table must know about processes beyond what a
// request brings.
type Processes interface {
	// Alive reports whether a process has the number pid, which is not 0. It
	// is asked in the middle of a step and must not block. A number that was
	// taken over by another process counts as alive.
	Alive(pid uint32) bool
	// WaitClass reports which call a thread is waiting in. An implementation
	// that would have to look returns known == false and notes the question;
	// the table's method then returns [ErrLookup] without having changed
	// anything, and is called again when the answer is there.
	WaitClass(thread uint32) (c Class, known bool)
}

// Reason says why a hold ended.
type Reason uint8

const (
	Released Reason = iota // given back by its party
	Broken                 // taken away by somebody else's unlink
	Reaped                 // by name, or a named owner, and the process that was watched for it died
	Expired                // not renewed within its lease
	Died                   // its open file was closed by the death of its process
	Lost                   // its mirror is lost
	// Replaced: it, or a part of it, became part of another hold of its party, or
	// was converted. Only a [Listener] is told so.
	Replaced
)

// String returns the word that events show: "released", "broken", "reaped",
// "expired", "died", "lost", "replaced".
func (r Reason) String() string {
	switch r {
	case Released:
		return "released"
	case Broken:
		return "broken"
	case Reaped:
		return "reaped"
	case Expired:
		return "expired"
	case Died:
		return "died"
	case Lost:
		return "lost"
	case Replaced:
		return "replaced"
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// abnormal reports whether a hold that ended so was not given back: what it
// protected may be in any state ([Policy.Grace]).
func (r Reason) abnormal() bool { return r != Released }

// takesAway reports whether a hold that ended so was taken from somebody who
// may still be there and think that it is his.
func (r Reason) takesAway() bool { return r.abnormal() && r != Died }

// Observer is told what a step did beyond what its method returned. It is
// called in the middle of the step and must not call the table.
type Observer interface {
	// Granted: a wait got what it waited for and is a hold now.
	Granted(Wait, Hold)
	// Refused: a wait ended without a hold. err is [ErrDeadlock],
	// [ErrBroken] or [ErrShutdown].
	Refused(w Wait, err error)
	// Ended: a hold ended as a whole. It is not called for the parts and
	// changes of an fcntl hold of which something is left.
	Ended(Hold, Reason)
}

// Mirror has every hold outside of the table as well, for programs that do not
// ask the table (design 1.6): what is granted was covered by it before. It is
// called in the middle of a step, must not change the table and must not block. A
// table need not have one, see [Table.Mirrored].
type Mirror interface {
	// Cover makes sure that the mirror has what a hold of r needs, before that is
	// granted. If something else is then in r's way, it has that for nothing, and
	// hears with Settled that it may give it back.
	//
	// Errors: [ErrForeign], who holds it is outside of the table; [ErrLookup], it
	// takes something that is not for a step; any other is r's.
	Cover(r *Request) error
	// Await says that r waits after one of these two errors, and for nobody else.
	// [Table.Reconsider] is to be called when it is worth another try. It is said
	// again with each try.
	Await(r *Request)
	// Settled tells what is held of a lock at the end of a step on it. What the
	// mirror has beyond that it may give back, once the step is recorded. It is not
	// called for a lock in grace, of which the mirror so keeps what it has, but not
	// over a [Restore].
	Settled(k Key, holds []*Hold)
}

// Journal receives every change of what must outlive the process (design
// 2.2). The table keeps nothing worth keeping elsewhere: New and the records
// that were put and not dropped make the same table again, see [Restore].
// The user of the table makes one transaction of all that one request did.
// The pointers are valid during the call only.
type Journal interface {
	// PutHold adds a hold or replaces the one with the same ID.
	PutHold(*Hold)
	DropHold(HoldID)
	// PutWait adds a wait or replaces the one with the same ID.
	PutWait(*Wait)
	DropWait(WaitID)
	// PutGrace adds a grace or replaces the one with the same ID.
	PutGrace(*Grace)
	DropGrace(GraceID)
}

// Discard is a Journal for tables that need not outlive the process.
type Discard struct{}

func (Discard) PutHold(*Hold)     {}
func (Discard) DropHold(HoldID)   {}
func (Discard) PutWait(*Wait)     {}
func (Discard) DropWait(WaitID)   {}
func (Discard) PutGrace(*Grace)   {}
func (Discard) DropGrace(GraceID) {}

// Counter is a Tokens that begins after its value and outlives nothing. The
// zero Counter is ready to use.
type Counter uint64

// Next returns the next token.
func (c *Counter) Next() uint64 {
	*c++
	return uint64(*c)
}

// Left returns how many there are.
func (c *Counter) Left() uint64 { return math.MaxUint64 - uint64(*c) }
