package mirror

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// What is held by its name exists in the backing directory, too, for programs that
// lock by making a name there: made by a call that fails if there is something, of
// the same kind, and removed when the hold has ended.
//
// It is made under a temporary name first, so that it can be written down what it is
// before anybody sees it: whoever takes over from a process that has died then knows
// what of that is there. Only what is known to be that is ever removed, and of what
// was left behind what is marked so (see mark).
//
// What is done to a name is done in a directory that is open: between looking at a
// name and removing it somebody else may replace it. So it is first given its
// temporary name again, looked at once more, and given back the name if it is not
// what was made. What remains: somebody who has replaced what lockfs made, which
// nobody who does not hold the lock may, in the very moment when it is given back,
// may have his name away for a moment.

// Names is what is done to names in a backing directory. None of it is for steps:
// it may take as long as the filesystem does. [*Backing] does it in this process, and an
// agent for another. All of it can be done again, with the same outcome.
type Names interface {
	// Know says that something has been made by a process before this one, or that
	// one was about to, and was not removed; or, without a temporary name, that
	// somebody else has made a directory. To be called before anything else.
	Know(MadeName)
	// Forget says that nothing is asked for any more in the directory at path that
	// somebody else has made, until it is looked at again. It does not wait.
	Forget(path string)
	// Make makes something under its temporary name, and whatever a process before
	// this one had made under that is gone. A regular file is open, and locked.
	Make(NewName) (Opened, MadeName, error)
	// Reveal gives what was made its name, unless it has it. Errors: EEXIST, there is
	// something; ESTALE, what was made is not there; of the calls.
	Reveal(MadeName) error
	// Remove removes what was made, if it is there, under either name. Errors:
	// ENOTEMPTY, others have something in the directory; of the calls.
	Remove(MadeName) error
	// Write makes a file, or a directory, that was made what a state says. Errors:
	// ESTALE, it is not there; of the calls.
	Write(MadeName, NameState) error
	// Mark says what something that was made is for from now on. Errors: ESTALE, it is
	// not there; of the calls.
	Mark(MadeName, Use) error
	// IsThere reports whether what was made has its name.
	IsThere(MadeName) (bool, error)
	// Look returns who holds a name by having made it, nil if nobody else does.
	Look(path string, known MadeName) (*Outside, error)
	// List returns what names in a directory others hold so; if directories is set,
	// those that are directories. What was left behind under a temporary name is
	// removed.
	List(dir string, directories bool) ([]Listed, error)
	// Vacant returns nil if a directory that was made can be removed, else
	// ENOTEMPTY.
	Vacant(MadeName) error
}

var _ Names = (*Backing)(nil)

// NewName is something to be made.
type NewName struct {
	Path string
	// Temporary is a name in the same directory that nothing else has, see
	// [Temporary].
	Temporary string
	// Target is the text of a symbolic link.
	Target string
	NameState
}

// NameState is what may change of something that was made. Who is not root cannot
// give it away, and makes it his own.
type NameState struct {
	// Mode has the type (S_IFREG, S_IFDIR or S_IFLNK) and the permission.
	Mode     uint32
	UID, GID uint32
	Modified time.Time
	Body     []byte
}

// MadeName is something that was made.
type MadeName struct {
	Path, Temporary string
	ID              NameID
	// Marked: it was marked. Then that it is marked tells it from others, whose
	// numbers can come to be the same.
	Marked bool
}

// Temporary returns a name that nothing has.
func Temporary() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // it does not fail
	return temporaryPrefix + hex.EncodeToString(b)
}

const temporaryPrefix = ".lockfs-"

// isTemporary reports whether a name is one that [Temporary] has returned.
func isTemporary(name string) bool {
	rest, ok := strings.CutPrefix(name, temporaryPrefix)
	if !ok || len(rest) != 24 {
		return false
	}
	_, err := hex.DecodeString(rest)
	return err == nil
}

// Know implements [Names].
func (b *Backing) Know(m MadeName) {
	if m.Temporary == bySomebody {
		b.isThereBy(m.Path)
		return
	}
	b.known.Store(m.Temporary, true)
	b.there.Store(m.Path, m.Temporary)
}

// knows reports whether x is something that this mount has made and not removed.
func (b *Backing) knows(x *seen) bool {
	if x.mark.use == "" || x.mark.mount != b.mount {
		return false
	}
	_, known := b.known.Load(x.mark.temporary)
	return known
}

// is reports whether x is m. A filesystem that several hosts share has another device
// number when it has been mounted anew: what is marked is known without.
func (b *Backing) is(x *seen, m *MadeName) bool {
	id := m.ID
	if m.Marked {
		id.Dev = x.Dev
	}
	return x.NameID == id && x.mark.temporary == m.temporaryMark() && (!m.Marked || x.mark.mount == b.mount)
}

func (m *MadeName) temporaryMark() string {
	if m.Marked {
		return m.Temporary
	}
	return ""
}

// at returns whether m is at a spot, and what is there otherwise, nil for nothing.
func (b *Backing) at(s spot, m *MadeName) (bool, *seen, error) {
	fd, x, err := b.see(s)
	if err == unix.ENOENT {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	unix.Close(fd)
	return b.is(x, m), x, nil
}

// IsThere implements [Names].
func (b *Backing) IsThere(m MadeName) (bool, error) {
	s, err := b.spot(m.Path)
	if elsewhere(err) {
		return false, nil
	}
	if err != nil {
		return false, wrap("look at", m.Path, err)
	}
	defer s.close()
	is, _, err := b.at(s, &m)
	return is, wrap("look at", m.Path, err)
}

// OpenMade opens a file that was made. Errors: ESTALE, it is not there.
func (b *Backing) OpenMade(m MadeName) (Opened, error) {
	s, err := b.spot(m.Path)
	if err != nil {
		return Opened{}, wrap("open", m.Path, err)
	}
	defer s.close()
	o, x, err := b.openRegular(s)
	if err == nil && !b.is(x, &m) {
		unix.Close(o.FD)
		err = unix.ESTALE
	}
	if elsewhere(err) {
		err = unix.ESTALE
	}
	return o, wrap("open", m.Path, err)
}

// openRegular opens the regular file that is at a spot, for locking, and no other than the
// one that it has looked at. Errors: as of [regular], and of open(2).
func (b *Backing) openRegular(s spot) (Opened, *seen, error) {
	fd, x, err := b.see(s)
	if err != nil {
		return Opened{}, nil, err
	}
	defer unix.Close(fd)
	if _, err := regular(fd); err != nil {
		return Opened{}, x, err
	}
	o := Opened{inode: x.inode()}
	if o.FD, err = reopen(fd, unix.O_RDWR); err != nil && readOnlyError(err) {
		o.ReadOnly = true
		o.FD, err = reopen(fd, unix.O_RDONLY)
	}
	return o, x, err
}

// reopen opens a regular file that is open with O_PATH.
func reopen(fd, flags int) (opened int, err error) {
	err = eintr.Retry(func() error {
		opened, err = unix.Open(fdPath(fd), flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		return err
	})
	return opened, err
}

// Write implements [Names]. There is no moment in which the file is shorter than
// what it had and what it gets.
func (b *Backing) Write(m MadeName, to NameState) error {
	s, err := b.spot(m.Path)
	if err != nil {
		return wrap("write", m.Path, err)
	}
	defer s.close()
	fd, x, err := b.see(s)
	if err == nil {
		defer unix.Close(fd)
		if !b.is(x, &m) {
			err = unix.ESTALE
		}
	}
	if elsewhere(err) {
		err = unix.ESTALE
	}
	if err == nil {
		err = writeTo(fd, x.mode, &to)
	}
	return wrap("write", m.Path, err)
}

// writeTo is Write of what is open with O_PATH, of a kind.
func writeTo(path int, kind uint32, to *NameState) error {
	var fd int
	var err error
	switch kind & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err = reopen(path, unix.O_RDWR)
	case unix.S_IFDIR:
		fd, err = reopen(path, unix.O_RDONLY)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return writeFile(fd, to)
}

// writeFile is Write of what is open.
func writeFile(fd int, to *NameState) error {
	var st unix.Stat_t
	if err := eintr.Retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return err
	}
	if err := give(fd, &st, to); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		for done := 0; done < len(to.Body); {
			n, err := unix.Pwrite(fd, to.Body[done:], int64(done))
			if err != nil && err != unix.EINTR {
				return err
			}
			done += max(n, 0)
		}
		if st.Size != int64(len(to.Body)) || len(to.Body) > 0 {
			if err := eintr.Retry(func() error { return unix.Ftruncate(fd, int64(len(to.Body))) }); err != nil {
				return err
			}
		}
	}
	if to.Modified.IsZero() {
		return nil
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(to.Modified.UnixNano())}
	err := unix.UtimesNanoAt(unix.AT_FDCWD, fdPath(fd), times, 0)
	if err == unix.EPERM || err == unix.EACCES {
		return nil // it has been given away
	}
	return err
}

// give makes what is open, and is as st says, somebody's, with a mode.
func give(fd int, st *unix.Stat_t, to *NameState) error {
	mode := to.Mode & 0o7777
	if unix.Geteuid() == 0 {
		if st.Uid != to.UID || st.Gid != to.GID {
			err := eintr.Retry(func() error { return unix.Fchown(fd, int(to.UID), int(to.GID)) })
			if err != nil && err != unix.EPERM && err != unix.EINVAL {
				return err // for those see create
			}
		}
	} else {
		mode |= 0o600 // it is written to again
	}
	if st.Mode&0o7777 == mode && st.Uid == to.UID {
		return nil
	}
	err := eintr.Retry(func() error { return unix.Fchmod(fd, mode) })
	if err == unix.EPERM {
		return nil
	}
	return err
}

// Mark implements [Names].
func (b *Backing) Mark(m MadeName, use Use) error {
	s, err := b.spot(m.Path)
	if err != nil {
		return wrap("mark", m.Path, err)
	}
	defer s.close()
	fd, x, err := b.see(s)
	if err != nil {
		if elsewhere(err) {
			err = unix.ESTALE
		}
		return wrap("mark", m.Path, err)
	}
	defer unix.Close(fd)
	if !b.is(x, &m) {
		return wrap("mark", m.Path, unix.ESTALE)
	}
	if x.mark.use == "" {
		return nil
	}
	if use == ToLock {
		b.known.Delete(m.Temporary) // it gives way as any other
		b.there.CompareAndDelete(m.Path, m.Temporary)
	}
	x.mark.use = use
	b.setMark(fd, x.mark)
	return nil
}

// ErrNotRemoved is why something is left under a temporary name: somebody has put it
// in the place of what lockfs had made, and has something there again.
var ErrNotRemoved = fmt.Errorf("somebody else's is left under a temporary name (%w)", unix.EBUSY)
