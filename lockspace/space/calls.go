package space

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// The system calls.

// open opens the file of a resource. It does not wait, whatever is there: not in
// a FIFO, and not where open(2) itself takes a lock.
func open(path string, flags int) (fd int, err error) {
	err = eintr.Retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY|flags, fileMode)
		return err
	})
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// What is locked of a file.
const lockedByte, lockedLength = 0, 1

func fcntl(fd, cmd int, lk *unix.Flock_t) error {
	lk.Whence, lk.Start, lk.Len = unix.SEEK_SET, lockedByte, lockedLength
	return eintr.Retry(func() error { return unix.FcntlFlock(uintptr(fd), cmd, lk) })
}

func typeOf(shared bool) int16 {
	if shared {
		return unix.F_RDLCK
	}
	return unix.F_WRLCK
}

// lock locks an open file, or fails with [ErrBusy].
func lock(fd int, shared bool) error {
	err := fcntl(fd, unix.F_OFD_SETLK, &unix.Flock_t{Type: typeOf(shared)})
	if err == unix.EAGAIN || err == unix.EACCES { // POSIX allows either
		return ErrBusy
	}
	return os.NewSyscallError("fcntl", err)
}

// stillLocked reports with an error if an open file cannot have its lock any more:
// if another has one that is in its way, or the filesystem says so.
func stillLocked(fd int, shared bool) error {
	lk := unix.Flock_t{Type: typeOf(shared)}
	switch err := fcntl(fd, unix.F_OFD_GETLK, &lk); {
	case err != nil:
		return os.NewSyscallError("fcntl", err)
	case lk.Type != unix.F_UNLCK:
		return errors.New("another holds it")
	}
	return nil
}

func stat(path string) (st unix.Stat_t, err error) {
	return st, eintr.Retry(func() error { return unix.Stat(path, &st) })
}

func fstat(fd int) (st unix.Stat_t, err error) {
	return st, eintr.Retry(func() error { return unix.Fstat(fd, &st) })
}

// leadsTo reports whether a path leads to an open file.
func leadsTo(path string, fd int) (bool, error) {
	at, err := stat(path)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	st, err := fstat(fd)
	return st.Dev == at.Dev && st.Ino == at.Ino, os.NewSyscallError("fstat", err)
}

// unlink removes a name. That it is not there any more is fine.
func unlink(path string) error {
	if err := eintr.Retry(func() error { return unix.Unlink(path) }); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "unlink", Path: path, Err: err}
	}
	return nil
}

// setInherited says whether the programs that this process becomes have the file.
func setInherited(fd int, inherited bool) error {
	flags := unix.FD_CLOEXEC
	if inherited {
		flags = 0
	}
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	return os.NewSyscallError("fcntl", err)
}
