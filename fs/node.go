package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// node is what the kernel has a number for: a name in a directory, and the file
// that it was a name of when it was looked up. Each name of a file has a node of
// its own, so that a lock call tells which lock it means. A node lives as long
// as the kernel refers to it or a file is open on it; a directory's, as long as
// it has a name.
type node struct {
	NodeRecord
	key  lockspace.Key
	open int // handles
	file *file
	own  file // file, if that has no name of its own
	// foreign is what somebody outside has made under the name; nil: nothing.
	foreign *mirror.Outside
}

// nodes is the nodes there are.
type nodes struct {
	journal Journal
	byID    map[uint64]*node
	// byKey are the nodes that a name leads to: not those whose file has lost
	// the name, and is still open.
	byKey map[lockspace.Key]*node
	last  uint64
}

func newNodes(j Journal) nodes {
	return nodes{journal: j, byID: make(map[uint64]*node), byKey: make(map[lockspace.Key]*node)}
}

// number returns a number that no node has or had.
func (n *nodes) number() uint64 {
	n.last++
	return n.last
}

// addRoot adds the root directory.
func (n *nodes) addRoot(x *file) *node {
	r := &node{NodeRecord: NodeRecord{ID: rootDir, File: rootDir}, file: x}
	x.nodes++
	n.byID[rootDir] = r
	n.byID[device.Root] = r
	n.last = max(n.last, rootDir)
	return r
}

// get returns the node with a number, nil if there is none.
func (n *nodes) get(id uint64) *node { return n.byID[id] }

// dir returns the directory with a number, nil if there is none.
func (n *nodes) dir(id uint64) *node {
	if d := n.byID[id]; d != nil && d.file.Kind == directory {
		return d
	}
	return nil
}

// lookup returns the node that a name leads to, nil if it has none.
func (n *nodes) lookup(k lockspace.Key) *node { return n.byKey[k] }

// of returns the node of an entry.
func (n *nodes) of(e *entry) *node {
	k := e.key()
	if d := n.byKey[k]; d != nil && d.file == e.file {
		return d
	}
	d := &node{
		NodeRecord: NodeRecord{Parent: k.Dir, Name: k.Name, File: e.File},
		key:        k,
		file:       e.file,
	}
	if d.ID = e.File; e.file.Kind != directory {
		d.ID = n.number()
	}
	e.file.nodes++
	n.byID[d.ID] = d
	n.byKey[k] = d
	return d
}

// entered counts a reference that an answer gives the kernel.
func (n *nodes) entered(d *node) {
	d.Lookups++
	n.journal.PutNode(&d.NodeRecord)
}

// detach takes a node off its name, which leads elsewhere from now on.
func (n *nodes) detach(d *node) {
	if n.byKey[d.key] == d {
		delete(n.byKey, d.key)
	}
}

// forget takes count references back.
func (f *FS) forget(d *node, count uint64) {
	d.Lookups -= min(count, d.Lookups)
	if !f.collect(d) && !f.leaveForeign(d) {
		f.nodes.journal.PutNode(&d.NodeRecord)
	}
}

// collect drops a node to which nothing refers any more, and its file if that
// has no name.
func (f *FS) collect(d *node) bool {
	if d.Lookups > 0 || d.open > 0 || d.file.Kind == directory && (len(d.file.entries) > 0 || d.ID == rootDir) {
		return false
	}
	delete(f.nodes.byID, d.ID)
	f.nodes.detach(d)
	f.journal.DropNode(d.ID)
	if d.foreign != nil {
		f.journal.DropForeign(d.ID)
	}
	d.file.nodes--
	if d.File == 0 && d.file.body != nil {
		// Its author may hold the lock yet, through another node of that name.
		d.file.body = nil
		f.journal.DropBody(d.ID)
	}
	f.endFile(d.file)
	return true
}

// lockNode returns the node of a lock without an entry, a new one of owner's if
// it has none: everybody who opens the name meets on it. One whose file has got
// another name stays with that, once the lock is free.
func (f *FS) lockNode(k lockspace.Key, uid, gid uint32) *node {
	if d := f.nodes.byKey[k]; d != nil && (d.File == 0 || f.table.Held(k)) && d.file.Kind == regular {
		f.ownNode(d)
		return d
	}
	d := &node{
		NodeRecord: NodeRecord{ID: f.nodes.number(), Parent: k.Dir, Name: k.Name, UID: uid, GID: gid, Made: f.clock.Now()},
		key:        k,
	}
	d.file = &d.own
	d.own.Ino, d.own.nodes = d.ID, 1
	f.nodes.byID[d.ID] = d
	f.nodes.byKey[k] = d
	return d
}

// find returns the node of what is under a name, nil if there is nothing.
func (f *FS) find(k lockspace.Key, in *fuse.InHeader) *node {
	if e := f.entry(k); e != nil {
		return f.nodes.of(e)
	}
	if f.table.Held(k) {
		return f.lockNode(k, in.Uid, in.Gid)
	}
	return nil
}
