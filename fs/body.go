package fs

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// maxBody is the most bytes that a body can have.
const maxBody = 4096

// Write writes the body, as the holder. See author for who that is. Where
// open(2) takes the lock there is no appending: writes with O_APPEND go one after
// the other from the beginning on, as if the file had been opened without it.
func (f *FS) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if c := f.controls[in.Fh]; c != nil {
		return f.writeControl(c, in, data)
	}
	h := f.handles[in.Fh]
	switch {
	case h == nil:
		return 0, fuse.EBADF
	case h.gone() != fuse.OK:
		return 0, h.gone()
	case len(data) == 0:
		return 0, fuse.OK
	}
	p, ok := f.caller(&in.InHeader)
	if !ok {
		return 0, device.Parked
	}
	by := f.author(h.node, h, p)
	switch {
	case by.lookup:
		return 0, f.lookUpProcess(in.Unique, p.Pid)
	case !by.ok && !by.heir:
		return 0, fuse.EBUSY
	}
	at, old := f.writesAt(h, in)
	if at >= maxBody {
		return 0, errNoSpc
	}
	n := min(len(data), maxBody-int(at))
	body := make([]byte, max(len(old), int(at)+n))
	copy(body, old)
	copy(body[at:], data[:n])
	named, whole, status := f.bodyNames(&in.InHeader, body)
	if status != fuse.OK {
		return 0, status
	}
	b := f.setBody(h.node, by.handle, body)
	if b.Names = named; !whole {
		b.Unclosed = h.ID
	}
	f.journal.PutBody(b)
	f.wrote(h, in, at+uint64(n))
	f.renew(h.node, h, p.UID)
	return uint32(n), fuse.OK
}

// writesAt returns where a WRITE through h begins, and the body that it changes.
func (f *FS) writesAt(h *handle, in *fuse.WriteIn) (at uint64, old []byte) {
	if old = h.node.content(); h.Truncate {
		old = nil
	}
	switch {
	case !appends(in):
		at = in.Offset
	case f.openHolds(h.node):
		at = h.Appended
	default:
		at = uint64(len(old))
	}
	return at, old
}

// wrote records what a WRITE through h, which ended at a place, changes for those
// that follow.
func (f *FS) wrote(h *handle, in *fuse.WriteIn, end uint64) {
	changed := h.Truncate
	h.Truncate = false
	if appends(in) && f.openHolds(h.node) {
		h.Appended, changed = end, true
	}
	if changed {
		f.journal.PutHandle(&h.HandleRecord)
	}
}

// appends reports whether a WRITE goes to the end, as it is now: fcntl(2) can
// change that.
func appends(in *fuse.WriteIn) bool { return in.Flags&unix.O_APPEND != 0 }

// truncate sets the body's length. By anybody but the holder it does nothing yet:
// tools open with O_TRUNC before they lock, see truncateLater; and where open(2)
// takes the lock it never does anything. h is the descriptor, nil if there is
// none. The status is OK, EFBIG, or Parked for a detour.
func (f *FS) truncate(unique uint64, d *node, h *handle, p lockspace.Process, size uint64) fuse.Status {
	old := d.content()
	same := uint64(len(old)) == size
	if same && !d.file.recorded || f.openHolds(d) {
		return fuse.OK
	}
	by := f.author(d, h, p)
	switch {
	case by.lookup:
		return f.lookUpProcess(unique, p.Pid)
	case by.ok && size > maxBody:
		return fuse.Status(unix.EFBIG)
	case by.ok && same:
		f.modified(d.file) // as if something had been there
	case by.ok:
		body := make([]byte, size)
		copy(body, old)
		// It names nobody: what is left of a pid is another one.
		f.journal.PutBody(f.setBody(d, by.handle, body))
		f.renew(d, h, p.UID)
	}
	return fuse.OK
}

// truncateLater makes up for a truncation to nothing that was none, as somebody
// else held the lock: what is written through the open file when it may be written
// to replaces the body. Else the end of a longer one would stay behind it. Not
// where open(2) takes the lock: nobody truncates there.
func (f *FS) truncateLater(h *handle) {
	if len(h.node.content()) > 0 && !h.Truncate && !f.openHolds(h.node) {
		h.Truncate = true
		f.journal.PutHandle(&h.HandleRecord)
	}
}

// authorship says whether somebody may write a body, and with which open file
// it goes then.
type authorship struct {
	ok     bool
	handle uint64
	lookup bool // the process must be looked up first
	// heir: a tool of the same user took it by name, and has ended. What goes on
	// may write; but not truncate, as those do who are about to lock.
	heir bool
}

// author finds out whether process p writes as the holder of d, through h: if
// h or the process has a hold, or if nobody has. "The process" is the one that
// took the hold, or the one that opened the file.
func (f *FS) author(d *node, h *handle, p lockspace.Process) authorship {
	var a authorship
	held := false
	for hold := range f.table.Holds(d.key) {
		held = true
		if h != nil && hold.Party.Handle == h.ID {
			return authorship{ok: true, handle: h.ID}
		}
		if hold.ByName && p.UID == hold.Party.Taker.UID && !f.procs.Alive(hold.Party.Taker.Pid) {
			a.heir = true
		}
		since := hold.Since
		switch {
		case p.Pid == 0:
			continue
		case p.Pid == hold.Party.Taker.Pid:
		case p.Pid == hold.Party.Opener.Pid:
			since = hold.Party.Opened
		default:
			continue
		}
		switch started := f.facts.started(p.Pid); {
		case started == 0:
			a.lookup = true
		case started <= since.Boot:
			return authorship{ok: true, handle: hold.Party.Handle}
		}
	}
	switch {
	case held, d.foreign != nil:
	case h != nil:
		return authorship{ok: true, handle: h.ID}
	case d.File != 0:
		return authorship{ok: true} // an ordinary file, by path
	}
	return a
}

// content returns the body, nil if it is empty.
func (d *node) content() []byte {
	if d.file.body == nil {
		return nil
	}
	return d.file.body.Data
}

// setBody makes data the body of d, to go with the holds through a handle. It
// does not put it into the journal.
func (f *FS) setBody(d *node, handle uint64, data []byte) *BodyRecord {
	x := d.file
	x.body = &BodyRecord{File: x.Ino, Author: handle, Held: f.table.Held(d.key), Data: data}
	if x.recorded {
		f.modified(x)
	}
	f.rewatchFile(x)
	f.wroteFile(x)
	return x.body
}

// touch has the step look, when it ends, whether a node's body still has its
// author.
func (f *FS) touch(id uint64) {
	if d := f.nodes.get(id); d != nil && d.file.body != nil && !d.file.recorded {
		f.touched = append(f.touched, d)
	}
}

// dropBodies takes away the bodies whose author has no hold any more. What was
// written while nobody held the lock stays until somebody else takes it or its
// author closes it.
func (f *FS) dropBodies() {
	for _, d := range f.touched {
		switch b := d.file.body; {
		case b == nil || d.file.recorded:
		case f.holdsThrough(d, b.Author):
			if !b.Held {
				b.Held = true
				f.journal.PutBody(b)
			}
		case b.Held || f.table.Held(d.key) || f.handles[b.Author] == nil:
			d.file.body = nil
			f.journal.DropBody(d.file.Ino)
		}
	}
	f.touched = f.touched[:0]
}

// holdsThrough reports whether anything of d is held through an open file.
func (f *FS) holdsThrough(d *node, handle uint64) bool {
	for h := range f.table.Holds(d.key) {
		if h.Party.Handle == handle {
			return true
		}
	}
	return false
}
