package tests

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// 1.8: "Killing its worker with SIGKILL at any instruction loses no hold, no
// queue place and no open file, and no client sees an error: calls in flight
// are answered by the next worker."
//
// What a worker leaves behind differs only where it has stored something or
// made a system call. A build with the tag crashpoints names these steps and
// dies at them as planned: so every step is met with every kind of request.

// kindsPerMount is how many kinds of requests share a mount.
const kindsPerMount = 6

func TestEveryStepOfEveryRequest(t *testing.T) {
	start := time.Now()
	var cases, deaths atomic.Int64
	t.Run("mounts", func(t *testing.T) {
		for from := 0; from < len(kinds); from += kindsPerMount {
			to := min(from+kindsPerMount, len(kinds))
			t.Run(fmt.Sprintf("%d to %d", from, to-1), func(t *testing.T) {
				t.Parallel()
				m, p := crashMount(t)
				m.Deadline(time.Duration(stressFactor(t)) * 5 * time.Minute)
				for i := from; i < to; i++ {
					t.Run(kinds[i].name, func(t *testing.T) {
						n, d := everyStep(t, m, p, &kinds[i], i)
						cases.Add(int64(n))
						deaths.Add(int64(d))
					})
				}
			})
		}
	})
	t.Logf("%d kinds of requests, %d cases, %d deaths in %v", len(kinds), cases.Load(), deaths.Load(), time.Since(start))
}

// everyStep plays all the cases of a kind of request, and returns how many
// there were, and how many workers died.
func everyStep(t *testing.T, m *Mount, p *crashPlan, k *kind, number int) (cases, deaths int) {
	t.Helper()
	s := newScene(t, m, p)
	begin := func() {
		cases++
		s.name = fmt.Sprintf("lock%d.%d", number, cases)
		s.path = m.Path(s.name)
	}
	for _, plan := range k.plans(k.opcode, number, stressFactor(t) > 1) {
		begin()
		s.run(k, plan, true)
		deaths += p.met()
		if t.Failed() {
			return cases, deaths
		}
	}
	for _, d := range k.unreachable(k.opcode) {
		begin()
		s.run(k, []death{d}, false)
	}
	return cases, deaths
}
