package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/state"
)

// fill makes a memory with so many locks held by O_EXCL. order is the order in
// which they were taken, of all that there is room for.
func fill(t testing.TB, order []int, held int) (fd int) {
	t.Helper()
	fd, err := state.Create(slots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	m, err := state.Open(fd, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	r := fs.NewRecords(m.Tx(), new(fs.Saved))
	r.PutFile(&fs.FileRecord{Ino: 1, Kind: 1, Mode: 0o777})
	r.PutNode(&fs.NodeRecord{ID: 1, File: 1})
	m.Tx().Commit()
	opener := lockspace.Process{Pid: 4711, Started: time.Hour}
	put := func(i int) {
		id := uint64(i) + 2
		n := fs.NodeRecord{ID: id, Parent: 1, Name: fmt.Sprintf("hoarded%d.%d", i%40, i/40), Lookups: 1}
		r.PutNode(&n)
		r.PutHandle(&fs.HandleRecord{ID: id, Node: id, Opener: opener})
		r.PutHold(&lockspace.Hold{ID: lockspace.HoldID(id), Token: id, Listed: id, Request: lockspace.Request{
			Party: lockspace.Party{Handle: id, File: id, Taker: opener, Opener: opener},
			Mode:  lockspace.Exclusive, Range: lockspace.Whole,
		}})
		m.Tx().Commit()
	}
	drop := func(i int) {
		id := uint64(i) + 2
		r.DropNode(id)
		r.DropHandle(id)
		r.DropHold(lockspace.HoldID(id))
		m.Tx().Commit()
	}
	for i := range order {
		put(i)
	}
	for _, i := range order {
		drop(i)
	}
	for i := range held {
		put(i)
	}
	return fd
}

func takeOverFrom(t testing.TB, fd int) *state.Memory {
	t.Helper()
	m, err := state.Open(fd, nil)
	if err != nil {
		t.Fatal(err)
	}
	found, err := readMemory(m)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fs.Restore(fs.Options{
		Processes: fs.Proc{}, Clock: new(fs.SystemClock), Tokens: new(lockspace.Counter),
		Journal: fs.Discard{}, Log: slog.New(slog.DiscardHandler),
	}, &found.saved)
	if err == nil {
		err = m.Ready()
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// What a worker does from its start to its first answer. "Shuffled" is after
// the room for records has been used before, in another order.
func BenchmarkTakeOver(b *testing.B) {
	for _, room := range []int{1000, 100_000} {
		var order []int
		for i := range room {
			order = append(order, i)
		}
		for _, c := range []struct {
			name  string
			order []int
			held  int
		}{
			{"held", nil, room},
			{"shuffled", rand.New(rand.NewPCG(1, 2)).Perm(room), room},
			{"given back", order, 0},
		} {
			b.Run(fmt.Sprintf("%d/%s", room, c.name), func(b *testing.B) {
				fd := fill(b, c.order, c.held)
				defer debug.SetGCPercent(debug.SetGCPercent(-1))
				var processor time.Duration
				for b.Loop() {
					b.StopTimer()
					debug.FreeOSMemory() // the next process has to ask for it
					b.StartTimer()
					before := processorTime()
					m := takeOverFrom(b, fd)
					processor += processorTime() - before
					b.StopTimer()
					_ = m.Close()
					b.StartTimer()
				}
				b.ReportMetric(float64(processor.Milliseconds())/float64(b.N), "cpu-ms/op")
				b.ReportAllocs()
			})
		}
	}
}
