package tests

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who gets a lock after somebody who held it by its name has it outside on a file that
// stays: what held the name is being removed there.

// wantLockedBehind fails the test unless a stranger finds a file locked in the backing
// directory, now and when it has been looked whether it is the right one, and who has it
// on the mount has not lost it.
func wantLockedBehind(t testing.TB, m *mirroredMount, name string, holder *Client, fd int) {
	t.Helper()
	stranger := newClient(t)
	defer stranger.Kill()
	for i := range 2 {
		time.Sleep(time.Duration(i) * 1500 * time.Millisecond)
		file, err := stranger.TryOpen(m.Behind(name), unix.O_RDWR)
		if err != nil {
			t.Errorf("a stranger opens %s: %v", name, err)
			return
		}
		wantErr(t, "a stranger's lock", stranger.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)), unix.EAGAIN)
		wantErr(t, "close", stranger.Close(file), nil)
		wantErr(t, "the holder's fsync", holder.Fsync(fd), nil)
	}
}

// ofBoth runs a test where this process mirrors, and where an agent does.
func ofBoth(t *testing.T, policy string, test func(*testing.T, *mirroredMount)) {
	t.Run("by the worker", func(t *testing.T) { test(t, mountBacked(t, "--policy", policy)) })
	t.Run("by an agent", func(t *testing.T) {
		dir := t.TempDir()
		test(t, &mirroredMount{mount(t, "--policy", policy+",mirror="+dir), dir})
	})
}

func TestWhoWaitsForANameHasItOutside(t *testing.T) {
	ends := map[string]func(*Client, *Mount) error{
		"unlink": func(a *Client, m *Mount) error { return a.Unlink(m.Path("lock")) },
		"rename": func(a *Client, m *Mount) error { return a.Name("rename", 0, m.Path("lock"), m.Path("other")) },
		"death of the worker": func(a *Client, m *Mount) error {
			killWorker(t, m)
			return a.Unlink(m.Path("lock"))
		},
	}
	for what, end := range ends {
		t.Run(what, func(t *testing.T) {
			ofBoth(t, holdByName, func(t *testing.T, m *mirroredMount) {
				a, b := newClient(t), newClient(t)
				a.Open(m.Path("lock"), takeFlags)
				fd := b.Open(m.Path("lock"), unix.O_RDWR)
				waits := b.StartFlock(fd, unix.LOCK_EX)
				waits.MustBlock(t)
				wantErr(t, what, end(a, m.Mount), nil)
				wantErr(t, "the wait", waits.Wait(t), nil)
				wantLockedBehind(t, m, "lock", b, fd)
				wantErr(t, "close", b.Close(fd), nil)
			})
		})
	}
}

// Who tries when he knows that it has been given back gets it.
func TestWhoTriesForANameHasItOutside(t *testing.T) {
	ofBoth(t, holdByName, func(t *testing.T, m *mirroredMount) {
		a, b, stranger := newClient(t), newClient(t), newClient(t)
		for i := range 50 {
			name := fmt.Sprint("lock", i%3)
			a.Open(m.Path(name), takeFlags)
			fd := b.Open(m.Path(name), unix.O_RDWR)
			wantErr(t, "flock of what is held", b.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN)
			wantErr(t, "unlink", a.Unlink(m.Path(name)), nil)
			wantErr(t, "flock of what has been given back", b.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
			file := stranger.Open(m.Behind(name), unix.O_RDWR)
			wantErr(t, "a stranger's lock", stranger.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)), unix.EAGAIN)
			wantErr(t, "close", stranger.Close(file), nil)
			wantErr(t, "fsync", b.Fsync(fd), nil)
			wantErr(t, "close", b.Close(fd), nil)
			// It stays, for who has opened it, and nobody has it.
			eventually(t, answerLimit, func() bool { return os.Remove(m.Behind(name)) == nil }, "the file is there, and removed")
		}
		wantNothingHeld(t, m.Mount)
	})
}

// Who waits behind a directory gets the lock when that is removed.
func TestWhoWaitsForADirectory(t *testing.T) {
	ofBoth(t, "hold=handle", func(t *testing.T, m *mirroredMount) {
		a, b := newClient(t), newClient(t)
		for range 30 {
			fd := b.Open(m.Path("lock"), unix.O_RDWR|unix.O_CREAT)
			wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("lock")), nil)
			waits := b.StartFlock(fd, unix.LOCK_EX)
			waits.MustBlock(t)
			wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("lock")), nil)
			wantErr(t, "the wait", waits.Wait(t), nil)
			wantErr(t, "fsync", b.Fsync(fd), nil)
			wantErr(t, "close", b.Close(fd), nil)
			eventually(t, answerLimit, func() bool { return os.Remove(m.Behind("lock")) == nil }, "the file is there, and removed")
		}
	})
}

// Who makes a name and who locks what another has made are never inside together, on two
// mounts and in the backing directory, whatever workers die.
func TestNeverTwoInsideByNameAndByFile(t *testing.T) {
	for what, mounts := range map[string]func(testing.TB) (first, second *Mount, backing string){
		"by workers": func(t testing.TB) (*Mount, *Mount, string) {
			first := mountBacked(t, "--policy", holdByName)
			return first.Mount, mount(t, append(mirroredIn(t, first.backing), "--policy", holdByName)...), first.backing
		},
		"by agents": func(t testing.TB) (*Mount, *Mount, string) {
			first := mountByAgent(t)
			return first.Mount, mount(t, "--policy", holdByName+",mirror="+first.backing), first.backing
		},
	} {
		t.Run(what, func(t *testing.T) {
			first, second, backing := mounts(t)
			limit := hammerTime(t) / 4
			first.Deadline(limit + time.Minute)
			second.Deadline(limit + time.Minute)
			hammerBoth(t, "joiners", 12, limit, backing, first, second)
			wantNothingHeld(t, first)
			wantNothingHeld(t, second)
		})
	}
}
