package mirror

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// The lock calls: fcntl(2), open file description locks.

// fcntlFunc is unix.FcntlFlock. Tests count the calls and make them fail.
type fcntlFunc func(fd uintptr, cmd int, lk *unix.Flock_t) error

// flockOf fills in lk for a call about r. typ is F_RDLCK, F_WRLCK or F_UNLCK.
func flockOf(lk *unix.Flock_t, typ int16, r lockspace.Range) {
	*lk = unix.Flock_t{Type: typ, Whence: unix.SEEK_SET, Start: int64(r.First)}
	if r.Last != lockspace.MaxOffset { // else 0, to the end
		lk.Len = int64(r.Last-r.First) + 1
	}
}

// typeOf returns the type of a lock in mode m.
func typeOf(m lockspace.Mode) int16 {
	if m == lockspace.Exclusive {
		return unix.F_WRLCK
	}
	return unix.F_RDLCK
}

// setlk makes r of an open file what typ says, if nobody is in the way: EAGAIN.
// Only for steps, which share the memory of the call.
func (m *Mirror) setlk(fd int, typ int16, r lockspace.Range) error {
	flockOf(&m.lk, typ, r)
	for {
		if err := m.fcntl(uintptr(fd), unix.F_OFD_SETLK, &m.lk); err != unix.EINTR {
			return err
		}
	}
}

// setlkw waits until it has r in a mode.
func (m *Mirror) setlkw(fd int, mode lockspace.Mode, r lockspace.Range) error {
	lk := new(unix.Flock_t)
	for {
		flockOf(lk, typeOf(mode), r)
		if err := m.fcntl(uintptr(fd), unix.F_OFD_SETLKW, lk); err != unix.EINTR {
			return err
		}
	}
}

// getlk returns the lock that keeps an open file from having r in a mode, if
// there is one.
func getlk(fcntl fcntlFunc, fd int, mode lockspace.Mode, r lockspace.Range) (lk unix.Flock_t, found bool, err error) {
	p := new(unix.Flock_t)
	for {
		flockOf(p, typeOf(mode), r)
		if err := fcntl(uintptr(fd), unix.F_OFD_GETLK, p); err != unix.EINTR {
			return *p, err == nil && p.Type != unix.F_UNLCK, err
		}
	}
}

// taken reports whether a lock call failed because somebody is in the way. POSIX
// allows either.
func taken(err error) bool { return err == unix.EAGAIN || err == unix.EACCES }
