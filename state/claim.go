package state

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Claim makes this process the one that uses a memory file: it waits until the
// one before is gone as a whole, its last thread included, which could still
// read a request or write a record. It holds until the process ends.
//
// The lock is of a file description of its own (F_OFD_SETLKW): that of fd is
// shared with who handed it over, and outlives us.
func Claim(fd int) error {
	own, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "the state", Err: err}
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	for {
		err = unix.FcntlFlock(uintptr(own), unix.F_OFD_SETLKW, &whole)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = unix.Close(own)
		return fmt.Errorf("claim the state: %w", err)
	}
	return nil // own stays open
}
