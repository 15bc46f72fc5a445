package rwlock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// The open file that holds a lock, by flock(2). It is a number and not an os.File,
// which the garbage collector closes: that would give the lock back unasked.

// attempts is how often a file may be replaced between opening and locking it.
const attempts = 100

// take opens path and locks it, shared or exclusively as how says (LOCK_SH or
// LOCK_EX), and waits for it. Then the path leads to the file: it was not removed
// meanwhile, with another made in its place.
func take(ctx context.Context, path string, how int) (fd int, err error) {
	for range attempts {
		if err := ctx.Err(); err != nil {
			return -1, err
		}
		if fd, err = open(path); err != nil {
			return -1, err
		}
		err = await(ctx, fd, how)
		found := false
		if err == nil {
			found, err = leadsTo(path, fd)
		}
		if found {
			return fd, nil
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ESTALE) { // broken while it was waited for
			return -1, err
		}
	}
	return -1, fmt.Errorf("%s keeps being removed: %w", path, unix.ESTALE)
}

// open opens the file of a lock, for reading only if it is another's, as it may be
// where files have modes: to lock it, that is enough.
func open(path string) (fd int, err error) {
	const always = unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NOCTTY
	openAs := func(flags int) {
		err = eintr.Retry(func() (err error) {
			fd, err = unix.Open(path, flags|always, 0o666)
			return err
		})
	}
	openAs(unix.O_RDWR | unix.O_CREAT)
	if denied := err; denied == unix.EACCES {
		if openAs(unix.O_RDONLY); err == unix.ENOENT {
			err = denied
		}
	}
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

// await locks an open file and waits for it. A wait in flock(2) does not end for a
// context, so where there is one, flock(1) waits: a child that has the open file,
// whose lock it is, and that can be killed.
func await(ctx context.Context, fd, how int) error {
	if ctx.Done() == nil {
		return flock(fd, how)
	}
	if err := flock(fd, how|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	file := os.NewFile(uintptr(own), "lock")
	defer file.Close()
	option := "-x"
	if how == unix.LOCK_SH {
		option = "-s"
	}
	var said bytes.Buffer
	child := exec.CommandContext(ctx, "flock", option, "3")
	child.ExtraFiles = []*os.File{file}
	child.Stderr = &said
	// It does not outlive this process, or rather this thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	child.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	switch err := child.Run(); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return fmt.Errorf("waiting by flock(1): %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
}

func flock(fd, how int) error {
	return os.NewSyscallError("flock", eintr.Retry(func() error { return unix.Flock(fd, how) }))
}

// leadsTo reports whether a path leads to an open file.
func leadsTo(path string, fd int) (bool, error) {
	var at, st unix.Stat_t
	err := eintr.Retry(func() error { return unix.Lstat(path, &at) })
	if err == unix.ENOENT {
		return false, nil
	}
	if err == nil {
		err = eintr.Retry(func() error { return unix.Fstat(fd, &st) })
	}
	return at.Dev == st.Dev && at.Ino == st.Ino, os.NewSyscallError("stat", err)
}
