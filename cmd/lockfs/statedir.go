package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/lockfs/lockfs/state"
)

// errStateDir is the kind of error that goes with exitStateDir.
var errStateDir = errors.New("the state directory cannot be used")

// noStateDir as --state-dir keeps nothing on disk.
const noStateDir = "none"

// openStateDir opens the directory that the command line names, or the usual
// one; nil for none.
func openStateDir(c config, log *slog.Logger) (*state.Dir, error) {
	path := c.stateDir
	if path == noStateDir {
		return nil, nil
	}
	if path == "" {
		base, err := stateBase()
		if err != nil {
			return nil, stateDirError(err)
		}
		// Each mount point has one of its own.
		abs, err := filepath.Abs(c.mountPoint)
		if err != nil {
			return nil, stateDirError(err)
		}
		path = filepath.Join(base, "lockfs", url.PathEscape(strings.Trim(abs, "/")))
	}
	dir, err := state.OpenDir(path, log.Warn)
	if err != nil {
		return nil, stateDirError(err)
	}
	return dir, nil
}

// stateBase returns where programs of this user keep their state: /var/lib for
// root, else as in the XDG base directory specification.
func stateBase() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib", nil
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "state"), nil
}

// stateDirError says what to do.
func stateDirError(err error) error {
	return fmt.Errorf("%w: %w; name another with --state-dir, or keep nothing on disk with '--state-dir none'", errStateDir, err)
}
