package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/state"
)

// What a keeper leaves to the next one: descriptors, and what they are. The
// next one is the program that takes the place of this one in the same process
// (execve(2), on SIGHUP), or a process that the service manager starts when
// this one died, with the descriptors that it kept.

// handover is the part that is not descriptors. A program that does not know
// its format must not take over.
type handover struct {
	Format  int    `json:"format"`
	Dir     string `json:"dir"`
	MountID uint64 `json:"mount_id"`
	// Backing is the path of the backing directory, "" if there is none.
	Backing string `json:"backing,omitempty"`
	// Score is the oom_score_adj that workers get.
	Score string `json:"score,omitempty"`
	// Worker is the process id of a worker that is there to stay, 0 for none.
	Worker int `json:"worker,omitempty"`
	// Descriptors are numbers by name, of an execve.
	Descriptors map[string]int `json:"descriptors,omitempty"`
}

// Formats. Programs that know one know those before it too.
const (
	formatPlain   = 1
	formatBacking = 2 // with a backing directory, and perhaps the mirror's files
	formatAgents  = 3 // perhaps with the mirror's files, though without such a directory
)

// format returns what this keeper leaves.
func (k *keeper) format() int {
	switch {
	case k.backing != nil:
		return formatBacking
	case k.worker != nil && k.worker.mirror != nil:
		return formatAgents
	}
	return formatPlain
}

// envHandover names the handover of an execve.
const envHandover = "LOCKFS_HANDOVER"

// Names of descriptors.
const (
	fdDevice   = "device"
	fdState    = "state"
	fdUnder    = "under"
	fdStateDir = "state-dir"
	fdControl  = "control"
	fdBacking  = "backing"
	// Of an execve only: the socket of a mirrorLine, and a list of its files.
	fdMirror      = "mirror"
	fdMirrorFiles = "mirror-files"

	fdHandover = "handover" // what the others are; for the service manager
)

// kept returns the descriptors that make the mount, by name.
func (k *keeper) kept() map[string]int {
	fds := map[string]int{fdDevice: k.mount.FD, fdState: k.memory, fdUnder: int(k.mount.Under.Fd())}
	if k.dir != nil {
		fds[fdStateDir] = int(k.dir.File().Fd())
	}
	if k.backing != nil {
		fds[fdBacking] = int(k.backing.Fd())
	}
	return fds
}

// inherited is what a keeper found when it was started, instead of making it.
type inherited struct {
	handover
	fds map[string]int
}

// inherit returns what this process was left with, nil if it is a first one.
func inherit() (*inherited, error) {
	if text := os.Getenv(envHandover); text != "" {
		_ = os.Unsetenv(envHandover)
		return parseHandover([]byte(text), nil)
	}
	fds := stored()
	fd, ok := fds[fdHandover]
	if !ok {
		return nil, nil
	}
	b := make([]byte, 64<<10)
	n, err := unix.Pread(fd, b, 0)
	_ = unix.Close(fd)
	if err != nil {
		return nil, fmt.Errorf("what the service manager kept: %w", err)
	}
	return parseHandover(b[:n], fds)
}

func parseHandover(text []byte, fds map[string]int) (*inherited, error) {
	var in inherited
	if err := json.Unmarshal(text, &in.handover); err != nil {
		return nil, fmt.Errorf("what the last keeper left is not understood: %w", err)
	}
	if in.Format < formatPlain || in.Format > formatAgents {
		return nil, fmt.Errorf("what the last keeper left is of format %d, this program has %d", in.Format, formatAgents)
	}
	in.fds = in.Descriptors
	if fds != nil {
		in.fds = fds
	}
	for _, name := range []string{fdDevice, fdState, fdUnder} {
		if _, ok := in.fds[name]; !ok {
			return nil, fmt.Errorf("what the last keeper left has no %s", name)
		}
	}
	for _, fd := range in.fds {
		unix.CloseOnExec(fd)
	}
	return &in, nil
}

// adopt makes a keeper of what was left.
func adopt(c config, in *inherited, k *keeper) {
	k.mount = device.Adopt(in.fds[fdDevice], in.Dir, in.MountID)
	k.mount.Under = os.NewFile(uintptr(in.fds[fdUnder]), "covered directory")
	k.memory, k.score, k.adopted = in.fds[fdState], in.Score, true
	if fd, ok := in.fds[fdStateDir]; ok {
		k.dir = state.AdoptDir(fd, k.log.Warn)
	}
	if c.mountPoint != "" && c.mountPoint != in.Dir {
		k.log.Warn("the mount that is there goes on, not the one of the command line", "mountpoint", in.Dir, "asked", c.mountPoint)
	}
	line := k.adoptMirror(in)
	if in.Worker == 0 {
		return
	}
	// An execve keeps children.
	process, err := os.FindProcess(in.Worker)
	control, ok := in.fds[fdControl]
	if err != nil || !ok {
		k.log.Error("the worker is lost; the next one waits until it is gone", "worker", in.Worker, "err", err)
		line.finish()
		return
	}
	k.worker = newWorker(process, os.NewFile(uintptr(control), "control"))
	k.worker.serving, k.worker.settled, k.ready = true, true, true
	if line != nil {
		k.worker.mirror = line
		line.resume()
	}
}

// giveToManager has the service manager keep the mount, if it does such things.
func (k *keeper) giveToManager() {
	if !k.manager.keepsDescriptors() {
		return
	}
	// The handover last: without the rest it is worth nothing.
	for name, fd := range k.kept() {
		k.manager.store(name, fd)
	}
	text, err := json.Marshal(k.handover())
	if err == nil {
		var fd int
		if fd, err = unix.MemfdCreate("lockfs-handover", unix.MFD_CLOEXEC); err == nil {
			defer unix.Close(fd)
			if _, err = unix.Pwrite(fd, text, 0); err == nil {
				k.manager.store(fdHandover, fd)
			}
		}
	}
	if err != nil {
		k.log.Warn("nothing is kept for another keeper", "err", err)
	}
}

// handover returns what is left in any case, beside the descriptors.
func (k *keeper) handover() handover {
	h := handover{Format: k.format(), Dir: k.mount.Dir, MountID: k.mount.ID, Score: k.score}
	if k.backing != nil {
		h.Backing = k.backing.Name()
	}
	return h
}

// takeFromManager has it forget the mount, which has ended.
func (k *keeper) takeFromManager() {
	if !k.manager.keepsDescriptors() {
		return
	}
	k.manager.forget(fdHandover)
	for name := range k.kept() {
		k.manager.forget(name)
	}
}

// examineTime is how long a program may take to say whether it can take over.
const examineTime = 10 * time.Second

// examine asks the program on disk whether it could be the keeper: whether it
// understands the command line and the handover. A keeper that fails after the
// execve would take the mount with it.
func examine(program string, format int) error {
	args := append([]string{fmt.Sprintf("--could-keep=%d", format)}, os.Args[1:]...)
	cmd := exec.Command(program, args...)
	cmd.Env = workerEnvironment()
	cmd.WaitDelay = examineTime
	timer := time.AfterFunc(examineTime, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// become has the program on disk take this process's place. It returns only if
// that failed.
func (k *keeper) become() error {
	fds := k.kept()
	fds[fdControl] = int(k.worker.control.Fd())
	undo, err := k.leaveMirror(fds)
	if err != nil {
		return err
	}
	defer undo()
	left := k.handover()
	left.Worker, left.Descriptors = k.worker.process.Pid, fds
	text, err := json.Marshal(left)
	if err != nil {
		return err
	}
	k.flush()
	for _, fd := range fds {
		if err := setCloseOnExec(fd, false); err != nil {
			return err
		}
	}
	// The next program is without a handler at first, and a SIGHUP would end
	// it. One that comes meanwhile is lost: see outdated. SIGTERM ends the
	// mount, and should: from here on by ending this process.
	signal.Ignore(syscall.SIGHUP)
	signal.Reset(stopSignals...)
	if err = errStopped; len(k.stops) == 0 {
		err = syscall.Exec(k.program, os.Args, append(os.Environ(), envHandover+"="+string(text)))
	}
	signal.Notify(k.hangups, syscall.SIGHUP)
	signal.Notify(k.stops, stopSignals...)
	for _, fd := range fds {
		_ = setCloseOnExec(fd, true)
	}
	return fmt.Errorf("execute %s: %w", k.program, err)
}

// errStopped: a signal to stop came before the next program took over.
var errStopped = errors.New("stopped meanwhile")

// outdated reports whether the worker runs another program than the one on
// disk: a SIGHUP that should have replaced it came while this process took the
// last keeper's place.
func (k *keeper) outdated() bool {
	disk, err := os.Stat(k.program)
	if err != nil {
		return false
	}
	its, err := os.Stat(fmt.Sprintf("/proc/%d/exe", k.worker.process.Pid))
	return err == nil && !os.SameFile(disk, its)
}

func setCloseOnExec(fd int, on bool) error {
	flags := 0
	if on {
		flags = unix.FD_CLOEXEC
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	return err
}

// workerEnvironment is ours without what the service manager says to us.
func workerEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !slices.Contains(managerVariables, name) {
			env = append(env, v)
		}
	}
	return env
}

// couldKeep answers examine.
func couldKeep(format string) int {
	if n, err := strconv.Atoi(format); err != nil || n < formatPlain || n > formatAgents {
		fmt.Fprintf(os.Stderr, "lockfs: cannot take over from a keeper of format %s, this program has %d\n", format, formatAgents)
		return exitUsage
	}
	return exitOK
}
