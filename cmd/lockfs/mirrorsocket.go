package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/mirror"
)

// The socket by which a worker gives its keeper the mirror's open files, and is
// given those of the workers before it. It is beside the one for control
// messages, and only there with a backing directory.
//
// A file in the socket is as good as kept: it stays open until the other end
// has read it or is closed. So a worker need not wait for the keeper, and the
// keeper reads all that a dead worker has sent before it starts another.
//
// A packet begins with its kind. Numbers are in the machine's byte order.
//
//	worker:  keep   id, label; with a descriptor
//	         drop   id
//	keeper:  files  per file id, length of label as uint16, label; with as many descriptors
//	         end    how many files the keeper keeps at most: these were all files
//	         lost   id of a file that was to be kept, and is not
const (
	packetKeep  = 'k'
	packetDrop  = 'd'
	packetFiles = 'f'
	packetEnd   = 'e'
	packetLost  = 'l'
)

const (
	// labelMax is how long a label may be: enough for a number and a name.
	labelMax = 300
	// filesPerPacket is below what the kernel sends at once, SCM_MAX_FD.
	filesPerPacket = 128
	// entryHeader is what there is of a file in packetFiles beside the label.
	entryHeader = 8 + 2
	// packetMax is the longest packet, of files with the longest labels.
	packetMax = 1 + filesPerPacket*(entryHeader+labelMax)
)

// mirrorSocket is one end. One goroutine may wait to receive and one for room
// at the same time.
type mirrorSocket struct {
	fd   int
	file *os.File
	raw  syscall.RawConn
}

// mirrorPair makes a socket, and returns the other end as it goes to a worker.
func mirrorPair() (ours *mirrorSocket, theirs int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	if ours, err = adoptMirrorSocket(pair[0]); err != nil {
		_ = unix.Close(pair[1])
		return nil, -1, err
	}
	return ours, pair[1], nil
}

// adoptMirrorSocket makes an end of a descriptor, which belongs to it from here
// on, also if that fails.
func adoptMirrorSocket(fd int) (*mirrorSocket, error) {
	// os.NewFile waits with the runtime's poller only for such.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("mirror socket: %w", err)
	}
	s := &mirrorSocket{fd: fd, file: os.NewFile(uintptr(fd), "mirror files")}
	raw, err := s.file.SyscallConn()
	if err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("mirror socket: %w", err)
	}
	s.raw = raw
	return s, nil
}

// trySend sends a packet, unless there is no room: see noRoom.
func (s *mirrorSocket) trySend(packet []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	for {
		err := unix.Sendmsg(s.fd, packet, rights, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// noRoom reports whether an error of trySend passes: the socket is full, or as
// many descriptors are in sockets as a user without privilege may have there.
func noRoom(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ETOOMANYREFS) ||
		errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// retryRoom is how often the kinds of room are looked for that nothing tells of.
const retryRoom = 5 * time.Millisecond

// sendWhenRoom calls try, which calls trySend, until that does not fail for
// want of room. The error is try's, or that the socket was closed or has a
// deadline.
func (s *mirrorSocket) sendWhenRoom(try func() error) error {
	for {
		var err error
		waited := s.raw.Write(func(uintptr) bool {
			err = try()
			return !errors.Is(err, unix.EAGAIN)
		})
		if waited != nil {
			return waited
		}
		if !noRoom(err) {
			return err
		}
		time.Sleep(retryRoom)
	}
}

// packet is what was received.
type packet struct {
	kind byte
	body []byte // in the buffer
	fds  []int  // as many as this process has room for
}

// receive waits for a packet with at most so many descriptors; io.EOF says that
// there will be none. Other errors are that the socket was closed or has a
// deadline.
func (s *mirrorSocket) receive(buffer []byte, most int) (p packet, err error) {
	waited := s.raw.Read(func(uintptr) bool {
		p, err = s.tryReceive(buffer, most)
		return !errors.Is(err, unix.EAGAIN)
	})
	if waited != nil {
		return p, waited
	}
	return p, err
}

// tryReceive is receive for what is there, else EAGAIN.
func (s *mirrorSocket) tryReceive(buffer []byte, most int) (p packet, err error) {
	// Not CmsgSpace: in its padding there may be room for one more.
	oob := make([]byte, unix.CmsgLen(4*most))
	for {
		n, oobn, _, _, err := unix.Recvmsg(s.fd, buffer, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECONNRESET):
			// The other end was closed with something unread in it. That is
			// said once, before what it had sent.
			continue
		case err != nil:
			return p, err
		case n == 0:
			return p, io.EOF // nobody sends an empty packet
		}
		p.kind, p.body = buffer[0], buffer[1:n]
		messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range messages {
			if fds, err := unix.ParseUnixRights(&m); err == nil {
				p.fds = append(p.fds, fds...)
			}
		}
		return p, nil
	}
}

// interrupt ends all waiting, now and later.
func (s *mirrorSocket) interrupt() { _ = s.file.SetDeadline(time.Unix(1, 0)) }

// allow undoes interrupt.
func (s *mirrorSocket) allow() { _ = s.file.SetDeadline(time.Time{}) }

func (s *mirrorSocket) close() { _ = s.file.Close() }

// mirrorFile is an open file of the mirror.
type mirrorFile struct {
	// ID is the worker's that opened it. Label is what workers want to know of
	// it. Both mean nothing to the keeper.
	ID    uint64
	Label []byte
	FD    int
}

// numberPacket makes a packet of a number, and perhaps a label.
func numberPacket(kind byte, n uint64, label []byte) []byte {
	b := make([]byte, 0, 1+8+len(label))
	return append(binary.NativeEndian.AppendUint64(append(b, kind), n), label...)
}

// number splits the body of such a packet.
func (p *packet) number() (n uint64, label []byte, ok bool) {
	if len(p.body) < 8 {
		return 0, nil, false
	}
	return binary.NativeEndian.Uint64(p.body), p.body[8:], true
}

// appendEntry adds a file to a packet of files.
func appendEntry(b []byte, f mirrorFile) []byte {
	b = binary.NativeEndian.AppendUint64(b, f.ID)
	b = binary.NativeEndian.AppendUint16(b, uint16(len(f.Label)))
	return append(b, f.Label...)
}

// files returns the files of such a packet: those without a descriptor, which
// there was no room for, have -1.
func (p *packet) files() (files []mirrorFile, err error) {
	for b := p.body; len(b) > 0; {
		if len(b) < entryHeader {
			return files, errPacket
		}
		f := mirrorFile{ID: binary.NativeEndian.Uint64(b), FD: -1}
		length := int(binary.NativeEndian.Uint16(b[8:]))
		if b = b[entryHeader:]; len(b) < length {
			return files, errPacket
		}
		f.Label, b = append([]byte(nil), b[:length]...), b[length:]
		if i := len(files); i < len(p.fds) {
			f.FD = p.fds[i]
		}
		files = append(files, f)
	}
	return files, nil
}

// errPacket: nobody sends such.
var errPacket = errors.New("a packet that is not understood")

// mirrorRoom is how many files of the mirror a process may have, by the limit of
// its descriptors: the rest is for all else that it does.
func mirrorRoom() int {
	_, open := mirror.Limits()
	return open
}
