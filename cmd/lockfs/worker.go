package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace/mirror"
	"github.com/lockfs/lockfs/state"
)

// The worker does the work: it serves the mount whose descriptors the keeper
// hands it, from the memory that the keeper holds, and can be killed at any
// instruction.

// Descriptors that a worker is started with.
const (
	workerControl = 3 // control messages
	workerDevice  = 4 // /dev/fuse, mounted
	workerState   = 5 // the memory file
	workerDir     = 6 // the state directory, unless --state-dir=none
	workerBacking = 7 // the backing directory, unless --backing=none
	workerMirror  = 8 // the mirror's open files and agents, from keepers that have it
)

// Messages between keeper and worker. One is one packet on a socket.
const (
	messageServing = "serving" // worker: from here on requests are answered
	messageSettled = "settled" // worker: all requests that were taken over are answered
	messageAsk     = "alive?"  // keeper: say that you can still do something
	messageAlive   = "alive"   // worker: a step was done
	messageStop    = "stop"    // keeper: answer everybody who waits, let nobody wait, and save
	messageStopped = "stopped" // worker: done; followed by the number of holds
)

// workerProcess is the worker.
type workerProcess struct {
	config  config
	log     *slog.Logger
	crash   *crashPoints
	control *os.File
	dir     *state.Dir // nil: nothing is kept on disk
	// backing is the directory of the mirror and mirror its open files, nil if
	// there is none. The open directory is shared with the keeper and all other
	// workers, and so is the place that it is read at.
	backing    *os.File
	mirror     *mirrorFiles
	agents     *agents
	inherited  []mirrorFile // of the mirror in this process
	memory     *state.Memory
	conn       *device.Conn
	filesystem *fs.FS
	saving     sync.Mutex
}

// runWorker runs it; it returns its exit code.
func runWorker(c config, log *slog.Logger) int {
	_ = os.WriteFile("/proc/self/comm", []byte("lockfs-worker"), 0)
	if err := restoreOOMScore(c.oomScore); err != nil {
		log.Debug("oom_score_adj stays", "err", err)
	}
	w := &workerProcess{config: c, log: log, control: os.NewFile(workerControl, "control")}
	if c.stateDir != noStateDir {
		w.dir = state.AdoptDir(workerDir, log.Warn)
	}
	// What is made until requests are answered is there to stay: nothing to
	// collect, and clients are waiting. They still are just after.
	collect := debug.SetGCPercent(-1)
	if err := w.takeOver(); err != nil {
		if errors.Is(err, state.ErrVersion) {
			log.Error("this program cannot take over", "err", err)
		} else {
			log.Error("cannot use the state", "err", err)
		}
		return exitState
	}
	time.AfterFunc(collectAfter, func() { debug.SetGCPercent(collect) })
	w.crash.at("serving")
	if _, err := w.control.Write([]byte(messageServing)); err != nil {
		w.orphan()
	}
	w.conn.OnSettled(func() { _, _ = w.control.Write([]byte(messageSettled)) })
	var orphaned atomic.Bool
	go func() {
		if w.obey() {
			return
		}
		orphaned.Store(true)
		w.orphan()
	}()
	err := w.conn.Serve()
	switch {
	case orphaned.Load():
		if !c.kept {
			w.abandon()
		}
		return exitInternal
	case err != nil:
		log.Error("serving ended", "err", err)
		return exitInternal
	}
	w.save()
	return exitOK
}

// collectAfter is how long a worker that serves puts garbage collection off.
const collectAfter = 200 * time.Millisecond

// attempts is how many workers may fail at what was left to do, one after the
// other, before it is given up. Those that somebody killed did not fail.
const attempts = 3

// takeOver makes the filesystem that the memory tells of, and carries out what
// a worker before this one left undone.
func (w *workerProcess) takeOver() error {
	var err error
	took := phases{since: time.Now()}
	if w.crash, err = newCrashPoints(); err != nil {
		return err
	}
	// Somebody before us may still be dying, and reading.
	if err := state.Claim(workerState); err != nil {
		return err
	}
	took.end("claim")
	if w.config.backing != noBacking {
		w.backing = os.NewFile(workerBacking, w.config.backing)
	}
	if w.config.keepsMirrors() {
		var err error
		if w.mirror, err = inheritMirrorFiles(workerMirror, w.log); err != nil {
			return err
		}
		w.agents, w.inherited = newAgents(w.config, w.mirror, w.backing, w.log)
		w.log.Debug("mirroring", "backing", w.config.backing, "inherited", len(w.mirror.Inherited()))
		took.end("inherit")
	}
	if w.memory, err = state.Open(workerState, w.crash.memory()); err != nil {
		return err
	}
	took.end("open")
	w.crash.at("opened")
	found, err := readMemory(w.memory)
	if err != nil {
		return err
	}
	took.end("read")
	w.conn = device.New(workerDevice, newLedger(w.memory), w.log)
	w.crash.attach(w.conn)
	watcher, err := fs.NewWatcher()
	if err != nil {
		return err
	}
	tokens := &tokens{memory: w.memory, dir: w.dir, do: w.conn.Do, log: w.log}
	options := fs.Options{
		Device:    w.conn,
		Processes: fs.Proc{},
		Clock:     new(fs.SystemClock),
		Tokens:    tokens,
		Journal:   newJournal(w.memory, &found.saved),
		Log:       w.log,
		UID:       uint32(os.Geteuid()),
		GID:       uint32(os.Getegid()),
		Program:   version,
		State:     state.Version,
		Ends:      watcher,
		Mount:     w.identity(),
		Backing:   w.backedBy(),
	}
	if w.agents != nil {
		options.Agents = w.agents
	}
	if options.Policy, options.Lockspaces, err = w.config.policy.parse(); err != nil {
		return err
	}
	if found.fresh {
		first := w.config.first
		if first.onDisk == 0 {
			// The keeper is not the one that made the mount.
			if first, err = firstTokens(w.dir); err != nil {
				return err
			}
		}
		tokens.begin(first)
		if w.filesystem, err = w.begin(options); err != nil {
			return err
		}
	} else {
		tokens.begin(found.tokens)
		if w.filesystem, err = fs.Restore(options, &found.saved); err != nil {
			return err
		}
	}
	if w.agents != nil {
		w.agents.leaveOthers(w.filesystem.AgentPlaces())
	}
	took.end("restore")
	if err := w.memory.Ready(); err != nil {
		return err
	}
	took.end("ready")
	w.crash.at("restored")
	w.conn.Attach(w.filesystem)
	undelivered, pending := w.memory.Undelivered(), len(w.memory.Pending()) > 0
	if found.fresh {
		w.conn.Do(tokens.put) // and a new root
	}
	// What was saved counts once, and it is in the memory now.
	if err := w.dropSaved(); err != nil && found.fresh {
		return err
	} else if err != nil {
		w.log.Error("what the last mount saved cannot be removed", "err", err)
	}
	if found.fresh {
		w.warnOfBacking()
		// So that what is held is locked outside when the mount is ready.
		w.filesystem.AwaitMirrors()
		return nil
	}
	w.log.Debug("taking over", "answers", len(undelivered), "away", len(found.away), "pending", pending)
	var away []device.Traveller
	for _, unique := range slices.Sorted(maps.Keys(found.away)) {
		away = append(away, found.away[unique])
	}
	refuse := w.config.failures >= attempts
	w.conn.Resume(found.init, undelivered, away, pending, refuse)
	w.crash.at("taken over")
	// Sets the timer for waits that lapse. No step may come before Resume has
	// repeated the answers of the last one: it would be taken for a sign that
	// they were sent.
	w.conn.Do(w.filesystem.TookOver)
	took.end("resume")
	w.log.Debug("took over", append(took.each, "processor", processorTime())...)
	return nil
}

// backedBy is what the filesystem mirrors its locks with, nil if it does not.
func (w *workerProcess) backedBy() *fs.Backing {
	if w.backing == nil {
		return nil
	}
	dir := mirror.NewBacking(int(w.backing.Fd()))
	// What a worker of a program that had no agents holds is held on as it did.
	if dir.IsRemote() && len(w.inherited) == 0 {
		return &fs.Backing{ByAgent: true}
	}
	b := &fs.Backing{Dir: dir, Keeper: w.mirror}
	for _, f := range w.inherited {
		b.Inherited = append(b.Inherited, fs.Inherited(f))
	}
	return b
}

// identity tells this mount, and those after it, from others, "" if that cannot be.
func (w *workerProcess) identity() string {
	if w.dir == nil {
		return ""
	}
	name, err := w.dir.Identity()
	if err != nil {
		w.log.Error("what this mount leaves in the backing directory will not be known by the next one", "err", err)
	}
	return name
}

// warnOfBacking says what is wrong with the backing directory, once. Of one that may
// hang its agent does.
func (w *workerProcess) warnOfBacking() {
	if w.backing == nil {
		return
	}
	if dir := mirror.NewBacking(int(w.backing.Fd())); !dir.IsRemote() {
		warnOfBacking(dir, w.config.backing, w.log)
	}
}

// keepsMirrors reports whether a worker has the line for the mirror's files.
func (c *config) keepsMirrors() bool { return c.backing != noBacking || c.mirrorFiles }

// phases are how long each part of taking over took, for the log.
type phases struct {
	since time.Time
	each  []any
}

// end is the end of a phase, and the beginning of the next.
func (p *phases) end(name string) {
	now := time.Now()
	p.each = append(p.each, name, now.Sub(p.since))
	p.since = now
}

// processorTime is how long this process has run on a processor.
func processorTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// begin makes the filesystem of a new mount, with what the last one left.
func (w *workerProcess) begin(options fs.Options) (*fs.FS, error) {
	if w.dir == nil {
		return fs.New(options)
	}
	records, err := w.dir.Saved()
	if err != nil {
		return nil, err
	}
	if records == nil {
		return fs.New(options)
	}
	var kept fs.Saved
	for _, r := range records {
		if err = kept.Load(r.Kind, r.ID, r.Data); err != nil {
			break
		}
	}
	var filesystem *fs.FS
	if err == nil {
		filesystem, err = fs.TakeUp(options, &kept)
	}
	if errors.Is(err, fs.ErrRecord) {
		w.log.Warn("what the last mount saved is of another version, and is not used", "err", err)
		return fs.New(options)
	}
	return filesystem, err
}

func (w *workerProcess) dropSaved() error {
	if w.dir == nil {
		return nil
	}
	return w.dir.DropSaved()
}

// abandon leaves nothing to the next mount.
func (w *workerProcess) abandon() {
	w.filesystem.LeaveNames(false)
	w.conn.Do(w.filesystem.Abandon)
}

// save leaves what is to be kept for the next mount.
func (w *workerProcess) save() {
	if w.dir == nil {
		w.abandon()
		return
	}
	w.filesystem.LeaveNames(true)
	w.saving.Lock() // the end of the connection may come while the keeper waits
	defer w.saving.Unlock()
	var kept state.Saved
	w.conn.Do(func() { w.filesystem.Save(&kept) })
	if err := w.dir.Save(&kept); err != nil {
		w.log.Error("cannot save for the next mount", "err", err)
	}
}

// obey does what the keeper says. It returns when the keeper has ended: true
// if it said stop before.
func (w *workerProcess) obey() (stopped bool) {
	buf := make([]byte, 256)
	for {
		n, err := w.control.Read(buf)
		if err != nil || n == 0 {
			return stopped
		}
		answer := messageAlive
		switch message := string(buf[:n]); message {
		case messageAsk:
			w.conn.Do(func() {})
		case messageStop:
			stopped = true
			var holds int
			w.conn.Do(func() {
				w.logCounts()
				holds = w.filesystem.Shutdown()
			})
			w.save()
			answer = fmt.Sprint(messageStopped, " ", holds)
		default:
			w.log.Error("unknown message from the keeper", "message", message)
			continue
		}
		if _, err := w.control.Write([]byte(answer)); err != nil {
			return stopped
		}
	}
}

// logCounts says what there is at the end, for tests to see that nothing is
// left behind. Within a step.
func (w *workerProcess) logCounts() {
	c := w.filesystem.Counts()
	records, _ := w.memory.Len()
	w.log.Debug("stopping", "nodes", c.Nodes, "files", c.Files, "holds", c.Holds, "waits", c.Waits,
		"records", records, "away", w.conn.Away())
}

// orphan ends a worker whose keeper is gone, and with it the mount: nobody
// would start the next worker. Unless the service manager does.
func (w *workerProcess) orphan() {
	mount := device.Adopt(workerDevice, w.config.mountPoint, w.config.mountID)
	if w.config.kept {
		w.log.Error("the keeper is gone: the service manager keeps the mount for the next one", "mountpoint", mount.Dir)
	} else {
		w.log.Error("the keeper is gone: ending the mount, and every lock on it", "mountpoint", mount.Dir)
		w.conn.Do(func() { w.filesystem.Shutdown() })
		if _, err := mount.Unmount(); err != nil {
			w.log.Error("cannot unmount", "mountpoint", mount.Dir, "err", err)
		}
	}
	// The log has to be written before the process ends, and does not wait.
	time.Sleep(100 * time.Millisecond)
	os.Exit(exitInternal)
}

// restoreOOMScore undoes for the worker what the keeper did for itself.
func restoreOOMScore(score string) error {
	if score == "" {
		return nil
	}
	return os.WriteFile("/proc/self/oom_score_adj", []byte(score), 0)
}

// closeOnExec keeps the descriptors of a worker to itself.
func closeOnExec(c config) {
	fds := []int{workerControl, workerDevice, workerState}
	if c.stateDir != noStateDir {
		fds = append(fds, workerDir)
	}
	if c.backing != noBacking {
		fds = append(fds, workerBacking)
	}
	if c.keepsMirrors() {
		fds = append(fds, workerMirror)
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
}
