package fs

import (
	"slices"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
)

// The control file events, as a stream: a read waits until there is something
// to read, unless the file is open with O_NONBLOCK (EAGAIN), and poll(2) says
// when there is. It has no end while the mount lasts.
//
// The lines are in one ring, bounded in number and in bytes, for all readers, of
// whom each has a place in it. Who falls behind the ring is told how many lines
// he has missed. Lines are put there while somebody reads; nobody costs nothing.
//
// A reader is given a page of whole lines at a time, its window. Reads at an
// offset in the window get what is there, whatever their size, and may come
// again, as a shell does that reads more than a line and seeks back. A read behind
// it gets the next window, which begins at that offset from then on. Before it
// there is nothing any more: a read there finds the end of the file, once, and the
// next window begins there. The window is in the journal with each change: so
// a read is answered once though processes die (an answer to a read that changed
// nothing would be made again, of other lines), and its rest is there for the
// next process.
//
// A READ never gets both as much as it asks for and the last byte of what there
// is: the kernel would take it for a part of a longer read(2) and come for more,
// which may have to wait, with what it has. (But one byte, if it asks for one.)
//
// A read that waits is in the journal. The next process has a line for every
// stream, recovered, and so ends all these waits.
//
// Wakeups are batched: what happens to locks wakes nobody, a timer does, and at
// most so many windows are given in a time ([streamRate]) that a crowd of readers
// leaves the locks alone. Each gets less then, and is told what it has missed.
//
// tail -f works since the file can seek and shows a size. lseek(2) to its end goes
// to that of the window, which has one line in the beginning: tail does not wait
// for a last line then. fstat(2), by which it looks for more, shows more than
// anybody has read, and the present time as that of the last change. (While others
// look at it too, the kernel may give tail that size for the end. Then it does not
// find the first line again, and follows all the same.) But where a
// file can seek, the kernel lets no two calls at once read through one open file
// description: the second waits until the first is done, and no signal ends that.

const (
	// ringLines and ringBytes bound what is kept for slow readers.
	ringLines = 4096
	ringBytes = 4 << 20
	// windowSize is the most that is in a window. It is a record.
	windowSize = pieceSize - 1
	// sizeAhead is how much there seems to be, in bytes, behind what was read: so
	// much tail -f reads at a time.
	sizeAhead = 1 << 20
	// streamDelay is how long readers wait for more to happen.
	streamDelay = 10 * time.Millisecond
)

// streamRate is how many windows are given, to all readers together.
var streamRate = rate{every: time.Second / 1500, burst: 32}

// StreamRecord is what must outlive the process of an open stream.
type StreamRecord struct {
	// Handle is the open file's number.
	Handle uint64
	// From is the offset of what the reader is in the middle of, Window.
	From   uint64
	Window []byte
	// Cut: the last line of the window goes on in the next.
	Cut bool
}

// ReadRecord is a READ that waits.
type ReadRecord struct {
	Unique uint64
	Handle uint64
	Offset uint64
	Size   uint32
}

// reader is an open stream.
type reader struct {
	StreamRecord
	control *controlHandle
	// at is the number of the next line, and public how many of those before it
	// everybody sees; rest is what is left of a line that is longer than a window.
	at, public uint64
	rest       []byte
	// next is the offset behind what was read last.
	next uint64
}

// stream is the ring and its readers. Lines are numbered from 1; those in the
// ring are first to last.
type stream struct {
	ring        []*event // by number, modulo ringLines
	first, last uint64
	bytes       int
	// public is how many of the lines up to last everybody sees.
	public  uint64
	readers map[uint64]*reader // by handle
	parked  []ReadRecord       // in the order in which they came
	// asleep are the readers that somebody polls who may sleep.
	asleep  map[uint64]*reader
	limit   limiter
	ticking bool
	comms   comms
	// workers is how many processes have served the mount; told says that its
	// readers know.
	workers uint64
	told    bool
}

func newStream() stream {
	return stream{first: 1, readers: make(map[uint64]*reader), asleep: make(map[uint64]*reader), workers: 1}
}

func (s *stream) isRead() bool { return len(s.readers) > 0 }

func (s *stream) line(n uint64) *event { return s.ring[n%ringLines] }

// size is how much room an event takes, as far as it has no bounds.
func (e *event) size() int { return len(e.path) + len(e.line) }

// happened adds a line: behind the one that says that the process was replaced, if
// that has not been told.
func (f *FS) happened(e *event) {
	f.recovered()
	s := &f.stream
	if s.ring == nil {
		s.ring = make([]*event, ringLines)
	}
	s.last++
	if s.last-s.first == ringLines {
		s.forget()
	}
	s.ring[s.last%ringLines] = e
	if e.before = s.public; e.everybody {
		s.public++
	}
	for s.bytes += e.size(); s.bytes > ringBytes && s.first < s.last; {
		s.forget()
	}
	f.tickLater()
}

// forget takes the first line out of the ring.
func (s *stream) forget() {
	e := s.line(s.first)
	s.ring[s.first%ringLines] = nil
	s.bytes -= e.size()
	s.first++
}

// publicBefore is how many of the lines before number n, which is in the ring or
// the next, everybody sees.
func (s *stream) publicBefore(n uint64) uint64 {
	if n > s.last {
		return s.public
	}
	return s.line(n).before
}

// beginStream makes the stream of an open file.
func (f *FS) beginStream(h *controlHandle) {
	f.addReader(h, StreamRecord{Handle: h.ID, Window: f.firstLine()})
	f.journal.PutStream(&h.stream.StreamRecord)
}

// firstLine returns the line with which a stream begins: it has the same length
// always.
func (f *FS) firstLine() []byte {
	e := event{kind: eventOpened, at: f.clock.Now().Time(), number: eventSchema}
	return e.append(nil)
}

func (f *FS) addReader(h *controlHandle, r StreamRecord) {
	s := &f.stream
	h.stream = &reader{StreamRecord: r, control: h, at: s.last + 1, public: s.public, next: r.From}
	s.readers[h.ID] = h.stream
}

// endStream ends one. With the last, the ring goes.
func (f *FS) endStream(r *reader) {
	s := &f.stream
	f.endReads(unix.EBADF, func(read *ReadRecord) bool { return read.Handle == r.Handle })
	delete(s.readers, r.Handle)
	delete(s.asleep, r.Handle)
	f.journal.DropStream(r.Handle)
	if len(s.readers) == 0 {
		s.ring, s.first, s.bytes = nil, s.last+1, 0
		s.comms.forget()
	}
}

// readStream reads from an open stream.
func (f *FS) readStream(r *reader, in *fuse.ReadIn) (fuse.ReadResult, fuse.Status) {
	if in.Offset < r.From {
		r.From, r.Window, r.next = in.Offset, nil, in.Offset
		f.journal.PutStream(&r.StreamRecord)
		return fuse.ReadResultData(nil), fuse.OK
	}
	if f.fill(r, in.Offset) {
		return fuse.ReadResultData(r.take(in.Offset, in.Size)), fuse.OK
	}
	switch {
	case in.Flags&unix.O_NONBLOCK != 0:
		f.sleeps(r)
		return nil, fuse.EAGAIN
	case f.closing:
		return fuse.ReadResultData(nil), fuse.OK
	}
	read := ReadRecord{Unique: in.Unique, Handle: r.Handle, Offset: in.Offset, Size: in.Size}
	f.stream.parked = append(f.stream.parked, read)
	f.journal.PutRead(&read)
	f.tickLater()
	return nil, device.Parked
}

// fill sees to it that there is something at an offset, and reports whether
// there is, and may be given now.
func (f *FS) fill(r *reader, offset uint64) bool {
	if r.has(offset) {
		return true
	}
	if !f.mayGive(r) {
		return false
	}
	f.stream.limit.allow(streamRate, f.clock.Now().Boot)
	r.From, r.Window, r.Cut = offset, f.window(r), len(r.rest) > 0
	f.journal.PutStream(&r.StreamRecord)
	return true
}

// has reports whether there is something at an offset in the window.
func (r *reader) has(offset uint64) bool {
	return offset >= r.From && offset-r.From < uint64(len(r.Window))
}

// mayGive reports whether a reader has more than its window, and may have it.
func (f *FS) mayGive(r *reader) bool {
	return f.hasMore(r) && f.stream.limit.ready(streamRate, f.clock.Now().Boot)
}

// hasMore reports whether there is more for a reader than its window.
func (f *FS) hasMore(r *reader) bool {
	s := &f.stream
	if len(r.rest) > 0 || s.missing(r) > 0 {
		return true
	}
	r.at = max(r.at, s.first)
	for r.at <= s.last && !s.line(r.at).sees(r.uid()) {
		r.at++
	}
	r.public = s.publicBefore(r.at)
	return r.at <= s.last
}

// missing is how many lines a reader will not get any more.
func (s *stream) missing(r *reader) uint64 {
	switch {
	case r.at >= s.first:
		return 0
	case r.uid() == 0:
		return s.first - r.at
	}
	return s.publicBefore(s.first) - r.public
}

func (r *reader) uid() uint32 { return r.control.Opener.UID }

// window returns the next lines for a reader, of whom it is known that there are
// some.
func (f *FS) window(r *reader) []byte {
	s, b := &f.stream, append([]byte(nil), r.rest...)
	r.rest = nil
	if n := s.missing(r); n > 0 {
		e := event{kind: eventDropped, at: f.clock.Now().Time(), number: n}
		b = e.append(b)
	}
	for r.at = max(r.at, s.first); r.at <= s.last; r.at++ {
		e := s.line(r.at)
		if !e.sees(r.uid()) {
			continue
		}
		if e.line == nil {
			e.line = e.append(nil)
			s.bytes += len(e.line)
		}
		if len(b) > 0 && len(b)+len(e.line) > windowSize {
			break
		}
		b = append(b, e.line...)
	}
	r.public = s.publicBefore(r.at)
	if len(b) > windowSize {
		r.rest = slices.Clone(b[windowSize:])
		b = b[:windowSize]
	}
	return b
}

// take returns what a READ gets of the window.
func (r *reader) take(offset uint64, size uint32) []byte {
	left := r.Window[offset-r.From:]
	n := min(uint64(size), uint64(len(left)))
	if n == uint64(len(left)) && n == uint64(size) && n > 1 {
		n--
	}
	r.next = offset + n
	return left[:n]
}

// noContent is the content of a stream's entry.
func noContent(*FS, *node) []byte { return nil }

// end is what a stream shows as its size to lseek(2): see above.
func (r *reader) end() uint64 { return r.From + uint64(len(r.Window)) }

// streamAttr is what it shows to stat(2).
func (f *FS) streamAttr(out *fuse.Attr) {
	for _, r := range f.stream.readers {
		out.Size = max(out.Size, r.next)
	}
	out.Size += sizeAhead
	out.Mtime, out.Mtimensec = seconds(f.clock.Now())
	out.Ctime, out.Ctimensec = out.Mtime, out.Mtimensec
}
