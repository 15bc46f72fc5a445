package fs

import (
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// poll(2). Files are always ready, but for two kinds. One is streams, see
// streamwake.go. The other: where open(2) takes the lock
// (hold=open), an open file that has it is ready for reading exactly while
// somebody waits for the lock, and never for writing, so that a holder learns
// that it should let go. dlmfs says the same with the same events.
//
// A poller that sleeps is woken when the first comes to wait, by a notification
// among the answers of that step: a successor repeats it with them. Which number
// the kernel wants in it is in the open file's record.

// Events of poll(2): POLLIN and POLLRDNORM, POLLOUT and POLLWRNORM.
const (
	readable = unix.POLLIN | 0x40
	writable = unix.POLLOUT | 0x100
	ready    = readable | writable
)

// Poll tells which of events are ready on an open file.
func (f *FS) Poll(handle, pollID uint64, events uint32, notify bool) uint32 {
	if c := f.controls[handle]; c != nil && c.stream != nil {
		return f.pollStream(c.stream, pollID, events, notify)
	}
	h := f.handles[handle]
	if h == nil || !f.hasByOpen(h) {
		return events & ready
	}
	if notify && h.PollID != pollID {
		h.PollID = pollID
		f.journal.PutHandle(&h.HandleRecord)
	}
	if f.table.Waiting(h.node.key) == 0 {
		return 0
	}
	return events & readable
}

// hasByOpen reports whether an open file has its lock by having been opened.
func (f *FS) hasByOpen(h *handle) bool {
	for hold := range f.table.Holds(h.node.key) {
		if hold.Via == lockspace.ViaOpen && hold.Party.Handle == h.ID {
			return true
		}
	}
	return false
}

// tellHolders wakes those who poll what they have of a lock, when a request has
// come to wait for it. If others waited before, they know.
func (f *FS) tellHolders(k lockspace.Key) {
	if f.table.Waiting(k) != 1 {
		return
	}
	for hold := range f.table.Holds(k) {
		f.tellHolder(hold)
	}
}

// tellHolder wakes who polls a hold.
func (f *FS) tellHolder(hold *lockspace.Hold) {
	if hold.Via != lockspace.ViaOpen {
		return
	}
	if h := f.handles[hold.Party.Handle]; h != nil && h.PollID != 0 {
		f.dev.NotifyPoll(h.PollID)
	}
}
