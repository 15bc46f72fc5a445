package lockspace

import (
	"fmt"
	"time"
)

// Key names a lock: a name in a directory. Directories are numbered by the
// table's user.
type Key struct {
	Dir  uint64
	Name string
}

// Mode says whether others may hold the same bytes.
type Mode uint8

const (
	Shared Mode = iota
	Exclusive
)

// String returns "shared" or "exclusive".
func (m Mode) String() string {
	if m == Exclusive {
		return "exclusive"
	}
	return "shared"
}

// Via is the call that took a hold (design 1.2).
type Via uint8

const (
	ViaExcl    Via = iota // open(O_CREAT|O_EXCL)
	ViaFlock              // flock(2)
	ViaFcntl              // fcntl(2), POSIX or open file description
	ViaLink               // link(2): the name is held by existing
	ViaSymlink            // symlink(2), likewise
	ViaMkdir              // mkdir(2), likewise
	ViaRename             // renameat2(2) with RENAME_NOREPLACE, likewise
	ViaOpen               // open(2) itself, in a lockspace where it takes the lock
	ViaOwner              // a named owner, with [Table.TryAll]
)

// String returns the word that holder records show: "excl", "flock", "fcntl",
// "link", "symlink", "mkdir", "rename", "open", "owner".
func (v Via) String() string {
	switch v {
	case ViaExcl:
		return "excl"
	case ViaFlock:
		return "flock"
	case ViaFcntl:
		return "fcntl"
	case ViaLink:
		return "link"
	case ViaSymlink:
		return "symlink"
	case ViaMkdir:
		return "mkdir"
	case ViaRename:
		return "rename"
	case ViaOpen:
		return "open"
	case ViaOwner:
		return "owner"
	}
	return fmt.Sprintf("via(%d)", uint8(v))
}

// makes reports whether v makes the name that it locks, and so asks for a lock
// that nobody holds.
func (v Via) makes() bool { return v == ViaExcl || v.byNameOnly() }

// byNameOnly reports whether v makes a name without opening a file.
func (v Via) byNameOnly() bool { return v >= ViaLink && v <= ViaRename }

// Process is what a request tells about a process without looking anything
// up. Pid 0 is a process in a pid namespace that cannot be seen from here: it
// is nobody's equal, itself included (design 1.9).
type Process struct {
	Pid uint32
	UID uint32
	GID uint32
	// Started is when the process started, on the clock of [Instant.Boot].
	// 0: not looked up; the table says with [ErrLookup] when it must be.
	Started time.Duration
}

// Instant is a point in time on two clocks.
type Instant struct {
	// Wall is for people: nanoseconds since 1970 (UTC).
	Wall int64
	// Boot is the time since boot, suspension included: the clock in which
	// processes' start times are given, and which never goes back.
	Boot time.Duration
}

// Time returns the wall clock time of i.
func (i Instant) Time() time.Time { return time.Unix(0, i.Wall) }

// Party is one who asks for locks.
type Party struct {
	// Handle is the open file description through which the call came. Never
	// reused. 0: none, for a name that was made without opening a file. Of a named
	// owner it is the owner's number, which no open file has.
	Handle uint64
	// File is the node that Handle is open on: what POSIX means by "that
	// file" when any close of it gives a process's fcntl locks back.
	File uint64
	// Owner is the kernel's number for the fcntl lock owner: the process's
	// file table for POSIX locks, the open file description for OFD locks.
	// Numbers are recycled; one means nothing once its holds are gone.
	// 0 and without meaning for anything but ViaFcntl.
	Owner uint64
	// Taker is the process that made the call.
	Taker Process
	// Opener is the process that opened Handle, at Opened.
	Opener Process
	Opened Instant
}

// Request asks for a hold.
type Request struct {
	Key   Key
	Party Party
	// Range and Mode are what is asked for. Who makes a name need not say it:
	// it is always the whole lock, exclusively.
	Range Range
	Mode  Mode
	Via   Via
	// ByName: the hold is owned by the existence of the name, and no close of
	// a file ends it. Always so for ViaLink, ViaSymlink, ViaMkdir and
	// ViaRename, by choice for ViaExcl, never for others (ViaOpen holds by the
	// open file that it makes).
	ByName bool
	// Thread is the calling thread's id, with which [Processes] can find out
	// what the thread waits in. 0 if unknown.
	Thread uint32
	// Reserved is the place that [Table.Reserve] gave a request that came
	// before and was sent back with [ErrLookup]. 0: it comes now.
	Reserved uint64
}

// Valid reports whether there can be a hold like r, or with waits a wait: for
// who reads records that may be damaged.
func (r *Request) Valid(waits bool) bool {
	switch {
	case r.Via > ViaOwner || r.Mode > Exclusive || !r.Range.Valid():
		return false
	case r.Via.makes():
		return !waits && r.Mode == Exclusive && r.Range == Whole && (r.ByName || r.Via == ViaExcl)
	case r.Via == ViaOwner && (waits || r.Party.Handle == 0):
		return false
	}
	return !r.ByName && (r.Via == ViaFcntl || r.Range == Whole)
}

// complete fills in what the idiom says of a request.
func (r *Request) complete() {
	switch {
	case r.Via.makes():
		r.Mode, r.Range = Exclusive, Whole
		r.ByName = r.ByName || r.Via != ViaExcl
	default:
		r.ByName = false
	}
}

// nobodysFile reports whether r was made through no open file: its party is
// known by the process only.
func (r *Request) nobodysFile() bool { return r.ByName && r.Party.Handle == 0 }

// Kinds of idiom that a lock has seen, as bits. On a lock that is mixed, which has
// seen both, or a hold without an open file, and only there, it matters of which
// process a request is.
const (
	wholeLock = 1 << iota
	byteRange
	mixed = wholeLock | byteRange
)

// class returns the bits of r in lock.classes.
func (r *Request) class() uint8 {
	switch {
	case r.nobodysFile():
		return mixed
	case r.Via == ViaFcntl:
		return byteRange
	}
	return wholeLock
}

// anonymous reports whether r's process has not been looked up and could be.
func (r *Request) anonymous() bool {
	return r.Party.Taker.Started == 0 && r.Party.Taker.Pid != 0
}

// HoldID numbers holds over the life of a table. A restored table goes on from
// the highest hold there is; what is never used again is the token.
type HoldID uint64

// Hold is one grant. Holds are not changed once the table has handed them
// out; a change of range or mode makes a new one. One that is renewed or moved
// is another Hold with the same ID.
type Hold struct {
	ID HoldID
	// Token is the fencing number, strictly increasing over grants. A hold
	// that was split keeps its token in both parts.
	Token uint64
	// Listed is the lock's place in its directory's listing: the token of the
	// hold that made the free lock a held one, or, after a [Table.Move], a
	// number that is no hold's token.
	Listed uint64
	// Since is when it was granted; a merged hold has the earliest of its
	// parts.
	Since Instant
	// Renewed is when it was granted or last renewed, on the clock of
	// [Instant.Boot] (see [Hold.LastRenewal]): from then on its lease
	// runs, see [Policy].
	Renewed time.Duration
	Request
}

// LastRenewal returns Renewed on both clocks. The wall clock's time is that of
// Since and the time that has passed, so it does not know of the clock having
// been set meanwhile.
func (h *Hold) LastRenewal() Instant {
	return Instant{Wall: h.Since.Wall + int64(h.Renewed-h.Since.Boot), Boot: h.Renewed}
}

// WaitID numbers waits; the table's user chooses it (the FUSE request).
type WaitID uint64

// Wait is a request in a lock's queue.
type Wait struct {
	ID WaitID
	// Place orders the queue. It is given at arrival and kept over a
	// cancelled and resumed wait.
	Place uint64
	Since Instant
	Request
	// AbsentUntil is set while the wait is cancelled but its place is kept:
	// the time since boot at which the place is given up. 0: present.
	AbsentUntil time.Duration
}

// ResumeGrace is how long a cancelled wait keeps its place (design 1.5).
const ResumeGrace = time.Second
