package tests

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.6: "Calls that may hang run where they can be abandoned: a hanging backing
// directory stops its own lockspace, nothing else, and the daemon can still be
// replaced."

// hungMount is a mount of which one lockspace is mirrored in a hanging filesystem, and
// another is not.
type hungMount struct {
	*hanging
	m    *Mount
	hung string // the lockspace, with a slash behind; "" for the root
	fine string
}

// inHung calls f with each kind of such a mount.
func inHung(t *testing.T, f func(t *testing.T, x *hungMount)) {
	t.Run("mirror", func(t *testing.T) {
		h := mountHanging(t)
		m := mount(t, "--space", "hung:mirror="+h.Dir, "--space", "fine")
		f(t, &hungMount{h, m, "hung/", "fine/"})
	})
	t.Run("backing", func(t *testing.T) {
		h := mountHanging(t)
		m := mount(t, "--backing", h.Dir, "--space", "fine:mirror=none")
		f(t, &hungMount{h, m, "", "fine/"})
	})
}

// goesOn measures how long it takes to take and give back locks of the other
// lockspace; the longest.
func (x *hungMount) goesOn(t *testing.T, c *Client) {
	t.Helper()
	var longest time.Duration
	for range 300 {
		began := time.Now()
		wantErr(t, "close", c.Close(c.Open(x.m.Path(x.fine+"x"), takeFlags)), nil)
		longest = max(longest, time.Since(began))
	}
	t.Logf("others take and give back a lock in %v at most", longest)
	if longest > 2*time.Second {
		t.Errorf("others were held up for %v", longest)
	}
}

func TestAHangingBackingDirectory(t *testing.T) {
	inHung(t, func(t *testing.T, x *hungMount) {
		m := x.m
		m.Deadline(2 * time.Minute)
		defer x.Answer()
		path := func(name string) string { return m.Path(x.hung + name) }
		a, b, c, other, stranger := newClient(t), newClient(t), newClient(t), newClient(t), newClient(t)
		held := a.Open(path("held"), takeFlags)
		waits := b.StartFlock(b.Open(path("held"), openFlags), unix.LOCK_EX)
		waits.MustBlock(t)
		strangers := stranger.Open(filepath.Join(x.Dir, "strangers"), unix.O_RDWR|unix.O_CREAT)
		wantErr(t, "the stranger's lock", stranger.Fcntl(strangers, unix.F_SETLK, wr(0, toEnd)), nil)
		tries, takes := c.Open(path("strangers"), openFlags), c.Open(path("free"), openFlags)
		doomed := newClient(t)
		dooms := doomed.Open(path("doomed"), openFlags)
		x.Hang()

		// Who wants something there waits, and nobody else does.
		try := c.StartFcntl(tries, unix.F_SETLK, wr(0, toEnd))
		take := c.StartFlock(takes, unix.LOCK_EX)
		doom := doomed.StartFlock(dooms, unix.LOCK_EX)
		try.MustBlock(t)
		take.MustBlock(t)
		doom.MustBlock(t)
		x.goesOn(t, other)
		began := time.Now()
		_, err := other.TryOpen(path("new"), takeFlags)
		if took := time.Since(began); err != unix.ETIMEDOUT || took > answerLimit {
			t.Errorf("the making of a name: %v after %v, want ETIMEDOUT in some seconds", err, took)
		}
		eventually(t, answerLimit, func() bool {
			out, _ := sh(t, m, `cat .lockfs/health`)
			return strings.Contains(out, "does not answer")
		}, "health tells")
		began = time.Now()
		for range 20 {
			_, err := other.TryOpen(path("new"), takeFlags)
			wantErr(t, "the making of a name, when it is known", err, unix.ETIMEDOUT)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("20 of them took %v", took)
		}
		if names := other.Readdir(m.Path(x.hung)); !strings.Contains(fmt.Sprint(names), "held") {
			t.Errorf("what is known is not listed: %v", names)
		}
		if text, err := other.ReadAll(path("held")); !strings.Contains(text, fmt.Sprintf("pid=%d\n", a.Pid())) || err != nil {
			t.Errorf("the holder is shown as %q, %v", text, err)
		}

		// Whoever waits can be killed, and so can the worker, and all of it be replaced.
		doomed.Kill()
		began = time.Now()
		killWorker(t, m)
		t.Logf("another worker serves %v after the kill", time.Since(began))
		x.goesOn(t, other)
		replaced := strings.Count(m.Stderr(), "the program was replaced")
		hangUp(t, m)
		eventually(t, answerLimit, func() bool { return strings.Count(m.Stderr(), "the program was replaced") > replaced }, "the keeper is replaced")
		x.goesOn(t, other)
		killWorker(t, m)
		another := newClient(t)
		anothers := another.Open(path("another"), openFlags) // when it is known, an onlooker does not wait long
		late := another.StartFlock(anothers, unix.LOCK_EX)
		late.MustBlock(t)
		another.Kill()
		try.MustBlock(t)
		take.MustBlock(t)
		waits.MustBlock(t)
		wantErr(t, "unlock", a.Close(held), nil) // nobody waits for the answer

		// When it goes on, everybody has the answer that is right.
		x.Answer()
		wantErr(t, "a try of what a stranger has", try.Wait(t), unix.EAGAIN)
		wantErr(t, "a wait for what is free", take.Wait(t), nil)
		wantErr(t, "who waited for a holder", waits.Wait(t), nil)
		for _, name := range []string{"held", "free"} {
			file := stranger.Open(filepath.Join(x.Dir, name), unix.O_RDWR)
			wantErr(t, "a stranger's lock on "+name, stranger.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)), unix.EAGAIN)
		}
		for _, name := range []string{"new", "doomed", "another"} { // promised to who does not want it any more
			eventually(t, answerLimit, func() bool {
				fd, err := stranger.TryOpen(filepath.Join(x.Dir, name), unix.O_RDWR|unix.O_CREAT)
				if err != nil {
					return false
				}
				free := stranger.Fcntl(fd, unix.F_OFD_SETLK, wr(0, toEnd)) == nil
				wantErr(t, "close", stranger.Close(fd), nil)
				return free
			}, name+" is free")
		}
		eventually(t, answerLimit, func() bool {
			out, _ := sh(t, m, `cat .lockfs/health`)
			return out == "ok\n"
		}, "health is ok")
		wantErr(t, "close", other.Close(other.Open(path("new"), takeFlags)), nil)
	})
}

// A mirror can hang from the beginning, and the mount ends while it does.
func TestAHangingDirectoryNamedAndUnmounted(t *testing.T) {
	h := mountHanging(t)
	m := mount(t, "--space", "s")
	a := newClient(t)
	h.Hang()
	began := time.Now()
	out, exit := sh(t, m, `echo `+h.Dir+`/sub >s/.lockfs/policy/mirror 2>&1; cat s/.lockfs/policy/mirror`)
	if took := time.Since(began); !strings.Contains(out, "inherit") || exit != 0 || took > 2*answerLimit {
		t.Errorf("%q (exit %d) after %v", out, exit, took)
	}
	if !strings.Contains(m.Stderr(), "does not answer") {
		t.Error("the log does not tell that it does not answer")
	}
	wantErr(t, "close", a.Close(a.Open(m.Path("s/x"), takeFlags)), nil)
	h.Answer()
	if out, exit := sh(t, m, `echo `+h.Dir+` >s/.lockfs/policy/mirror`); exit != 0 {
		t.Fatal(out)
	}
	held := a.Open(m.Path("s/x"), takeFlags)
	waiter := newClient(t)
	fd := waiter.Open(m.Path("s/x"), openFlags)
	h.Hang()
	waiter.StartFlock(fd, unix.LOCK_EX).MustBlock(t)
	a.Close(held)
	a.Kill()
	waiter.Kill()
	m.Signal(syscall.SIGTERM)
	if code := m.AwaitExit(t); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	h.Answer() // then the agent can end too, whom the test's end waits for
}

// So does one whose backing directory hangs.
func TestAHangingBackingDirectoryUnmounted(t *testing.T) {
	h := mountHanging(t)
	m := mount(t, "--backing", h.Dir)
	a := newClient(t)
	fd := a.Open(m.Path("x"), takeFlags)
	h.Hang()
	defer h.Answer()
	killWorker(t, m)
	wantErr(t, "close", a.Close(fd), nil)
	began := time.Now()
	m.Signal(syscall.SIGTERM)
	if code := m.AwaitExit(t); code != 0 {
		t.Errorf("the daemon ended with %d", code)
	}
	t.Logf("it ended in %v", time.Since(began))
}
