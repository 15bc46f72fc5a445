package mirror

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Removing what lockfs made in a backing directory.

// ErrMany: there are more names in a directory than are to be looked at.
var ErrMany = errors.New("there are too many names in the directory to remove it at once")

// Remove implements [Names].
func (b *Backing) Remove(m MadeName) error { return b.RemoveFew(m, 0) }

// RemoveFew is Remove for who must not take long: with [ErrMany] nothing has been done,
// since there are more than most names in a directory, and those below it. 0: there may be
// any number.
func (b *Backing) RemoveFew(m MadeName, most int) error {
	err := b.remove(m, most)
	if err == nil {
		b.known.Delete(m.Temporary)
		b.there.CompareAndDelete(m.Path, m.Temporary)
	}
	return err
}

func (b *Backing) remove(m MadeName, most int) error {
	at, err := b.spot(m.Path)
	if elsewhere(err) {
		return nil // with the directory
	}
	if err != nil {
		return wrap("remove", m.Path, err)
	}
	defer at.close()
	t := at.beside(m.Temporary)
	switch is, x, err := b.at(t, &m); {
	case err != nil:
		return wrap("remove", m.Path, err)
	case is || x != nil && m.ID == (NameID{}): // a process before this one has died when it made or removed it
		if err := b.empty(t, x.mode, most); err != nil && !errors.Is(err, unix.ENOENT) {
			if err == unix.ENOTEMPTY {
				_ = t.moveTo(at.name) // there it is in use
			}
			return wrap("remove", m.Path, err)
		}
		if err := t.remove(x.mode); err != nil || x.kind() != unix.S_IFDIR && x.st.Nlink == 1 {
			return wrap("remove", m.Path, err)
		}
	}
	is, x, err := b.at(at, &m)
	if err == nil && (is || x != nil && b.isBegun(x, &m)) {
		err = b.removeSeen(at, x, m.Temporary, most)
	}
	return wrap("remove", m.Path, err)
}

// removeSeen removes what was seen at a spot, by way of a temporary name: what is
// not that gets its name back. Errors: ENOTEMPTY, [ErrNotRemoved], [ErrMany] as of
// RemoveFew, of the calls.
func (b *Backing) removeSeen(at spot, x *seen, temporary string, most int) error {
	if err := b.empty(at, x.mode, most); errors.Is(err, unix.ENOENT) {
		return nil // somebody else was faster
	} else if err != nil {
		return err
	}
	t := at.beside(temporary)
	err := at.moveTo(temporary)
	switch err {
	case nil:
	case errNoMove:
		return at.remove(x.mode)
	case unix.ENOENT:
		return nil
	default:
		return err
	}
	fd, now, err := b.see(t)
	if err != nil {
		return err
	}
	unix.Close(fd)
	if now.NameID == x.NameID {
		if err = t.remove(x.mode); err == nil || err == unix.ENOENT {
			return nil
		}
	}
	if back := t.moveTo(at.name); back != nil {
		return ErrNotRemoved
	}
	return err // nil: it is somebody else's
}

// removeLeftover removes what is at a spot if it is something that was left behind:
// a regular file that is marked and that nobody has locked, or what this mount has
// made and knows nothing of. It reports whether it is gone.
//
// Nobody else removes it meanwhile, so that nobody's is there instead when it is
// moved: a file is locked, by whoever removes it, and looked at again then. Who has it
// open to lock it does the same, and finds that it has lost its name. What is no file
// is removed by this mount only, one after the other.
func (b *Backing) removeLeftover(at spot) (gone bool, err error) {
	b.leftovers.Lock()
	defer b.leftovers.Unlock()
	return b.removeLeftoverLocked(at)
}

// removeLeftoverLocked is removeLeftover with b.leftovers, or in a directory that is
// being removed.
func (b *Backing) removeLeftoverLocked(at spot) (gone bool, err error) {
	fd, x, err := b.see(at)
	if err == unix.ENOENT {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	if !b.mayBeLeft(x) {
		return false, nil
	}
	if x.kind() == unix.S_IFREG {
		file, err := reopen(fd, unix.O_RDWR)
		if err != nil {
			return false, err
		}
		defer unix.Close(file)
		var lk unix.Flock_t
		flockOf(&lk, unix.F_WRLCK, lockspace.Whole)
		if unix.FcntlFlock(uintptr(file), unix.F_OFD_SETLK, &lk) != nil {
			return false, nil
		}
		again, now, err := b.see(at)
		if err == unix.ENOENT {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		unix.Close(again)
		// It may have been marked anew, too, by who has just given it back.
		if now.NameID != x.NameID || now.mark.temporary != x.mark.temporary || !b.mayBeLeft(now) {
			return false, nil
		}
	}
	err = b.removeSeen(at, x, Temporary(), 0)
	if err == unix.ENOTEMPTY {
		return false, nil // others are in it
	}
	return err == nil, err
}

// removeTemporary removes what is at a spot with a temporary name, if it was left behind
// by a process that has died when it removed something that was left behind: that it
// did is not recorded. What cannot be removed stays for the next time.
func (b *Backing) removeTemporary(at spot) {
	fd, x, err := b.see(at)
	if err != nil {
		return
	}
	unix.Close(fd)
	if b.mayBeLeft(x) {
		_, _ = b.removeLeftover(at)
	}
}

// mayBeLeft reports whether x is something that lockfs made and that nothing needs, if
// it is not a regular file that somebody has locked.
func (b *Backing) mayBeLeft(x *seen) bool {
	if b.knows(x) {
		return false
	}
	switch regular := x.kind() == unix.S_IFREG; x.mark.use {
	case ToHold:
		return regular || x.mark.mount == b.mount
	case ToKeep:
		return x.mark.mount == b.mount
	case ToLock:
		return regular || x.kind() == unix.S_IFDIR && x.mark.mount == b.mount
	}
	return false
}

// Vacant implements [Names].
func (b *Backing) Vacant(m MadeName) error {
	at, err := b.spot(m.Path)
	if elsewhere(err) {
		return nil
	}
	if err != nil {
		return wrap("look at", m.Path, err)
	}
	defer at.close()
	is, x, err := b.at(at, &m)
	if err == nil && is && x.kind() == unix.S_IFDIR {
		if err = b.left(at, nil, 0); errors.Is(err, unix.ENOENT) {
			err = nil
		}
	}
	return wrap("look at", m.Path, err)
}

// maxDepth is how deep directories are looked into.
const maxDepth = 16

// namesAtOnce is how many names are read of a directory at a time: anybody may have put
// a million there.
const namesAtOnce = 1024

// each calls f for the names in a directory, until that fails, with the directory open.
// Those that come meanwhile may or may not be among them.
func (at spot) each(f func(in spot) error) error {
	fd, err := openat2(at.dir, at.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), at.name)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(namesAtOnce)
		for _, name := range names {
			if err := f(spot{dir: fd, name: name}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// left returns nil if all that is in a directory is there for locks that nobody has, or was
// left behind. limit is how many names it may look at yet; nil: any number. Errors:
// ENOTEMPTY, something else is in it too; [ErrMany]; of the calls.
func (b *Backing) left(at spot, limit *int, depth int) error {
	return at.each(func(in spot) error {
		if limit != nil {
			if *limit--; *limit < 0 {
				return ErrMany
			}
		}
		path, x, err := b.see(in)
		if err == unix.ENOENT {
			return nil // it is gone by now
		}
		if err != nil {
			return err
		}
		locked := false
		mayBeLeft := b.mayBeLeft(x)
		if mayBeLeft && x.kind() == unix.S_IFREG {
			locked, err = lockedBySomebody(path)
		}
		unix.Close(path)
		switch {
		case err != nil:
			return err
		case locked || !mayBeLeft || depth >= maxDepth:
			return unix.ENOTEMPTY
		case x.kind() == unix.S_IFDIR:
			if err := b.left(in, limit, depth+1); !errors.Is(err, unix.ENOENT) {
				return err
			}
		}
		return nil
	})
}

// lockedBySomebody reports whether anybody has a lock on a regular file that is open
// with O_PATH.
func lockedBySomebody(path int) (bool, error) {
	fd, err := reopen(path, unix.O_RDONLY)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	_, found, err := getlk(unix.FcntlFlock, fd, lockspace.Exclusive, lockspace.Whole)
	return found, err
}

// empty removes what is in a directory for locks that nobody has, unless there is
// something else; of what is no directory there is nothing to remove. Errors: ENOTEMPTY;
// [ErrMany], as of RemoveFew; of the calls.
func (b *Backing) empty(at spot, mode uint32, most int) error {
	if mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	var limit *int
	if most > 0 {
		limit = &most
	}
	if err := b.left(at, limit, 0); err != nil {
		return err
	}
	return at.each(func(in spot) error {
		gone, err := b.removeLeftoverLocked(in)
		if err == nil && !gone {
			err = unix.ENOTEMPTY
		}
		return err
	})
}
