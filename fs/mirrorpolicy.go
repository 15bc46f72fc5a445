package fs

import (
	"errors"
	"path"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
)

// The policy key mirror: where the locks of a directory are mirrored (design 1.6).
//
//	inherit     where those of the directory are that it is in; of the root, in the
//	            backing directory
//	none        nowhere
//	DIR         on the files of this directory, which are made if they are missing
//	direct:DIR  on the files that are there: nothing is made, and a missing one is
//	            ENOENT for whoever wants to lock it. (A directory is held by its name
//	            alone, and its locks are on the files in the one of that name in DIR.)
//
// DIR is opened by the daemon, with its rights: only its user and root may name one,
// and no directory of the mount itself. Errors of who writes another value, beside
// EINVAL: EPERM; EBUSY, something is held, waited for or in grace, in the directory or
// where it is inherited; ELOOP, it is on this mount; ETIMEDOUT, it does not answer;
// what opening it says, like ENOENT. Nothing is changed then.

// mirrorInherit is how a policy that says nothing is written.
const mirrorInherit = "inherit"

func setMirror(to *string, value string) error {
	switch dir, isDirect := strings.CutPrefix(value, direct); {
	case value == mirrorInherit:
		*to = ""
	case value == placeNone:
		*to = placeNone
	case !isAbsolute(dir) || strings.Contains(dir, "\x00"):
		return errMirror
	case isDirect:
		*to = direct + path.Clean(dir)
	default:
		*to = path.Clean(dir)
	}
	return nil
}

var errMirror = errors.New("one of inherit, none, an absolute path, or direct: and such a path expected")

func formatMirror(place string) string {
	if place == "" {
		return mirrorInherit
	}
	return place
}

// Mirror returns the directory that a policy names to mirror locks in, "" if it names
// none.
func (p *Policy) Mirror() string {
	if !namesDirectory(p.mirror) {
		return ""
	}
	return strings.TrimPrefix(p.mirror, direct)
}

// inherited is the policy of what is made in a directory.
func (p Policy) inherited() Policy {
	p.mirror = ""
	return p
}

// refusedMirror is why a value is refused that could be one.
type refusedMirror struct {
	status fuse.Status
	why    string
}

func (e *refusedMirror) Error() string { return e.why }

// writeMirror does what is written to policy/mirror. A directory is looked at first,
// on a detour.
func (f *FS) writeMirror(dir *node, in *fuse.WriteIn, value string) (fuse.Status, error) {
	p := dir.file.Policy
	if err := p.set("mirror", value); err != nil {
		return fuse.EINVAL, err
	}
	if p.mirror == dir.file.Policy.mirror {
		return fuse.OK, nil
	}
	names := namesDirectory(p.mirror)
	if names && in.Uid != 0 && in.Uid != f.uid {
		return refuse(fuse.EPERM, "the daemon would open it with its rights, which are not yours")
	}
	to := p.mirror
	if to == "" && dir.ID != rootDir && len(dir.file.entries) > 0 {
		to = f.mirrorOf(dir.file.entries[0].Dir)
	}
	if to != f.mirrorOf(dir.ID) && f.isHeldBelow(dir.file, to) {
		return refuse(fuse.EBUSY, "something is held, waited for or in grace there")
	}
	if names {
		if f.facts == nil || f.facts.placeReady == nil {
			f.lookAtPlace(in.Unique, p.mirror)
			return device.Parked, nil
		}
		if err := *f.facts.placeReady; err != nil {
			f.mirror.leaveUnused()
			return refuse(fuse.Status(lockErrno(err)), err.Error())
		}
	}
	f.setPolicy(dir, p)
	if f.mirror != nil {
		f.mirror.Renamed()
		f.mirror.leaveUnused()
	}
	f.log.Info("policy set", "directory", f.directoryPath(dir), "mirror", formatMirror(p.mirror))
	return fuse.OK, nil
}

func refuse(status fuse.Status, why string) (fuse.Status, error) {
	return status, &refusedMirror{status, why}
}

// lookAtPlace sends a request on a detour to find out whether a directory can be
// mirrored in.
func (f *FS) lookAtPlace(unique uint64, place string) {
	f.begunMirror()
	o := f.mirror.named[place]
	if o == nil {
		o = f.mirror.use(place)
		o.begin()
	}
	f.mirror.wanted[place]++
	f.lookUpWhere(unique, 0, true, func(x *facts) {
		err := o.ready()
		x.placeReady = &err
		x.takeIn = func() {
			if f.mirror.wanted[place]--; f.mirror.wanted[place] == 0 {
				delete(f.mirror.wanted, place)
			}
		}
	})
}
