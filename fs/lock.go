package fs

import (
	"errors"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// flock(2) and fcntl(2). The kernel sends SETLK for what must not wait and for
// unlocking, SETLKW for what may.

// SetLk locks or unlocks without waiting.
func (f *FS) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status { return f.lock(in, false) }

// SetLkw locks, and waits if it must: then it is parked under its request's
// number.
func (f *FS) SetLkw(_ <-chan struct{}, in *fuse.LkIn) fuse.Status { return f.lock(in, true) }

func (f *FS) lock(in *fuse.LkIn, wait bool) fuse.Status {
	h := f.handles[in.Fh]
	if h == nil {
		return f.notALock(in.Fh)
	}
	if h.gone() != fuse.OK {
		return h.gone()
	}
	r := f.lockRequest(h, in)
	if in.Lk.Typ == unix.F_UNLCK {
		if !r.Range.Valid() {
			return fuse.EINVAL
		}
		f.table.Unlock(r.Key, r.Party, r.Via, r.Range)
		return fuse.OK
	}
	if status := f.permitLock(&in.InHeader, h.node); status != fuse.OK {
		return f.inTurn(status, r.Key, wait)
	}
	switch granted, err := f.ask(&r, in.Unique, wait); {
	case errors.Is(err, lockspace.ErrLookup):
		return f.lookUpForLock(&r, in.Unique, wait)
	case err != nil:
		return fuse.Status(lockErrno(err))
	case !granted:
		f.tellHolders(r.Key)
		return device.Parked
	}
	f.touch(h.Node)
	return fuse.OK
}

// ask asks the table for a hold. With wait it waits if it must, under the number
// of its FUSE request, and granted is false then. Errors: those of
// [lockspace.Table.Try], and of [lockspace.Table.Acquire] with wait; ErrShutdown
// for who would have to wait when nobody may any more.
func (f *FS) ask(r *lockspace.Request, unique uint64, wait bool) (granted bool, err error) {
	f.asked, f.unopened, f.made.inTheWay = f.asked[:0], f.unopened[:0], nil
	if wait && !f.closing {
		return f.table.Acquire(*r, lockspace.WaitID(unique))
	}
	if err = f.tryOne(*r); wait && errors.Is(err, lockspace.ErrHeld) {
		err = lockspace.ErrShutdown
	}
	return err == nil, err
}

// lookUpForLock finds out what the table asked for when it was asked for a hold.
// A request that may wait keeps the place at which it came, and nobody overtakes it on
// the way: when it comes back, the lock may be free.
func (f *FS) lookUpForLock(r *lockspace.Request, unique uint64, wait bool) fuse.Status {
	pid, place := r.Party.Taker.Pid, r.Reserved
	if place == 0 && wait {
		place = f.table.Reserve()
	}
	threads := append([]uint32(nil), f.asked...)
	limit := time.Duration(0)
	if r.Via == lockspace.ViaOpen && !wait { // it may be the making of a name
		limit = makeTime
	}
	open, hangs := f.openOutside(limit)
	if x := f.made.inTheWay; x != nil {
		open, hangs = f.removeNow(x), f.madeAt(x).mayHang()
	}
	f.lookUpWhere(unique, place, hangs, func(x *facts) {
		open(x)
		if pid != 0 {
			x.look(f.procs, pid)
		}
		for _, tid := range threads {
			x.classes[tid] = f.procs.WaitClass(tid)
		}
	})
	return f.inTurn(device.Parked, r.Key, wait)
}

// inTurn has a request that takes a detour, if status says that it does, and that may
// wait for a lock, come back in its turn. It returns the status.
func (f *FS) inTurn(status fuse.Status, k lockspace.Key, wait bool) fuse.Status {
	if wait && status == device.Parked {
		f.dev.InTurn(k)
	}
	return status
}

// lockRequest is what in asks of the table.
func (f *FS) lockRequest(h *handle, in *fuse.LkIn) lockspace.Request {
	r := lockspace.Request{
		Key: h.node.key,
		Party: h.party(lockspace.Process{
			Pid: in.Lk.Pid, UID: in.Uid, GID: in.Gid, Started: f.facts.started(in.Lk.Pid),
		}),
		Via:    lockspace.ViaFlock,
		Mode:   lockspace.Shared,
		Range:  lockspace.Whole,
		Thread: in.Pid,
	}
	if in.LkFlags&fuse.LK_FLOCK == 0 {
		r.Via = lockspace.ViaFcntl
		r.Party.Owner = in.Owner
		r.Range = lockspace.Range{First: in.Lk.Start, Last: in.Lk.End}
	}
	if in.Lk.Typ == unix.F_WRLCK {
		r.Mode = lockspace.Exclusive
	}
	if f.facts != nil {
		r.Reserved = f.facts.place
	}
	return r
}

// conflict is the answer to F_GETLK: a hold in the way, and its process.
type conflict struct {
	hold lockspace.Hold
	pid  uint32
}

// GetLk tells who is in the way of an fcntl lock. That takes a detour, to name
// the right process; the answer is of the moment when the call came in.
func (f *FS) GetLk(_ <-chan struct{}, in *fuse.LkIn, out *fuse.LkOut) fuse.Status {
	h := f.handles[in.Fh]
	if h == nil {
		return f.notALock(in.Fh)
	}
	if h.gone() != fuse.OK {
		return h.gone()
	}
	if f.facts != nil && f.facts.conflict != nil {
		c := f.facts.conflict
		out.Lk = fuse.FileLock{Start: c.hold.Range.First, End: c.hold.Range.Last, Typ: unix.F_RDLCK, Pid: c.pid}
		if c.hold.Mode == lockspace.Exclusive {
			out.Lk.Typ = unix.F_WRLCK
		}
		return fuse.OK
	}
	// GETLK does not say which process asks, as SETLK does.
	p, ok := f.caller(&in.InHeader)
	if !ok {
		return device.Parked
	}
	r := f.lockRequest(h, in)
	if !r.Range.Valid() {
		return fuse.EINVAL
	}
	p.Started = f.facts.started(p.Pid)
	r.Party.Taker = p
	hold, found, err := f.table.Test(r)
	if errors.Is(err, lockspace.ErrLookup) {
		return f.lookUpForLock(&r, in.Unique, false)
	}
	if !found {
		if out.Lk, ok = f.strangersLock(in.Unique, &r, in.Lk); !ok {
			return device.Parked
		}
		return fuse.OK
	}
	f.lookUp(in.Unique, func(x *facts) {
		p, _ := findHolder(f.procs, &hold)
		x.conflict = &conflict{hold, p.Pid}
	})
	return device.Parked
}

// Interrupt ends the wait of a request whose caller got a signal. If the
// kernel sends the call again, it finds its place kept.
func (f *FS) Interrupt(unique uint64) {
	if f.table.Cancel(lockspace.WaitID(unique)) {
		f.unawaited(unique)
		f.dev.Answer(unique, unix.EINTR)
		return
	}
	f.interruptRead(unique)
}
