package mirror

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// A directory or a link is made by its name, and then opened by its name. Whose directory
// it is in may have put something else there in between: it would be marked, given away
// and removed as if it was lockfs's. So what is open then is looked at before anything is
// done to it: it is what was made, or is worth nothing to anybody.

// openNew opens what was made at t as n says, a link with O_PATH. Errors: ESTALE,
// something else is there, which stays; of the calls.
func (b *Backing) openNew(t spot, n *NewName) (fd int, err error) {
	b.reach(stepMade)
	if n.Mode&unix.S_IFMT == unix.S_IFDIR {
		fd, err = openat2(t.dir, t.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	} else {
		fd, err = t.open()
	}
	if elsewhere(err) {
		return -1, unix.ESTALE
	}
	if err != nil {
		_ = t.remove(n.Mode)
		return -1, err
	}
	is, err := b.isNew(fd, n)
	if err == nil && !is {
		err = unix.ESTALE
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// isNew reports whether what is open may be what this process has just made as n says: a
// directory of its own user's that is empty, or a link of his with that text.
func (b *Backing) isNew(fd int, n *NewName) (bool, error) {
	own, kind, err := b.isOwn(fd)
	if err != nil || !own || kind != n.Mode&unix.S_IFMT {
		return false, err
	}
	if kind == unix.S_IFDIR {
		return isEmpty(fd)
	}
	buf := make([]byte, unix.PathMax)
	length, err := unix.Readlinkat(fd, "", buf)
	return err == nil && string(buf[:length]) == n.Target, err
}

// isOwn reports whether what is open belongs to whom belongs what this process makes, and
// its type.
func (b *Backing) isOwn(fd int) (own bool, kind uint32, err error) {
	x, err := b.seeOpen(fd)
	if err != nil {
		return false, 0, err
	}
	return x.st.Uid == b.maker, x.kind(), nil
}

// isEmpty reports whether a directory that is open has nothing in it.
func isEmpty(fd int) (bool, error) {
	again, err := openat2(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return false, err
	}
	dir := os.NewFile(uintptr(again), ".")
	defer dir.Close()
	_, err = dir.Readdirnames(1)
	if err == io.EOF {
		return true, nil
	}
	return false, err
}

// Steps at which tests see to it that somebody comes in between.
const (
	stepMade   = "made, and not open"
	stepMarked = "marked"
)

func (b *Backing) reach(step string) {
	if b.reached != nil {
		b.reached(step)
	}
}
