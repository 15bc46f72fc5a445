package mirror

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Filesystems that several hosts share: there are locks on them that this kernel
// does not know of, what is written may be this host's only for a while, and a lock
// can be lost behind everybody's back.

// Numbers of filesystems that x/sys/unix has not.
const (
	magicLustre = 0x0bd00bd0
	magicGFS2   = 0x01161970
	magicGPFS   = 0x47504653
	magicBeeGFS = 0x19830326
)

// isRemote reports whether the filesystem of an open directory may be shared with
// other hosts. FUSE may be: GlusterFS is.
func isRemote(fd int) bool {
	var st unix.Statfs_t
	if retry(func() error { return unix.Fstatfs(fd, &st) }) != nil {
		return true
	}
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, unix.OCFS2_SUPER_MAGIC,
		unix.SMB_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.AFS_SUPER_MAGIC, unix.AFS_FS_MAGIC,
		unix.CODA_SUPER_MAGIC, unix.V9FS_MAGIC, magicLustre, magicGFS2, magicGPFS, magicBeeGFS:
		return true
	}
	return false
}

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
