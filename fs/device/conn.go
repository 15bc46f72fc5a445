package device

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Parked is the status of a request that is answered later, by [Conn.Answer],
// or carried out again, by [Conn.Detour]. It is no errno.
const Parked = fuse.Status(1 << 20)

// Root is the number of the root node in the requests that the filesystem
// sees.
const Root = uint64(1) << 63

// MaxWrite is the most that one WRITE carries, in bytes. Every other request
// fits a page, so that this is what bounds the read buffer.
const MaxWrite = 4096

// MaxBackground is how many releases the kernel may have on the way. Further
// ones are overtaken by what came later, so it is the highest number there is.
// For mounts by ordinary users the kernel lowers it to the fuse module's
// parameter max_user_bgreq.
const MaxBackground = 65535

// Filesystem is what a [Conn] serves. All methods are called in a step.
type Filesystem interface {
	fuse.RawFileSystem
	// Interrupt ends the wait of a parked request, if it is one.
	Interrupt(unique uint64)
	// Poll returns which of events (poll(2)) are ready on an open file.
	Poll(handle uint64, events uint32) uint32
	// Recall is called before a request is carried out again with what its
	// detour found, and with nil after.
	Recall(found any)
	// Commit ends the step: what it did must outlive the process before any
	// answer is written.
	Commit()
}

// Conn is a connection to the kernel.
type Conn struct {
	fd  int
	log *slog.Logger

	fs     Filesystem
	server *fuse.ProtocolServer
	out    []byte // the reader's answers

	// mu makes steps of what happens; it guards everything below and the
	// filesystem's whole state. It is never held over a system call of this
	// package.
	mu      sync.Mutex
	answers []answer
	// detour is what the request of this step has to find out, if anything.
	detour *detour
	// detours are the requests that are on a detour, by unique.
	detours map[uint64]*detour
}

// answer is a reply without a body.
type answer struct {
	unique uint64
	errno  syscall.Errno
}

type detour struct {
	unique      uint64
	look        func() any
	found       any // what look returned
	request     []byte
	interrupted bool
}

// New returns a connection on a file descriptor of /dev/fuse that has been
// mounted.
func New(fd int, log *slog.Logger) *Conn {
	return &Conn{
		fd:      fd,
		log:     log,
		out:     make([]byte, answerBuffer),
		detours: make(map[uint64]*detour),
	}
}

// Do makes f a step.
func (c *Conn) Do(f func()) {
	c.mu.Lock()
	f()
	answers := c.end()
	c.mu.Unlock()
	c.send(answers)
}

// end commits a step and returns the answers it decided.
func (c *Conn) end() []answer {
	c.fs.Commit()
	answers := c.answers
	c.answers = nil
	return answers
}

// Answer answers a parked request when the step ends. Only within a step.
func (c *Conn) Answer(unique uint64, errno syscall.Errno) {
	c.answers = append(c.answers, answer{unique, errno})
}

// Detour has look called outside of any step, and the request of the present
// step carried out again with what it returned. The request's method returns
// [Parked] and must not have changed anything.
func (c *Conn) Detour(unique uint64, look func() any) {
	c.detour = &detour{unique: unique, look: look}
}

// Attach gives the connection the filesystem it serves. It is called once,
// before anything else.
func (c *Conn) Attach(fs Filesystem) {
	c.fs = fs
	c.server = fuse.NewProtocolServer(fs, &fuse.MountOptions{
		Name:               "lockfs",
		MaxWrite:           MaxWrite,
		MaxBackground:      MaxBackground,
		EnableLocks:        true,
		DisableXAttrs:      true,
		DisableReadDirPlus: true,
		ExtraCapabilities:  fuse.CAP_ATOMIC_O_TRUNC,
		// An OPEN that is never sent has no handle to own anything.
		DisabledCapabilities: fuse.CAP_NO_OPEN_SUPPORT | fuse.CAP_PASSTHROUGH,
		Logger:               slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
		PanicHandler: func(p any) fuse.Status {
			// The step stopped halfway: whatever it left behind is not to be
			// trusted with anybody's locks.
			panic(p)
		},
	})
}

// Serve reads and carries out requests until the filesystem is unmounted,
// which is no error.
func (c *Conn) Serve() error {
	in := make([]byte, readBuffer)
	for {
		n, err := unix.Read(c.fd, in)
		switch {
		case err == nil && n == 0:
			return nil // the other end is closed: no device does that, a test's socket does
		case err == nil:
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			// ENOENT: the request was withdrawn while it was being read.
			continue
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ECONNABORTED):
			return nil // unmounted
		default:
			return fmt.Errorf("read /dev/fuse: %w", err)
		}
		c.Dispatch(in[:n])
	}
}

// Dispatch carries out one request as it was read. Requests are dispatched one
// after the other; in may be used again when it returns.
func (c *Conn) Dispatch(in []byte) {
	h, ok := parseHeader(in)
	if !ok {
		c.log.Error("request from the kernel is too short", "bytes", len(in))
		return
	}
	switch h.opcode {
	case opInterrupt:
		c.Do(func() { c.interrupt(interruptTarget(in)) })
	case opPoll:
		c.poll(h, in)
	default:
		rootToFilesystem(in)
		c.request(h, in, c.out, nil)
	}
}

// request carries out a request that go-fuse decodes. d is the detour that it
// comes back from, if any.
func (c *Conn) request(h header, in, out []byte, d *detour) {
	c.mu.Lock()
	if d != nil {
		delete(c.detours, d.unique)
		c.fs.Recall(d.found)
	}
	n, status := c.server.HandleRequest([][]byte{in}, [][]byte{out})
	if !status.Ok() {
		n = putErrno(out, h.unique, syscall.Errno(status))
	}
	if n > 0 && replyStatus(out) == -int32(Parked) {
		n = 0
		switch {
		case c.detour != nil:
			c.depart(in, d)
		case d != nil && d.interrupted:
			// The interrupt came while the request was away.
			c.fs.Interrupt(h.unique)
		}
	}
	if d != nil {
		c.fs.Recall(nil)
	}
	answers := c.end()
	c.mu.Unlock()
	c.send(answers)
	if n > 0 {
		c.write(out[:n])
	}
}

// depart sends the request of this step on its detour. back is the detour that
// it has just come back from, if any.
func (c *Conn) depart(in []byte, back *detour) {
	d := c.detour
	c.detour = nil
	c.detours[d.unique] = d
	if back != nil {
		d.request, d.interrupted = back.request, back.interrupted
	} else {
		d.request = append([]byte(nil), in...) // the reader uses its buffer again
	}
	go func() {
		d.found = d.look()
		h, _ := parseHeader(d.request)
		c.request(h, d.request, make([]byte, answerBuffer), d)
	}()
}

// interrupt ends the wait of a request, or has it end when it comes back from
// its detour. A request that is not known has been answered.
func (c *Conn) interrupt(unique uint64) {
	if d := c.detours[unique]; d != nil {
		d.interrupted = true
		return
	}
	c.fs.Interrupt(unique)
}

// poll answers a POLL.
func (c *Conn) poll(h header, in []byte) {
	p, ok := parsePoll(in)
	if !ok {
		c.send([]answer{{h.unique, unix.EINVAL}})
		return
	}
	var ready uint32
	c.Do(func() { ready = c.fs.Poll(p.handle, p.events) })
	var out [pollReplySize]byte
	putPoll(out[:], h.unique, ready)
	c.write(out[:])
}

// send writes answers without a body.
func (c *Conn) send(answers []answer) {
	var out [headerOutSize]byte
	for _, a := range answers {
		putErrno(out[:], a.unique, a.errno)
		c.write(out[:])
	}
}

// write hands a reply to the kernel. ENOENT says that nobody waits for it any
// more, which can happen when the connection is being aborted.
func (c *Conn) write(reply []byte) {
	for {
		_, err := unix.Write(c.fd, reply)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
			return
		case errors.Is(err, unix.EINTR):
			continue
		}
		c.log.Error("answer refused by the kernel", "err", err, "bytes", len(reply))
		return
	}
}
