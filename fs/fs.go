package fs

import (
	"log/slog"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Device is what the filesystem needs of its connection; [device.Conn] is the
// one there is. All but Do are called within a step.
type Device interface {
	Answer(unique uint64, errno syscall.Errno)
	AnswerOpen(unique, handle uint64, flags uint32)
	AnswerData(unique uint64, data []byte)
	NotifyPoll(pollID uint64)
	Traffic() []device.Traffic
	Detour(unique, place uint64, look func() any)
	InTurn(key any)
	Aside(unique, place uint64, look func(gone <-chan struct{}) any)
	LongDetour(unique uint64, look func() any)
	Do(step func())
}

// rootDir numbers the root among directories, for the lock table.
const rootDir = 1

// Options of a filesystem. Device, Processes, Ends, Clock, Tokens, Journal and Log
// are required.
type Options struct {
	Device    Device
	Processes Processes
	Ends      Ends
	// Mount is what what is made in backing directories is marked with, letters and
	// digits: of this mount, and those after it, and no other. "": of this one alone.
	Mount string
	// Backing is nil if the locks are nowhere else, but for what policies say.
	Backing *Backing
	// Agents is for directories that may not answer, and those that policies name; nil:
	// those cannot be used.
	Agents  Agents
	Clock   lockspace.Clock
	Tokens  lockspace.Tokens
	Journal Journal
	Log     *slog.Logger
	// UID and GID own the root directory.
	UID, GID uint32
	// Policy is the root's.
	Policy Policy
	// Lockspaces are directories that a new mount begins with.
	Lockspaces []Lockspace
	// Program is the program's version, and State that of the state it can
	// take over, for people to read.
	Program string
	State   uint32
}

// FS is the filesystem.
type FS struct {
	// What lockfs has no use for is answered by the embedded default.
	fuse.RawFileSystem

	dev     Device
	procs   Processes
	ends    Ends
	clock   *stepClock
	journal Journal
	tokens  lockspace.Tokens
	log     *slog.Logger
	uid     uint32 // whose daemon it is
	// program and stateVersion are what the control file version tells.
	program      string
	stateVersion uint32

	table *lockspace.Table
	nodes nodes
	// handles are the open files, by number; never reused.
	handles    map[uint64]*handle
	lastHandle uint64
	// opening are the nodes on which requests wait to open a file, by the number
	// of the request.
	opening map[uint64]*node
	// lastEntry is the number of the last entry that was made.
	lastEntry uint64
	// controls are the open files of control directories, by number, from the
	// same count.
	controls map[uint64]*controlHandle
	// lockDirs are the directories lock/NAME, and owners those owner/NAME.
	lockDirs lockDirs
	// numbers are those of numbered locks that are reserved.
	numbers numbers
	owners  owners
	// gatherings are those that readers wait for and that have not begun.
	gatherings map[gatherKey]*gathering
	// readings are what is being read of control files. kept is how many bytes of what is read are in pieces in the journal, and
	// lastPieces the highest number of any.
	readings         readings
	kept, lastPieces uint64

	// facts is what the present request's detour found; nil on the first try.
	facts *facts
	// asked are the threads that the table asked about in this attempt at a
	// request, in vain.
	asked []uint32
	// tried is what the table is being asked for, for which the present request can take
	// a detour; nil if for nothing. triedOne is where that is, if it is one.
	tried    []lockspace.Request
	triedOne [1]lockspace.Request
	// mirror has the locks outside of the mount too, nil if nothing has; unopened
	// are those of which the table asked in this attempt at a request and that
	// have yet to be opened there; lost are those that it does not have any more.
	mirror   *places
	agents   Agents // nil: there are none
	unopened []lockspace.Request
	lost     []lostMirror
	made     madeNames
	identity string // see Options.Mount
	// begun is closed in the first step, stepped then; there is a mirror, or begun is
	// nil.
	begun   chan struct{}
	stepped bool
	// unmirrored is for what the log says of locks that cannot be mirrored.
	unmirrored limiter
	// touched are the nodes whose body may have lost its author in this step.
	touched []*node
	// lapsed are the holds by name that ended in this step while their name is
	// still there, and unwatched the names of which it has to be found out who is
	// watched for them. watches are those who are, by the hold.
	lapsed    []lockspace.Hold
	unwatched []lockspace.Key
	watches   watches
	// vacated are the directories that go at the end of the step if nothing in them
	// is held any more. Of these, and of unwatched, some are left to the next step
	// if they are very many.
	vacated []uint64
	// expiry runs until the table has something to do, at expiryAt.
	expiry   *time.Timer
	expiryAt time.Duration
	hints    hints
	// stream is what readers of the control file events get, and meter what is
	// counted for metrics. breaker is who breaks the hold that ends next.
	stream  stream
	meter   meter
	breaker lockspace.Process
	// releasing is the open file whose last close this is, 0 if it is none.
	releasing uint64
	// closing: no request may wait any more.
	closing bool
}

// New returns the filesystem, with nothing held.
func New(o Options) (*FS, error) {
	f := prepare(o)
	f.table = lockspace.New(f.environment(o))
	f.table.Listen(listener{f})
	now := f.clock.Now()
	root := &file{FileRecord: FileRecord{
		Ino: rootDir, Kind: directory, Mode: 0o777, UID: o.UID, GID: o.GID,
		Modified: now, Accessed: now, Changed: now, Policy: o.Policy,
	}, content: newContent()}
	f.nodes = newNodes(o.Journal)
	r := f.nodes.addRoot(root)
	f.keepFile(root)
	f.journal.PutNode(&r.NodeRecord)
	f.applyPolicy(root)
	if err := f.makeLockspaces(o.Lockspaces); err != nil {
		return nil, err
	}
	f.beginMirror(o.Backing, nil)
	return f, nil
}

// prepare returns a filesystem without a table and nodes.
func prepare(o Options) *FS {
	return &FS{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		dev:           o.Device,
		procs:         o.Processes,
		ends:          o.Ends,
		watches:       newWatches(),
		clock:         &stepClock{clock: o.Clock},
		journal:       o.Journal,
		tokens:        o.Tokens,
		log:           o.Log,
		uid:           o.UID,
		agents:        o.Agents,
		program:       o.Program,
		stateVersion:  o.State,
		handles:       make(map[uint64]*handle),
		opening:       make(map[uint64]*node),
		controls:      make(map[uint64]*controlHandle),
		lockDirs:      newLockDirs(),
		numbers:       newNumbers(),
		owners:        newOwners(o.Journal),
		gatherings:    make(map[gatherKey]*gathering),
		readings:      readings{most: maxInMemory},
		hints:         newHints(),
		stream:        newStream(),
		made:          newMadeNames(),
		identity:      o.Mount,
	}
}

// environment is what the table needs.
func (f *FS) environment(o Options) lockspace.Environment {
	return lockspace.Environment{
		Clock:     f.clock,
		Tokens:    o.Tokens,
		Processes: tableProcesses{f},
		Observer:  observer{f},
		Journal:   o.Journal,
	}
}

// String names the filesystem in go-fuse's messages.
func (f *FS) String() string { return "lockfs" }

// Shutdown answers everybody who waits, and lets nobody wait from here on. It
// returns how many holds there are. Within a step.
func (f *FS) Shutdown() (holds int) {
	f.closing = true
	f.table.Shutdown()
	f.endReads(0, func(*ReadRecord) bool { return true })
	_, holds, _ = f.table.Len()
	return holds
}

// Counts is how much there is of what comes and goes.
type Counts struct {
	Nodes int // what the kernel refers to or has open, the root included
	Files int // open files and directories
	Holds int
	Waits int // absent ones included, see [lockspace.Table.Len]
	// Misuses is how often a lock was closed and its name looked for later, as
	// by tools that need hold=name, since this process began. See hint.go.
	Misuses uint64
}

// Counts counts what there is now. Within a step.
func (f *FS) Counts() Counts {
	_, holds, waits := f.table.Len()
	return Counts{
		Nodes: len(f.nodes.byID) - 1 + len(f.lockDirs.byID), // the root has two numbers
		Files: len(f.handles) + len(f.controls),
		Holds: holds,
		Waits: waits,

		Misuses: f.hints.count,
	}
}

// EndStep does what is left of a step when its request has been carried out.
func (f *FS) EndStep() {
	f.beganSteps()
	f.recovered()
	f.endLost()
	f.removeLapsed()
	f.removeVacated()
	f.dropNumbers()
	f.dropBodies()
	f.watchProcesses()
	f.tendOwners()
	f.armExpiry()
	if len(f.vacated) > 0 || len(f.unwatched) > 0 || len(f.numbers.left) > 0 {
		go f.dev.Do(func() {}) // what was left to the next step
	}
	f.endNames()
	f.asked, f.unopened = f.asked[:0], f.unopened[:0]
	f.clock.stop()
}

// armExpiry has the table do in time what it has to do: places of absent waits
// lapse, leases run out, graces end.
func (f *FS) armExpiry() {
	at, ok := f.table.NextExpiry()
	switch {
	case !ok || f.expiry != nil && f.expiryAt <= at:
		return // it may go off for nothing
	case f.expiry != nil:
		f.expiry.Stop()
	}
	var timer *time.Timer
	timer = time.AfterFunc(at-f.clock.Now().Boot, func() {
		f.dev.Do(func() {
			if f.expiry == timer {
				f.expiry = nil
			}
			f.table.Expire()
		})
	})
	f.expiry, f.expiryAt = timer, at
}

// observer receives what the table's steps did.
type observer struct{ f *FS }

// Granted answers the call that waited.
func (o observer) Granted(w lockspace.Wait, h lockspace.Hold) {
	o.f.touch(h.Party.File)
	if w.Via == lockspace.ViaOpen {
		o.f.grantedOpen(&w)
		return
	}
	o.f.dev.Answer(uint64(w.ID), 0)
}

// Refused answers the call that waited.
func (o observer) Refused(w lockspace.Wait, err error) {
	o.f.unawaited(uint64(w.ID))
	o.f.dev.Answer(uint64(w.ID), lockErrno(err))
}

// Ended takes the body away with the hold, and makes the open file stale if its
// hold was taken away. The name of a hold that lapsed goes when the step ends;
// that of others has been removed by who ended it.
func (o observer) Ended(h lockspace.Hold, why lockspace.Reason) {
	o.f.touch(h.Party.File)
	if h.ByName {
		o.f.unwatch(h.ID)
	}
	if h.Via == lockspace.ViaOwner {
		o.f.ownersHoldEnded(&h, why)
	}
	o.f.vacate(h.Key.Dir)
	if h.Party.Handle == o.f.releasing && !h.ByName {
		o.f.noteClose(&h)
	}
	if why == lockspace.Released || why == lockspace.Died {
		return
	}
	o.f.takenAway(h.Party.Handle, why)
	o.f.tellHolder(&h) // poll(2) says something else now
	if why == lockspace.Broken {
		return
	}
	o.f.log.Info("hold ended without being given back", "path", o.f.path(h.Key), "why", why,
		"holder_pid", h.Party.Taker.Pid, "holder_uid", h.Party.Taker.UID, "token", h.Token)
	if h.ByName {
		o.f.lapsed = append(o.f.lapsed, h)
	}
}

// What a lock filesystem does not do. Not ENOSYS, which the kernel would
// remember for some calls, and which tells a person nothing.

func (f *FS) Mknod(_ <-chan struct{}, in *fuse.MknodIn, _ string, _ *fuse.EntryOut) fuse.Status {
	return cannotMake(in.NodeId)
}

var _ device.Filesystem = (*FS)(nil)
