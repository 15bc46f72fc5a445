package tests

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// However a mount ends, nobody who waits on it is left hanging.

const (
	waitingThreads   = 10_000
	waitingProcesses = 4
	// endLimit is how long it may take until the last of them has returned.
	endLimit = 30 * time.Second
)

// crowd lets many threads of a few processes wait for a lock by flock.
func crowd(t testing.TB, m *Mount, name string) []*background {
	t.Helper()
	var all []*background
	for range waitingProcesses {
		each := fmt.Sprint(waitingThreads / waitingProcesses)
		all = append(all, startProgram(t, nil, program(t, "crowd"), each, m.Path(name)))
	}
	c := newClient(t)
	defer c.Kill()
	want := fmt.Sprintf("\nwaiting=%d\n", waitingThreads)
	eventually(t, stressLimit, func() bool {
		text, err := c.ReadAll(m.Path(name))
		return err == nil && strings.Contains(text, want)
	}, "everybody waits")
	return all
}

// outcomes waits until all have returned and counts with what.
func outcomes(t testing.TB, crowd []*background) map[string]int {
	t.Helper()
	start := time.Now()
	counts := map[string]int{}
	for _, p := range crowd {
		p.await(t, endLimit)
		for line := range strings.Lines(p.stdout.String()) {
			var n int
			var name string
			if _, err := fmt.Sscan(line, &n, &name); err != nil {
				t.Fatalf("crowd printed %q", line)
			}
			counts[name] += n
		}
	}
	t.Logf("%v after %v", counts, time.Since(start))
	return counts
}

// wantOutcome fails the test unless all waits had this outcome.
func wantOutcome(t testing.TB, crowd []*background, want string) {
	t.Helper()
	if got := outcomes(t, crowd); got[want] != waitingThreads {
		t.Errorf("outcomes of %d waits: %v, want all %s", waitingThreads, got, want)
	}
}

func TestEveryWaiterIsAnsweredWhenTheDaemonEnds(t *testing.T) {
	m := stressMount(t)
	holder := newClient(t)
	holder.Open(m.Path("lock"), takeFlags)
	waiters := crowd(t, m, "lock")
	m.Signal(syscall.SIGTERM)
	wantOutcome(t, waiters, "ENOLCK")
	if code := m.AwaitExit(t); code != 0 {
		t.Errorf("the daemon ended with %d, want 0", code)
	}
}

// The keeper must not die, but if it does, "the worker sees it, logs it, and
// the mount ends" (1.8).
func TestEveryWaiterFailsWhenTheKeeperIsKilled(t *testing.T) {
	m := stressMount(t)
	holder := newClient(t)
	holder.Open(m.Path("lock"), takeFlags)
	waiters := crowd(t, m, "lock")
	m.killed = true
	m.Signal(syscall.SIGKILL)
	if got := outcomes(t, waiters); got["ok"] > 0 {
		t.Errorf("%d waits ended with the lock held, on a mount that has ended", got["ok"])
	}
	eventually(t, leaveLimit, func() bool { return mountAt(m.Dir) == nil }, "the mount ends")
}

// A daemon that is gone cannot answer. The kernel does it.
func TestEveryWaiterFailsWhenTheDaemonIsKilled(t *testing.T) {
	m := stressMount(t)
	holder := newClient(t)
	fd := holder.Open(m.Path("lock"), takeFlags)
	waiters := crowd(t, m, "lock")
	m.Kill()
	if got := outcomes(t, waiters); got["ok"] > 0 {
		t.Errorf("%d waits ended with the lock held, on a mount that is dead", got["ok"])
	}
	wantErr(t, "the holder's lock call", holder.Flock(fd, unix.LOCK_EX), unix.ENOTCONN)
	_, err := newClient(t).TryOpen(m.Path("another"), takeFlags)
	wantErr(t, "open on a dead mount", err, unix.ENOTCONN)
}

// A mount that is taken away with umount -l goes on for those who have files
// open on it, and ends with the last of them; so does the daemon.
func TestADetachedMountServesThoseWhoAreOnIt(t *testing.T) {
	m := stressMount(t)
	holder := newClient(t)
	fd := holder.Open(m.Path("lock"), takeFlags)
	waiters := crowd(t, m, "lock")
	detach(m.Dir)
	select {
	case <-waiters[0].done:
		t.Fatalf("the waiters returned when the mount was detached: %s", waiters[0].stdout.String())
	case <-time.After(blockTime):
	}
	wantErr(t, "close", holder.Close(fd), nil)
	wantOutcome(t, waiters, "ok")
	if code := m.AwaitExit(t); code != 0 {
		t.Errorf("the daemon ended with %d, want 0", code)
	}
}

// A waiter that is killed with the daemon stopped dies all the same once the
// daemon goes on, or is killed.
func TestKilledWaitersOfAStoppedDaemonDie(t *testing.T) {
	for _, end := range []syscall.Signal{syscall.SIGCONT, syscall.SIGKILL} {
		t.Run(end.String(), func(t *testing.T) {
			m := mount(t)
			holder := newClient(t)
			holder.Open(m.Path("lock"), takeFlags)
			waiter := queueUp(t, m.Path("lock"), exclusively)
			m.SignalAll(syscall.SIGSTOP)
			waiter.Signal(syscall.SIGKILL)
			late := holder.StartOpen(m.Path("late"), takeFlags)
			late.MustBlock(t)
			if end == syscall.SIGKILL {
				m.Kill()
				wantErr(t, "a call to the stopped daemon", late.Wait(t), unix.ECONNABORTED)
			} else {
				m.SignalAll(end)
				wantErr(t, "a call to the stopped daemon", late.Wait(t), nil)
			}
			waiter.Kill()
		})
	}
}

// Who has been told that a name is his holds it after a clean stop and start too,
// however late he came.
func TestNoNameIsLostOverAStop(t *testing.T) {
	m := mount(t, "--policy", "hold=name,reap=none")
	for round := range 3 {
		prefix := fmt.Sprintf("round%d.", round)
		taker := command(nil, "/bin/bash", "-c", `cd "$1"; set -C; i=0; while : >"$2$i"; do i=$((i + 1)); done 2>/dev/null; echo $i`,
			"taker", m.Dir, prefix)
		var out bytes.Buffer
		taker.Stdout = &out
		if err := taker.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, answerLimit, func() bool { _, err := os.Stat(m.Path(prefix + "20")); return err == nil }, "names are taken")
		m.Restart(m.Quit)
		if err := taker.Wait(); err != nil {
			t.Fatal(err)
		}
		taken, err := strconv.Atoi(strings.TrimSpace(out.String()))
		if err != nil {
			t.Fatal(err)
		}
		for i := range taken {
			if _, err := os.Stat(m.Path(fmt.Sprint(prefix, i))); err != nil {
				t.Errorf("of %d names that were taken: %v", taken, err)
				break
			}
		}
	}
}
