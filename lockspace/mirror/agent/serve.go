package agent

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// atOnce is how many calls on the directory may hang, each with a thread, beside
// those that make steps.
const atOnce = 32

// openAgain is how long a directory that could not be opened is not tried again.
const openAgain = time.Second

// Serve is an agent for the worker at the other end. It returns when that end is
// closed, and what it began may still hang then: the process is to end.
//
// open opens the directory. It may hang; if it fails it is called again, when somebody
// wants a lock.
func Serve(socket *Socket, open func() (*mirror.Backing, error), log *slog.Logger) {
	s := &server{
		open: open, log: log, in: newInbox(), out: newOutbox(),
		locks: make(map[lockspace.Key]*lock), asked: make(map[uint64]*question), lanes: make(chan struct{}, atOnce),
		names: nameOps{made: make(map[string]mirror.Opened)},
	}
	go s.out.send(socket)
	go func() {
		for {
			s.handle(s.in.take())
		}
	}()
	buffer := make([]byte, packetMax)
	for {
		packet, err := socket.receive(buffer)
		if err != nil {
			return
		}
		m, ok := parse(packet)
		switch {
		case !ok:
			log.Error("a message to the agent is not understood", "length", len(packet))
		case m.kind == kindHello:
			s.out.put(&message{kind: kindWelcome, epoch: m.epoch, seq: version})
			if m.seq == version {
				s.in.put(&m)
			}
		default:
			s.in.put(&m)
		}
	}
}

// server is an agent.
//
// Its law: mu makes steps, in which the mirror is used, and which may hang; whoever
// reads and writes the socket never takes it. After a step the mirror has of each lock
// what was held in the last STATE and, until ALL, in the epochs before, and the pins.
type server struct {
	open  func() (*mirror.Backing, error)
	log   *slog.Logger
	in    *inbox
	out   *outbox
	lanes chan struct{} // for what may hang beside steps
	// asked are who waits for a text, by the number of the question, lastAsk the last
	// one. With mu held.
	asked   map[uint64]*question
	lastAsk uint64

	// Of the goroutine that carries out messages.
	triedAt time.Time // when the directory was opened last, in vain
	openErr error
	// mount is which mount the worker is of, and known what was made and the directory
	// has not been told of.
	mount string
	known []string

	names nameOps

	mu    sync.Mutex
	epoch uint64
	// dir and mirror are nil until the directory is open.
	dir    *mirror.Backing
	mirror *mirror.Mirror
	locks  map[lockspace.Key]*lock
	// renames counts how often paths came to lead elsewhere.
	renames int
	// changed are those that the mirror has to hear of at the end of the step, and
	// again those of which it says that they are worth another try.
	changed []*lock
	again   []lockspace.Key
}

// step makes f a step.
func (s *server) step(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	for len(s.again) > 0 {
		l := s.locks[s.again[0]]
		s.again = s.again[1:]
		if l != nil {
			s.tryAwaits(l)
		}
	}
	s.settle()
	if s.mirror != nil {
		s.mirror.Recorded()
	}
}

// ready opens the directory, if it is not open.
func (s *server) ready() error {
	if s.mirror != nil || s.openErr != nil && time.Since(s.triedAt) < openAgain {
		return s.openErr
	}
	dir, err := s.open()
	s.triedAt, s.openErr = time.Now(), err
	if err != nil {
		return err
	}
	dir.As(s.mount)
	s.step(func() {
		s.dir = dir
		s.tellKnown()
		s.mirror = mirror.New(mirror.Config{
			Backing:    dir,
			Opener:     s.opener,
			Do:         s.step,
			Reconsider: func(k lockspace.Key) { s.again = append(s.again, k) },
			Path:       s.path,
			Lost:       s.lost,
			Publish:    s.publishes,
			Text:       s.text,
		})
		for _, l := range s.locks {
			s.change(l)
			s.again = append(s.again, l.key)
		}
	})
	return nil
}

// path is the mirror's question where a lock's file is.
func (s *server) path(k lockspace.Key) (string, error) {
	l := s.locks[k]
	if l == nil {
		return "", errors.New("agent: a lock without a path")
	}
	return l.path, nil
}

// lost is the mirror's word that a lock is.
func (s *server) lost(k lockspace.Key, why error) {
	if l := s.locks[k]; l != nil {
		l.lost = why
		s.tellLost(l)
	}
}

func (s *server) tellLost(l *lock) {
	s.out.put(&message{kind: kindLost, epoch: s.epoch, key: l.key, failure: failureOf(l.lost)})
}

// handle carries out a message.
func (s *server) handle(m *message) {
	switch m.kind {
	case kindHello:
		s.mount = m.path // the same whenever it is said
		s.step(func() { s.begin(m) })
		_ = s.ready()
	case kindState:
		s.step(func() { s.state(m) })
	case kindAll:
		s.all(m)
	case kindCover:
		if err := s.ready(); err != nil {
			s.reply(m, &message{outcome: outcomeFailed, failure: failureOf(err)})
			return
		}
		c := &cover{message: m}
		s.step(func() { s.cover(c) })
		s.goOn(c)
	case kindRenamed:
		s.step(s.renamed)
	case kindProbe:
		s.probe(m)
	case kindLocked:
		s.locked(m)
	case kindPublished:
		s.published(m)
	case kindText:
		s.toldWho(m)
	case kindPing:
		s.ping(m)
	case kindKnow:
		s.know(m)
	case kindForget:
		s.forget(m)
	case kindMake, kindReveal, kindRemove, kindWrite, kindMark, kindIsThere, kindLook, kindList, kindVacant:
		s.aboutName(m)
	default:
		s.log.Error("a message to the agent is of no kind", "kind", m.kind)
	}
}

// reply answers a message.
func (s *server) reply(to, with *message) {
	with.kind, with.epoch, with.seq = kindReply, to.epoch, to.seq
	s.out.put(with)
}

// aside has f run where it may hang.
func (s *server) aside(f func()) {
	go func() {
		s.lanes <- struct{}{}
		defer func() { <-s.lanes }()
		f()
	}()
}

// begin begins an epoch: what was locked so far stays so until ALL.
func (s *server) begin(m *message) {
	s.epoch = m.epoch
	for _, l := range s.locks {
		l.beginEpoch()
		s.change(l)
	}
	s.renamed() // some directories may have been, of which nobody has told
}

// renamed has the mirror forget where files are.
func (s *server) renamed() {
	s.renames++
	if s.mirror != nil {
		s.mirror.Renamed()
	}
}

// all ends the time in which nothing is given back, and has locked again what an
// agent before this one had locked.
func (s *server) all(m *message) {
	err := s.ready()
	var missing []*mirror.Preparation
	s.step(func() {
		for _, l := range s.locks {
			l.before.Clear()
			s.change(l)
		}
		s.settle()
		if s.mirror != nil {
			missing = s.mirror.Missing()
		}
	})
	var busy sync.WaitGroup
	for _, p := range missing {
		busy.Add(1)
		s.aside(func() { defer busy.Done(); p.Run() })
	}
	busy.Wait()
	s.step(func() {
		for _, p := range missing {
			_ = s.mirror.Adopt(p) // what that loses, lost tells
		}
	})
	s.step(func() {
		for _, l := range s.locks {
			if err != nil && !l.held.Empty() {
				l.lost = err
			}
			if l.lost != nil { // it may have been told to an epoch that is over
				s.tellLost(l)
			}
		}
		s.askAgain()
	})
	out := &message{failure: failureOf(err)}
	if err != nil {
		out.outcome = outcomeFailed
	}
	s.reply(m, out)
}
