package lockspace

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
)

// What a step costs, alone and among many: neither other locks nor those who
// wait for them may matter, and a hand-over must not depend on how many wait.

// silence is an Observer that listens to nothing but grants.
type silence struct{ granted []Hold }

func (s *silence) Granted(_ Wait, h Hold) { s.granted = append(s.granted, h) }
func (*silence) Refused(Wait, error)      {}
func (*silence) Ended(Hold, Reason)       {}

// idle is the processes of a benchmark: alive, POSIX, and free to ask.
type idle struct{}

func (idle) Alive(uint32) bool              { return true }
func (idle) WaitClass(uint32) (Class, bool) { return ClassPOSIX, true }

func benchTable() (*Table, *silence) {
	s := new(silence)
	return New(Environment{
		Clock:     &clock{Instant{Wall: 1, Boot: time.Hour}},
		Tokens:    new(Counter),
		Processes: idle{},
		Observer:  s,
		Journal:   Discard{},
	}), s
}

var benchIdioms = []struct {
	name string
	via  Via
	r    Range
}{
	{"flock", ViaFlock, Whole},
	{"fcntl", ViaFcntl, Range{0, 0}},
	{"excl", ViaExcl, Whole},
}

// benchRequest is an exclusive request by the who-th process, through a handle
// of its own.
func benchRequest(who uint64, key Key, via Via, r Range) Request {
	p := Process{Pid: uint32(who), UID: 1000, GID: 1000, Started: 1}
	req := Request{
		Key: key, Via: via, Mode: Exclusive, Range: r, Thread: p.Pid,
		Party: Party{Handle: who, File: 1, Taker: p, Opener: p},
	}
	if via == ViaFcntl {
		req.Party.Owner = who
	}
	return req
}

func mustTry(b *testing.B, t *Table, r Request) {
	if err := t.Try(r); err != nil {
		b.Fatal(err)
	}
}

func mustWait(b *testing.B, t *Table, r Request, id WaitID) {
	if granted, err := t.Acquire(r, id); granted || err != nil {
		b.Fatal(granted, err)
	}
}

// takeAndRelease is one uncontended pair, in a table with whatever else is in
// it.
func takeAndRelease(b *testing.B, t *Table) {
	for _, idiom := range benchIdioms {
		b.Run(idiom.name, func(b *testing.B) {
			r := benchRequest(1, Key{1, "mine"}, idiom.via, idiom.r)
			b.ReportAllocs()
			for b.Loop() {
				mustTry(b, t, r)
				if idiom.via == ViaExcl {
					t.EndHandle(r.Key, r.Party.Handle, Released)
				} else {
					t.Unlock(r.Key, r.Party, r.Via, r.Range)
				}
			}
		})
	}
}

func BenchmarkAlone(b *testing.B) {
	t, _ := benchTable()
	takeAndRelease(b, t)
}

func BenchmarkAmongWaitersElsewhere(b *testing.B) {
	for _, waiters := range []int{1, 1000} {
		b.Run(strconv.Itoa(waiters), func(b *testing.B) {
			t, _ := benchTable()
			for i := range 10 {
				mustTry(b, t, benchRequest(uint64(i+2), Key{1, "other" + strconv.Itoa(i)}, ViaFcntl, Whole))
			}
			for i := range waiters {
				key := Key{1, "other" + strconv.Itoa(i%10)}
				mustWait(b, t, benchRequest(uint64(i+100), key, ViaFcntl, Whole), WaitID(i+1))
			}
			takeAndRelease(b, t)
		})
	}
}

// The other locks are in one directory: its listing is as long as there are
// locks.
func BenchmarkAmongLocks(b *testing.B) {
	const locks = 1_000_000
	t, _ := benchTable()
	names := make([]string, locks)
	for i := range names {
		names[i] = "lock" + strconv.Itoa(i)
	}
	before := heapBytes()
	for i, name := range names {
		mustTry(b, t, benchRequest(uint64(i+2), Key{1, name}, ViaFlock, Whole))
	}
	bytes := heapBytes() - before
	b.Run("size", func(b *testing.B) {
		for b.Loop() {
		}
		b.ReportMetric(float64(bytes)/locks, "B/lock")
		b.ReportMetric(0, "ns/op")
	})
	takeAndRelease(b, t)
	b.Run("flock/anywhere", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			n := i * 7919 % locks
			r := benchRequest(uint64(n+2), Key{1, names[n]}, ViaFlock, Whole)
			t.Unlock(r.Key, r.Party, r.Via, r.Range)
			mustTry(b, t, r)
		}
	})
	runtime.KeepAlive(names)
}

func heapBytes() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkHandOver: the holder lets go, the first in the queue has the lock,
// and the former holder queues again.
func BenchmarkHandOver(b *testing.B) {
	idioms := []struct {
		name string
		via  Via
		r    Range
		more bool // every process holds something else, so that it might pass
	}{
		{"flock", ViaFlock, Whole, false},
		{"fcntl/whole", ViaFcntl, Whole, false},
		{"fcntl/byte", ViaFcntl, Range{0, 0}, false},
		{"fcntl/whole/holders", ViaFcntl, Whole, true},
	}
	for _, idiom := range idioms {
		for _, waiters := range []int{1, 30, 1000} {
			b.Run(fmt.Sprintf("%s/%d", idiom.name, waiters), func(b *testing.B) {
				t, observer := benchTable()
				key := Key{1, "mine"}
				for i := range uint64(waiters + 1) {
					if idiom.more {
						mustTry(b, t, benchRequest(i+1, Key{2, strconv.Itoa(int(i))}, idiom.via, idiom.r))
					}
					r := benchRequest(i+1, key, idiom.via, idiom.r)
					if i == 0 {
						mustTry(b, t, r)
					} else {
						mustWait(b, t, r, WaitID(i))
					}
				}
				id := WaitID(waiters + 1)
				r := benchRequest(1, key, idiom.via, idiom.r)
				b.ReportAllocs()
				for b.Loop() {
					observer.granted = observer.granted[:0]
					t.Unlock(key, r.Party, r.Via, r.Range)
					if len(observer.granted) != 1 {
						b.Fatal("granted", observer.granted)
					}
					mustWait(b, t, r, id)
					id++
					r = observer.granted[0].Request
				}
			})
		}
	}
}

// BenchmarkSharedBatch: a writer lets go and a queue of readers enters.
func BenchmarkSharedBatch(b *testing.B) {
	const readers = 1000
	t, observer := benchTable()
	key := Key{1, "mine"}
	writer := benchRequest(1, key, ViaFlock, Whole)
	id := WaitID(0)
	for b.Loop() {
		mustTry(b, t, writer)
		for i := range uint64(readers) {
			r := benchRequest(i+2, key, ViaFlock, Whole)
			r.Mode = Shared
			id++
			mustWait(b, t, r, id)
		}
		observer.granted = observer.granted[:0]
		t.EndHandle(key, writer.Party.Handle, Released)
		if len(observer.granted) != readers {
			b.Fatal("granted", len(observer.granted))
		}
		for i := range uint64(readers) {
			t.EndHandle(key, i+2, Released)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/readers, "ns/reader")
}

// BenchmarkBesideSnapshot: uncontended pairs in a table of a million locks, while
// a snapshot of it is gathered, by 256 after every 25 pairs; and as many with
// none, in turns. beside/without is the price of a pair; us/step and the like is
// what one step takes that gathers.
func BenchmarkBesideSnapshot(b *testing.B) {
	const locks = 1_000_000
	t, _ := benchTable()
	names := make([]string, locks)
	for i := range names {
		names[i] = "lock" + strconv.Itoa(i)
		mustTry(b, t, benchRequest(uint64(i+2), Key{uint64(1 + i%100), names[i]}, ViaFlock, Whole))
	}
	runtime.GC()
	n := 0
	pairs := func() (took time.Duration) {
		began := time.Now()
		for range 25 {
			n++
			at := n * 7919 % locks
			r := benchRequest(uint64(at+2), Key{uint64(1 + at%100), names[at]}, ViaFlock, Whole)
			t.Unlock(r.Key, r.Party, r.Via, r.Range)
			mustTry(b, t, r)
		}
		return time.Since(began)
	}
	var beside, without time.Duration
	var steps []time.Duration
	rounds := 0
	for b.Loop() {
		s := t.Snapshot()
		for complete := false; !complete; rounds++ {
			beside += pairs()
			began := time.Now()
			complete = s.Gather(256)
			steps = append(steps, time.Since(began))
		}
		if holds, _ := s.Len(); holds != locks {
			b.Fatal(holds, "holds")
		}
		s.Drop()
		for range rounds {
			without += pairs()
		}
		rounds = 0
	}
	slices.Sort(steps)
	b.ReportMetric(float64(beside)/float64(without), "beside/without")
	for name, p := range map[string]float64{"p50": 0.5, "p99.9": 0.999} {
		b.ReportMetric(float64(steps[int(p*float64(len(steps)))].Nanoseconds())/1000, name+"-us/step")
	}
	runtime.KeepAlive(names)
}
