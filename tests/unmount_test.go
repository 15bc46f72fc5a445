package tests

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// How a mount ends: by a signal, and from outside.

func TestSignalsUnmount(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			m := mount(t)
			m.Signal(sig)
			if exit := m.AwaitExit(t); exit != exitOK {
				t.Errorf("exit %d", exit)
			}
			if mountAt(m.Dir) != nil {
				t.Errorf("still mounted")
			}
		})
	}
}

// The issue: "ends cleanly on unmount with every waiter answered".
func TestWaitersAreAnsweredWhenASignalUnmounts(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			m := mount(t)
			path := m.Path("lock")
			holder := newClient(t)
			fd := holder.Open(path, takeFlags)
			waiters := []queued{
				queueUp(t, path, exclusively), queueUp(t, path, shared), queueUp(t, path, byPOSIX), queueUp(t, path, byOFD),
			}
			m.Signal(sig)
			for _, w := range waiters {
				if err := w.wait.Wait(t); err == nil || err == errGone {
					t.Errorf("a wait ended with %v, want an error", err)
				}
			}
			if exit := m.AwaitExit(t); exit != exitOK {
				t.Errorf("exit %d", exit)
			}
			if mountAt(m.Dir) != nil {
				t.Errorf("still mounted")
			}
			if err := holder.Fsync(fd); err == nil {
				t.Errorf("the holder's open file works without a daemon")
			}
			holder.Close(fd)
		})
	}
}

func TestUmountFromOutsideEndsTheDaemon(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	wantErr(t, "close", c.Close(c.Open(m.Path("lock"), takeFlags)), nil)
	if _, errs, exit := run(t, nil, "umount", m.Dir); exit != 0 {
		t.Fatalf("umount: exit %d: %s", exit, errs)
	}
	if exit := m.AwaitExit(t); exit != exitOK {
		t.Errorf("exit %d", exit)
	}
}

func TestUmountOfAMountInUseIsRefused(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	c.Open(m.Path("lock"), takeFlags)
	if _, errs, exit := run(t, nil, "umount", m.Dir); exit == 0 {
		t.Errorf("umount of a busy mount succeeded: %s", errs)
	}
	wantListed(t, newClient(t), m, "lock")
}

func TestALazyUmountLeavesTheLocksInUseWorking(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := newClient(t)
	fd := holder.Open(path, takeFlags)
	waiter := queueUp(t, path, exclusively)
	if _, errs, exit := run(t, nil, "umount", "-l", m.Dir); exit != 0 {
		t.Fatalf("umount -l: exit %d: %s", exit, errs)
	}
	waiter.wait.MustBlock(t)
	wantErr(t, "write", holder.Write(fd, "still here"), nil)
	if text, err := waiter.Pread(waiter.fd, 100, 0); text != "still here" || err != nil {
		t.Errorf("body %q, %v", text, err)
	}
	wantErr(t, "fcntl", holder.Fcntl(fd, unix.F_SETLK, wr(0, 10)), nil)
	wantErr(t, "close", holder.Close(fd), nil)
	wantErr(t, "the waiter", waiter.wait.Wait(t), nil)
	if m.Pid() == 0 {
		t.Errorf("the daemon ended while a lock was held")
	}
	wantErr(t, "last close", waiter.Close(waiter.fd), nil)
	if exit := m.AwaitExit(t); exit != exitOK {
		t.Errorf("exit %d", exit)
	}
}

func TestAUsersMountEndsWithFusermount(t *testing.T) {
	m := mountAs(t, aliceID, aliceID)
	if _, errs, exit := run(t, []clientOption{asAlice()}, "fusermount3", "-u", m.Dir); exit != 0 {
		t.Fatalf("fusermount3 -u: exit %d: %s", exit, errs)
	}
	if exit := m.AwaitExit(t); exit != exitOK {
		t.Errorf("exit %d", exit)
	}
}
