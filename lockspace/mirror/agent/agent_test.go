package agent

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

const (
	shared    = lockspace.Shared
	exclusive = lockspace.Exclusive
)

var whole = lockspace.Whole

func bytes(first, last uint64) lockspace.Range { return lockspace.Range{First: first, Last: last} }

// What is held is locked, in its mode and range, and what is given back is not.
func TestHeldIsLocked(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	want(t, "exclusive", w.try(w.request("x", 1, exclusive, bytes(0, 9)), 0), nil)
	want(t, "shared", w.try(w.request("x", 2, shared, bytes(10, 19)), 0), nil)
	s := k.stranger("x")
	for at, typ := range map[uint64]int16{0: unix.F_WRLCK, 9: unix.F_WRLCK, 10: unix.F_RDLCK, 19: unix.F_RDLCK, 20: unix.F_UNLCK} {
		if got := s.sees(at); got != typ {
			t.Errorf("byte %d is locked as %d, want %d", at, got, typ)
		}
	}
	want(t, "another", w.try(w.request("x", 3, shared, bytes(5, 5)), 0), lockspace.ErrHeld)
	w.unlock("x", 1, bytes(0, 4))
	eventually(t, "a part is free", func() bool { return s.sees(4) == unix.F_UNLCK && s.sees(5) == unix.F_WRLCK })
	w.unlock("x", 1, whole)
	w.unlock("x", 2, whole)
	eventually(t, "all is free", func() bool { return s.lock(unix.F_WRLCK, whole) == nil })
	want(t, "what a stranger has", w.try(w.request("x", 1, exclusive, bytes(0, 9)), 0), lockspace.ErrForeign)
	w.forgets(t)
}

// Who waits for a stranger gets it when he leaves, and who waits for somebody here gets
// it without its being free in between.
func TestWaits(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	s := k.stranger("x")
	want(t, "the stranger", s.lock(unix.F_WRLCK, whole), nil)
	first := w.wait(w.request("x", 1, exclusive, whole))
	second := w.wait(w.request("x", 2, exclusive, whole))
	select {
	case err := <-first:
		t.Fatalf("it did not wait: %v", err)
	case err := <-second:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	s.unlock()
	var handle uint64
	var other <-chan error
	select {
	case err := <-first:
		want(t, "the first", err, nil)
		handle, other = 1, second
	case err := <-second:
		want(t, "the second", err, nil)
		handle, other = 2, first
	case <-time.After(10 * time.Second):
		t.Fatal("nobody gets it")
	}
	blocked := make(chan error, 1)
	go func() { blocked <- s.call(unix.F_OFD_SETLKW, unix.F_WRLCK, whole) }()
	time.Sleep(20 * time.Millisecond)
	w.unlock("x", handle, whole)
	want(t, "the other", <-other, nil)
	select {
	case err := <-blocked:
		t.Fatalf("the stranger got in between: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	w.unlock("x", 3-handle, whole)
	want(t, "the stranger", <-blocked, nil)
}

// The next worker finds locked what is held, and the rest is given back.
func TestNextWorker(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	for _, name := range []string{"kept", "both"} {
		want(t, name, w.try(w.request(name, 1, exclusive, whole), 0), nil)
	}
	// One of which the worker dies before it has heard, or told, of it.
	r := w.request("unheard", 1, exclusive, whole)
	var p *Preparation
	w.do(func() { p = w.client.Prepare(&r) })
	gone := make(chan struct{})
	close(gone)
	p.Run(0, gone)
	unheard, kept := k.stranger("unheard"), k.stranger("kept")
	eventually(t, "the agent has it", func() bool { return unheard.sees(0) == unix.F_WRLCK })
	blocked := make(chan error, 1)
	go func() { blocked <- kept.call(unix.F_OFD_SETLKW, unix.F_WRLCK, whole) }()
	for range 20 {
		w.replace()
	}
	eventually(t, "what nobody has heard of is given back", func() bool { return unheard.sees(0) == unix.F_UNLCK })
	select {
	case err := <-blocked:
		t.Fatalf("what is held was free: %v", err)
	default:
	}
	w.unlock("kept", 1, whole)
	want(t, "the stranger", <-blocked, nil)
	want(t, "another", w.try(w.request("both", 1, shared, whole), 0), nil)
}

// A worker that dies before it has answered who holds a lock leaves that to the next.
func TestNextWorkerIsAskedWhoHolds(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	asked, forever := make(chan bool, 1), make(chan bool)
	t.Cleanup(func() { close(forever) })
	w.text = func() []byte {
		asked <- true
		<-forever
		return nil
	}
	want(t, "a lock", w.try(w.request("x", 1, exclusive, whole), 0), nil)
	<-asked
	w.mu.Lock()
	w.text = func() []byte { return []byte("who\n") }
	w.mu.Unlock()
	w.replace()
	eventually(t, "it is published", func() bool {
		text, err := os.ReadFile(k.path("x"))
		return err == nil && strings.HasSuffix(string(text), "\nwho\n")
	})
}

// An agent that does not answer is waited for as long as somebody likes; what it does
// later for who does not wait any more is undone.
func TestNoAnswer(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	want(t, "a lock", w.try(w.request("held", 1, exclusive, whole), 0), nil)
	want(t, "no error", w.client.Ready(time.Second), nil)
	k.signal(syscall.SIGSTOP)
	began := time.Now()
	want(t, "a lock", w.try(w.request("x", 1, exclusive, whole), 100*time.Millisecond), ErrNoAnswer)
	want(t, "the errno", w.try(w.request("x", 2, exclusive, whole), 100*time.Millisecond), unix.ETIMEDOUT)
	if _, _, err := w.client.ProbeFor("x", &lockspace.Request{Key: lockspace.Key{Dir: 1, Name: "x"}, Mode: exclusive, Range: whole}, 50*time.Millisecond); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("a question: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	waits := w.wait(w.request("y", 1, exclusive, whole))
	eventually(t, "it is said", func() bool { return w.client.Wrong() != "" })
	w.unlock("held", 1, whole)
	w.replace() // of what waits, the fixture keeps nothing
	select {
	case err := <-waits:
		want(t, "who waited for the worker before", err, errClosedText{})
	case <-time.After(10 * time.Second):
		t.Fatal("who waited for the worker before still does")
	}
	later := w.wait(w.request("y", 3, exclusive, whole))
	k.signal(syscall.SIGCONT)
	want(t, "who waits", <-later, nil)
	for _, name := range []string{"x", "held"} {
		s := k.stranger(name)
		eventually(t, name+" is free", func() bool { return s.sees(0) == unix.F_UNLCK })
	}
	eventually(t, "all is well", func() bool { return w.client.Wrong() == "" })
}

// errClosedText is errClosed as it is sent.
type errClosedText struct{}

func (errClosedText) Error() string        { return errClosed.Error() }
func (e errClosedText) Is(err error) bool  { return err.Error() == e.Error() }
func (e *remoteError) Is(other error) bool { return other.Error() == e.text }

// The next agent locks again what is free, and the rest is lost.
func TestKilledAgent(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	for _, name := range []string{"kept", "lost", "removed"} {
		want(t, name, w.try(w.request(name, 1, exclusive, bytes(3, 5)), 0), nil)
	}
	s := k.stranger("lost")
	blocked := make(chan error, 1)
	go func() { blocked <- s.call(unix.F_OFD_SETLKW, unix.F_WRLCK, bytes(5, 5)) }()
	time.Sleep(20 * time.Millisecond)
	k.signal(syscall.SIGSTOP)
	want(t, "remove", os.Remove(k.path("removed")), nil)
	k.signal(syscall.SIGKILL)
	want(t, "the stranger", <-blocked, nil)
	lost := func(name string) (why error) {
		w.do(func() { why = w.lost[lockspace.Key{Dir: 1, Name: name}] })
		return why
	}
	eventually(t, "it is told", func() bool { return lost("lost") != nil })
	want(t, "the loss", lost("lost"), mirror.ErrTaken)
	kept := k.stranger("kept")
	eventually(t, "what is free is locked again", func() bool { return kept.sees(3) == unix.F_WRLCK })
	want(t, "kept", lost("kept"), nil)
	// Whoever gets something now gets it of the next agent.
	want(t, "another", w.try(w.request("kept", 2, shared, bytes(6, 6)), 0), nil)
	want(t, "what was lost", w.try(w.request("lost", 2, exclusive, whole), 0), lockspace.ErrForeign)
	s.unlock()
	eventually(t, "what was lost can be had", func() bool { return w.try(w.request("lost", 2, exclusive, whole), 0) == nil })
}

// A directory that is not there is an error for who wants a lock, until it is.
func TestMissingDirectory(t *testing.T) {
	k := newKeeper(t)
	want(t, "rename", os.Rename(k.dir, k.dir+".gone"), nil)
	w := newWorker(t, k)
	want(t, "ready", w.client.Ready(10*time.Second), unix.ENOENT)
	want(t, "a lock", w.try(w.request("x", 1, exclusive, whole), 0), unix.ENOENT)
	if w.client.Wrong() == "" {
		t.Error("nothing is wrong")
	}
	want(t, "rename", os.Rename(k.dir+".gone", k.dir), nil)
	eventually(t, "it is there", func() bool { return w.try(w.request("x", 1, exclusive, whole), 0) == nil })
	if k.stranger("x").sees(0) != unix.F_WRLCK {
		t.Error("it is not locked")
	}
	eventually(t, "all is well", func() bool { return w.client.Wrong() == "" })
}

// What is asked: who is in the way, and which names are locked, however many.
func TestQuestions(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	names := make(map[string]bool)
	for i := range 450 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26))
		want(t, "lock", k.stranger(name).lock(unix.F_WRLCK, bytes(uint64(i), uint64(i)+1)), nil)
		names[name] = true
	}
	var got []string
	// The kernel leaves lines of /proc/locks out when others go while it is read.
	eventually(t, "all names are locked", func() bool {
		var err error
		got, err = w.client.Locked("", 10*time.Second)
		return err == nil && len(got) == len(names)
	})
	for _, name := range got {
		if !names[name] {
			t.Errorf("%q is none of them", name)
		}
	}
	r := w.request("ba", 1, shared, bytes(0, 100))
	f, found, err := w.client.ProbeFor("ba", &r, 10*time.Second)
	if err != nil || !found || f.Range != bytes(1, 2) || f.Mode != exclusive {
		t.Errorf("in the way is %+v, %v, %v", f, found, err)
	}
	if _, found, err := w.client.ProbeFor("missing", &r, 10*time.Second); found || err != nil {
		t.Errorf("of a file that is missing: %v, %v", found, err)
	}
}

// A lock of more ranges than a packet holds.
func TestManyRanges(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	const ranges = mostEntries + 200
	want(t, "lock", w.try(w.request("x", 1, exclusive, bytes(0, 2*ranges-1)), 0), nil)
	q := w.request("x", 1, shared, whole)
	w.do(func() {
		for i := range uint64(ranges) {
			w.table.Unlock(q.Key, q.Party, q.Via, bytes(2*i+1, 2*i+1))
		}
	})
	s := k.stranger("x")
	eventually(t, "the last is given back", func() bool { return s.sees(2*ranges-1) == unix.F_UNLCK })
	check := func() {
		t.Helper()
		for i := range uint64(ranges) {
			if s.sees(2*i) != unix.F_WRLCK || s.sees(2*i+1) != unix.F_UNLCK {
				t.Fatalf("range %d is not locked as it is held", i)
			}
		}
	}
	check()
	w.replace()
	want(t, "another", w.try(w.request("x", 2, exclusive, bytes(2*ranges+1, 2*ranges+1)), 0), nil)
	w.unlock("x", 2, whole)
	eventually(t, "it is given back", func() bool { return s.sees(2*ranges+1) == unix.F_UNLCK })
	check()
}

// However much is asked of an agent that does not answer, there is an end to what is
// kept of it; and when it answers, everybody is answered.
func TestMuchIsAskedInVain(t *testing.T) {
	k := newKeeper(t)
	w := newWorker(t, k)
	want(t, "ready", w.client.Ready(10*time.Second), nil)
	k.signal(syscall.SIGSTOP)
	gone := make(chan struct{})
	close(gone)
	for i := range 5000 {
		r := w.request(string(rune('a'+i%26)), uint64(i), exclusive, whole)
		switch i % 3 {
		case 0: // who makes a name
			want(t, "a try", w.try(r, time.Microsecond), ErrNoAnswer)
		case 1: // who waits, and is killed
			var p *Preparation
			w.do(func() { p = w.client.Prepare(&r) })
			p.Run(0, gone)
			w.do(func() { want(t, "who is killed", p.Adopt(), ErrNoAnswer) })
		default: // who looks
			_, _, err := w.client.ProbeFor(r.Key.Name, &r, time.Microsecond)
			want(t, "a question", err, ErrNoAnswer)
		}
	}
	w.client.mu.Lock()
	calls, queue := len(w.client.calls), len(w.client.queue)
	w.client.mu.Unlock()
	if calls > 2*mostLeft || queue > 2*mostLeft {
		t.Errorf("%d calls and %d messages are kept", calls, queue)
	}
	k.signal(syscall.SIGCONT)
	eventually(t, "a lock is granted", func() bool { return w.try(w.request("a", 1, exclusive, whole), time.Second) == nil })
	for _, name := range []string{"b", "z"} {
		s := k.stranger(name)
		eventually(t, name+" is free", func() bool { return s.sees(0) == unix.F_UNLCK })
	}
	eventually(t, "the client forgets", func() bool {
		w.client.mu.Lock()
		defer w.client.mu.Unlock()
		return len(w.client.names) == 1
	})
}

// An agent of another version is left, and the next one asked.
func TestAgentOfAnotherVersion(t *testing.T) {
	k := newKeeper(t)
	ours, theirs, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	old, err := NewSocket(fd)
	if err != nil {
		t.Fatal(err)
	}
	// The first connection is to it.
	if k.fd, err = unix.FcntlInt(uintptr(ours.FD), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	go func() {
		buffer := make([]byte, packetMax)
		packet, err := old.receive(buffer)
		if m, ok := parse(packet); err == nil && ok && m.kind == kindHello {
			welcome := message{kind: kindWelcome, epoch: m.epoch, seq: version + 1}
			old.send(welcome.append(nil))
		}
	}()
	w := newWorker(t, k)
	want(t, "a lock", w.try(w.request("x", 1, exclusive, whole), 0), nil)
	if k.stranger("x").sees(0) != unix.F_WRLCK {
		t.Error("it is not locked")
	}
}
