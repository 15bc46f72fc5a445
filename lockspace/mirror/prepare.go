package mirror

import (
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
	backing  *Backing
	keeper   Keeper
	reserved bool // it counts among the open files
	opened   Opened
	err      error
}

// Prepare begins what Cover answered [lockspace.ErrLookup] to for r. If it has to
// make the file, it makes it r's taker's.
func (m *Mirror) Prepare(r *lockspace.Request) *Preparation {
	return m.prepare(m.names[r.Key], r.Key, r.Party.Taker.UID, r.Party.Taker.GID)
}

func (m *Mirror) prepare(n *name, k lockspace.Key, uid, gid uint32) *Preparation {
	p := &Preparation{key: k, uid: uid, gid: gid, backing: m.config.Backing, keeper: m.config.Keeper}
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

// Run opens the file and hands it to the keeper. It takes as long as they do.
func (p *Preparation) Run() {
	if p.err != nil {
		return
	}
	if p.opened, p.err = p.backing.Open(p.path, p.uid, p.gid); p.err != nil {
		return
	}
	if err := p.keeper.Keep(p.id, label(p.key), p.opened.FD); err != nil {
		unix.Close(p.opened.FD)
		p.err = wrap("keep", p.path, err)
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
	f := &file{fd: p.opened.FD, id: p.id, inode: p.opened.inode, readOnly: p.opened.ReadOnly}
	if n.file != nil && len(n.want) == 0 && n.file.inode != f.inode {
		m.detach(n)
	}
	switch other := m.inodes[f.inode]; {
	case n.file != nil || n.lost:
		// Somebody was faster; or nobody gets it now, and it is looked for again
		// when what was lost has ended.
	case len(n.want) > 0 && other != nil:
		// It is held, so it was locked together with the other name: one of the
		// two had been linked or moved, see Link.
		m.touch(other)
		m.attach(n, other)
	default:
		m.inodes[f.inode] = f
		m.attach(n, f)
		m.touch(f)
		return nil
	}
	m.closeFile(f)
	return nil
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
