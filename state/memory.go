package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Errors of [Open].
var (
	// ErrFormat: the file is not a state file, or contradicts itself.
	ErrFormat = errors.New("not a usable state")
	// ErrVersion: the file is of another version of the format.
	ErrVersion = errors.New("state of another version")
)

var native = binary.NativeEndian

// Memory is the mapping of a memory file.
type Memory struct {
	fd  int
	mem []byte

	// free are the unused places of each class; records counts the records of
	// each kind that the memory was taken over with. index finds a record, by
	// kind and number: it is made while the records are read, and is there when
	// indexed is closed, unless that failed (twice).
	free    [len(classes)][]place
	records [maxKind + 1]int
	extents int
	index   [maxKind + 1]map[uint64]place
	indexed chan struct{}
	twice   error
	ready   bool // indexed, and found to be good

	tx    Tx
	slots []*Slot

	// step, if set, is called after each store that a successor could be left
	// with.
	step func(string)
}

// key names a record.
type key struct {
	kind Kind
	id   uint64
}

// Kind tells records apart; its user numbers them, from 1.
type Kind = uint8

const maxKind = 255

// Create makes a memory file with a number of slots and returns its
// descriptor, which a process has to hold open for the memory to live.
func Create(slots int) (fd int, err error) {
	fd, err = unix.MemfdCreate("lockfs-state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	if err := initialize(fd, slots); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func initialize(fd, slots int) error {
	if slots < 1 || slotArea+slots*slotSize > redoArea {
		return fmt.Errorf("%d slots: out of range", slots)
	}
	if err := unix.Ftruncate(fd, MaxSize); err != nil {
		return fmt.Errorf("size of the state: %w", err)
	}
	// Nobody can make the file smaller under its users and have them killed.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW); err != nil {
		return fmt.Errorf("seal the state: %w", err)
	}
	var h [headerSize]byte
	copy(h[offMagic:], magic)
	native.PutUint32(h[offVersion:], Version)
	native.PutUint32(h[offSlots:], uint32(slots))
	if _, err := unix.Pwrite(fd, h[:], 0); err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	return nil
}

// Open takes a memory file over: it carries out what its last user had
// committed. [Memory.Records], [Memory.Pending] and [Memory.Undelivered] then
// tell what there is and what is left to do; [Memory.Ready] comes after them and
// before the first change. Errors: [ErrFormat], [ErrVersion], those of mmap(2).
//
// step, if not nil, is called with a name after each store that a successor
// could be left with, for tests to die there.
func Open(fd int, step func(string)) (*Memory, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if st.Size != MaxSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrFormat, st.Size)
	}
	mem, err := unix.Mmap(fd, 0, MaxSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map the state: %w", err)
	}
	m := &Memory{fd: fd, mem: mem, step: step}
	m.tx.m = m
	if err := m.recover(); err != nil {
		_ = unix.Munmap(mem)
		return nil, err
	}
	m.indexed = make(chan struct{})
	go func() {
		defer close(m.indexed)
		m.twice = m.makeIndex()
	}()
	return m, nil
}

// Ready waits until the memory can be changed, which is prepared in the
// background from Open on: whoever takes a memory over has something else to
// do meanwhile. To be called before the first commit; a memory for which it
// returns an error must not be changed. Errors: [ErrFormat].
func (m *Memory) Ready() error {
	<-m.indexed
	m.ready = m.twice == nil
	return m.twice
}

// await waits until there is an index.
func (m *Memory) await() {
	if m.ready {
		return
	}
	if err := m.Ready(); err != nil {
		panic("state: changed in spite of an error: " + err.Error())
	}
}

// recover is Open on a mapping.
func (m *Memory) recover() error {
	if string(m.mem[offMagic:offMagic+len(magic)]) != magic {
		return fmt.Errorf("%w: no magic number", ErrFormat)
	}
	if v := native.Uint32(m.mem[offVersion:]); v != Version {
		return fmt.Errorf("%w: %d, this program has %d", ErrVersion, v, Version)
	}
	if err := m.countExtents(); err != nil {
		return err
	}
	if err := m.openSlots(); err != nil {
		return err
	}
	if err := m.redo(); err != nil {
		return err
	}
	return m.checkRecords()
}

// Close unmaps the memory. The file stays.
func (m *Memory) Close() error {
	<-m.indexed
	return unix.Munmap(m.mem)
}

// at returns the word at an offset, for stores that another process may find.
func (m *Memory) at(offset uint64) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&m.mem[offset]))
}

// crash is where a process could die.
func (m *Memory) crash(step string) {
	if m.step != nil {
		m.step(step)
	}
}
