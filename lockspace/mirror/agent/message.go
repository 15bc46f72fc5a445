package agent

import (
	"encoding/binary"
	"errors"
	"math"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// What worker and agent say to each other: one message is one packet, but for lists,
// which may take several. Numbers are in the machine's byte order. All messages have
// the same form, of which each uses some fields.

// version is that of all this. Who has another cannot be talked to; but HELLO and WELCOME
// are understood by all, since only messages about names have more than the first had.
const version = 2

// kind says what a message is.
type kind uint8

const (
	// Of the worker.
	kindHello     kind = iota + 1 // seq: the version; path: which mount this is
	kindState                     // of key: path, uid and gid, entries, seq: the last number given out
	kindAll                       // seq; all states have been sent
	kindCover                     // seq, key, path, uid and gid, span
	kindRenamed                   // paths lead to other files than before
	kindProbe                     // seq, key, path, span: who is in the way of it?
	kindLocked                    // seq, path: which names in this directory are locked?
	kindPing                      // seq
	kindPublished                 // seq, path: what is published about the lock? The text is in names
	kindText                      // to the WHO seq: the text about it is in names, if there is one
	// Of the agent.
	kindWelcome // seq: the version
	kindReply   // to seq: outcome, failure; and what was asked for
	kindGot     // what key's await seq waited for: outcome, failure
	kindLost    // key, failure: what is held of it is not locked
	kindWho     // seq, key, who: what is to be published about it?
	// Of the worker, about names, see [mirror.Names]; all but the first have a seq, and
	// name.
	kindKnow // names: the temporary names of what was made
	kindMake
	kindReveal
	kindRemove
	kindWrite
	kindMark
	kindIsThere // the answer has found
	kindLook    // path; the answer has found, and name
	kindList    // path; the answer has names, see listedName
	kindVacant
	kindForget // path; it has no seq, and no name
)

// outcome is how it went.
type outcome uint8

const (
	outcomeOK outcome = iota
	outcomeForeign
	outcomeFailed
	outcomeGone // not sent: the agent that said something else has ended
)

// span is a range and a mode.
type span struct {
	lockspace.Range
	Mode lockspace.Mode
}

// entry is one of the things that a STATE says.
type entry struct {
	what entryKind
	seq  uint64 // of an await, or of a COVER
	span span   // not of a COVER
}

type entryKind uint8

const (
	entryHeld  entryKind = iota
	entryAwait           // somebody waits for it
	entryOpen            // the answer to the COVER has not been taken in
)

// most is how many entries, or names, are in a packet.
const (
	mostEntries = 1000
	mostNames   = 200
)

// packetMax is longer than any packet: 1000 entries of 26 bytes; 200 names of 255; a
// path of 4096 bytes twice, and what else there is.
const packetMax = 80 << 10

type message struct {
	kind     kind
	more     bool // there is more of it in the next packet
	outcome  outcome
	epoch    uint64
	seq      uint64
	key      lockspace.Key
	path     string
	uid, gid uint32
	// who tells the holders of key from others before and after them, and publish says
	// that they are published.
	who     uint64
	publish bool
	span    span
	found   bool // PROBE: there is somebody, with span
	pid     uint32
	failure failure
	entries []entry
	names   []string
	stats   mirror.Stats
	// name is of messages about names, and of COVERs and STATEs whose file is not opened
	// as any.
	name *nameMessage
}

// failure is an error as it is sent. The zero failure is none.
type failure struct {
	code  uint8 // in sentinels, plus 1; 0: none of them
	errno uint32
	text  string
}

// sentinels are errors that stay what they are. Their order is part of the protocol.
var sentinels = [...]error{mirror.ErrLimit, mirror.ErrReplaced, mirror.ErrTaken}

// remoteError is an error of the agent.
type remoteError struct {
	text  string
	errno unix.Errno
}

func (e *remoteError) Error() string { return e.text }

// Unwrap returns the errno, nil if there is none.
func (e *remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

func failureOf(err error) failure {
	if err == nil {
		return failure{}
	}
	f := failure{text: err.Error()}
	for i, s := range sentinels {
		if errors.Is(err, s) {
			f.code = uint8(i + 1)
		}
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		f.errno = uint32(errno)
	}
	return f
}

// err returns the error that was sent, nil for none.
func (f *failure) err() error {
	switch {
	case f.code > 0 && int(f.code) <= len(sentinels):
		return sentinels[f.code-1]
	case f.text == "" && f.errno == 0:
		return nil
	}
	return &remoteError{f.text, unix.Errno(f.errno)}
}

// append adds the message to b.
func (m *message) append(b []byte) []byte {
	u32 := func(v uint32) { b = binary.NativeEndian.AppendUint32(b, v) }
	u64 := func(v uint64) { b = binary.NativeEndian.AppendUint64(b, v) }
	text := func(v string) { u32(uint32(len(v))); b = append(b, v...) }
	spanOf := func(s span) { u64(s.First); u64(s.Last); b = append(b, byte(s.Mode)) }
	b = append(b, byte(m.kind), flag(m.more), byte(m.outcome), flag(m.found))
	u64(m.epoch)
	u64(m.seq)
	u64(m.key.Dir)
	text(m.key.Name)
	text(m.path)
	u32(m.uid)
	u32(m.gid)
	u64(m.who)
	b = append(b, flag(m.publish))
	spanOf(m.span)
	u32(m.pid)
	b = append(b, m.failure.code)
	u32(m.failure.errno)
	text(m.failure.text[:min(len(m.failure.text), 2*unix.PathMax)])
	u32(uint32(len(m.entries)))
	for _, e := range m.entries {
		b = append(b, byte(e.what))
		u64(e.seq)
		spanOf(e.span)
	}
	u32(uint32(len(m.names)))
	for _, name := range m.names {
		text(name)
	}
	for _, n := range [...]int{m.stats.Open, m.stats.Limit, m.stats.Cached, m.stats.Awaited, m.stats.Polled} {
		u64(uint64(n))
	}
	u64(m.stats.Lost)
	u64(m.stats.Stuck)
	if m.name != nil {
		b = m.name.append(b)
	}
	return b
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// parse reads a packet; ok is false if nobody sends such.
func parse(b []byte) (m message, ok bool) {
	d := decoder{b, true}
	spanOf := func() span {
		return span{lockspace.Range{First: d.u64(), Last: d.u64()}, lockspace.Mode(d.u8())}
	}
	m.kind, m.more, m.outcome, m.found = kind(d.u8()), d.u8() != 0, outcome(d.u8()), d.u8() != 0
	m.epoch, m.seq = d.u64(), d.u64()
	m.key = lockspace.Key{Dir: d.u64(), Name: d.text()}
	m.path, m.uid, m.gid = d.text(), d.u32(), d.u32()
	m.who, m.publish = d.u64(), d.u8() != 0
	m.span, m.pid = spanOf(), d.u32()
	m.failure = failure{d.u8(), d.u32(), d.text()}
	for n := d.u32(); n > 0 && d.ok; n-- {
		m.entries = append(m.entries, entry{entryKind(d.u8()), d.u64(), spanOf()})
	}
	for n := d.u32(); n > 0 && d.ok; n-- {
		m.names = append(m.names, d.text())
	}
	for _, n := range [...]*int{&m.stats.Open, &m.stats.Limit, &m.stats.Cached, &m.stats.Awaited, &m.stats.Polled} {
		*n = int(min(d.u64(), math.MaxInt32))
	}
	m.stats.Lost, m.stats.Stuck = d.u64(), d.u64()
	if !d.ok || len(d.b) == 0 {
		return m, d.ok
	}
	m.name, ok = parseName(&d)
	return m, ok
}
