package fs

import (
	"encoding/base64"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/lockfs/lockfs/lockspace"
)

// The lines of the control file events. What follows is a contract: programs
// parse it. Keys are not renamed, removed, or given another meaning; a reader
// ignores keys and events that it does not know, which may be added.
//
// Each line is a JSON object with "event" and "time" (RFC 3339, with
// nanoseconds, UTC) first. These are about locks:
//
//	waiting   a request has to wait
//	taken     a lock is held, at once or after waiting
//	released  it is given back, or a part of it: reason says how
//	broken    it was taken away by somebody's unlink(2), whom "by" names
//	reaped    it was held by name, or by a named owner, and the process watched for
//	          that has ended
//	expired   it was not renewed within its lease
//	lost      its mirror is lost
//	refused   a wait ends without the lock: reason says why
//	deadlock  a request fails, at once or after waiting, since it would close a
//	          cycle of POSIX fcntl waits
//
// They all have these keys, in this order:
//
//	path         the name's path below the root of the mount. If that is not
//	             UTF-8, U+FFFD is in the place of each wrong byte, and the key
//	             path_base64 follows with the exact bytes (RFC 4648, padded).
//	             "(removed)/" comes first in a directory that has been removed.
//	token        the fencing token of the hold; 0 if there is none
//	pid, uid     the process that asked for it, and its user; pid 0: it is in a
//	             pid namespace that the daemon cannot see
//	comm         the name of that process (proc(5)) a little later, if it could be
//	             found out before the line was written, else "": not of one that had
//	             ended by then, or while there was more to look at than time for it.
//	             If it is not UTF-8, as path, with comm_base64
//	opener       the process that opened the file, another than pid if that one
//	             got it passed on: flock(1) takes for a shell, and exits
//	via, mode    as in a holder's record
//	first, last  the bytes; last is null if they go on to the end
//	reason       of released: released; died (by the death of its process, if the
//	             lockspace has grace and so asks); replaced (see below). Of
//	             refused: interrupted, broken (the open file's hold was taken away,
//	             or it was closed), shutdown (of the mount). Else ""
//	held         for how long it was held, in seconds; 0 if it was not
//	waited       for how long it was waited for, in seconds; 0 if it was not
//	by           of broken only: an object with the pid and uid of who did it
//
// A token is taken once, with a range; parts of that, or all of it, end, each
// once, and what has not ended is held. A call of fcntl(2) that merges what its
// owner holds, or converts it, takes a new token for all that is one hold now;
// what that replaces has been released just before, as replaced. Requests that
// fail at once are no events, but deadlocks.
//
// These are about the stream itself:
//
//	opened     the first line, with "schema":1; what came before is not told
//	dropped    the reader was slow, and has missed "count" events here: those that
//	           it may see, not counting those that only it and root may
//	recovered  the process that serves the mount was replaced by another, the
//	           "workers"-th since the beginning. What had not been read is lost.
//	           It may be that the line before this one has no end, if that is
//	           longer than a page.
//
// Whoever may search the root of the mount may open events. All see what happens
// in directories that everybody may search, with all above them. Of others their
// owner is told, if all such directories on the way have one, and root; and each
// user of what he holds and waits for himself.

// eventKind is what an event is.
type eventKind uint8

const (
	eventWaiting eventKind = iota
	eventTaken
	eventReleased
	eventBroken
	eventReaped
	eventExpired
	eventLost
	eventRefused
	eventDeadlock
	eventOpened
	eventDropped
	eventRecovered
)

var eventNames = [...]string{"waiting", "taken", "released", "broken", "reaped", "expired", "lost", "refused", "deadlock",
	"opened", "dropped", "recovered"}

// eventSchema is the number of the contract above.
const eventSchema = 1

// event is a line before it is written: what is put down while somebody waits
// for his lock is little, and most is never read.
type event struct {
	kind   eventKind
	via    lockspace.Via
	mode   lockspace.Mode
	reason string
	at     time.Time
	path   string
	token  uint64
	taker  lockspace.Process
	// comm is the taker's, see eventcomm.go, who had asked at a time since boot.
	comm   string
	asked  time.Duration
	opener uint32
	bytes  lockspace.Range
	held   time.Duration
	waited time.Duration
	by     lockspace.Process // of broken
	// number is the schema, how many were dropped, or which worker it is.
	number uint64
	audience
	// before is how many of the lines before it everybody sees.
	before uint64
	// line is it written, once somebody has read it.
	line []byte
}

// append writes the line to b.
func (e *event) append(b []byte) []byte {
	b = append(b, `{"event":"`...)
	b = append(b, eventNames[e.kind]...)
	b = append(b, `","time":"`...)
	b = e.at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
	b = append(b, '"')
	switch e.kind {
	case eventOpened:
		return appendNumber(b, "schema", e.number, "}\n")
	case eventDropped:
		return appendNumber(b, "count", e.number, "}\n")
	case eventRecovered:
		return appendNumber(b, "workers", e.number, "}\n")
	}
	b = appendBytes(b, "path", e.path)
	b = appendNumber(b, "token", e.token, "")
	b = appendNumber(b, "pid", uint64(e.taker.Pid), "")
	b = appendNumber(b, "uid", uint64(e.taker.UID), "")
	b = appendBytes(b, "comm", e.comm)
	b = appendNumber(b, "opener", uint64(e.opener), `,"via":"`)
	b = append(b, e.via.String()...)
	b = append(b, `","mode":"`...)
	b = append(b, e.mode.String()...)
	b = append(b, '"')
	b = appendNumber(b, "first", e.bytes.First, "")
	if e.bytes.Last == lockspace.MaxOffset {
		b = append(b, `,"last":null`...)
	} else {
		b = appendNumber(b, "last", e.bytes.Last, "")
	}
	b = append(b, `,"reason":"`...)
	b = append(b, e.reason...)
	b = append(b, `","held":`...)
	b = appendSeconds(b, e.held)
	b = append(b, `,"waited":`...)
	b = appendSeconds(b, e.waited)
	if e.kind == eventBroken {
		b = append(b, `,"by":{"pid":`...)
		b = strconv.AppendUint(b, uint64(e.by.Pid), 10)
		b = appendNumber(b, "uid", uint64(e.by.UID), "}")
	}
	return append(b, "}\n"...)
}

// appendBytes appends a key with bytes as text, and if they are none, in base64 too.
func appendBytes(b []byte, key, s string) []byte {
	b = append(b, `,"`...)
	b = append(b, key...)
	b = append(b, `":`...)
	b = appendJSON(b, s)
	if !utf8.ValidString(s) {
		b = append(b, `,"`...)
		b = append(b, key...)
		b = append(b, `_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, []byte(s))
		b = append(b, '"')
	}
	return b
}

// appendNumber appends a key with a number, and what comes after it.
func appendNumber(b []byte, key string, n uint64, after string) []byte {
	b = append(b, `,"`...)
	b = append(b, key...)
	b = append(b, `":`...)
	return append(strconv.AppendUint(b, n, 10), after...)
}

// appendSeconds appends a time in seconds, as JSON and OpenMetrics have numbers.
func appendSeconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, max(d, 0).Seconds(), 'f', -1, 64)
}

// appendJSON appends s as a JSON string (RFC 8259), with U+FFFD for each byte
// that is not UTF-8.
func appendJSON(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
			continue
		}
		i++
	}
	return append(b, '"')
}

// audience is who may see an event, besides root and the user that it is about.
type audience struct {
	// everybody, or else owner, if there is one.
	everybody, owned bool
	owner            uint32
}

// sees reports whether a user may see e.
func (e *event) sees(uid uint32) bool {
	return e.everybody || uid == 0 || e.owned && uid == e.owner || e.kind <= eventDeadlock && uid == e.taker.UID
}

// audienceOf returns who may see what happens in a directory.
func (f *FS) audienceOf(dir uint64) audience {
	a := audience{everybody: true}
	for {
		d := f.nodes.get(dir)
		if d == nil || d.ID != rootDir && len(d.file.entries) == 0 {
			return audience{} // removed
		}
		switch x := d.file; {
		case allows(x.Mode, maySearch):
		case a.everybody:
			a = audience{owned: true, owner: x.UID}
		case a.owner != x.UID:
			a.owned = false
		}
		if d.ID == rootDir {
			return a
		}
		dir = d.file.entries[0].Dir
	}
}
