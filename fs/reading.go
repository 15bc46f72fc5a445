package fs

import (
	"container/list"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// What readers of a control file are in the middle of. It is one moment, for
// short reads too, and for as long as the file is open, or until it is read at
// offset 0 again.
//
// It outlives the process, in pieces, if it has at most [maxKept] bytes and all
// that is kept has at most [maxKeptInAll]: whoever opens many files cannot fill the
// memory. Readers who share it share the pieces. Of what is longer, or was too
// much, the next process knows the size. Whoever is in the middle of it, and not
// at its end, gets ESTALE then: to go on in another list, of another moment, would
// show locks twice, or not at all, and a reader could not know. It may read again
// from the beginning. The same befalls who has not read for longest, when more than
// [maxInMemory] is being read: a list of a million locks is a hundred megabytes, and
// files may be opened and left.

const (
	// pieceSize is the most bytes of it in a record.
	pieceSize = 4096
	// maxPieces is in the format of records: see pieceID.
	maxPieces    = 64
	maxKept      = maxPieces * pieceSize
	maxKeptInAll = 16 << 20
	maxInMemory  = 512 << 20
)

// ContentRecord is what must outlive the process of what the reader of a control
// file is in the middle of.
type ContentRecord struct {
	// Handle is the open file's number.
	Handle uint64
	// Size is how many bytes it has; Text is them, if one piece is enough.
	Size uint64
	Text []byte
	// Pieces numbers the pieces, which other open files may have too. 0: there are
	// none.
	Pieces uint64
}

// reading is what readers are in the middle of.
type reading struct {
	// text is nil if it is lost; place is its place in [readings] else.
	text  []byte
	place *list.Element
	size  uint64
	// pieces is as in ContentRecord, and readers the number of open files.
	pieces  uint64
	readers int
}

func newReading(text []byte) *reading { return &reading{text: text, size: uint64(len(text))} }

// pieceID is the number of a piece's record.
func pieceID(pieces uint64, i int) uint64 { return pieces*maxPieces + uint64(i) }

// pieceCount is how many pieces size bytes have.
func pieceCount(size uint64) int { return int((size + pieceSize - 1) / pieceSize) }

func (r *reading) isLost() bool { return r.text == nil && r.size > 0 }

// readings are those that are in memory, and not lost.
type readings struct {
	order list.List // of *reading, in the order in which they were read last
	bytes uint64
	most  uint64
}

// add adds one. Others may be lost by it.
func (m *readings) add(r *reading) {
	r.place = m.order.PushBack(r)
	m.bytes += r.size
	for m.bytes > m.most && m.order.Len() > 1 {
		oldest := m.order.Front().Value.(*reading)
		m.remove(oldest)
		oldest.text = nil
	}
}

func (m *readings) remove(r *reading) {
	if r.place != nil {
		m.order.Remove(r.place)
		m.bytes -= r.size
		r.place = nil
	}
}

// read says that one is being read.
func (m *readings) read(r *reading) {
	if r.place != nil {
		m.order.MoveToBack(r.place)
	}
}

// readOn is a READ of what an open file is in the middle of.
func (f *FS) readOn(h *controlHandle, in *fuse.ReadIn) (fuse.ReadResult, fuse.Status) {
	r := h.reading
	if r.isLost() && in.Offset < r.size {
		return nil, errStale
	}
	f.readings.read(r)
	return part(r.text, in), fuse.OK
}

// beginReading has the reader of an open file read r from now on.
func (f *FS) beginReading(h *controlHandle, r *reading) {
	f.leaveReading(h)
	h.reading = r
	if r.readers++; r.readers == 1 {
		f.readings.add(r)
	}
	record := ContentRecord{Handle: h.ID, Size: r.size}
	if r.size <= pieceSize {
		record.Text = r.text
	} else {
		f.keepPieces(r)
		record.Pieces = r.pieces
	}
	f.journal.PutContent(&record)
}

// keepPieces puts the pieces into the journal, if they are not there and it has
// room.
func (f *FS) keepPieces(r *reading) {
	if r.pieces != 0 || r.size > maxKept || f.kept+r.size > maxKeptInAll {
		return
	}
	f.lastPieces++
	r.pieces = f.lastPieces
	f.kept += r.size
	for i := range pieceCount(r.size) {
		from := i * pieceSize
		f.journal.PutPiece(pieceID(r.pieces, i), r.text[from:min(from+pieceSize, len(r.text))])
	}
}

// leaveReading is the end of what the reader of an open file is in the middle of. The
// record of that is left, to be replaced or dropped.
func (f *FS) leaveReading(h *controlHandle) {
	r := h.reading
	if r == nil {
		return
	}
	h.reading = nil
	if r.readers--; r.readers > 0 {
		return
	}
	f.readings.remove(r)
	if r.pieces == 0 {
		return
	}
	for i := range pieceCount(r.size) {
		f.journal.DropPiece(pieceID(r.pieces, i))
	}
	f.kept -= r.size
	r.pieces = 0
}

// restoreReadings goes on with what readers were in the middle of.
func (f *FS) restoreReadings(s *Saved) error {
	shared := make(map[uint64]*reading)
	for i := range s.contents {
		c := &s.contents[i]
		h := f.controls[c.Handle]
		if h == nil || h.reading != nil {
			return fmt.Errorf("content: no open file %d, or twice: %w", c.Handle, ErrRecord)
		}
		r := shared[c.Pieces]
		switch {
		case c.Size <= pieceSize:
			r = newReading(c.Text)
		case c.Pieces == 0:
			r = &reading{size: c.Size}
		case r == nil:
			r = &reading{size: c.Size, pieces: c.Pieces, text: s.joinPieces(c)}
			shared[c.Pieces] = r
			f.kept += r.size
			f.lastPieces = max(f.lastPieces, r.pieces)
		}
		if r.size != c.Size || r.pieces != 0 && r.text == nil {
			return fmt.Errorf("content of open file %d is not whole: %w", c.Handle, ErrRecord)
		}
		h.reading = r
		if r.readers++; r.readers == 1 && !r.isLost() {
			f.readings.add(r)
		}
	}
	if len(s.pieces) > 0 {
		return fmt.Errorf("%d pieces of nothing: %w", len(s.pieces), ErrRecord)
	}
	return nil
}

// joinPieces takes the pieces of a content; nil if one is missing, or not as long
// as it should be.
func (s *Saved) joinPieces(c *ContentRecord) []byte {
	if c.Size > maxKept {
		return nil
	}
	text := make([]byte, 0, c.Size)
	for i := range pieceCount(c.Size) {
		id := pieceID(c.Pieces, i)
		piece := s.pieces[id]
		if uint64(len(piece)) != min(c.Size-uint64(len(text)), pieceSize) {
			return nil
		}
		text = append(text, piece...)
		delete(s.pieces, id)
	}
	return text
}
