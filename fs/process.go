package fs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Processes is what the filesystem can find out about processes. It is used
// from several goroutines at once. Leader and Alive are called within steps
// and take one system call that does not block; the others read /proc and are
// called on detours only.
type Processes interface {
	// Leader reports whether tid, a thread's id, is its process's id too.
	// Requests name the calling thread.
	Leader(tid uint32) bool
	// Alive reports whether a process has the id pid.
	Alive(pid uint32) bool
	// LeaderOf returns the id of the process that thread tid is of.
	LeaderOf(tid uint32) (pid uint32, ok bool)
	// Kin returns a process's parent and when it started.
	Kin(pid uint32) (Kin, bool)
	// Resolve returns the process that thread tid calls pid, in tid's pid
	// namespace, with its number as this daemon sees it. tid must not end
	// meanwhile. ok is false if there is no such process, if it has ended, if
	// pid is a thread's number, and if this daemon may not find out.
	Resolve(tid, pid uint32) (k Kin, ok bool)
	// Look returns what is known of the process that thread tid is of.
	Look(tid uint32) (ProcessInfo, bool)
	// Killed reports whether thread tid, which is closing its files, does so
	// because a signal ended its process.
	Killed(tid uint32) bool
	// Namespace numbers the pid namespace in which all these numbers are.
	Namespace() uint64
	// Signal sends a process a signal, if a user may do that; "may" is as in
	// kill(2), without capabilities but root's. That it has ended is no error.
	Signal(p Identity, uid uint32, signal syscall.Signal) error
	// WaitClass returns which fcntl call a thread is waiting in.
	WaitClass(tid uint32) lockspace.Class
	// User returns the name of a user, "" if it has none.
	User(uid uint32) string
	// Host returns the name of the host.
	Host() string
}

// Ends tells of the ends of processes. It is used within steps.
type Ends interface {
	// Watch has ended called, once and on another goroutine, when the process
	// with p's number and start has ended: every thread of it, whether or not
	// its parent has taken notice. If it already has, ended is called at once.
	// What cannot be seen any more is not taken to have ended.
	//
	// stop ends the watch; it may be called again, and by ended. It does not
	// wait: a call of ended that was on its way comes through, during stop or
	// after it. So ended has to look whether it still matters.
	Watch(p Kin, ended func()) (stop func())
}

// Kin is a process in its family.
type Kin struct {
	Pid    uint32
	Parent uint32 // 0: none that can be seen
	// Started is the time since boot, in hundredths of a second rounded down,
	// so never later than anything the process did.
	Started time.Duration
}

// Identity tells a process apart from others that have its number at other
// times. The zero Identity is none.
type Identity struct {
	Pid     uint32
	Started time.Duration // as in Kin
}

func (k *Kin) identity() Identity { return Identity{k.Pid, k.Started} }

// ProcessInfo is what /proc says of a process.
type ProcessInfo struct {
	Kin
	// Gone: every thread has ended, and the process only waits to be reaped.
	Gone   bool
	Comm   string
	Cgroup string
	// Groups are the supplementary groups.
	Groups []uint32
}

// facts is what a detour found out for one request.
type facts struct {
	// processes are by the thread or process id that was asked for; nil for
	// one that there is not.
	processes map[uint32]*ProcessInfo
	leaders   map[uint32]uint32
	classes   map[uint32]lockspace.Class
	// place is the place in the queue that a request that came first keeps
	// while it is away.
	place uint64
	// ancestors are the caller itself, its parent, and so on; holders the
	// processes behind the holds of the lock that is asked about.
	ancestors []Kin
	holders   map[lockspace.HoldID]lockspace.Process
	// named are the processes that pids in a body name; killed says whether the
	// caller was ended by a signal.
	named  map[uint32]*Identity
	killed *bool
	// unique is the request that took the detour.
	unique uint64
	// record is the holder record that was asked for.
	record []byte
	// reading is what was gathered for a control file.
	reading *reading
	// names are those that a directory lock lists.
	names []listedName
	// conflict is the answer to F_GETLK.
	conflict *conflict
	// takeIn takes in what the detour has opened outside, and notOpened is why
	// something could not be.
	takeIn    func()
	notOpened map[lockspace.Key]error
	// opens is how often the request has been sent to open something outside.
	opens int
	// outside says whether somebody outside holds what is asked about, and listed
	// are the names in a directory that are held there.
	outside *bool
	listed  []strangersName
	// inTheWay is who outside is in the way of what F_GETLK asks about.
	inTheWay *inTheWay
	// placeReady says whether a directory can be mirrored in.
	placeReady *error
	// gone is closed when nobody waits for what may hang any more; nil: somebody does.
	gone <-chan struct{}
	// stranger is who outside holds the name that is asked about, of those on whom
	// outside says that there are some, and vacant why a directory cannot be removed
	// there, once that is known.
	stranger *outsider
	// looked is what is found of a name outside that was somebody's.
	looked *looked
	vacant *error
}

func newFacts() *facts {
	return &facts{
		processes: make(map[uint32]*ProcessInfo),
		leaders:   make(map[uint32]uint32),
		classes:   make(map[uint32]lockspace.Class),
	}
}

// Recall takes over what a detour found. A request that was away when the
// process died comes with its place in the queue and nothing else.
func (f *FS) Recall(found any, place uint64) {
	f.facts, _ = found.(*facts)
	if f.facts == nil && place != 0 {
		f.facts = newFacts()
		f.facts.place = place
		f.table.Reserved(place)
	}
	if f.facts != nil {
		f.returns(f.facts.unique)
	}
	f.takeInOpened()
}

// lookUp sends the present request on a detour, to come back with what find
// adds to the facts it has.
func (f *FS) lookUp(unique uint64, find func(*facts)) { f.lookUpAt(unique, 0, find) }

// lookUpAt is lookUp for a request with a place in the queue, which it keeps.
func (f *FS) lookUpAt(unique, place uint64, find func(*facts)) {
	f.lookUpWhere(unique, place, false, find)
}

// lookUpWhere is lookUpAt for what may hang, if hangs says so, see
// [device.Conn.Aside].
func (f *FS) lookUpWhere(unique, place uint64, hangs bool, find func(*facts)) {
	found := newFacts()
	if old := f.facts; old != nil {
		*found = *old // nobody else uses it any more
	}
	if place != 0 {
		found.place = place
	}
	found.unique = unique
	f.departs(unique)
	look := func() any {
		find(found)
		return found
	}
	if !hangs {
		f.dev.Detour(unique, found.place, look)
		return
	}
	f.dev.Aside(unique, found.place, func(gone <-chan struct{}) any {
		found.gone = gone
		return look()
	})
}

// lookUpLong is lookUp for what takes long, see [device.Conn.LongDetour].
func (f *FS) lookUpLong(unique uint64, find func(*facts)) {
	found := newFacts()
	f.dev.LongDetour(unique, func() any {
		find(found)
		return found
	})
}

// look adds a process to the facts.
func (x *facts) look(procs Processes, tid uint32) {
	info, ok := procs.Look(tid)
	if !ok {
		x.processes[tid] = nil
		return
	}
	x.processes[tid], x.processes[info.Pid] = &info, &info
}

// lookUpProcess sends the present request on a detour to one process. It
// returns Parked.
func (f *FS) lookUpProcess(unique uint64, tid uint32) fuse.Status {
	f.lookUp(unique, func(x *facts) { x.look(f.procs, tid) })
	return device.Parked
}

// lookFamily adds a process and all it descends from.
func (x *facts) lookFamily(procs Processes, pid uint32) {
	x.ancestors = []Kin{}
	for pid != 0 {
		k, ok := procs.Kin(pid)
		if !ok {
			return
		}
		// A parent is older than its child: one that is not has only the
		// number of the parent there was. It also ends the loop.
		if n := len(x.ancestors); n > 0 && (k.Started > x.ancestors[n-1].Started || n > maxAncestors) {
			return
		}
		x.ancestors = append(x.ancestors, k)
		pid = k.Parent
	}
}

// maxAncestors bounds a look-up; no family is that old.
const maxAncestors = 1000

// known returns what the detour found of a process, and whether it was looked
// for.
func (x *facts) known(tid uint32) (info *ProcessInfo, looked bool) {
	if x == nil {
		return nil, false
	}
	info, looked = x.processes[tid]
	return info, looked
}

// caller returns the process that made a request. ok is false if the request
// has to take a detour first, on which it then is.
func (f *FS) caller(in *fuse.InHeader) (p lockspace.Process, ok bool) {
	tid := in.Pid
	p = lockspace.Process{Pid: tid, UID: in.Uid, GID: in.Gid}
	if tid == 0 || f.procs.Leader(tid) {
		return p, true
	}
	if f.facts != nil {
		if pid, looked := f.facts.leaders[tid]; looked {
			p.Pid = pid
			return p, true
		}
	}
	f.lookUp(in.Unique, func(x *facts) {
		x.leaders[tid] = tid
		if pid, ok := f.procs.LeaderOf(tid); ok {
			x.leaders[tid] = pid
		}
	})
	return p, false
}

// started is a start time for p that the lock table can go by.
func (x *facts) started(pid uint32) time.Duration {
	info, looked := x.known(pid)
	switch {
	case !looked:
		return 0
	case info == nil:
		return never // nobody's equal
	}
	return max(info.Started, 1) // 0 would mean: not looked up
}

// never is later than everything.
const never = time.Duration(1<<63 - 1)

// holder is the process behind a hold: the one that took it while that lives,
// else the one that opened the file. Unless a detour has found it out, it is as
// far as can be told within a step: a process that has ended and was not reaped
// counts as living.
func (f *FS) holder(h *lockspace.Hold) lockspace.Process {
	if f.facts != nil {
		if p, ok := f.facts.holders[h.ID]; ok {
			return p
		}
	}
	taker, opener := h.Party.Taker, h.Party.Opener
	if taker.Pid == opener.Pid || taker.Pid == 0 || f.procs.Alive(taker.Pid) {
		return taker
	}
	return opener
}

// tableProcesses answers the lock table from the facts.
type tableProcesses struct{ f *FS }

func (p tableProcesses) Alive(pid uint32) bool { return p.f.procs.Alive(pid) }

// WaitClass notes what is not known, for the detour that follows.
func (p tableProcesses) WaitClass(tid uint32) (lockspace.Class, bool) {
	if x := p.f.facts; x != nil {
		if c, ok := x.classes[tid]; ok {
			return c, true
		}
	}
	p.f.asked = append(p.f.asked, tid)
	return lockspace.ClassUnknown, false
}
