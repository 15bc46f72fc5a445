package fs

import (
	"encoding/binary"

	"github.com/lockfs/lockfs/lockspace"
)

// What outlives the process, as records of fixed formats: the [Journal] over a
// store of bytes. Numbers are in the machine's byte order, since the memory
// that holds them does not leave the machine.

// Store keeps records of bytes under a kind and a number. *state.Tx is one.
type Store interface {
	Putter
	Drop(kind uint8, id uint64)
}

// Putter takes records.
type Putter interface {
	Put(kind uint8, id uint64, data []byte)
}

// maxRecord is the most bytes that a store takes in a record: state.MaxRecord.
const maxRecord = 4592

// Kinds of records. They are part of the format. Those up to 15 are this
// package's.
const (
	kindNode    = 1
	kindHandle  = 2
	kindBody    = 3
	kindHold    = 4
	kindWait    = 5
	kindCounter = 6
	kindContent = 7
	kindFile    = 8
	kindEntry   = 9
	kindGrace   = 10
	// kindPidNS is in what is saved for the next mount only.
	kindPidNS   = 11
	kindLockDir = 12
	// kindWorkers has the number 0.
	kindWorkers = 13
	kindStream  = 14
	kindRead    = 15
	// 16 to 18 are not fs's.
	kindPiece   = 19
	kindNumbers = 20
	// Those of named owners begin with a byte that says what they are, see
	// ownerrecord.go.
	kindOwner = 21
	kindOwned = 22
	kindMade  = 23
	// kindMirror is the place of a directory that has one of its own, which a program
	// that knows of none must not take over.
	kindMirror = 24
)

// Records is a [Journal] that writes records to a store.
type Records struct {
	store Store
	buf   []byte
	// reserved are the highest numbers that nodes, files, open files and
	// entries may have.
	// They are never given out twice, so they outlive the records that had
	// them.
	reserved [counters]uint64
	// mirrors are the directories that have a record of their place.
	mirrors map[uint64]bool
}

// Counters that are reserved, by their record's number.
const (
	counterNode = iota
	counterHandle
	counterEntry
	counters
)

// reserve is how many numbers are reserved at once, so that this costs a lock
// call nothing.
const reserve = 1 << 20

// NewRecords returns a Journal over a store. saved is what was read back from
// it, the zero Saved if it is empty.
func NewRecords(store Store, saved *Saved) *Records {
	r := &Records{store: store, reserved: saved.counters, mirrors: make(map[uint64]bool)}
	for ino := range saved.mirrors {
		r.mirrors[ino] = true
	}
	return r
}

// count sees to it that number n is reserved. Records that are put again have
// numbers of long ago, which must not take back what was reserved since.
func (r *Records) count(counter int, n uint64) {
	if n <= r.reserved[counter] {
		return
	}
	r.reserved[counter] = n + reserve
	r.store.Put(kindCounter, uint64(counter), binary.NativeEndian.AppendUint64(nil, n+reserve))
}

func (r *Records) PutNode(n *NodeRecord) {
	r.count(counterNode, n.ID)
	e := r.begin()
	e.u64(n.Parent)
	e.u64(n.Lookups)
	e.u64(n.File)
	e.u32(n.UID)
	e.u32(n.GID)
	e.instant(n.Made)
	e.text(n.Name)
	r.put(kindNode, n.ID, e)
}

func (r *Records) PutFile(x *FileRecord) {
	r.count(counterNode, x.Ino)
	e := r.begin()
	e.byte(x.Kind)
	e.u32(x.Mode)
	e.u32(x.UID)
	e.u32(x.GID)
	e.instant(x.Modified)
	e.instant(x.Accessed)
	e.instant(x.Changed)
	e.text(x.Target)
	if p := &x.Policy; x.Kind == directory {
		e.byte(p.hold)
		e.byte(p.read | p.publish<<4) // which there was not always
		e.byte(p.reap)
		e.u64(uint64(p.lease))
		e.u64(uint64(p.grace))
		e.u64(uint64(p.leaseFrom))
		e.byte(x.end())
		if p.ids > 0 { // programs that know of none have records without
			e.u64(p.ids)
		}
	}
	r.put(kindFile, x.Ino, e)
	if x.Kind == directory {
		r.putMirror(x.Ino, x.Policy.mirror)
	}
}

// putMirror records the place of a directory, "" if it has none of its own.
func (r *Records) putMirror(ino uint64, place string) {
	switch {
	case place != "":
		r.mirrors[ino] = true
		r.store.Put(kindMirror, ino, []byte(place))
	case r.mirrors[ino]:
		delete(r.mirrors, ino)
		r.store.Drop(kindMirror, ino)
	}
}

func (r *Records) PutEntry(n *EntryRecord) {
	r.count(counterEntry, n.ID)
	e := r.begin()
	e.u64(n.Dir)
	e.u64(n.File)
	e.text(n.Name)
	r.put(kindEntry, n.ID, e)
}

func (r *Records) PutHandle(h *HandleRecord) {
	r.count(counterHandle, h.ID)
	e := r.begin()
	e.u64(h.Node)
	e.process(h.Opener)
	e.instant(h.Opened)
	e.flag(h.Stale)
	e.flag(h.Lost)
	e.flag(h.Truncate)
	e.flag(h.Killed)
	e.u64(h.ListTo)
	e.u64(h.EntriesTo)
	e.u64(h.Shown)
	e.u64(h.PollID)
	e.u64(h.Appended)
	r.put(kindHandle, h.ID, e)
}

func (r *Records) PutBody(b *BodyRecord) {
	e := r.begin()
	e.u64(b.Author)
	e.flag(b.Held)
	e.u32(b.Names.Pid)
	e.u64(uint64(b.Names.Started))
	e.u64(b.Unclosed)
	e.bytes(b.Data)
	r.put(kindBody, b.File, e)
}

func (r *Records) PutContent(c *ContentRecord) {
	e := r.begin()
	e.u64(c.Size)
	e.u64(c.Pieces)
	e.bytes(c.Text)
	r.put(kindContent, c.Handle, e)
}

// PutPiece puts what is in no other format.
func (r *Records) PutPiece(id uint64, text []byte) { r.store.Put(kindPiece, id, text) }

func (r *Records) PutHold(h *lockspace.Hold) {
	e := r.begin()
	e.u64(h.Token)
	e.u64(h.Listed)
	e.instant(h.Since)
	e.u64(uint64(h.Renewed))
	e.request(&h.Request)
	r.put(kindHold, uint64(h.ID), e)
}

func (r *Records) PutWait(w *lockspace.Wait) {
	r.count(counterHandle, w.Party.Handle) // of an open(2), it has no record yet
	e := r.begin()
	e.u64(w.Place)
	e.instant(w.Since)
	e.u64(uint64(w.AbsentUntil))
	e.request(&w.Request)
	r.put(kindWait, uint64(w.ID), e)
}

// PutPidNS records which pid namespace the numbers of processes are of.
func (r *Records) PutPidNS(inode uint64) {
	e := r.begin()
	e.u64(inode)
	r.put(kindPidNS, 0, e)
}

func (r *Records) PutGrace(g *lockspace.Grace) {
	e := r.begin()
	e.u64(uint64(g.Until))
	e.key(g.Key)
	r.put(kindGrace, uint64(g.ID), e)
}

func (r *Records) PutStream(s *StreamRecord) {
	e := r.begin()
	e.u64(s.From)
	e.flag(s.Cut)
	e.bytes(s.Window)
	r.put(kindStream, s.Handle, e)
}

func (r *Records) PutRead(read *ReadRecord) {
	e := r.begin()
	e.u64(read.Handle)
	e.u64(read.Offset)
	e.u32(read.Size)
	r.put(kindRead, read.Unique, e)
}

func (r *Records) PutWorkers(n uint64) {
	e := r.begin()
	e.u64(n)
	r.put(kindWorkers, 0, e)
}

func (r *Records) PutLockDir(d *LockDirRecord) {
	r.count(counterNode, d.ID)
	e := r.begin()
	e.u64(d.Lookups)
	e.u32(d.UID)
	e.key(d.Key)
	r.put(kindLockDir, d.ID, e)
}

func (r *Records) PutNumbers(n *NumbersRecord) {
	e := r.begin()
	e.u64(n.Dir)
	e.u32(n.First)
	e.u32(n.Last)
	e.u32(n.UID)
	r.put(kindNumbers, n.ID, e)
}

func (r *Records) DropNode(id uint64)                { r.store.Drop(kindNode, id) }
func (r *Records) DropHandle(id uint64)              { r.store.Drop(kindHandle, id) }
func (r *Records) DropBody(file uint64)              { r.store.Drop(kindBody, file) }
func (r *Records) DropEntry(id uint64)               { r.store.Drop(kindEntry, id) }
func (r *Records) DropContent(handle uint64)         { r.store.Drop(kindContent, handle) }
func (r *Records) DropPiece(id uint64)               { r.store.Drop(kindPiece, id) }
func (r *Records) DropHold(id lockspace.HoldID)      { r.store.Drop(kindHold, uint64(id)) }
func (r *Records) DropWait(id lockspace.WaitID)      { r.store.Drop(kindWait, uint64(id)) }
func (r *Records) DropGrace(id lockspace.GraceID)    { r.store.Drop(kindGrace, uint64(id)) }
func (r *Records) DropStream(handle uint64)          { r.store.Drop(kindStream, handle) }
func (r *Records) DropRead(unique uint64)            { r.store.Drop(kindRead, unique) }
func (r *Records) DropLockDir(id uint64)             { r.store.Drop(kindLockDir, id) }
func (r *Records) DropNumbers(id uint64)             { r.store.Drop(kindNumbers, id) }
func (r *Records) begin() encoder                    { return encoder{r.buf[:0]} }
func (r *Records) put(k uint8, id uint64, e encoder) { r.buf = e.b; r.store.Put(k, id, e.b) }

// DropFile drops a file, and what goes with it.
func (r *Records) DropFile(ino uint64) {
	r.store.Drop(kindFile, ino)
	r.putMirror(ino, "")
}

var _ Journal = (*Records)(nil)
