package device

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Adopt returns a mount that another process made.
func Adopt(fd int, dir string, id uint64) *MountPoint {
	m := &MountPoint{FD: fd, Dir: dir, ID: id}
	if os.Geteuid() != 0 {
		m.helper = helperName
	}
	return m
}

// ErrCovered: something else is mounted on top, and only what is on top can be
// unmounted.
var ErrCovered = errors.New("another filesystem is mounted over it")

// Mounted reports whether the mount is still there, on top or covered. If that
// cannot be told, it is.
func (m *MountPoint) Mounted() bool {
	all, err := mounts()
	return err != nil || slices.ContainsFunc(all, func(other mount) bool {
		return other.id == m.ID && other.fsType == fsType
	})
}

// Unmount takes the mount off its directory, and nothing else that may be
// there by now; that it is gone already is no error. If programs still have it
// open, busy is true: no path leads there any more, and it ends with the last
// of them, or when the last process closes FD. Errors: [ErrCovered], those of
// umount(2).
func (m *MountPoint) Unmount() (busy bool, err error) {
	if !m.Mounted() {
		return true, nil // or detached by somebody else, with files open
	}
	if id, err := mountID(m.Dir); err != nil || id != m.ID {
		return false, fmt.Errorf("%s: %w; unmount that, and then run 'umount %s'", m.Dir, ErrCovered, m.Dir)
	}
	if m.helper != "" {
		return m.unmountByHelper()
	}
	err = unix.Unmount(m.Dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		busy = true
		err = unix.Unmount(m.Dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if errors.Is(err, unix.EINVAL) && !m.Mounted() {
		err = nil // somebody else was quicker
	}
	return busy, err
}

// mountID returns the number of the topmost mount on dir. It asks nothing of
// the filesystem, which may be stopped or dead.
func mountID(dir string) (uint64, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT|unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &st)
	if err == nil && st.Mask&unix.STATX_MNT_ID == 0 {
		err = unix.EOPNOTSUPP // before Linux 5.8
	}
	return st.Mnt_id, err
}

// mount is a line of /proc/self/mountinfo.
type mount struct {
	id     uint64
	dir    string
	fsType string
}

// mounts returns the mounts that this process sees, lower ones first.
func mounts() ([]mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mount
	for line := range strings.Lines(string(b)) {
		if m, ok := parseMount(line); ok {
			all = append(all, m)
		}
	}
	return all, nil
}

// parseMount takes a line of mountinfo apart (proc_pid_mountinfo(5)):
//
//	36 35 98:0 /root MOUNTPOINT options optional... - TYPE source superoptions
func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, behind := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 5 || len(behind) < 1 {
		return mount{}, false
	}
	id, err := strconv.ParseUint(fields[0], 10, 64)
	return mount{id, unescape(fields[4]), behind[0]}, err == nil
}

// mountedHere reports whether the topmost mount on dir, resolved, is a lockfs.
func mountedHere(dir string) bool {
	var here bool
	all, _ := mounts()
	for _, m := range all {
		if m.dir == dir {
			here = m.fsType == fsType
		}
	}
	return here
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
