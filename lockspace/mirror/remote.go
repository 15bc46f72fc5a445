package mirror

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// What is to be looked at on a filesystem that may be shared with other hosts.

// isGone reports whether what was locked of a file when l was made is not any more.
// Servers give the locks of a client back that they lose sight of; and if the
// client finds its server again before anybody has asked for anything, it may go on
// as if nothing had happened. Then somebody else may have the lock, or, as another
// open file of this host sees, nobody.
func (m *Mirror) isGone(l *look) bool {
	held := l.held[0]
	if _, found, err := getlk(m.fcntl, l.file.fd, held.Mode, held.Range); err != nil || found {
		return err == nil || broken(err)
	}
	fd, err := m.config.Backing.openSide(l.path, l.file.inode)
	if err != nil {
		return false // the next look will tell
	}
	defer unix.Close(fd)
	_, found, err := getlk(m.fcntl, fd, lockspace.Exclusive, held.Range)
	return err == nil && !found
}
