package fs

import (
	"errors"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNotHis is why a user cannot send a signal.
var errNotHis = errors.New("the process is another user's")

// Signal holds the process by a pidfd while it finds out whether it is the one that
// is meant, and whose it is: kill(2) asks whether the user is the real or the saved
// one of the process.
func (p Proc) Signal(to Identity, uid uint32, signal syscall.Signal) error {
	fd, err := unix.PidfdOpen(int(to.Pid), 0)
	switch {
	case errors.Is(err, unix.ESRCH):
		return nil
	case err != nil:
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(fd)
	entry := strconv.FormatUint(uint64(to.Pid), 10)
	kin, ok := p.Kin(to.Pid)
	status, err := os.ReadFile("/proc/" + entry + "/status")
	switch {
	case ended(fd):
		return nil
	case !ok || err != nil:
		return errors.Join(errors.New("the process cannot be seen"), err)
	case kin.Started != to.Started:
		return nil // another has its number
	}
	users := parseStatus(string(status))["Uid"] // real, effective, saved, filesystem
	user := strconv.FormatUint(uint64(uid), 10)
	if uid != 0 && (len(users) < 3 || !slices.Contains([]string{users[0], users[2]}, user)) {
		return errNotHis
	}
	err = unix.PidfdSendSignal(fd, signal, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return os.NewSyscallError("pidfd_send_signal", err)
}
