package device

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// helperName is the set-uid program by which ordinary users mount.
const helperName = "fusermount3"

// findHelper looks for fusermount3 in the PATH and where Debian has it.
func findHelper() (string, error) {
	for _, name := range []string{helperName, "/usr/bin/" + helperName, "/bin/" + helperName} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", failf(ErrHelper, "%s is not installed, and only root mounts without it; on Debian: 'apt install fuse3'", helperName)
}

// mountByHelper mounts by fusermount3, which hands the open /dev/fuse back over
// a socket whose number it is told in _FUSE_COMMFD (fusermount3(1), libfuse's
// mount_util).
func mountByHelper(dir string, opts Options) (*MountPoint, error) {
	helper, err := findHelper()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, failf(ErrHelper, "socketpair: %v", err)
	}
	ours, theirs := pair[0], os.NewFile(uintptr(pair[1]), "fusermount3")
	defer unix.Close(ours)
	options := "nosuid,nodev,fsname=lockfs,subtype=lockfs"
	if opts.AllowOther {
		options += ",allow_other"
	}
	var stderr bytes.Buffer
	cmd := exec.Command(helper, "-o", options, "--", dir)
	cmd.Args[0] = helperName // which it begins its messages with
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = &stderr
	err = cmd.Run()
	_ = theirs.Close()
	if err != nil {
		return nil, helperFailure(dir, firstLine(stderr.String()), err)
	}
	fd, err := receiveDescriptor(ours)
	if err != nil {
		_ = (&MountPoint{Dir: dir, helper: helper}).runHelper("-u", "-z")
		return nil, failf(ErrHelper, "%s: %s sent no descriptor: %v", dir, helperName, err)
	}
	unix.CloseOnExec(fd)
	return &MountPoint{FD: fd, Dir: dir, helper: helper}, nil
}

// helperFailure says what fusermount3 said. Its texts are not a contract, so
// they only choose the kind; what it does not tell apart is [ErrHelper].
func helperFailure(dir, said string, err error) error {
	if said == "" {
		return failf(ErrHelper, "%s: %s failed: %v", dir, helperName, err)
	}
	said = strings.TrimPrefix(said, helperName+": ")
	switch {
	case strings.Contains(said, "user_allow_other"):
		return failf(ErrHelper, "%s: --allow-other is refused: put a line 'user_allow_other' into /etc/fuse.conf, or leave it out", dir)
	case strings.Contains(said, devicePath) && strings.Contains(said, "ermission denied"):
		return failf(ErrNoFUSE, "%s; ordinary users need read and write permission on %s, as 'chmod 666 %s' gives it", said, devicePath, devicePath)
	case strings.Contains(said, "fuse device not found"):
		return failf(ErrNoFUSE, "%s: not found; %s", devicePath, loadModule)
	case strings.Contains(said, devicePath):
		return failf(ErrNoFUSE, "%s; %s", said, loadModule)
	case strings.Contains(said, "no write access"), strings.Contains(said, "ermission denied"), strings.Contains(said, "not permitted"):
		return failf(ErrPermission, "%s: %s; an ordinary user mounts on directories of his own", dir, said)
	}
	return failf(ErrHelper, "%s: %s: %s", dir, helperName, said)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// receiveDescriptor takes one descriptor off a socket.
func receiveDescriptor(socket int) (int, error) {
	var data [8]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, data[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return -1, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err == nil && len(fds) == 1 {
			return fds[0], nil
		}
	}
	return -1, errors.New("no descriptor in the message")
}

func (m *MountPoint) unmountByHelper() (busy bool, err error) {
	if err := m.runHelper("-u"); err == nil {
		return false, nil
	}
	return true, m.runHelper("-u", "-z")
}

func (m *MountPoint) runHelper(args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.Command(m.helper, append(args, "--", m.Dir)...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", helperName, err, firstLine(stderr.String()))
	}
	return nil
}
