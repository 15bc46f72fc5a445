package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// The backing directory, in whose files the locks are mirrored. The keeper
// opens it before it mounts, so that it can be the one that is about to be
// covered; workers, and keepers after this one, get the descriptor.

// Values of --backing that are not a path.
const (
	// noBacking mirrors nothing.
	noBacking = "none"
	// coveredBacking is the directory that the mount covers.
	coveredBacking = ""
	// defaultBacking is what there is without the flag.
	defaultBacking = coveredBacking
)

// leastRoom is how many backing files must be able to be open at a time.
const leastRoom = 64

// errBacking is the kind of error that goes with exitBacking.
var errBacking = errors.New("the backing directory cannot be used")

// openBacking opens the directory that the command line names, nil for none.
// mountPoint, by its absolute path, must not be mounted on yet. Errors are for
// people.
func openBacking(path, mountPoint string) (*os.File, error) {
	switch path {
	case noBacking:
		return nil, nil
	case coveredBacking:
		path = mountPoint
	}
	if room := mirrorRoom(); room < leastRoom {
		return nil, fmt.Errorf("%w: only %d of its files could be open at a time; raise the limit of open files (ulimit -n), to 1024 at least",
			errBacking, room)
	}
	// What is not a directory is not even opened, so a FIFO holds nobody up. With O_PATH
	// there is nothing that the end of a process would have to wait for, however long
	// the filesystem does not answer.
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		// Reading is one permission, to reach what is in it another.
		if err = unix.Faccessat(fd, ".", unix.R_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; name another with --backing, or mirror nothing with '--backing none'", errBacking, path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// backingName returns what a directory is called on a worker's command line.
func backingName(dir *os.File) string {
	if dir == nil {
		return noBacking
	}
	return dir.Name()
}
