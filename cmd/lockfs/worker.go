package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/state"
)

// The worker does the work: it serves the mount whose descriptors the keeper
// hands it, from the memory that the keeper holds, and can be killed at any
// instruction.

// Descriptors that a worker is started with.
const (
	workerDevice  = 3 // /dev/fuse, mounted
	workerState   = 4 // the memory file
	workerControl = 5 // the keeper's end of control messages
)

// Messages between keeper and worker. One is one packet on a socket.
const (
	messageServing = "serving" // worker: from here on requests are answered
	messageStop    = "stop"    // keeper: answer everybody who waits, and let nobody wait
	messageStopped = "stopped" // worker: done; followed by the number of holds
)

// runWorker is the worker; it returns its exit code.
func runWorker(c config, log *slog.Logger) int {
	_ = os.WriteFile("/proc/self/comm", []byte("lockfs-worker"), 0)
	control := os.NewFile(workerControl, "control")
	if err := restoreOOMScore(c.oomScore); err != nil {
		log.Debug("oom_score_adj stays", "err", err)
	}
	// What is made until requests are answered is there to stay: nothing to
	// collect, and clients are waiting.
	collect := debug.SetGCPercent(-1)
	crash, err := newCrashPoints()
	if err != nil {
		log.Error("no crash points", "err", err)
		return exitInternal
	}
	memory, err := state.Open(workerState, crash.memory())
	if errors.Is(err, state.ErrVersion) {
		log.Error("this program cannot take over", "err", err)
		return exitState
	}
	if err != nil {
		log.Error("cannot use the state", "err", err)
		return exitInternal
	}
	conn, filesystem, err := takeOver(memory, crash, log)
	if err != nil {
		log.Error("cannot use the state", "err", err)
		return exitState
	}
	debug.SetGCPercent(collect)
	crash.at("serving")
	if _, err := control.Write([]byte(messageServing)); err != nil {
		log.Error("the keeper is gone", "err", err)
		return exitInternal
	}
	var orphaned atomic.Bool
	go func() {
		if obey(control, conn, filesystem, log) {
			return
		}
		orphaned.Store(true)
		endMount(device.Adopt(workerDevice, c.mountPoint, c.mountID), conn, filesystem, log)
	}()
	err = conn.Serve()
	switch {
	case orphaned.Load():
		return exitInternal
	case err != nil:
		log.Error("serving ended", "err", err)
		return exitInternal
	}
	return exitOK
}

// attempts is how many workers may die of what was left to do, one after the
// other, before it is given up.
const attempts = 3

// takeOver makes the filesystem that the memory tells of, and carries out what
// a worker before this one left undone.
func takeOver(memory *state.Memory, crash *crashPoints, log *slog.Logger) (*device.Conn, *fs.FS, error) {
	crash.at("opened")
	found, err := readMemory(memory)
	if err != nil {
		return nil, nil, err
	}
	l := ledger{memory}
	conn := device.New(workerDevice, l, log)
	crash.attach(conn)
	options := fs.Options{
		Device:    conn,
		Processes: fs.Proc{},
		Clock:     new(fs.SystemClock),
		Tokens:    &tokens{memory: memory, next: found.token, limit: found.token},
		Journal:   fs.NewRecords(memory.Tx()),
		Log:       log,
		UID:       uint32(os.Geteuid()),
		GID:       uint32(os.Getegid()),
	}
	var filesystem *fs.FS
	if found.fresh {
		filesystem = fs.New(options)
	} else if filesystem, err = fs.Restore(options, &found.saved); err != nil {
		return nil, nil, err
	}
	conn.Attach(filesystem)
	undelivered, pending := memory.Undelivered(), len(memory.Pending()) > 0
	crash.at("restored")
	conn.Do(func() {}) // commits a new root
	if found.init != nil {
		log.Debug("taking over", "answers", len(undelivered), "away", len(found.away), "pending", pending)
		var away []device.Traveller
		for _, unique := range slices.Sorted(maps.Keys(found.away)) {
			away = append(away, found.away[unique])
		}
		refuse := memory.Attempt() > attempts
		conn.Resume(found.init, undelivered, away, pending, refuse)
		crash.at("taken over")
		memory.Progress()
	} else if pending {
		// The connection's first request itself was left undone.
		conn.Dispatch(l.Slot())
	}
	return conn, filesystem, nil
}

// obey does what the keeper says. It returns when the keeper has ended: true
// if it said stop before.
func obey(control *os.File, conn *device.Conn, filesystem *fs.FS, log *slog.Logger) (stopped bool) {
	buf := make([]byte, 256)
	for {
		n, err := control.Read(buf)
		if err != nil || n == 0 {
			return stopped
		}
		if string(buf[:n]) != messageStop {
			log.Error("unknown message from the keeper", "message", string(buf[:n]))
			continue
		}
		stopped = true
		var holds int
		conn.Do(func() { holds = filesystem.Shutdown() })
		if _, err := fmt.Fprintf(control, "%s %d", messageStopped, holds); err != nil {
			return stopped
		}
	}
}

// endMount ends a mount whose keeper is gone: nobody would start the next
// worker.
func endMount(mount *device.MountPoint, conn *device.Conn, filesystem *fs.FS, log *slog.Logger) {
	log.Error("the keeper is gone: ending the mount, and every lock on it", "mountpoint", mount.Dir)
	conn.Do(func() { filesystem.Shutdown() })
	if _, err := mount.Unmount(); err != nil {
		log.Error("cannot unmount", "mountpoint", mount.Dir, "err", err)
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

// setCloseOnExec keeps the descriptors of a worker to itself.
func setCloseOnExec() {
	for fd := workerDevice; fd <= workerControl; fd++ {
		unix.CloseOnExec(fd)
	}
}
