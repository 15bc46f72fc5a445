package fs

import (
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// node is what the kernel has a number for: the root directory, or a lock. A
// lock's node lives as long as the kernel refers to it or a file is open on
// it; while it lives, everybody who opens the name meets on it.
type node struct {
	NodeRecord
	key  lockspace.Key // of a lock
	open int           // handles
	body *BodyRecord   // nil: empty
}

// nodes is the nodes there are.
type nodes struct {
	journal Journal
	byID    map[uint64]*node
	byKey   map[lockspace.Key]*node
	last    uint64
}

func newNodes(j Journal, root NodeRecord) nodes {
	n := nodes{
		journal: j,
		byID:    make(map[uint64]*node),
		byKey:   make(map[lockspace.Key]*node),
		last:    root.ID,
	}
	r := &node{NodeRecord: root}
	n.byID[root.ID] = r
	n.byID[device.Root] = r
	j.PutNode(&r.NodeRecord)
	return n
}

// get returns the node with a number, nil if there is none.
func (n *nodes) get(id uint64) *node { return n.byID[id] }

// lookup returns the node of a lock, nil if it has none.
func (n *nodes) lookup(k lockspace.Key) *node { return n.byKey[k] }

// make returns the node of a lock, a new one of owner's if it has none.
func (n *nodes) make(k lockspace.Key, uid, gid uint32, now lockspace.Instant) *node {
	if d := n.byKey[k]; d != nil {
		return d
	}
	n.last++
	d := &node{
		NodeRecord: NodeRecord{ID: n.last, Parent: k.Dir, Name: k.Name, UID: uid, GID: gid, Made: now},
		key:        k,
	}
	n.byID[d.ID] = d
	n.byKey[k] = d
	return d
}

// entered counts a reference that an answer gives the kernel.
func (n *nodes) entered(d *node) {
	d.Lookups++
	n.journal.PutNode(&d.NodeRecord)
}

// forget takes count references back.
func (n *nodes) forget(d *node, count uint64) {
	d.Lookups -= min(count, d.Lookups)
	if !n.collect(d) {
		n.journal.PutNode(&d.NodeRecord)
	}
}

// collect drops a lock's node to which nothing refers any more.
func (n *nodes) collect(d *node) bool {
	if d.Dir || d.Lookups > 0 || d.open > 0 {
		return false
	}
	delete(n.byID, d.ID)
	delete(n.byKey, d.key)
	n.journal.DropNode(d.ID)
	return true
}
