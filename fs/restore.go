package fs

import (
	"encoding/binary"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Saved is what [Records] wrote to a store, read back. The zero Saved is
// ready to load into.
//
// Somebody waits for it. What is loaded is what the filesystem goes on with, and
// is made many at a time.
type Saved struct {
	nodes    slab[node]
	handles  slab[handle]
	bodies   []*BodyRecord
	contents map[uint64][]byte
	holds    slab[lockspace.Hold]
	waits    []lockspace.Wait
	graces   []lockspace.Grace
	counters [counters]uint64
	names    texts
}

// slab makes values some at a time. Those made together are given back
// together, when none of them is in use any more.
type slab[T any] struct {
	made [][]T
	n    int
}

// slabSize is how many are made at a time: few, and the sizes of the memory
// allocator are filled well by them.
const slabSize = 42

// new returns another value.
func (s *slab[T]) new() *T {
	i := s.n % slabSize
	if i == 0 {
		s.made = append(s.made, make([]T, slabSize))
	}
	s.n++
	return &s.made[len(s.made)-1][i]
}

// all returns what was made.
func (s *slab[T]) all() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		n := s.n
		for _, some := range s.made {
			for i := range some[:min(n, slabSize)] {
				if !yield(&some[i]) {
					return
				}
			}
			n -= slabSize
		}
	}
}

// texts makes strings like slab.
type texts struct{ room strings.Builder }

const textsSize = 1024

func (t *texts) new(b []byte) string {
	if t.room.Cap()-t.room.Len() < len(b) {
		t.room = strings.Builder{}
		t.room.Grow(max(textsSize, len(b)))
	}
	from := t.room.Len()
	t.room.Write(b)
	return t.room.String()[from:]
}

// Load reads one record. Records come in any order. Errors: [ErrRecord].
func (s *Saved) Load(kind uint8, id uint64, data []byte) error {
	d := &decoder{b: data}
	switch kind {
	case kindNode:
		n := s.nodes.new()
		n.ID, n.Parent, n.Lookups, n.Dir, n.Mode, n.UID, n.GID = id, d.u64(), d.u64(), d.flag(), d.u32(), d.u32(), d.u32()
		n.Made, n.Name = d.instant(), s.names.new(d.bytes(maxName))
		return d.end("node", id)
	case kindHandle:
		h := s.handles.new()
		h.ID, h.Node, h.Opener, h.Opened = id, d.u64(), d.process(), d.instant()
		h.Stale, h.ListTo, h.Shown = d.flag(), d.u64(), d.u64()
		return d.end("open file", id)
	case kindBody:
		s.bodies = append(s.bodies, &BodyRecord{
			Node: id, Author: d.u64(), Held: d.flag(), Data: append([]byte(nil), d.bytes(maxBody)...),
		})
		return d.end("body", id)
	case kindContent:
		if s.contents == nil {
			s.contents = make(map[uint64][]byte)
		}
		s.contents[id] = append([]byte(nil), d.bytes(maxKept)...)
		return d.end("content", id)
	case kindHold:
		h := s.holds.new()
		h.ID, h.Token, h.Listed = lockspace.HoldID(id), d.u64(), d.u64()
		h.Since, h.Renewed = d.instant(), time.Duration(d.u64())
		d.request(&h.Request, false, &s.names)
		if h.Listed == 0 {
			d.damaged() // what is held has a place
		}
		return d.end("hold", id)
	case kindWait:
		w := lockspace.Wait{
			ID: lockspace.WaitID(id), Place: d.u64(), Since: d.instant(), AbsentUntil: time.Duration(d.u64()),
		}
		d.request(&w.Request, true, &s.names)
		s.waits = append(s.waits, w)
		return d.end("wait", id)
	case kindGrace:
		s.graces = append(s.graces, lockspace.Grace{
			ID: lockspace.GraceID(id), Until: time.Duration(d.u64()), Key: d.key(&s.names),
		})
		return d.end("grace", id)
	case kindCounter:
		if id >= counters || len(data) != 8 {
			return fmt.Errorf("counter %d: %w", id, ErrRecord)
		}
		s.counters[id] = binary.NativeEndian.Uint64(data)
		return nil
	}
	return fmt.Errorf("record %d of kind %d: %w", id, kind, ErrRecord)
}

// Restore returns the filesystem whose journal wrote what is saved, for the
// same connection: the kernel's references and open files are good in it, and
// who waits has its place. s is used up. o.UID and o.GID are not used. Errors:
// [ErrRecord].
func Restore(o Options, s *Saved) (*FS, error) {
	f := prepare(o)
	f.nodes = nodes{
		journal: o.Journal,
		byID:    make(map[uint64]*node, s.nodes.n+1),
		byKey:   make(map[lockspace.Key]*node, s.nodes.n),
		last:    s.counters[counterNode],
	}
	for d := range s.nodes.all() {
		if d.ID > maxNode {
			return nil, fmt.Errorf("node %d: its number is not a node's: %w", d.ID, ErrRecord)
		}
		if !put(f.nodes.byID, d.ID, d) {
			return nil, fmt.Errorf("node %d is there twice: %w", d.ID, ErrRecord)
		}
	}
	for d := range s.nodes.all() {
		if d.Dir {
			continue
		}
		d.key = lockspace.Key{Dir: d.Parent, Name: d.Name}
		if parent := f.nodes.byID[d.Parent]; parent == nil || !parent.Dir {
			return nil, fmt.Errorf("node %d: no directory %d: %w", d.ID, d.Parent, ErrRecord)
		}
		if !put(f.nodes.byKey, d.key, d) {
			return nil, fmt.Errorf("node %d: %q has two: %w", d.ID, d.Name, ErrRecord)
		}
	}
	root := f.nodes.byID[rootDir]
	if root == nil || !root.Dir {
		return nil, fmt.Errorf("no root: %w", ErrRecord)
	}
	f.nodes.byID[device.Root] = root
	f.lastHandle = s.counters[counterHandle]
	f.handles = make(map[uint64]*handle, s.handles.n)
	for h := range s.handles.all() {
		if isControl(h.Node) {
			// Whether there is such an entry is seen when it is read: another
			// program may have opened it.
			f.controls[h.ID] = &controlHandle{HandleRecord: h.HandleRecord}
			continue
		}
		h.node = f.nodes.byID[h.Node]
		if h.node == nil {
			return nil, fmt.Errorf("open file %d: no node %d: %w", h.ID, h.Node, ErrRecord)
		}
		h.node.open++
		if !put(f.handles, h.ID, h) {
			return nil, fmt.Errorf("open file %d is there twice: %w", h.ID, ErrRecord)
		}
	}
	for id, content := range s.contents {
		h := f.controls[id]
		if h == nil {
			return nil, fmt.Errorf("content: no open file %d: %w", id, ErrRecord)
		}
		h.content, h.kept = content, true
	}
	for _, b := range s.bodies {
		d := f.nodes.byID[b.Node]
		if d == nil {
			return nil, fmt.Errorf("body: no node %d: %w", b.Node, ErrRecord)
		}
		d.body = b
	}
	holds := make([]*lockspace.Hold, 0, s.holds.n)
	for h := range s.holds.all() {
		if err := f.restoreKey(&h.Request); err != nil {
			return nil, fmt.Errorf("hold %d: %w", h.ID, err)
		}
		holds = append(holds, h)
	}
	for i := range s.waits {
		if err := f.restoreKey(&s.waits[i].Request); err != nil {
			return nil, fmt.Errorf("wait %d: %w", s.waits[i].ID, err)
		}
	}
	f.table = lockspace.Restore(f.environment(o), holds, s.waits, s.graces)
	return f, nil
}

// put adds to m and reports whether k is new.
func put[K comparable, V any](m map[K]V, k K, v V) bool {
	before := len(m)
	m[k] = v
	return len(m) > before
}

// restoreKey fills in what records of requests leave out: the key, which is
// that of the node. A hold by name has its own, and no open file.
func (f *FS) restoreKey(r *lockspace.Request) error {
	if r.ByName {
		if dir := f.nodes.byID[r.Key.Dir]; dir == nil || !dir.Dir {
			return fmt.Errorf("%q is in no directory %d: %w", r.Key.Name, r.Key.Dir, ErrRecord)
		}
		if f.nodes.byID[r.Party.File] == nil {
			return fmt.Errorf("%q is no node %d: %w", r.Key.Name, r.Party.File, ErrRecord)
		}
		return nil
	}
	h := f.handles[r.Party.Handle]
	if h == nil || h.node.Dir || h.node.ID != r.Party.File {
		return fmt.Errorf("open file %d is not on node %d: %w", r.Party.Handle, r.Party.File, ErrRecord)
	}
	r.Key = h.node.key
	return nil
}
