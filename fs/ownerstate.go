package fs

import (
	"cmp"
	"container/list"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lockfs/lockfs/lockspace"
)

// The state of a named owner: what it holds, as text to be handed to who takes it up,
// another owner on this mount or on another, now or later. In the control file state
// it is of what the owner holds, without giving it back, or if it holds nothing, of
// what it held last; empty if that is nothing. It is one line without blanks:
//
//	lockfs1:MOUNT:RESOURCE,RESOURCE...
//
// MOUNT is 16 hexadecimal digits that no other mount has, RESOURCE an "x", if it is
// held exclusively, or an "s", the fencing token in decimal digits, a point, and the
// beginning of a SHA-256, 16 hexadecimal digits: of the resource's line without what
// says how, or where ("disk PATH", "lease SPACE KEY").
//
// Taking up from a state is to go on as if nothing had been given back. So acquire
// fails with ESTALE, and takes nothing, if any lock in a state of this mount has been
// held exclusively under a higher token since: by somebody, or by the owner itself,
// which then has a newer state. That is not EBUSY: to wait does not help. Who knows
// that it is good even so acquires without it. What was held shared in between has
// changed nothing. A state of another mount cannot be compared, and is only looked at
// for whether the owner has all the resources in it: a lock there has tokens of its
// own. EINVAL is for what is no state, and for one with resources that the owner does
// not have.
//
// That a lock was held exclusively is remembered for those that a named owner held,
// from the end of its hold on: for at most [maxTraces] for each user, and
// [maxAllTraces] in all; then the one goes whose hold ended first. A state
// with a lock that is not remembered any more is out of date too. Both outlive the
// daemon and its clean stop and start, but not a reboot, after which the mount is
// another one.

const (
	maxTraces    = 1024
	maxAllTraces = 16 * maxTraces

	stateWord = "lockfs1"
)

// ownerState is a state that was read.
type ownerState struct {
	mount   string
	entries []stateEntry
}

type stateEntry struct {
	mode   lockspace.Mode
	token  uint64
	digest string
}

var errState = errors.New("not a state")

func parseState(text string) (*ownerState, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 || parts[0] != stateWord || !isHex(parts[1]) {
		return nil, errState
	}
	s := &ownerState{mount: parts[1]}
	for entry := range strings.SplitSeq(parts[2], ",") {
		number, digest, _ := strings.Cut(entry, ".")
		if number == "" || !isHex(digest) {
			return nil, errState
		}
		e := stateEntry{digest: digest}
		switch number[0] {
		case 'x':
			e.mode = lockspace.Exclusive
		case 's':
		default:
			return nil, errState
		}
		var err error
		if e.token, err = strconv.ParseUint(number[1:], 10, 64); err != nil || e.token == 0 {
			return nil, errState
		}
		s.entries = append(s.entries, e)
	}
	return s, nil
}

// isHex reports whether text is 16 hexadecimal digits as they are written here.
func isHex(text string) bool { return len(text) == 16 && strings.Trim(text, "0123456789abcdef") == "" }

func (e stateEntry) String() string {
	how := "s"
	if e.mode == lockspace.Exclusive {
		how = "x"
	}
	return fmt.Sprintf("%s%d.%s", how, e.token, e.digest)
}

// ownersState is what is read of state.
func (f *FS) ownersState(o *namedOwner) []byte {
	holding := len(f.held(o)) > 0
	var entries []string
	for _, r := range o.resources {
		e := stateEntry{mode: r.HeldAs, token: r.Token, digest: r.digest()}
		if holding {
			e.token = 0
			if h := f.holdOf(o, r); h != nil && r.Mode != readonly {
				e.mode, e.token = h.Mode, h.Token
			}
		}
		if e.token != 0 {
			entries = append(entries, e.String())
		}
	}
	if len(entries) == 0 {
		return []byte{}
	}
	return fmt.Appendf(nil, "%s:%s:%s\n", stateWord, f.owners.mount(), strings.Join(entries, ","))
}

// compare compares a state with what has happened since to the locks that an owner
// wants. stale says what is out of date, for conflicts; the error, why it cannot be
// the owner's.
func (f *FS) compare(o *namedOwner, s *ownerState, all []wantedLock) (stale string, err error) {
	var b conflictLines
	for _, e := range s.entries {
		i := slices.IndexFunc(o.resources, func(r *resource) bool { return r.digest() == e.digest && r.Mode != readonly })
		if i < 0 {
			return "", fmt.Errorf("%v: not of a resource of the owner that takes a lock", e)
		}
		r := o.resources[i]
		if s.mount != f.owners.mount() || f.holdOf(o, r) != nil {
			continue
		}
		key := r.Key
		for _, t := range all {
			if t.resource == r {
				key = t.Key
			}
		}
		switch t := f.owners.traces.byKey[key]; {
		case t == nil:
			b.add("state=stale token=0", r)
		case t.Token > e.token:
			b.add(fmt.Sprintf("state=stale token=%d", t.Token), r)
		}
	}
	return b.String(), nil
}

// mount returns what tells this mount from others in states.
func (x *owners) mount() string { return fmt.Sprintf("%016x", x.traces.mount) }

// TraceRecord is what must outlive the process of a lock that a named owner held.
type TraceRecord struct {
	// ID is its number, from the same count as those of nodes: the higher it is, the
	// later the owner's hold has ended.
	ID  uint64
	Key lockspace.Key
	// Token is that under which it was held exclusively last.
	Token uint64
	// UID is the user whose owner held it.
	UID uint32
}

type trace struct {
	TraceRecord
	at *list.Element // in traces.order
}

// traces are those that there are.
type traces struct {
	byKey map[lockspace.Key]*trace
	// byUser is those of each user, the one whose hold ended last at the end; none of
	// the lists is empty.
	byUser map[uint32]*list.List
	// mount is the number of the mount, 0 while there is none. forgotten is the
	// highest token of those that had to go.
	mount, forgotten uint64
}

func newTraces() traces {
	return traces{byKey: make(map[lockspace.Key]*trace), byUser: make(map[uint32]*list.List)}
}

// put puts one behind its user's others.
func (t *traces) put(x *trace) {
	t.byKey[x.Key] = x
	l := t.byUser[x.UID]
	if l == nil {
		l = list.New()
		t.byUser[x.UID] = l
	}
	x.at = l.PushBack(x)
}

func (t *traces) remove(x *trace) {
	delete(t.byKey, x.Key)
	l := t.byUser[x.UID]
	if l.Remove(x.at); l.Len() == 0 {
		delete(t.byUser, x.UID)
	}
}

// surplus returns the one that has to go before a user gets another; nil: none has.
func (t *traces) surplus(uid uint32) *trace {
	l := t.byUser[uid]
	if len(t.byKey) >= maxAllTraces && l == nil {
		for _, other := range t.byUser { // whoever has most
			if l == nil || other.Len() > l.Len() {
				l = other
			}
		}
	}
	if l == nil || l.Len() < maxTraces && len(t.byKey) < maxAllTraces {
		return nil
	}
	return l.Front().Value.(*trace)
}

// begin gives the mount its number, when the first owner is made.
func (x *owners) begin() {
	if x.traces.mount != 0 {
		return
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	for _, c := range b {
		x.traces.mount = x.traces.mount<<8 | uint64(c)
	}
	x.traces.mount = max(x.traces.mount, 1)
	x.keepRegistry()
}

// trace remembers a lock of which a named owner's hold has ended.
func (x *owners) trace(h *lockspace.Hold, number func() uint64) {
	t, uid := &x.traces, h.Party.Taker.UID
	token := t.forgotten // what had to go may have been this one's
	if old := t.byKey[h.Key]; old != nil {
		token = old.Token
		t.remove(old)
		x.journal.DropOwned(old.ID)
	}
	if h.Mode == lockspace.Exclusive {
		token = max(token, h.Token)
	}
	if old := t.surplus(uid); old != nil {
		t.forgotten = max(t.forgotten, old.Token)
		t.remove(old)
		x.journal.DropOwned(old.ID)
		x.keepRegistry()
	}
	r := &trace{TraceRecord: TraceRecord{ID: number(), Key: h.Key, Token: token, UID: uid}}
	t.put(r)
	x.journal.PutOwned(r.ID, encodeTrace(&r.TraceRecord))
}

// traced remembers that a lock is held exclusively, if it is one that a named owner
// held.
func (x *owners) traced(h *lockspace.Hold) {
	if len(x.traces.byKey) == 0 || h.Mode != lockspace.Exclusive {
		return
	}
	if t := x.traces.byKey[h.Key]; t != nil && t.Token < h.Token {
		t.Token = h.Token
		x.journal.PutOwned(t.ID, encodeTrace(&t.TraceRecord))
	}
}

// inOrder sorts what has numbers by them.
func inOrder[T any](all []T, number func(T) uint64) {
	slices.SortFunc(all, func(a, b T) int { return cmp.Compare(number(a), number(b)) })
}
