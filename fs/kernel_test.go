package fs_test

import (
	"encoding/binary"
	"log/slog"

	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// kernel stands in for the kernel's end of /dev/fuse: a socket that keeps
// messages apart carries what uapi/linux/fuse.h says. It makes filesystems
// testable without a mount, and sends what a kernel would not.
type kernel struct {
	t      testing.TB
	socket int
	unique uint64
	// replies that came while another one was waited for.
	replies map[uint64]reply
	// woken are the pollers that were notified, by the kernel's number for
	// their file.
	woken  []uint64
	caller caller
	// deliver, if set, carries a request instead of the socket.
	deliver func([]byte)
}

// caller is whom requests are from.
type caller struct{ uid, gid, pid uint32 }

type reply struct {
	errno syscall.Errno
	body  []byte
}

// Opcodes.
const (
	opLookup     = 1
	opForget     = 2
	opGetattr    = 3
	opSetattr    = 4
	opReadlink   = 5
	opSymlink    = 6
	opMkdir      = 9
	opUnlink     = 10
	opRmdir      = 11
	opLink       = 13
	opOpen       = 14
	opRead       = 15
	opWrite      = 16
	opRelease    = 18
	opFsync      = 20
	opFlush      = 25
	opInit       = 26
	opOpendir    = 27
	opReaddir    = 28
	opReleasedir = 29
	opGetlk      = 31
	opSetlk      = 32
	opSetlkw     = 33
	opAccess     = 34
	opCreate     = 35
	opInterrupt  = 36
	opPoll       = 40
	opRename2    = 45
)

// served is a filesystem being served to a kernel, with what it was made of.
type served struct {
	*kernel
	fs      *fs.FS
	conn    *device.Conn
	options fs.Options
	procs   *processes
	journal *journal
}

// serve starts a filesystem with a fake kernel and ends it with the test.
func serve(t testing.TB) *served { return serveWith(t, nil) }

// serveWith is serve with other options than its own.
func serveWith(t testing.TB, change func(*fs.Options)) *served {
	t.Helper()
	s := prepareWith(t, change)
	ended := make(chan error, 1)
	go func() { ended <- s.conn.Serve() }()
	t.Cleanup(func() {
		// An empty message is no request; closing makes read fail for good.
		_ = unix.Shutdown(s.socket, unix.SHUT_RDWR)
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Error("the reader did not end")
		}
	})
	s.init()
	return s
}

// serveInBubble is serveWith for tests in which the time is testing/synctest's.
// No goroutine waits for requests, which would keep it from going on: who sends
// one carries it out.
func serveInBubble(t testing.TB, change func(*fs.Options)) *served {
	t.Helper()
	s := prepareWith(t, func(o *fs.Options) {
		o.Clock = bubbleClock{}
		if change != nil {
			change(o)
		}
	})
	s.deliver = func(m []byte) { s.conn.Dispatch(message{m}) }
	s.init()
	return s
}

// mortal is a device that a filesystem has no more when its process has died.
type mortal struct {
	fs.Device
	dead bool
}

func (m *mortal) Do(step func()) {
	m.Device.Do(func() {
		if !m.dead {
			step()
		}
	})
}

// bubbleClock is the clock of a bubble; it has been running for an hour.
type bubbleClock struct{}

var bubbleBegan = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // see testing/synctest

func (bubbleClock) Now() lockspace.Instant {
	now := time.Now()
	return lockspace.Instant{Wall: now.UnixNano(), Boot: now.Sub(bubbleBegan) + time.Hour}
}

// message is a [device.Slot] with one request.
type message struct{ b []byte }

func (m message) Prepare() []byte { return m.b }
func (m message) Request() []byte { return m.b }
func (m message) Done()           {}

// prepareWith is serveWith without anybody who carries out requests.
func prepareWith(t testing.TB, change func(*fs.Options)) *served {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	s := &served{
		kernel: &kernel{
			t: t, socket: pair[0], replies: make(map[uint64]reply),
			caller: caller{uid: 1000, gid: 1000, pid: 100},
		},
		procs:   newProcesses(),
		journal: newJournal(),
	}
	s.conn = device.New(pair[1], ledger{device.Volatile(), s.journal}, log)
	s.options = fs.Options{
		Device:    &mortal{Device: s.conn},
		Processes: s.procs,
		Ends:      s.procs,
		Clock:     new(fs.SystemClock),
		Tokens:    new(lockspace.Counter),
		Journal:   s.journal,
		Log:       log,
	}
	if change != nil {
		change(&s.options)
	}
	if s.fs, err = fs.New(s.options); err != nil {
		t.Fatal(err)
	}
	s.conn.Attach(s.fs)
	t.Cleanup(func() {
		_ = unix.Close(pair[0])
		_ = unix.Close(pair[1])
	})
	limit := unix.Timeval{Sec: 10}
	if err := unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	return s
}

// init is the first request of a connection.
func (k *kernel) init() {
	k.t.Helper()
	k.call(opInit, 0, u32(7), u32(41), u32(0), u32(1<<10|1<<1), zeros(48))
}

// send sends a request and returns its number.
func (k *kernel) send(opcode uint32, node uint64, body ...[]byte) uint64 {
	k.unique += 2
	k.sendAs(k.unique, opcode, node, body...)
	return k.unique
}

func (k *kernel) sendAs(unique uint64, opcode uint32, node uint64, body ...[]byte) {
	k.t.Helper()
	var b []byte
	for _, p := range body {
		b = append(b, p...)
	}
	c := k.caller
	m := append(join(u32(uint32(40+len(b))), u32(opcode), u64(unique), u64(node),
		u32(c.uid), u32(c.gid), u32(c.pid), u32(0)), b...)
	if k.deliver != nil {
		k.deliver(m)
	} else if _, err := unix.Write(k.socket, m); err != nil {
		k.t.Fatal("request:", err)
	}
}

// receive returns the next reply that comes, whatever it answers.
func (k *kernel) receive() (uint64, reply, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Read(k.socket, buf)
	for err == unix.EINTR {
		n, err = unix.Read(k.socket, buf)
	}
	if err != nil {
		return 0, reply{}, err
	}
	if n < 16 || int(native.Uint32(buf)) != n {
		k.t.Fatalf("malformed reply % x", buf[:n])
	}
	return native.Uint64(buf[8:]), reply{syscall.Errno(-int32(native.Uint32(buf[4:]))), buf[16:n]}, nil
}

// await returns the reply to a request.
func (k *kernel) await(unique uint64) reply {
	k.t.Helper()
	for {
		if r, ok := k.replies[unique]; ok {
			delete(k.replies, unique)
			return r
		}
		u, r, err := k.receive()
		if err != nil {
			k.t.Fatalf("no reply to request %d: %v", unique, err)
		}
		if u == 0 { // a notification; its code is where the errno is
			if r.errno != ^syscall.Errno(0) || len(r.body) != 8 {
				k.t.Fatalf("a notification that is not FUSE_NOTIFY_POLL: %v", r)
			}
			k.woken = append(k.woken, native.Uint64(r.body))
			continue
		}
		if _, twice := k.replies[u]; twice {
			k.t.Fatalf("request %d was answered twice", u)
		}
		k.replies[u] = r
	}
}

// pending reports whether a request is unanswered after everything sent so
// far was carried out.
func (k *kernel) pending(unique uint64) bool {
	k.t.Helper()
	k.call(opGetattr, 1, zeros(16))
	_, answered := k.replies[unique]
	return !answered
}

// call sends a request and returns its reply.
func (k *kernel) call(opcode uint32, node uint64, body ...[]byte) reply {
	k.t.Helper()
	return k.await(k.send(opcode, node, body...))
}

// file is an open file.
type file struct{ node, handle uint64 }

// create opens a name that is not listed, in the root.
func (k *kernel) create(name string, flags uint32) (file, syscall.Errno) {
	k.t.Helper()
	return k.createIn(1, name, flags)
}

func (k *kernel) createIn(dir uint64, name string, flags uint32) (file, syscall.Errno) {
	k.t.Helper()
	r := k.call(opCreate, dir, u32(flags|unix.O_CREAT|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring(name))
	if r.errno != 0 {
		return file{}, r.errno
	}
	return file{native.Uint64(r.body), native.Uint64(r.body[128:])}, 0
}

func (k *kernel) mustCreate(name string, flags uint32) file {
	k.t.Helper()
	return k.mustCreateIn(1, name, flags)
}

func (k *kernel) mustCreateIn(dir uint64, name string, flags uint32) file {
	k.t.Helper()
	f, errno := k.createIn(dir, name, flags)
	if errno != 0 {
		k.t.Fatalf("create %q: %v", name, errno)
	}
	return f
}

// setlk returns the body of a SETLK, SETLKW or GETLK by the caller's process.
func (k *kernel) lockBody(f file, owner uint64, kind uint32, first, last uint64, flock bool) []byte {
	var flags uint32
	if flock {
		flags = 1
	}
	pid := k.caller.pid
	if kind == unix.F_UNLCK {
		pid = 0
	}
	return join(u64(f.handle), u64(owner), u64(first), u64(last), u32(kind), u32(pid), u32(flags), u32(0))
}

const toEnd = uint64(1<<63 - 1)

// flock locks without waiting, or unlocks.
func (k *kernel) flock(f file, kind uint32) syscall.Errno {
	k.t.Helper()
	return k.call(opSetlk, f.node, k.lockBody(f, f.handle+1000, kind, 0, toEnd, true)).errno
}

// startFlock begins a lock that may wait.
func (k *kernel) startFlock(f file, kind uint32) uint64 {
	k.t.Helper()
	return k.send(opSetlkw, f.node, k.lockBody(f, f.handle+1000, kind, 0, toEnd, true))
}

func (k *kernel) release(f file) {
	k.t.Helper()
	k.call(opFlush, f.node, u64(f.handle), zeros(8), u64(0))
	k.call(opRelease, f.node, u64(f.handle), zeros(16))
}

func (k *kernel) read(f file, offset uint64, size uint32) (string, syscall.Errno) {
	k.t.Helper()
	r := k.call(opRead, f.node, u64(f.handle), u64(offset), u32(size), zeros(20))
	return string(r.body), r.errno
}

func (k *kernel) write(f file, offset uint64, data string) syscall.Errno {
	k.t.Helper()
	return k.call(opWrite, f.node, u64(f.handle), u64(offset), u32(uint32(len(data))), zeros(20), []byte(data)).errno
}

var native = binary.NativeEndian

func u32(v uint32) []byte     { return native.AppendUint32(nil, v) }
func u64(v uint64) []byte     { return native.AppendUint64(nil, v) }
func zeros(n int) []byte      { return make([]byte, n) }
func cstring(s string) []byte { return append([]byte(s), 0) }

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func (k *kernel) mustOpen(node uint64, flags uint32) file {
	k.t.Helper()
	r := k.call(opOpen, node, u32(flags), u32(0))
	if r.errno != 0 {
		k.t.Fatalf("open node %d: %v", node, r.errno)
	}
	return file{node, native.Uint64(r.body)}
}
