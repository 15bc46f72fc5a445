package fs

import (
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// This file watches processes for their end.

// Watcher is the [Ends] of a running system: a pidfd for each process that is
// watched, and one epoll for all of them.
//
// A process is known by its number and its start, which /proc tells in
// hundredths of a second: one that gets the number of another within the same
// hundredth is taken for it. A pidfd is of whatever process has the number when
// it is opened, so the start is compared afterwards. Where /proc hides a process
// (hidepid, see proc(5)) its start cannot be compared; then it ends when the
// process ends that had the number when the watch began, which is not too early.
//
// At most half of the descriptors that this process may have are pidfds. The
// processes beyond are looked at in turns, each once a second unless they are
// more than lookRate, which is all that there is time for.
//
// mu is taken last, and held for no system call but the one that wakes the
// goroutine, which does not block.
type Watcher struct {
	epoll, wake int // wake is an eventfd
	room        int // for that many pidfds
	// round is how long it takes, unless they are too many, until all have had
	// their turn. It and system are other in tests.
	round  time.Duration
	system watcherSystem
	done   chan struct{} // closed when run has returned

	mu        sync.Mutex
	processes map[Identity]*watched
	// todo are those that run has to look at: new ones, and those that nobody
	// watches any more.
	todo   []*watched
	woken  bool // run has been woken and has not looked at todo yet
	closed bool

	// Of run alone.
	byPidfd map[int32]*watched
	// unsettled are those to be looked at in turns.
	unsettled *list.List
}

const (
	// lookRate is how many processes are looked at in turns in a second, at
	// most, lookBatch how many at once.
	lookRate  = 2560
	lookBatch = 128
	lookRound = time.Second
)

// watched is a process that is watched.
type watched struct {
	Identity

	// Guarded by Watcher.mu.
	watches map[*watch]struct{}
	queued  bool // is in todo

	// Of run alone.
	pidfd int           // -1: none
	armed bool          // epoll tells of it, once
	turn  *list.Element // in unsettled, nil if it is not
}

// watch is one call of Watch.
type watch struct {
	ended   func()
	stopped bool // guarded by Watcher.mu
}

// life is what is known of a process that once was there.
type life int

const (
	hidden life = iota // whether it lives cannot be seen
	living
	gone
)

// watcherSystem is what a Watcher asks the system.
type watcherSystem interface {
	// open opens a pidfd. ESRCH says that there is no process with the number.
	open(pid uint32) (pidfd int, err error)
	// look looks at a process.
	look(Identity) life
}

// NewWatcher returns a Watcher, to be closed. It fails for want of descriptors.
func NewWatcher() (*Watcher, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("the limit of descriptors: %w", err)
	}
	return newWatcher(runningSystem{}, int(min(limit.Cur/2, 1<<30)), lookRound)
}

func newWatcher(system watcherSystem, room int, round time.Duration) (*Watcher, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watching processes: %w", os.NewSyscallError("epoll_create1", err))
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("watching processes: %w", os.NewSyscallError("eventfd", err))
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(wake)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &event); err != nil {
		unix.Close(epoll)
		unix.Close(wake)
		return nil, fmt.Errorf("watching processes: %w", os.NewSyscallError("epoll_ctl", err))
	}
	w := &Watcher{
		epoll:     epoll,
		wake:      wake,
		room:      room,
		round:     round,
		system:    system,
		done:      make(chan struct{}),
		processes: make(map[Identity]*watched),
		byPidfd:   make(map[int32]*watched),
		unsettled: list.New(),
	}
	go w.run()
	return w, nil
}

// Watch is [Ends]'. It does not block. After Close it does nothing.
func (w *Watcher) Watch(k Kin, ended func()) (stop func()) {
	x, p := &watch{ended: ended}, k.identity()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return func() {}
	}
	q := w.processes[p]
	if q == nil {
		q = &watched{Identity: p, watches: make(map[*watch]struct{}), pidfd: -1}
		w.processes[p] = q
		w.enqueue(q)
	}
	q.watches[x] = struct{}{}
	return func() { w.stop(q, x) }
}

func (w *Watcher) stop(q *watched, x *watch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x.stopped = true
	if _, ok := q.watches[x]; !ok || w.closed {
		return
	}
	if delete(q.watches, x); len(q.watches) == 0 {
		w.enqueue(q)
	}
}

// enqueue has run look at a process. w.mu is held.
func (w *Watcher) enqueue(q *watched) {
	if !q.queued {
		q.queued = true
		w.todo = append(w.todo, q)
	}
	w.rouse()
}

// rouse wakes run. w.mu is held, which keeps the descriptor open.
func (w *Watcher) rouse() {
	if !w.woken {
		w.woken = true
		// Fails only if the counter is full, and then run is awake.
		_, _ = unix.Write(w.wake, binary.NativeEndian.AppendUint64(nil, 1))
	}
}

// Close ends every watch. It waits for the watcher to have given back its
// descriptors, but not for calls of ended. It may be called again.
func (w *Watcher) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		w.rouse()
	}
	w.mu.Unlock()
	<-w.done
}

// run is the goroutine that makes the system calls.
func (w *Watcher) run() {
	defer close(w.done)
	defer w.giveBack()
	events := make([]unix.EpollEvent, lookBatch)
	var turn time.Time // when some of the unsettled are looked at next
	for {
		batch, more, closed := w.take()
		if closed {
			return
		}
		for _, q := range batch {
			w.settle(q)
		}
		timeout := -1
		if n := w.unsettled.Len(); n > 0 {
			until := time.Until(turn)
			if until <= 0 {
				w.takeTurns()
				until = w.pause(n)
				turn = time.Now().Add(until)
			}
			timeout = int(until.Milliseconds()) + 1
		}
		if more {
			timeout = 0
		}
		n, _ := unix.EpollWait(w.epoll, events, timeout) // fails with EINTR only
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) == w.wake {
				var count [8]byte
				_, _ = unix.Read(w.wake, count[:])
			} else if q := w.byPidfd[e.Fd]; q != nil {
				w.readable(q)
			}
		}
	}
}

// pause is how long to wait before the next of n unsettled are looked at.
func (w *Watcher) pause(n int) time.Duration {
	return min(max(w.round*lookBatch/time.Duration(n), time.Second*lookBatch/lookRate), w.round)
}

// take takes some of todo, and says whether there are more.
func (w *Watcher) take() (batch []*watched, more, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.todo), lookBatch)
	batch = w.todo[:n:n]
	if w.todo = w.todo[n:]; len(w.todo) == 0 {
		w.todo, w.woken = nil, false
	}
	return batch, len(w.todo) > 0, w.closed
}

// settle begins to watch a process, or ceases to.
func (w *Watcher) settle(q *watched) {
	w.mu.Lock()
	q.queued = false
	wanted := len(q.watches) > 0
	if !wanted && w.processes[q.Identity] == q {
		delete(w.processes, q.Identity)
	}
	w.mu.Unlock()
	if wanted {
		w.look(q)
	} else {
		w.release(q)
	}
}

// takeTurns looks at those that had no turn for the longest time.
func (w *Watcher) takeTurns() {
	for range min(w.unsettled.Len(), lookBatch) {
		first := w.unsettled.Front()
		w.unsettled.MoveToBack(first)
		w.look(first.Value.(*watched))
	}
}

// look does for a process what can be done now: opens a pidfd, and looks
// whether it still is the same process.
func (w *Watcher) look(q *watched) {
	if q.pidfd < 0 && len(w.byPidfd) < w.room {
		pidfd, err := w.system.open(q.Pid)
		switch {
		case err == nil:
			q.pidfd = pidfd
			w.byPidfd[int32(pidfd)] = q
		case errors.Is(err, unix.ESRCH):
			w.over(q)
			return
		}
	}
	is := w.system.look(q.Identity) // after the pidfd was opened
	if is == gone {
		w.over(q)
		return
	}
	w.arm(q)
	switch settled := is == living && q.armed; {
	case settled && q.turn != nil:
		w.unsettled.Remove(q.turn)
		q.turn = nil
	case !settled && q.turn == nil:
		q.turn = w.unsettled.PushBack(q)
	}
}

// arm has epoll tell of a process. If it cannot, the pidfd is of no use.
func (w *Watcher) arm(q *watched) {
	if q.pidfd < 0 || q.armed {
		return
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: int32(q.pidfd)}
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, q.pidfd, &event)
	if errors.Is(err, unix.EEXIST) {
		err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, q.pidfd, &event)
	}
	if q.armed = err == nil; !q.armed {
		w.closePidfd(q)
	}
}

// readable is called when a pidfd says that its process has ended. It says so
// when the last thread has ended, not with the first; Linux before 6.15 was
// less sure about processes whose other threads call execve(2). So it has to be
// confirmed, if it can be seen.
func (w *Watcher) readable(q *watched) {
	q.armed = false
	if w.system.look(q.Identity) != living {
		w.over(q)
	} else if q.turn == nil {
		q.turn = w.unsettled.PushBack(q)
	}
}

// over tells those who watch a process that it has ended.
func (w *Watcher) over(q *watched) {
	w.mu.Lock()
	if w.processes[q.Identity] == q {
		delete(w.processes, q.Identity)
	}
	watches := q.watches
	q.watches = nil
	w.mu.Unlock()
	w.release(q)
	if len(watches) > 0 {
		go w.tell(watches)
	}
}

func (w *Watcher) tell(watches map[*watch]struct{}) {
	for x := range watches {
		w.mu.Lock()
		wanted := !x.stopped && !w.closed
		w.mu.Unlock()
		if wanted {
			x.ended()
		}
	}
}

// release forgets what run has of a process.
func (w *Watcher) release(q *watched) {
	w.closePidfd(q)
	if q.turn != nil {
		w.unsettled.Remove(q.turn)
		q.turn = nil
	}
}

func (w *Watcher) closePidfd(q *watched) {
	if q.pidfd < 0 {
		return
	}
	// Closing is not enough: a child on its way from fork to execve has the
	// descriptor too, and epoll would go on to tell of its number. It fails if
	// it was never added.
	_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, q.pidfd, nil)
	unix.Close(q.pidfd)
	delete(w.byPidfd, int32(q.pidfd))
	q.pidfd, q.armed = -1, false
}

// giveBack closes every descriptor.
func (w *Watcher) giveBack() {
	for _, q := range w.byPidfd {
		w.closePidfd(q)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.processes, w.todo = nil, nil
	unix.Close(w.epoll)
	unix.Close(w.wake)
}

// runningSystem is the watcherSystem of a running system.
type runningSystem struct{}

func (runningSystem) open(pid uint32) (int, error) { return unix.PidfdOpen(int(pid), 0) }

// look sends no signal to the process, which tells whether there is one with
// the number whatever /proc shows, and then reads /proc/PID/stat.
func (runningSystem) look(id Identity) life {
	if !(Proc{}).Leader(id.Pid) {
		return gone
	}
	if !procIsOurs() {
		return hidden
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", id.Pid))
	if err != nil {
		return hidden
	}
	s, err := parseStat(b)
	switch {
	case err != nil:
		return hidden
	case s.gone || s.started != id.Started:
		return gone
	}
	return living
}

var _ Ends = (*Watcher)(nil)
