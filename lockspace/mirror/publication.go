package mirror

import (
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// What is written into backing files, for other tables with mirrors on the same
// directory, on this host or another: who holds the lock.
//
// A file that is to be written to begins with a header, which it gets when it is
// made, and by which everybody knows it: what does not begin so is somebody else's,
// and is never written to. Behind it is a text about those who hold the lock, or
// nothing. Writing and clearing it is for who has the first byte of the file locked
// exclusively, so there is one who does, and the text is about him. He clears it
// before he gives that byte back, and a text that he finds when he gets it, of
// somebody who died, before he uses it. What is locked shared, or elsewhere, has no
// text: several may have that at once, and none could tell the others' text from
// that of a dead one.
//
// So a text means something only while somebody has the first byte exclusively.
// Even then it is no more than somebody's word: the file belongs to a user.

// header is what a file begins with that is written to. It is a format that
// outlives the program.
const header = "# lockfs 1\n"

// MaxText is how long a text may be, in bytes.
const MaxText = 4096

// firstByte is what who writes has locked.
var firstByte = lockspace.Range{First: 0, Last: 0}

// begin writes the header of a file that has just been made. If that fails, or the
// process dies before, the file is one that is never written to.
func begin(fd int) {
	_, _ = unix.Pwrite(fd, []byte(header), 0)
}

// hasHeader reports whether a file may be written to.
func hasHeader(fd int) (bool, error) {
	b := make([]byte, len(header))
	n, err := pread(fd, b)
	return err == nil && string(b[:n]) == header, err
}

func pread(fd int, b []byte) (n int, err error) {
	err = eintr.Retry(func() error {
		n, err = unix.Pread(fd, b, 0)
		return err
	})
	return n, err
}

// publish replaces the text of a file. ours is false if it may not be written to.
func publish(fd int, text []byte) (ours bool, err error) {
	if ours, err = hasHeader(fd); !ours {
		return false, err
	}
	text = text[:min(len(text), MaxText)]
	var n int
	if err = eintr.Retry(func() error { n, err = unix.Pwrite(fd, text, int64(len(header))); return err }); err != nil {
		return true, err
	}
	// There may be more of another, if stat told of that too late; and what is
	// there in part is of no use.
	if n < len(text) {
		n, err = 0, unix.ENOSPC
	}
	if e := truncate(fd, n); err == nil {
		err = e
	}
	return true, err
}

// withdraw clears the text of a file. ours is false if it may not be written to.
func withdraw(fd int) (ours bool, err error) {
	if ours, err = hasHeader(fd); !ours {
		return false, err
	}
	return true, truncate(fd, 0)
}

// truncate leaves so many bytes of text.
func truncate(fd, text int) error {
	return eintr.Retry(func() error { return unix.Ftruncate(fd, int64(len(header)+text)) })
}

// Published returns the text that somebody has published who holds the first byte
// of the file at path, a lock of this process included; nil if nobody does, or he
// has published nothing. A lock of a process that the kernel knows by its number is
// not one of a mirror. Errors: as of [Backing.Open].
func (b *Backing) Published(path string) ([]byte, error) {
	if !valid(path) {
		return nil, wrap("open", path, unix.EINVAL)
	}
	fd, _, err := b.openFile(path, unix.O_RDONLY)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("open", path, err)
	}
	defer unix.Close(fd)
	// First who has it, then what is written: what he clears he still has.
	lk, found, err := getlk(unix.FcntlFlock, fd, lockspace.Shared, firstByte)
	if err != nil || !found || lk.Pid > 0 {
		return nil, wrap("getlk", path, err)
	}
	text := make([]byte, len(header)+MaxText+1)
	n, err := pread(fd, text)
	if err != nil {
		return nil, wrap("read", path, err)
	}
	s, ours := strings.CutPrefix(string(text[:n]), header)
	if !ours || s == "" || len(s) > MaxText {
		return nil, nil
	}
	return []byte(s), nil
}

// openFile opens the regular file at path, and nothing else.
func (b *Backing) openFile(path string, flags int) (int, inode, error) {
	if err := b.look(path); err != nil {
		return -1, inode{}, err
	}
	fd, err := b.openat2(path, flags|openFlags, 0)
	if err != nil {
		return -1, inode{}, err
	}
	i, err := regular(fd)
	if err != nil {
		unix.Close(fd)
		return -1, inode{}, err
	}
	return fd, i, nil
}
