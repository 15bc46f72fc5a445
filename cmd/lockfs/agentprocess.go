package main

import (
	"fmt"
	iofs "io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/mirror"
	"github.com/lockfs/lockfs/lockspace/mirror/agent"
)

// An agent is a process that mirrors locks in a directory that may not answer, see
// package agent: one for each such directory. Workers start it, and it outlives them:
// it ends when nobody has the other end of its line, so when the keeper has given that
// up, or is gone with its worker.

// Descriptors that an agent is started with.
const (
	agentLine    = 3
	agentBacking = 4 // the backing directory, for the agent of that
)

// directPlace is before the directory in the name of a place for locks on existing
// files.
const directPlace = "direct:"

// runAgent is an agent; it returns its exit code.
func runAgent(c config, log *slog.Logger) int {
	_ = os.WriteFile("/proc/self/comm", []byte("lockfs-agent"), 0)
	unix.CloseOnExec(agentLine)
	// Those are for the daemon, and so for all its processes if a service manager sends
	// them: who holds something meanwhile is not to lose it.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	line, err := agent.NewSocket(agentLine)
	if err != nil {
		log.Error("a mirror's process cannot begin", "err", err)
		return exitInternal
	}
	agent.Serve(line, func() (*mirror.Backing, error) {
		b, err := openPlace(c.agent, c.mountID)
		if err == nil {
			warnOfBacking(b, c.agent, log)
		}
		return b, err
	}, log)
	// What hangs may hang on: it ends with the process.
	return exitOK
}

// openPlace opens a place that a policy names, or the backing directory, "". Errors,
// beside those of open(2): ELOOP, it is on the mount itself.
func openPlace(place string, mountID uint64) (*mirror.Backing, error) {
	if place == "" {
		return mirror.NewBacking(agentBacking), nil
	}
	dir, direct := strings.CutPrefix(place, directPlace)
	// With O_PATH, which asks the filesystem of the directory itself for nothing: it
	// may be the mount that waits for us.
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &iofs.PathError{Op: "open", Path: dir, Err: err}
	}
	own, known := mirror.MountNumber(mountID)
	if m, ok := mirror.MountOf(fd); ok && known && m.Device == own.Device {
		err = unix.ELOOP
	} else {
		err = unix.Faccessat(fd, ".", unix.R_OK|unix.X_OK, unix.AT_EACCESS)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, &iofs.PathError{Op: "mirror in", Path: dir, Err: err}
	}
	if direct {
		return mirror.NewDirect(fd), nil
	}
	return mirror.NewBacking(fd), nil
}

// warnOfBacking says what is wrong with a directory that is mirrored in.
func warnOfBacking(b *mirror.Backing, name string, log *slog.Logger) {
	switch wrong, err := b.Check(); {
	case err != nil:
		log.Error("the backing directory cannot be looked at", "backing", name, "err", err)
	case wrong != "":
		log.Warn("others can make locks be lost, or have them refused, in the backing directory: "+wrong, "backing", name)
	}
}

// checkMirrors says what is wrong with the directories that the command line's
// policies name, before there is a mount. Errors are for people.
func checkMirrors(p *policy, mountPoint string) error {
	root, spaces, err := p.parse()
	if err != nil {
		return err
	}
	dirs := []string{root.Mirror()}
	for _, s := range spaces {
		dirs = append(dirs, s.Policy.Mirror())
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			real, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
			_ = unix.Close(fd)
			if real == mountPoint || strings.HasPrefix(real, mountPoint+"/") {
				err = unix.ELOOP // it is going to be
			}
		}
		if err != nil {
			return fmt.Errorf("%w: mirror=%s: %w", errBacking, dir, err)
		}
	}
	return nil
}
