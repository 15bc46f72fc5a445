package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/lockdriver"
	"github.com/lockfs/lockfs/lockspace/lockmanager"
	"github.com/lockfs/lockfs/lockspace/owner"
)

// This file is a program that uses the Go packages of named owners on two mounts, which
// have one backing directory, and says the first thing that is not as it should be. The
// test process does not touch a mount.

// ownersMain runs a part of it: "driver MOUNT OTHER DIR", "manager MOUNT DIR", or, as
// the child that becomes a domain, "child MOUNT ID".
func ownersMain(args []string) (exit int) {
	u := &ownersUser{mount: args[1], dir: args[len(args)-1]}
	defer func() {
		switch r := recover().(type) {
		case nil:
		case wrongError:
			fmt.Println(string(r))
			exit = 1
		default:
			panic(r)
		}
	}()
	switch args[0] {
	case "driver":
		u.other = args[2]
		u.driver()
	case "manager":
		u.manager()
	case "child":
		u.child()
	}
	return 0
}

// wrongError is what is not as it should be.
type wrongError string

type ownersUser struct{ mount, other, dir string }

// wants ends the program unless an error is what was wanted; nil: none.
func (u *ownersUser) wants(what string, err, want error) {
	if !errors.Is(err, want) || want == nil && err != nil {
		panic(wrongError(fmt.Sprintf("%s: %v, want %v", what, err, want)))
	}
}

func (u *ownersUser) must(ok bool, format string, args ...any) {
	if !ok {
		panic(wrongError(fmt.Sprintf(format, args...)))
	}
}

// held returns how many locks are held on a mount by owners.
func (u *ownersUser) held(mount string) int {
	text, err := os.ReadFile(filepath.Join(mount, ".lockfs/locks"))
	u.wants("reading locks", err, nil)
	return strings.Count(string(text), " owner ")
}

func (u *ownersUser) wantsHeld(when, mount string, n int) {
	if got := u.held(mount); got != n {
		panic(wrongError(fmt.Sprintf("%s: owners hold %d locks, want %d", when, got, n)))
	}
}

// awaits waits until something is so.
func (u *ownersUser) awaits(what string, is func() bool) {
	for end := time.Now().Add(answerLimit); !is(); time.Sleep(5 * time.Millisecond) {
		u.must(time.Now().Before(end), "not within %v: %s", answerLimit, what)
	}
}

func domainOf(id, pid int) lockdriver.Params {
	return lockdriver.Params{ID: id, UUID: fmt.Sprintf("c7a5fdbd-edaf-9455-926a-d65c16db%04d", id), Name: fmt.Sprint("vm", id), Pid: pid}
}

// lock is New and AddResource of all that a domain has.
func (u *ownersUser) lock(mount string, id, pid int) *lockdriver.Lock {
	l, err := lockdriver.New(mount, domainOf(id, pid))
	u.wants("New", err, nil)
	for _, r := range []owner.Resource{
		owner.Disk(fmt.Sprintf("/images/vm%d image.img", id)),
		owner.Disk("/images/base.img").InMode(owner.Shared),
		owner.Disk("/images/install.iso").InMode(owner.Readonly),
		owner.Lease("space", fmt.Sprint("vm", id)).At("/dev/leases", 1048576),
	} {
		u.wants("AddResource", l.AddResource(r), nil)
	}
	return l
}

// starts starts a domain, which registers itself, and returns its process.
func (u *ownersUser) starts(mount string, id int) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "owners", "child", mount, fmt.Sprint(id))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	u.wants("starting a domain", cmd.Start(), nil)
	u.awaits("a domain has been started", func() bool {
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return err == nil && string(comm) == "sleep\n"
	})
	return cmd
}

// child is the process start of a domain.
func (u *ownersUser) child() {
	var id int
	_, err := fmt.Sscan(u.dir, &id)
	u.wants("the domain", err, nil)
	l := u.lock(u.mount, id, os.Getpid())
	u.wants("register", l.Acquire("", lockdriver.Restrict|lockdriver.RegisterOnly, lockdriver.Pause), nil)
	u.wants("acquire, restricted", l.Acquire("", 0, lockdriver.Default), owner.ErrRestricted)
	_, err = l.Release()
	u.wants("release, restricted", err, owner.ErrRestricted)
	u.wants("remove, restricted", l.Remove(), owner.ErrRestricted)
	l.Free()
	u.wants("exec", unix.Exec("/bin/sleep", []string{"sleep", "1000"}, nil), nil)
}

// driver plays the flows of the lock driver.
func (u *ownersUser) driver() {
	for _, m := range []string{u.mount, u.other} {
		u.wants("mkdir", os.MkdirAll(filepath.Join(m, "space"), 0o755), nil)
	}
	_, err := lockdriver.New(u.mount, lockdriver.Params{ID: 1, Name: "x"})
	u.wants("New without a UUID", err, lockdriver.ErrParams)

	first := u.starts(u.mount, 1)
	pid := first.Process.Pid
	u.wantsHeld("started", u.mount, 0)
	l := u.lock(u.mount, 1, 0)
	u.wants("unknown flags", l.Acquire("", 4, lockdriver.Default), lockdriver.ErrFlags)
	u.wants("resume", l.Acquire("", 0, lockdriver.Pause), nil)
	l.Free()
	u.wantsHeld("resumed", u.mount, 3)

	// Another domain with its disk, here and there.
	for _, m := range []string{u.mount, u.other} {
		x, err := lockdriver.New(m, domainOf(9, 0))
		u.wants("New", err, nil)
		u.wants("AddResource", x.AddResource(owner.Disk("/images/data.img")), nil)
		u.wants("AddResource", x.AddResource(owner.Disk("/images/vm1 image.img")), nil)
		u.wants("acquire of what another has", x.Acquire("", 0, lockdriver.Default), owner.ErrBusy)
		who, err := x.Conflicts()
		u.wants("conflicts", err, nil)
		u.must(len(who) == 1 && who[0].Resource.Disk == "/images/vm1 image.img", "conflicts are %+v", who)
		if m == u.mount {
			u.must(who[0].State == "held" && who[0].Pid == pid && who[0].Via == "owner" && who[0].Mode == "exclusive" &&
				who[0].Token > 0 && who[0].Owner == domainOf(1, 0).UUID, "conflicts are %+v", who)
		} else {
			u.must(who[0].State == "outside", "conflicts are %+v", who)
		}
		u.wants("remove", x.Remove(), nil)
		u.wants("remove again", x.Remove(), nil)
	}

	// Pause, and resume from the state; and when somebody was there.
	state, err := u.lock(u.mount, 1, 0).Release()
	u.wants("pause", err, nil)
	u.wantsHeld("paused", u.mount, 0)
	u.wants("resume", u.lock(u.mount, 1, 0).Acquire(state, 0, lockdriver.Pause), nil)
	u.wants("resume twice", u.lock(u.mount, 1, 0).Acquire(state, 0, lockdriver.Pause), nil)
	state, err = u.lock(u.mount, 1, 0).Release()
	u.wants("pause", err, nil)
	thief, err := owner.Make(u.mount, "thief")
	u.wants("make", err, nil)
	u.wants("acquire", thief.AcquireOne(owner.Disk("/images/vm1 image.img")), nil)
	u.wants("remove", thief.Remove(), nil)
	u.wants("resume from a state out of date", u.lock(u.mount, 1, 0).Acquire(state, 0, lockdriver.Pause), owner.ErrStale)
	u.wants("resume from nonsense", u.lock(u.mount, 1, 0).Acquire("nonsense", 0, lockdriver.Pause), owner.ErrInvalid)
	u.wants("resume without", u.lock(u.mount, 1, 0).Acquire("", 0, lockdriver.Pause), nil)

	u.plugs()

	// Migration: inquire here, acquire there.
	second := u.starts(u.other, 1)
	state, err = u.lock(u.mount, 1, 0).Inquire()
	u.wants("inquire", err, nil)
	u.wantsHeld("inquired", u.mount, 3)
	u.wants("acquire there, too early", u.lock(u.other, 1, 0).Acquire(state, 0, lockdriver.Default), owner.ErrBusy)
	_, err = u.lock(u.mount, 1, 0).Release()
	u.wants("release here", err, nil)
	u.wants("acquire there", u.lock(u.other, 1, 0).Acquire(state, 0, lockdriver.Default), nil)
	u.wantsHeld("migrated", u.other, 3)
	u.wants("acquire here", u.lock(u.mount, 1, 0).Acquire("", 0, lockdriver.Default), owner.ErrBusy)
	u.wants("remove", u.lock(u.mount, 1, 0).Remove(), nil)
	u.wants("kill", first.Process.Kill(), nil)
	_ = first.Wait()

	// The end of the process.
	u.wants("kill", second.Process.Kill(), nil)
	_ = second.Wait()
	u.awaits("the locks have gone with the process", func() bool { return u.held(u.other) == 0 })
	u.wants("resume of what has ended", u.lock(u.other, 1, 0).Acquire("", 0, lockdriver.Default), owner.ErrEnded)
	u.wants("and with its pid", u.lock(u.other, 1, second.Process.Pid).Acquire("", 0, lockdriver.Default), owner.ErrEnded)
	u.wants("remove", u.lock(u.other, 1, 0).Remove(), nil)
}

// plugs plugs in and out: disks, images, leases.
func (u *ownersUser) plugs() {
	about := func(all ...owner.Resource) *lockdriver.Lock {
		l, err := lockdriver.New(u.mount, domainOf(1, 0))
		u.wants("New", err, nil)
		for _, r := range all {
			u.wants("AddResource", l.AddResource(r), nil)
		}
		return l
	}
	file, link := filepath.Join(u.dir, "data.img"), filepath.Join(u.dir, "link.img")
	u.wants("make a file", os.WriteFile(file, nil, 0o600), nil)
	u.wants("make a link", os.Symlink(file, link), nil)
	data, image, lease := owner.Disk(link), owner.Disk("/images/backing.img").InMode(owner.Shared), owner.Lease("space", "more")
	u.must(data.Disk == file, "the disk of %s is %s", link, data.Disk)
	u.wants("attach", about(data, image, lease).Attach(), nil)
	u.wantsHeld("attached", u.mount, 6)
	u.wants("detach", about(owner.Disk(file), image).Detach(), nil)
	u.wantsHeld("detached", u.mount, 4)
	u.wants("detach again", about(data).Detach(), owner.ErrUnknown)
	thief, err := owner.Make(u.mount, "thief")
	u.wants("make", err, nil)
	u.wants("acquire", thief.AcquireOne(image.InMode(owner.Exclusive)), nil)
	u.wants("attach of what another has", about(data, lease, image).Attach(), owner.ErrBusy)
	u.wantsHeld("half attached", u.mount, 5) // and the thief's; the lease was there
	u.wants("remove", thief.Remove(), nil)
	u.wants("detach", about(lease).Detach(), nil)
	u.wants("attach of a readonly lease", about().AddResource(lease.InMode(owner.Readonly)), owner.ErrInvalid)
	u.wants("attach of nothing", about().AddResource(owner.Resource{}), owner.ErrInvalid)
	u.wants("attach in a lockspace that is not there", about(owner.Lease("nowhere", "x")).Attach(), owner.ErrUnknown)
	u.wantsHeld("plugged in and out", u.mount, 3)
}

// manager plays the lock manager of the RFC.
func (u *ownersUser) manager() {
	_, err := lockmanager.New(u.mount, lockmanager.Parameters{ID: "1"})
	u.wants("New without a name", err, lockmanager.ErrParameter)
	_, err = lockmanager.New(u.mount, lockmanager.Parameters{Name: "a/b"})
	u.wants("New with a bad name", err, owner.ErrName)
	m, err := lockmanager.New(u.mount, lockmanager.Parameters{ID: "1", Name: "vm1"})
	u.wants("New", err, nil)
	a, b := owner.Disk("/images/a#1.img"), owner.Disk("/images/b.img")
	u.wants("acquire before the start", m.AcquireResource(a), lockmanager.ErrNotStarted)
	u.wants("release before the start", m.ReleaseResource(a), lockmanager.ErrNotStarted)
	u.wants("set", m.SetParameter("uuid", "c7a5fdbdedaf9455926ad65c16db1809"), nil)
	u.wants("set a bad one", m.SetParameter("uuid", "x"), owner.ErrInvalid)
	u.wants("set what is none", m.SetParameter("color", "red"), lockmanager.ErrParameter)
	u.wants("start of none", m.Start(4194304), owner.ErrEnded)
	domain := exec.Command("sleep", "1000")
	domain.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	u.wants("starting a process", domain.Start(), nil)
	u.wants("start", m.Start(domain.Process.Pid), nil)
	u.wants("set after the start", m.SetParameter("name", "x"), lockmanager.ErrStarted)
	u.wants("acquire", m.AcquireResource(a), nil)
	u.wants("acquire again", m.AcquireResource(a), nil)
	u.wants("acquire shared", m.AcquireResource(b.InMode(owner.Shared)), nil)
	u.wants("acquire readonly", m.AcquireResource(owner.Disk("/images/ro.iso").InMode(owner.Readonly)), nil)
	u.wantsHeld("acquired", u.mount, 2)

	other, err := lockmanager.New(u.mount, lockmanager.Parameters{Name: "vm2", Pid: os.Getpid()})
	u.wants("New", err, nil)
	u.wants("acquire of another's", other.AcquireResource(a.InMode(owner.Shared)), owner.ErrBusy)
	u.wants("acquire of another's shared", other.AcquireResource(b), owner.ErrBusy)
	u.wants("acquire shared too", other.AcquireResource(b.InMode(owner.Shared)), nil)
	u.wants("an upgrade beside another", m.AcquireResource(b), owner.ErrBusy)
	who, err := m.Conflicts()
	u.wants("conflicts", err, nil)
	u.must(len(who) == 1 && who[0].Owner == "vm2" && who[0].Pid == os.Getpid() && reflect.DeepEqual(who[0].Resource, b), "conflicts are %+v", who)
	u.wants("release of the other's", other.ReleaseResource(b), nil)
	u.wants("the upgrade", m.AcquireResource(b), nil)
	u.wants("release", other.ReleaseResource(b), owner.ErrUnknown)

	// Waiting: until the context ends, and until it can be had.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err = other.AcquireResourceWait(ctx, a)
	u.wants("a wait that is given up", err, context.DeadlineExceeded)
	u.wants("a wait that is given up", err, owner.ErrBusy)
	got := make(chan error)
	go func() { got <- other.AcquireResourceWait(context.Background(), a) }()
	time.Sleep(20 * time.Millisecond)
	u.wants("release", m.ReleaseResource(a), nil)
	u.wants("the wait", <-got, nil)
	u.wants("acquire", m.AcquireResource(a), owner.ErrBusy)

	// One that several use, by its files as they are.
	same, err := owner.Open(u.mount, "vm1")
	u.wants("open", err, nil)
	all, err := same.Resources()
	u.wants("resources", err, nil)
	u.must(reflect.DeepEqual(all, []owner.Resource{b, owner.Disk("/images/ro.iso").InMode(owner.Readonly)}), "resources are %v", all)
	u.wants("shutdown", m.Shutdown(), nil)
	u.wantsHeld("shut down", u.mount, 1)
	u.wants("free", m.Free(), nil)
	u.wants("free again", m.Free(), nil)
	u.wants("acquire after free", m.AcquireResource(a), owner.ErrUnknown)
	u.wants("the process after free", unix.Kill(domain.Process.Pid, 0), nil)
	u.wants("free what holds", other.Free(), nil)
	u.wantsHeld("freed", u.mount, 0)

	// The locks end with the process.
	m, err = lockmanager.New(u.mount, lockmanager.Parameters{Name: "vm3", Pid: domain.Process.Pid})
	u.wants("New", err, nil)
	u.wants("acquire", m.AcquireResource(a), nil)
	u.wants("kill", domain.Process.Kill(), nil)
	_ = domain.Wait()
	u.awaits("the locks have gone with the process", func() bool { return u.held(u.mount) == 0 })
	u.wants("acquire for what has ended", m.AcquireResource(a), owner.ErrEnded)
	u.wants("free", m.Free(), nil)
}
