package fs

import (
	"fmt"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// What is seen of those who hold locks outside of the mount, on backing files: a
// name that nobody holds on the mount is there, too, while somebody does outside.

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
	o := f.mirror.at(k.Dir)
	_, held, known, err := o.probeFor(anybody(k))
	if known || err != nil {
		return held, true
	}
	stranger, _ := f.lookForStranger(k)
	f.lookUpWhere(unique, 0, o.mayHang(), func(x *facts) {
		held := stranger() != nil
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
	switch s, found, known, err := o.probeFor(anybody(k)); {
	case found:
		return func() *outsider { return f.lookAtStranger(o, path, s, mine) }, o.mayHang()
	case known || err != nil || f.table.Held(k):
		return nobody, false
	}
	return func() *outsider {
		if s, found, err := o.find(path, anybody(k)); err == nil && found {
			return f.lookAtStranger(o, path, s, mine)
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
	return fmt.Appendf(b, "pid=%d\ncomm=%s\nmode=%v\nvia=fcntl\nwaiting=%d\n", s.Pid, escape(comm), s.Mode, waiting)
}

// strangersIn returns the names in a directory that were held outside when its
// listing began. known is false if the request takes a detour to find out.
func (f *FS) strangersIn(in *fuse.ReadIn, dir *node) (names []string, known bool) {
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
	o := f.mirror.at(dir.ID)
	f.lookUpWhere(in.Unique, 0, o.mayHang(), func(x *facts) {
		// What cannot be read has none; who asks for a lock there is told why.
		names, _ := o.locked(path, func(string) bool { return false })
		x.listed = append([]string{}, names...)
	})
	return nil, false
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
