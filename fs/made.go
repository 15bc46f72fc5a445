package fs

import (
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// What is held by its name is outside of the mount by its name, too (design 1.6):
// where names hold, and directories everywhere. Something of the same kind is in the
// backing directory as long as the hold lasts, with the same body, and whoever makes
// names there excludes users of the mount, and is excluded by them. A name that is
// there by somebody else's doing is held by him, see foreign.go.
//
// Several names of one file are several files outside, each with the body.
//
// It goes through these states, each recorded before what follows is done outside:
//
//	making  something is being made, under a name that nobody else looks at
//	made    it is known what that is; it is getting its name
//	there   it has its name, and the hold is granted
//	going   the hold has ended, or was not granted; it is being removed
//
// It is made where the directory has its place, by this process or by an agent. No step
// waits for an agent: that removes what is going, and writes, some time later, and who
// asks for the name until then takes a detour on which that is waited for. What it does
// not answer in time is ended, and removed when it does.
//
// The request that makes a name takes two detours, after each of which it is carried
// out from the beginning: makename.go. What ends is removed when the step has been
// recorded, and before it is answered: nameends.go. A process that takes over goes
// on in the state that was recorded: all that is done outside can be done again.

// States of a MadeRecord.
const (
	nameMaking = iota
	nameMade
	nameThere
	nameGoing
	nameGone // nothing is there any more; it is in no record
	// foreignName is in the place of the state in records of another format, see
	// foreign.go.
	foreignName = 255
)

// MadeRecord is what must outlive the process of a name that is made outside.
type MadeRecord struct {
	// ID is its number, from the same count as those of nodes.
	ID    uint64
	Key   lockspace.Key
	State uint8
	Kind  uint8
	// Place is where it is, as policies write it: also when its directory has another.
	Place string
	// Unique is the request that makes it, 0 if it has been answered.
	Unique uint64
	// Unwritten: what the file is, its body for one, has yet to be written outside.
	Unwritten bool
	// Where it is and what it is. It is not known before it is made.
	Outside mirror.MadeName
}

// made is such a name.
type made struct {
	MadeRecord
	// file is its open file until the mirror has it, nil if it has none.
	file *mirror.Preparation
	// from is what it was made from.
	from mirror.NameState
	// revealed: it has its name. err is why it does not get it.
	revealed bool
	err      error
	tries    int
	// away: the request that makes it is on a detour; inherited: it was, when the
	// process before died, and has not come back yet.
	away, inherited bool
	// failures is how often something outside did not work, one after the other, and due
	// when it is to be tried again; retried: it is among those that have failed.
	failures int
	due      time.Time
	retried  bool
	// asked: an agent has been asked to remove it, or it is removed aside, see
	// removeAside; leaving is closed when that has ended.
	// writing: it has been asked to write, and again: what it was told is not the last.
	asked          bool
	leaving        chan struct{}
	writing, again bool
}

// madeNames are the names that are made outside.
type madeNames struct {
	// mirror has the open files of those that this process makes, nil if it makes none.
	// mount tells this mount's from others.
	mirror *mirror.Mirror
	mount  string
	// inRecord is what of mount is recorded.
	inRecord string
	byKey    map[lockspace.Key]*made
	// begun are those that a request makes, by the request.
	begun map[uint64]*made
	// subject is the file that the present request makes a name for, unique the
	// request, and wanted what has yet to be made outside for it, if anything.
	subject *file
	unique  uint64
	wanted  *lockspace.Request
	// inTheWay is what has yet to be removed outside for the present request.
	inTheWay *made
	// committed is closed when the present step has been recorded; nil: nobody waits
	// for that.
	committed chan struct{}
	// ends are to be removed when the step is recorded, writes to be written, kept to
	// be marked as not kept any more.
	ends, writes, kept []*made
	// failed are those of which that did not work, to be tried again.
	failed []*made
	// dropped have been removed, and written written: the next step records it.
	dropped []uint64
	written []*made
	// leaving are those that are asked.
	leaving map[*made]bool
}

func newMadeNames() madeNames {
	return madeNames{byKey: make(map[lockspace.Key]*made), begun: make(map[uint64]*made), leaving: make(map[*made]bool)}
}

// existsOutside reports whether what is held by r is outside by its name.
func (f *FS) existsOutside(r *lockspace.Request) bool {
	if !r.ByName {
		return false
	}
	o := f.outsideOf(r.Key.Dir)
	return o != nil && o.makesNames() &&
		(r.Via == lockspace.ViaMkdir || f.nodes.dir(r.Key.Dir).file.holdsByName())
}

// namesOutside reports whether names that are in the backing directory of a
// directory's are held.
func (f *FS) namesOutside(dir uint64) bool {
	return f.mirrors(dir) && f.nodes.dir(dir).file.holdsByName()
}

// stateOf is what a file is to be outside.
func stateOf(x *file) mirror.NameState {
	s := mirror.NameState{Mode: x.fileType() | x.Mode, UID: x.UID, GID: x.GID, Modified: x.Modified.Time()}
	if x.Kind == regular && x.body != nil {
		s.Body = x.body.Data
	}
	return s
}

// sameState reports whether a file that was made as a need not be written to be b. Of
// what is new it does not matter when it was made.
func sameState(a, b *mirror.NameState) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && string(a.Body) == string(b.Body)
}

// settleName hears what is held of a lock, and returns of it what the mirror has to
// lock: not what is held by something that is no regular file outside.
func (f *FS) settleName(k lockspace.Key, holds []*lockspace.Hold) []*lockspace.Hold {
	x, named := f.made.byKey[k], false
	for _, h := range holds {
		named = named || f.existsOutside(&h.Request)
	}
	switch {
	case x == nil:
	case named && x.State == nameMade:
		delete(f.made.begun, x.Unique)
		x.State, x.Unique = nameThere, 0
		if x.Kind != symlink && f.made.subject != nil {
			now := stateOf(f.made.subject)
			if x.Unwritten = !sameState(&now, &x.from); x.Unwritten {
				f.made.writes = append(f.made.writes, x)
			}
		}
		f.journal.PutMade(&x.MadeRecord)
	case !named && x.State == nameThere && (x.Kind != regular || len(holds) == 0):
		f.endName(x) // a file not before nobody has it locked any more, see passing
	}
	if !named || x != nil && x.Kind == regular && x.Outside.ID != (mirror.NameID{}) { // else see makeUpByAgent
		return holds
	}
	locked := make([]*lockspace.Hold, 0, len(holds))
	for _, h := range holds {
		if !f.existsOutside(&h.Request) {
			locked = append(locked, h)
		}
	}
	return locked
}

// mountName returns what tells this mount's names from others.
func (f *FS) mountName() string {
	if f.identity != "" {
		f.made.mount = f.identity
	} else if f.made.mount == "" {
		f.made.mount = rand.Text()
	}
	return f.made.mount
}

// madeAt returns the mirror of the place where a name was made, nil if there is none that
// makes any.
func (f *FS) madeAt(x *made) outside {
	if o := f.mirror.of(x.Place); o != nil && o.makesNames() {
		return o
	}
	return nil
}

// opsOf returns what names are made with there, see [outside].
func (f *FS) opsOf(x *made, limit time.Duration) mirror.Names { return f.madeAt(x).names(limit) }

// endName has a name removed outside, when the step has been recorded.
func (f *FS) endName(x *made) {
	delete(f.made.begun, x.Unique)
	if x.file != nil {
		f.made.mirror.Discard(x.file)
		x.file = nil
	}
	x.State, x.Unique = nameGoing, 0
	f.journal.PutMade(&x.MadeRecord)
	f.made.ends = append(f.made.ends, x)
}

// wroteFile has what a file is now written outside, under all its names, when the
// step has been recorded.
func (f *FS) wroteFile(x *file) {
	if len(f.made.byKey) == 0 {
		return
	}
	for _, e := range x.entries {
		if m := f.made.byKey[e.key()]; m != nil && m.State == nameThere {
			f.writeName(m, x)
		}
	}
}

func (f *FS) writeName(m *made, x *file) {
	if m.Kind == symlink || m.Unwritten && m.State == nameThere {
		m.again = m.writing
		return // it cannot change, or is to be written already
	}
	m.Unwritten = true
	f.journal.PutMade(&m.MadeRecord)
	f.made.writes = append(f.made.writes, m)
}

// PutMade records a name that is made outside, which [MadeRecord.fits].
func (r *Records) PutMade(m *MadeRecord) {
	r.count(counterNode, m.ID)
	e := r.begin()
	m.encode(&e)
	r.put(kindMade, m.ID, e)
}

func (m *MadeRecord) encode(e *encoder) {
	e.byte(m.State)
	e.byte(m.Kind)
	e.u64(m.Unique)
	e.flag(m.Unwritten)
	e.u64(m.Outside.ID.Dev)
	e.u64(m.Outside.ID.Ino)
	e.u64(uint64(m.Outside.ID.Born))
	e.flag(m.Outside.Marked)
	e.key(m.Key)
	e.text(m.Outside.Temporary)
	e.text(m.Outside.Path)
	e.text(m.Place)
}

// fits returns nil if m can be recorded, else ENAMETOOLONG: its place and the path below
// that can each be as long as a path. Its size does not change later.
func (m *MadeRecord) fits() error {
	var e encoder
	if m.encode(&e); len(e.b) > maxRecord {
		return fmt.Errorf("%.50s...: %w below its place", m.Outside.Path, unix.ENAMETOOLONG)
	}
	return nil
}

func (r *Records) DropMade(id uint64) { r.store.Drop(kindMade, id) }

// PutMount records what tells this mount's names from others, under a number that no
// name has.
func (r *Records) PutMount(mount string) {
	e := r.begin()
	e.text(mount)
	r.put(kindMade, 0, e)
}

// loadMade reads a record of that kind.
func (s *Saved) loadMade(id uint64, d *decoder) error {
	if id == 0 {
		s.mount = string(d.bytes(maxName))
		return d.end("mount", id)
	}
	state := d.limited(foreignName)
	if state == foreignName {
		return s.loadForeign(id, d)
	}
	if state >= nameGone {
		d.damaged()
	}
	m := &made{MadeRecord: MadeRecord{
		ID: id, State: state, Kind: d.limited(kinds - 1), Unique: d.u64(), Unwritten: d.flag(),
	}}
	m.Outside.ID = mirror.NameID{Dev: d.u64(), Ino: d.u64(), Born: int64(d.u64())}
	m.Outside.Marked = d.flag()
	m.Key = d.key(&s.names)
	m.Outside.Temporary, m.Outside.Path = string(d.bytes(maxName)), string(d.bytes(unix.PathMax))
	m.Place = string(d.bytes(unix.PathMax))
	s.made = append(s.made, m)
	return d.end("name outside", id)
}

// restoreMade takes in the names that were made outside.
func (f *FS) restoreMade(s *Saved) error {
	f.made.mount, f.made.inRecord = s.mount, s.mount
	for _, m := range s.made {
		if m.ID > maxNode {
			return fmt.Errorf("name outside %d: its number is none: %w", m.ID, ErrRecord)
		}
		if other := f.made.byKey[m.Key]; other != nil {
			// One of them goes, and the process died before it was recorded that it is
			// gone.
			if m.State == nameGoing {
				f.made.ends = append(f.made.ends, m)
				continue
			}
			if other.State != nameGoing {
				return fmt.Errorf("name outside %d: %q is there twice: %w", m.ID, m.Key.Name, ErrRecord)
			}
		}
		f.made.byKey[m.Key] = m
		switch m.State {
		case nameGoing:
			f.made.ends = append(f.made.ends, m)
		case nameMaking, nameMade:
			m.inherited = true
			f.made.begun[m.Unique] = m
		}
		if m.Unwritten && m.State == nameThere {
			f.made.writes = append(f.made.writes, m)
		}
	}
	return nil
}

// knowMade tells of those that were restored what makes and removes them. What was made
// where nothing is made any more is nobody's.
func (f *FS) knowMade() {
	known := func(x *made) bool {
		o := f.madeAt(x)
		if o == nil {
			delete(f.made.begun, x.Unique)
			f.made.dropped = append(f.made.dropped, x.ID)
			return false
		}
		o.names(0).Know(x.Outside)
		return true
	}
	for _, x := range f.made.byKey {
		if x.State != nameGoing && !known(x) {
			delete(f.made.byKey, x.Key)
		}
	}
	f.made.ends = slices.DeleteFunc(f.made.ends, func(x *made) bool {
		unknown := !known(x)
		if unknown && f.made.byKey[x.Key] == x {
			delete(f.made.byKey, x.Key)
		}
		return unknown
	})
	f.made.writes = slices.DeleteFunc(f.made.writes, func(x *made) bool { return f.made.byKey[x.Key] != x })
}

// madePlaces are the places of all that is outside, or may be.
func (f *FS) madePlaces() map[string]bool {
	places := make(map[string]bool)
	for _, x := range f.made.byKey {
		places[x.Place] = true
	}
	for _, all := range [][]*made{f.made.ends, f.made.failed} {
		for _, x := range all {
			places[x.Place] = places[x.Place] || x.State != nameGone
		}
	}
	for x := range f.made.leaving {
		places[x.Place] = true
	}
	return places
}

// nameEvery is how often names are looked at that are there, and how soon that is tried
// again what did not work; then twice as late each time, up to mostBetween.
const (
	nameEvery   = time.Second
	mostBetween = time.Minute
)
