package mirror

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// A world is a mirror with a table as simple as can be: it grants what the
// mirror covers, keeps who waits in a list, and asks for them again when it is
// told to. Its tests say what conflicts.
type world struct {
	t      testing.TB
	dir    string
	m      *Mirror
	keeper *ledger

	mu    sync.Mutex // a step
	holds map[lockspace.Key][]*lockspace.Hold
	waits []*waiter
	lost  map[lockspace.Key]error
	calls []call // that the mirror has made, of setlk
	fault func(cmd int, lk *unix.Flock_t) error
	mute  sync.Mutex // calls and fault

	midway func() // in restart, before what is missing is opened
}

// call is a lock call.
type call struct {
	typ   int16
	first int64
	len   int64
}

// waiter is a request that waits.
type waiter struct {
	r   lockspace.Request
	got chan error
}

// ledger is a keeper that keeps what it is given in the test's process.
type ledger struct {
	mu      sync.Mutex
	kept    map[uint64]keptFile
	refuse  error
	dropped []uint64
}

type keptFile struct {
	label []byte
	fd    int
}

func (l *ledger) Keep(id uint64, label []byte, fd int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuse != nil {
		return l.refuse
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if _, twice := l.kept[id]; twice {
		panic(fmt.Sprintf("id %d is used twice", id))
	}
	l.kept[id] = keptFile{slices.Clone(label), own}
	return nil
}

func (l *ledger) Drop(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.kept[id]
	if !ok {
		panic(fmt.Sprintf("id %d is dropped and was not kept", id))
	}
	unix.Close(f.fd)
	delete(l.kept, id)
	l.dropped = append(l.dropped, id)
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.kept)
}

func newWorld(t testing.TB, change ...func(*Config)) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), keeper: &ledger{kept: make(map[uint64]keptFile)}}
	t.Cleanup(func() {
		for id := range w.keeper.kept {
			unix.Close(w.keeper.kept[id].fd)
		}
	})
	w.begin(change...)
	return w
}

// begin makes a new mirror, with nothing held.
func (w *world) begin(change ...func(*Config)) {
	w.t.Helper()
	w.holds = make(map[lockspace.Key][]*lockspace.Hold)
	w.lost = make(map[lockspace.Key]error)
	w.waits = nil
	dir, err := unix.Open(w.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	c := Config{
		Backing:    NewBacking(dir),
		Keeper:     w.keeper,
		Do:         w.do,
		Reconsider: w.reconsider,
		Path:       func(k lockspace.Key) (string, error) { return k.Name, nil },
		Lost:       func(k lockspace.Key, why error) { w.lost[k] = why },
	}
	for _, f := range change {
		f(&c)
	}
	m := newMirror(c)
	m.fcntl = w.fcntl
	m.every = 100 * time.Millisecond
	w.m = m
	go m.watch()
	w.t.Cleanup(func() {
		w.mu.Lock() // nothing begins any more once the directory is closed
		defer w.mu.Unlock()
		m.Close()
		unix.Close(dir)
	})
}

// fcntl is the mirror's lock call: it is written down, and may fail.
func (w *world) fcntl(fd uintptr, cmd int, lk *unix.Flock_t) error {
	w.mute.Lock()
	if cmd == unix.F_OFD_SETLK {
		w.calls = append(w.calls, call{lk.Type, lk.Start, lk.Len})
	}
	fault := w.fault
	w.mute.Unlock()
	if fault != nil {
		if err := fault(cmd, lk); err != nil {
			return err
		}
	}
	return unix.FcntlFlock(fd, cmd, lk)
}

// fail has lock calls fail as f says, or with nil no more.
func (w *world) fail(f func(cmd int, lk *unix.Flock_t) error) {
	w.mute.Lock()
	defer w.mute.Unlock()
	w.fault = f
}

// made returns the lock calls that were made since it was asked last.
func (w *world) made() []call {
	w.mute.Lock()
	defer w.mute.Unlock()
	out := w.calls
	w.calls = nil
	return out
}

// do is a step.
func (w *world) do(step func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	step()
	w.m.Recorded()
}

func key(name string) lockspace.Key { return lockspace.Key{Dir: 1, Name: name} }

// request asks for first to last of a name.
func request(name string, mode lockspace.Mode, first, last uint64) lockspace.Request {
	return lockspace.Request{
		Key:   key(name),
		Mode:  mode,
		Range: lockspace.Range{First: first, Last: last},
		Via:   lockspace.ViaFcntl,
	}
}

func whole(name string, mode lockspace.Mode) lockspace.Request {
	return request(name, mode, 0, lockspace.MaxOffset)
}

// grant asks in a step.
func (w *world) grant(r lockspace.Request) (*lockspace.Hold, error) {
	if err := w.m.Cover(&r); err != nil {
		return nil, err
	}
	h := &lockspace.Hold{Request: r}
	w.holds[r.Key] = append(w.holds[r.Key], h)
	w.settle(r.Key)
	return h, nil
}

func (w *world) settle(k lockspace.Key) { w.m.Settled(k, w.holds[k]) }

// try asks as often as it takes and returns the hold or the error.
func (w *world) try(r lockspace.Request) (h *lockspace.Hold, err error) {
	for {
		w.do(func() { h, err = w.grant(r) })
		if err != lockspace.ErrLookup {
			return h, err
		}
		var p *Preparation
		w.do(func() {
			if !w.m.Needs(r.Key) {
				w.t.Errorf("%s needs nothing, and is to be looked up", r.Key.Name)
			}
			p = w.m.Prepare(&r)
		})
		p.Run()
		w.do(func() { err = w.m.Adopt(p) })
		if err != nil {
			return nil, err
		}
	}
}

// take is try that must succeed.
func (w *world) take(r lockspace.Request) *lockspace.Hold {
	w.t.Helper()
	h, err := w.try(r)
	if err != nil {
		w.t.Fatalf("take %s %s %s: %v", r.Key.Name, r.Mode, r.Range, err)
	}
	return h
}

// refuse is try that must fail with an error.
func (w *world) refuse(r lockspace.Request, want error) {
	w.t.Helper()
	if _, err := w.try(r); !errors.Is(err, want) {
		w.t.Fatalf("take %s %s %s: %v, want %v", r.Key.Name, r.Mode, r.Range, err, want)
	}
}

// wait has r wait for somebody outside.
func (w *world) wait(r lockspace.Request) *waiter {
	w.t.Helper()
	x := &waiter{r: r, got: make(chan error, 1)}
	w.do(func() {
		w.waits = append(w.waits, x)
		w.reconsider(r.Key)
	})
	select {
	case err := <-x.got:
		w.t.Fatalf("%s did not wait: %v", r.Key.Name, err)
	case <-time.After(50 * time.Millisecond):
	}
	return x
}

// interrupt ends a wait.
func (w *world) interrupt(x *waiter) {
	w.do(func() {
		w.waits = slices.DeleteFunc(w.waits, func(y *waiter) bool { return x == y })
	})
}

// reconsider asks again for those who wait for k.
func (w *world) reconsider(k lockspace.Key) {
	w.waits = slices.DeleteFunc(w.waits, func(x *waiter) bool {
		if x.r.Key != k {
			return false
		}
		_, err := w.grant(x.r)
		if err == lockspace.ErrForeign || err == lockspace.ErrLookup {
			w.m.Await(&x.r)
			return false
		}
		x.got <- err
		return true
	})
}

// gets waits until x has what it waited for, or fails.
func (w *world) gets(x *waiter, within time.Duration) error {
	w.t.Helper()
	select {
	case err := <-x.got:
		return err
	case <-time.After(within):
		w.t.Fatalf("%s %s %s still waits after %v: %+v", x.r.Key.Name, x.r.Mode, x.r.Range, within, w.stats())
		return nil
	}
}

// end ends a hold.
func (w *world) end(h *lockspace.Hold) {
	w.do(func() { w.drop(h) })
}

func (w *world) drop(h *lockspace.Hold) {
	k := h.Key
	w.holds[k] = slices.DeleteFunc(w.holds[k], func(x *lockspace.Hold) bool { return x == h })
	w.settle(k)
}

func (w *world) stats() (s Stats) {
	w.do(func() { s = w.m.Stats() })
	return s
}

// path returns where a name's file is.
func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// eventually waits until a condition holds.
func (w *world) eventually(what string, f func() bool) {
	w.t.Helper()
	for end := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(end) {
			w.t.Fatalf("not within ten seconds: %s; %+v", what, w.stats())
		}
		time.Sleep(time.Millisecond)
	}
}

// seen returns how a byte of a name's file is locked, as anybody else sees it.
func (w *world) seen(name string, at uint64) string {
	w.t.Helper()
	f, err := os.Open(w.path(name))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	return byteOf(w.t, f, at)
}

func byteOf(t testing.TB, f *os.File, at uint64) string {
	t.Helper()
	r := lockspace.Range{First: at, Last: at}
	for _, mode := range []lockspace.Mode{lockspace.Shared, lockspace.Exclusive} {
		_, found, err := getlk(unix.FcntlFlock, int(f.Fd()), mode, r)
		if err != nil {
			t.Fatal(err)
		}
		if found { // a shared request is in conflict with an exclusive lock only
			return []string{"exclusive", "shared"}[mode]
		}
	}
	return "free"
}

// mustSee checks how a byte is locked.
func (w *world) mustSee(name string, at uint64, want string) {
	w.t.Helper()
	if got := w.seen(name, at); got != want {
		w.t.Fatalf("byte %d of %s is %s, want %s", at, name, got, want)
	}
}

const end = lockspace.MaxOffset
