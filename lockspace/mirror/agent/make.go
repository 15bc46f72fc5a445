package agent

import (
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// What an agent does with names, see [mirror.Names].

// nameOps are what is to be done with names, and what has come of it.
type nameOps struct {
	mu sync.Mutex
	// pending are in the order in which they were asked for.
	pending []*nameOp
	// made are the open files of what was made and is not the mirror's yet, by their
	// temporary names. They are locked.
	made map[string]mirror.Opened
}

// nameOp is something that is done with a name.
type nameOp struct {
	path, temporary string
	done            chan struct{}
}

// waitsFor reports whether o is to be done after an earlier one: they are about the same
// thing, or one of them about something in what the other is about.
func (o *nameOp) waitsFor(earlier *nameOp) bool {
	return o.temporary == earlier.temporary || isIn(o.path, earlier.path) || isIn(earlier.path, o.path)
}

// isIn reports whether a path leads to something in a directory, or below.
func isIn(path, dir string) bool { return strings.HasPrefix(path, dir+"/") }

// inOrder has f run where it may hang, after what it waits for.
func (s *server) inOrder(m *mirror.MadeName, f func()) {
	o := &nameOp{m.Path, m.Temporary, make(chan struct{})}
	n := &s.names
	n.mu.Lock()
	defer n.mu.Unlock()
	var before []*nameOp
	for _, earlier := range n.pending {
		if o.waitsFor(earlier) {
			before = append(before, earlier)
		}
	}
	n.pending = append(n.pending, o)
	go func() {
		for _, earlier := range before {
			<-earlier.done
		}
		s.lanes <- struct{}{}
		f()
		<-s.lanes
		n.mu.Lock()
		defer n.mu.Unlock()
		n.pending = slices.DeleteFunc(n.pending, func(other *nameOp) bool { return other == o })
		close(o.done)
	}()
}

// aboutName carries out a message about a name.
func (s *server) aboutName(m *message) {
	if m.name == nil {
		s.log.Error("a message to the agent names nothing", "kind", m.kind)
		return
	}
	if err := s.ready(); err != nil {
		s.reply(m, &message{outcome: outcomeFailed, failure: failureOf(err)})
		return
	}
	do := func() {
		out := new(message)
		if err := s.doName(m, out); err != nil {
			out.outcome, out.failure = outcomeFailed, failureOf(err)
		}
		for len(out.names) > mostNames {
			s.reply(m, &message{more: true, names: out.names[:mostNames]})
			out.names = out.names[mostNames:]
		}
		s.reply(m, out)
	}
	switch m.kind {
	case kindIsThere, kindLook, kindList: // they change nothing
		s.aside(do)
	default:
		s.inOrder(&m.name.made, do)
	}
}

// doName does it, where it may hang, and adds to the answer what there is to be said.
func (s *server) doName(m, out *message) (err error) {
	made := m.name.made
	switch m.kind {
	case kindMake:
		s.dropMade(made.Temporary)
		var o mirror.Opened
		if o, made, err = s.dir.Make(m.name.newName()); err == nil {
			s.putMade(made.Temporary, o)
			out.name = madeMessage(made)
		}
	case kindReveal:
		err = s.dir.Reveal(made)
	case kindRemove:
		if err = s.dir.Remove(made); err == nil {
			s.dropMade(made.Temporary)
		}
	case kindWrite:
		err = s.dir.Write(made, m.name.state)
	case kindMark:
		err = s.dir.Mark(made, m.name.use)
	case kindIsThere:
		out.found, err = s.dir.IsThere(made)
	case kindVacant:
		err = s.dir.Vacant(made)
	case kindLook:
		var o *mirror.Outside
		if o, err = s.dir.Look(m.path, made); o != nil && err == nil {
			out.found, out.name = true, outsideMessage(o)
		}
	case kindList:
		var all []mirror.Listed
		all, err = s.dir.List(m.path, m.name.directories)
		for _, l := range all {
			out.names = append(out.names, listedName(l))
		}
	}
	return err
}

// know takes in what was made by processes before this one.
func (s *server) know(m *message) {
	s.known = append(s.known, m.names...)
	if s.dir != nil {
		s.tellKnown()
	}
}

// forget forgets a directory that others have made.
func (s *server) forget(m *message) {
	if s.dir != nil {
		s.dir.Forget(m.path)
		return
	}
	s.known = slices.DeleteFunc(s.known, func(known string) bool { return known == knownName("", m.path) })
}

// tellKnown tells the directory of it.
func (s *server) tellKnown() {
	for _, known := range s.known {
		s.dir.Know(parseKnown(known))
	}
	s.known = nil
}

// putMade keeps the open file of what was made, if it is one.
func (s *server) putMade(temporary string, o mirror.Opened) {
	if o.FD < 0 {
		return
	}
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	s.names.made[temporary] = o
}

// takeMade takes it out.
func (s *server) takeMade(temporary string) (mirror.Opened, bool) {
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	o, ok := s.names.made[temporary]
	delete(s.names.made, temporary)
	return o, ok
}

func (s *server) hasMade(temporary string) bool {
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	_, ok := s.names.made[temporary]
	return ok
}

// dropMade closes it. It may hang.
func (s *server) dropMade(temporary string) {
	if o, ok := s.takeMade(temporary); ok {
		unix.Close(o.FD)
	}
}

// adoptMade gives the mirror the open file of what has the name of l, so that it is not
// free in between. Within a step.
func (s *server) adoptMade(l *lock) {
	temporary := l.opening.Known.Temporary
	if s.mirror == nil || l.opening.Way != mirror.OpenMade || !s.hasMade(temporary) {
		return
	}
	p := s.mirror.Prepare(l.request(span{lockspace.Whole, lockspace.Exclusive}))
	err := p.RunMade(func() (mirror.Opened, error) {
		o, ok := s.takeMade(temporary)
		if !ok {
			return o, unix.ESTALE // it was removed just now
		}
		return o, nil
	})
	if err != nil {
		s.mirror.Discard(p)
		return
	}
	_ = s.mirror.Adopt(p) // it fails if p has
}

// opener is the mirror's question how the file of a lock is opened.
func (s *server) opener(k lockspace.Key) func(path string, uid, gid uint32) (mirror.Opened, error) {
	l := s.locks[k]
	if l == nil {
		return nil
	}
	return s.dir.Opener(l.opening)
}
