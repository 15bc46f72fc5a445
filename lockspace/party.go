package lockspace

// conflicts reports whether a and b, both granted, would be two inside: their
// ranges overlap, one is exclusive, and they are not of one party (design
// 1.2). aSince is when a was granted or began to wait. known is false if that
// depends on b.Party.Taker.Started, which has not been looked up; the answer
// is then true, the safe one.
func (t *Table) conflicts(a *Request, aSince Instant, b *Request) (yes, known bool) {
	if a.Mode == Shared && b.Mode == Shared || !a.Range.Overlaps(b.Range) {
		return false, true
	}
	same, known := t.sameParty(a, aSince, b)
	return !same, known
}

// sameParty reports whether a, which holds or waits since aSince, and the
// later request b come from one party, which never excludes itself:
//
//   - two fcntl requests: the same lock owner ([sameOwner]);
//   - two others (flock, O_EXCL, open): the same open file;
//   - one of each: the same open file or the same process, so that a program
//     that takes both kinds on its own file does not block itself;
//   - one that made the name without an open file (link, symlink, mkdir,
//     rename) and any other: the same process, for the same reason. It has no
//     open file through which its process could come to its own name;
//   - a named owner is of one party with itself alone. Its process does what it
//     does for somebody else, who has set it up.
//
// The process behind a is the one that took it while that lives, else the one
// that opened the file. A number alone does not make two processes one:
// flock(1) takes a lock for a shell and exits, and its number may come back as
// somebody else's. So b's process must have been running when a was taken.
func (t *Table) sameParty(a *Request, aSince Instant, b *Request) (same, known bool) {
	switch {
	case a.Via == ViaFcntl && b.Via == ViaFcntl:
		return sameOwner(&a.Party, &b.Party), true
	case a.Party.Handle == b.Party.Handle && a.Party.Handle != 0:
		return true, true
	case a.Via == ViaOwner || b.Via == ViaOwner:
		return false, true
	case a.Via != ViaFcntl && b.Via != ViaFcntl && !a.nobodysFile():
		return false, true
	}
	p := b.Party.Taker
	if p.Pid == 0 {
		return false, true
	}
	var since Instant
	switch {
	case p.Pid == a.Party.Taker.Pid:
		since = aSince
	case p.Pid == a.Party.Opener.Pid && !t.taken(a):
		since = a.Party.Opened
	default:
		return false, true
	}
	if p.Started == 0 {
		return false, false
	}
	return p.Started <= since.Boot, true
}

// taken reports whether the process that made request a may still live. A
// number that another process has by now counts, which errs towards conflict.
func (t *Table) taken(a *Request) bool {
	pid := a.Party.Taker.Pid
	return pid == 0 || t.procs.Alive(pid)
}

// sameOwner reports whether two fcntl parties are one lock owner. The kernel's
// number alone is not enough: an OFD owner's number can be in use again before
// the RELEASE of the file that had it has been read. A POSIX owner reaches the
// table with one number through several handles, but from one process; an OFD
// owner from several processes, but through one handle.
func sameOwner(a, b *Party) bool {
	return a.Owner == b.Owner &&
		(a.Handle == b.Handle || a.Taker.Pid == b.Taker.Pid && a.Taker.Pid != 0)
}
