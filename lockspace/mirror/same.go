package mirror

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Whether a name still leads to the file that is locked for it.

// leadsTo reports whether path leads to the file i. Errors: only those that say
// nothing about it.
func (b *Backing) leadsTo(path string, i inode) (bool, error) {
	var st unix.Stat_t
	return b.leadsToWith(path, i, &st)
}

func (b *Backing) leadsToWith(path string, i inode, st *unix.Stat_t) (bool, error) {
	err := b.stat(path, st)
	if err == nil {
		return inodeOf(st) == i, nil
	}
	if elsewhere(err) {
		return false, nil
	}
	return false, err
}

// elsewhere reports whether err, from finding a file by its name, says that the
// name leads to nothing or to what cannot be it.
func elsewhere(err error) bool {
	for _, e := range [...]error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// broken reports whether err, of a file that is open, says that its locks cannot
// be relied on any more: the server has forgotten it, or does not answer.
func broken(err error) bool {
	for _, e := range [...]error{
		unix.ESTALE, unix.EIO, unix.ENOTCONN,
		// What clients of GlusterFS and of Ceph say of files that were open when they
		// lost their server, then and ever after.
		unix.EBADFD, unix.ECONNABORTED, unix.ESHUTDOWN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
