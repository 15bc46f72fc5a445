package mirror

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// Files that are held, or waited for, are looked at every now and then: whether
// their names still lead to them, and whether they still work.

func (m *Mirror) startWatching(n *name) {
	if n.watch == 0 {
		m.watched = append(m.watched, n)
		n.watch = len(m.watched)
	}
}

func (m *Mirror) stopWatching(n *name) {
	if n.watch == 0 {
		return
	}
	last := m.watched[len(m.watched)-1]
	m.watched[n.watch-1] = last
	last.watch = n.watch
	m.watched[len(m.watched)-1] = nil
	m.watched = m.watched[:len(m.watched)-1]
	n.watch = 0
}

// look is one look at one file. What it needs is set in a step, and found out
// outside of steps.
type look struct {
	name *name
	file *file
	path string
	// held is something that is locked, if anything is, and changes is the file's
	// count.
	held    spans
	changes uint64
	why     error // the lock is lost
}

func (m *Mirror) watch() {
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for {
		select {
		case <-m.closed:
			return
		case <-tick.C:
		}
		var looks []look
		m.do(func() { looks = m.looks() })
		if len(looks) == 0 {
			continue
		}
		for i := range looks {
			looks[i].do(m)
		}
		m.do(func() { m.looked(looks) })
	}
}

// looks returns whom to look at next. They stay open until that is done.
func (m *Mirror) looks() []look {
	out := make([]look, 0, min(watchBatch, len(m.watched)))
	for range cap(out) {
		if m.cursor >= len(m.watched) {
			m.cursor = 0
		}
		n := m.watched[m.cursor]
		m.cursor++
		if n.lost != nil {
			continue
		}
		if path, err := m.pathOf(n); err == nil {
			n.file.pins++
			l := look{name: n, file: n.file, path: path, changes: n.file.changes}
			if m.config.Backing.remote && len(n.file.have) > 0 {
				l.held = spans{n.file.have[0]}
			}
			out = append(out, l)
		}
	}
	return out
}

func (l *look) do(m *Mirror) {
	var st unix.Stat_t
	if err := eintr.Retry(func() error { return unix.Fstat(l.file.fd, &st) }); broken(err) {
		l.why = wrap("fstat", l.path, err)
		return
	}
	same, err := m.leadsTo(l.path, l.file.inode, &st)
	switch {
	case broken(err):
		l.why = err
	case err == nil && !same:
		l.why = ErrReplaced
	case err == nil && len(l.held) > 0 && m.isGone(l):
		l.why = ErrGone
	}
}

// looked takes in what was seen.
func (m *Mirror) looked(looks []look) {
	for _, l := range looks {
		n, f := l.name, l.file
		f.pins--
		if f.more || len(f.have) == 0 {
			m.touch(f)
		}
		if l.why == nil || n.file != f || l.path != n.path || l.why == ErrGone && l.changes != f.changes {
			continue
		}
		if len(n.want) > 0 {
			m.lose(n, l.why)
			continue
		}
		// Somebody waits for a file that nobody else is going to lock.
		m.detach(n)
		m.config.Reconsider(n.key)
	}
}
