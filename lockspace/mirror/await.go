package mirror

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Await implements [lockspace.Mirror].
//
// Who waits for an exclusive lock does it on the lock's own open file: what the
// thread gets is locked at once, for all that are held there, and too much of it is
// only ever more than it takes. A shared lock got that way would weaken what the
// file holds exclusively by then. So the thread waits on an open file of its own:
// when it has the lock, so can the lock's own file, without anybody in between.
func (m *Mirror) Await(r *lockspace.Request) {
	if !mirrored(r) {
		return
	}
	n := m.name(r.Key)
	switch {
	case n.lost != nil: // Settled sees to it
	case n.file == nil && n.failed == lockspace.ErrForeign:
		m.poll(n) // somebody holds it without a lock, and does not say when he leaves
	case n.file == nil:
		m.openFor(n, r)
	default:
		m.awaitLock(n, r)
	}
}

// openFor opens n's file for somebody who waits.
func (m *Mirror) openFor(n *name, r *lockspace.Request) {
	if n.opening {
		return
	}
	n.opening = true
	p := m.Prepare(r)
	go func() {
		m.openings <- struct{}{}
		p.Run()
		<-m.openings
		m.do(func() {
			n.opening = false
			n.failed = m.Adopt(p)
			m.config.Reconsider(n.key)
		})
	}()
}

// awaitLock has a thread wait for what r needs and is not locked, or, if there are
// threads enough, has it tried every now and then.
func (m *Mirror) awaitLock(n *name, r *lockspace.Request) {
	f := n.file
	m.touch(f)
	what, ok := m.inTheWay(f, r)
	switch {
	case !ok:
		m.poll(n) // it may be had by now
	case f.awaits[what]: // for both
	case m.config.Backing.remote, m.threads >= maxThreads, len(f.awaits) >= maxFileThreads:
		m.poll(n)
	case what.Mode == lockspace.Exclusive:
		m.startAwait(f, what)
		go m.waitExclusive(f, what)
	default:
		m.startAwait(f, what)
		go m.waitShared(f, what, n.path)
	}
}

// inTheWay returns what to wait for: of what r needs, the first part that it
// cannot have. If exclusive, it is all of it, which is got at once or not at all.
func (m *Mirror) inTheWay(f *file, r *lockspace.Request) (span, bool) {
	missing := f.have.missing(r.Range, r.Mode)
	if len(missing) == 0 {
		return span{}, false
	}
	if r.Mode == lockspace.Exclusive {
		return span{hull(missing), r.Mode}, true
	}
	for _, part := range missing {
		if _, found, err := getlk(m.fcntl, f.fd, r.Mode, part); found || err != nil {
			return span{part, r.Mode}, true
		}
	}
	return span{}, false
}

func (m *Mirror) startAwait(f *file, what span) {
	if f.awaits == nil {
		f.awaits = make(map[span]bool)
	}
	f.awaits[what] = true
	m.threads++
}

// waitExclusive is the thread of an exclusive wait.
func (m *Mirror) waitExclusive(f *file, what span) {
	err := m.setlkw(f.fd, what.Mode, what.Range)
	m.do(func() {
		f.more = true
		m.waited(f, what, err)
	})
}

// waitShared is the thread of a shared wait.
func (m *Mirror) waitShared(f *file, what span, path string) {
	fd, err := m.config.Backing.openSide(path, f.inode)
	if err == errMoved { // what path leads to by now is to be found out
		m.do(func() { m.waited(f, what, nil) })
		return
	}
	if err != nil {
		err = wrap("open", path, err)
		m.do(func() { m.waited(f, what, err) })
		return
	}
	m.do(func() { f.sides = append(f.sides, fd) })
	err = m.setlkw(fd, what.Mode, what.Range)
	m.do(func() {
		// The waiter gets it while this still has it.
		m.waited(f, what, err)
		f.sides = slices.DeleteFunc(f.sides, func(side int) bool { return side == fd })
		unix.Close(fd)
	})
}

// openSide opens the file i, to which path should lead, once more.
func (b *Backing) openSide(path string, i inode) (int, error) {
	fd, err := b.openat2(path, unix.O_RDONLY|openFlags, 0)
	if elsewhere(err) {
		return 0, errMoved
	}
	if err != nil {
		return 0, err
	}
	opened, err := regular(fd)
	if err == nil && opened == i {
		return fd, nil
	}
	unix.Close(fd)
	return 0, errMoved
}

// waited ends a wait of f. Whether what it waited for is there is for Cover to find
// out: it may have been given back with something else, or nobody wants it.
func (m *Mirror) waited(f *file, what span, err error) {
	delete(f.awaits, what)
	m.threads--
	m.touch(f)
	for _, n := range slices.Clone(f.names) {
		if err != nil {
			n.failed = wrap("lock", n.path, err)
			m.lookAt(n)
		}
		m.config.Reconsider(n.key)
	}
}
