package tests

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// F_GETLK tells of a stranger who is in the way of what is asked about, and of no
// other, whether or not anybody on the mount has ever locked the file.
func TestGetLkTellsWhichStranger(t *testing.T) {
	m := mountBacked(t)
	a, stranger := newClient(t), newClient(t)
	file := stranger.Open(m.Behind("x"), unix.O_RDWR|unix.O_CREAT)
	wantErr(t, "the first bytes", stranger.Fcntl(file, unix.F_SETLK, rd(0, 10)), nil)
	wantErr(t, "others", stranger.Fcntl(file, unix.F_SETLK, wr(100, 10)), nil)
	fd := a.Open(m.Path("x"), openFlags)
	for _, when := range []string{"a file that was never locked here", "one that was"} {
		for _, c := range []struct {
			ask         unix.Flock_t
			kind        int16
			start, size int64
		}{
			{wr(0, 10), unix.F_RDLCK, 0, 10},
			{wr(105, 1), unix.F_WRLCK, 100, 10},
			{rd(0, toEnd), unix.F_WRLCK, 100, 10},
			{rd(0, 50), unix.F_UNLCK, 0, 50},
			{wr(50, 50), unix.F_UNLCK, 50, 50},
		} {
			got := a.GetLk(fd, c.ask)
			if got.Type != c.kind || got.Start != c.start || got.Len != c.size || c.kind != unix.F_UNLCK && int(got.Pid) != stranger.Pid() {
				t.Errorf("%s: F_GETLK of %+v is %+v", when, c.ask, got)
			}
		}
		wantErr(t, "a try", a.Fcntl(fd, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
	}
}

// A directory that is removed takes its files' place outside away: what is locked
// there through a file that is open is not granted. It cannot be removed while a
// stranger uses one of them.
func TestNothingIsHeldInRemovedDirectories(t *testing.T) {
	m := mountBacked(t)
	a, b, stranger := newClient(t), newClient(t), newClient(t)
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("dir")), nil)
	wantErr(t, "close", a.Close(a.Open(m.Path("dir/x"), takeFlags)), nil) // makes the file
	file := stranger.Open(m.Behind("dir/x"), unix.O_RDWR)
	wantFreeOutside(t, "the stranger's lock", stranger, file, unix.F_SETLK, wr(0, toEnd))
	other := b.Open(m.Path("dir/y"), openFlags)
	wantErr(t, "rmdir of what a stranger uses", b.Name("rmdir", 0, m.Path("dir")), unix.ENOTEMPTY)
	wantErr(t, "the stranger's unlock", stranger.Fcntl(file, unix.F_SETLK, un(0, toEnd)), nil)
	wantErr(t, "rmdir", b.Name("rmdir", 0, m.Path("dir")), nil)
	wantBehind(t, m)
	wantErr(t, "flock by an open file", b.Flock(other, unix.LOCK_EX|unix.LOCK_NB), unix.ESTALE)
	killWorker(t, m.Mount)
	wantErr(t, "flock by an open file", b.Flock(other, unix.LOCK_EX), unix.ESTALE)
	wantBehind(t, m)
}

// Directories can be deeper than any path is long: nothing in them can be mirrored,
// and they hold nobody up.
func TestDirectoriesDeeperThanPaths(t *testing.T) {
	m := mountBacked(t)
	m.Deadline(2 * time.Minute)
	a := newClient(t)
	began := time.Now()
	out, exit := sh(t, m.Mount, `exec python3 -c '
import os
for i in range(3000):
    os.mkdir("d" * 255)
    os.chdir("d" * 255)
os.open("x", os.O_CREAT | os.O_EXCL)' 2>&1`)
	if exit == 0 || !strings.Contains(out, "File name too long") {
		t.Errorf("exit code %d: %.300s", exit, out)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	wantErr(t, "close of another", a.Close(a.Open(m.Path("x"), takeFlags)), nil)
}

// leaseHolder has a write lease on a file, as file servers do for their clients, until
// its standard input ends. It gives nothing back when it is asked to.
const leaseHolder = `import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR, 0o666)
fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
sys.stdin.read()
`

// Who has a lease on the backing file is in the way, as who has it locked: who tries is
// refused, who waits gets the lock when the lease has gone.
func TestLeasesAreInTheWay(t *testing.T) {
	m := mountBacked(t)
	a := newClient(t)
	leased := startProcess(t, nil, "python3", "-c", leaseHolder, m.Behind("x"))
	leased.Held(t)
	fd := a.Open(m.Path("x"), openFlags)
	wantErr(t, "a try", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EAGAIN)
	waits := a.StartFlock(fd, unix.LOCK_EX)
	waits.MustBlock(t)
	leased.Release(t)
	wantErr(t, "the wait", waits.Wait(t), nil)
}
