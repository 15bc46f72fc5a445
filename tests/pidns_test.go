package tests

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.9: "A caller from a pid namespace that the daemon cannot see has pid 0: it
// can lock, is shown as pid=0 with its uid, is never reaped, and counts as a
// process of its own."

// mountInPidNamespace starts the daemon, with flags, as the first process of a
// pid namespace, from which the tests' clients cannot be seen.
func mountInPidNamespace(t *testing.T, flags ...string) *Mount {
	t.Helper()
	needRoot(t)
	parent := mountParent(t)
	m := &Mount{t: t, Dir: filepath.Join(parent, "m"), parent: parent}
	if err := os.Mkdir(m.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Stop)
	m.namespaces = syscall.CLONE_NEWPID
	m.start(append(append([]string{program(t, "lockfs"), "--backing", "none", "--state-dir", "none"}, flags...), m.Dir))
	m.awaitReady()
	m.watch = watchMount(m)
	return m
}

func TestCallersThatCannotBeSeen(t *testing.T) {
	m := mountInPidNamespace(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			alice, bob := newClient(t, asAlice()), newClient(t, asBob())
			fd := way.take(t, alice, path)
			wantListed(t, bob, m, "lock")
			if r := recordOf(t, path); r["pid"] != "0" || r["uid"] != "1" {
				t.Errorf("record %v, want pid=0 and uid=1", r)
			}
			wantErr(t, "unlink by another user", bob.Unlink(path), unix.EPERM)
			wantErr(t, "the holder's write", alice.Write(fd, "body"), nil)
			wantErr(t, "another's write", bob.Write(bob.Open(path, unix.O_RDWR), "body"), unix.EBUSY)
			wantBody(t, path, "body")
			if got := bob.GetLk(bob.Open(path, openFlags), wr(0, toEnd)); got.Type == unix.F_UNLCK {
				t.Errorf("F_GETLK sees nobody")
			}
			wait := queueUp(t, path, exclusively)
			second := queueUp(t, path, byPOSIX)
			alice.Kill()
			wantErr(t, "the waiter", wait.wait.Wait(t), nil)
			second.wait.MustBlock(t)
			wait.Kill()
			wantErr(t, "the second", second.wait.Wait(t), nil)
			second.Kill()
			wantFree(t, path)
		})
	}
	t.Run("flock and fcntl through one handle", func(t *testing.T) {
		c := newClient(t)
		fd := c.Open(path, openFlags)
		wantErr(t, "flock", c.Flock(fd, unix.LOCK_EX), nil)
		wantErr(t, "fcntl", c.Fcntl(fd, unix.F_SETLKW, wr(0, toEnd)), nil)
		wantHeld(t, path)
	})
	t.Run("an unlink by anybody of the holder's user breaks", func(t *testing.T) {
		alice, other := newClient(t, asAlice()), newClient(t, asAlice())
		fd := alice.Open(path, takeFlags)
		wantErr(t, "unlink", other.Unlink(path), nil)
		wantBroken(t, alice, fd)
		wantFree(t, path)
	})
}
