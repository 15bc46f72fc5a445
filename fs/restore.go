package fs

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
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
	files    slab[file]
	entries  slab[entry]
	handles  slab[handle]
	bodies   []*BodyRecord
	contents []ContentRecord
	pieces   map[uint64][]byte
	holds    slab[lockspace.Hold]
	waits    []lockspace.Wait
	graces   []lockspace.Grace
	streams  []StreamRecord
	reads    []ReadRecord
	workers  uint64
	lockDirs []LockDirRecord
	numbers  []NumbersRecord
	owners   savedOwners
	made     []*made
	foreign  []ForeignRecord
	mount    string
	counters [counters]uint64
	pidNS    uint64
	names    texts
	// mirrors are the places of directories that have one of their own.
	mirrors map[uint64]string
}

// Load reads one record. Records come in any order. Errors: [ErrRecord].
func (s *Saved) Load(kind uint8, id uint64, data []byte) error {
	d := &decoder{b: data}
	switch kind {
	case kindNode:
		n := s.nodes.new()
		n.ID, n.Parent, n.Lookups, n.File, n.UID, n.GID = id, d.u64(), d.u64(), d.u64(), d.u32(), d.u32()
		n.Made, n.Name = d.instant(), s.names.new(d.bytes(maxName))
		return d.end("node", id)
	case kindFile:
		x := s.files.new()
		x.Ino, x.Kind, x.Mode, x.UID, x.GID = id, d.limited(kinds-1), d.u32(), d.u32(), d.u32()
		x.Modified, x.Accessed, x.Changed = d.instant(), d.instant(), d.instant()
		x.Target = string(d.bytes(maxBody))
		if x.Kind == directory {
			x.Policy = d.policy()
			x.setEnd(d.limited(endsOutside))
			x.Policy.ids = d.ids()
		}
		return d.end("file", id)
	case kindEntry:
		e := s.entries.new()
		e.ID, e.Dir, e.File, e.Name = id, d.u64(), d.u64(), s.names.new(d.bytes(maxName))
		return d.end("entry", id)
	case kindHandle:
		h := s.handles.new()
		h.ID, h.Node, h.Opener, h.Opened = id, d.u64(), d.process(), d.instant()
		h.Stale, h.Lost, h.Truncate, h.Killed = d.flag(), d.flag(), d.flag(), d.flag()
		h.ListTo, h.EntriesTo, h.Shown = d.u64(), d.u64(), d.u64()
		h.PollID, h.Appended = d.u64(), d.u64()
		return d.end("open file", id)
	case kindBody:
		s.bodies = append(s.bodies, &BodyRecord{
			File: id, Author: d.u64(), Held: d.flag(),
			Names:    Identity{Pid: d.u32(), Started: time.Duration(d.u64())},
			Unclosed: d.u64(),
			Data:     append([]byte(nil), d.bytes(maxBody)...),
		})
		return d.end("body", id)
	case kindContent:
		s.contents = append(s.contents, ContentRecord{
			Handle: id, Size: d.u64(), Pieces: d.u64(), Text: append([]byte{}, d.bytes(pieceSize)...),
		})
		return d.end("content", id)
	case kindPiece:
		if s.pieces == nil {
			s.pieces = make(map[uint64][]byte)
		}
		s.pieces[id] = append([]byte(nil), data...)
		return nil
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
	case kindStream:
		s.streams = append(s.streams, StreamRecord{
			Handle: id, From: d.u64(), Cut: d.flag(), Window: append([]byte(nil), d.bytes(windowSize)...),
		})
		return d.end("stream", id)
	case kindRead:
		s.reads = append(s.reads, ReadRecord{Unique: id, Handle: d.u64(), Offset: d.u64(), Size: d.u32()})
		return d.end("read", id)
	case kindWorkers:
		s.workers = d.u64()
		return d.end("workers", id)
	case kindLockDir:
		s.lockDirs = append(s.lockDirs, LockDirRecord{ID: id, Lookups: d.u64(), UID: d.u32(), Key: d.key(&s.names)})
		return d.end("directory of a lock", id)
	case kindNumbers:
		s.numbers = append(s.numbers, NumbersRecord{ID: id, Dir: d.u64(), First: d.u32(), Last: d.u32(), UID: d.u32()})
		return d.end("numbers", id)
	case kindOwner, kindOwned:
		return s.owners.load(kind, id, d)
	case kindMade:
		return s.loadMade(id, d)
	case kindCounter:
		if id >= counters || len(data) != 8 {
			return fmt.Errorf("counter %d: %w", id, ErrRecord)
		}
		s.counters[id] = binary.NativeEndian.Uint64(data)
		return nil
	case kindMirror:
		var place string
		if err := setMirror(&place, string(data)); err != nil || place == "" {
			return fmt.Errorf("mirror of directory %d: %w", id, ErrRecord)
		}
		if s.mirrors == nil {
			s.mirrors = make(map[uint64]string)
		}
		s.mirrors[id] = place
		return nil
	case kindPidNS:
		s.pidNS = d.u64()
		return d.end("pid namespace", id)
	}
	return fmt.Errorf("record %d of kind %d: %w", id, kind, ErrRecord)
}

// Restore returns the filesystem whose journal wrote what is saved, for the
// same connection: the kernel's references and open files are good in it, and
// who waits has its place. s is used up. o.UID and o.GID are not used. Errors:
// [ErrRecord].
func Restore(o Options, s *Saved) (*FS, error) {
	f, err := restore(o, s)
	if err != nil {
		return nil, err
	}
	f.beginMirror(o.Backing, nil)
	return f, nil
}

// restore is Restore without a mirror.
func restore(o Options, s *Saved) (*FS, error) {
	f := prepare(o)
	f.nodes = nodes{
		journal: o.Journal,
		byID:    make(map[uint64]*node, s.nodes.n+1),
		byKey:   make(map[lockspace.Key]*node, s.nodes.n),
		last:    s.counters[counterNode],
	}
	files, err := f.restoreFiles(s)
	if err != nil {
		return nil, err
	}
	if err := f.restoreNodes(s, files); err != nil {
		return nil, err
	}
	if err := f.restoreForeign(s); err != nil {
		return nil, err
	}
	root := f.nodes.dir(rootDir)
	if root == nil {
		return nil, fmt.Errorf("no root: %w", ErrRecord)
	}
	f.nodes.byID[device.Root] = root
	if err := f.restoreLockDirs(s); err != nil {
		return nil, err
	}
	if err := f.restoreNumbers(s, files); err != nil {
		return nil, err
	}
	if err := f.owners.restore(&s.owners); err != nil {
		return nil, err
	}
	f.lastHandle = s.counters[counterHandle]
	f.handles = make(map[uint64]*handle, s.handles.n)
	for h := range s.handles.all() {
		if isControl(h.Node) {
			// Whether there is such an entry is seen when it is read: another
			// program may have opened it.
			f.controls[h.ID] = &controlHandle{HandleRecord: h.HandleRecord}
			f.openedLockDir(h.Node)
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
	if err := f.restoreReadings(s); err != nil {
		return nil, err
	}
	if err := f.restoreStreams(s); err != nil {
		return nil, err
	}
	for _, b := range s.bodies {
		x := files[b.File]
		if d := f.nodes.byID[b.File]; x == nil && d != nil {
			x = d.file
		}
		if x == nil {
			return nil, fmt.Errorf("body: no file %d: %w", b.File, ErrRecord)
		}
		x.body = b
	}
	holds := make([]*lockspace.Hold, 0, s.holds.n)
	for h := range s.holds.all() {
		if err := f.restoreKey(&h.Request); err != nil {
			return nil, fmt.Errorf("hold %d: %w", h.ID, err)
		}
		holds = append(holds, h)
	}
	for i := range s.waits {
		w := &s.waits[i]
		if w.Via == lockspace.ViaOpen {
			err = f.restoreOpening(w)
		} else {
			err = f.restoreKey(&w.Request)
		}
		if err != nil {
			return nil, fmt.Errorf("wait %d: %w", w.ID, err)
		}
	}
	if err := f.restoreMade(s); err != nil {
		return nil, err
	}
	f.table = lockspace.Restore(f.environment(o), holds, s.waits, s.graces)
	f.table.Listen(listener{f})
	for _, x := range files {
		if x.Kind == directory && x.Policy != (Policy{}) {
			f.applyPolicy(x)
		}
		if x.Lapsed { // what was held in it may not be any more
			f.vacated = append(f.vacated, x.Ino)
		}
	}
	for _, h := range holds {
		if h.ByName {
			f.unwatched = append(f.unwatched, h.Key)
		}
	}
	f.restoreNames(s)
	return f, nil
}

// restoreFiles makes the directories, and what is in them.
func (f *FS) restoreFiles(s *Saved) (map[uint64]*file, error) {
	files := make(map[uint64]*file, s.files.n)
	for x := range s.files.all() {
		x.recorded = true
		if x.Kind == directory {
			x.content = newContent()
		}
		if x.Ino > maxNode || !put(files, x.Ino, x) {
			return nil, fmt.Errorf("file %d is there twice, or cannot be: %w", x.Ino, ErrRecord)
		}
	}
	for ino, place := range s.mirrors {
		if x := files[ino]; x == nil || x.Kind != directory {
			return nil, fmt.Errorf("mirror: no directory %d: %w", ino, ErrRecord)
		}
		files[ino].Policy.mirror = place
	}
	entries := slices.SortedFunc(s.entries.all(), func(a, b *entry) int { return cmp.Compare(a.ID, b.ID) })
	for _, e := range entries {
		dir, x := files[e.Dir], files[e.File]
		if dir == nil || dir.content == nil || x == nil || x.Ino == rootDir {
			return nil, fmt.Errorf("entry %d: no directory %d, or no file %d: %w", e.ID, e.Dir, e.File, ErrRecord)
		}
		if dir.content.byName[e.Name] != nil || x.Kind == directory && len(x.entries) > 0 {
			return nil, fmt.Errorf("entry %d: %q is there twice: %w", e.ID, e.Name, ErrRecord)
		}
		x.name(e)
		dir.content.add(e)
	}
	f.lastEntry = s.counters[counterEntry]
	return files, nil
}

// restoreNodes makes the nodes.
func (f *FS) restoreNodes(s *Saved, files map[uint64]*file) error {
	for d := range s.nodes.all() {
		d.key = lockspace.Key{Dir: d.Parent, Name: d.Name}
		d.file = files[d.File]
		if d.File == 0 {
			d.file = &d.own
			d.own.Ino = d.ID
		}
		switch {
		case d.ID > maxNode:
			return fmt.Errorf("node %d: its number is not a node's: %w", d.ID, ErrRecord)
		case d.file == nil:
			return fmt.Errorf("node %d: no file %d: %w", d.ID, d.File, ErrRecord)
		case d.file.Kind == directory && d.ID != d.file.Ino:
			return fmt.Errorf("node %d: directory %d: %w", d.ID, d.file.Ino, ErrRecord)
		case !put(f.nodes.byID, d.ID, d):
			return fmt.Errorf("node %d is there twice: %w", d.ID, ErrRecord)
		}
		d.file.nodes++
	}
	// A directory has a node while it has a name.
	for _, x := range files {
		if x.Kind == directory && len(x.entries) > 0 && f.nodes.byID[x.Ino] == nil {
			f.nodes.of(x.entries[0])
		}
	}
	// What is in a directory has it. An open file whose name is gone may be left of
	// one that is.
	for _, x := range files {
		for _, e := range x.entries {
			if f.nodes.byID[e.Dir] == nil {
				return fmt.Errorf("entry %d: no directory %d: %w", e.ID, e.Dir, ErrRecord)
			}
		}
	}
	return nil
}

// restoreNames finds out which nodes the names lead to: of several for one name,
// the last that was made, if it still stands for what is there.
func (f *FS) restoreNames(s *Saved) {
	for d := range s.nodes.all() {
		if d.ID == rootDir {
			continue
		}
		leads := d.File == 0 || f.table.Held(d.key)
		if e := f.entry(d.key); e != nil {
			leads = d.file == e.file
		}
		if other := f.nodes.byKey[d.key]; leads && (other == nil || other.ID < d.ID) {
			f.nodes.byKey[d.key] = d
		}
	}
}

// TakeUp returns the filesystem of a new connection with what [FS.Save] saved of
// another. What it has is put into the journal. Leases begin anew: nobody could
// renew one meanwhile. Processes are watched as before, unless they had numbers
// of another pid namespace, or the pid was not written to its end. Errors: [ErrRecord], or what is in the way of
// o.Lockspaces.
func TakeUp(o Options, s *Saved) (*FS, error) {
	for _, x := range []int{counterNode, counterEntry} {
		s.counters[x] = max(s.counters[x], s.highest(x))
	}
	root := s.nodes.new()
	root.ID, root.File = rootDir, rootDir
	f, err := restore(o, s)
	if err != nil {
		return nil, err
	}
	f.stream.workers = 1 // of this mount
	for x := range s.files.all() {
		if x.Kind == directory {
			if x.Ino == rootDir {
				x.Policy = o.Policy
			}
			x.Policy.leaseFrom = f.clock.Now().Boot
			f.applyPolicy(x)
		}
		f.journal.PutFile(&x.FileRecord)
	}
	f.journal.PutNode(&root.NodeRecord)
	for e := range s.entries.all() {
		f.journal.PutEntry(&e.EntryRecord)
	}
	elsewhere := s.pidNS != f.procs.Namespace()
	for _, b := range s.bodies {
		if elsewhere || b.Unclosed != 0 { // the number may be a part of one
			b.Names, b.Unclosed = Identity{}, 0
		}
		f.journal.PutBody(b)
	}
	for h := range s.holds.all() {
		if elsewhere {
			h.Party.Taker.Started = 0
		}
		f.journal.PutHold(h)
	}
	for i := range s.graces {
		f.journal.PutGrace(&s.graces[i])
	}
	for i := range s.numbers {
		f.journal.PutNumbers(&s.numbers[i])
	}
	f.owners.takeUp(elsewhere)
	if err := f.makeLockspaces(o.Lockspaces); err != nil {
		return nil, err
	}
	f.warnOfNumbers()
	// Now that the policies are those of this mount: they say what is mirrored.
	holds := []*lockspace.Hold{}
	for h := range s.holds.all() {
		holds = append(holds, h)
	}
	f.beginMirror(o.Backing, holds)
	return f, nil
}

// highest returns the highest number that a counter can have given out to what
// was saved.
func (s *Saved) highest(counter int) (n uint64) {
	if counter == counterEntry {
		for e := range s.entries.all() {
			n = max(n, e.ID)
		}
		return n
	}
	for x := range s.files.all() {
		n = max(n, x.Ino)
	}
	for _, m := range s.made {
		n = max(n, m.ID)
	}
	return max(n, s.owners.highest())
}

// put adds to m and reports whether k is new.
func put[K comparable, V any](m map[K]V, k K, v V) bool {
	before := len(m)
	m[k] = v
	return len(m) > before
}

// restoreKey fills in what records of requests leave out: the key, which is
// that of the node. A hold by name has its own, and no open file, and so has one of
// a named owner. See restoreOpening for who has no open file yet.
func (f *FS) restoreKey(r *lockspace.Request) error {
	if r.Via == lockspace.ViaOwner {
		return f.restoreOwned(r)
	}
	if r.ByName {
		if e := f.entry(r.Key); e == nil || e.File != r.Party.File {
			return fmt.Errorf("there is no file %d %q in %d: %w", r.Party.File, r.Key.Name, r.Key.Dir, ErrRecord)
		}
		return nil
	}
	h := f.handles[r.Party.Handle]
	if h == nil || h.node.file.Kind == directory || h.node.ID != r.Party.File {
		return fmt.Errorf("open file %d is not on node %d: %w", r.Party.Handle, r.Party.File, ErrRecord)
	}
	r.Key = h.node.key
	return nil
}
