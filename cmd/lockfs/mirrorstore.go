package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// mirrorStore is the keeper's copies of the mirror's open files. Their locks
// belong to the open file, so they last while one process has it: the lock of a
// worker that was killed is not free for a moment.
//
// They are not for the service manager, which would have to keep thousands. If
// the keeper is killed, and its worker ends with it, the mirror's locks are
// free until the worker of the next keeper, which inherits no files, has opened
// and locked them anew; what somebody else took meanwhile is lost.
//
// What it is given comes from a worker, which may be wrong in any way: it costs
// the files of the mirror at most.
//
// A program that is started closes its copies of the files as it begins, and on
// FUSE each close(2) waits for an answer: a backing directory there that hangs
// just then holds up the start of a worker.
type mirrorStore struct {
	log *slog.Logger
	// room is how many files are kept. A third as many descriptors are left: half
	// of them for files that are being closed, which the worker does not count.
	room   int
	closer closer

	mu sync.Mutex
	// files, by number. What is in it is open; see sendBatch.
	files map[uint64]mirrorFile
}

func newMirrorStore(log *slog.Logger) *mirrorStore {
	return &mirrorStore{log: log, room: mirrorRoom(), files: make(map[uint64]mirrorFile)}
}

// keep keeps a file, in the place of one that had the number. The descriptor
// belongs to the store from here on.
func (s *mirrorStore) keep(f mirrorFile) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, replaced := s.files[f.ID]
	var err error
	switch {
	case f.FD < 0:
		// The kernel had no descriptor for it: somebody has lowered the limit.
		return errors.New("no descriptor is left")
	case len(f.Label) > labelMax:
		err = fmt.Errorf("a label of %d bytes", len(f.Label))
	case !replaced && (len(s.files) >= s.room || len(s.files)+s.closer.open() >= s.room+s.room/6):
		err = fmt.Errorf("%d files are kept, and %d being closed", len(s.files), s.closer.open())
	}
	if err != nil {
		s.closer.close(f.FD)
		return err
	}
	s.files[f.ID] = f
	if replaced {
		s.closer.close(old.FD)
	}
	return nil
}

// drop gives a file up. One that is not there is none.
func (s *mirrorStore) drop(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.files[id]; ok {
		delete(s.files, id)
		s.closer.close(f.FD)
	}
}

// numbers returns those of all files, in order.
func (s *mirrorStore) numbers() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.files))
}

// sendBatch sends a packet of the first of some files, as trySend does, and
// returns the numbers of the others. It is done under the mutex, so that the
// descriptors are still those files.
func (s *mirrorStore) sendBatch(to *mirrorSocket, ids []uint64) (rest []uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, fds := []byte{packetFiles}, []int(nil)
	for rest = ids; len(rest) > 0 && len(fds) < filesPerPacket; rest = rest[1:] {
		if f, ok := s.files[rest[0]]; ok {
			b, fds = appendEntry(b, f), append(fds, f.FD)
		}
	}
	if len(fds) == 0 {
		return rest, nil
	}
	if err := to.trySend(b, fds...); err != nil {
		return ids, err
	}
	return rest, nil
}

// setCloseOnExec is that of all files.
func (s *mirrorStore) setCloseOnExec(on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		if err := setCloseOnExec(f.FD, on); err != nil {
			return fmt.Errorf("mirror file %d: %w", f.ID, err)
		}
	}
	return nil
}
