package tests

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/digest"
	"github.com/lockfs/lockfs/lockspace/space"
	"github.com/lockfs/lockfs/lockspace/space/spacetest"
)

// Part 4, libvirt's lockspaces: its own test list, on mounts, in one process and
// across several, and while workers die.

// remoteSpace is a space in a client.
type remoteSpace struct {
	*Client
	object int
	before func() // each call
}

func (s *remoteSpace) do(call packageCall) (int, error) {
	s.t.Helper()
	s.before()
	call.Object = s.object
	return s.callPackage(call)
}

func (s *remoteSpace) CreateResource(name string) error {
	_, err := s.do(packageCall{Call: "CreateResource", Name: []byte(name)})
	return err
}

func (s *remoteSpace) DeleteResource(name string) error {
	_, err := s.do(packageCall{Call: "DeleteResource", Name: []byte(name)})
	return err
}

func (s *remoteSpace) AcquireResource(name string, owner int, flags space.Flags) error {
	_, err := s.do(packageCall{Call: "AcquireResource", Name: []byte(name), Owner: owner, Flags: flags})
	return err
}

func (s *remoteSpace) ReleaseResource(name string, owner int) error {
	_, err := s.do(packageCall{Call: "ReleaseResource", Name: []byte(name), Owner: owner})
	return err
}

func (s *remoteSpace) ReleaseResourcesForOwner(owner int) (int, error) {
	return s.do(packageCall{Call: "ReleaseResourcesForOwner", Owner: owner})
}

func (s *remoteSpace) Check() error {
	_, err := s.do(packageCall{Call: "Check"})
	return err
}

func (s *remoteSpace) Close() error {
	_, err := s.do(packageCall{Call: "Close"})
	return err
}

// newSpace makes a space in a client.
func newSpace(c *Client, object int, dir string, before func()) (*remoteSpace, error) {
	c.t.Helper()
	s := &remoteSpace{c, object, before}
	_, err := s.do(packageCall{Call: "space.New", Name: []byte(dir)})
	return s, err
}

func mustSpace(t testing.TB, c *Client, object int, dir string) *remoteSpace {
	t.Helper()
	s, err := newSpace(c, object, dir, func() {})
	if err != nil {
		t.Fatalf("New(%q): %v", dir, err)
	}
	return s
}

// wantIs fails the test unless an error is, by its meaning, the one that is wanted.
func wantIs(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// spaceWorld is the cases' world on a mount.
func spaceWorld(t *testing.T, m *Mount, client func() *Client, before func()) *spacetest.World {
	objects := 0
	above := "cases" + strings.ReplaceAll(t.Name(), "/", "-")
	if out, exit := sh(t, m, `mkdir `+above+` && echo name >`+above+`/.lockfs/policy/hold`); exit != 0 {
		t.Fatalf("exit %d: %s", exit, out)
	}
	above = m.Path(above)
	return &spacetest.World{
		TB:  t,
		Dir: above + "/space",
		New: func(dir string) (spacetest.Space, error) {
			objects++
			return newSpace(client(), objects, dir, before)
		},
		Run: func(script string, args ...string) string {
			out, errs, exit := run(t, nil, append([]string{"/bin/sh", "-c", script, "sh"}, args...)...)
			if exit != 0 {
				t.Fatalf("%s: exit %d, %s", script, exit, errs)
			}
			return out
		},
	}
}

func TestLockspacesOfOneProcess(t *testing.T) {
	m := mount(t)
	for _, c := range spacetest.Cases {
		t.Run(c.Name, func(t *testing.T) {
			one := newClient(t)
			c.Run(spaceWorld(t, m, func() *Client { return one }, func() {}))
		})
	}
}

func TestLockspacesOfSeveralProcesses(t *testing.T) {
	m := mount(t)
	for _, c := range spacetest.Cases {
		t.Run(c.Name, func(t *testing.T) {
			c.Run(spaceWorld(t, m, func() *Client { return newClient(t) }, func() {}))
		})
	}
}

// The worker is killed before each call, and while it is carried out.
func TestLockspacesWhileWorkersAreKilled(t *testing.T) {
	m := mount(t)
	kills := 0
	for _, c := range spacetest.Cases {
		t.Run(c.Name, func(t *testing.T) {
			c.Run(spaceWorld(t, m, func() *Client { return newClient(t) }, func() {
				if strikeWorker(m) {
					kills++
				}
			}))
		})
	}
	t.Logf("%d workers were killed", kills)
	if kills < 50 {
		t.Errorf("%d workers were killed, want more", kills)
	}
}

// strikeWorker kills the worker that there is just now, if there is one, and does not
// wait for the next.
func strikeWorker(m *Mount) bool {
	pid := m.Worker()
	return pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil
}

// Processes take, delete, make and give back one resource all the time: whatever
// file it is just now, and whatever happens to the worker, nobody is inside together
// with a writer.
func TestLockspacesAreHammered(t *testing.T) {
	m := mount(t)
	inside := t.TempDir()
	var hammers []*Pending
	for range 4 {
		s := mustSpace(t, newClient(t), 1, m.Path("dir"))
		hammers = append(hammers, s.startPackage(packageCall{Call: "hammer", Object: 1, Name: []byte(inside), Limit: 4 * time.Second}))
	}
	k := startKiller(t, m, 30*time.Millisecond)
	total := 0
	for _, p := range hammers {
		n, err := endPackage(t, p)
		wantIs(t, "hammering", err, nil)
		total += n
	}
	kills := k.Stop()
	t.Logf("%d times somebody was inside while %d workers were killed", total, kills)
	if total < 50 || kills < 10 {
		t.Error("too little happened")
	}
}

// A mount keeps files that nobody holds only where the policy says so.
func TestLockspacesNeedTheirPolicy(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	if out, exit := sh(t, m, `mkdir handles && mkdir opens && echo open >opens/.lockfs/policy/hold`); exit != 0 {
		t.Fatalf("exit %d: %s", exit, out)
	}
	for _, dir := range []string{m.Dir, m.Path("handles"), m.Path("opens")} {
		_, err := newSpace(c, 0, dir, func() {})
		wantIs(t, "New("+dir+")", err, space.ErrPolicy)
		// The error says what to do.
		_, do, _ := strings.Cut(err.Error(), "owner or root, when nobody uses it: ")
		if out, exit := sh(t, m, do); exit != 0 {
			t.Fatalf("%q says to do %q: exit %d, %s", err, do, exit, out)
		}
		s := mustSpace(t, c, 1, dir)
		wantIs(t, "acquire", s.AcquireResource("foo", 1, space.AutoCreate), nil)
		wantIs(t, "release", s.ReleaseResource("foo", 1), nil)
		wantIs(t, "close", s.Close(), nil)
	}
	mustSpace(t, c, 2, m.Path("new"))
	if out, _ := sh(t, m, `cat new/.lockfs/policy/hold`); out != "name\n" {
		t.Errorf("a new directory has hold=%s", out)
	}
	sh(t, m, `echo handle >handles/.lockfs/policy/hold`)
	paths := mustSpace(t, c, 3, "")
	wantIs(t, "create", paths.CreateResource(m.Path("handles/foo")), space.ErrPolicy)
	wantIs(t, "acquire", paths.AcquireResource(m.Path("handles/foo"), 1, space.AutoCreate), nil)
	wantIs(t, "release", paths.ReleaseResource(m.Path("handles/foo"), 1), nil)
}

// A new lockspace is its user's, as the original makes it.
func TestLockspacesOfOrdinaryUsers(t *testing.T) {
	m := mount(t)
	alice, bob := newClient(t, asAlice()), newClient(t, asBob())
	hers := mustSpace(t, alice, 1, m.Path("alice/images"))
	mustSpace(t, bob, 1, m.Path("bob"))
	if out, _ := sh(t, m, `stat -c '%U %a' alice/images bob; cat alice/images/.lockfs/policy/hold bob/.lockfs/policy/hold`); out != "daemon 700\nbin 700\nname\nname\n" {
		t.Errorf("the directories are %q", out)
	}
	wantIs(t, "acquire", hers.AcquireResource("foo", 1, space.AutoCreate), nil)
	if _, err := newSpace(bob, 2, m.Path("alice/images"), func() {}); err == nil {
		t.Error("bob uses the lockspace of alice")
	}
	his := mustSpace(t, bob, 3, "")
	if err := his.DeleteResource(m.Path("alice/images/foo")); err == nil {
		t.Error("bob has deleted what is in it")
	}
	wantIs(t, "check", hers.Check(), nil)
}

// Programs that lock by other calls are excluded and exclude; everybody sees who it
// is, and a lock that is taken away is noticed.
func TestLockspacesMeetOtherPrograms(t *testing.T) {
	m := mount(t)
	c, other := newClient(t), newClient(t)
	dir := m.Path("images")
	s := mustSpace(t, c, 1, dir)
	name := digest.Of("/var/lib/images/foo.img")
	path := dir + "/" + name
	wantIs(t, "acquire", s.AcquireResource(name, 1, space.AutoCreate), nil)
	fd := other.Open(path, unix.O_RDWR)
	wantErr(t, "flock", other.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	wantErr(t, "lockf", other.Fcntl(fd, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
	wantErr(t, "the bytes that QEMU locks", other.Fcntl(fd, unix.F_OFD_SETLK, wr(100, 100)), nil)
	wantErr(t, "unlock", other.Fcntl(fd, unix.F_OFD_SETLK, un(0, toEnd)), nil)
	if out, _ := sh(t, m, `cd images/.lockfs/lock; for n in *; do cat $n/check; sed -n s/^pid=//p $n/holder; done`); out != fmt.Sprintf("-1\n%d\n", c.Pid()) {
		t.Errorf("the lock is shown as %q", out)
	}
	wantIs(t, "release", s.ReleaseResource(name, 1), nil)
	wantErr(t, "close", other.Close(fd), nil)

	wantIs(t, "create", s.CreateResource(name), nil)
	fd = other.Open(path, unix.O_RDWR)
	wantErr(t, "flock", other.Flock(fd, unix.LOCK_EX), nil)
	wantIs(t, "acquire", s.AcquireResource(name, 1, 0), space.ErrBusy)
	wantIs(t, "delete", s.DeleteResource(name), space.ErrBusy)
	wantErr(t, "close", other.Close(fd), nil)
	wantIs(t, "acquire", s.AcquireResource(name, 1, 0), nil)

	// Broken by root, and taken by another.
	wantIs(t, "check", s.Check(), nil)
	wantErr(t, "rm", other.Unlink(path), nil)
	wantIs(t, "check", s.Check(), space.ErrLost)
	fd = other.Open(path, openFlags)
	wantErr(t, "flock", other.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
	wantIs(t, "release", s.ReleaseResource(name, 1), space.ErrLost)
	wantErr(t, "the other's lock", other.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
}

// A lease that is over is a lock that is lost, though the file is there.
func TestALockspaceWhoseLeaseIsOver(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	s := mustSpace(t, c, 1, m.Path("leased"))
	wantIs(t, "acquire", s.AcquireResource("foo", 1, space.AutoCreate), nil)
	wantIs(t, "check", s.Check(), nil)
	sh(t, m, `echo 200ms >leased/.lockfs/policy/lease`)
	wantIs(t, "acquire", s.AcquireResource("bar", 1, space.Shared|space.AutoCreate), nil)
	eventually(t, answerLimit, func() bool { return errors.Is(s.Check(), space.ErrLost) }, "the loss is told")
	n, err := s.ReleaseResourcesForOwner(1)
	if n != 2 || !errors.Is(err, space.ErrLost) {
		t.Errorf("released %d: %v", n, err)
	}
}

// Whoever dies gives back what he held, and the files of autocreate stay.
func TestAProcessWithALockspaceThatDies(t *testing.T) {
	m := mount(t)
	a, b := newClient(t), newClient(t)
	s := mustSpace(t, a, 1, m.Path("dir"))
	wantIs(t, "acquire", s.AcquireResource("foo", 1, space.AutoCreate), nil)
	wantIs(t, "acquire", s.AcquireResource("bar", 1, space.Shared|space.AutoCreate), nil)
	after := mustSpace(t, b, 1, m.Path("dir"))
	wantIs(t, "acquire", after.AcquireResource("foo", 1, 0), space.ErrBusy)
	a.Kill()
	wantIs(t, "acquire", after.AcquireResource("foo", 1, space.AutoCreate), nil)
	wantIs(t, "acquire", after.AcquireResource("bar", 1, space.AutoCreate), nil)
	wantIs(t, "close", after.Close(), nil)
	if out, _ := sh(t, m, `ls dir`); out != "" {
		t.Errorf("left: %q", out)
	}
}

// A daemon becomes a newer version of itself by execve(2): its spaces come along,
// and nobody gets in meanwhile, whatever happens to the worker.
func TestAProcessThatExecutesItselfKeepsItsLockspaces(t *testing.T) {
	m := mount(t)
	a, b := newClient(t), newClient(t)
	s, paths := mustSpace(t, a, 1, m.Path("dir")), mustSpace(t, a, 2, "")
	other := mustSpace(t, b, 1, m.Path("dir"))
	names := []string{"excl", "caf\xe9", " a\nb"}
	for _, name := range names {
		wantIs(t, "acquire", s.AcquireResource(name, 7, space.AutoCreate), nil)
	}
	wantIs(t, "acquire", s.AcquireResource("shared", 7, space.Shared|space.AutoCreate), nil)
	wantIs(t, "acquire", s.AcquireResource("shared", 8, space.Shared), nil)
	wantIs(t, "create", paths.CreateResource(m.Path("dir/image")), nil)
	wantIs(t, "acquire", paths.AcquireResource(m.Path("dir/image"), 7, 0), nil)
	k := startKiller(t, m, 20*time.Millisecond)
	for range 3 {
		if _, err := a.callPackage(packageCall{Call: "exec"}); err != nil {
			t.Fatalf("becoming another program: %v", err)
		}
		wantIs(t, "check", s.Check(), nil)
		for _, name := range append(names, "image", "shared") {
			wantIs(t, "acquire "+name, other.AcquireResource(name, 1, 0), space.ErrBusy)
		}
		wantIs(t, "sharing", other.AcquireResource("shared", 1, space.Shared), nil)
		wantIs(t, "release", other.ReleaseResource("shared", 1), nil)
		wantIs(t, "wrong owner", s.ReleaseResource("excl", 9), space.ErrWrongOwner)
	}
	k.Stop()
	n, err := s.ReleaseResourcesForOwner(7)
	if n != 4 || err != nil {
		t.Errorf("owner 7 had %d (%v), want 4", n, err)
	}
	wantIs(t, "release", s.ReleaseResource("shared", 8), nil)
	wantIs(t, "release", paths.ReleaseResource(m.Path("dir/image"), 7), nil)
	if out, _ := sh(t, m, `ls dir`); out != "image\n" {
		t.Errorf("left: %q", out)
	}
	wantIs(t, "acquire", other.AcquireResource("image", 1, 0), nil)
}
