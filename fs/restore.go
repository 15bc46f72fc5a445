package fs

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Saved is what [Records] wrote to a store, read back. The zero Saved is
// ready to load into.
type Saved struct {
	nodes    map[uint64]*NodeRecord
	handles  map[uint64]*HandleRecord
	bodies   map[uint64]*BodyRecord
	holds    []lockspace.Hold
	waits    []lockspace.Wait
	counters [counters]uint64
}

// Load reads one record. Records come in any order. Errors: [ErrRecord].
func (s *Saved) Load(kind uint8, id uint64, data []byte) error {
	d := &decoder{b: data}
	switch kind {
	case kindNode:
		add(&s.nodes, id, &NodeRecord{
			ID: id, Parent: d.u64(), Lookups: d.u64(), Dir: d.flag(), Mode: d.u32(), UID: d.u32(), GID: d.u32(),
			Made: d.instant(), Name: string(d.bytes(maxName)),
		})
		return d.end("node", id)
	case kindHandle:
		add(&s.handles, id, &HandleRecord{
			ID: id, Node: d.u64(), Opener: d.process(), Opened: d.instant(), Stale: d.flag(), ListTo: d.u64(), Shown: d.u64(),
		})
		return d.end("open file", id)
	case kindBody:
		add(&s.bodies, id, &BodyRecord{Node: id, Author: d.u64(), Held: d.flag(), Data: d.bytes(maxBody)})
		return d.end("body", id)
	case kindHold:
		s.holds = append(s.holds, lockspace.Hold{
			ID: lockspace.HoldID(id), Token: d.u64(), Listed: d.u64(), Since: d.instant(), Request: d.request(),
		})
		return d.end("hold", id)
	case kindWait:
		s.waits = append(s.waits, lockspace.Wait{
			ID: lockspace.WaitID(id), Place: d.u64(), Since: d.instant(), AbsentUntil: time.Duration(d.u64()), Request: d.request(),
		})
		return d.end("wait", id)
	case kindCounter:
		if id >= counters || len(data) != 8 {
			return fmt.Errorf("counter %d: %w", id, ErrRecord)
		}
		s.counters[id] = binary.NativeEndian.Uint64(data)
		return nil
	}
	return fmt.Errorf("record %d of kind %d: %w", id, kind, ErrRecord)
}

func add[T any](m *map[uint64]*T, id uint64, v *T) {
	if *m == nil {
		*m = make(map[uint64]*T)
	}
	(*m)[id] = v
}

// Restore returns the filesystem whose journal wrote what is saved, for the
// same connection: the kernel's references and open files are good in it, and
// who waits has its place. o.UID and o.GID are not used. Errors: [ErrRecord].
func Restore(o Options, s *Saved) (*FS, error) {
	f := prepare(o)
	f.nodes = nodes{journal: o.Journal, byID: make(map[uint64]*node), byKey: make(map[lockspace.Key]*node), last: s.counters[counterNode]}
	for _, r := range s.nodes {
		d := &node{NodeRecord: *r}
		f.nodes.byID[d.ID] = d
		if d.Dir {
			continue
		}
		d.key = lockspace.Key{Dir: d.Parent, Name: d.Name}
		if parent := s.nodes[d.Parent]; parent == nil || !parent.Dir {
			return nil, fmt.Errorf("node %d: no directory %d: %w", d.ID, d.Parent, ErrRecord)
		}
		if f.nodes.byKey[d.key] != nil {
			return nil, fmt.Errorf("node %d: %q has two: %w", d.ID, d.Name, ErrRecord)
		}
		f.nodes.byKey[d.key] = d
	}
	root := f.nodes.byID[rootDir]
	if root == nil || !root.Dir {
		return nil, fmt.Errorf("no root: %w", ErrRecord)
	}
	f.nodes.byID[device.Root] = root
	f.lastHandle = s.counters[counterHandle]
	for _, r := range s.handles {
		d := f.nodes.byID[r.Node]
		if d == nil {
			return nil, fmt.Errorf("open file %d: no node %d: %w", r.ID, r.Node, ErrRecord)
		}
		d.open++
		f.handles[r.ID] = &handle{HandleRecord: *r, node: d}
	}
	for _, b := range s.bodies {
		d := f.nodes.byID[b.Node]
		if d == nil {
			return nil, fmt.Errorf("body: no node %d: %w", b.Node, ErrRecord)
		}
		d.body = b
	}
	for i := range s.holds {
		if err := f.restoreKey(&s.holds[i].Request); err != nil {
			return nil, fmt.Errorf("hold %d: %w", s.holds[i].ID, err)
		}
	}
	for i := range s.waits {
		if err := f.restoreKey(&s.waits[i].Request); err != nil {
			return nil, fmt.Errorf("wait %d: %w", s.waits[i].ID, err)
		}
	}
	f.table = lockspace.Restore(f.environment(o), s.holds, s.waits)
	return f, nil
}

// restoreKey fills in what records of requests leave out: the key, which is
// that of the node.
func (f *FS) restoreKey(r *lockspace.Request) error {
	h := f.handles[r.Party.Handle]
	if h == nil || h.node.Dir || h.node.ID != r.Party.File {
		return fmt.Errorf("open file %d is not on node %d: %w", r.Party.Handle, r.Party.File, ErrRecord)
	}
	r.Key = h.node.key
	return nil
}
