package fs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/lockfs/lockfs/lockspace"
)

// The control files that list locks: locks for people and scripts, locks.json
// for programs. Both formats are contracts.

// States of locks in lists.
const (
	stateHeld    = "held"
	stateWaiting = "waiting"
)

func (l *seenLock) state() string {
	if l.token == 0 && !l.outside {
		return stateWaiting
	}
	return stateHeld
}

// isAnonymous reports whether it is not known who holds it, outside of the mount, but
// perhaps his pid.
func (l *seenLock) isAnonymous() bool { return l.outside && !l.named }

// formatLocks writes the control file locks: a line for each hold and each
// wait, in the order of [seenLocks], of ten fields with one space between them:
// path, mode, range, state, pid, uid, comm, via, since, token. There is no token
// for who waits, and may be no comm: "-". Who holds it outside of the mount has no
// token, if nothing is published about him no uid and since either, and an eleventh
// field, the host. Bytes of path and comm that would not
// stay in their field are written as in /proc/mounts, as three octal digits
// behind a backslash; all others as they are, UTF-8 or not.
func formatLocks(seen *seenLocks) []byte {
	b := []byte{}
	for i := range seen.locks {
		l := &seen.locks[i]
		b = append(appendField(b, l.path), ' ')
		b = append(append(b, l.request.Mode.String()...), ' ')
		b = append(append(b, l.request.Range.String()...), ' ')
		b = append(append(b, l.state()...), ' ')
		b = append(strconv.AppendUint(b, uint64(l.who.Pid), 10), ' ')
		if l.isAnonymous() {
			b = append(b, "- "...)
		} else {
			b = append(strconv.AppendUint(b, uint64(l.who.UID), 10), ' ')
		}
		b = append(appendField(b, l.comm), ' ')
		b = append(append(b, l.request.Via.String()...), ' ')
		if l.isAnonymous() {
			b = append(b, "- "...)
		} else {
			b = append(l.since.Time().AppendFormat(b, time.RFC3339Nano), ' ')
		}
		if l.token == 0 {
			b = append(b, '-')
		} else {
			b = strconv.AppendUint(b, l.token, 10)
		}
		if l.outside {
			b = appendField(append(b, ' '), l.host)
		}
		b = append(b, '\n')
	}
	return b
}

// appendField writes a value so that it is one field: blanks, control characters,
// backslashes and what begins a comment as in /proc/mounts. Nothing is "-", and
// "-" is not.
func appendField(b []byte, s string) []byte {
	switch s {
	case "":
		return append(b, '-')
	case "-":
		return append(b, `\055`...)
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == '\\' || c == '#' || c == 0x7f {
			b = fmt.Appendf(b, `\%03o`, c)
		} else {
			b = append(b, c)
		}
	}
	return b
}

// jsonLock is a lock in locks.json. Strings in JSON are Unicode, names on Linux
// are bytes: of one that is not UTF-8, path has U+FFFD for what is not, and
// path_base64 the bytes; so for comm.
type jsonLock struct {
	Path       string `json:"path"`
	PathBase64 string `json:"path_base64,omitempty"`
	Mode       string `json:"mode"`
	First      uint64 `json:"first"`
	// Last is the last byte of the range, null if it goes to the end.
	Last  *uint64 `json:"last"`
	State string  `json:"state"`
	Pid   uint32  `json:"pid"`
	// UID and Since are null for who holds it outside of the mount, if they are not
	// known.
	UID        *uint32 `json:"uid"`
	Comm       string  `json:"comm"`
	CommBase64 string  `json:"comm_base64,omitempty"`
	Via        string  `json:"via"`
	Since      *string `json:"since"`
	// Token is null for who waits, and outside of the mount, where there is a host.
	Token *uint64 `json:"token"`
	Host  *string `json:"host,omitempty"`
}

// formatJSON writes the control file locks.json: the time of the moment that it
// shows, and the locks in the order of [seenLocks], one a line. Numbers have up
// to 63 bits.
func formatJSON(seen *seenLocks) []byte {
	var b bytes.Buffer
	lines := json.NewEncoder(&b)
	lines.SetEscapeHTML(false)
	fmt.Fprintf(&b, "{\"at\":%q,\"locks\":[", seen.began.Time().Format(time.RFC3339Nano))
	for i := range seen.locks {
		separator := ",\n"
		if i == 0 {
			separator = "\n"
		} else {
			b.Truncate(b.Len() - 1) // the newline behind the last
		}
		b.WriteString(separator)
		l := seen.locks[i].json()
		// There is nothing in it that JSON has not, and nothing fails to write to
		// a buffer.
		_ = lines.Encode(&l)
	}
	b.WriteString("]}\n")
	return b.Bytes()
}

func (l *seenLock) json() jsonLock {
	r := l.request.Range
	j := jsonLock{
		Mode: l.request.Mode.String(), First: r.First, State: l.state(), Pid: l.who.Pid,
		Via: l.request.Via.String(),
	}
	if !l.isAnonymous() {
		since := l.since.Time().Format(time.RFC3339Nano)
		j.UID, j.Since = &l.who.UID, &since
	}
	if l.outside {
		j.Host = &l.host
	}
	j.Path, j.PathBase64 = jsonText(l.path)
	j.Comm, j.CommBase64 = jsonText(l.comm)
	if r.Last != lockspace.MaxOffset {
		j.Last = &r.Last
	}
	if l.token != 0 {
		j.Token = &l.token
	}
	return j
}

// jsonText returns bytes as text, and in base64 too if they are none.
func jsonText(s string) (text, base string) {
	if utf8.ValidString(s) {
		return s, ""
	}
	return strings.ToValidUTF8(s, "\uFFFD"), base64.StdEncoding.EncodeToString([]byte(s))
}
