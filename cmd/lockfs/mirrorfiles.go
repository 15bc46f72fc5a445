package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// mirrorFiles is what a worker knows of the files that the keeper keeps for it:
// the mirror's open files, whose locks are to outlive the worker. Its methods
// may be called from several goroutines.
type mirrorFiles struct {
	log    *slog.Logger
	socket *mirrorSocket
	// inherited are those that the workers before this one left.
	inherited []mirrorFile
	// room is how many there may be.
	room int
	// mu is never held while something waits.
	mu sync.Mutex
	// lost is told of files that the keeper could not keep; nil if nobody is.
	lost func(id uint64)
	// kept are the numbers of the files that the keeper has, or will have when
	// it has read what was sent.
	kept map[uint64]bool
	// queue is what there was no room for, in order, and what came after that.
	queue []*unsent
	// sending: a goroutine waits for room for the queue.
	sending bool
}

// unsent is a packet that waits for room in the socket.
type unsent struct {
	packet []byte
	fds    []int
	// done gets how the sending of a file went. It is nil for others.
	done chan error
}

// keepTime is how long Keep waits for room in the socket.
const keepTime = time.Second

// Errors of [mirrorFiles.Keep].
var (
	// errMirrorFull: as many files are kept as this process, and the keeper,
	// can have without running out of descriptors.
	errMirrorFull = errors.New("too many files of the mirror are open")
	// errKeeperBusy: the keeper does not read.
	errKeeperBusy = errors.New("the keeper does not take a file of the mirror")
	errLabel      = fmt.Errorf("a label of more than %d bytes", labelMax)
)

// inheritMirrorFiles receives the files that the keeper has: it waits until all
// of them are there. The descriptor, an end of a mirrorPair, belongs to what is
// returned.
func inheritMirrorFiles(fd int, log *slog.Logger) (*mirrorFiles, error) {
	socket, err := adoptMirrorSocket(fd)
	if err != nil {
		return nil, err
	}
	f := &mirrorFiles{log: log, socket: socket, room: mirrorRoom(), kept: make(map[uint64]bool)}
	buffer := make([]byte, packetMax)
	for {
		p, err := socket.receive(buffer, filesPerPacket)
		if errors.Is(err, io.EOF) {
			return f, nil // the keeper is dead, which is found out elsewhere
		}
		if err != nil {
			return nil, fmt.Errorf("files of the mirror: %w", err)
		}
		if room, ok := p.roomOf(); ok {
			f.room = min(f.room, room)
			break
		}
		if err := f.inherit(p); err != nil {
			return nil, fmt.Errorf("files of the mirror: %w", err)
		}
	}
	go f.listen(buffer)
	return f, nil
}

// inherit takes a packet of files in.
func (f *mirrorFiles) inherit(p packet) error {
	if p.kind != packetFiles {
		return errPacket
	}
	files, err := p.files()
	if err != nil {
		return err
	}
	for _, file := range files {
		f.kept[file.ID] = true
		if file.FD < 0 {
			// To keep it would be to keep its lock from ourselves.
			f.log.Error("no descriptor is left for a file of the mirror: it is given up, and its lock", "file", file.ID)
			f.Drop(file.ID)
			continue
		}
		f.inherited = append(f.inherited, file)
	}
	return nil
}

// listen passes on what the keeper says, until it is dead.
func (f *mirrorFiles) listen(buffer []byte) {
	for {
		p, err := f.socket.receive(buffer, 1)
		if err != nil {
			return
		}
		id, _, ok := p.number()
		if !ok || p.kind != packetLost {
			f.log.Error("unknown message from the keeper about mirror files", "kind", p.kind)
			continue
		}
		f.mu.Lock()
		delete(f.kept, id)
		lost := f.lost
		f.mu.Unlock()
		if lost != nil {
			lost(id)
		}
	}
}

// OnLost has a function called, by a goroutine of its own, with the number of
// each file that the keeper could not keep though Keep returned nil for it, or
// is about to. It is open in this process and nowhere else, so its lock ends
// with the process; Keep may be called for it again, with the same number. That
// happens only if somebody has lowered the keeper's limit of descriptors.
func (f *mirrorFiles) OnLost(lost func(id uint64)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lost = lost
}

// Inherited returns the files that the workers before this one gave to the
// keeper and did not drop: the same open files, with the locks that are on
// them. The descriptors belong to the caller. What is not needed has to be
// dropped, as any other.
func (f *mirrorFiles) Inherited() []mirrorFile { return f.inherited }

// Keep has the keeper keep an open file: when it returns nil, the file and what
// is locked through it outlive this process. The number is the caller's to
// choose: one that no file has, above those of all that were inherited. label,
// of at most 300 bytes, comes back with it. fd may be closed afterwards.
//
// It waits for a second at most, and must not be called in a step. Errors:
// errMirrorFull, errKeeperBusy, errLabel, those of sendmsg(2).
func (f *mirrorFiles) Keep(id uint64, label []byte, fd int) error {
	if len(label) > labelMax {
		return errLabel
	}
	u := &unsent{numberPacket(packetKeep, id, label), []int{fd}, make(chan error, 1)}
	f.mu.Lock()
	again := f.kept[id]
	if !again && len(f.kept) >= f.room {
		f.mu.Unlock()
		return errMirrorFull
	}
	f.kept[id] = true
	f.send(u)
	f.mu.Unlock()
	var err error
	select {
	case err = <-u.done:
	case <-time.After(keepTime):
		if f.withdraw(u) {
			err = errKeeperBusy
		} else {
			err = <-u.done
		}
	}
	if err != nil && !again {
		f.mu.Lock()
		delete(f.kept, id)
		f.mu.Unlock()
	}
	return err
}

// Drop has the keeper give a file up, after what was asked of it before. It
// does not wait. If the process dies before there is room to say so, the next
// one inherits the file. One that is not kept is none.
func (f *mirrorFiles) Drop(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.kept[id] {
		return
	}
	delete(f.kept, id)
	f.send(&unsent{packet: numberPacket(packetDrop, id, nil)})
}

// send sends a packet or, behind others or if there is no room, queues it. With
// mu held.
func (f *mirrorFiles) send(u *unsent) {
	if len(f.queue) == 0 && f.trySend(u) == nil {
		return
	}
	f.queue = append(f.queue, u)
	if !f.sending {
		f.sending = true
		go f.sendQueue()
	}
}

// trySend sends a packet if there is room, and reports how that went. An error
// says that it has to be tried again. With mu held.
func (f *mirrorFiles) trySend(u *unsent) error {
	err := f.socket.trySend(u.packet, u.fds...)
	if noRoom(err) {
		return err
	}
	if u.done != nil {
		u.done <- err
	} else if err != nil {
		f.log.Debug("the keeper is not told of a file of the mirror", "err", err) // it is dead
	}
	return nil
}

// sendQueue sends what is queued as there is room for it.
func (f *mirrorFiles) sendQueue() {
	_ = f.socket.sendWhenRoom(func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		for len(f.queue) > 0 {
			if err := f.trySend(f.queue[0]); err != nil {
				return err
			}
			f.queue = f.queue[1:]
		}
		f.sending = false
		return nil
	})
}

// withdraw takes a packet out of the queue; false if it was sent.
func (f *mirrorFiles) withdraw(u *unsent) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.queue {
		if f.queue[i] == u {
			f.queue = append(f.queue[:i:i], f.queue[i+1:]...)
			return true
		}
	}
	return false
}
