package mirror

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// What is not for a step: the opening of a file.

// Preparation is a file that is being opened for a lock. It is made in a step, run
// outside of steps, and adopted in another step, once, however that ended.
type Preparation struct {
	key      lockspace.Key
	path     string
	uid, gid uint32
	id       uint64
	open     func(path string, uid, gid uint32) (Opened, error)
	keeper   Keeper
	reserved bool // it counts among the open files
	opened   Opened
	locked   bool // already
	named    bool // Config.Opener said how it is opened
	err      error
}

// Needs reports whether there is no file open for k, which is one reason for
// [lockspace.ErrLookup]; the table has others.
func (m *Mirror) Needs(k lockspace.Key) bool {
	n := m.names[k]
	return n == nil || n.file == nil && n.lost == nil
}

// Prepare begins what Cover answered [lockspace.ErrLookup] to for r. If it has to
// make the file, it makes it r's taker's.
func (m *Mirror) Prepare(r *lockspace.Request) *Preparation {
	return m.prepare(m.names[r.Key], r.Key, r.Party.Taker.UID, r.Party.Taker.GID)
}

func (m *Mirror) prepare(n *name, k lockspace.Key, uid, gid uint32) *Preparation {
	p := &Preparation{key: k, uid: uid, gid: gid, open: m.opener(k), keeper: m.config.Keeper, named: m.isNamed(k)}
	if n == nil {
		n = &name{key: k}
	}
	if p.path, p.err = m.pathOf(n); p.err != nil {
		return p
	}
	m.evict(1)
	if m.files >= m.config.Open {
		p.err = ErrLimit
		return p
	}
	m.files++
	p.reserved = true
	m.lastID++
	p.id = m.lastID
	return p
}

// isNamed reports whether the file of k is opened as Config.Opener says: not every file
// that is there may be locked then.
func (m *Mirror) isNamed(k lockspace.Key) bool {
	return m.config.Opener != nil && m.config.Opener(k) != nil
}

// opener returns what opens the file of k.
func (m *Mirror) opener(k lockspace.Key) func(path string, uid, gid uint32) (Opened, error) {
	if m.config.Opener != nil {
		if open := m.config.Opener(k); open != nil {
			return open
		}
	}
	if m.config.Publish != nil && m.config.Publish(k) {
		return m.config.Backing.openBegun
	}
	return m.config.Backing.Open
}

// Run opens the file and hands it to the keeper. It takes as long as they do.
func (p *Preparation) Run() {
	if p.err != nil {
		return
	}
	p.opened, p.err = p.open(p.path, p.uid, p.gid)
	if errors.Is(p.err, unix.EAGAIN) {
		p.err = lockspace.ErrForeign // who has a lease on it, and is asked to give that back (fcntl(2))
	}
	if p.err != nil {
		return
	}
	if err := p.keeper.Keep(p.id, label(p.key), p.opened.FD); err != nil {
		unix.Close(p.opened.FD)
		p.err = wrap("keep", p.path, err)
	}
}

// RunMade is Run for a file that make makes, and that is to be locked as a whole
// before anybody sees it. It returns why that failed, if it did.
func (p *Preparation) RunMade(make func() (Opened, error)) error {
	p.open = func(string, uint32, uint32) (Opened, error) { return make() }
	p.locked = true
	p.Run()
	return p.err
}

// Discard is Adopt of a Preparation of which nothing is wanted any more.
func (m *Mirror) Discard(p *Preparation) {
	if p.reserved {
		m.files--
	}
	if p.err == nil && p.opened.FD > 0 {
		if p.locked { // and the keeper has it open for a moment yet
			_ = m.setlk(p.opened.FD, unix.F_UNLCK, lockspace.Whole)
		}
		m.config.Keeper.Drop(p.id)
		unix.Close(p.opened.FD)
	}
}

// Adopt takes in what a Preparation has come to. Then Cover can be asked again.
// Errors: [ErrLimit], what Config.Path returned, and those of [Backing.Open] and
// [Keeper].
func (m *Mirror) Adopt(p *Preparation) error {
	n := m.name(p.key)
	m.lookAt(n)
	if p.err != nil {
		if p.reserved {
			m.files--
		}
		if n.file == nil && len(n.want) > 0 {
			m.lose(n, p.err)
		}
		return p.err
	}
	f := &file{fd: p.opened.FD, id: p.id, inode: p.opened.inode, readOnly: p.opened.ReadOnly, strange: p.opened.strange, more: p.locked}
	if n.file != nil && len(n.want) == 0 && n.file.inode != f.inode {
		m.detach(n)
	}
	if n.file != nil || n.lost != nil || p.named != m.isNamed(p.key) || m.reattach(n, f.inode) {
		// Somebody was faster; or nobody gets it now, and it is looked for again
		// when what was lost has ended; or it is open as another's.
		m.closeFile(f)
		return nil
	}
	m.attach(n, f)
	m.touch(f)
	return nil
}

// reattach attaches n, if it is held, to an open file of the inode that is locked
// as n needs it: somebody has linked the two names, and both are held shared.
func (m *Mirror) reattach(n *name, i inode) bool {
	for _, f := range m.inodes[i] {
		if len(n.want) > 0 && m.has(f, n.want) {
			m.attach(n, f)
			return true
		}
	}
	return false
}

// has locks what want says of f, and reports whether that could be done.
func (m *Mirror) has(f *file, want spans) bool {
	m.touch(f)
	for _, sp := range want {
		for _, part := range f.have.missing(sp.Range, sp.Mode) {
			if m.take(f, part, sp.Mode) != nil {
				return false
			}
		}
	}
	return true
}

// Missing returns what has to be done for locks that are held and have no file
// open, as after a restart in which the keeper's descriptors were lost. They
// count as locked again when the Preparations have been adopted.
func (m *Mirror) Missing() []*Preparation {
	var out []*Preparation
	for k, n := range m.names {
		if n.missing() && !n.opening {
			out = append(out, m.prepare(n, k, n.uid, n.gid))
		}
	}
	return out
}
