package numbered

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// The system calls on the mount. All begin at the directory that was opened, so that
// they mean the same mount for as long as there is a Manager, and are begun again
// after a signal: the runtime sends itself many.

// at makes a call with the descriptor of the directory, unless that is closed.
func (m *Manager) at(call func(dir int) error) (err error) {
	closed := m.conn.Control(func(dir uintptr) {
		err = eintr.Retry(func() error { return call(int(dir)) })
	})
	if closed != nil {
		return os.ErrClosed
	}
	return err
}

// open opens a file below the directory. The error is an errno.
func (m *Manager) open(path string, flags int) (fd int, err error) {
	err = m.at(func(dir int) (err error) {
		fd, err = unix.Openat(dir, path, flags|unix.O_CLOEXEC, 0o666)
		return err
	})
	return fd, err
}

func (m *Manager) unlink(path string) error {
	return m.at(func(dir int) error { return unix.Unlinkat(dir, path, 0) })
}

// read returns the line that a file has. The files that it is for have short ones,
// and give the same to all reads through one open file.
func (m *Manager) read(path string) (string, error) {
	fd, err := m.open(path, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b, n := make([]byte, 256), 0
	err = eintr.Retry(func() (err error) {
		n, err = unix.Pread(fd, b, 0)
		return err
	})
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(string(b[:n]), "\n"), nil
}

// write sets a policy.
func (m *Manager) write(path, value string) error {
	fd, err := m.open(path, unix.O_WRONLY)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return eintr.Retry(func() error {
		_, err := unix.Pwrite(fd, []byte(value), 0)
		return err
	})
}

// list returns the names in a directory.
func (m *Manager) list(path string) ([]string, error) {
	fd, err := m.open(path, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	return f.Readdirnames(-1)
}
