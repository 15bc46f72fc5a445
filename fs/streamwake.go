package fs

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Who waits for a stream: reads that are parked, and pollers.

// tickLater has those be looked at soon who wait for a stream, if anybody does.
func (f *FS) tickLater() {
	s := &f.stream
	if s.ticking || f.closing || !f.isAwaited() {
		return
	}
	s.ticking = true
	time.AfterFunc(streamDelay, func() { f.dev.Do(f.tick) })
}

// isAwaited reports whether anybody waits for a stream, who may have something.
func (f *FS) isAwaited() bool {
	for _, read := range f.stream.parked {
		if f.hasMore(f.stream.readers[read.Handle]) {
			return true
		}
	}
	for _, r := range f.stream.asleep {
		if f.hasMore(r) {
			return true
		}
	}
	return false
}

// tick gives what there is to those who wait, as far as the rate allows.
func (f *FS) tick() {
	s := &f.stream
	s.ticking = false
	s.parked = slices.DeleteFunc(s.parked, func(read ReadRecord) bool {
		r := s.readers[read.Handle]
		if !f.fill(r, read.Offset) {
			return false
		}
		f.endRead(read.Unique)
		f.dev.AnswerData(read.Unique, r.take(read.Offset, read.Size))
		return true
	})
	for _, r := range s.asleep {
		if f.mayGive(r) {
			delete(s.asleep, r.Handle)
			f.dev.NotifyPoll(r.control.PollID)
		}
	}
	f.tickLater()
}

// endRead takes a read that is answered out of the journal.
func (f *FS) endRead(unique uint64) { f.journal.DropRead(unique) }

// endReads answers all reads that wait, with an errno or, with 0, the end of the
// stream: those that which says.
func (f *FS) endReads(errno unix.Errno, which func(*ReadRecord) bool) {
	s := &f.stream
	s.parked = slices.DeleteFunc(s.parked, func(read ReadRecord) bool {
		if !which(&read) {
			return false
		}
		f.endRead(read.Unique)
		f.dev.Answer(read.Unique, errno)
		return true
	})
}

// interruptRead ends the wait of a read whose caller got a signal.
func (f *FS) interruptRead(unique uint64) {
	if len(f.stream.parked) > 0 {
		f.endReads(unix.EINTR, func(r *ReadRecord) bool { return r.Unique == unique })
	}
}

// pollStream is [FS.Poll] of a stream.
func (f *FS) pollStream(r *reader, pollID uint64, events uint32, notify bool) uint32 {
	if notify && r.control.PollID != pollID {
		r.control.PollID = pollID
		f.journal.PutHandle(&r.control.HandleRecord)
	}
	if r.has(r.next) || f.mayGive(r) {
		return events & readable
	}
	f.sleeps(r)
	return 0
}

// sleeps has whoever polls a stream, if anybody does, be woken when there is more.
func (f *FS) sleeps(r *reader) {
	if r.control.PollID != 0 {
		f.stream.asleep[r.Handle] = r
	}
	f.tickLater()
}

// restoreStreams goes on with the streams that were open when the process died,
// and the reads that waited. All get a line that says so, and with it every wait
// ends; pollers are woken.
func (f *FS) restoreStreams(s *Saved) error {
	f.stream.workers = max(s.workers, 1) + 1
	for i := range s.streams {
		r := &s.streams[i]
		h := f.controls[r.Handle]
		if h == nil {
			return fmt.Errorf("stream: no open file %d: %w", r.Handle, ErrRecord)
		}
		f.addReader(h, *r)
		if h.PollID != 0 {
			f.stream.asleep[h.ID] = h.stream
		}
		if r.Cut {
			h.stream.rest = []byte("\n")
		}
	}
	f.stream.parked = s.reads
	slices.SortFunc(f.stream.parked, func(a, b ReadRecord) int { return cmp.Compare(a.Unique, b.Unique) })
	for _, read := range f.stream.parked {
		if f.stream.readers[read.Handle] == nil {
			return fmt.Errorf("read %d: no stream %d: %w", read.Unique, read.Handle, ErrRecord)
		}
	}
	return nil
}

// TookOver counts this process, which has taken over. A step of its own, since the
// requests that it found are to be carried out as if nobody had died.
func (f *FS) TookOver() {
	f.journal.PutWorkers(f.stream.workers)
	if f.mirror != nil {
		f.table.ReconsiderAll()
	}
	for _, x := range f.made.begun {
		x.inherited = false // what is not on a detour again has been answered
	}
}

// recovered is the first thing that readers hear of a process which has taken over:
// before what happens in its first step, or when that ends. The answers of the
// process before have been repeated then.
func (f *FS) recovered() {
	s := &f.stream
	if s.told || s.workers == 1 {
		return
	}
	s.told = true
	if s.isRead() {
		f.happened(&event{
			kind: eventRecovered, at: f.clock.Now().Time(), number: s.workers, audience: audience{everybody: true},
		})
	}
}
