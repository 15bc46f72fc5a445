package mirror

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Taking over from a process that has died.

// label returns what the keeper knows a file of k by: the directory's number in 8
// bytes, the least first, and the name. It is a format that outlives the program.
func label(k lockspace.Key) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, k.Dir), k.Name...)
}

func keyOf(label []byte) (k lockspace.Key, ok bool) {
	if len(label) <= 8 {
		return k, false
	}
	return lockspace.Key{Dir: binary.LittleEndian.Uint64(label), Name: string(label[8:])}, true
}

// Inherit takes in a file that the keeper has from another process, and its
// locks, whatever they are. It is called for each of them in the first step, before
// [Mirror.Settled] for each lock that is held; the step's Recorded makes the locks
// what is held, unless something is held that has no file ([Mirror.Missing]): then
// nothing is given back before that has been seen to. The order of the files does
// not matter. What waits is to be reconsidered afterwards; so it says again that
// it does ([Mirror.Await]).
//
// With an error the file is closed and the keeper told to forget it.
func (m *Mirror) Inherit(id uint64, label []byte, fd int) error {
	m.lastID = max(m.lastID, id)
	m.restoring = true
	m.files++
	f := &file{fd: fd, id: id, more: true}
	k, ok := keyOf(label)
	if !ok {
		m.closeFile(f)
		return fmt.Errorf("mirror: file %d of the keeper has no name: %q", id, label)
	}
	var err error
	if f.inode, err = regular(fd); err != nil {
		m.closeFile(f)
		return wrap("inherit", k.Name, err)
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		m.closeFile(f)
		return wrap("inherit", k.Name, err)
	}
	f.readOnly = flags&unix.O_ACCMODE == unix.O_RDONLY
	f.strange = m.config.Backing.isStrange(fd)
	n := m.name(k)
	if n.file != nil {
		// The process died when it had opened the file twice, or changed to one
		// that had replaced it. What is held is locked on one of the two.
		m.extras = append(m.extras, extra{n, f})
		return nil
	}
	m.attach(n, f)
	m.touch(f)
	return nil
}

// extra is a file that may be the one of a name.
type extra struct {
	name *name
	file *file
}

// chooseExtras finds out which of several files of a name the lock is on: with it,
// the others cannot have it too. It is called when it is known what is held.
func (m *Mirror) chooseExtras() {
	for _, e := range m.extras {
		n, other := e.name, e.file
		if len(n.want) > 0 && !m.has(n.file, n.want) && m.has(other, n.want) {
			m.detach(n)
			m.attach(n, other)
		} else {
			m.closeFile(other)
		}
	}
	m.extras = nil
}
