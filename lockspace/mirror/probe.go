package mirror

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Foreign is a lock of somebody outside.
type Foreign struct {
	Mode  lockspace.Mode
	Range lockspace.Range
	// Pid is who has it, 0 if the kernel does not tell: it is on another host, in
	// another pid namespace, or of an open file description.
	Pid int
	// Name is what he has made, if he has it by that ([Names]); nil: he has a lock.
	Name *Outside
}

// Probe returns a lock that somebody outside has on k's file, any of
// them. known is false if there is one that is not open here, see [Backing.Probe].
// Errors: of the call.
func (m *Mirror) Probe(k lockspace.Key) (f Foreign, found, known bool, err error) {
	return m.ProbeFor(&lockspace.Request{Key: k, Mode: lockspace.Exclusive, Range: lockspace.Whole})
}

// ProbeFor is Probe for a lock that is in the way of r.
func (m *Mirror) ProbeFor(r *lockspace.Request) (f Foreign, found, known bool, err error) {
	k := r.Key
	n := m.names[k]
	if n == nil || n.file == nil {
		path, err := m.config.Path(k)
		if err != nil {
			return f, false, false, err
		}
		err = m.config.Backing.stat(path, &m.st)
		return f, false, errors.Is(err, unix.ENOENT), nil
	}
	if same, err := m.stillThere(n); err != nil || !same {
		return f, false, false, err
	}
	f, found, err = probe(m.fcntl, n.file.fd, r)
	return f, found, true, wrap("getlk", n.path, err)
}

// Probe returns a lock that somebody has on the file at path, this process's own
// ones included. A missing file is not made: nobody has it. Errors: as of
// [Backing.Open].
func (b *Backing) Probe(path string) (f Foreign, found bool, err error) {
	return b.ProbeFor(path, &lockspace.Request{Mode: lockspace.Exclusive, Range: lockspace.Whole})
}

// ProbeFor is Probe for a lock that is in the way of r.
func (b *Backing) ProbeFor(path string, r *lockspace.Request) (f Foreign, found bool, err error) {
	if !valid(path) {
		return f, false, wrap("open", path, unix.EINVAL)
	}
	err = b.look(path)
	var fd int
	if err == nil {
		fd, err = b.openat2(path, unix.O_RDONLY|openFlags, 0)
	}
	if err == unix.ENOENT {
		return f, false, nil
	}
	if err != nil {
		return f, false, wrap("open", path, err)
	}
	defer unix.Close(fd)
	if _, err := regular(fd); err != nil {
		return f, false, wrap("open", path, err)
	}
	f, found, err = probe(unix.FcntlFlock, fd, r)
	return f, found, wrap("getlk", path, err)
}

func probe(fcntl fcntlFunc, fd int, r *lockspace.Request) (Foreign, bool, error) {
	lk, found, err := getlk(fcntl, fd, r.Mode, r.Range)
	if err != nil || !found {
		return Foreign{}, false, err
	}
	f := Foreign{
		Mode:  lockspace.Shared,
		Range: lockspace.Range{First: uint64(lk.Start), Last: lockspace.MaxOffset},
		Pid:   max(0, int(lk.Pid)), // -1: an open file description
	}
	if lk.Type == unix.F_WRLCK {
		f.Mode = lockspace.Exclusive
	}
	if lk.Len != 0 {
		f.Range.Last = uint64(lk.Start + lk.Len - 1)
	}
	return f, true, nil
}
