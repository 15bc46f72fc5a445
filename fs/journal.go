package fs

import "github.com/lockfs/lockfs/lockspace"

// NodeRecord is what must outlive the process of a node.
type NodeRecord struct {
	// ID is the kernel's number for the node. Never reused.
	ID uint64
	// Parent is the directory's number and Name the name in it. The root has
	// neither.
	Parent uint64
	Name   string
	// Lookups is how many references the kernel holds (FORGET takes them
	// back).
	Lookups uint64
	// File is the number of the file that it is a node of; 0 if that has no
	// name of its own and ends with the node.
	File uint64
	// UID and GID are those of who made the node, at Made; shown while nobody
	// holds a lock without a file.
	UID, GID uint32
	Made     lockspace.Instant
}

// HandleRecord is what must outlive the process of an open file.
type HandleRecord struct {
	// ID is the kernel's number for the open file. Never reused.
	ID   uint64
	Node uint64
	// Opener is the process that opened it, at Opened.
	Opener lockspace.Process
	Opened lockspace.Instant

	// Of a file:

	// Stale: a lock taken through it was taken away. Lost: it was lost with its
	// mirror.
	Stale, Lost bool
	// Killed: the last process that closed it was ended by a signal.
	Killed bool
	// Truncate: the first write through it replaces what there is.
	Truncate bool
	// Appended is where the next write with O_APPEND goes, where that is not
	// the end, see [FS.Write].
	Appended uint64
	// Shown is how long the record is that a reader is in the middle of, in
	// bytes; 0 if it reads none.
	Shown uint64
	// PollID is the kernel's number for the open file in notifications that it
	// may be ready; 0 if nobody has slept in poll(2) on it.
	PollID uint64

	// Of a directory:

	// ListTo is the place at which the listing of what is held in it ends, and
	// EntriesTo the number of the last entry in it.
	ListTo, EntriesTo uint64
}

// BodyRecord is the body of a file.
type BodyRecord struct {
	// File is its number, or its node's.
	File uint64
	// Author is the open file whose hold the body goes with.
	Author uint64
	// Held: the author has had its hold; without it, the body goes.
	Held bool
	Data []byte
	// Names is the process whose pid the body is, if it is one and the process
	// lived when it was written.
	Names Identity
	// Unclosed is the open file through which the pid was written, if more of it
	// may follow. It does not count until that is closed. 0: it counts.
	Unclosed uint64
}

// Journal receives every change of what must outlive the process: the table's
// (see [lockspace.Journal]) and the nodes, open files, files, their names and
// bodies. What comes
// between two ends of steps is one transaction, see [device.Ledger]. The
// pointers are valid during the call only.
type Journal interface {
	lockspace.Journal
	// What begins with Put adds a record or replaces the one with the same
	// number.
	PutNode(*NodeRecord)
	DropNode(id uint64)
	PutHandle(*HandleRecord)
	DropHandle(id uint64)
	PutBody(*BodyRecord)
	DropBody(file uint64)
	PutFile(*FileRecord)
	DropFile(ino uint64)
	PutEntry(*EntryRecord)
	DropEntry(id uint64)
	// PutContent adds a record or replaces that of the same open file. A piece has
	// at most [pieceSize] bytes.
	PutContent(*ContentRecord)
	DropContent(handle uint64)
	PutPiece(id uint64, text []byte)
	DropPiece(id uint64)
	// PutStream, and PutRead, add a record or replace the one with the same
	// number. PutWorkers keeps how many processes have served the mount.
	PutStream(*StreamRecord)
	DropStream(handle uint64)
	PutRead(*ReadRecord)
	DropRead(unique uint64)
	PutWorkers(n uint64)
	PutLockDir(*LockDirRecord)
	DropLockDir(id uint64)
	PutNumbers(*NumbersRecord)
	DropNumbers(id uint64)
	// PutOwner, and PutOwned, add a record about named owners or replace the one
	// with the same number, see ownerrecord.go.
	PutOwner(id uint64, data []byte)
	DropOwner(id uint64)
	PutOwned(id uint64, data []byte)
	DropOwned(id uint64)
	// PutMade and PutMount are for names outside, see made.go.
	PutMade(*MadeRecord)
	DropMade(id uint64)
	PutMount(mount string)
	// PutForeign adds a record or replaces that of the same node, see foreign.go.
	PutForeign(*ForeignRecord)
	DropForeign(node uint64)
}

// Discard is a Journal for mounts that end with their process.
type Discard struct{ lockspace.Discard }

func (Discard) PutNode(*NodeRecord)       {}
func (Discard) DropNode(uint64)           {}
func (Discard) PutHandle(*HandleRecord)   {}
func (Discard) DropHandle(uint64)         {}
func (Discard) PutBody(*BodyRecord)       {}
func (Discard) DropBody(uint64)           {}
func (Discard) PutFile(*FileRecord)       {}
func (Discard) DropFile(uint64)           {}
func (Discard) PutEntry(*EntryRecord)     {}
func (Discard) DropEntry(uint64)          {}
func (Discard) PutContent(*ContentRecord) {}
func (Discard) DropContent(uint64)        {}
func (Discard) PutPiece(uint64, []byte)   {}
func (Discard) DropPiece(uint64)          {}
func (Discard) PutStream(*StreamRecord)   {}
func (Discard) DropStream(uint64)         {}
func (Discard) PutRead(*ReadRecord)       {}
func (Discard) DropRead(uint64)           {}
func (Discard) PutWorkers(uint64)         {}
func (Discard) PutLockDir(*LockDirRecord) {}
func (Discard) DropLockDir(uint64)        {}
func (Discard) PutNumbers(*NumbersRecord) {}
func (Discard) DropNumbers(uint64)        {}
func (Discard) PutOwner(uint64, []byte)   {}
func (Discard) DropOwner(uint64)          {}
func (Discard) PutOwned(uint64, []byte)   {}
func (Discard) DropOwned(uint64)          {}
func (Discard) PutMade(*MadeRecord)       {}
func (Discard) DropMade(uint64)           {}
func (Discard) PutMount(string)           {}
func (Discard) PutForeign(*ForeignRecord) {}
func (Discard) DropForeign(uint64)        {}

var _ Journal = Discard{}
