package main

import (
	"crypto/sha256"
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
// one of a mount point, given by its absolute path; nil for none.
func openStateDir(path, mountPoint string, log *slog.Logger) (*state.Dir, error) {
	switch path {
	case noStateDir:
		return nil, nil
	case "":
		base, err := stateBase()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(base, "lockfs", mountName(mountPoint))
	}
	return state.OpenDir(path, log.Warn)
}

// mountName makes one name of a mount point's path. A long one is cut, and told
// from others by a sum.
func mountName(path string) string {
	name := url.PathEscape(strings.Trim(path, "/"))
	if len(name) <= 200 {
		return name
	}
	return fmt.Sprintf("%s-%x", name[:150], sha256.Sum256([]byte(path)))[:200]
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
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("the home directory %q is not an absolute path", home)
	}
	return filepath.Join(home, ".local", "state"), nil
}

// stateDirError says what to do.
func stateDirError(err error) error {
	return fmt.Errorf("%w: %w; name another with --state-dir, or keep nothing on disk with '--state-dir none'", errStateDir, err)
}
