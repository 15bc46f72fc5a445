package mirror

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Directories that are there for another reason than that files in them are locked:
// what is held by its name, and what somebody else has made. When such a one is gone,
// it is not made anew for a lock in it that somebody asks for in that moment: it would
// be there for nobody, and be in the way of whoever wants its name.

// errGone is why a lock cannot be in one that has been removed.
var errGone = fmt.Errorf("the directory has been removed (%w)", unix.ESTALE)

// bySomebody is in the place of the temporary name of what somebody else has made.
const bySomebody = ""

// isThere reports whether the directory at path is one of those.
func (b *Backing) isThere(path string) bool {
	_, is := b.there.Load(path)
	return is
}

// isThereBy says that somebody else has made the directory at path, unless it is
// known to be one of this mount's.
func (b *Backing) isThereBy(path string) { b.there.LoadOrStore(path, bySomebody) }

// notThere says that nothing is at path.
func (b *Backing) notThere(path string) { b.there.CompareAndDelete(path, bySomebody) }

// Forget implements [Names].
func (b *Backing) Forget(path string) { b.notThere(path) }

// maxInUse is how many names of a directory are looked at to find out whether it is in
// use: one that has more is.
const maxInUse = 1000

// isInUse reports whether a directory that lockfs has made could not be removed, since
// something of somebody's is in it, or one of the files in it is locked.
func (b *Backing) isInUse(at spot) (bool, error) {
	fd, err := openat2(at.dir, at.name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if elsewhere(err) {
		return false, nil // it has gone by now
	}
	if err != nil {
		return false, err
	}
	dir := os.NewFile(uintptr(fd), at.name)
	names, _ := dir.Readdirnames(maxInUse)
	dir.Close()
	switch {
	case len(names) == 0:
		return false, nil
	case len(names) == maxInUse:
		return true, nil
	}
	err = b.left(at, nil, 0)
	return errors.Is(err, unix.ENOTEMPTY), nil
}
