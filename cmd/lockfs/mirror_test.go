package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The files of the mirror, between a keeper and a worker that are both in this
// process: what is closed here is what a process closes when it dies.

var silent = slog.New(slog.DiscardHandler)

// mirrored is a store, and a worker that uses it.
type mirrored struct {
	t     testing.TB
	dir   string
	store *mirrorStore
	line  *mirrorLine
	files *mirrorFiles
	next  uint64
}

func newMirrored(t testing.TB) *mirrored {
	t.Helper()
	m := &mirrored{t: t, dir: t.TempDir(), store: newMirrorStore(silent)}
	m.start()
	t.Cleanup(func() {
		m.die()
		for _, id := range m.store.numbers() {
			m.store.drop(id)
		}
	})
	return m
}

// start starts a worker.
func (m *mirrored) start() {
	m.t.Helper()
	line, theirs, err := m.store.lineTo()
	if err != nil {
		m.t.Fatal(err)
	}
	line.begin()
	if m.files, err = inheritMirrorFiles(theirs, silent); err != nil {
		m.t.Fatal(err)
	}
	m.line = line
}

// die is the end of the worker.
func (m *mirrored) die() {
	m.files.socket.close()
	m.line.finish()
}

// open makes a file that is named by a number.
func (m *mirrored) open(id uint64) int {
	m.t.Helper()
	fd, err := unix.Open(m.path(id), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	return fd
}

func (m *mirrored) path(id uint64) string { return filepath.Join(m.dir, fmt.Sprint(id)) }

// keep makes a file and has it kept, and keeps no descriptor of it.
func (m *mirrored) keep(id uint64) error {
	m.t.Helper()
	fd := m.open(id)
	defer unix.Close(fd)
	return m.files.Keep(id, labelOf(id), fd)
}

func (m *mirrored) mustKeep(ids ...uint64) {
	m.t.Helper()
	for _, id := range ids {
		if err := m.keep(id); err != nil {
			m.t.Fatalf("keep %d: %v", id, err)
		}
	}
}

// labelOf is another for each number, and for some the longest.
func labelOf(id uint64) []byte {
	label := binary.NativeEndian.AppendUint64(nil, ^id)
	if id%7 == 0 {
		label = append(label, make([]byte, labelMax-len(label))...)
	}
	return label
}

// wantFile fails the test unless a file is the one of its number.
func (m *mirrored) wantFile(f mirrorFile) {
	m.t.Helper()
	var a, b unix.Stat_t
	if err := unix.Fstat(f.FD, &a); err != nil {
		m.t.Fatalf("file %d: %v", f.ID, err)
	}
	if err := unix.Stat(m.path(f.ID), &b); err != nil {
		m.t.Fatal(err)
	}
	if a.Ino != b.Ino || a.Dev != b.Dev {
		m.t.Errorf("file %d is another one", f.ID)
	}
	if want := labelOf(f.ID); string(f.Label) != string(want) {
		m.t.Errorf("file %d has the label %q, want %q", f.ID, f.Label, want)
	}
}

// wantKept fails the test unless exactly these files come to be kept.
func (m *mirrored) wantKept(ids ...uint64) {
	m.t.Helper()
	slices.Sort(ids)
	eventually(m.t, func() bool { return slices.Equal(m.store.numbers(), ids) }, func() string {
		return fmt.Sprintf("files %v are kept, want %v", m.store.numbers(), ids)
	})
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	for _, f := range m.store.files {
		m.wantFile(f)
	}
}

// eventually fails the test unless something comes to be in ten seconds.
func eventually(t testing.TB, is func() bool, otherwise func() string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise())
		}
	}
}

// descriptors returns how many this process has.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// lock takes the lock of a whole file through a descriptor.
func lock(t testing.TB, fd int) {
	t.Helper()
	if err := lockFile(fd); err != nil {
		t.Fatal(err)
	}
}

// locked reports whether somebody has the lock of a file.
func locked(t testing.TB, path string) bool {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	l := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &l); err != nil {
		t.Fatal(err)
	}
	return l.Type != unix.F_UNLCK
}

// "the locks outlive the worker", and end when nobody wants them any more.
func TestAMirrorFileOutlivesItsWorker(t *testing.T) {
	m := newMirrored(t)
	fd := m.open(1)
	if err := m.files.Keep(1, labelOf(1), fd); err != nil {
		t.Fatal(err)
	}
	lock(t, fd)
	unix.Close(fd)
	for range 3 {
		m.die()
		if !locked(t, m.path(1)) {
			t.Fatal("the lock ended with the worker")
		}
		m.start()
		in := m.files.Inherited()
		if len(in) != 1 || in[0].ID != 1 {
			t.Fatalf("inherited %v, want file 1", in)
		}
		m.wantFile(in[0])
		lock(t, in[0].FD) // the same open file, or it would be in the way
		unix.Close(in[0].FD)
	}
	m.files.Drop(1)
	m.wantKept()
	eventually(t, func() bool { return !locked(t, m.path(1)) }, func() string { return "the lock is still there" })
}

// A keeper that does not read holds up a Keep for a second, and a Drop not at
// all.
func TestAFullSocket(t *testing.T) {
	m := newMirrored(t)
	m.line.pause()
	var kept []uint64
	for id := uint64(1); ; id++ {
		start := time.Now()
		err := m.keep(id)
		took := time.Since(start)
		if err == nil {
			kept = append(kept, id)
			continue
		}
		if !errors.Is(err, errKeeperBusy) || took < keepTime || took > keepTime+time.Second {
			t.Fatalf("Keep returned %v after %v, want errKeeperBusy after %v", err, took, keepTime)
		}
		break
	}
	t.Logf("%d files fit into the socket", len(kept))
	if len(kept) < 100 {
		t.Errorf("%d files fit into the socket, want more", len(kept))
	}
	// What waits is sent in order: the files that are dropped, and one that is
	// kept when there is room again.
	start := time.Now()
	for _, id := range kept[:50] {
		m.files.Drop(id)
	}
	if took := time.Since(start); took > keepTime/2 {
		t.Errorf("to drop took %v", took)
	}
	later := make(chan error, 1)
	go func() { later <- m.keep(1_000_000) }()
	time.Sleep(keepTime / 10)
	m.line.resume()
	if err := <-later; err != nil {
		t.Errorf("Keep when there was room again: %v", err)
	}
	m.wantKept(append(kept[50:], 1_000_000)...)
	m.mustKeep(1_000_001) // and it all goes on as before
	m.wantKept(append(kept[50:], 1_000_000, 1_000_001)...)
}

// Keeps and Drops by many at once, while the keeper comes and goes, and workers
// die with some of them unread: what was kept and not dropped is kept.
func TestKeepsAndDropsAreInOrder(t *testing.T) {
	m := newMirrored(t)
	want := make(map[uint64]bool)
	for range 5 {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				m.line.pause()
				time.Sleep(rand.N(3 * time.Millisecond))
				m.line.resume()
				select {
				case <-stop:
					return
				case <-time.After(rand.N(time.Millisecond)):
				}
			}
		}()
		var mu sync.Mutex
		var users sync.WaitGroup
		for range 4 {
			users.Go(func() {
				var own []uint64
				for range 200 {
					if len(own) > 0 && rand.N(3) == 0 {
						i := rand.N(len(own))
						m.files.Drop(own[i])
						own = slices.Delete(own, i, i+1)
						continue
					}
					mu.Lock()
					m.next++
					id := m.next
					mu.Unlock()
					if err := m.keep(id); err != nil {
						t.Errorf("keep %d: %v", id, err)
						return
					}
					own = append(own, id)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, id := range own {
					want[id] = true
				}
			})
		}
		users.Wait()
		close(stop)
		<-stopped
		// What waits in a worker dies with it: the next one drops what it finds
		// and does not need. What is in the socket does not.
		eventually(t, func() bool {
			m.files.mu.Lock()
			defer m.files.mu.Unlock()
			return len(m.files.queue) == 0
		}, func() string { return "the queue is not sent" })
		m.line.pause()
		for range 20 {
			m.next += 2
			m.mustKeep(m.next-1, m.next)
			m.files.Drop(m.next - 1)
			want[m.next] = true
		}
		m.die()
		m.start()
		if in := m.files.Inherited(); len(in) != len(want) {
			t.Errorf("inherited %d files, want %d", len(in), len(want))
		}
		for _, f := range m.files.Inherited() {
			if !want[f.ID] {
				t.Errorf("inherited file %d, which was dropped", f.ID)
			}
			m.wantFile(f)
			unix.Close(f.FD)
		}
	}
}

// A worker dies with messages from and to it unread: the kernel tells the
// keeper of the latter, by an error, before it has read the former.
func TestADeathWithMessagesUnread(t *testing.T) {
	m := newMirrored(t)
	m.mustKeep(1)
	m.wantKept(1)
	m.line.pause()
	fd := m.open(2)
	lock(t, fd)
	if err := m.files.Keep(2, labelOf(2), fd); err != nil {
		t.Fatal(err)
	}
	m.files.Drop(1)
	m.mustKeep(3)
	m.files.socket.interrupt() // it does not read either
	time.Sleep(10 * time.Millisecond)
	m.line.lost(3, errors.New("says the test"))
	unix.Close(fd)
	m.files.socket.close()
	if !locked(t, m.path(2)) {
		t.Error("a lock ended in the socket")
	}
	m.line.resume()
	m.wantKept(2, 3)
	m.line.finish()
	m.wantKept(2, 3)
	if !locked(t, m.path(2)) {
		t.Error("the lock ended with the worker")
	}
	m.start()
	for _, f := range m.files.Inherited() {
		unix.Close(f.FD)
	}
}

// Somebody else has the dead worker's end of the socket too: nobody waits for
// it to be closed.
func TestADeathThatIsNoEndOfFile(t *testing.T) {
	m := newMirrored(t)
	m.line.pause()
	m.mustKeep(1, 2)
	copied, err := unix.FcntlInt(uintptr(m.files.socket.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	finished := make(chan struct{})
	go func() { m.die(); close(finished) }()
	select {
	case <-finished:
	case <-time.After(10 * time.Second):
		t.Fatal("the keeper waits for an end of file")
	}
	m.wantKept(1, 2)
	m.start()
	for _, f := range m.files.Inherited() {
		unix.Close(f.FD)
	}
}

// Thousands go to the next worker, and no descriptor is left when they are
// dropped.
func TestThousandsOfMirrorFiles(t *testing.T) {
	const many = 5000
	before := descriptors(t)
	m := newMirrored(t)
	var all []uint64
	for id := range uint64(many) {
		all = append(all, id+1)
	}
	m.mustKeep(all...)
	m.die()
	start := time.Now()
	m.start()
	t.Logf("%d files inherited in %v", len(m.files.Inherited()), time.Since(start))
	if n := len(m.files.Inherited()); n != many {
		t.Fatalf("inherited %d files, want %d", n, many)
	}
	for i, f := range m.files.Inherited() {
		if f.ID != all[i] {
			t.Fatalf("inherited file %d, want %d", f.ID, all[i])
		}
		m.wantFile(f)
		unix.Close(f.FD)
	}
	m.wantKept(all...)
	start = time.Now()
	for _, id := range all {
		m.files.Drop(id)
	}
	if took := time.Since(start); took > keepTime {
		t.Errorf("to drop took %v", took)
	}
	m.wantKept()
	m.die()
	eventually(t, func() bool { return descriptors(t) <= before+2 }, func() string { // the poller's own
		return fmt.Sprintf("%d descriptors, %d before", descriptors(t), before)
	})
}

// A worker that dies while it is given its files costs none.
func TestADeathWhileInheriting(t *testing.T) {
	m := newMirrored(t)
	var all []uint64
	for id := range uint64(1000) {
		all = append(all, id+1)
	}
	m.mustKeep(all...)
	m.die()
	for range 50 {
		line, theirs, err := m.store.lineTo()
		if err != nil {
			t.Fatal(err)
		}
		line.begin()
		time.Sleep(rand.N(time.Millisecond))
		unix.Close(theirs)
		line.finish()
	}
	m.start()
	if n := len(m.files.Inherited()); n != len(all) {
		t.Errorf("inherited %d files, want %d", n, len(all))
	}
	for _, f := range m.files.Inherited() {
		m.wantFile(f)
		unix.Close(f.FD)
	}
}

// hanging returns an open file that takes so long to close: a connection that
// lingers over what its other end does not read, socket(7).
func hanging(t testing.TB, seconds int32) (fd int) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: seconds})
	}
	for err == nil {
		err = unix.Send(fd, make([]byte, 64<<10), unix.MSG_DONTWAIT)
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Fatal(err)
	}
	return fd
}

// A filesystem that does not answer hangs close(2): nobody waits for that.
func TestClosesThatHangHoldUpNobody(t *testing.T) {
	const seconds, many = 5, closersMax / 2
	m := newMirrored(t)
	m.mustKeep(1)
	for id := range uint64(many) {
		fd := hanging(t, seconds)
		if err := m.files.Keep(100+id, nil, fd); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd) // not the last, in the socket or in the keeper
	}
	start := time.Now()
	for id := range uint64(many) {
		m.files.Drop(100 + id)
	}
	m.mustKeep(2, 3)
	m.files.Drop(3)
	m.wantKept(1, 2)
	m.mustKeep(4)
	m.die()
	m.start()
	for _, f := range m.files.Inherited() {
		m.wantFile(f)
		unix.Close(f.FD)
	}
	m.wantKept(1, 2, 4)
	took := time.Since(start)
	if n := m.store.closer.open(); n < many {
		t.Errorf("%d closes hang, want %d: the test means nothing", n, many)
	}
	if took > seconds*time.Second/2 {
		t.Errorf("it took %v while closes hung for %d seconds", took, seconds)
	}
}
