package mirror

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
)

// What filesystem a directory is on: without asking it, since that may hang.

// local are the types of filesystems (filesystems(5)) that are as reliable as this
// machine. What is below an overlay is not looked at: whoever puts one over a network
// filesystem has a worker that hangs with it.
var local = []string{
	"bcachefs", "btrfs", "devtmpfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hugetlbfs", "jfs", "nilfs2", "ntfs3",
	"overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "ubifs", "udf", "vfat", "xfs", "zfs",
}

// IsRemote reports whether the directory was, when b was made, on a filesystem that
// others than this machine answer for, or that is not known not to be. Calls on it may
// hang for as long as they like; there may be locks on it that this kernel does not know
// of, what is written may be this host's only for a while, and a lock can be lost
// behind everybody's back.
func (b *Backing) IsRemote() bool { return b.remote }

// isRemote is IsRemote of the directory that is open as fd.
func isRemote(fd int) bool {
	m, ok := MountOf(fd)
	return !ok || !slices.Contains(local, m.kind)
}

// Mount is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type Mount struct {
	id uint64
	// Device is the st_dev of its files, as MAJOR:MINOR.
	Device string
	kind   string
}

// MountOf returns the mount that a file is on. ok is false if it is on none that can
// be seen, as after a lazy unmount.
func MountOf(fd int) (m Mount, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return m, false
	}
	_, after, found := strings.Cut(string(text), "mnt_id:")
	var id uint64
	if _, err := fmt.Sscan(after, &id); !found || err != nil {
		return m, false
	}
	return MountNumber(id)
}

// MountNumber returns a mount by its number.
func MountNumber(id uint64) (m Mount, ok bool) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return m, false
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return m, false
		}
		// 36 35 0:52 / /mnt rw,noatime shared:1 - ext4 /dev/sda1 rw
		before, after, _ := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if len(fields) < 3 || len(kind) == 0 {
			continue
		}
		if n, err := fmt.Sscan(fields[0], &m.id); n == 1 && err == nil && m.id == id {
			m.Device, m.kind = fields[2], kind[0]
			return m, true
		}
	}
}
