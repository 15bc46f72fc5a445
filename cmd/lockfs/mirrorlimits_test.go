package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What the keeper and its workers do when there is no room, or no sense.

// Neither the worker nor the keeper takes more than it has room for.
func TestRoomForMirrorFiles(t *testing.T) {
	m := newMirrored(t)
	m.die()
	m.store.room = 10
	m.start()
	lost := make(chan uint64, 100)
	m.files.OnLost(func(id uint64) { lost <- id })
	for id := range uint64(10) {
		m.mustKeep(id + 1)
	}
	if err := m.keep(11); !errors.Is(err, errMirrorFull) {
		t.Errorf("Keep of one more returned %v", err)
	}
	m.files.room = 12 // as if it had not been told
	m.mustKeep(11, 12)
	for _, want := range []uint64{11, 12} {
		select {
		case id := <-lost:
			if id != want {
				t.Errorf("file %d is lost, want %d", id, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("nobody tells of file %d", want)
		}
	}
	m.wantKept(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	m.files.Drop(4)
	m.files.Drop(4)
	m.wantKept(1, 2, 3, 5, 6, 7, 8, 9, 10)
	// One that was lost can be given again.
	eventually(t, func() bool { return m.store.closer.open() == 0 }, func() string { return "something is not closed" })
	m.mustKeep(12)
	m.wantKept(1, 2, 3, 5, 6, 7, 8, 9, 10, 12)
	// The next worker is told of the keeper's room.
	m.die()
	m.start()
	for _, f := range m.files.Inherited() {
		unix.Close(f.FD)
	}
	if err := m.keep(14); !errors.Is(err, errMirrorFull) {
		t.Errorf("Keep by the next worker returned %v", err)
	}
	if err := m.files.Keep(15, make([]byte, labelMax+1), 0); !errors.Is(err, errLabel) {
		t.Errorf("Keep with a label that is too long returned %v", err)
	}
	if err := m.files.Keep(1, labelOf(1), -1); !errors.Is(err, unix.EBADF) {
		t.Errorf("Keep of no descriptor returned %v", err)
	}
}

// outOfDescriptors runs something while this process can open no file.
func outOfDescriptors(t testing.TB, run func()) {
	t.Helper()
	free, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = uint64(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	run()
}

// The kernel leaves out of a message what there is no descriptor for, and says
// so: no file is taken for kept that is not.
func TestOutOfDescriptors(t *testing.T) {
	m := newMirrored(t)
	lost := make(chan uint64, 100)
	m.files.OnLost(func(id uint64) { lost <- id })
	m.mustKeep(1, 2, 3)
	m.wantKept(1, 2, 3)
	fd := m.open(4)
	defer unix.Close(fd)
	outOfDescriptors(t, func() {
		if err := m.files.Keep(4, labelOf(4), fd); err != nil {
			t.Fatal(err)
		}
		select {
		case id := <-lost:
			if id != 4 {
				t.Errorf("file %d is lost, want 4", id)
			}
		case <-time.After(10 * time.Second):
			t.Error("nobody tells of file 4")
		}
	})
	m.wantKept(1, 2, 3)
	m.mustKeep(4)
	m.wantKept(1, 2, 3, 4)

	// A worker that has none for what it inherits gives that up: it would be
	// in the way of what it opens instead.
	m.die()
	line, theirs, err := m.store.lineTo()
	if err != nil {
		t.Fatal(err)
	}
	line.begin()
	time.Sleep(50 * time.Millisecond) // the poller is there, and all is sent
	socket, err := adoptMirrorSocket(theirs)
	if err != nil {
		t.Fatal(err)
	}
	f := &mirrorFiles{log: silent, socket: socket, room: 100, kept: make(map[uint64]bool)}
	outOfDescriptors(t, func() {
		p, err := socket.receive(make([]byte, packetMax), filesPerPacket)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.inherit(p); err != nil {
			t.Fatal(err)
		}
	})
	m.line, m.files = line, f
	if len(f.Inherited()) != 0 {
		t.Errorf("inherited %v without descriptors", f.Inherited())
	}
	m.wantKept()
}

// Whatever a worker says, the keeper goes on, and no descriptor is left.
func TestAWorkerThatTalksNonsense(t *testing.T) {
	m := newMirrored(t)
	m.mustKeep(1)
	m.wantKept(1)
	before := descriptors(t)
	fd := m.open(2)
	long := append(numberPacket(packetKeep, 2, nil), make([]byte, labelMax+1)...)
	for _, c := range []struct {
		packet []byte
		fds    []int
	}{
		{[]byte{packetKeep}, nil},
		{[]byte{packetKeep, 1, 2, 3}, []int{fd}},
		{numberPacket(packetKeep, 2, nil), nil},
		{long, []int{fd}},
		{make([]byte, 2*packetMax), []int{fd}},
		{[]byte{packetDrop}, []int{fd}},
		{numberPacket(packetDrop, 77, nil), []int{fd, fd}},
		{numberPacket(packetEnd, 3, nil), []int{fd}},
		{numberPacket(packetLost, 3, nil), nil},
		{[]byte{packetFiles}, nil},
		{[]byte{0}, []int{fd, fd, fd, fd, fd}},
		{[]byte("serving"), nil},
	} {
		if err := m.files.socket.sendWhenRoom(func() error { return m.files.socket.trySend(c.packet, c.fds...) }); err != nil {
			t.Fatalf("send %q: %v", c.packet[:1], err)
		}
	}
	// More than one file at once is none that lockfs says: the first counts.
	if err := m.files.socket.trySend(numberPacket(packetKeep, 3, labelOf(3)), m.open(3), fd); err != nil {
		t.Fatal(err)
	}
	m.wantKept(1, 3)
	// A number twice is the later file.
	m.mustKeep(3)
	m.wantKept(1, 3)
	m.mustKeep(4)
	m.wantKept(1, 3, 4)
	unix.Close(fd)
	eventually(t, func() bool { return descriptors(t) <= before+3 }, func() string { // 3, its own and 4
		return fmt.Sprintf("%d descriptors, %d before", descriptors(t), before)
	})
	for range 10_000 {
		packet := make([]byte, 1+rand.N(40))
		for i := range packet {
			packet[i] = byte(rand.Uint32())
		}
		packet[0] = "kdfel"[rand.N(5)]
		_ = m.files.socket.sendWhenRoom(func() error { return m.files.socket.trySend(packet) })
	}
	m.mustKeep(5)
	m.wantKept(1, 3, 4, 5)
	// What looks like an end of file ends this line, and no other.
	if err := m.files.socket.trySend(nil); err != nil {
		t.Fatal(err)
	}
	m.die()
	m.wantKept(1, 3, 4, 5)
	m.start()
	if n := len(m.files.Inherited()); n != 4 {
		t.Errorf("inherited %d files, want 4", n)
	}
	for _, f := range m.files.Inherited() {
		unix.Close(f.FD)
	}
	m.mustKeep(6)
	m.wantKept(1, 3, 4, 5, 6)
	m.files.Drop(6)
	m.wantKept(1, 3, 4, 5)
}

// A packet of files is what was put into it, and everything else is refused.
func TestPacketsOfFiles(t *testing.T) {
	body := appendEntry(appendEntry(nil, mirrorFile{ID: 7, Label: []byte("seven")}), mirrorFile{ID: 8})
	p := packet{kind: packetFiles, body: body, fds: []int{5}}
	files, err := p.files()
	if err != nil || len(files) != 2 ||
		files[0].ID != 7 || string(files[0].Label) != "seven" || files[0].FD != 5 ||
		files[1].ID != 8 || len(files[1].Label) != 0 || files[1].FD != -1 {
		t.Errorf("files %v, %v", files, err)
	}
	for n := range body {
		p := packet{kind: packetFiles, body: body[:n]}
		files, err := p.files()
		if whole := n == 0 || n == entryHeader+5; (err == nil) != whole {
			t.Errorf("%d of %d bytes: %v, %v", n, len(body), files, err)
		}
	}
}
