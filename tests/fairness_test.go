package tests

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.5: "Waiters are served first come, first served. ... Nobody starves."

const (
	contenders = 256
	// unfairness is how much more often the busiest contender may get in than
	// the rarest.
	unfairness = 1.2
)

// handoff is what yardstick/handoff.c measured: processes that flock one file
// in a loop.
type handoff struct {
	perSecond                   float64
	rarest, busiest, collisions int
}

func (h handoff) String() string {
	return fmt.Sprintf("%.0f hand-overs/s, each process between %d and %d times", h.perSecond, h.rarest, h.busiest)
}

func handOff(t testing.TB, binary, path string, d time.Duration) handoff {
	t.Helper()
	p := startProgram(t, nil, binary, path, fmt.Sprint(contenders), fmt.Sprint(d.Seconds()))
	p.await(t, d+stressLimit)
	var h handoff
	if _, err := fmt.Sscan(p.stdout.String(), &h.perSecond, &h.rarest, &h.busiest, &h.collisions); err != nil || p.exit > 1 {
		t.Fatalf("handoff ended with %d: %q %s", p.exit, p.stdout.String(), p.stderr.String())
	}
	return h
}

func TestManyContendersGetInEquallyOften(t *testing.T) {
	binary := filepath.Join(workDir, "handoff")
	m := stressMount(t)
	if err := runQuietly("gcc", "-std=gnu11", "-O2", "-o", binary, "yardstick/handoff.c"); err != nil {
		t.Fatal(err)
	}
	h := handOff(t, binary, m.Path("lock"), stressTime(t, 4*time.Second))
	if h.collisions > 0 {
		t.Errorf("%d times two were inside together", h.collisions)
	}
	// First come, first served, some are in once more than others when the time is over,
	// which is much of the little that they can do on a slow machine.
	if float64(h.busiest) > unfairness*float64(h.rarest) && h.busiest > h.rarest+2 {
		t.Errorf("%v: more than %v times as often", h, unfairness)
	}
	t.Logf("lockfs: %v", h)
	t.Logf("tmpfs: %v", handOff(t, binary, filepath.Join(tmpfs(t), "lock"), time.Second))
}

// tmpfs returns a directory on a fresh tmpfs.
func tmpfs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Fatalf("mounting a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmounting a tmpfs: %v", err)
		}
	})
	return dir
}

// atOnce is how long it may take from a holder's death to the next one's
// lock call returning, in the median. Two switches of process and two of the
// daemon take less than a millisecond on an idle machine.
const atOnce = 50 * time.Millisecond

// heirs has clients/heirs.c kill holders with waiters in the queue, checks the
// order of the waiters, and returns how long the first one took each time, and
// how many signals there were.
func heirs(t testing.TB, kind, path string, waiters, rounds int, weather string) (first []time.Duration, signals int) {
	t.Helper()
	out := output(t, nil, "heirs", kind, path, fmt.Sprint(waiters), fmt.Sprint(rounds), weather)
	want := make([]string, waiters)
	for i := range want {
		want[i] = fmt.Sprint(i)
	}
	for line := range strings.Lines(out) {
		head, order, ok := strings.Cut(strings.TrimSpace(line), " order ")
		var micros, n int
		if _, err := fmt.Sscanf(head, "first %d signals %d", &micros, &n); err != nil || !ok {
			t.Fatalf("heirs printed %q: %v", line, err)
		}
		if got := strings.Fields(order); !slices.Equal(got, want) {
			t.Errorf("the waiters got the lock in the order %v", got)
		}
		first = append(first, time.Duration(micros)*time.Microsecond)
		signals += n
	}
	if len(first) != rounds {
		t.Errorf("heirs printed %d rounds, want %d", len(first), rounds)
	}
	slices.Sort(first)
	return first, signals
}

// wholeLockKinds are the ways to hold a lock in clients/heirs.c. Who waits for
// a lock by excl waits by flock.
var wholeLockKinds = []string{"excl", "flock", "posix", "ofd"}

func TestKilledHoldersLockGoesToTheFirstWaiterAtOnce(t *testing.T) {
	m := stressMount(t)
	for _, kind := range wholeLockKinds {
		t.Run(kind, func(t *testing.T) {
			first, _ := heirs(t, kind, m.Path("lock"), 16, 10*stressFactor(t), "calm")
			median := first[len(first)/2]
			t.Logf("the first waiter had the lock %v after the kill, %v at worst", median, first[len(first)-1])
			if median > atOnce {
				t.Errorf("the first waiter had the lock %v after the kill, want at most %v", median, atOnce)
			}
		})
	}
}

// A signal whose handler has SA_RESTART, and a stop, interrupt the call; the
// kernel sends it again, and it keeps its place.
func TestWaitersKeepTheirPlacesInAStormOfSignals(t *testing.T) {
	m := stressMount(t)
	for _, kind := range wholeLockKinds {
		t.Run(kind, func(t *testing.T) {
			_, signals := heirs(t, kind, m.Path("lock"), 8, 3*stressFactor(t), "storm")
			t.Logf("%d signals handled", signals)
			if signals == 0 {
				t.Error("no waiter got a signal")
			}
		})
	}
}

// A storm of signals leaves nothing behind: no hold, no place in the queue.
func TestAStormOfSignalsLeavesNothing(t *testing.T) {
	m := stressMount(t)
	heirs(t, "flock", m.Path("lock"), 64, 1, "storm")
	wantNothingHeld(t, m)
	c := newClient(t)
	fd, err := c.TryOpen(m.Path("lock"), takeFlags)
	wantErr(t, "taking it after the storm", err, nil)
	wantErr(t, "closing it", c.Close(fd), nil)
}
