package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/state"
)

// The keeper holds what a worker must not take with it when it dies: the open
// /dev/fuse and the memory. It starts a worker, and when that dies the next
// one. It does nothing else, so that it has no reason to die.

// keeper is the process that the user started.
type keeper struct {
	config config
	log    *slog.Logger
	mount  *device.MountPoint
	memory int // descriptor

	// program is the file that workers are started from: the one that this
	// process was started from, by name, so that it can be replaced.
	program string
	// score is the oom_score_adj that workers get, "" to leave it.
	score string

	worker *worker
	// refused: the program on disk could not take over; workers are started
	// from the program that this process runs.
	refused bool
	// restarts counts workers that ended by themselves, or before they served,
	// one soon after the other.
	restarts int
}

// worker is a worker process as the keeper sees it.
type worker struct {
	cmd     *exec.Cmd
	control *os.File
	started time.Time
	// messages and, when the process is gone as a whole, its exit code.
	messages chan string
	ended    chan int
	serving  bool
}

// runKeeper serves a mount until it ends; it returns the exit code.
func runKeeper(c config, mount *device.MountPoint, signals <-chan os.Signal, log *slog.Logger) int {
	memory, err := state.Create(slots)
	if err != nil {
		log.Error("cannot make the state", "err", err)
		_, _ = mount.Unmount()
		return exitInternal
	}
	program, err := os.Executable()
	if err != nil {
		log.Error("cannot find this program", "err", err)
		_, _ = mount.Unmount()
		return exitInternal
	}
	k := &keeper{config: c, log: log, mount: mount, memory: memory, program: program}
	k.protect()
	return k.run(signals)
}

// protect gives the keeper its name and makes it the last to be killed when
// memory is short. An ordinary user may not, which is no error.
func (k *keeper) protect() {
	_ = os.WriteFile("/proc/self/comm", []byte("lockfs-keeper"), 0)
	old, err := os.ReadFile("/proc/self/oom_score_adj")
	if err == nil && os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0) == nil {
		k.score = strings.TrimSpace(string(old))
	}
}

// run starts workers until the mount ends.
func (k *keeper) run(signals <-chan os.Signal) int {
	if err := k.start(); err != nil {
		k.log.Error("cannot start a worker", "err", err)
		_, _ = k.mount.Unmount()
		return exitInternal
	}
	ready := false
	for {
		select {
		case s := <-signals:
			if s == unix.SIGHUP {
				k.replace()
				continue
			}
			k.log.Info("unmounting", "signal", s.String())
			return k.stop()
		case m, ok := <-k.worker.messages:
			if !ok {
				k.worker.messages = nil
				continue
			}
			if m != messageServing {
				continue
			}
			k.worker.serving = true
			if !ready {
				ready = true
				k.log.Info("ready", "mountpoint", k.mount.Dir, "version", version, "worker", k.worker.cmd.Process.Pid)
			} else {
				k.log.Info("a new worker serves", "worker", k.worker.cmd.Process.Pid, "after", time.Since(k.worker.started))
			}
		case code := <-k.worker.ended:
			if code == exitOK {
				return k.unmounted()
			}
			if err := k.next(code); err != nil {
				k.log.Error("cannot start a worker", "err", err)
				_, _ = k.mount.Unmount()
				return exitInternal
			}
		}
	}
}

// unmounted is the end of the connection, which the worker has seen. It returns
// the exit code.
func (k *keeper) unmounted() int {
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

// start starts a worker.
func (k *keeper) start() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control")
	defer theirs.Close()
	program := k.program
	if k.refused {
		program = "/proc/self/exe"
	}
	cmd := exec.Command(program, "--worker", "--oom-score="+k.score, "--log-level="+k.config.logLevel.String(),
		fmt.Sprintf("--mount-id=%d", k.mount.ID), "--", k.mount.Dir)
	cmd.Args[0] = "lockfs-worker"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{borrow(k.mount.FD, "/dev/fuse"), borrow(k.memory, "state"), theirs}
	// Signals to the terminal's group are the keeper's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		_ = ours.Close()
		return err
	}
	w := &worker{cmd: cmd, control: ours, started: time.Now(), messages: make(chan string, 8), ended: make(chan int, 1)}
	go w.listen()
	go w.wait()
	k.worker = w
	k.log.Debug("worker started", "worker", cmd.Process.Pid)
	return nil
}

// borrow makes a file of a descriptor that stays open when the file goes.
func borrow(fd int, name string) *os.File {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(copied), name)
}

// listen passes on what the worker says.
func (w *worker) listen() {
	defer close(w.messages)
	buf := make([]byte, 256)
	for {
		n, err := w.control.Read(buf)
		if err != nil || n == 0 {
			return
		}
		w.messages <- string(buf[:n])
	}
}

// wait waits until the whole process is gone: while one thread of it lives, it
// could still read a request that its successor would wait for.
func (w *worker) wait() {
	_ = w.cmd.Wait()
	for _, f := range w.cmd.ExtraFiles {
		_ = f.Close()
	}
	w.ended <- w.cmd.ProcessState.ExitCode()
}

// next starts the worker after one that ended with a code.
func (k *keeper) next(code int) error {
	w := k.worker
	_ = w.control.Close()
	if code == exitState && !w.serving && !k.refused {
		k.log.Error("the program on disk cannot take over; going on with the one that runs", "program", k.program)
		k.refused = true
		return k.start()
	}
	k.log.Warn("the worker died", "worker", w.cmd.Process.Pid, "how", w.cmd.ProcessState.String())
	if w.serving && (time.Since(w.started) > time.Second || killed(w.cmd.ProcessState)) {
		k.restarts = 0
	}
	if k.restarts++; k.restarts > 20 {
		// Something is wrong that does not pass. Not as fast as possible, but
		// on and on: clients wait, and their locks are safe.
		time.Sleep(min(time.Duration(k.restarts-20)*10*time.Millisecond, time.Second))
	}
	return k.start()
}

// killed reports whether a process was ended by SIGKILL: by somebody else, that
// is.
func killed(s *os.ProcessState) bool {
	status, ok := s.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == unix.SIGKILL
}

// replace has the program that is on disk now take over. Killing is how every
// worker ends.
func (k *keeper) replace() {
	k.log.Info("replacing the worker", "program", k.program)
	k.refused = false
	_ = k.worker.cmd.Process.Kill()
}

// stopTime is how long a worker has to answer everybody who waits.
const stopTime = 5 * time.Second

// stop takes the mount down and returns the exit code.
func (k *keeper) stop() int {
	limit := time.After(stopTime)
	_, _ = k.worker.control.Write([]byte(messageStop))
	holds := k.awaitStopped(limit)
	busy, err := k.mount.Unmount()
	if err != nil {
		k.log.Error("cannot unmount", "mountpoint", k.mount.Dir, "err", err)
		_ = k.worker.cmd.Process.Kill()
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
		case <-limit:
			k.log.Warn("the worker did not end by itself")
		}
	}
	// With the last descriptor the connection ends, and every call on it.
	_ = k.worker.cmd.Process.Kill()
	<-k.worker.ended
	return exitOK
}

// awaitStopped waits for the worker's answer to stop.
func (k *keeper) awaitStopped(limit <-chan time.Time) (holds string) {
	for {
		select {
		case m, ok := <-k.worker.messages:
			if !ok {
				return "unknown"
			}
			if rest, ok := strings.CutPrefix(m, messageStopped+" "); ok {
				return rest
			}
		case <-limit:
			return "unknown"
		}
	}
}
