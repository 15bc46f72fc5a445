package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.8 for named owners: what they hold outlives the worker, an upgrade, and a clean
// stop and start, and ends with their processes.

// ownersHold fails the test unless owners hold so many locks.
func ownersHold(t testing.TB, c *Client, m *Mount, when string, want int) {
	t.Helper()
	text, err := c.ReadAll(m.Path(".lockfs/locks"))
	if got := strings.Count(text, " owner "); err != nil || got != want {
		t.Errorf("%s: owners hold %d locks (%v), want %d:\n%s", when, got, err, want, text)
	}
}

// toldBy reads a file of a named owner.
func toldBy(t testing.TB, c *Client, m *Mount, name, file string) string {
	t.Helper()
	text, err := c.ReadAll(ownerPath(m, name, file))
	wantErr(t, "reading "+file, err, nil)
	return text
}

func TestOwnersSurvive(t *testing.T) {
	for _, backing := range []bool{false, true} {
		t.Run(fmt.Sprintf("backing=%v", backing), func(t *testing.T) {
			dir := "none"
			if backing {
				dir = t.TempDir()
			}
			m := mount(t, "--backing", dir, "--space", "space")
			c := newClient(t)
			long, short := startProcess(t, nil, "/bin/sh", "-c", "echo held; read x"), startProcess(t, nil, "/bin/sh", "-c", "echo held; read x")
			long.Held(t)
			short.Held(t)
			for name, pid := range map[string]int{"long": long.Pid(), "short": short.Pid(), "nobodys": 0} {
				ctl := makeOwner(t, c, m, name, "disk /images/"+name, "disk /images/base shared", "lease space "+name)
				tellOwner(t, c, m, name, "pid", fmt.Sprint(pid))
				wantErr(t, "acquire", c.Write(ctl, "acquire"), nil)
				wantErr(t, "close", c.Close(ctl), nil)
			}
			before := toldBy(t, c, m, "long", "state")
			for _, end := range []struct {
				what string
				how  func()
			}{
				{"the worker was killed", func() { killWorker(t, m) }},
				{"the program was replaced", func() { hangUp(t, m) }},
				{"the mount was stopped and started", func() { m.awaitReplaced(); m.Restart(m.Quit) }},
				{"the worker was killed then", func() { killWorker(t, m) }},
			} {
				end.how()
				ownersHold(t, c, m, end.what, 9)
				if after := toldBy(t, c, m, "long", "state"); after != before {
					t.Errorf("%s: the state is %q and was %q", end.what, after, before)
				}
				ctl := c.Open(ownerPath(m, "long", "ctl"), unix.O_WRONLY)
				wantErr(t, "acquire of what another has", c.Write(ctl, "acquire disk /images/short"), unix.EBUSY)
				wantErr(t, "close", c.Close(ctl), nil)
			}
			m.Restart(func() {
				m.Quit()
				m.AwaitExit(t)
				short.Kill(t)
			})
			eventually(t, answerLimit, func() bool {
				text, err := c.ReadAll(m.Path(".lockfs/locks"))
				return err == nil && strings.Count(text, " owner ") == 6
			}, "the locks are free of an owner whose process ended while the mount was stopped")
			long.Kill(t)
			eventually(t, answerLimit, func() bool {
				text, err := c.ReadAll(m.Path(".lockfs/locks"))
				return err == nil && strings.Count(text, " owner ") == 3
			}, "the locks are free of an owner whose process has ended")
			for _, name := range []string{"long", "short", "nobodys"} {
				wantErr(t, "rmdir", c.Name("rmdir", 0, m.Path(".lockfs/owner/"+name)), nil)
			}
			ownersHold(t, c, m, "at the end", 0)
		})
	}
}

// Who made an owner, and root, have to do with it; and they take what they might take
// by O_EXCL.
func TestOwnersAreTheirUsers(t *testing.T) {
	m := mount(t)
	alice, bob, root := newClient(t, asAlice()), newClient(t, asBob()), newClient(t)
	ctl := makeOwner(t, alice, m, "vm", "disk /a")
	wantErr(t, "acquire", alice.Write(ctl, "acquire"), nil)
	dir := m.Path(".lockfs/owner/vm")
	if st, err := bob.Stat(dir); err != nil || st.UID != aliceID || st.Mode != unix.S_IFDIR|0o700 {
		t.Errorf("stat says %+v (%v)", st, err)
	}
	wantErr(t, "mkdir of what another has", bob.Name("mkdir", 0o755, dir), unix.EEXIST)
	wantErr(t, "rmdir by another", bob.Name("rmdir", 0, dir), unix.EACCES)
	for _, file := range []string{"state", "resources", "conflicts", "pid"} {
		_, err := bob.ReadAll(dir + "/" + file)
		wantErr(t, "reading "+file, err, unix.EACCES)
	}
	_, err := bob.TryOpen(dir+"/ctl", unix.O_WRONLY)
	wantErr(t, "opening ctl", err, unix.EACCES)
	mine := makeOwner(t, bob, m, "bobs", "disk /a")
	wantErr(t, "acquire of what another has", bob.Write(mine, "acquire"), unix.EBUSY)
	if text := toldBy(t, bob, m, "bobs", "conflicts"); !strings.Contains(text, fmt.Sprintf(" uid=%d ", aliceID)) || !strings.Contains(text, " owner=vm ") {
		t.Errorf("conflicts are %q", text)
	}
	// What is held is the user's of the owner: another does not break it, root does.
	lock := lockOf(t, bob, m)
	wantErr(t, "unlink by another", bob.Unlink(lock), unix.EPERM)
	wantErr(t, "root releases", root.Write(root.Open(dir+"/ctl", unix.O_WRONLY), "release"), nil)
	wantErr(t, "acquire", bob.Write(mine, "acquire"), nil)
	if text, err := alice.ReadAll(lock); err != nil || !strings.Contains(text, fmt.Sprintf("uid=%d\n", bobID)) {
		t.Errorf("the record is %q (%v)", text, err)
	}
	wantErr(t, "unlink by the user", bob.Unlink(lock), nil)
	wantErr(t, "acquire", bob.Write(mine, "acquire"), nil)
	wantErr(t, "unlink by root", root.Unlink(lock), nil)
	if text := toldBy(t, bob, m, "bobs", "state"); !strings.Contains(text, ":x") {
		t.Errorf("the state is %q", text)
	}

	wantErr(t, "chmod", root.Chmod(m.Dir, 0o755), nil)
	wantErr(t, "acquire in a directory that is closed", bob.Write(mine, "acquire"), unix.EACCES)
	wantErr(t, "chmod", root.Chmod(m.Dir, 0o777), nil)
	wantErr(t, "acquire", bob.Write(mine, "acquire"), nil)
	wantErr(t, "rmdir by root", root.Name("rmdir", 0, m.Path(".lockfs/owner/bobs")), nil)
	wantErr(t, "acquire of what was removed", bob.Write(mine, "acquire"), unix.ESTALE)
	wantErr(t, "rmdir", alice.Name("rmdir", 0, dir), nil)

	// A signal goes where the owner's user may send one.
	for _, tc := range []struct {
		who   string
		owner *Client
		whose *Client
		want  bool
	}{
		{"alice's", alice, newClient(t, asAlice()), true},
		{"bob's", alice, newClient(t, asBob()), false},
		{"root's", alice, newClient(t), false},
		{"bob's, by root", root, newClient(t, asBob()), true},
	} {
		ctl := makeOwner(t, tc.owner, m, "vm", "disk /a")
		tellOwner(t, tc.owner, m, "vm", "pid", fmt.Sprint(tc.whose.Pid()))
		tellOwner(t, tc.owner, m, "vm", "onfailure", "poweroff")
		wantErr(t, "acquire", tc.owner.Write(ctl, "acquire"), nil)
		const refusal = "cannot be signalled"
		refusals := strings.Count(m.Stderr(), refusal)
		wantErr(t, "unlink", root.Unlink(lock), nil)
		if tc.want {
			select {
			case <-tc.whose.stopped:
			case <-time.After(answerLimit):
				t.Errorf("%s process has not ended", tc.who)
			}
		} else {
			eventually(t, answerLimit, func() bool { return strings.Count(m.Stderr(), refusal) > refusals }, "the log tells of it")
			if err := syscall.Kill(tc.whose.Pid(), 0); err != nil {
				t.Errorf("%s process: %v", tc.who, err)
			}
		}
		wantErr(t, "rmdir", tc.owner.Name("rmdir", 0, dir), nil)
	}
}

// lockOf is the path of the one lock that is held.
func lockOf(t testing.TB, c *Client, m *Mount) string {
	t.Helper()
	names := c.Readdir(m.Dir)
	if len(names) != 1 || len(names[0]) != 64 {
		t.Fatalf("held are %q, want one disk", names)
	}
	return m.Path(names[0])
}

// A pid is the process that its writer calls so.
func TestOwnersInAContainer(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	p := startProcess(t, nil, "unshare", "-pf", "--mount-proc", "bash", "-c",
		`o=$0/.lockfs/owner/vm; mkdir "$o"; echo "disk /a" >"$o/resources"; echo $$ >"$o/pid"; echo acquire >"$o/ctl" && echo held; read x; exit`, m.Dir)
	p.Held(t)
	ownersHold(t, c, m, "in a container", 1)
	if text := toldBy(t, c, m, "vm", "pid"); text != "1\n" {
		t.Errorf("pid is %q", text)
	}
	if text, err := c.ReadAll(lockOf(t, c, m)); err != nil || strings.HasPrefix(text, "pid=1\n") || !strings.Contains(text, "comm=bash\n") {
		t.Errorf("the record is %q (%v)", text, err)
	}
	killLeaf(t, p.Pid())
	eventually(t, answerLimit, func() bool { return len(c.Readdir(m.Dir)) == 0 }, "the lock is free")
	p.Release(t)
}

// Who cannot be seen can have an owner, of no process.
func TestOwnersOfCallersThatCannotBeSeen(t *testing.T) {
	m := mountInPidNamespace(t)
	c := newClient(t)
	ctl := makeOwner(t, c, m, "vm", "disk /a")
	wantErr(t, "acquire", c.Write(ctl, "acquire"), nil)
	ownersHold(t, c, m, "by a stranger", 1)
	fd := c.Open(ownerPath(m, "vm", "pid"), unix.O_WRONLY)
	wantErr(t, "a pid", c.Write(fd, fmt.Sprint(c.Pid())), unix.ESRCH)
	wantErr(t, "register-only", c.Write(ctl, "acquire register-only"), unix.EINVAL)
	wantErr(t, "rmdir", c.Name("rmdir", 0, m.Path(".lockfs/owner/vm")), nil)
	ownersHold(t, c, m, "removed", 0)
}
