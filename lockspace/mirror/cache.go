package mirror

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Files that hold nothing stay open for a while: who takes a lock again needs no
// open then.

// lru is a list of files by when they were put in.
type lru struct {
	oldest, newest *file
	len            int
}

func (l *lru) push(f *file) {
	f.cached, f.older, f.newer = true, l.newest, nil
	if l.newest != nil {
		l.newest.newer = f
	} else {
		l.oldest = f
	}
	l.newest = f
	l.len++
}

func (l *lru) remove(f *file) {
	if f.older != nil {
		f.older.newer = f.newer
	} else {
		l.oldest = f.newer
	}
	if f.newer != nil {
		f.newer.older = f.older
	} else {
		l.newest = f.older
	}
	f.cached, f.older, f.newer = false, nil, nil
	l.len--
}

// putAway puts f, if nobody needs it, into the cache, or closes it if no name leads
// to it.
func (m *Mirror) putAway(f *file) {
	if f.cached || f.closed || len(f.have) > 0 || f.more || f.pins > 0 {
		return
	}
	if len(f.names) == 0 {
		// Nothing is locked through it, so nobody need keep it.
		m.unkeep(f)
		if len(f.awaits) == 0 {
			m.closeFile(f)
		}
		return
	}
	if len(f.awaits) > 0 {
		return
	}
	for _, n := range f.names {
		if n.lost != nil || n.opening || n.polled {
			return
		}
	}
	m.cache.push(f)
	for _, n := range f.names {
		m.stopWatching(n)
	}
}

// evict closes cached files, the oldest first, until there are no more than there
// may be, and room more files can be opened if that takes no others.
func (m *Mirror) evict(room int) {
	for m.cache.len > m.config.Cached || m.cache.len > 0 && m.files+room > m.config.Open {
		m.evictOldest()
	}
}

func (m *Mirror) evictOldest() {
	f := m.cache.oldest
	m.cache.remove(f)
	for _, n := range f.names {
		n.file = nil
		delete(m.names, n.key)
	}
	f.names = nil
	m.forgetInode(f)
	m.closeFile(f)
}

// full reports whether no file can be opened.
func (m *Mirror) full() bool { return m.files-m.cache.len >= m.config.Open }

// closeFile closes a file that has no names and is in no list any more. What is locked
// of it is given back before that: the keeper has it open for a moment yet.
func (m *Mirror) closeFile(f *file) {
	f.closed = true
	if f.more || len(f.have) > 0 {
		_ = m.setlk(f.fd, unix.F_UNLCK, lockspace.Whole)
	}
	m.unkeep(f)
	unix.Close(f.fd)
	m.files--
}

// unkeep has the keeper forget f.
func (m *Mirror) unkeep(f *file) {
	if f.id != 0 {
		m.config.Keeper.Drop(f.id)
		f.id = 0
	}
}
