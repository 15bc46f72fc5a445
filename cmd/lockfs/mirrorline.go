package main

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
)

// mirrorLine is the keeper's side of one worker's socket for mirror files: it
// gives the worker all files that are kept, and then keeps and drops what the
// worker says. Both go on beside everything else that the keeper does, and
// never wait for a file.
type mirrorLine struct {
	store  *mirrorStore
	socket *mirrorSocket
	// giving and listening go on.
	busy sync.WaitGroup
}

// lineTo makes the line to a worker that is about to be started with the other
// end. All lines before it are finished.
func (s *mirrorStore) lineTo() (l *mirrorLine, theirs int, err error) {
	socket, theirs, err := mirrorPair()
	if err != nil {
		return nil, -1, err
	}
	return &mirrorLine{store: s, socket: socket}, theirs, nil
}

// begin begins to give the worker the files, and to listen.
func (l *mirrorLine) begin() {
	l.busy.Go(l.give)
	l.resume()
}

// resume listens again after a pause.
func (l *mirrorLine) resume() {
	l.socket.allow()
	l.busy.Go(l.listen)
}

// pause ends all that goes on. What the worker sends from now on stays in the
// socket, for a resume or for another keeper.
func (l *mirrorLine) pause() {
	l.socket.interrupt()
	l.busy.Wait()
}

// finish ends the line to a worker that is dead: all that it has sent is read.
// It does not wait for an end of file, which somebody else who had the other
// end could withhold. A nil line has nothing.
func (l *mirrorLine) finish() {
	if l == nil {
		return
	}
	l.pause()
	buffer := make([]byte, packetMax)
	for {
		p, err := l.socket.tryReceive(buffer, 1)
		if err != nil {
			break
		}
		l.obey(p)
	}
	l.socket.close()
}

// give sends all files, and that they are all. A worker that is dead or does
// not read gets none.
func (l *mirrorLine) give() {
	rest := l.store.numbers()
	for len(rest) > 0 {
		err := l.socket.sendWhenRoom(func() (err error) {
			rest, err = l.store.sendBatch(l.socket, rest)
			return err
		})
		if err != nil {
			l.notGiven(err)
			return
		}
	}
	end := numberPacket(packetEnd, uint64(l.store.room), nil)
	if err := l.socket.sendWhenRoom(func() error { return l.socket.trySend(end) }); err != nil {
		l.notGiven(err)
	}
}

// notGiven logs why a worker did not get all files. It does not take over
// without.
func (l *mirrorLine) notGiven(err error) {
	l.store.log.Debug("the worker did not take the mirror's files", "err", err)
}

// listen does what the worker says, until it is dead or the line is paused. If
// it ended for another reason, the socket would fill up, and the worker be told
// by an error.
func (l *mirrorLine) listen() {
	buffer := make([]byte, packetMax)
	for {
		p, err := l.socket.receive(buffer, 1)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
				l.store.log.Error("not listening for files of the mirror any more", "err", err)
			}
			return
		}
		l.obey(p)
	}
}

// obey does what a packet says.
func (l *mirrorLine) obey(p packet) {
	id, label, ok := p.number()
	f := mirrorFile{ID: id, Label: append([]byte(nil), label...), FD: -1}
	if len(p.fds) > 0 {
		f.FD = p.fds[0]
	}
	switch {
	case ok && p.kind == packetKeep:
		if err := l.store.keep(f); err != nil {
			l.lost(id, err)
		}
		return
	case ok && p.kind == packetDrop:
		l.store.drop(id)
	default:
		l.store.log.Error("unknown message from the worker about mirror files", "kind", p.kind, "length", len(p.body))
	}
	if f.FD >= 0 {
		l.store.closer.close(f.FD)
	}
}

// lost tells the worker that a file is open there and nowhere else. It can give
// it again, or do without: the lock ends with the worker then.
func (l *mirrorLine) lost(id uint64, why error) {
	l.store.log.Error("a file of the mirror cannot be kept: its lock does not outlive the worker", "file", id, "why", why)
	if err := l.socket.trySend(numberPacket(packetLost, id, nil)); err != nil {
		l.store.log.Error("the worker is not told", "file", id, "err", err)
	}
}

// roomOf returns what packetEnd says.
func (p *packet) roomOf() (int, bool) {
	if p.kind != packetEnd || len(p.body) != 8 {
		return 0, false
	}
	return int(binary.NativeEndian.Uint64(p.body)), true
}
