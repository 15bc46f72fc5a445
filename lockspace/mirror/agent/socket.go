package agent

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Socket is an end of the line between a worker and an agent. One goroutine may
// send while another receives.
type Socket struct {
	file *os.File
	// FD is its descriptor, for who keeps a copy of it.
	FD int
}

// Pair makes a line, and returns the agent's end as it goes to a process that is
// started.
func Pair() (ours *Socket, theirs *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	if ours, err = NewSocket(pair[0]); err != nil {
		_ = unix.Close(pair[1])
		return nil, nil, err
	}
	return ours, os.NewFile(uintptr(pair[1]), "agent"), nil
}

// NewSocket makes an end of a descriptor, which belongs to it from here on, also if
// that fails.
func NewSocket(fd int) (*Socket, error) {
	// os.NewFile waits with the runtime's poller only for such.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("agent's socket: %w", err)
	}
	return &Socket{file: os.NewFile(uintptr(fd), "agent"), FD: fd}, nil
}

// Close closes this process's copy, and ends all waiting.
func (s *Socket) Close() { _ = s.file.Close() }

func (s *Socket) send(packet []byte) error {
	_, err := s.file.Write(packet)
	return err
}

// receive returns the next packet, which is in the buffer. Any error says that there
// will be none: the other end is closed, or this one.
func (s *Socket) receive(buffer []byte) ([]byte, error) {
	n, err := s.file.Read(buffer)
	if err == nil && n == 0 {
		err = io.EOF
	}
	return buffer[:n], err
}
