package fs_test

import (
	"maps"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// processes is an [fs.Processes] whose processes the test makes up. A thread
// that is in no process given is its own process.
type processes struct {
	mu      sync.Mutex
	info    map[uint32]fs.ProcessInfo // by thread
	dead    map[uint32]bool
	classes map[uint32]lockspace.Class
	// killed are those that a signal ended, and watches what to tell whom of
	// whose end.
	killed    map[uint32]bool
	watches   map[uint32]map[int]func()
	lastWatch int
	namespace uint64
	looks     int // how often one was looked at
	waits     int // how many look-ups have been kept waiting
	signals   []sentSignal
	// gate, if set, holds every look-up until it is closed.
	gate chan struct{}
}

func newProcesses() *processes {
	return &processes{
		info:    make(map[uint32]fs.ProcessInfo),
		dead:    make(map[uint32]bool),
		classes: make(map[uint32]lockspace.Class),
		killed:  make(map[uint32]bool),
		watches: make(map[uint32]map[int]func()),
	}
}

func (p *processes) set(tid uint32, info fs.ProcessInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.info[tid] = info
}

func (p *processes) kill(pid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead[pid] = true
}

// revive gives a number that was a dead process's to another one.
func (p *processes) revive(pid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.dead, pid)
}

// looked returns how often a process was looked at.
func (p *processes) looked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.looks
}

// hold keeps look-ups waiting until the function it returns is called.
func (p *processes) hold() (release func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
	gate := p.gate
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gate = nil
		close(gate)
	}
}

func (p *processes) wait() {
	p.mu.Lock()
	gate := p.gate
	if gate != nil {
		p.waits++
	}
	p.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

// waited returns how many look-ups have been kept waiting.
func (p *processes) waited() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waits
}

func (p *processes) Leader(tid uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	info, ok := p.info[tid]
	return !ok || info.Pid == tid
}

func (p *processes) Alive(pid uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.dead[pid]
}

func (p *processes) Look(tid uint32) (fs.ProcessInfo, bool) {
	p.wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks++
	if p.dead[tid] {
		return fs.ProcessInfo{}, false
	}
	info, ok := p.info[tid]
	if !ok {
		info = fs.ProcessInfo{Kin: fs.Kin{Pid: tid, Started: time.Nanosecond}, Comm: "program", Cgroup: "/"}
	}
	return info, true
}

func (p *processes) LeaderOf(tid uint32) (uint32, bool) {
	info, ok := p.Look(tid)
	return info.Pid, ok
}

func (p *processes) Kin(pid uint32) (fs.Kin, bool) {
	info, ok := p.Look(pid)
	return info.Kin, ok
}

// Resolve knows one pid namespace only.
func (p *processes) Resolve(_, pid uint32) (fs.Kin, bool) {
	info, ok := p.Look(pid)
	return info.Kin, ok && info.Pid == pid && !info.Gone
}

func (p *processes) WaitClass(tid uint32) lockspace.Class {
	p.wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.classes[tid]
}

func (p *processes) User(uid uint32) string {
	if uid == 1000 {
		return "alice"
	}
	return ""
}

func (p *processes) Host() string { return "host" }

func (p *processes) Killed(tid uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killed[tid]
}

// Signal remembers what was sent, as by root.
func (p *processes) Signal(to fs.Identity, uid uint32, signal syscall.Signal) error {
	p.wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signals = append(p.signals, sentSignal{to, uid, signal})
	return nil
}

// sentSignal is a signal that a process was sent for a user.
type sentSignal struct {
	to     fs.Identity
	uid    uint32
	signal syscall.Signal
}

func (p *processes) Namespace() uint64 { return p.namespace }

// end is the end of a process, of which who watches is told.
func (p *processes) end(pid uint32) {
	p.kill(pid)
	p.mu.Lock()
	told := slices.Collect(maps.Values(p.watches[pid]))
	p.mu.Unlock()
	for _, ended := range told {
		ended()
	}
}

// Watch watches a process that the test ends.
func (p *processes) Watch(who fs.Kin, ended func()) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.watches[who.Pid] == nil {
		p.watches[who.Pid] = make(map[int]func())
	}
	p.lastWatch++
	id := p.lastWatch
	p.watches[who.Pid][id] = ended
	if p.dead[who.Pid] {
		go ended()
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.watches[who.Pid], id)
	}
}

// journal is an [fs.Journal] that keeps the records, as the state that
// outlives the process will.
type journal struct {
	mu       sync.Mutex
	holds    map[lockspace.HoldID]lockspace.Hold
	waits    map[lockspace.WaitID]lockspace.Wait
	nodes    map[uint64]fs.NodeRecord
	handles  map[uint64]fs.HandleRecord
	bodies   map[uint64]string
	contents map[uint64]string
	pieces   map[uint64]string
	files    map[uint64]fs.FileRecord
	entries  map[uint64]fs.EntryRecord
	graces   map[lockspace.GraceID]lockspace.Grace
	streams  map[uint64]fs.StreamRecord
	reads    map[uint64]fs.ReadRecord
	lockDirs map[uint64]fs.LockDirRecord
	numbers  map[uint64]fs.NumbersRecord
	owners   map[uint64]string
	owned    map[uint64]string
	made     map[uint64]fs.MadeRecord
	foreign  map[uint64]fs.ForeignRecord
	mount    string
	workers  uint64
	commits  int
	// open: something was changed and not committed yet.
	open bool
}

func newJournal() *journal {
	return &journal{
		holds:    make(map[lockspace.HoldID]lockspace.Hold),
		waits:    make(map[lockspace.WaitID]lockspace.Wait),
		nodes:    make(map[uint64]fs.NodeRecord),
		handles:  make(map[uint64]fs.HandleRecord),
		bodies:   make(map[uint64]string),
		contents: make(map[uint64]string),
		pieces:   make(map[uint64]string),
		files:    make(map[uint64]fs.FileRecord),
		entries:  make(map[uint64]fs.EntryRecord),
		graces:   make(map[lockspace.GraceID]lockspace.Grace),
		streams:  make(map[uint64]fs.StreamRecord),
		reads:    make(map[uint64]fs.ReadRecord),
		lockDirs: make(map[uint64]fs.LockDirRecord),
		numbers:  make(map[uint64]fs.NumbersRecord),
		owners:   make(map[uint64]string),
		owned:    make(map[uint64]string),
		made:     make(map[uint64]fs.MadeRecord),
		foreign:  make(map[uint64]fs.ForeignRecord),
	}
}

func (j *journal) change(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open = true
	f()
}

func (j *journal) PutHold(h *lockspace.Hold)    { j.change(func() { j.holds[h.ID] = *h }) }
func (j *journal) DropHold(id lockspace.HoldID) { j.change(func() { delete(j.holds, id) }) }
func (j *journal) PutWait(w *lockspace.Wait)    { j.change(func() { j.waits[w.ID] = *w }) }
func (j *journal) DropWait(id lockspace.WaitID) { j.change(func() { delete(j.waits, id) }) }
func (j *journal) PutNode(n *fs.NodeRecord)     { j.change(func() { j.nodes[n.ID] = *n }) }
func (j *journal) DropNode(id uint64)           { j.change(func() { delete(j.nodes, id) }) }
func (j *journal) PutHandle(h *fs.HandleRecord) { j.change(func() { j.handles[h.ID] = *h }) }
func (j *journal) DropHandle(id uint64)         { j.change(func() { delete(j.handles, id) }) }
func (j *journal) PutBody(b *fs.BodyRecord)     { j.change(func() { j.bodies[b.File] = string(b.Data) }) }
func (j *journal) DropBody(file uint64)         { j.change(func() { delete(j.bodies, file) }) }
func (j *journal) PutFile(x *fs.FileRecord)     { j.change(func() { j.files[x.Ino] = *x }) }
func (j *journal) DropFile(ino uint64)          { j.change(func() { delete(j.files, ino) }) }
func (j *journal) PutEntry(e *fs.EntryRecord)   { j.change(func() { j.entries[e.ID] = *e }) }
func (j *journal) DropEntry(id uint64)          { j.change(func() { delete(j.entries, id) }) }
func (j *journal) PutContent(c *fs.ContentRecord) {
	j.change(func() { j.contents[c.Handle] = string(c.Text) })
}
func (j *journal) PutPiece(id uint64, text []byte) { j.change(func() { j.pieces[id] = string(text) }) }
func (j *journal) DropPiece(id uint64)             { j.change(func() { delete(j.pieces, id) }) }
func (j *journal) PutStream(r *fs.StreamRecord)    { j.change(func() { j.streams[r.Handle] = *r }) }
func (j *journal) DropStream(handle uint64)        { j.change(func() { delete(j.streams, handle) }) }
func (j *journal) PutRead(r *fs.ReadRecord)        { j.change(func() { j.reads[r.Unique] = *r }) }
func (j *journal) DropRead(unique uint64)          { j.change(func() { delete(j.reads, unique) }) }
func (j *journal) PutWorkers(n uint64)             { j.change(func() { j.workers = n }) }
func (j *journal) DropContent(handle uint64)       { j.change(func() { delete(j.contents, handle) }) }
func (j *journal) PutGrace(g *lockspace.Grace)     { j.change(func() { j.graces[g.ID] = *g }) }
func (j *journal) DropGrace(id lockspace.GraceID)  { j.change(func() { delete(j.graces, id) }) }
func (j *journal) PutLockDir(r *fs.LockDirRecord)  { j.change(func() { j.lockDirs[r.ID] = *r }) }
func (j *journal) DropLockDir(id uint64)           { j.change(func() { delete(j.lockDirs, id) }) }
func (j *journal) PutNumbers(r *fs.NumbersRecord)  { j.change(func() { j.numbers[r.ID] = *r }) }
func (j *journal) DropNumbers(id uint64)           { j.change(func() { delete(j.numbers, id) }) }
func (j *journal) PutOwner(id uint64, b []byte)    { j.change(func() { j.owners[id] = string(b) }) }
func (j *journal) DropOwner(id uint64)             { j.change(func() { delete(j.owners, id) }) }
func (j *journal) PutOwned(id uint64, b []byte)    { j.change(func() { j.owned[id] = string(b) }) }
func (j *journal) DropOwned(id uint64)             { j.change(func() { delete(j.owned, id) }) }
func (j *journal) PutMade(r *fs.MadeRecord)        { j.change(func() { j.made[r.ID] = *r }) }
func (j *journal) DropMade(id uint64)              { j.change(func() { delete(j.made, id) }) }
func (j *journal) PutForeign(r *fs.ForeignRecord)  { j.change(func() { j.foreign[r.Node] = *r }) }
func (j *journal) DropForeign(node uint64)         { j.change(func() { delete(j.foreign, node) }) }
func (j *journal) PutMount(mount string)           { j.change(func() { j.mount = mount }) }
func (j *journal) look(f func()) (committed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f()
	return !j.open
}

// ledger is a [device.Ledger] that tells the journal of commits.
type ledger struct {
	device.Ledger
	journal *journal
}

func (l ledger) Commit(device.Slot, [][]byte, bool) {
	j := l.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	j.open = false
	j.commits++
}

var (
	_ fs.Journal   = (*journal)(nil)
	_ fs.Processes = (*processes)(nil)
	_ fs.Ends      = (*processes)(nil)
)
