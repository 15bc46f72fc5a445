package tests

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.3 and 1.7: policies on a real mount, by the command line and as files.

func TestPoliciesAreFiles(t *testing.T) {
	m := mount(t, "--space", "legacy:hold=name,reap=none", "--space", "plain", "-o", "rw,noatime,read=pid,space=leased:lease=1h:grace=5")
	for script, want := range map[string]string{
		`cd .lockfs/policy && tail -n +1 *`:                          "==> grace <==\n0\n\n==> hold <==\nhandle\n\n==> ids <==\n0\n\n==> lease <==\n0\n\n==> mirror <==\ninherit\n\n==> publish <==\nauto\n\n==> read <==\npid\n\n==> reap <==\npid\n",
		`cd legacy/.lockfs/policy && cat hold read reap lease grace`: "name\npid\nnone\n0\n0\n",
		`cd leased/.lockfs/policy && cat hold read reap lease grace`: "handle\npid\npid\n1h\n5s\n",
		`cd plain/.lockfs/policy && cat hold read reap lease grace`:  "handle\npid\npid\n0\n0\n",
		`ls`:                                     "leased\nlegacy\nplain\n",
		`stat -c '%A %U %s' .lockfs/policy/hold`: "-rw-r--r-- root 0\n",
		`mkdir a && echo name >a/.lockfs/policy/hold && mkdir a/b && cat a/b/.lockfs/policy/hold .lockfs/policy/hold && rmdir a/b a`: "name\nhandle\n",
		`mkdir c && echo name >>c/.lockfs/policy/hold && cat c/.lockfs/policy/hold; rmdir c`:                                         "name\n",
	} {
		if out, exit := sh(t, m, script); out != want || exit != 0 {
			t.Errorf("%s\nprinted %q (exit %d), want %q", script, out, exit, want)
		}
	}
}

// A knob given nonsense: EINVAL, a logged reason, nothing changed.
func TestNonsenseInAKnob(t *testing.T) {
	m := mount(t)
	out, exit := sh(t, m, `mkdir d; echo nonsense >d/.lockfs/policy/hold; echo $?; cat d/.lockfs/policy/hold; LC_ALL=C /bin/echo -5s 2>&1 >d/.lockfs/policy/lease`)
	if want := "1\nhandle\n"; !strings.HasPrefix(out, want) || !strings.Contains(out, "Invalid argument") || exit == 0 {
		t.Errorf("printed %q (exit %d), want %q and EINVAL", out, exit, want)
	}
	for _, want := range []string{
		`directory=d err="hold=nonsense: not one of handle, name`,
		`directory=d err="lease=-5s: a time expected`,
	} {
		eventually(t, answerLimit, func() bool { return strings.Contains(m.Stderr(), want) }, "the log says "+want)
	}
}

// Policies are for the directory's owner and root.
func TestWhoSetsPolicies(t *testing.T) {
	m := mount(t)
	if out, exit := sh(t, m, `mkdir hers && echo name >hers/.lockfs/policy/hold && cat hers/.lockfs/policy/hold`, asAlice()); out != "name\n" || exit != 0 {
		t.Errorf("the owner: %q, exit %d", out, exit)
	}
	for _, script := range []string{
		`echo handle >hers/.lockfs/policy/hold`,
		`echo name >.lockfs/policy/hold`,
		`: >hers/.lockfs/policy/hold`,
		`truncate -s 0 hers/.lockfs/policy/hold`,
		`test -w hers/.lockfs/policy/hold`,
		`rm -f hers/.lockfs/policy/hold`,
		`chmod 777 hers/.lockfs/policy/hold`,
	} {
		if _, exit := sh(t, m, script, asBob()); exit == 0 {
			t.Errorf("another user: %s succeeded", script)
		}
	}
	if out, _ := sh(t, m, `cat hers/.lockfs/policy/hold .lockfs/policy/hold`, asBob()); out != "name\nhandle\n" {
		t.Errorf("changed to %q", out)
	}
	if out, _ := sh(t, m, `echo handle >hers/.lockfs/policy/hold; cat hers/.lockfs/policy/hold`); out != "handle\n" {
		t.Errorf("root: %q", out)
	}
}

// What was set survives the worker. A clean stop keeps the directories and what
// was set there; the root, and the lockspaces of the command line, begin again as
// that says.
func TestPoliciesSurvive(t *testing.T) {
	m := mount(t, "--policy", "grace=1s", "--space", "given:hold=name")
	const set = `mkdir made; echo name >made/.lockfs/policy/hold; echo 90 >made/.lockfs/policy/lease
		echo creator >given/.lockfs/policy/reap; echo 2s >.lockfs/policy/grace`
	const show = `cat made/.lockfs/policy/hold made/.lockfs/policy/lease given/.lockfs/policy/reap .lockfs/policy/grace`
	sh(t, m, set)
	if out, _ := sh(t, m, show); out != "name\n1m30s\ncreator\n2s\n" {
		t.Fatalf("set: %q", out)
	}
	killWorker(t, m)
	if out, _ := sh(t, m, show); out != "name\n1m30s\ncreator\n2s\n" {
		t.Errorf("over a killed worker: %q", out)
	}
	hangUp(t, m)
	if out, _ := sh(t, m, show); out != "name\n1m30s\ncreator\n2s\n" {
		t.Errorf("over an upgrade: %q", out)
	}
	m.awaitReplaced() // by the upgrade
	m.Restart(m.Quit)
	if out, _ := sh(t, m, show); out != "name\n1m30s\npid\n1s\n" {
		t.Errorf("over a clean stop: %q", out)
	}
}

// Leases and grace in real time; their exact times are tested with a clock that
// tests can turn.
func TestLeaseOnARealMount(t *testing.T) {
	m := mount(t, "--policy", "lease=1s,hold=name", "--space", "h:hold=handle,lease=1s")
	c, path := newClient(t), m.Path("lock")
	wantErr(t, "close", c.Close(c.Open(path, takeFlags)), nil)
	for range 8 { // twice as long as the lease
		time.Sleep(250 * time.Millisecond)
		if _, exit := sh(t, m, `touch lock`); exit != 0 {
			t.Fatal("touch failed")
		}
	}
	_, err := c.TryOpen(path, takeFlags)
	wantErr(t, "taking what is renewed", err, unix.EEXIST)
	eventually(t, answerLimit, func() bool {
		fd, err := c.TryOpen(path, takeFlags)
		if err == nil {
			c.Close(fd)
		}
		return err == nil
	}, "the lease has run out")
	fd := c.Open(m.Path("h/lock"), takeFlags)
	waiter := newClient(t)
	wait := waiter.StartFlock(waiter.Open(m.Path("h/lock"), openFlags), unix.LOCK_EX)
	wantErr(t, "the waiter", wait.Wait(t), nil)
	wantErr(t, "write by the one whose lease ran out", c.Write(fd, "late"), unix.ESTALE)
	eventually(t, answerLimit, func() bool { return strings.Contains(m.Stderr(), "why=expired") }, "the log tells of it")
}

// Grace follows the death of a holder by a signal, and no orderly end.
func TestGraceOnARealMount(t *testing.T) {
	m := mount(t, "--policy", "grace=700ms")
	const take = `exec 9>lock; flock -n 9 || exit 1; echo held; read x`
	for range 3 {
		p := m.script(t, take)
		p.Held(t)
		p.Release(t) // it exits without unlocking
	}
	p := m.script(t, take)
	p.Held(t)
	began := time.Now()
	p.Signal(syscall.SIGKILL)
	p.awaitExit(t)
	early := m.script(t, take)
	if early.got(t) && time.Since(began) < 700*time.Millisecond {
		t.Error("got in during grace")
	}
	q := m.script(t, `exec 9>lock; flock 9; echo held; read x`)
	q.Held(t)
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("who waits gets in after %v", took)
	}
	killWorker(t, m)
	r := m.script(t, `flock lock echo held`)
	r.MustBlock(t)
	q.Signal(syscall.SIGKILL)
	killWorker(t, m)
	r.Held(t)
}
