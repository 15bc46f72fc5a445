package device

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Parked is the status of a request that is answered later, by [Conn.Answer],
// [Conn.AnswerOpen] or [Conn.AnswerData], or carried out again, by [Conn.Detour]. It is no errno.
const Parked = fuse.Status(1 << 20)

// Root is the number of the root node in the requests that the filesystem
// sees.
const Root = uint64(1) << 63

// MaxWrite is the most that one WRITE carries, in bytes. Every other request
// but BATCH_FORGET, which the kernel makes as long as the buffer, fits a page.
const MaxWrite = 4096

// writePages is in how many pages of its caller's memory the bytes of one WRITE can
// be. The kernel cuts a write(2) where these end. Two pages have MaxWrite bytes wherever
// they begin, and four those of a writev(2) of two buffers, as musl's stdio makes them:
// so what a program writes at once, and is not longer, comes at once. What is written
// to control files depends on it.
const writePages = 4

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
	// Poll returns which of events (poll(2)) are ready on an open file. With
	// notify, somebody sleeps until another is, whom [Conn.NotifyPoll] of pollID
	// wakes, now or at any time while the file is open.
	Poll(handle, pollID uint64, events uint32, notify bool) uint32
	// Recall is called before a request is carried out again, with what its
	// detour found, nil if it did not come to its end, and the place; and with
	// neither after.
	Recall(found any, place uint64)
	// EndStep is called when a step has done what it came for, before it is
	// committed.
	EndStep()
	// Committed is called when it is, before its answers are sent. It changes
	// nothing that a ledger keeps.
	Committed()
}

// Conn is a connection to the kernel.
type Conn struct {
	fd     int
	log    *slog.Logger
	ledger Ledger

	fs     Filesystem
	server *fuse.ProtocolServer
	// hook, if set, is called where a process could die.
	hook func(step string, opcode uint32)

	// mu makes steps of what happens; it guards everything below and the
	// filesystem's whole state. A step's answers are written before it is
	// given up: a ledger remembers those of one step only. Writing an answer
	// does not wait for anybody. A step that panics does not unlock it: nobody
	// may commit what it left half done.
	mu      sync.Mutex
	answers [][]byte
	out     []byte // for answers with a body
	// detour is what the request of this step has to find out, if anything.
	detour *detour
	// detours are the requests that are on a detour, by unique; inherited those
	// that were when this process took over.
	detours   map[uint64]*detour
	inherited map[uint64]bool
	settled   func()
	traffic   traffic

	// turns are the detours whose requests come back one after the other, in the
	// order in which they left, see InTurn.
	turns map[any][]*detour

	// Few look-ups run at a time: those who come back would keep the reader
	// out, and one user's reads everybody else's locks. What the kernel locks
	// a directory for does not stand in line with the rest.
	lookups, urgent chan struct{}
	// long is the line of what takes long, see LongDetour.
	long chan struct{}
}

// atATime is how many look-ups run at a time, of each kind.
const atATime = 4

// longAtATime is how many long ones run at a time.
const longAtATime = 2

// New returns a connection on a file descriptor of /dev/fuse that has been
// mounted.
func New(fd int, ledger Ledger, log *slog.Logger) *Conn {
	return &Conn{
		fd:        fd,
		log:       log,
		ledger:    ledger,
		out:       make([]byte, answerBuffer),
		detours:   make(map[uint64]*detour),
		inherited: make(map[uint64]bool),
		turns:     make(map[any][]*detour),
		lookups:   make(chan struct{}, atATime),
		urgent:    make(chan struct{}, atATime),
		long:      make(chan struct{}, longAtATime),
	}
}

// OnStep has hook called with a name between any two things that a successor
// could find done or not done, for tests to die there; opcode is that of the
// request that the step is about, 0 if it is about none. To be called before
// Attach.
func (c *Conn) OnStep(hook func(step string, opcode uint32)) { c.hook = hook }

// crash is where a process could die.
func (c *Conn) crash(step string, opcode uint32) {
	if c.hook != nil {
		c.hook(step, opcode)
	}
}

// Attach gives the connection the filesystem it serves, before anything else.
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

// Resume takes over from a process that died: init is the connection's first
// request, nil if it was not carried out yet; undelivered are the answers of
// the last step, away the requests that were on a detour, in the order in which
// they had come; and the ledger's slot may have one that was read and not
// carried out.
//
// refuse: processes have died of these requests, one after the other. They are
// answered with EIO instead, so that work goes on.
func (c *Conn) Resume(init []byte, undelivered [][]byte, away []Traveller, pending, refuse bool) {
	c.mu.Lock()
	// The new server learns what was agreed; the kernel knows.
	if init != nil {
		c.server.HandleRequest([][]byte{init}, [][]byte{c.out})
	}
	c.crash("resumed", 0)
	for _, answer := range undelivered {
		c.write(answer)
		c.crash("repeated", 0)
	}
	c.mu.Unlock()
	for _, r := range away {
		h, ok := parseHeader(r.Request)
		if !ok {
			continue
		}
		if refuse {
			c.refuse(r.Request, nil)
			continue
		}
		c.mu.Lock()
		d := &detour{unique: h.unique, Traveller: r}
		c.detours[d.unique] = d
		c.inherited[d.unique] = true
		c.mu.Unlock()
		c.arrive(d)
	}
	switch slot := c.ledger.Slot(); {
	case pending && refuse:
		c.refuse(slot.Request(), slot)
	case pending:
		c.Dispatch(slot)
	}
}

// refuse answers a request with EIO. slot is where it is, nil if it is away.
func (c *Conn) refuse(request []byte, slot Slot) {
	h, ok := parseHeader(request)
	c.step(func() {
		if !ok {
			return
		}
		c.log.Error("request refused: every process that carried it out died", "opcode", h.opcode, "unique", h.unique)
		c.Answer(h.unique, unix.EIO)
		if slot == nil {
			c.ledger.Back(h.unique)
		}
	}, slot)
}

// Serve reads and carries out requests until the filesystem is unmounted,
// which is no error.
func (c *Conn) Serve() error {
	slot := c.ledger.Slot()
	for {
		n, err := unix.Read(c.fd, slot.Prepare())
		switch {
		case err == nil && n == 0:
			return nil // the other end is closed: no device does that, a test's socket does
		case err == nil:
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			// ENOENT: the request was withdrawn while it was being read.
			continue
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ECONNABORTED):
			slot.Done()
			return nil // unmounted
		default:
			slot.Done()
			return fmt.Errorf("read /dev/fuse: %w", err)
		}
		c.Dispatch(slot)
	}
}

// Do makes f a step.
func (c *Conn) Do(f func()) { c.step(f, nil) }

// step makes f a step, about the request in slot, if there is one.
func (c *Conn) step(f func(), slot Slot) {
	c.mu.Lock()
	f()
	c.endStep(slot, slot != nil, 0)
	c.mu.Unlock()
}

// Answer answers a parked request when the step ends. Only within a step.
func (c *Conn) Answer(unique uint64, errno syscall.Errno) {
	b := make([]byte, headerOutSize)
	putErrno(b, unique, errno)
	c.answers = append(c.answers, b)
}

// AnswerOpen answers a parked OPEN when the step ends: handle is the number of
// the open file, flags are those of its answer (FOPEN_...). Only within a step.
func (c *Conn) AnswerOpen(unique, handle uint64, flags uint32) {
	b := make([]byte, openReplySize)
	putOpen(b, unique, handle, flags)
	c.answers = append(c.answers, b)
}

// AnswerData answers a parked READ when the step ends. Only within a step.
func (c *Conn) AnswerData(unique uint64, data []byte) {
	b := make([]byte, headerOutSize, headerOutSize+len(data))
	putErrno(b, unique, 0)
	native.PutUint32(b, uint32(headerOutSize+len(data)))
	c.answers = append(c.answers, append(b, data...))
}

// NotifyPoll wakes who sleeps in poll(2) on the open file that the kernel calls
// pollID, to ask again, when the step ends. That there is no such file any more
// is no error. Only within a step.
//
// The kernel takes it under locks of its own and sends nothing before it is back:
// the reader may write it.
func (c *Conn) NotifyPoll(pollID uint64) {
	b := make([]byte, notifyPollSize)
	putNotifyPoll(b, pollID)
	c.answers = append(c.answers, b)
}

// endStep commits a step and sends its answers. slot is the one whose request
// the step was about, nil if none; opcode is the request's, 0 if none.
func (c *Conn) endStep(slot Slot, must bool, opcode uint32) {
	c.fs.EndStep()
	c.crash("decided", opcode)
	// Who is away comes back before the request in the slot is carried out again,
	// and may change what that does: an fcntl lock, and the FLUSH of a close.
	must = must || slot != nil && len(c.detours) > 0
	c.ledger.Commit(slot, c.answers, must)
	c.crash("recorded", opcode)
	c.fs.Committed()
	c.crash("given back", opcode)
	for _, b := range c.answers {
		c.write(b)
		c.crash("answered", opcode)
	}
	clear(c.answers)
	c.answers = c.answers[:0]
	if slot != nil {
		slot.Done()
		c.crash("done", opcode)
	}
}

// Dispatch carries out the request in a slot. Requests are dispatched one after
// the other, in the order in which they were read.
func (c *Conn) Dispatch(slot Slot) {
	c.mu.Lock()
	in := slot.Request()
	h, ok := parseHeader(in)
	c.crash("read", h.opcode)
	must := mustDecide(h.opcode)
	sampled, began := c.traffic.count(h.opcode)
	switch {
	case !ok:
		c.log.Error("request from the kernel is too short", "bytes", len(in))
	case h.opcode == opInterrupt:
		c.interrupt(interruptTarget(in))
	case h.opcode == opPoll:
		c.answers = append(c.answers, c.poll(h, in))
	default:
		rootToFilesystem(in)
		if !c.request(h, in) {
			c.depart(h, &detour{Traveller: Traveller{Request: append([]byte(nil), in...)}})
			must = true
		} else if h.opcode == opInit {
			c.ledger.SaveInit(in)
			putMaxPages(c.out, writePages)
		}
	}
	c.endStep(slot, must, h.opcode)
	if sampled != nil {
		sampled.measure(time.Since(began))
	}
	c.mu.Unlock()
}

// request has go-fuse decode a request and the filesystem carry it out. It
// reports whether that is done: not if it has to take a detour first.
func (c *Conn) request(h header, in []byte) (done bool) {
	c.detour = nil
	n, status := c.server.HandleRequest([][]byte{in}, [][]byte{c.out})
	if !status.Ok() {
		n = putErrno(c.out, h.unique, syscall.Errno(status))
	}
	parked := n > 0 && replyStatus(c.out) == -int32(Parked)
	switch {
	case c.detour != nil && !parked:
		panic("device: a request that takes a detour was answered")
	case parked:
		return c.detour == nil
	case n > 0:
		// Behind those of the waits that it ended, who waited longer.
		c.answers = append(c.answers, c.out[:n])
	}
	return true
}

// poll answers a POLL.
func (c *Conn) poll(h header, in []byte) []byte {
	out := make([]byte, pollReplySize)
	p, ok := parsePoll(in)
	if !ok {
		return out[:putErrno(out, h.unique, unix.EINVAL)]
	}
	putPoll(out, h.unique, c.fs.Poll(p.handle, p.pollID, p.events, p.notify))
	return out
}

// write hands a reply to the kernel. ENOENT says that nobody waits for it any
// more: it was answered by a process that died, or the connection is being
// aborted.
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
