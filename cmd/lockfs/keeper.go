package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/state"
)

// The keeper holds what a worker must not take with it when it dies: the open
// /dev/fuse, the memory, the state directory, the backing directory and the open
// files of the mirror. It starts a worker, and when
// that dies the next one. It does nothing else, so that it has no reason to
// die.

// keeper is the process that the user started.
type keeper struct {
	config  config
	log     *slog.Logger
	flush   func()   // waits until what was logged is written
	manager *manager // of services; may be nil
	// hangups and stops are signals. Each has its channel, so that none is
	// dropped for another that waits there.
	hangups, stops chan os.Signal

	mount  *device.MountPoint
	memory int        // descriptor
	dir    *state.Dir // nil: nothing is kept on disk
	// backing is the directory of the mirror, nil if there is none, and mirror its open
	// files, and the lines to agents.
	backing *os.File
	mirror  *mirrorStore
	// first are the tokens of a new mount.
	first reservation

	// program is the file that workers are started from: the one that this
	// process was started from, by name, so that it can be replaced.
	program string
	// score is the oom_score_adj that workers get, "" to leave it.
	score string

	worker *worker
	// ready: a worker has served. adopted: one had, under another keeper.
	ready, adopted bool
	// stopping: a signal has said so.
	stopping bool
	// refused: the program on disk could not take over; workers are started
	// from the program that this process runs.
	refused bool
	// replacing: when the next worker serves, the keeper is replaced too.
	replacing bool
	examined  chan examination
	// failures counts the workers that ended by themselves, one after the other
	// since the last that had settled: they may all have died of one request.
	failures int
	// restarts counts workers that ended by themselves, or before they served,
	// one soon after the other.
	restarts int
}

// newKeeper returns the keeper of the mount that the command line asks for, or
// of the one that this process was left with. Errors are for people.
func newKeeper(c config, hangups, stops chan os.Signal, log *slog.Logger, flush func()) (*keeper, error) {
	k := &keeper{
		config: c, log: log, flush: flush, hangups: hangups, stops: stops, manager: connectManager(log),
		examined: make(chan examination, 1),
	}
	var err error
	if k.program, err = findProgram(); err != nil {
		return nil, fmt.Errorf("cannot find this program: %w", err)
	}
	in, err := inherit()
	if err != nil {
		return nil, err
	}
	if in != nil {
		adopt(c, in, k)
		return k, nil
	}
	place, err := device.Prepare(c.mountPoint)
	if err != nil {
		return nil, err
	}
	// The directory may be about to be covered.
	if k.dir, err = openStateDir(c.stateDir, place.Dir(), log); err == nil {
		k.first, err = firstTokens(k.dir)
	}
	if err != nil {
		_ = place.Close()
		return nil, stateDirError(err)
	}
	if k.backing, err = openBacking(c.backing, place.Dir()); err != nil {
		_ = place.Close()
		return nil, err
	}
	if err = checkMirrors(&c.policy, place.Dir()); err != nil {
		_ = place.Close()
		return nil, err
	}
	k.mirror = newMirrorStore(log)
	if k.memory, err = state.Create(slots); err != nil {
		_ = place.Close()
		return nil, fmt.Errorf("cannot make the state: %w", err)
	}
	if k.mount, err = place.Mount(device.Options{AllowOther: c.allowOther}); err != nil {
		return nil, err
	}
	return k, nil
}

// findProgram returns the file that this process was started from, by the name
// that it was called by: it may be a link, which an upgrade switches.
func findProgram() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", err
	}
	called, err := exec.LookPath(os.Args[0])
	if err != nil {
		return strings.TrimSuffix(own, " (deleted)"), nil
	}
	if called, err = filepath.Abs(called); err != nil {
		return own, nil
	}
	a, errA := os.Stat(called)
	b, errB := os.Stat(ownProgram)
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		return strings.TrimSuffix(own, " (deleted)"), nil
	}
	return called, nil
}

// protect gives the keeper its name and makes it the last to be killed when
// memory is short. An ordinary user may not, which is no error.
func (k *keeper) protect() {
	_ = os.WriteFile("/proc/self/comm", []byte("lockfs-keeper"), 0)
	old, err := os.ReadFile("/proc/self/oom_score_adj")
	if err == nil && os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0) == nil && k.score == "" {
		k.score = strings.TrimSpace(string(old))
	}
}

// Times of the keeper.
const (
	// aliveTime is how often a worker is asked whether it can still do
	// something, deadTime how long it may take to answer before it is
	// replaced. To be killed costs it nothing.
	aliveTime = 10 * time.Second
	deadTime  = 30 * time.Second
	// patience is how long a worker may take to serve.
	patience = time.Minute
	// stopTime is how long a worker has to answer everybody who waits.
	stopTime = 5 * time.Second
)

// run serves the mount until it ends; it returns the exit code.
func (k *keeper) run() int {
	k.protect()
	k.giveToManager()
	if k.worker == nil {
		if err := k.start(); err != nil {
			return k.giveUp(err)
		}
	} else {
		k.log.Info("the program was replaced", "mountpoint", k.mount.Dir, "version", version, "worker", k.worker.process.Pid)
		k.sayReady("")
		if k.outdated() {
			k.replace()
		}
	}
	alive, due := time.Tick(aliveTime), k.manager.ticks()
	for {
		select {
		case <-k.hangups:
			k.replace()
		case s := <-k.stops:
			k.log.Info("unmounting", "signal", s.String())
			return k.stop()
		case m, ok := <-k.worker.messages:
			switch {
			case !ok:
				k.worker.messages = nil
			case m == messageServing:
				k.worker.serving = true
				k.served()
			case m == messageSettled:
				k.worker.settled = true
			case m == messageAlive:
				k.worker.asked = time.Time{}
			}
		case how := <-k.worker.ended:
			if exitCodeOf(how) == exitOK && !k.unfit(how) {
				return k.unmounted()
			}
			if err := k.next(how); err != nil {
				return k.giveUp(err)
			}
		case e := <-k.examined:
			// If the worker died meanwhile, its successor brings it up again.
			if e.worker == k.worker && k.worker.serving {
				k.replaceKeeper(e.err)
			}
		case <-k.worker.late:
			k.checkServes()
		case <-alive:
			k.checkAlive()
		case <-due:
			k.manager.say("WATCHDOG=1")
		}
	}
}

// examination says whether the program on disk could be the keeper: nil if so.
// It was begun when a worker served.
type examination struct {
	worker *worker
	err    error
}

// giveUp ends a mount for which no worker can be started.
func (k *keeper) giveUp(err error) int {
	k.log.Error("no worker serves: ending the mount, and every lock on it", "err", err)
	if _, err := k.mount.Unmount(); err != nil {
		k.log.Error("cannot unmount", "mountpoint", k.mount.Dir, "err", err)
	}
	k.takeFromManager()
	return exitInternal
}

// served is called when a worker has begun to answer requests.
func (k *keeper) served() {
	pid := k.worker.process.Pid
	if k.ready {
		k.log.Info("a new worker serves", "worker", pid, "after", time.Since(k.worker.started))
	} else {
		k.ready = true
		k.log.Info("ready", "mountpoint", k.mount.Dir, "version", version, "worker", pid)
	}
	if !k.replacing {
		k.sayReady("")
		return
	}
	if k.refused {
		k.replacing = false
		k.sayReady("; the program on disk cannot take over, see the log")
		return
	}
	w := k.worker
	go func() { k.examined <- examination{w, examine(k.program, k.format())} }()
}

// replace has the program that is on disk now take over: as the worker first,
// and if that works as the keeper. Killing is how every worker ends.
func (k *keeper) replace() {
	k.log.Info("replacing the program", "program", k.program)
	k.manager.reloading()
	k.refused, k.replacing = false, true
	k.worker.kill()
}

// replaceKeeper puts the program on disk in the place of this one, unless err
// says that it would not do. The worker serves on.
func (k *keeper) replaceKeeper(err error) {
	k.replacing = false
	if err == nil {
		err = k.become()
	}
	k.log.Error("the program on disk serves, but cannot be the keeper; this one stays", "program", k.program, "err", err)
	k.sayReady("; the keeper could not be replaced, see the log")
}

// sayReady tells the service manager, with what else there is to know.
func (k *keeper) sayReady(but string) { k.manager.say("READY=1", "STATUS=Serving "+k.mount.Dir+but) }

// unmounted is the end of the connection, which the worker has seen. It returns
// the exit code.
func (k *keeper) unmounted() int {
	k.manager.say("STOPPING=1")
	k.takeFromManager()
	if !k.mount.Mounted() {
		k.log.Info("unmounted", "mountpoint", k.mount.Dir)
		return exitOK
	}
	k.log.Error("the connection was aborted, by 'umount -f' or its abort file; every lock on it is gone", "mountpoint", k.mount.Dir)
	if _, err := k.mount.Unmount(); err != nil {
		k.log.Error("a dead mount is left", "err", err)
	}
	return exitInternal
}

// start starts a worker: from the program on disk or, if that could not take
// over or cannot even be started, from the one that this process runs.
func (k *keeper) start() error {
	if k.refused {
		return k.startFrom(ownProgram)
	}
	err := k.startFrom(k.program)
	if err == nil || k.startFrom(ownProgram) != nil {
		return err // no process can be made: not the program's fault
	}
	k.refuse(err)
	return nil
}

// startAgain starts a worker after another, and does not give up: no process
// can be made while the system is short of something, and what is held is safe
// meanwhile. Only a signal to stop ends it.
func (k *keeper) startAgain() error {
	err := k.start()
	for wait := 10 * time.Millisecond; err != nil && k.ready && !k.stopping; wait = min(2*wait, time.Second) {
		k.log.Error("cannot start a worker; trying again", "err", err, "in", wait)
		select {
		case s := <-k.stops:
			return fmt.Errorf("%w, and a signal says stop: %v", err, s)
		case <-time.After(wait):
			k.manager.say("WATCHDOG=1")
		}
		err = k.start()
	}
	return err
}

// ownProgram is the program that this process runs, also when the file has
// been replaced or removed.
const ownProgram = "/proc/self/exe"

// ownOnDisk reports whether the program on disk is the one that this process
// runs.
func (k *keeper) ownOnDisk() bool {
	disk, err := os.Stat(k.program)
	if err != nil {
		return false
	}
	own, err := os.Stat(ownProgram)
	return err != nil || os.SameFile(disk, own)
}

// startFrom starts a worker from a program.
func (k *keeper) startFrom(program string) error {
	if k.worker != nil {
		// All that it had opened goes to the next one.
		k.worker.mirror.finish()
		k.worker.mirror = nil
	}
	const first = workerDevice
	fds, stateDir := [workerMirror - first + 1]int{k.mount.FD, k.memory, -1, -1, -1}, noStateDir
	if k.dir != nil {
		fds[workerDir-first], stateDir = int(k.dir.File().Fd()), ""
	}
	line, theirs, err := k.mirror.lineTo()
	if err != nil {
		return err
	}
	defer unix.Close(theirs)
	fds[workerMirror-first] = theirs
	if k.backing != nil {
		fds[workerBacking-first] = int(k.backing.Fd())
	}
	args := []string{
		"--worker", "--oom-score=" + k.score, "--log-level=" + k.config.logLevel.String(),
		fmt.Sprintf("--mount-id=%d", k.mount.ID), fmt.Sprintf("--kept=%t", k.manager.keepsDescriptors()),
		fmt.Sprintf("--failures=%d", k.failures), "--state-dir=" + stateDir, "--backing=" + backingName(k.backing),
		fmt.Sprintf("--first-token=%d", k.first.used), fmt.Sprintf("--reserved=%d", k.first.onDisk),
	}
	if k.backing == nil {
		args = append(args, "--mirror-files")
	}
	args = append(append(args, k.config.policy.flags()...), "--", k.mount.Dir)
	w, err := startWorker(program, args, fds[:]...)
	if err != nil {
		line.finish()
		return err
	}
	w.mirror = line
	line.begin()
	k.worker = w
	k.log.Debug("worker started", "worker", w.process.Pid)
	return nil
}

// refuse has workers started from the keeper's own program, until somebody
// wants another to take over. Clients wait meanwhile, and notice nothing else.
func (k *keeper) refuse(why any) {
	k.log.Error("the program on disk cannot take over; going on with the one that runs", "program", k.program, "why", why)
	k.refused = true
}

// unfit reports whether the worker that has ended shows that the program on
// disk is none that can take over: it ended by itself before it served,
// whatever its exit code says, and it is not the keeper's own, which gets as
// many tries as it needs.
func (k *keeper) unfit(how *os.ProcessState) bool {
	return !k.refused && !k.worker.serving && !killed(how) && !k.ownOnDisk()
}

// next starts the worker after one that ended.
func (k *keeper) next(how *os.ProcessState) error {
	w := k.worker
	_ = w.control.Close()
	k.log.Warn("the worker died", "worker", w.process.Pid, "how", how)
	if k.unfit(how) {
		k.refuse(how)
		return k.startAgain()
	}
	if !k.ready && !k.adopted && !killed(how) {
		return fmt.Errorf("it ended before it served: %v", how)
	}
	if w.settled {
		k.failures = 0
	}
	if !killed(how) || w.hung {
		k.failures++
	}
	if w.serving && (time.Since(w.started) > time.Second || killed(how)) {
		k.restarts = 0
	}
	k.restarts++
	if k.restarts > 20 {
		// Something is wrong that does not pass. Not as fast as possible, but
		// on and on: clients wait, and their locks are safe.
		time.Sleep(min(time.Duration(k.restarts-20)*10*time.Millisecond, time.Second))
	}
	return k.startAgain()
}

// checkAlive asks the worker for a sign of life, and ends one that gave none.
// A worker that is taking over may be busy for as long as it likes.
func (k *keeper) checkAlive() {
	w := k.worker
	switch {
	case !w.serving:
	case w.asked.IsZero():
		w.asked = time.Now()
		w.say(messageAsk)
	case time.Since(w.asked) > deadTime:
		k.endHung("the worker does nothing any more, and is replaced", time.Since(w.asked))
	}
}

// checkServes ends a worker that has not begun to serve in time.
func (k *keeper) checkServes() {
	if k.worker.serving {
		return
	}
	if !k.refused && !k.ownOnDisk() {
		k.refuse(fmt.Sprintf("it does not serve %v after its start", patience))
	}
	k.endHung("the worker does not begin to serve, and is replaced", patience)
}

func (k *keeper) endHung(what string, after time.Duration) {
	k.log.Error(what, "worker", k.worker.process.Pid, "for", after)
	k.worker.hung = true
	k.worker.kill()
}

// stop takes the mount down and returns the exit code.
func (k *keeper) stop() int {
	k.manager.say("STOPPING=1")
	k.stopping = true
	limit := time.After(stopTime)
	holds := k.stopWorker(limit)
	busy, err := k.mount.Unmount()
	k.takeFromManager()
	if err != nil {
		k.log.Error("cannot unmount", "mountpoint", k.mount.Dir, "err", err)
		k.worker.kill()
		return exitInternal
	}
	if busy {
		k.log.Warn("unmounted while in use: open files fail from now on, and what they hold is free",
			"mountpoint", k.mount.Dir, "holds", holds)
	} else {
		select {
		case <-k.worker.ended:
			k.log.Info("unmounted", "mountpoint", k.mount.Dir)
			return exitOK
		case <-time.After(time.Second):
			k.log.Warn("the worker did not end by itself")
		}
	}
	// With the last descriptor the connection ends, and every call on it.
	k.worker.kill()
	<-k.worker.ended
	return exitOK
}

// stopWorker has the worker answer everybody who waits, and save what is to be
// kept, and returns how many holds there are. A worker that dies of it has a
// successor do it.
func (k *keeper) stopWorker(limit <-chan time.Time) (holds string) {
	k.worker.say(messageStop)
	for {
		select {
		case m, ok := <-k.worker.messages:
			if !ok {
				k.worker.messages = nil
			}
			if rest, ok := strings.CutPrefix(m, messageStopped+" "); ok {
				return rest
			}
		case how := <-k.worker.ended:
			if exitCodeOf(how) == exitOK {
				k.worker.ended <- how // unmounted by somebody else
				return "unknown"
			}
			if err := k.next(how); err != nil {
				k.log.Error("cannot start a worker", "err", err)
				k.worker.ended <- how
				return "unknown"
			}
			k.worker.say(messageStop)
		case <-limit:
			return "unknown"
		}
	}
}

// stopSignals end the mount; SIGHUP replaces the program.
var stopSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT}
