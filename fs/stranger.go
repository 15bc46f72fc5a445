package fs

import (
	"errors"
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// What is seen of those who hold locks outside of the mount, on backing files: a
// name that nobody holds on the mount is there, too, while somebody does outside.
// See foreign.go for who holds a name by having made it.

// heldOutside reports whether somebody outside holds a lock that nobody holds on
// the mount. known is false if the request takes a detour to find out, on which it
// then is. What cannot be found out is not held: who asks for it is told why.
func (f *FS) heldOutside(unique uint64, k lockspace.Key) (held, known bool) {
	if !f.mirrors(k.Dir) {
		return false, true
	}
	if f.facts != nil && f.facts.outside != nil {
		return *f.facts.outside, true
	}
	if !f.namesOutside(k.Dir) {
		_, held, known, err := f.mirror.at(k.Dir).probeFor(anybody(k))
		if known || err != nil {
			return held, true
		}
	}
	stranger, hangs := f.lookForStranger(k)
	f.lookUpWhere(unique, 0, hangs, func(x *facts) {
		x.stranger = stranger()
		held := x.stranger != nil
		x.outside = &held
	})
	return false, false
}

// outsider is who holds a lock outside of the mount, as one however many they are;
// or those, if he is another daemon, whom it has published.
type outsider struct {
	mirror.Foreign
	published []published
}

// via returns how he has it, as far as it can be told.
func (s *outsider) via() lockspace.Via {
	if s.Name == nil {
		return lockspace.ViaFcntl
	}
	switch s.Name.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return lockspace.ViaMkdir
	case unix.S_IFLNK:
		return lockspace.ViaSymlink
	}
	return lockspace.ViaExcl
}

// lookForStranger returns what looks, on a detour, who holds a lock outside, nil if
// nobody does, or it cannot be told; and whether that may hang.
func (f *FS) lookForStranger(k lockspace.Key) (look func() *outsider, hangs bool) {
	nobody := func() *outsider { return nil }
	if !f.mirrors(k.Dir) {
		return nobody, false
	}
	path, err := f.outsidePath(k)
	if err != nil {
		return nobody, false
	}
	o := f.mirror.at(k.Dir)
	mine := o.leads(k) // what is published is this mount's then
	if f.namesOutside(k.Dir) {
		if f.table.Held(k) {
			return nobody, false
		}
		byName := f.lookForForeign(k)
		return func() *outsider {
			switch s := byName(); {
			case s == nil:
				return nil
			case s.Name != nil:
				return &outsider{Foreign: *s}
			default:
				return f.lookAtStranger(o, path, *s, mine)
			}
		}, o.mayHang()
	}
	switch s, found, known, err := o.probeFor(anybody(k)); {
	case found:
		return func() *outsider { return f.lookAtStranger(o, path, s, mine) }, o.mayHang()
	case known || err != nil || f.table.Held(k):
		return nobody, false
	}
	ops, leaving := f.makerOf(k.Dir), f.leavingName(k)
	return func() *outsider {
		switch s, found, err := o.find(path, anybody(k)); {
		case err == nil && found:
			return f.lookAtStranger(o, path, s, mine)
		case errors.Is(err, unix.EISDIR) && ops != nil:
			if at, err := ops.Look(path, mirror.MadeName{}); err == nil && at != nil && at.Mode&unix.S_IFMT == unix.S_IFDIR && at.ID != leaving {
				return &outsider{Foreign: *foreignOf(at)}
			}
		}
		return nil
	}, o.mayHang()
}

// lookAtStranger adds what is published about him. On detours only.
func (f *FS) lookAtStranger(o outside, path string, s mirror.Foreign, mine bool) *outsider {
	x := &outsider{Foreign: s}
	if mine {
		return x
	}
	if text, err := o.published(path); err == nil && text != nil {
		x.published = parsePublished(f.procs, text)
	}
	return x
}

// appendStranger adds the record of who holds a lock outside, if there is one: the
// lines of [formatRecord] as far as they can be known, which another daemon has
// published, or the kernel tells; then he has no token.
func appendStranger(procs Processes, b []byte, s *outsider, waiting int) []byte {
	if s == nil {
		return b
	}
	for i := range s.published {
		if len(b) > 0 {
			b = append(b, '\n')
		}
		for key, value := range s.published[i] {
			b = fmt.Appendf(b, "%s=%s\n", publishedKeys[key], value)
		}
		b = fmt.Appendf(b, "waiting=%d\n", waiting)
	}
	if len(s.published) > 0 {
		return b
	}
	if len(b) > 0 {
		b = append(b, '\n')
	}
	comm := ""
	if info, ok := procs.Look(uint32(s.Pid)); ok && s.Pid != 0 {
		comm = info.Comm
	}
	return fmt.Appendf(b, "pid=%d\ncomm=%s\nmode=%v\nvia=%v\nwaiting=%d\n", s.Pid, escape(comm), s.Mode, s.via(), waiting)
}

// strangersIn returns the names in a directory that were held outside when its
// listing began. known is false if the request takes a detour to find out.
func (f *FS) strangersIn(in *fuse.ReadIn, dir *node) (names []strangersName, known bool) {
	h := f.handles[in.Fh]
	if h == nil || !f.mirrors(dir.ID) {
		return nil, true
	}
	if f.facts != nil && f.facts.listed != nil {
		h.strangers = f.facts.listed
	}
	if h.strangers != nil && (in.Offset > 0 || f.facts != nil && f.facts.listed != nil) {
		return h.strangers, true
	}
	path := ""
	if !f.beginsPlace(dir.file) {
		var err error
		if path, err = f.outsidePath(dir.file.entries[0].key()); err != nil {
			return nil, true
		}
	}
	list, gone := f.strangersLister(dir.ID, path), f.goneForeign(dir, path)
	f.lookUpWhere(in.Unique, 0, f.mirror.at(dir.ID).mayHang(), func(x *facts) {
		x.listed = list(func(string) bool { return false })
		x.takeIn = gone(x.listed)
	})
	return nil, false
}

// makerOf returns what makes names in a directory, nil if nothing does.
func (f *FS) makerOf(dir uint64) mirror.Names {
	if o := f.outsideOf(dir); o != nil && o.makesNames() {
		return o.names(onlookTime)
	}
	return nil
}

// strangersLister returns what lists, on a detour, the names in a directory at a path
// that are held outside, but of those to skip not all; and directories that others have
// made there, which are there whatever holds. What cannot be read has none; who asks
// for a lock there is told why.
func (f *FS) strangersLister(dir uint64, path string) func(skip func(name string) bool) []strangersName {
	o, ops, byName := f.mirror.at(dir), f.makerOf(dir), f.namesOutside(dir)
	leaving := f.leavingIn(dir)
	return func(skip func(name string) bool) []strangersName {
		all := []strangersName{}
		known := make(map[string]bool)
		if ops != nil {
			made, _ := ops.List(path, !byName)
			for _, m := range made {
				if known[m.Name] = true; !leaving[m.Name] {
					all = append(all, strangersName(m))
				}
			}
		}
		names, _ := o.locked(path, skip)
		for _, name := range names {
			if !known[name] {
				all = append(all, strangersName{name, unix.S_IFREG})
			}
		}
		return all
	}
}

// strangersName is a name that is held outside.
type strangersName mirror.Listed

// shown is the type with which it is listed: that of its node.
func (n strangersName) shown() uint32 {
	if n.Mode == unix.S_IFDIR || n.Mode == unix.S_IFLNK {
		return n.Mode
	}
	return unix.S_IFREG
}

// removeStrangers is the removal of a name that nobody holds on the mount: what is
// held outside cannot be given back for somebody.
func (f *FS) removeStrangers(unique uint64, k lockspace.Key) fuse.Status {
	switch held, known := f.heldOutside(unique, k); {
	case !known:
		return device.Parked
	case held:
		return fuse.Status(unix.EBUSY)
	}
	return fuse.ENOENT
}
