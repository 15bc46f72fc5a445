package state

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// create makes a memory file that lives as long as the test.
func create(t testing.TB) int {
	t.Helper()
	fd, err := Create(4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func open(t testing.TB, fd int) *Memory {
	t.Helper()
	m, err := Open(fd, nil)
	if err == nil {
		err = m.Ready()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// contents is what a memory holds, by kind and number.
type contents map[string]string

func read(m *Memory) contents {
	c := contents{}
	for r := range m.Records() {
		c[fmt.Sprintf("%d/%d", r.Kind, r.ID)] = string(r.Data)
	}
	return c
}

func TestRecords(t *testing.T) {
	fd := create(t)
	m := open(t, fd)
	long := bytes.Repeat([]byte("x"), MaxRecord)
	tx := m.Tx()
	tx.Put(1, 7, []byte("seven"))
	tx.Put(2, 7, long)
	tx.Put(1, 8, nil)
	tx.Commit()
	tx.Put(1, 7, bytes.Repeat([]byte("y"), 500)) // of another class
	tx.Put(2, 7, []byte("short"))
	tx.Drop(1, 8)
	tx.Drop(1, 4711)
	tx.Commit()
	want := contents{"1/7": string(bytes.Repeat([]byte("y"), 500)), "2/7": "short"}
	if got := read(m); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := read(open(t, fd)); !maps.Equal(got, want) {
		t.Errorf("taken over: got %v, want %v", got, want)
	}
}

func TestFreedRoomIsUsedAgain(t *testing.T) {
	m := open(t, create(t))
	for i := range uint64(100_000) {
		m.Tx().Put(1, i, make([]byte, 40))
		if i >= 10 {
			m.Tx().Drop(1, i-10)
		}
		m.Tx().Commit()
	}
	if n, bytes := m.Len(); n != 10 || bytes != extentSize {
		t.Errorf("%d records in %d bytes", n, bytes)
	}
}

// stopped is what a hook panics with to stop a process where it could die.
type stopped struct{}

// until runs f until the n-th step and reports whether it came to its end.
func until(m *Memory, n int, f func()) (done bool) {
	defer func() {
		m.step = nil
		if r := recover(); r != nil {
			if _, ok := r.(stopped); !ok {
				panic(r)
			}
		}
	}()
	m.step = func(string) {
		if n--; n < 0 {
			panic(stopped{})
		}
	}
	f()
	return true
}

// Every transaction is whole or not at all, wherever its process dies, and
// wherever the next one dies while it takes over.
func TestDeathAtEveryStep(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	fd := create(t)
	before := contents{}
	for round := range 60 {
		// One transaction, as changes to make and as what is there after it.
		type change struct {
			kind Kind
			id   uint64
			data []byte // nil: drop
		}
		var changes []change
		after := maps.Clone(before)
		for range 1 + rng.IntN(6) {
			c := change{kind: Kind(1 + rng.IntN(2)), id: rng.Uint64N(20)}
			name := fmt.Sprintf("%d/%d", c.kind, c.id)
			if rng.IntN(3) > 0 {
				c.data = bytes.Repeat([]byte{byte('a' + rng.IntN(26))}, 1+rng.IntN(600))
				after[name] = string(c.data)
			} else {
				delete(after, name)
			}
			changes = append(changes, c)
		}
		answer := fmt.Sprintf("answer %d", round)
		committed := false
		for n := 0; !committed; n++ {
			m := open(t, fd)
			if got := read(m); !maps.Equal(got, before) {
				t.Fatalf("round %d, before step %d: got %v, want %v", round, n, got, before)
			}
			s := m.Slots()[0]
			copy(s.Prepare(), "\x28\x00\x00\x00request")
			until(m, n, func() {
				for _, c := range changes {
					if c.data == nil {
						m.Tx().Drop(c.kind, c.id)
					} else {
						m.Tx().Put(c.kind, c.id, c.data)
					}
				}
				m.Tx().Decide(s)
				m.Tx().Answer([]byte(answer))
				m.Tx().Commit()
			})
			_ = m.Close()
			// The successor may die as well, at any step.
			for k := range 3 {
				dying := &Memory{fd: fd, mem: mapped(t, fd)}
				dying.tx.m = dying
				until(dying, k, func() { _ = dying.recover() })
				_ = unix.Munmap(dying.mem)
			}
			m = open(t, fd)
			got := read(m)
			committed = m.at(offCommitted).Load() == m.at(offBegun).Load() && maps.Equal(got, after) && len(m.Pending()) == 0
			if !committed {
				if !maps.Equal(got, before) {
					t.Fatalf("round %d, died at step %d: got %v, want before %v or after %v", round, n, got, before, after)
				}
				if p := m.Pending(); len(p) != 1 || p[0].number != 0 {
					t.Fatalf("round %d, died at step %d: the request is lost: %v", round, n, p)
				}
				for _, b := range m.Undelivered() {
					if string(b) == answer {
						t.Fatalf("round %d, died at step %d: an answer of what did not happen", round, n)
					}
				}
			} else if u := m.Undelivered(); len(u) != 1 || string(u[0]) != answer {
				t.Fatalf("round %d, died at step %d: undelivered %q, want %q", round, n, u, answer)
			}
			m.Slots()[0].Done()
			_ = m.Close()
		}
		before = after
	}
}

func mapped(t *testing.T, fd int) []byte {
	t.Helper()
	mem, err := unix.Mmap(fd, 0, MaxSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

func TestPendingRequestsKeepTheirOrder(t *testing.T) {
	fd := create(t)
	m := open(t, fd)
	for _, i := range []int{2, 0, 3} {
		copy(m.Slots()[i].Prepare(), []byte{40, 0, 0, 0, byte(i)})
	}
	m.Slots()[1].Prepare() // nothing came
	m.Tx().Decide(m.Slots()[0])
	m.Tx().Commit()
	var got []byte
	for _, s := range open(t, fd).Pending() {
		got = append(got, s.Request()[4])
	}
	if !slices.Equal(got, []byte{2, 3}) {
		t.Errorf("pending %v, want 2 and 3", got)
	}
}

func TestForeignFilesAreRefused(t *testing.T) {
	fd := create(t)
	m := open(t, fd)
	m.Tx().Put(1, 1, []byte("x"))
	m.Tx().Commit()
	for _, c := range []struct {
		what string
		at   uint64
		b    []byte
		want error
	}{
		{"no magic", 0, []byte("LOCKFS"), ErrFormat},
		{"another version", offVersion, []byte{Version + 1}, ErrVersion},
		{"no slots", offSlots, []byte{0, 0, 0, 0}, ErrFormat},
		{"too many slots", offSlots, []byte{255, 255, 255, 0}, ErrFormat},
		{"committed what was not begun", offCommitted, []byte{9}, ErrFormat},
		{"extent of no class", extentTable, []byte{200}, ErrFormat},
		{"hole among the extents", extentTable + 9, []byte{1}, ErrFormat},
		{"record longer than its place", extentArea + 2, []byte{255, 255}, ErrFormat},
		{"request longer than a slot", slotArea + slotHeader, []byte{0, 0, 1, 0}, ErrFormat},
		{"transaction entry out of bounds", redoEntries, []byte{0, 0, 0, 0, 0, 1}, ErrFormat},
		{"transaction of unknown kind", redoEntries + 12, []byte{99}, ErrFormat},
		{"transaction longer than the area", redoArea + 8, []byte{255, 255, 255, 255, 255}, ErrFormat},
	} {
		begun := m.at(offBegun).Load()
		if c.at >= extentArea {
			m.at(offBegun).Store(begun + 1) // or the last transaction would mend it
		}
		old := bytes.Clone(m.mem[c.at : c.at+uint64(len(c.b))])
		copy(m.mem[c.at:], c.b)
		if _, err := Open(fd, nil); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		copy(m.mem[c.at:], old)
		m.at(offBegun).Store(begun)
		if got := read(open(t, fd)); !maps.Equal(got, contents{"1/1": "x"}) {
			t.Fatalf("%s, mended: %v", c.what, got)
		}
	}
}

func TestARecordThatIsThereTwiceIsRefused(t *testing.T) {
	fd := create(t)
	m := open(t, fd)
	m.Tx().Put(1, 1, []byte("x"))
	m.Tx().Put(1, 2, []byte("x"))
	m.Tx().Commit()
	m.at(offBegun).Add(1) // or the transaction would mend it
	native.PutUint64(m.mem[extentArea+uint64(classes[0])+8:], 1)
	twice, err := Open(fd, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer twice.Close()
	if err := twice.Ready(); !errors.Is(err, ErrFormat) {
		t.Errorf("%v, want %v", err, ErrFormat)
	}
}

// Whatever the bytes are, Open returns, with an error or with records.
func FuzzOpen(f *testing.F) {
	f.Add(uint32(extentArea>>6), []byte{1, 0, 255, 255}, false)
	f.Add(uint32(redoArea>>6), []byte("\x01\x00\x00\x00\x00\x00\x00\x00\x18"), true)
	fd := create(f)
	m := open(f, fd)
	m.Tx().Put(1, 1, []byte("one"))
	m.Tx().Put(2, 2, make([]byte, 300))
	m.Tx().Answer([]byte("answer"))
	m.Tx().Commit()
	pristine := map[uint64][]byte{}
	for _, at := range []uint64{0, extentTable, slotArea, slotArea + slotHeader, redoArea, extentArea, extentArea + extentSize} {
		pristine[at] = bytes.Clone(m.mem[at : at+4096])
	}
	f.Fuzz(func(t *testing.T, where uint32, b []byte, redone bool) {
		for at, page := range pristine {
			copy(m.mem[at:], page)
		}
		areas := slices.Sorted(maps.Keys(pristine))
		at := areas[int(where>>16)%len(areas)] + uint64(where)%2048
		copy(m.mem[at:at+uint64(min(len(b), 2048))], b)
		if !redone {
			m.at(offBegun).Store(1 << 40)
		}
		got, err := Open(fd, nil)
		if err != nil {
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		for range got.Records() {
		}
		got.Pending()
		if err := got.Ready(); err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("an error of another kind: %v", err)
		}
		_ = got.Close()
	})
}

// What a transaction like that of one lock call costs.
func BenchmarkTransaction(b *testing.B) {
	m := open(b, create(b))
	data := make([]byte, 160)
	answer := make([]byte, 16)
	s := m.Slots()[0]
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		s.Prepare()
		m.Tx().Put(1, i, data)
		m.Tx().Drop(1, i-1)
		m.Tx().Decide(s)
		m.Tx().Answer(answer)
		m.Tx().Commit()
	}
}
