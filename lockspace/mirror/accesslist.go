package mirror

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// What has an access list (acl(5)) shows its mask as the group's permission. Who asks for
// it on the mount is judged by the mode alone, so that must not say more than the list
// says of anybody.

// Tags of the entries of a list, and how long they and what is before them are
// (linux/posix_acl_xattr.h).
const (
	aclUser, aclGroup         = 0x02, 0x08
	aclOwningGroup, aclMask   = 0x04, 0x10
	aclHeaderLen, aclEntryLen = 4, 8
	maxAccessList             = 1 << 16 // XATTR_SIZE_MAX
	accessListAttr            = "system.posix_acl_access"
)

// listedMode returns the mode of what is open as fd without what its access list, if it
// has one, keeps from somebody.
func listedMode(fd int, mode uint32) uint32 {
	n, err := unix.Getxattr(fdPath(fd), accessListAttr, nil)
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return mode
	}
	list := make([]byte, maxAccessList)
	if err == nil {
		n, err = unix.Getxattr(fdPath(fd), accessListAttr, list)
	}
	if err != nil || n < aclHeaderLen {
		return mode &^ 0o077
	}
	owning, users, others, mask := uint32(0), uint32(7), uint32(7), uint32(7)
	for list = list[aclHeaderLen:n]; len(list) >= aclEntryLen; list = list[aclEntryLen:] {
		switch perm := uint32(binary.LittleEndian.Uint16(list[2:])); binary.LittleEndian.Uint16(list) {
		case aclUser:
			users, others = users&perm, others&perm
		case aclGroup:
			others &= perm
		case aclOwningGroup:
			owning = perm
		case aclMask:
			mask = perm
		}
	}
	return mode&^0o077 | (owning&users&mask)<<3 | mode&0o007&others
}
