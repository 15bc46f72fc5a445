package mirror

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// When something is written about who holds a lock: see publication.go for what.
//
// It costs more than the lock. So nothing is written about a hold before it has
// lasted for a while: a name that is taken and given back all the time costs what it
// always did. Then it is written outside of steps, while the file is kept open. A
// step that ends the hold meanwhile waits for the one call, so that nothing is
// written once the lock is given back; and a step that ends a hold that something
// was written about clears it before, which is a call too.

const (
	// publishEvery is how often it is looked for what is to be published: a hold
	// is when it has lasted for one to two of these.
	publishEvery = 25 * time.Millisecond
	// publishBatch is how many are published at a time.
	publishBatch = 256
)

// publication is what is being, or has been, written into a file.
type publication struct {
	// of is which state of its holds it is about, as [file.settled].
	of uint64

	mu      sync.Mutex // of one call that writes
	ended   bool       // nothing is written any more
	written bool       // there may be something in the file
}

// end has nothing be written any more. It reports whether something was.
func (p *publication) end() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	return p.written
}

// leads reports whether what is locked of a file is so that its text is this
// mirror's.
func (s spans) leads() bool {
	return len(s) > 0 && s[0].First == 0 && s[0].Mode == lockspace.Exclusive
}

// Leads reports whether nobody outside can have published anything for k: this
// mirror has its first byte.
func (m *Mirror) Leads(k lockspace.Key) bool {
	n := m.names[k]
	return n != nil && n.file != nil && n.file.have.leads()
}

// consider has f looked at for a while whether it is to be published.
func (m *Mirror) consider(f *file) {
	if f.young || f.strange || f.publication != nil || m.config.Text == nil || !f.have.leads() {
		return
	}
	f.young, f.seen = true, 0
	m.young = append(m.young, f)
	if !m.publishing {
		m.publishing = true
		go m.publishAll()
	}
}

// publishAll publishes what has lasted, until nothing is left that may.
func (m *Mirror) publishAll() {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for more := true; more; {
		select {
		case <-m.closed:
			return
		case <-tick.C:
		}
		var due []*text
		more = false
		m.do(func() { due, more = m.due() })
		if len(due) == 0 {
			continue
		}
		for _, t := range due {
			t.write()
		}
		m.do(func() {
			for _, t := range due {
				m.published(t)
			}
		})
	}
}

// text is what is to be written into a file.
type text struct {
	file   *file
	to     *publication
	make   func() []byte
	remote bool

	ours bool
	err  error
}

// due returns what is to be published now, and whether there may be more later.
func (m *Mirror) due() (due []*text, more bool) {
	m.young = slices.DeleteFunc(m.young, func(f *file) bool {
		switch {
		case f.closed || f.publication != nil || !f.have.leads():
			f.young = false
		case f.seen != f.settled || len(f.names) != 1:
			f.seen = f.settled
		case len(due) >= publishBatch:
		default:
			f.young = false
			if t := m.text(f); t != nil {
				due = append(due, t)
			}
		}
		return !f.young
	})
	m.publishing = len(m.young) > 0 || len(due) > 0
	return due, m.publishing
}

// text begins to publish f; nil if it is not to be.
func (m *Mirror) text(f *file) *text {
	n := f.names[0]
	if n.lost != nil {
		return nil
	}
	if _, ok := m.pathOf(n); ok != nil {
		return nil
	}
	what := m.config.Text(n.key)
	if what == nil {
		return nil
	}
	f.pins++
	f.publication = &publication{of: f.settled}
	return &text{file: f, to: f.publication, make: what, remote: m.config.Backing.remote}
}

// write writes it, unless the holds have ended.
func (t *text) write() {
	b := t.make()
	p := t.to
	p.mu.Lock()
	if !p.ended {
		if t.ours, t.err = publish(t.file.fd, b); t.ours {
			p.written = true
		}
	}
	p.mu.Unlock()
	if t.ours && t.err == nil && t.remote {
		// Else it would be this host's only. Who looks at it there is in no hurry.
		t.err = eintr.Retry(func() error { return unix.Fdatasync(t.file.fd) })
	}
}

// published takes in what has come of it.
func (m *Mirror) published(t *text) {
	f := t.file
	f.pins--
	m.touch(f)
	switch {
	case t.err != nil:
		m.unpublished++
	case t.ours:
		m.publications++
	case f.publication == t.to:
		f.publication, f.strange = nil, true
	}
}

// retract clears what is published about f if its holds are others by now. It is
// called before anything of f is given back.
func (m *Mirror) retract(f *file) {
	p := f.publication
	if p == nil || p.of == f.settled {
		return
	}
	f.publication = nil
	if p.end() {
		m.clear(f)
	}
}

// clear clears the text of f, which must be its mirror's to clear.
func (m *Mirror) clear(f *file) {
	if !f.have.leads() {
		return
	}
	ours, err := withdraw(f.fd)
	switch {
	case err != nil:
		m.unpublished++
	case !ours:
		f.strange = true
	}
}

// clearStale clears what somebody has left in f who died, if there is something: f
// has just been locked, and size is how long it is. What the user opens by himself is
// his to write to.
func (m *Mirror) clearStale(f *file, size int64) {
	if size <= int64(len(header)) || f.publication != nil || f.strange || !f.have.leads() {
		return
	}
	if m.config.Opener == nil || m.config.Opener(f.names[0].key) == nil {
		m.clear(f)
	}
}

// abandon leaves f as it is: it is not locked any more, and may be another's.
func (m *Mirror) abandon(f *file) {
	if f.publication != nil {
		f.publication.end()
		f.publication = nil
	}
}
