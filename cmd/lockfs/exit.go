package main

import (
	"errors"

	"github.com/lockfs/lockfs/fs/device"
)

// Exit codes. They are a contract: a number keeps its meaning.
const (
	exitOK         = 0
	exitInternal   = 1  // an error that should not happen
	exitUsage      = 2  // the command line
	exitMountPoint = 3  // not a directory, cannot be made, a lockfs or a dead mount there, busy
	exitPermission = 4  // the system refuses this user the mount
	exitNoFUSE     = 5  // /dev/fuse is missing or cannot be opened
	exitHelper     = 6  // fusermount3 is missing or refuses
	exitTimeouts   = 7  // fs.fuse.default_request_timeout or max_request_timeout is set
	exitState      = 8  // of a worker, to its keeper: it cannot use the state
	exitStateDir   = 9  // the state directory cannot be used
	exitBacking    = 10 // the backing directory cannot be used
)

const exitHelp = `Exit codes:
  0  unmounted
  1  internal error
  2  command line not understood
  3  mount point cannot be used: not a directory, cannot be made, a lockfs or a
     dead FUSE mount is there, busy
  4  permission to mount denied
  5  FUSE not available: /dev/fuse is missing or cannot be opened
  6  fusermount3, by which ordinary users mount, is missing or refuses
  7  the kernel limits how long a request may take (sysctl
     fs.fuse.default_request_timeout, fs.fuse.max_request_timeout)
  9  the state directory cannot be used: cannot be made or written to, in use by
     another lockfs
 10  the backing directory cannot be used: missing, not a directory, permission
     denied
`

// exitCode returns the code for an error of starting.
func exitCode(err error) int {
	for _, k := range []struct {
		kind error
		code int
	}{
		{device.ErrMountPoint, exitMountPoint},
		{device.ErrPermission, exitPermission},
		{device.ErrNoFUSE, exitNoFUSE},
		{device.ErrHelper, exitHelper},
		{device.ErrTimeouts, exitTimeouts},
		{errStateDir, exitStateDir},
		{errBacking, exitBacking},
	} {
		if errors.Is(err, k.kind) {
			return k.code
		}
	}
	return exitInternal
}
