package tests

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/lockfs/lockfs/tests/openmetrics"
)

// 1.7: whoever looks on does not keep others from their locks.

// Who looks on: so many processes read the stream of events, and as many the list of
// locks, once in a while as a person or a monitoring system does.
const (
	onlookers    = 100
	onlookEvery  = "2" // seconds
	onlookRounds = 5
	onlookTime   = 2 * time.Second
)

// TestOnlookersCostLittle compares the rate at which locks are taken with onlookers
// with that without. All of them and the daemon share the processors, which it does not
// leave out: so what others want of these counts too, and there are three tries.
func TestOnlookersCostLittle(t *testing.T) {
	m := mount(t)
	m.Deadline(stressLimit)
	startProgram(t, nil, program(t, "again"), "process", "1000000000", m.Path("one"))
	var middle float64
	for range 3 {
		// On a machine that does something else too there is no more to be said.
		if middle = rateWithOnlookers(t, m); middle >= 0.5 {
			return
		}
	}
	t.Errorf("with onlookers locks are taken at %.2f of the rate without", middle)
}

// rateWithOnlookers returns the rate with them in that without, by the median of pairs,
// one after the other.
func rateWithOnlookers(t *testing.T, m *Mount) float64 {
	t.Helper()
	var ratios []float64
	for range onlookRounds {
		alone := grantsIn(t, m, onlookTime)
		var all []*background
		for i := range onlookers {
			// Not all at the same moment.
			pause := fmt.Sprintf("sleep 0.%02d; while cat %s >/dev/null; do sleep %s; done", i, m.Path(".lockfs/locks"), onlookEvery)
			all = append(all, startProgram(t, nil, "cat", m.Path(".lockfs/events")), startProgram(t, nil, "sh", "-c", pause))
		}
		time.Sleep(time.Second) // they have started
		ratios = append(ratios, grantsIn(t, m, onlookTime)/alone)
		for _, p := range all {
			p.kill()
			<-p.done
		}
	}
	slices.Sort(ratios)
	middle := ratios[len(ratios)/2]
	t.Logf("%d readers of events and %d of locks: %.2f of the rate without (%.2f)", onlookers, onlookers, middle, ratios)
	return middle
}

// grantsIn returns how many locks are taken on a mount in a time.
func grantsIn(t testing.TB, m *Mount, d time.Duration) float64 {
	t.Helper()
	grants := func() float64 {
		out, err := exec.Command("cat", m.Path(".lockfs/metrics")).Output()
		if err != nil {
			t.Fatal(err)
		}
		samples, err := openmetrics.Parse(string(out))
		if err != nil {
			t.Fatal(err)
		}
		return samples[`lockfs_grants_total{via="excl"}`]
	}
	before, began := grants(), time.Now()
	time.Sleep(d)
	after := grants()
	return (after - before) / time.Since(began).Seconds()
}
