package tests

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.3 `reap`: who dies while it holds by name leaves no stale lock.

// reapLimit is how long a lock may stay when its process has died.
const reapLimit = 100 * time.Millisecond

// leaving are scripts that take "lock" by name with their own pid in it, and then
// say so and wait. They ask for the token, of the time when the body was empty.
var leaving = map[string]string{
	"set -C": `set -C; : >lock; echo "held $(sed -n s/^token=//p lock)" >../said; set +C; echo $$ >lock; echo "held $(cat ../said)"; read x`,
	"ln": `: >lock.tmp; ln lock.tmp lock; echo "held $(sed -n s/^token=//p lock)" >../said; echo $$ >lock.tmp; rm lock.tmp
		echo "held $(cat ../said)"; read x`,
	"ln of what has a pid": `echo $$ >lock.tmp; ln lock.tmp lock; rm lock.tmp; echo "held 0"; read x`,
	"mv -n": `: >lock.tmp; mv -n lock.tmp lock; [ ! -e lock.tmp ] || exit 1; echo "held $(sed -n s/^token=//p lock)" >../said
		printf %10d\\n $$ >lock; echo "held $(cat ../said)"; read x`,
}

// script starts a script of bash in the mount's directory.
func (m *Mount) script(t testing.TB, text string, opts ...clientOption) *process {
	t.Helper()
	return startProcess(t, opts, "/bin/bash", "-c", "cd "+m.Dir+" || exit 125\n"+text)
}

// token is the number that a script says behind "held".
func (p *process) token(t testing.TB) int {
	t.Helper()
	words := strings.Fields(p.said())
	n, err := strconv.Atoi(words[len(words)-1])
	if err != nil {
		t.Fatalf("no token: %q", p.said())
	}
	return n
}

// takenAfter returns how long it is from what end does until a client has the
// lock by name.
func takenAfter(t testing.TB, c *Client, path string, end func()) time.Duration {
	t.Helper()
	began := time.Now()
	end()
	for {
		fd, err := c.TryOpen(path, takeFlags)
		took := time.Since(began)
		if err == nil {
			wantErr(t, "close", c.Close(fd), nil)
			return took
		}
		wantErr(t, "taking what is not free yet", err, unix.EEXIST)
		if took > answerLimit {
			t.Fatalf("not free %v after the death", answerLimit)
		}
	}
}

func TestAKilledScriptLeavesNoStaleLock(t *testing.T) {
	for name, script := range leaving {
		t.Run(name, func(t *testing.T) {
			m := mount(t, "--policy", "hold=name,read=record")
			c, path := newClient(t), m.Path("lock")
			var took []time.Duration
			for range 9 {
				p := m.script(t, script)
				p.Held(t)
				_, err := c.TryOpen(path, takeFlags)
				wantErr(t, "taking what is held", err, unix.EEXIST)
				took = append(took, takenAfter(t, c, path, func() { p.Signal(syscall.SIGKILL) }))
				if token := recordOf(t, path).number(t, "token"); token <= p.token(t) {
					t.Errorf("the next holder has token %d, the one that died had %d", token, p.token(t))
				}
				wantErr(t, "unlink", c.Unlink(path), nil)
			}
			slices.Sort(took)
			t.Logf("free after %v to %v, in the middle %v", took[0], took[len(took)-1], took[len(took)/2])
			if took[len(took)/2] > reapLimit {
				t.Errorf("free only after %v, want %v at most", took[len(took)/2], reapLimit)
			}
			wantNothingHeld(t, m)
		})
	}
}

// A script that ends by itself and forgets its lock has not left it either.
func TestAScriptThatExitsLeavesNoStaleLock(t *testing.T) {
	m := mountByName(t)
	if _, exit := bash(t, m, `set -C; echo $$ >lock; exit 3`); exit != 3 {
		t.Fatalf("exit %d", exit)
	}
	eventually(t, answerLimit, func() bool {
		out, _ := sh(t, m, `ls`)
		return out == ""
	}, "the lock is gone")
	eventually(t, answerLimit, func() bool { return strings.Contains(m.Stderr(), "why=reaped") }, "the log tells of it")
}

// In a pid namespace of its own a script knows itself by another number, and one
// that another process has outside.
func TestReapingInAContainer(t *testing.T) {
	m := mountByName(t)
	c, path := newClient(t), m.Path("lock")
	for range 3 {
		decoy := startProcess(t, nil, "/bin/sh", "-c", `echo held; read x`)
		decoy.Held(t)
		inner := `echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid && bash -c 'cd "$0"; set -C; echo $$ >lock; echo held $$; read x; exit' "$2"; exit`
		p := startProcess(t, nil, "unshare", "-pf", "--mount-proc", "bash", "-c", inner, "inner", fmt.Sprint(decoy.Pid()), m.Dir)
		p.Held(t)
		if got := p.token(t); got != decoy.Pid() {
			t.Fatalf("the script inside has number %d, want that of the process outside, %d", got, decoy.Pid())
		}
		decoy.Kill(t)
		time.Sleep(2 * reapLimit)
		_, err := c.TryOpen(path, takeFlags)
		wantErr(t, "after the death of the wrong process", err, unix.EEXIST)
		t.Logf("free after %v", takenAfter(t, c, path, func() { killLeaf(t, p.Pid()) }))
		wantErr(t, "unlink", c.Unlink(path), nil)
		p.Release(t)
	}
}

// killLeaf kills the last of a line of children.
func killLeaf(t testing.TB, pid int) {
	t.Helper()
	for {
		out, _, _ := run(t, nil, "pgrep", "-P", fmt.Sprint(pid))
		child, err := strconv.Atoi(strings.TrimSpace(out))
		if err != nil {
			break
		}
		pid = child
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// Who cannot be seen by the daemon locks, and is never reaped.
func TestWhoCannotBeSeenIsNotReaped(t *testing.T) {
	m := mountInPidNamespace(t, "--policy", holdByName)
	p := m.script(t, `set -C; echo $$ >lock; echo held; read x`)
	p.Held(t)
	p.Kill(t)
	time.Sleep(2 * reapLimit)
	c := newClient(t)
	_, err := c.TryOpen(m.Path("lock"), takeFlags)
	wantErr(t, "taking it", err, unix.EEXIST)
}

// The next worker watches whom this one watched, also if the process died while
// there was none; and so does the next mount.
func TestWatchedProcessesAreTakenUpAgain(t *testing.T) {
	m := mountByName(t)
	m.Deadline(2 * time.Minute)
	start := func() *process {
		p := m.script(t, `set -C; echo $$ >lock; echo held; read x`)
		p.Held(t)
		return p
	}
	c, path := newClient(t), m.Path("lock")
	wantReaped := func(what string) {
		t.Helper()
		eventually(t, answerLimit, func() bool {
			fd, err := c.TryOpen(path, takeFlags)
			if err == nil {
				c.Close(fd)
				c.Unlink(path)
			}
			return err == nil
		}, what)
	}

	p := start()
	killWorker(t, m)
	_, err := c.TryOpen(path, takeFlags)
	wantErr(t, "taking what is held over a killed worker", err, unix.EEXIST)
	p.Kill(t)
	wantReaped("the second worker reaps")

	p = start()
	worker := m.Worker()
	awaitAnother(t, m, func() {
		syscall.Kill(worker, syscall.SIGSTOP)
		p.Kill(t)
		syscall.Kill(worker, syscall.SIGKILL)
	})
	wantReaped("a worker reaps who died before it")

	p = start()
	c.Kill()
	m.Restart(m.Quit)
	c = newClient(t)
	_, err = c.TryOpen(path, takeFlags)
	wantErr(t, "taking what is held over a clean stop", err, unix.EEXIST)
	p.Kill(t)
	wantReaped("the second mount reaps")

	p = start()
	c.Kill()
	m.Restart(func() {
		m.Quit()
		m.AwaitExit(t)
		p.Kill(t)
	})
	c = newClient(t)
	wantReaped("a mount reaps who died before it")
}
