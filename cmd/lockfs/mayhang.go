package main

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Whether a directory is on a filesystem that answers: without asking it, since that
// may hang.

// local are the types of filesystems (filesystems(5)) that are as reliable as this
// machine. What is below an overlay is not looked at: whoever puts one over a network
// filesystem has a worker that hangs with it.
var local = []string{
	"bcachefs", "btrfs", "devtmpfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hugetlbfs", "jfs", "nilfs2", "ntfs3",
	"overlay", "ramfs", "reiserfs", "rootfs", "tmpfs", "ubifs", "udf", "vfat", "xfs", "zfs",
}

// mayHang reports whether calls on the directory that is open as fd may hang for as
// long as somebody else likes.
func mayHang(fd int) bool {
	m, ok := mountOf(fd)
	return !ok || !slices.Contains(local, m.kind)
}

// mounted is a line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
type mounted struct {
	id     uint64
	device string // its st_dev, as MAJOR:MINOR
	kind   string
}

// mountOf returns the mount that a file is on. ok is false if it is on none that can
// be seen, as after a lazy unmount.
func mountOf(fd int) (m mounted, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return m, false
	}
	_, after, found := strings.Cut(string(text), "mnt_id:")
	var id uint64
	if _, err := fmt.Sscan(after, &id); !found || err != nil {
		return m, false
	}
	return mountNumber(id)
}

// mountNumber returns a mount by its number.
func mountNumber(id uint64) (m mounted, ok bool) {
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
			m.device, m.kind = fields[2], kind[0]
			return m, true
		}
	}
}
