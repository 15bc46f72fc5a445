//go:build hammer

package tests

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// 1.8: "Killing its worker with SIGKILL at any instruction loses no hold, no
// queue place and no open file, and no client sees an error."

// hammer kills the worker of a mount at random until it is stopped.
type hammer struct {
	stop  chan struct{}
	wait  sync.WaitGroup
	kills int
}

// startHammer begins to kill m's workers, at most pause apart.
func startHammer(t testing.TB, m *Mount, pause time.Duration) *hammer {
	t.Helper()
	h := &hammer{stop: make(chan struct{})}
	h.wait.Go(func() {
		last := 0
		for {
			select {
			case <-h.stop:
				return
			case <-time.After(rand.N(pause)):
			}
			if pid := m.Worker(); pid != 0 && pid != last {
				if syscall.Kill(pid, syscall.SIGKILL) == nil {
					h.kills++
					last = pid
				}
			}
		}
	})
	t.Cleanup(h.Stop)
	return h
}

// Stop ends the killing.
func (h *hammer) Stop() {
	select {
	case <-h.stop:
	default:
		close(h.stop)
	}
	h.wait.Wait()
}

// hammerTime is how long the workers are killed, in CI.
const hammerTime = time.Minute

// Histories of processes that lock at random are as they would be had nobody
// died: judged call by call.
func TestHistoriesWithWorkersKilledAreLinearizable(t *testing.T) {
	m := stressMount(t)
	h := startHammer(t, m, 60*time.Millisecond)
	calls, n := 0, 0
	t.Logf("worker %d of keeper %d", m.Worker(), m.Pid())
	for end := time.Now().Add(stressTime(t, hammerTime)); time.Now().Before(end); n++ {
		processes, names := 3+n%3, 1+n/2%2
		out := output(t, nil, "history", m.Dir, fmt.Sprint(processes), fmt.Sprint(names), fmt.Sprint(historyCalls), fmt.Sprint(n))
		var records []call
		for line := range strings.Lines(out) {
			records = append(records, parseCall(t, line))
		}
		calls += len(records)
		if !judge(t, records) {
			t.Fatalf("the history of seed %d, with workers killed, is not linearizable", n)
		}
	}
	h.Stop()
	wantNothingHeld(t, m)
	t.Logf("%d workers killed during %d calls in %d histories", h.kills, calls, n)
	if want := int(stressTime(t, hammerTime) / (600 * time.Millisecond)); h.kills < want {
		t.Errorf("%d workers were killed, want %d at least", h.kills, want)
	}
}
