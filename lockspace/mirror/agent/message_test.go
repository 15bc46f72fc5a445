package agent

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// A message is read as it was written, and no longer than a packet.
func TestMessages(t *testing.T) {
	big := message{kind: kindState, path: strings.Repeat("p", unix.PathMax), key: lockspace.Key{Dir: 9, Name: strings.Repeat("n", 255)}}
	for i := range uint64(mostEntries) {
		big.entries = append(big.entries, entry{entryAwait, i, span{bytes(i, i+1), exclusive}})
	}
	list := message{kind: kindReply, more: true, failure: failure{text: strings.Repeat("e", 2*unix.PathMax)}}
	for range mostNames {
		list.names = append(list.names, strings.Repeat("x", 255))
	}
	for _, m := range []message{
		{}, big, list,
		{kind: kindCover, epoch: 1 << 63, seq: 2, key: lockspace.Key{Dir: 3, Name: "a\nb"}, path: "d/a", uid: 4, gid: 5, span: span{whole, shared}},
		{kind: kindReply, outcome: outcomeForeign, found: true, pid: 7, stats: mirror.Stats{Open: 1, Limit: 2, Cached: 3, Awaited: 4, Polled: 5, Lost: 6, Stuck: 7}},
	} {
		b := m.append(nil)
		if len(b) > packetMax {
			t.Errorf("a message of kind %d has %d bytes", m.kind, len(b))
		}
		got, ok := parse(b)
		if !ok || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v is read as %+v, %v", m, got, ok)
		}
		for _, cut := range []int{1, len(b) / 2, len(b) - 1} {
			if _, ok := parse(b[:cut]); ok {
				t.Errorf("%d bytes of %d are a message", cut, len(b))
			}
		}
		if _, ok := parse(append(b, 0)); ok {
			t.Error("a message with a byte too much is one")
		}
	}
}

// What comes over the line is no danger to who reads it.
func FuzzParse(f *testing.F) {
	m := message{kind: kindState, entries: []entry{{entryHeld, 1, span{whole, exclusive}}}, names: []string{"x"}}
	f.Add(m.append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := parse(b); ok {
			if again, ok := parse(m.append(nil)); !ok || !reflect.DeepEqual(again, m) && len(m.failure.text) <= 2*unix.PathMax {
				t.Errorf("%q is not read again as it was", b)
			}
		}
	})
}

// Errors stay what they are: for who compares them, and for who wants the errno.
func TestErrors(t *testing.T) {
	for _, err := range []error{mirror.ErrLimit, mirror.ErrReplaced, mirror.ErrTaken} {
		f := failureOf(err)
		if !errors.Is(f.err(), err) {
			t.Errorf("%v arrives as %v", err, f.err())
		}
	}
	f := failureOf(unix.ENOENT)
	if err := f.err(); !errors.Is(err, unix.ENOENT) || err.Error() != unix.ENOENT.Error() {
		t.Errorf("ENOENT arrives as %v", err)
	}
	f = failureOf(errors.New("without an errno"))
	var errno unix.Errno
	if err := f.err(); err == nil || errors.As(err, &errno) {
		t.Errorf("an error without an errno arrives as %v", err)
	}
	if f = failureOf(nil); f.err() != nil {
		t.Errorf("no error arrives as %v", f.err())
	}
}
