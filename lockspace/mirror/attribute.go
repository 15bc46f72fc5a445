package mirror

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// Which extended attribute marks are in, and so which are believed.
//
// Who may write to a file can give it any user.* attribute: if those were believed as well,
// somebody else's file could be made to look as if lockfs had left it behind, and would
// be removed. So where trusted.* can be set, which takes CAP_SYS_ADMIN, nothing else is
// read. Whether it can is found out by setting it: who must not is told by reading that
// there is none (xattr(7)).

const (
	trustedMarks = "trusted.lockfs"
	userMarks    = "user.lockfs"
)

// As says which mount does what is done through b: a word of letters and digits that
// no other mount has, and that outlives the mount's processes. To be called before
// anything else, and not in a step: it takes as long as the filesystem does. Without,
// nothing that is made is marked, and no mark is believed; nor in what [NewDirect]
// returns.
func (b *Backing) As(mount string) *Backing {
	b.mount, b.attribute, b.maker = mount, "", uint32(unix.Geteuid())
	switch {
	case mount == "" || b.existing:
	case b.canTrust():
		b.attribute = trustedMarks
	default:
		b.attribute = userMarks
	}
	return b
}

// canTrust reports whether what this process makes in the directory can have a trusted
// attribute. What cannot be found out that way, as on a disk that is full, the directory
// itself tells, and is not changed: to remove an attribute that is not there fails with
// ENODATA, and with another error if it may not be set. Else who can fill the disk could
// have himself believed.
func (b *Backing) canTrust() bool {
	fd, err := openat2(b.fd, ".", unix.O_RDWR|unix.O_TMPFILE, 0o600)
	if err == nil {
		err = b.try(fd)
		unix.Close(fd)
	} else {
		err = b.tryNamed()
	}
	switch err {
	case nil:
		return true
	case unix.EPERM, unix.EOPNOTSUPP:
		return false
	}
	err = eintr.Retry(func() error { return unix.Removexattr(fdPath(b.fd), trustedMarks+".none") })
	return err == unix.ENODATA
}

// tryNamed tries a trusted attribute where there is no O_TMPFILE, and returns what is
// wrong. If the process dies meanwhile, what it leaves behind says so, if it can.
func (b *Backing) tryNamed() error {
	at := spot{dir: b.fd, name: Temporary()}
	fd, err := openat2(at.dir, at.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|openFlags, 0o600)
	if err != nil {
		return err
	}
	err = b.try(fd)
	unix.Close(fd)
	_ = at.remove(unix.S_IFREG)
	return err
}

// try tries it on what this process has made, and notes whose that is: many filesystems
// of others, and vfat(5), have one user for all.
func (b *Backing) try(fd int) error {
	var st unix.Stat_t
	if eintr.Retry(func() error { return unix.Fstat(fd, &st) }) == nil {
		b.maker = st.Uid
	}
	return setAttribute(fd, trustedMarks, mark{ToLock, b.mount, "-"})
}

func setAttribute(fd int, attribute string, m mark) error {
	return eintr.Retry(func() error { return unix.Setxattr(fdPath(fd), attribute, m.text(), 0) })
}
