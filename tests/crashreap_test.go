package tests

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Workers that die at every step of what nobody asked for: a hold by name is
// reaped, a lease runs out, a grace ends. Somebody waits for each, and gets the
// lock from the next worker if not from this one.

// deathLease is how long a lease is, and a grace.
const deathLease = 800 * time.Millisecond

// ends are the ways in which time or a death lets a waiter in.
var ends = []struct {
	name, policy string
	// take takes the lock, and returns what lets go of it; nil: time does.
	take func(t *testing.T, m *Mount, path string) (letGo func())
}{
	{"a process dies", "lease=0,grace=0", func(t *testing.T, m *Mount, path string) func() {
		p := startProcess(t, nil, "/bin/bash", "-c", `set -C; echo $$ >"$0"; echo held; read x`, path)
		p.Held(t)
		return func() {
			p.Signal(syscall.SIGKILL)
			p.awaitExit(t)
		}
	}},
	{"an owner's process dies", "lease=0,grace=0", ownersProcessDies},
	{"a lease runs out", fmt.Sprintf("lease=%v,grace=0", deathLease), func(t *testing.T, m *Mount, path string) func() {
		c := newClient(t)
		wantErr(t, "close", c.Close(c.Open(path, takeFlags)), nil)
		return nil
	}},
	{"a grace ends", fmt.Sprintf("lease=0,grace=%v", deathLease), func(t *testing.T, m *Mount, path string) func() {
		alice, root := newClient(t, asAlice()), newClient(t)
		wantErr(t, "close", alice.Close(alice.Open(path, takeFlags)), nil)
		wantErr(t, "root's unlink", root.Unlink(path), nil)
		return nil
	}},
}

func TestEveryStepOfWhatNobodyAskedFor(t *testing.T) {
	for _, e := range ends {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			m, plan := crashMount(t, "--policy", "hold=name,"+e.policy)
			m.Deadline(3 * time.Minute)
			waiter, next := newClient(t), newClient(t)
			at := func(step string) death { return death{step: step} }
			var plans [][]death
			for _, step := range []string{"begun", "entry", "decided", "written", "committed", "entry applied", "applied", "recorded", "answered"} {
				plans = append(plans, []death{at(step)}, []death{at(step), at("opened"), at("resumed"), at("taken over")})
			}
			for i, deaths := range plans {
				path := m.Path(fmt.Sprintf("lock%d", i))
				letGo := e.take(t, m, path)
				fd := waiter.Open(path, unix.O_RDWR|unix.O_CREAT)
				wait := waiter.StartFlock(fd, unix.LOCK_EX)
				wait.MustBlock(t)
				armed := time.Now()
				plan.arm(deaths...)
				if letGo != nil {
					letGo()
				}
				wantErr(t, fmt.Sprint("the waiter, with deaths at ", deaths), wait.Wait(t), nil)
				if !plan.await(len(deaths)) {
					t.Fatalf("of the deaths at %v, %d came about", deaths, plan.met())
				}
				plan.disarm()
				leased := e.name == "a lease runs out"
				// He has it from the death on, or later; all the deaths can take as long as a lease.
				if _, err := next.TryOpen(path, takeFlags); !leased || time.Since(armed) < deathLease {
					wantErr(t, "taking what the waiter has", err, unix.EEXIST)
				}
				if leased {
					eventually(t, answerLimit, func() bool {
						_, err := next.TryOpen(path, takeFlags)
						return err == nil
					}, "the waiter's lease has run out too")
					wantErr(t, "the waiter's write", waiter.Write(fd, "late"), unix.ESTALE)
				}
				wantErr(t, "close", waiter.Close(fd), nil)
			}
		})
	}
}
