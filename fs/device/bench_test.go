package device_test

import (
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// The benchmarks measure what a request costs the daemon itself, without the
// kernel: from a request as it is read to the answer handed to write(2), which
// goes to /dev/null.

const (
	opLookup  = 1
	opForget  = 2
	opRelease = 18
	opFlush   = 25
	opInit    = 26
	opSetlk   = 32
	opSetlkw  = 33
	opCreate  = 35
)

// served hands requests to a connection, in a slot.
type served struct {
	conn *device.Conn
	slot device.Slot
}

func (s served) Dispatch(request []byte) {
	copy(s.slot.Prepare(), request)
	s.conn.Dispatch(s.slot)
}

func newServed(b *testing.B) served {
	null, err := os.OpenFile("/dev/null", os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = null.Close() })
	log := slog.New(slog.DiscardHandler)
	ledger := device.Volatile()
	c := device.New(int(null.Fd()), ledger, log)
	filesystem, err := fs.New(fs.Options{
		Device:    c,
		Processes: fs.Proc{},
		Clock:     new(fs.SystemClock),
		Tokens:    new(lockspace.Counter),
		Journal:   fs.Discard{},
		Log:       log,
	})
	if err != nil {
		b.Fatal(err)
	}
	c.Attach(filesystem)
	conn := served{c, ledger.Slot()}
	conn.Dispatch(newRequest(opInit, 0, u32(7), u32(41), u32(0), u32(1<<10|1<<1), zeros(48)))
	return conn
}

func BenchmarkFlock(b *testing.B) {
	conn := newServed(b)
	conn.Dispatch(create("a", 0))
	lock := setlk(opSetlkw, 2, 1, unix.F_WRLCK)
	unlock := setlk(opSetlk, 2, 1, unix.F_UNLCK)
	b.ReportAllocs()
	for b.Loop() {
		conn.Dispatch(lock)
		conn.Dispatch(unlock)
	}
}

func BenchmarkExcl(b *testing.B) {
	conn := newServed(b)
	b.ReportAllocs()
	id := uint64(1)
	for b.Loop() {
		conn.Dispatch(newRequest(opLookup, 1, cstring("a")))
		conn.Dispatch(newRequest(opLookup, 1, cstring("a")))
		conn.Dispatch(create("a", unix.O_EXCL))
		conn.Dispatch(newRequest(opFlush, id+1, u64(id), zeros(8), u64(0)))
		conn.Dispatch(newRequest(opRelease, id+1, u64(id), zeros(16)))
		conn.Dispatch(newRequest(opForget, id+1, u64(1)))
		id++
	}
}
