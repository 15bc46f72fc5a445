// Package eintr is for system calls that a signal ends. On a FUSE mount nearly all can
// be, and the Go runtime sends itself many signals: what it restarts by itself in
// package os, who uses system calls directly has to.
package eintr

import "golang.org/x/sys/unix"

// Retry makes a call until no signal ends it, and returns what it returned.
func Retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
