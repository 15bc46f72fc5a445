package fs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/lockfs/lockfs/lockspace"
)

// The records of named owners. There are two kinds, each with a byte first that says
// what it is of. Their formats are here and nowhere else, and so is their reading.

// What records of kindOwner are of, and those of kindOwned.
const (
	recordRegistry  = 0 // the mount's number, and what is forgotten; number 0
	recordOwner     = 1
	recordResource  = 0
	recordConflicts = 1 // number: the owner's
	recordTrace     = 2
)

func (r *Records) PutOwner(id uint64, data []byte) {
	r.count(counterNode, id)
	r.store.Put(kindOwner, id, data)
}

func (r *Records) PutOwned(id uint64, data []byte) {
	r.count(counterNode, id)
	r.store.Put(kindOwned, id, data)
}

func (r *Records) DropOwner(id uint64) { r.store.Drop(kindOwner, id) }
func (r *Records) DropOwned(id uint64) { r.store.Drop(kindOwned, id) }

func encodeOwner(o *OwnerRecord) []byte {
	var e encoder
	e.byte(recordOwner)
	e.u32(o.UID)
	e.u32(o.GID)
	e.instant(o.Made)
	e.text(o.Name)
	e.text(o.DomainID)
	e.text(o.UUID)
	e.text(o.Domain)
	e.u32(o.Pid)
	e.u32(o.Process.Pid)
	e.u64(uint64(o.Process.Started))
	e.flag(o.Ended)
	e.flag(o.Restricted)
	e.byte(o.Action)
	e.flag(o.Due)
	return e.b
}

func decodeOwner(id uint64, d *decoder) OwnerRecord {
	o := OwnerRecord{ID: id, UID: d.u32(), GID: d.u32(), Made: d.instant(), Name: string(d.bytes(maxName))}
	o.DomainID, o.UUID, o.Domain = string(d.bytes(maxText)), string(d.bytes(maxText)), string(d.bytes(maxText))
	o.Pid, o.Process = d.u32(), Identity{d.u32(), time.Duration(d.u64())}
	o.Ended, o.Restricted, o.Action, o.Due = d.flag(), d.flag(), d.limited(actions-1), d.flag()
	if o.Name == "" || id > maxNode || o.Due && actionSignals[o.Action] == 0 {
		d.damaged()
	}
	return o
}

func encodeResource(r *ResourceRecord) []byte {
	var e encoder
	e.byte(recordResource)
	e.u64(r.Owner)
	e.byte(r.Kind)
	e.byte(r.Mode)
	e.key(r.Key)
	e.text(r.Path)
	e.u64(r.Offset)
	e.text(r.Space)
	e.u64(r.Token)
	e.byte(byte(r.HeldAs))
	return e.b
}

func decodeResource(id uint64, d *decoder) ResourceRecord {
	r := ResourceRecord{ID: id, Owner: d.u64(), Kind: d.limited(resourceKinds - 1), Mode: d.limited(resourceModes - 1)}
	r.Key = d.key(new(texts))
	r.Path, r.Offset, r.Space = string(d.bytes(maxBody)), d.u64(), string(d.bytes(maxBody))
	r.Token, r.HeldAs = d.u64(), lockspace.Mode(d.limited(byte(lockspace.Exclusive)))
	return r
}

func encodeTrace(t *TraceRecord) []byte {
	var e encoder
	e.byte(recordTrace)
	e.u64(t.Token)
	e.u32(t.UID)
	e.key(t.Key)
	return e.b
}

func encodeConflicts(text string) []byte {
	var e encoder
	e.byte(recordConflicts)
	e.text(text)
	return e.b
}

// keepRegistry puts the record of what owners have in common.
func (x *owners) keepRegistry() {
	b := binary.NativeEndian.AppendUint64([]byte{recordRegistry}, x.traces.mount)
	x.journal.PutOwner(0, binary.NativeEndian.AppendUint64(b, x.traces.forgotten))
}

// savedOwners is what was read back.
type savedOwners struct {
	mount, forgotten uint64
	owners           []OwnerRecord
	resources        []ResourceRecord
	conflicts        map[uint64]string
	traces           []TraceRecord
}

// load reads a record. Errors: [ErrRecord].
func (s *savedOwners) load(kind uint8, id uint64, d *decoder) error {
	what := d.limited(recordTrace)
	switch {
	case kind == kindOwner && what == recordRegistry && id == 0:
		s.mount, s.forgotten = d.u64(), d.u64()
	case kind == kindOwner && what == recordOwner:
		s.owners = append(s.owners, decodeOwner(id, d))
	case kind == kindOwned && what == recordResource:
		s.resources = append(s.resources, decodeResource(id, d))
	case kind == kindOwned && what == recordConflicts:
		if s.conflicts == nil {
			s.conflicts = make(map[uint64]string)
		}
		s.conflicts[id] = string(d.bytes(maxConflicts))
	case kind == kindOwned && what == recordTrace:
		s.traces = append(s.traces, TraceRecord{ID: id, Token: d.u64(), UID: d.u32(), Key: d.key(new(texts))})
	default:
		d.damaged()
	}
	return d.end("named owner's record", id)
}

// highest returns the highest number in what was read.
func (s *savedOwners) highest() (n uint64) {
	for i := range s.owners {
		n = max(n, s.owners[i].ID)
	}
	for i := range s.resources {
		n = max(n, s.resources[i].ID)
	}
	for i := range s.traces {
		n = max(n, s.traces[i].ID)
	}
	return n
}

// restore makes the owners that there were. Errors: [ErrRecord].
func (x *owners) restore(s *savedOwners) error {
	x.traces.mount, x.traces.forgotten = s.mount, s.forgotten
	inOrder(s.owners, func(r OwnerRecord) uint64 { return r.ID })
	for _, r := range s.owners {
		if x.byID[r.ID] != nil || x.byName[r.Name] != nil || s.mount == 0 {
			return fmt.Errorf("named owner %d is there twice, or cannot be: %w", r.ID, ErrRecord)
		}
		x.add(&namedOwner{OwnerRecord: r, conflicts: s.conflicts[r.ID]})
		delete(s.conflicts, r.ID)
	}
	if len(s.conflicts) > 0 {
		return fmt.Errorf("%d conflicts of nobody: %w", len(s.conflicts), ErrRecord)
	}
	inOrder(s.resources, func(r ResourceRecord) uint64 { return r.ID })
	for _, r := range s.resources {
		o := x.byID[r.Owner]
		if o == nil || o.find(r.what()) != nil {
			return fmt.Errorf("resource %d: no owner %d, or it has it twice: %w", r.ID, r.Owner, ErrRecord)
		}
		o.resources = append(o.resources, &resource{r})
		x.counted(o, 1)
	}
	inOrder(s.traces, func(r TraceRecord) uint64 { return r.ID })
	for _, r := range s.traces {
		if x.traces.byKey[r.Key] != nil {
			return fmt.Errorf("trace %d is there twice: %w", r.ID, ErrRecord)
		}
		x.traces.put(&trace{TraceRecord: r})
	}
	return nil
}

// takeUp puts what the last mount saved into the journal. elsewhere: the numbers of
// processes are of another pid namespace, so that nobody knows which they are.
func (x *owners) takeUp(elsewhere bool) {
	if x.traces.mount != 0 {
		x.keepRegistry()
	}
	for _, o := range x.order {
		if elsewhere {
			o.Pid, o.Process, o.Ended, o.Due = 0, Identity{}, false, false
		}
	}
	x.putAll(x.journal)
}

// putAll puts all records but that of what they have in common.
func (x *owners) putAll(j Journal) {
	for _, o := range x.order {
		j.PutOwner(o.ID, encodeOwner(&o.OwnerRecord))
		for _, r := range o.resources {
			j.PutOwned(r.ID, encodeResource(&r.ResourceRecord))
		}
		if o.conflicts != "" {
			j.PutOwned(o.ID, encodeConflicts(o.conflicts))
		}
	}
	for _, t := range x.traces.byKey {
		j.PutOwned(t.ID, encodeTrace(&t.TraceRecord))
	}
}

// saveOwners writes the named owners, and what they hold.
func (f *FS) saveOwners(r *Records) {
	x := &f.owners
	if x.traces.mount == 0 {
		return
	}
	common := owners{journal: r, traces: x.traces}
	common.keepRegistry()
	x.putAll(r)
	for _, o := range x.order {
		for _, h := range f.held(o) {
			r.PutHold(h)
		}
	}
}

// restoreOwned says whether the hold of a named owner can be: there is such an owner,
// with such a resource, and the directory.
func (f *FS) restoreOwned(r *lockspace.Request) error {
	o := f.owners.ofHold(r)
	if o == nil || f.nodes.dir(r.Key.Dir) == nil ||
		!slices.ContainsFunc(o.resources, func(have *resource) bool { return have.Key == r.Key && have.Mode != readonly }) {
		return fmt.Errorf("no named owner has %q in %d among its resources: %w", r.Key.Name, r.Key.Dir, ErrRecord)
	}
	return nil
}
