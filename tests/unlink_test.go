package tests

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.5: "A hold by handle is given back by an unlink from the holder or a
// process descended from it (trap 'rm -f lock' EXIT). Every other unlink that
// is permitted (holder's user, the directory's owner, root) breaks the lock:
// it is free at once, the next grant has a higher token, the victim's open
// file answers write, fsync and lock calls with ESTALE."

func TestTheHoldersUnlinkGivesBack(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			c, other := newClient(t), newClient(t)
			fd := way.take(t, c, path)
			wantErr(t, "unlink", c.Unlink(path), nil)
			wantListed(t, other, m)
			_, err := other.Stat(path)
			wantErr(t, "stat", err, unix.ENOENT)
			wantFree(t, path)
			wantErr(t, "unlink once more", c.Unlink(path), unix.ENOENT)

			// It is no break: the open file goes on being one.
			wantErr(t, "fsync", c.Fsync(fd), nil)
			wantErr(t, "taking it again by flock", c.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
			wantErr(t, "unlock", c.Flock(fd, unix.LOCK_UN), nil)
			wantErr(t, "taking it again by fcntl", c.Fcntl(fd, unix.F_OFD_SETLK, wr(0, 1)), nil)
			wantErr(t, "write", c.Write(fd, "x"), nil)
			wantErr(t, "close", c.Close(fd), nil)
			wantFree(t, path)
		})
	}
}

// What the holder closes after its unlink is not the next one's hold.
func TestAHolderThatUnlinkedAndClosesTakesNothingFromTheNext(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			c, next := newClient(t), newClient(t)
			fd := way.take(t, c, path)
			wantErr(t, "unlink", c.Unlink(path), nil)
			next.Open(path, takeFlags)
			wantErr(t, "close", c.Close(fd), nil)
			wantHolder(t, path, next.Pid())
			c.Kill()
			wantHolder(t, path, next.Pid())
		})
	}
}

// Scripts clean up after themselves by a child, rm(1).
func TestScriptsThatRemoveTheirLockGiveItBack(t *testing.T) {
	m := mount(t)
	for _, tc := range []struct{ name, script, want string }{
		{"trap", `(set -C; exec 9>lock; trap 'rm -f lock' EXIT; ls); ls; echo end`, "lock\nend\n"},
		{"trap by signal", `bash -c 'set -C; exec 9>lock; trap "rm -f lock; exit 3" TERM; kill $$; sleep 5'; echo $?; ls`, "3\n"},
		{"rm by the shell that took it", `set -C; exec 9>lock; rm lock; ls; exec 9>&-; ls; echo end`, "end\n"},
		{"rm is no break", `set -C; exec 9>lock; rm lock; flock -n 9 && ls; echo text >&9 && cat lock`, "lock\ntext\n"},
		{"rm of what flock took for the shell", `exec 9>lock; flock 9; rm lock; ls; flock -n 9 && ls`, "lock\n"},
		{"rm by a grandchild", `set -C; exec 9>lock; sh -c '(rm lock; :)'; ls; flock -n 9 && ls`, "lock\n"},
		{"rm by flock's command", `flock lock sh -c 'ls; rm -f lock; ls'; ls; echo end`, "lock\nend\n"},
		{"the next one gets in", `set -C; exec 9>lock; rm lock; bash -c 'set -C; exec 8>lock && ls'; ls; echo end`, "lock\nend\n"},
		{"rm of nothing", `rm lock 2>/dev/null || echo none; rm -f lock && echo quiet`, "none\nquiet\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if out, exit := bash(t, m, tc.script); out != tc.want || exit != 0 {
				t.Errorf("%s: %q, exit %d, want %q", tc.script, out, exit, tc.want)
			}
		})
	}
}

// wantBroken fails the test unless every call through the victim's open file
// that could do harm answers ESTALE.
func wantBroken(t *testing.T, victim *Client, fd int) {
	t.Helper()
	for what, err := range map[string]error{
		"write":         victim.Write(fd, "late"),
		"fsync":         victim.Fsync(fd),
		"flock":         victim.Flock(fd, unix.LOCK_EX|unix.LOCK_NB),
		"flock, shared": victim.Flock(fd, unix.LOCK_SH),
		"F_SETLK":       victim.Fcntl(fd, unix.F_SETLK, wr(0, 1)),
		"F_SETLKW":      victim.Fcntl(fd, unix.F_SETLKW, wr(0, toEnd)),
		"F_OFD_SETLK":   victim.Fcntl(fd, unix.F_OFD_SETLK, rd(0, toEnd)),
	} {
		if err != unix.ESTALE {
			t.Errorf("%s through a broken lock's open file: %v, want %v", what, err, unix.ESTALE)
		}
	}
}

// breakers are the permitted ones who break alice's lock.
var breakers = []struct {
	name  string
	id    uint32
	owner int // of the directory
}{
	{"an unrelated process of the holder's user", aliceID, 0},
	{"root", 0, bobID},
	{"the directory's owner", bobID, bobID},
}

func TestAnUnlinkByAnotherBreaksTheLock(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, breaker := range breakers {
		wantErr(t, "chown of the root", newClient(t).Chown(m.Dir, breaker.owner, -1), nil)
		for _, way := range waysToHold {
			t.Run(breaker.name+"/"+way.name, func(t *testing.T) {
				victim, other := newClient(t, asAlice()), newClient(t, asUser(breaker.id, breaker.id))
				next := newClient(t, asBob())
				fd := way.take(t, victim, path)
				token := recordOf(t, path).number(t, "token")

				wantErr(t, "unlink", other.Unlink(path), nil)
				wantListed(t, other, m) // free at once
				wantBroken(t, victim, fd)
				wantListed(t, other, m)

				next.Open(path, takeFlags)
				if got := recordOf(t, path).number(t, "token"); got <= token {
					t.Errorf("token %d after a broken hold with %d", got, token)
				}
				wantBroken(t, victim, fd)
				wantErr(t, "the victim's close", victim.Close(fd), nil)
				wantHolder(t, path, next.Pid())

				// Who was broken comes back by a new open.
				next.Kill()
				wantErr(t, "close", victim.Close(victim.Open(path, takeFlags)), nil)
			})
		}
	}
}

func TestAWaiterGetsTheLockThatIsBroken(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	victim, breaker := newClient(t, asAlice()), newClient(t, asAlice())
	fd := victim.Open(path, takeFlags)
	first, second := queueUp(t, path, exclusively), queueUp(t, path, byPOSIX)
	token := recordOf(t, path).number(t, "token")
	wantErr(t, "unlink", breaker.Unlink(path), nil)
	wantErr(t, "the first waiter", first.wait.Wait(t), nil)
	second.wait.MustBlock(t)
	if r := recordOf(t, path); r["pid"] != fmt.Sprint(first.Pid()) || r.number(t, "token") <= token {
		t.Errorf("record %v, want process %d and a token above %d", r, first.Pid(), token)
	}
	wantBroken(t, victim, fd)
	second.wait.MustBlock(t)
	victim.Kill()
	second.wait.MustBlock(t)
	first.Kill()
	wantErr(t, "the second waiter", second.wait.Wait(t), nil)
}

// The victim's other open files are not what was broken.
func TestOnlyTheOpenFileThatHeldIsStale(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	victim := newClient(t)
	other := victim.Open(path, openFlags)
	fd := victim.Open(path, takeFlags)
	wantErr(t, "unlink", newClient(t).Unlink(path), nil)
	wantErr(t, "flock through the broken one", victim.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.ESTALE)
	wantErr(t, "flock through another", victim.Flock(other, unix.LOCK_EX|unix.LOCK_NB), nil)
}

func TestAnUnlinkByAnotherUserIsRefused(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			alice, bob := newClient(t, asAlice()), newClient(t, asBob())
			fd := way.take(t, alice, path)
			wantErr(t, "unlink", bob.Unlink(path), unix.EPERM)
			if _, exit := sh(t, m, `rm -f lock`, asBob()); exit != 1 {
				t.Errorf("rm -f by another user: exit %d, want 1", exit)
			}
			wantHeld(t, path)
			wantHolder(t, path, alice.Pid())
			wantErr(t, "the holder's fsync", alice.Fsync(fd), nil)
			wantErr(t, "the holder's write", alice.Write(fd, "mine"), nil)
		})
	}
}

// Of several holders, one may end only his own; then nobody's ends.
func TestAnUnlinkOfASharedLockNeedsTheRightToAllHolds(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	alice, bob := newClient(t, asAlice()), newClient(t, asBob())
	afd, bfd := alice.Open(path, openFlags), bob.Open(path, openFlags)
	wantErr(t, "alice", alice.Flock(afd, unix.LOCK_SH), nil)
	wantErr(t, "bob", bob.Flock(bfd, unix.LOCK_SH), nil)
	wantErr(t, "bob's unlink", bob.Unlink(path), unix.EPERM)
	wantErr(t, "alice's hold", alice.Fsync(afd), nil)
	wantHeld(t, path)
	wantErr(t, "root's unlink", newClient(t).Unlink(path), nil)
	wantBroken(t, alice, afd)
	wantBroken(t, bob, bfd)
	wantFree(t, path)
}

// "ENOENT": there is nothing to remove.
func TestAFreeLockCannotBeUnlinked(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	c, other := newClient(t), newClient(t)
	wantErr(t, "a name nobody knows", c.Unlink(path), unix.ENOENT)
	fd := other.Open(path, openFlags)
	wantErr(t, "a name that is open but free", c.Unlink(path), unix.ENOENT)
	wantErr(t, "flock", other.Flock(fd, unix.LOCK_EX), nil)
	wantErr(t, "the root", c.Unlink(m.Dir), unix.EISDIR)
	wantHeld(t, path)
}
