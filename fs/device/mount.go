package device

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Kinds of failure to mount, for exit codes and for programs. The errors of
// [Prepare] and [Place.Mount] are one line for a person, and wrap one of these.
var (
	ErrMountPoint = errors.New("the mount point cannot be used")
	ErrPermission = errors.New("permission denied")
	ErrNoFUSE     = errors.New("FUSE is not available")
	ErrHelper     = errors.New("fusermount3 cannot be used")
	ErrTimeouts   = errors.New("the kernel limits how long a request may take")
)

// failure is an error of some kind with a text of its own.
type failure struct {
	kind error
	text string
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.kind }

func failf(kind error, format string, args ...any) error {
	return &failure{kind, fmt.Sprintf(format, args...)}
}

// fsType is the filesystem type of a mount, as /proc/self/mountinfo shows it.
const fsType = "fuse.lockfs"

// MountPoint is a mounted lockfs.
type MountPoint struct {
	// FD is the open /dev/fuse. It belongs to the caller.
	FD int
	// Dir is the absolute path.
	Dir string
	// ID is the mount's number (mount_id in proc_pid_mountinfo(5)). What is
	// on Dir later may be another mount.
	ID uint64
	// Under is the directory that is covered, locked for as long as a process
	// that serves the mount has it open, so that no second lockfs comes to be
	// there.
	Under *os.File
	// helper is the fusermount3 that mounted it; "" if this process did.
	helper string
}

// Options of a mount.
type Options struct {
	// AllowOther lets other users in. A mount by root always does; for an
	// ordinary user /etc/fuse.conf must say user_allow_other.
	AllowOther bool
}

// Place is a directory to mount on.
type Place struct {
	dir   string
	under *os.File
}

// Prepare makes sure that a lockfs can be mounted on dir, which is made if it
// is missing, as far as that can be told before. It refuses a directory that
// has a lockfs on it already, and keeps others from mounting one there.
func Prepare(dir string) (*Place, error) {
	if err := checkTimeouts(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, failf(ErrMountPoint, "%s: %v", dir, err)
	}
	dir = resolve(dir)
	under, err := prepare(dir)
	if err != nil {
		return nil, err
	}
	return &Place{dir, under}, nil
}

// Dir returns the directory's absolute path.
func (p *Place) Dir() string { return p.dir }

// Close gives a place up that was not mounted on.
func (p *Place) Close() error { return p.under.Close() }

// Mount mounts on a place: directly as root, else through fusermount3. If that
// fails, the place is closed.
func (p *Place) Mount(opts Options) (*MountPoint, error) {
	mount := mountDirect
	if os.Geteuid() != 0 {
		mount = func(dir string) (*MountPoint, error) { return mountByHelper(dir, opts) }
	}
	m, err := mount(p.dir)
	if err != nil {
		_ = p.Close()
		return nil, err
	}
	m.Under = p.under
	if m.ID, err = mountID(p.dir); err != nil {
		_ = unix.Close(m.FD)
		return nil, failf(ErrMountPoint, "%s: cannot tell the mount from others: %v", p.dir, err)
	}
	return m, nil
}

// resolve follows symbolic links, as mount(2) does: the directory has one name,
// by which it is found in mountinfo and unmounted. What cannot be followed is
// left for prepare to complain about.
func resolve(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	// The last part may be missing yet, or dead.
	if real, err := filepath.EvalSymlinks(filepath.Dir(dir)); err == nil {
		return filepath.Join(real, filepath.Base(dir))
	}
	return dir
}

// timeoutKnobs abort the whole connection over one request that takes longer,
// as a wait for a lock may (fs.fuse sysctls of Linux 6.14 and later).
var timeoutKnobs = []string{"default_request_timeout", "max_request_timeout"}

func checkTimeouts() error {
	for _, knob := range timeoutKnobs {
		b, err := os.ReadFile("/proc/sys/fs/fuse/" + knob)
		if err != nil {
			continue // an older kernel has no such limit
		}
		if v := strings.TrimSpace(string(b)); v != "0" {
			return failf(ErrTimeouts, "sysctl fs.fuse.%s is %s: the kernel would end the mount, with every lock on it, "+
				"when one program waits longer than that many seconds for a lock; set it to 0 and try again", knob, v)
		}
	}
	return nil
}

// prepare makes dir if it is missing and says why it cannot be mounted on. It
// returns the directory, locked.
func prepare(dir string) (*os.File, error) {
	if err := check(dir); err != nil {
		return nil, err
	}
	under, err := os.Open(dir)
	if err != nil {
		kind := ErrMountPoint
		if os.IsPermission(err) {
			kind = ErrPermission
		}
		return nil, failf(kind, "%s: %v", dir, reason(err))
	}
	// The lock is of the directory underneath, where a lockfs has it that is
	// being mounted, or that was unmounted and still serves open files: those
	// who have them would not meet those who open the names anew.
	if err := unix.Flock(int(under.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		_ = under.Close()
		return nil, failf(ErrMountPoint, "%s: a lockfs is mounted there already, or was and still serves files that are open", dir)
	}
	if mountedHere(dir) {
		_ = under.Close()
		return nil, failf(ErrMountPoint, "%s: a lockfs is mounted there already", dir)
	}
	return under, nil
}

// check makes dir if it is missing and says what is wrong with it.
func check(dir string) error {
	// A dead FUSE mount fails every stat; mountinfo does not ask it.
	if mountedHere(dir) {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); errors.Is(err, unix.ENOTCONN) {
			return failf(ErrMountPoint, "%s: a lockfs that died is still mounted there; run 'umount -l %s' and try again", dir, dir)
		}
		return failf(ErrMountPoint, "%s: a lockfs is mounted there already", dir)
	}
	fi, err := os.Stat(dir)
	switch {
	case err == nil:
	case os.IsNotExist(err):
		if err := os.MkdirAll(dir, 0o755); err != nil {
			kind := ErrMountPoint
			if os.IsPermission(err) {
				kind = ErrPermission
			}
			return failf(kind, "%s: cannot make the mount point: %v", dir, reason(err))
		}
		return nil
	case errors.Is(err, unix.ENOTCONN):
		return failf(ErrMountPoint, "%s: a dead FUSE mount is there; run 'umount -l %s' and try again", dir, dir)
	case os.IsPermission(err):
		return failf(ErrPermission, "%s: %v", dir, reason(err))
	default:
		return failf(ErrMountPoint, "%s: %v", dir, reason(err))
	}
	if !fi.IsDir() {
		return failf(ErrMountPoint, "%s: not a directory", dir)
	}
	return nil
}

// reason returns an error without the operation and path that os adds.
func reason(err error) error {
	var e *os.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// mountDirect mounts by mount(2), for all users.
func mountDirect(dir string) (*MountPoint, error) {
	fd, err := openDevice()
	if err != nil {
		return nil, err
	}
	// No default_permissions: lockfs checks by itself, which spares three
	// GETATTRs a take.
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other", fd, os.Geteuid(), os.Getegid())
	err = unix.Mount("lockfs", dir, fsType, unix.MS_NOSUID|unix.MS_NODEV, data)
	if err == nil {
		return &MountPoint{FD: fd, Dir: dir}, nil
	}
	_ = unix.Close(fd)
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return nil, failf(ErrPermission, "%s: the kernel refuses to mount (%v): lockfs needs CAP_SYS_ADMIN to mount as root", dir, err)
	case errors.Is(err, unix.EBUSY):
		return nil, failf(ErrMountPoint, "%s: busy", dir)
	case errors.Is(err, unix.ENODEV):
		return nil, failf(ErrNoFUSE, "the kernel has no FUSE; load it with 'modprobe fuse'")
	}
	return nil, failf(ErrMountPoint, "%s: cannot mount: %v", dir, err)
}

// devicePath is where the kernel's end of FUSE is opened.
const devicePath = "/dev/fuse"

// loadModule is what to do where it is missing.
const loadModule = "load the module with 'modprobe fuse', in a container pass the device in"

func openDevice() (int, error) {
	fd, err := unix.Open(devicePath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return -1, failf(ErrNoFUSE, "%s: %v; in a container, let it use the device", devicePath, err)
	}
	return -1, failf(ErrNoFUSE, "%s: %v; %s", devicePath, err, loadModule)
}
