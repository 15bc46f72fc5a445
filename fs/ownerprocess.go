package fs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// The process of a named owner: the holder of what the owner holds, with the owner's
// user. When it ends, the holds end with it (reaped); the owner stays, and gets
// nothing (ESRCH) before it has been given another process, or none.
//
// It is written to pid as its writer knows it, in his pid namespace; ESRCH says that
// there is no such process, or that this daemon may not find out. From then on it is
// watched. What the owner holds meanwhile is passed on to it.
//
// "restrict" (ownerctl.go) takes away from the process, and from those that it
// starts, what say they have over the owner: their writes to its files, rmdir(2), and
// unlink(2) of what it holds are EPERM. For others nothing changes. It is what libvirt passes in the child that
// becomes the emulator: lockd and sanlock restrict the connection that is inherited
// by it, over which it could give back or take more; libvirt itself goes on to
// resume, pause, and plug in disks, over others. A process that is not to get around
// it, by starting one that outlives its parent, is of another user.
//
// onfailure says what happens to the process when the owner loses a hold, because
// somebody breaks it, its lease runs out, or its mirror is lost. Other processes hear
// of it by an event in any case. The words are libvirt's (on_lockfailure):
//
//	default, ignore  nothing more
//	poweroff         SIGKILL
//	pause            SIGSTOP
//	restart          SIGTERM: who looks after it is to start it anew, and it takes
//	                 its locks anew
//
// Signals are sent where the owner's user may send them (kill(2): root, or a user
// whose processes they both are); where he may not, the log has it.

// Actions of onfailure.
const (
	actionDefault = iota
	actionPoweroff
	actionRestart
	actionPause
	actionIgnore
	actions
)

var actionNames = [actions]string{"default", "poweroff", "restart", "pause", "ignore"}

var actionSignals = [actions]unix.Signal{
	actionPoweroff: unix.SIGKILL, actionRestart: unix.SIGTERM, actionPause: unix.SIGSTOP,
}

// hasProcess reports whether it has one, which may have ended.
func (o *namedOwner) hasProcess() bool { return o.Process.Pid != 0 }

// ownersPid is what is read of pid.
func (f *FS) ownersPid(o *namedOwner) []byte {
	if o.Pid == 0 {
		return []byte{}
	}
	return asLine(strconv.FormatUint(uint64(o.Pid), 10))
}

// setOwnersPid gives an owner a process.
func (f *FS) setOwnersPid(w *ownerWrite) fuse.Status {
	o := w.owner
	text := strings.TrimSpace(w.value)
	pid, err := strconv.ParseUint(text, 10, 32)
	switch {
	case text == "":
		pid = 0
	case err != nil || pid > maxPid:
		return w.refuse(fmt.Errorf("%q: not the number of a process", text))
	}
	var p Identity
	if pid != 0 {
		var status fuse.Status
		if p, status = f.resolve(w.in, uint32(pid)); status != fuse.OK {
			return status
		}
	}
	holder := o.holder(p)
	if pid == 0 {
		caller, ok := f.caller(w.in)
		if !ok {
			return device.Parked
		}
		holder = o.holder(Identity{Pid: caller.Pid})
	}
	o.Pid, o.Process, o.Ended, o.Due = uint32(pid), p, false, false
	f.owners.keep(o)
	to := lockspace.Party{Taker: holder, Opener: holder, Opened: f.clock.Now()}
	for _, r := range o.resources {
		f.table.PassOn(r.Key, o.party(), to)
	}
	return fuse.OK
}

// resolve returns the process that the caller of a request calls pid. The status is
// OK, ESRCH, or Parked for a detour.
func (f *FS) resolve(in *fuse.InHeader, pid uint32) (Identity, fuse.Status) {
	if in.Pid == 0 {
		return Identity{}, fuse.Status(unix.ESRCH)
	}
	if f.facts != nil && f.facts.named[pid] != nil {
		if p := *f.facts.named[pid]; p.Pid != 0 {
			return p, fuse.OK
		}
		return Identity{}, fuse.Status(unix.ESRCH)
	}
	f.lookUp(in.Unique, func(x *facts) {
		x.named = map[uint32]*Identity{pid: new(Identity)}
		if k, ok := f.procs.Resolve(in.Pid, pid); ok {
			*x.named[pid] = k.identity()
		}
	})
	return Identity{}, device.Parked
}

// holder is a process as the holder of what an owner holds.
func (o *namedOwner) holder(p Identity) lockspace.Process {
	return lockspace.Process{Pid: p.Pid, UID: o.UID, GID: o.GID, Started: p.Started}
}

// hasSay says whether the caller of a request has a say over an owner: OK; EPERM if
// it is restricted for him; or Parked for a detour to what he descends from.
func (f *FS) hasSay(in *fuse.InHeader, o *namedOwner) fuse.Status {
	switch {
	case !o.Restricted || !o.hasProcess():
		return fuse.OK
	case in.Pid == 0:
		return fuse.EPERM // it cannot be seen from whom he descends
	}
	p, ok := f.caller(in)
	if !ok {
		return device.Parked
	}
	if f.facts == nil || f.facts.ancestors == nil {
		f.lookUp(in.Unique, func(x *facts) { x.lookFamily(f.procs, p.Pid) })
		return device.Parked
	}
	if f.facts.descendsFrom(o.Process) {
		return fuse.EPERM
	}
	return fuse.OK
}

// descendsFrom reports whether the process whose family the detour found is p, or one
// that p started, or one of those started, and so on.
func (x *facts) descendsFrom(p Identity) bool {
	return slices.ContainsFunc(x.ancestors, func(k Kin) bool { return k.identity() == p })
}

// ownersAction is what is read of onfailure.
func (f *FS) ownersAction(o *namedOwner) []byte { return asLine(actionNames[o.Action]) }

var errAction = errors.New("not one of " + strings.Join(actionNames[:], ", "))

// setOwnersAction says what befalls the process.
func (f *FS) setOwnersAction(w *ownerWrite) fuse.Status {
	i := slices.Index(actionNames[:], w.value)
	if i < 0 {
		return w.refuse(errAction)
	}
	w.owner.Action = uint8(i)
	f.owners.keep(w.owner)
	return fuse.OK
}

// fail has an owner that has lost a hold do what it does then. The record says so, so
// that the next process does it if this one dies before.
func (f *FS) fail(o *namedOwner) {
	if actionSignals[o.Action] == 0 || !o.hasProcess() || o.Ended || o.Due {
		return
	}
	o.Due = true
	f.owners.keep(o)
}

// tendOwners has the processes of owners watched, and does what is due. Not before a
// step ends, as for holds by name, see watchProcesses.
func (f *FS) tendOwners() {
	for _, o := range f.owners.untended {
		if f.owners.byID[o.ID] != o {
			continue
		}
		f.watchOwner(o)
		if o.Due && !o.acting {
			o.acting = true
			go f.act(o, o.holder(o.Process), actionSignals[o.Action])
		}
	}
	clear(f.owners.untended)
	f.owners.untended = f.owners.untended[:0]
}

// watchOwner has the process of an owner watched that is its process now.
func (f *FS) watchOwner(o *namedOwner) {
	p := o.Process
	if o.Ended {
		p = Identity{}
	}
	if o.watched == p {
		return
	}
	if o.stop != nil {
		o.stop()
		o.stop = nil
	}
	if o.watched = p; p != (Identity{}) {
		o.stop = f.ends.Watch(Kin{Pid: p.Pid, Started: p.Started}, func() { f.dev.Do(func() { f.ownersProcessEnded(o, p) }) })
	}
}

// ownersProcessEnded ends what an owner holds, with its process.
func (f *FS) ownersProcessEnded(o *namedOwner, p Identity) {
	if f.owners.byID[o.ID] != o || o.Process != p || o.Ended {
		return
	}
	o.Ended, o.Due = true, false
	f.owners.keep(o)
	f.endHoldsOf(o, lockspace.Reaped)
}

// act sends the process of an owner the signal that is due, when the step is over
// that made it so.
func (f *FS) act(o *namedOwner, to lockspace.Process, signal unix.Signal) {
	f.dev.Do(func() {})
	err := f.procs.Signal(Identity{to.Pid, to.Started}, o.UID, signal)
	f.dev.Do(func() {
		o.acting = false
		if f.owners.byID[o.ID] != o {
			return
		}
		if err != nil {
			f.log.Warn("a named owner has lost a hold, and its process cannot be signalled", "owner", o.Name,
				"onfailure", actionNames[o.Action], "pid", to.Pid, "err", err)
		} else {
			f.log.Info("a named owner has lost a hold", "owner", o.Name, "onfailure", actionNames[o.Action], "pid", to.Pid)
		}
		if o.Due && o.Process == (Identity{to.Pid, to.Started}) {
			o.Due = false
			f.owners.keep(o)
		}
	})
}
