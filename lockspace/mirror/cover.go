package mirror

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Cover implements [lockspace.Mirror]. Errors, beside those named there:
// [ErrLimit]; and of the calls, a [fs.PathError].
//
// It locks first and then looks whether the name still leads to the file: who
// replaces it later does that to a file that is locked.
func (m *Mirror) Cover(r *lockspace.Request) error {
	if !mirrored(r) {
		return nil
	}
	n := m.names[r.Key]
	if n == nil || n.file == nil {
		return m.coverUnopened(n)
	}
	if n.failed != nil {
		return n.failed
	}
	if n.lost != nil {
		return lockspace.ErrForeign
	}
	m.touch(n.file)
	err := m.lock(n, r)
	if err == nil || err == lockspace.ErrForeign {
		// Who is refused is told of the file that the name leads to as well: the
		// one that is open may be locked by somebody for ever.
		same, stErr := m.stillThere(n)
		switch {
		case stErr != nil:
			err = stErr
		case !same && m.inUse(n):
			m.lose(n, ErrReplaced)
			return lockspace.ErrForeign
		case !same:
			m.detach(n)
			return lockspace.ErrLookup
		}
	}
	switch {
	case err == nil:
		n.covered = m.step
		n.patience = 0
		m.clearStale(n.file, m.st.Size)
	case err == lockspace.ErrForeign:
	case m.inUse(n):
		if broken(err) {
			m.lose(n, err)
		}
	case len(n.file.names) == 1:
		m.detach(n) // another open file may do better, for the next
	}
	return err
}

// inUse reports whether something is held of n, or has been granted in this step.
func (m *Mirror) inUse(n *name) bool { return len(n.want) > 0 || n.covered == m.step }

// coverUnopened is Cover of a name without a file.
func (m *Mirror) coverUnopened(n *name) error {
	switch {
	case n != nil && n.failed != nil:
		return n.failed
	case n != nil && n.lost != nil:
		return lockspace.ErrForeign
	case m.full():
		return ErrLimit
	}
	return lockspace.ErrLookup
}

// lock locks what r needs and is not locked. An exclusive request may go over what
// is exclusive already, a shared one would weaken it. What it got before it
// fails is given back by Recorded.
func (m *Mirror) lock(n *name, r *lockspace.Request) error {
	f := n.file
	switch {
	case f.have.has(r.Range, r.Mode):
		return nil
	case r.Mode == lockspace.Exclusive && f.readOnly:
		return wrap("lock", n.path, unix.EACCES)
	case len(f.have) == 0: // most often
		return m.lockPart(n, r.Range, r.Mode)
	}
	missing := f.have.missing(r.Range, r.Mode)
	if r.Mode == lockspace.Exclusive {
		return m.lockPart(n, hull(missing), r.Mode)
	}
	for _, part := range missing {
		if err := m.lockPart(n, part, r.Mode); err != nil {
			return err
		}
	}
	return nil
}

// lockPart is lock for a part of it.
func (m *Mirror) lockPart(n *name, part lockspace.Range, mode lockspace.Mode) error {
	err := m.take(n.file, part, mode)
	if taken(err) {
		return lockspace.ErrForeign
	}
	return wrap("lock", n.path, err)
}

// take locks a part of f, none of which is locked in a stronger mode. Errors: of
// the call as it is, see [taken].
func (m *Mirror) take(f *file, part lockspace.Range, mode lockspace.Mode) error {
	err := m.setlk(f.fd, typeOf(mode), part)
	if taken(err) && len(f.sides) > 0 {
		// It may be a thread of ours that has got what somebody waited for.
		for _, fd := range f.sides {
			m.setlk(fd, unix.F_UNLCK, lockspace.Whole)
		}
		err = m.setlk(f.fd, typeOf(mode), part)
	}
	if err != nil {
		return err
	}
	f.have = f.have.with(part, mode)
	f.changes++
	if len(f.awaits) > 0 && mode == lockspace.Exclusive {
		// A shared wait need not wait for this, if it is of the same party.
		for _, n := range f.names {
			m.poll(n)
		}
	}
	return nil
}

// stillThere reports whether n leads to its file. Errors: if that cannot be said.
func (m *Mirror) stillThere(n *name) (bool, error) {
	path, err := m.pathOf(n)
	if err != nil {
		return false, err
	}
	return m.leadsTo(path, n.file.inode, &m.st)
}

// lose says that what is held of n is not locked any more.
func (m *Mirror) lose(n *name, why error) {
	if n.lost != nil {
		return
	}
	n.lost = why
	m.lost++
	if n.file != nil {
		m.abandon(n.file)
	}
	m.config.Lost(n.key, why)
}
