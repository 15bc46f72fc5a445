package agent

import (
	"time"

	"github.com/lockfs/lockfs/lockspace"
)

// What is published about those who hold a lock: the mirror asks for it when they have
// had it for a while, and only the worker knows.

// whoTime is how long is waited for the worker, which may just be replaced: then it is
// published that there is nothing to be said.
const whoTime = 3 * time.Second

// publishes is the mirror's question whether they are published.
func (s *server) publishes(k lockspace.Key) bool {
	l := s.locks[k]
	return l != nil && l.publish
}

// question is what a worker is asked.
type question struct {
	key    lockspace.Key
	who    uint64
	answer chan []byte
}

// ask asks the worker that there is now. Within a step.
func (s *server) ask(seq uint64) {
	q := s.asked[seq]
	s.out.put(&message{kind: kindWho, epoch: s.epoch, seq: seq, key: q.key, who: q.who})
}

// askAgain asks a worker what the one before it has not answered. Within a step.
func (s *server) askAgain() {
	for seq := range s.asked {
		s.ask(seq)
	}
}

// text is the mirror's question what makes the text, nil for none. Within a step.
func (s *server) text(k lockspace.Key) func() []byte {
	l := s.locks[k]
	if l == nil || !l.publish || l.held.Empty() {
		return nil
	}
	s.lastAsk++
	seq, answer := s.lastAsk, make(chan []byte, 1)
	s.asked[seq] = &question{k, l.who, answer}
	s.ask(seq)
	return func() []byte {
		timer := time.NewTimer(whoTime)
		defer timer.Stop()
		select {
		case text := <-answer:
			return text
		case <-timer.C:
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.asked, seq)
			return nil
		}
	}
}

// toldWho passes a text on to who waits for it.
func (s *server) toldWho(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.asked[m.seq]
	delete(s.asked, m.seq)
	if q == nil {
		return
	}
	var text []byte
	if len(m.names) > 0 {
		text = []byte(m.names[0])
	}
	q.answer <- text
}
