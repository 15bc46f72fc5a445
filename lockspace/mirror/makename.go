package mirror

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// Making what is held by its name, and showing it.

// Make implements [Names].
func (b *Backing) Make(n NewName) (Opened, MadeName, error) {
	m := MadeName{Path: n.Path, Temporary: n.Temporary}
	b.Know(m)
	at, err := b.spotMade(n.Path)
	if err != nil {
		return Opened{}, m, wrap("make", n.Path, err)
	}
	defer at.close()
	t := at.beside(n.Temporary)
	if fd, x, err := b.see(t); err == nil {
		unix.Close(fd)
		if err := t.remove(x.mode); err != nil {
			return Opened{}, m, wrap("unlink", n.Temporary, err)
		}
	}
	fd, err := b.make(t, &n)
	if err != nil {
		return Opened{}, m, wrap("make", n.Path, err)
	}
	o, err := b.finish(fd, &n, &m)
	if err != nil {
		unix.Close(fd)
		_ = t.remove(n.Mode)
		return Opened{}, m, wrap("make", n.Path, err)
	}
	if o.FD != fd {
		unix.Close(fd)
	}
	return o, m, nil
}

// make makes n under its temporary name, for nobody else yet, and opens it: a link
// with O_PATH. Errors: as of [Backing.openNew].
func (b *Backing) make(t spot, n *NewName) (fd int, err error) {
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		fd, err = openat2(t.dir, t.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|openFlags, 0o600)
		b.reach(stepMade)
		return fd, err
	case unix.S_IFDIR:
		err = eintr.Retry(func() error { return unix.Mkdirat(t.dir, t.name, 0o700) })
	default:
		err = eintr.Retry(func() error { return unix.Symlinkat(n.Target, t.dir, t.name) })
	}
	if err != nil {
		return -1, err
	}
	return b.openNew(t, n)
}

// finish makes what is open what n says, and finds out what it is. What is returned
// has fd if it is a regular file, and is locked: before it is marked, since a file that is
// marked and not locked was left behind. Errors: ESTALE, somebody else has locked it; of
// the calls.
func (b *Backing) finish(fd int, n *NewName, m *MadeName) (Opened, error) {
	o := Opened{FD: -1}
	if n.Mode&unix.S_IFMT == unix.S_IFREG {
		var lk unix.Flock_t
		flockOf(&lk, unix.F_WRLCK, lockspace.Whole)
		err := eintr.Retry(func() error { return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lk) })
		if taken(err) {
			err = unix.ESTALE
		}
		if err != nil {
			return o, err
		}
		o.FD, o.Created = fd, true
	}
	b.setMark(fd, mark{ToHold, b.mount, n.Temporary})
	b.reach(stepMarked)
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR:
		if err := writeFile(fd, &n.NameState); err != nil {
			return o, err
		}
	default:
		if x, err := b.seeOpen(fd); unix.Geteuid() == 0 && (err != nil || x.st.Uid != n.UID || x.st.Gid != n.GID) {
			err := eintr.Retry(func() error { return unix.Fchownat(fd, "", int(n.UID), int(n.GID), unix.AT_EMPTY_PATH) })
			if err != nil && err != unix.EPERM && err != unix.EINVAL {
				return o, err
			}
		}
	}
	x, err := b.seeOpen(fd)
	if err != nil {
		return o, err
	}
	m.ID, m.Marked, o.inode = x.NameID, x.mark.use != "", x.inode()
	return o, nil
}

// Reveal implements [Names]. What was left behind in its place is removed.
//
// A filesystem that cannot rename without replacing gets a file's name by link(2), and a
// directory's by mkdir(2), see takeDirectory.
func (b *Backing) Reveal(m MadeName) error {
	at, err := b.spot(m.Path)
	if err != nil {
		return wrap("make", m.Path, err)
	}
	defer at.close()
	return wrap("make", m.Path, b.reveal(at, &m))
}

func (b *Backing) reveal(at spot, m *MadeName) error {
	t := at.beside(m.Temporary)
	for range attempts {
		switch is, _, err := b.at(at, m); {
		case err != nil:
			return err
		case is:
			if both, x, _ := b.at(t, m); both { // as link(2) leaves it
				_ = t.remove(x.mode)
			}
			return nil
		}
		is, x, err := b.at(t, m)
		switch {
		case err != nil:
			return err
		case !is:
			return unix.ESTALE
		}
		err = t.moveTo(at.name)
		switch {
		case err == errNoMove && x.kind() == unix.S_IFDIR:
			err = b.takeDirectory(at, m)
		case err == errNoMove:
			err = eintr.Retry(func() error { return unix.Linkat(t.dir, t.name, at.dir, at.name, 0) })
		}
		switch err {
		case nil:
			continue // is it what was made?
		case unix.EEXIST:
			if gone, err := b.removeLeftover(at); !gone || err != nil {
				return unix.EEXIST
			}
		default:
			return err
		}
	}
	return unix.EEXIST
}

// takeDirectory gives a directory that was made its name where nothing is renamed without
// replacing: it makes one of that name, which fails if there is something, and then
// replaces that, which is empty, by rename(2). What it makes is marked at once; if the
// process dies before, it counts as somebody else's.
func (b *Backing) takeDirectory(at spot, m *MadeName) error {
	fd, x, err := b.see(at)
	if err == nil {
		unix.Close(fd)
		if !b.isBegun(x, m) {
			return unix.EEXIST
		}
	} else if err = eintr.Retry(func() error { return unix.Mkdirat(at.dir, at.name, 0o700) }); err != nil {
		return err
	} else if fd, err := b.openNew(at, &NewName{NameState: NameState{Mode: unix.S_IFDIR}}); err == nil {
		b.setMark(fd, mark{ToHold, b.mount, m.Temporary})
		unix.Close(fd)
	} else if err == unix.ESTALE {
		return unix.EEXIST
	} else {
		return err
	}
	return eintr.Retry(func() error { return unix.Renameat(at.dir, m.Temporary, at.dir, at.name) })
}

// isBegun reports whether x is what takeDirectory has made for m.
func (b *Backing) isBegun(x *seen, m *MadeName) bool {
	return m.Temporary != "" && x.kind() == unix.S_IFDIR && x.mark.temporary == m.Temporary && b.mount != "" && x.mark.mount == b.mount
}
