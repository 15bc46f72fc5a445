package mirror

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/lockfs/lockfs/lockspace"
)

// Random holds, random foreigners: after every step the kernel's locks are exactly
// the union of what is held, a request is refused exactly if a foreigner is in
// its way, and no more calls are made than it takes. Bytes are numbered 0 to 15,
// and the last of them goes on to the end.

const bytes = 16

type model struct {
	w       *world
	name    string
	see     *os.File // through which it looks
	foreign *os.File // through which a foreigner locks
	theirs  [bytes]string
}

func bound(first, last uint64) lockspace.Range {
	if last == bytes-1 {
		last = lockspace.MaxOffset
	}
	return lockspace.Range{First: first, Last: last}
}

func drawRange(t *rapid.T) (first, last uint64) {
	first = rapid.Uint64Range(0, bytes-1).Draw(t, "first")
	last = rapid.Uint64Range(first, bytes-1).Draw(t, "last")
	return first, last
}

func drawMode(t *rapid.T) lockspace.Mode {
	return lockspace.Mode(rapid.IntRange(0, 1).Draw(t, "mode"))
}

// ours returns what the holds say of a byte.
func (m *model) ours(at uint64) string {
	got := "free"
	for _, h := range m.w.holds[key(m.name)] {
		if h.Range.First <= at && at <= h.Range.Last && got != "exclusive" {
			got = h.Mode.String()
		}
	}
	return got
}

// Take asks for something. That users of the table exclude each other is not
// the mirror's business: it is asked for what overlaps too, as by one party.
func (m *model) Take(t *rapid.T) {
	first, last := drawRange(t)
	r := whole(m.name, drawMode(t))
	r.Range = bound(first, last)
	blocked := false
	for at := first; at <= last; at++ {
		blocked = blocked || m.theirs[at] == "exclusive" || m.theirs[at] == "shared" && r.Mode == exclusive
	}
	_, err := m.w.try(r)
	if blocked != (err == lockspace.ErrForeign) || !blocked && err != nil {
		t.Fatalf("%s %d-%d: %v; a foreigner is in the way: %v", r.Mode, first, last, err, blocked)
	}
}

// Convert replaces a hold by another, in one step.
func (m *model) Convert(t *rapid.T) {
	h := m.draw(t)
	if h == nil {
		return
	}
	first, last := drawRange(t)
	r := whole(m.name, drawMode(t))
	r.Range = bound(first, last)
	m.w.do(func() {
		if _, err := m.w.grant(r); err == nil {
			m.w.drop(h)
		}
	})
}

// draw returns a hold, nil if there is none.
func (m *model) draw(t *rapid.T) *lockspace.Hold {
	holds := m.w.holds[key(m.name)]
	if len(holds) == 0 {
		return nil
	}
	return holds[rapid.IntRange(0, len(holds)-1).Draw(t, "hold")]
}

func (m *model) End(t *rapid.T) {
	if h := m.draw(t); h != nil {
		m.w.end(h)
	}
}

// EndSome ends several in one step.
func (m *model) EndSome(t *rapid.T) {
	m.w.do(func() {
		for range rapid.IntRange(1, 5).Draw(t, "holds") {
			if holds := m.w.holds[key(m.name)]; len(holds) > 0 {
				m.w.drop(holds[0])
			}
		}
	})
}

// Foreign has a foreigner lock or unlock something.
func (m *model) Foreign(t *rapid.T) {
	first, last := drawRange(t)
	typ := rapid.SampledFrom([]int16{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK}).Draw(t, "type")
	var lk unix.Flock_t
	flockOf(&lk, typ, bound(first, last))
	err := unix.FcntlFlock(m.foreign.Fd(), unix.F_OFD_SETLK, &lk)
	blocked := false
	for at := first; at <= last; at++ {
		ours := m.ours(at)
		blocked = blocked || typ != unix.F_UNLCK && ours == "exclusive" || typ == unix.F_WRLCK && ours == "shared"
	}
	if blocked != (err == unix.EAGAIN) || !blocked && err != nil {
		t.Fatalf("a foreigner locks %d-%d: %v; somebody is in the way: %v", first, last, err, blocked)
	}
	if err == nil {
		for at := first; at <= last; at++ {
			m.theirs[at] = map[int16]string{
				unix.F_RDLCK: "shared", unix.F_WRLCK: "exclusive", unix.F_UNLCK: "free"}[typ]
		}
	}
}

// Restart has the next process take over, which has the descriptors or has not.
func (m *model) Restart(t *rapid.T) {
	lose := rapid.Bool().Draw(t, "descriptors are lost")
	m.w.restart(lose, nil)
	if len(m.w.lost) != 0 {
		t.Fatalf("lost: %v", m.w.lost)
	}
}

func (m *model) Check(t *rapid.T) {
	// The foreigner's own locks are in the way of who looks: without them, for
	// a moment in which nobody else does anything.
	var lk unix.Flock_t
	flockOf(&lk, unix.F_UNLCK, lockspace.Whole)
	if err := unix.FcntlFlock(m.foreign.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
		t.Fatal(err)
	}
	for at := range uint64(bytes) {
		if got, want := byteOf(m.w.t, m.see, at), m.ours(at); got != want {
			t.Fatalf("byte %d is %s, want %s", at, got, want)
		}
	}
	if got, want := byteOf(m.w.t, m.see, lockspace.MaxOffset), m.ours(bytes-1); got != want {
		t.Fatalf("the last byte is %s, want %s", got, want)
	}
	for at, mode := range m.theirs {
		typ, ok := map[string]int16{"shared": unix.F_RDLCK, "exclusive": unix.F_WRLCK}[mode]
		if !ok {
			continue
		}
		flockOf(&lk, typ, bound(uint64(at), uint64(at)))
		if err := unix.FcntlFlock(m.foreign.Fd(), unix.F_OFD_SETLK, &lk); err != nil {
			t.Fatal(err)
		}
	}
	if s := m.w.m.Stats(); s.Open != m.w.keeper.len() {
		t.Fatalf("%+v, the keeper has %d", s, m.w.keeper.len())
	}
}

func TestModel(t *testing.T) {
	w := newWorld(t)
	w.m.Close() // it is not looked at otherwise: nothing is replaced here
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		m := &model{w: w, name: string(rune('a'+n%26)) + string(rune('a'+n/26%26))}
		defer func() {
			w.do(func() {
				for len(w.holds[key(m.name)]) > 0 {
					w.drop(w.holds[key(m.name)][0])
				}
			})
		}()
		for _, f := range []**os.File{&m.see, &m.foreign} {
			var err error
			if *f, err = os.OpenFile(w.path(m.name), os.O_RDWR|os.O_CREATE, 0o644); err != nil {
				t.Fatal(err)
			}
			defer (*f).Close()
		}
		for at := range m.theirs {
			m.theirs[at] = "free"
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": m.Take, "convert": m.Convert, "end": m.End, "endSome": m.EndSome,
			"foreign": m.Foreign, "restart": m.Restart, "": m.Check,
		})
	})
}
