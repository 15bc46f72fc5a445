package agent

import (
	"github.com/lockfs/lockfs/lockspace"
)

// What an agent is asked, and changes nothing.

// probe answers who is in the way of a lock.
func (s *server) probe(m *message) {
	if err := s.ready(); err != nil {
		s.reply(m, &message{outcome: outcomeFailed, failure: failureOf(err)})
		return
	}
	s.aside(func() {
		r := &lockspace.Request{Key: m.key, Mode: m.span.Mode, Range: m.span.Range}
		var out message
		known := false
		// A file that is open here tells who else has it, and not that we have.
		s.step(func() {
			// What is known of where it is, is newer than the question.
			l := s.locks[m.key]
			if l == nil {
				l = s.lock(m)
			}
			l.covering++
			f, found, ok, err := s.mirror.ProbeFor(r)
			known = ok || err != nil
			out.found, out.span, out.pid = found, span{f.Range, f.Mode}, uint32(f.Pid)
			out.failure = failureOf(err)
			l.covering--
			s.change(l)
		})
		if !known {
			f, found, err := s.dir.ProbeFor(m.path, r)
			out.found, out.span, out.pid = found, span{f.Range, f.Mode}, uint32(f.Pid)
			out.failure = failureOf(err)
		}
		if out.failure != (failure{}) {
			out.outcome = outcomeFailed
		}
		s.reply(m, &out)
	})
}

// locked answers which names in a directory are locked.
func (s *server) locked(m *message) {
	if err := s.ready(); err != nil {
		s.reply(m, &message{outcome: outcomeFailed, failure: failureOf(err)})
		return
	}
	s.aside(func() {
		names, err := s.dir.Locked(m.path)
		if err != nil {
			s.reply(m, &message{outcome: outcomeFailed, failure: failureOf(err)})
			return
		}
		for len(names) > mostNames {
			s.reply(m, &message{more: true, names: names[:mostNames]})
			names = names[mostNames:]
		}
		s.reply(m, &message{names: names})
	})
}

// published answers what is published about a lock.
func (s *server) published(m *message) {
	if err := s.ready(); err != nil {
		s.reply(m, &message{outcome: outcomeFailed, failure: failureOf(err)})
		return
	}
	s.aside(func() {
		text, err := s.dir.Published(m.path)
		switch {
		case err != nil:
			s.reply(m, &message{outcome: outcomeFailed, failure: failureOf(err)})
		case text == nil:
			s.reply(m, &message{})
		default:
			s.reply(m, &message{names: []string{string(text)}})
		}
	})
}

// ping answers when the directory does.
func (s *server) ping(m *message) {
	err := s.ready()
	s.aside(func() {
		out := new(message)
		if err == nil {
			_, err = s.dir.Check()
		}
		s.step(func() {
			if s.mirror != nil {
				out.stats = s.mirror.Stats()
			}
		})
		if err != nil {
			out.outcome, out.failure = outcomeFailed, failureOf(err)
		}
		s.reply(m, out)
	})
}
