// Package owner is the named owners of a lockfs mount (the directories
// .lockfs/owner/NAME at its root) for Go programs: what others do there with mkdir,
// echo, cat and rmdir. It uses nothing but these files, so several processes can use
// one owner, and the process of an owner need not be any of them.
//
// An owner has resources, each a lock: disks, named by path, and leases, in a
// lockspace. It takes all it has been given in one step, or nothing. What it holds it
// holds until that is given back, the owner is removed, or its process ends.
//
//	o, err := owner.Make("/run/lockfs", "vm1")
//	...
//	err = o.SetPid(cmd.Process.Pid)
//	err = o.Add(owner.Disk("/images/vm1.img"), owner.Disk("/images/base.img").InMode(owner.Shared))
//	err = o.Acquire(owner.Options{})
//	if errors.Is(err, owner.ErrBusy) {
//		who, _ := o.Conflicts()
//
// The packages lockmanager and lockdriver are libvirt's two interfaces on top of it.
//
// # Caveats
//
// The paths of disks are names: two processes exclude each other if they give the
// same. [Disk] resolves links, so that they do; who gives a path that cannot be
// resolved here gets it as it is.
//
// Nobody is waited for. [Owner.AcquireWait] asks again and again, as a place in the
// queue of one lock, kept while another one cannot be had, would have others wait for
// what nobody uses. So it may be passed by others for ever.
package owner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of the mount, by what they mean here; the errno is wrapped too.
var (
	// ErrBusy: somebody is in the way, see [Owner.Conflicts].
	ErrBusy = errors.New("held by another")
	// ErrStale: what is in the state has been held by somebody since.
	ErrStale = errors.New("the state is out of date")
	// ErrEnded: the owner's process has ended, or there is none of that number.
	ErrEnded = errors.New("no such process")
	// ErrRestricted: the caller is the owner's process, or was started by it, and
	// has no say over it any more.
	ErrRestricted = errors.New("restricted")
	// ErrInvalid: the mount does not understand it; its log says why.
	ErrInvalid = errors.New("not understood")
	// ErrUnknown: there is no such owner, resource or lockspace.
	ErrUnknown = errors.New("there is no such thing")
	// ErrLimit: there are, or the owner has, too many.
	ErrLimit = errors.New("too many")
	// ErrDenied: the owner, or the lockspace, is another user's.
	ErrDenied = errors.New("not permitted")
)

// meaning finds the error for an errno.
var meaning = map[unix.Errno]error{
	unix.EBUSY: ErrBusy, unix.ESTALE: ErrStale, unix.ESRCH: ErrEnded, unix.EPERM: ErrRestricted, unix.EINVAL: ErrInvalid,
	unix.ENOENT: ErrUnknown, unix.ENOTDIR: ErrUnknown, unix.EDQUOT: ErrLimit, unix.EACCES: ErrDenied,
}

// explain adds what an error of the system means.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	var errno unix.Errno
	if errors.As(err, &errno) && meaning[errno] != nil {
		return fmt.Errorf("%s: %w (%w)", doing, meaning[errno], err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Owner is a named owner on a mount. It may be used by several goroutines at once.
type Owner struct{ dir string }

// ErrName: it is not a name that a directory can have.
var ErrName = errors.New("not a name")

// Open returns the owner of a name on the lockfs at mount, whether there is one or
// not. Errors: [ErrName].
func Open(mount, name string) (*Owner, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || len(name) > unix.NAME_MAX {
		return nil, fmt.Errorf("%w: %q", ErrName, name)
	}
	return &Owner{filepath.Join(mount, ".lockfs", "owner", name)}, nil
}

// Make is Open, and makes the owner if there is none yet. Errors: [ErrName],
// [ErrLimit].
func Make(mount, name string) (*Owner, error) {
	o, err := Open(mount, name)
	if err == nil {
		err = o.Make()
	}
	if err != nil {
		return nil, err
	}
	return o, nil
}

// Make makes the owner, if there is none yet.
func (o *Owner) Make() error {
	err := os.Mkdir(o.dir, 0o700)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return explain("making an owner", err)
}

// Remove gives back what the owner holds, and removes it, in one step. Its process is
// left alone.
func (o *Owner) Remove() error { return explain("removing an owner", unix.Rmdir(o.dir)) }

// Set writes a value to one of the owner's files: id, uuid, name, onfailure.
func (o *Owner) Set(file, value string) error {
	return explain("setting "+file, o.write(file, value))
}

// Get reads one of the owner's files, without the newline at its end.
func (o *Owner) Get(file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(o.dir, file))
	return strings.TrimSuffix(string(b), "\n"), explain("reading "+file, err)
}

// write makes one write of it: a command is one.
func (o *Owner) write(file, text string) error {
	f, err := os.OpenFile(filepath.Join(o.dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text + "\n")
	return err
}

// SetPid gives the owner a process, with which its holds end; 0: none. The number is
// that in this process's pid namespace. Errors: [ErrEnded].
func (o *Owner) SetPid(pid int) error { return o.Set("pid", strconv.Itoa(pid)) }

// Add gives the owner resources, to be taken by the next [Owner.Acquire]. What it has
// already it has in the stronger mode from then on. Errors: [ErrInvalid],
// [ErrUnknown] for a lockspace that is not there, [ErrLimit].
func (o *Owner) Add(resources ...Resource) error {
	for _, r := range resources {
		if err := o.write("resources", r.String()); err != nil {
			return explain("adding "+r.String(), err)
		}
	}
	return nil
}

// Resources returns what the owner has been given.
func (o *Owner) Resources() ([]Resource, error) {
	text, err := o.Get("resources")
	if err != nil {
		return nil, err
	}
	var all []Resource
	for line := range strings.Lines(text) {
		r, err := parse(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// Options are what Acquire can be told.
type Options struct {
	// State is one of [Owner.State], to take up from. "": none.
	State string
	// Restrict: the owner's process, and what it starts, has no say over the owner
	// from then on.
	Restrict bool
	// RegisterOnly: nothing is taken; that the process is there is made sure of.
	RegisterOnly bool
}

// Acquire takes what the owner has been given and does not hold: all of it, in one
// step, or nothing. It waits for nobody. Errors: [ErrBusy], [ErrStale], [ErrEnded],
// [ErrDenied], [ErrRestricted], [ErrInvalid].
func (o *Owner) Acquire(opts Options) error {
	command := "acquire"
	if opts.State != "" {
		command += " " + opts.State
	}
	if opts.Restrict {
		command += " restrict"
	}
	if opts.RegisterOnly {
		command += " register-only"
	}
	return explain("acquiring", o.write("ctl", command))
}

// AcquireOne gives the owner a resource and takes that alone, in one step; if it fails
// nothing has changed. Errors: as of Add and Acquire.
func (o *Owner) AcquireOne(r Resource) error {
	return explain("acquiring "+r.String(), o.write("ctl", "acquire "+r.String()))
}

// Waiting is how long is waited between two tries, at first and at most.
const (
	firstPause   = time.Millisecond
	longestPause = 250 * time.Millisecond
)

// Retry makes a try again and again, ever less often, until it does not fail with
// [ErrBusy], whose outcome it then has, or the context ends: it returns both errors
// then.
func Retry(ctx context.Context, try func() error) error {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := try()
		if !errors.Is(err, ErrBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}

// AcquireWait is Acquire, made again until it does not fail with [ErrBusy], or the
// context ends. See the package comment for what it does not promise.
func (o *Owner) AcquireWait(ctx context.Context, opts Options) error {
	return Retry(ctx, func() error { return o.Acquire(opts) })
}

// Release gives back all that the owner holds, and returns the state to take up from.
// The resources stay its own, and Acquire takes them again.
func (o *Owner) Release() (state string, err error) {
	if err := o.write("ctl", "release"); err != nil {
		return "", explain("releasing", err)
	}
	return o.State()
}

// ReleaseOne gives a resource back and takes it from the owner. Errors: [ErrUnknown].
func (o *Owner) ReleaseOne(r Resource) error {
	return explain("releasing "+r.String(), o.write("ctl", "release "+r.String()))
}

// State returns what the owner holds, as text for [Options.State]; if it holds nothing,
// what it held last; "" if that is nothing.
func (o *Owner) State() (string, error) { return o.Get("state") }
