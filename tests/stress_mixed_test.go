package tests

import (
	"fmt"
	"testing"
	"time"
)

// 1.5: "A cycle of POSIX fcntl waits fails with EDEADLK." However the waits of
// a cycle come in, one of them fails, and only one.
func TestEveryDeadlockIsFoundOnce(t *testing.T) {
	m := stressMount(t)
	for _, processes := range []int{2, 3, 8} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			want := 600 / processes * stressFactor(t)
			out := output(t, nil, "ring", fmt.Sprint(processes), fmt.Sprint(want), m.Path("lock"))
			var rounds, refused, stuck int
			if _, err := fmt.Sscanf(out, "rounds %d refused %d stuck %d", &rounds, &refused, &stuck); err != nil {
				t.Fatalf("ring printed %q", out)
			}
			if rounds != want || refused != rounds || stuck != 0 {
				t.Errorf("%s, want each round to end with one EDEADLK", out)
			}
		})
	}
	wantNothingHeld(t, m)
}

// 1.2: "Whatever call takes a lock, it excludes every other call that would",
// and 1.8: "A holder that dies gives back what it held at once", also one that
// dies while it is getting it.
func TestDeathLeavesNobodyInsideTogether(t *testing.T) {
	m := stressMount(t)
	seconds := stressTime(t, 3*time.Second).Seconds()
	for _, processes := range []int{4, 32} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			p := startProgram(t, nil, program(t, "mortal"), m.Path("lock"), fmt.Sprint(processes), fmt.Sprint(seconds))
			p.await(t, stressTime(t, time.Minute))
			out := p.stdout.String()
			var entries, killed, together int
			if _, err := fmt.Sscanf(out, "entries %d killed %d together %d", &entries, &killed, &together); err != nil {
				t.Fatalf("mortal ended with %d: %s%s", p.exit, out, &p.stderr)
			}
			t.Logf("inside %d times, %d processes killed", entries, killed)
			if together > 0 {
				t.Errorf("%d times two were inside together", together)
			}
			if entries < 100 || killed < 20 {
				t.Errorf("inside %d times, %d processes killed: too few to mean anything", entries, killed)
			}
			wantNothingHeld(t, m)
		})
	}
}
