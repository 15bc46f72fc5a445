package state

import (
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// countExtents finds out how many extents are in use: they are taken in order.
func (m *Memory) countExtents() error {
	table := m.mem[extentTable : extentTable+maxExtents]
	for m.extents < maxExtents && table[m.extents] != 0 {
		if int(table[m.extents]) > len(classes) {
			return fmt.Errorf("%w: extent %d is of class %d", ErrFormat, m.extents, table[m.extents])
		}
		m.extents++
	}
	for i := m.extents; i < maxExtents; i++ {
		if table[i] != 0 {
			return fmt.Errorf("%w: extent %d is in use, %d before it is not", ErrFormat, i, m.extents)
		}
	}
	return nil
}

// classOfExtent returns the class of an extent in use.
func (m *Memory) classOfExtent(i int) int { return int(m.mem[extentTable+i]) - 1 }

func extentOffset(i int) uint64 { return extentArea + uint64(i)*extentSize }

// checkRecords counts the records, sees to it that they are in their places
// and makes the lists of free ones.
func (m *Memory) checkRecords() error {
	m.populate()
	var room [len(classes)]int
	for i := range m.extents {
		class := m.classOfExtent(i)
		room[class] += perExtent(class)
	}
	for class, n := range room {
		m.free[class] = make([]place, 0, n)
	}
	// From the end, so that the lists give out low places first.
	for i := m.extents - 1; i >= 0; i-- {
		class := m.classOfExtent(i)
		for n := perExtent(class) - 1; n >= 0; n-- {
			p := placeOf(i, class, n)
			kind := m.mem[p.offset()]
			if kind == 0 {
				m.free[class] = append(m.free[class], p)
				continue
			}
			m.records[kind]++
			if k, data := m.record(p); recordHeader+len(data) > classes[class] {
				return fmt.Errorf("%w: record %d of kind %d does not fit its place", ErrFormat, k.id, k.kind)
			}
		}
	}
	return nil
}

// makeIndex makes the index.
func (m *Memory) makeIndex() error {
	for kind, n := range m.records {
		if n > 0 {
			m.index[kind] = make(map[uint64]place, n)
		}
	}
	for p := range m.places() {
		k, _ := m.record(p)
		index := m.index[k.kind]
		before := len(index)
		if index[k.id] = p; len(index) == before {
			return fmt.Errorf("%w: record %d of kind %d is there twice", ErrFormat, k.id, k.kind)
		}
	}
	return nil
}

// places returns the places that have a committed record in them.
func (m *Memory) places() iter.Seq[place] {
	return func(yield func(place) bool) {
		for i := range m.extents {
			class := m.classOfExtent(i)
			for n := range perExtent(class) {
				if p := placeOf(i, class, n); m.mem[p.offset()] != 0 && !yield(p) {
					return
				}
			}
		}
	}
}

// populate maps the extents in use all at once, which takes a fraction of the
// time that it takes page by page. Kernels that cannot (before Linux 5.14) do
// it page by page.
func (m *Memory) populate() {
	if m.extents > 0 {
		_ = unix.Madvise(m.mem[extentArea:extentOffset(m.extents)], unix.MADV_POPULATE_READ)
	}
}

// record returns the record at a place. Its data may reach beyond the place in
// memory that was tampered with, but not beyond the file.
func (m *Memory) record(p place) (key, []byte) {
	at := p.offset()
	h := m.mem[at : at+recordHeader]
	n := uint64(native.Uint16(h[2:]))
	from := at + recordHeader
	return key{Kind(h[0]), native.Uint64(h[8:])}, m.mem[from:min(from+n, MaxSize)]
}

// putHeader writes the header of a record.
func putHeader(b []byte, k key, n int) {
	b[0], b[1] = byte(k.kind), 0
	native.PutUint16(b[2:], uint16(n))
	native.PutUint32(b[4:], 0)
	native.PutUint64(b[8:], k.id)
}

// allocate returns an unused place of a class. Room for more is taken from the
// system now, where it can be refused, not when it is written to.
func (m *Memory) allocate(class int) place {
	if len(m.free[class]) == 0 {
		m.grow(class)
	}
	list := m.free[class]
	p := list[len(list)-1]
	m.free[class] = list[:len(list)-1]
	return p
}

// grow adds an extent. It counts from the store of its class on; until then
// its memory belongs to nobody and is all zero.
func (m *Memory) grow(class int) {
	if m.extents == maxExtents {
		panic(fmt.Sprintf("state: full: %d extents", m.extents))
	}
	i := m.extents
	if err := unix.Fallocate(m.fd, 0, int64(extentOffset(i)), extentSize); err != nil {
		panic(fmt.Sprintf("state: no memory for another %d bytes: %v", extentSize, err))
	}
	m.mem[extentTable+i] = byte(class + 1)
	m.crash("grown")
	m.extents++
	for n := perExtent(class) - 1; n >= 0; n-- {
		m.free[class] = append(m.free[class], placeOf(i, class, n))
	}
}

// Record is a record as [Memory.Records] returns it. Data is valid until the
// next transaction.
type Record struct {
	Kind Kind
	ID   uint64
	Data []byte
}

// Records returns all committed records, in no order.
func (m *Memory) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for p := range m.places() {
			k, data := m.record(p)
			if !yield(Record{k.kind, k.id, data}) {
				return
			}
		}
	}
}

// Len returns how many records there are, and how many bytes the extents take.
func (m *Memory) Len() (records, bytes int) {
	for _, index := range m.index {
		records += len(index)
	}
	return records, m.extents * extentSize
}
