package tests

import (
	"fmt"
	"testing"
)

// 1.4, order: "A process that closes a lock and opens it again must get it:
// its release takes effect first."

// again is what the program clients/again.c counted.
type again struct{ taken, refused, together, wrong int }

func parseAgain(t testing.TB, text string) again {
	t.Helper()
	var a again
	_, err := fmt.Sscanf(text, "taken %d refused %d together %d wrong %d", &a.taken, &a.refused, &a.together, &a.wrong)
	if err != nil {
		t.Fatalf("again printed %q: %v", text, err)
	}
	return a
}

// takeAgain has a process or a thread for each path take it so often.
func takeAgain(t testing.TB, by string, rounds int, paths ...string) again {
	t.Helper()
	args := append([]string{by, fmt.Sprint(rounds)}, paths...)
	a := parseAgain(t, output(t, nil, "again", args...))
	if want := rounds * len(paths); a.taken != want {
		t.Errorf("taken %d times, want %d", a.taken, want)
	}
	if a.together > 0 {
		t.Errorf("%d times two were inside together", a.together)
	}
	if a.wrong > 0 {
		t.Errorf("%d times the record named another process than the one inside", a.wrong)
	}
	return a
}

// wantNeverRefused is takeAgain for names on which nobody else is.
func wantNeverRefused(t testing.TB, by string, rounds int, paths ...string) {
	t.Helper()
	if a := takeAgain(t, by, rounds, paths...); a.refused > 0 {
		t.Errorf("%d false EEXIST in %d rounds", a.refused, a.taken+a.refused)
	}
}

// closeAndTakeAgain is how often each process takes its lock.
var closeAndTakeAgain = stressed(20_000)

func fourNames(m *Mount) []string {
	return []string{m.Path("one"), m.Path("two"), m.Path("three"), m.Path("four")}
}

func TestCloseAndTakeAgainIsNeverRefused(t *testing.T) {
	m := stressMount(t)
	wantNeverRefused(t, "process", closeAndTakeAgain, fourNames(m)...)
}

func TestCloseAndTakeAgainByThreads(t *testing.T) {
	m := stressMount(t)
	wantNeverRefused(t, "thread", closeAndTakeAgain/20, fourNames(m)...)
}

// A process that dies gives back thousands of locks in one go: its releases
// must not hold up those of others.
func TestCloseAndTakeAgainBesideDyingHolders(t *testing.T) {
	m := stressMount(t)
	dying := killHoarders(t, 1, 5000, m.Path("hoard"))
	wantNeverRefused(t, "process", closeAndTakeAgain, fourNames(m)...)
	killed := dying.Stop(t)
	t.Logf("%d processes with 5,000 locks each were killed meanwhile", killed)
	if killed < 2 {
		t.Errorf("only %d processes were killed meanwhile, want 2 at least", killed)
	}
	wantNothingHeld(t, m)
}

// Contenders for one name: together they get in as often, refused or not in
// between, and there is never a second one inside.
func TestContendersForOneNameAreInsideAlone(t *testing.T) {
	m := stressMount(t)
	one := m.Path("lock")
	for _, by := range []string{"process", "thread"} {
		t.Run(by, func(t *testing.T) {
			rounds := closeAndTakeAgain / 4
			if by == "thread" {
				rounds /= 10
			}
			a := takeAgain(t, by, rounds, one, one, one, one)
			t.Logf("taken %d times, refused %d times", a.taken, a.refused)
		})
	}
	wantNothingHeld(t, m)
}
