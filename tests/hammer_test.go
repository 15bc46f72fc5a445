package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// 1.8: "Killing its worker with SIGKILL at any instruction loses no hold, no
// queue place and no open file, and no client sees an error: calls in flight
// are answered by the next worker."

// hammerTime is how long the workers are killed, in CI. For five minutes, and
// more than a thousand of them:
//
//	LOCKFS_TEST_LONG=5 go test -count=1 -v -run WorkersAreKilled ./tests
//
// With the race detector, which looks for something else, a worker takes ten
// times as long to start.
func hammerTime(t testing.TB) time.Duration {
	t.Helper()
	if raceEnabled {
		return stressTime(t, 20*time.Second)
	}
	return stressTime(t, time.Minute)
}

// oneKillIn is how often workers must be killed at least: 200 times in a minute.
func oneKillIn() time.Duration {
	if raceEnabled {
		return 2 * time.Second
	}
	return 300 * time.Millisecond
}

// Who is on the mount while its workers are killed: some forty processes, never
// less than 32 for long.
const (
	// Groups of processes that make random calls, judged one by one.
	hammerHistories        = 6
	hammerHistoryProcesses = 4
	// Processes that check for themselves, see clients/hammer.c; one of them
	// holds so many locks from the beginning to the end.
	hammerProcesses = 12
	hammerHeld      = 200
	// A queue whose order is checked, see clients/heirs.c.
	hammerHeirs = 6
	// Processes that live by the policies of lockspaces, see clients/policies.c.
	hammerPolicies = 8
	// Processes that hold by name, see clients/byname.c.
	hammerByName = 4
)

// TestNobodyNoticesThatWorkersAreKilled is the hammer: processes use every way
// to lock and to look that there is, all at the same time, and see what they
// would had nobody died; and nothing is left behind.
func TestNobodyNoticesThatWorkersAreKilled(t *testing.T) {
	limit := hammerTime(t)
	m := mount(t)
	m.Deadline(limit + 2*time.Minute)
	wantNothingHeld(t, m) // and the daemon has done everything once
	before := m.descriptors()

	h := startHammer(t, m)
	c := startCrew(t, limit)
	c.once(program(t, "hammer"), m.Path("hammer"), fmt.Sprint(hammerProcesses), fmt.Sprint(hammerHeld), fmt.Sprint(limit.Seconds()))
	c.once(program(t, "policies"), m.Path("policies"), fmt.Sprint(hammerPolicies), fmt.Sprint(limit.Seconds()))
	c.once(program(t, "byname"), m.Path("byname"), fmt.Sprint(hammerByName), fmt.Sprint(limit.Seconds()))
	for group := range hammerHistories {
		path := m.Path(fmt.Sprintf("history%d.", group))
		c.again(program(t, "history"), func(n int) []string {
			seed := rand.N(1 << 20)
			return []string{path, fmt.Sprint(hammerHistoryProcesses), fmt.Sprint(1 + n%2), fmt.Sprint(historyCalls), fmt.Sprint(seed)}
		})
	}
	c.again(program(t, "heirs"), func(n int) []string {
		kind := wholeLockKinds[n%len(wholeLockKinds)]
		return []string{kind, m.Path("heirs"), fmt.Sprint(hammerHeirs), "1", "calm"}
	})
	calls, histories, queues := 0, 0, 0
	for r := range c.Runs() {
		if r.err != nil {
			t.Fatalf("%q, with workers killed: %v\n%s", r.argv, r.err, r.stderr)
		}
		switch filepath.Base(r.argv[0]) {
		case "hammer", "policies", "byname":
			t.Logf("%s", strings.TrimSpace(r.stdout))
			wantBusy(t, r.stdout)
		case "history":
			calls += wantLinearizable(t, r)
			histories++
		case "heirs":
			wantInOrder(t, r)
			queues++
		}
	}
	h.Stop()
	t.Logf("%d workers killed, %d of them before they served, during %d calls in %d histories and %d queues",
		h.kills, h.early, calls, histories, queues)
	if want := int(limit / oneKillIn()); h.kills < want || h.early < want/20 {
		t.Errorf("%d workers were killed, %d before they served: want %d and %d at least", h.kills, h.early, want, want/20)
	}
	eventually(t, answerLimit, func() bool {
		_, dead := m.stderr.lastServing()
		return dead >= h.kills
	}, "the keeper has seen every death")
	if _, dead := m.stderr.lastServing(); dead != h.kills {
		t.Errorf("%d workers died, and only %d were killed", dead, h.kills)
	}
	wantNothingLeft(t, m, before)
}

// wantBusy fails the test unless all has come up that clients/hammer.c,
// clients/policies.c or clients/byname.c counts.
func wantBusy(t testing.TB, out string) {
	t.Helper()
	f := strings.Fields(out)
	if len(f) < 16 || len(f)%2 != 0 {
		t.Fatalf("the hammer printed %q", out)
	}
	for i := 0; i < len(f); i += 2 {
		if f[i+1] == "0" && f[i] != "waited" && f[i] != "overtaken" && !(f[i] == "told" && raceEnabled) {
			t.Errorf("the hammer was too tame: %s", out)
		}
	}
}

// wantLinearizable fails the test unless a history could have happened one call
// after the other; it returns how many calls there are.
func wantLinearizable(t testing.TB, r crewRun) (calls int) {
	t.Helper()
	var records []call
	for line := range strings.Lines(r.stdout) {
		records = append(records, parseCall(t, line))
	}
	if !judge(t, records) {
		t.Fatalf("with workers killed, the history of %q is not linearizable", r.argv)
	}
	return len(records)
}

// wantInOrder fails the test unless waiters got the lock in the order in which
// they had come.
func wantInOrder(t testing.TB, r crewRun) {
	t.Helper()
	_, order, _ := strings.Cut(strings.TrimSpace(r.stdout), " order ")
	var want []string
	for i := range hammerHeirs {
		want = append(want, fmt.Sprint(i))
	}
	if order != strings.Join(want, " ") {
		t.Fatalf("%q: the waiters got the lock in the order %q", r.argv, order)
	}
}

// wantNothingLeft ends a mount that nobody uses any more and fails the test if
// there is anything in it that was not there at first; descriptors are those
// that the daemon had then.
func wantNothingLeft(t testing.TB, m *Mount, descriptors string) {
	t.Helper()
	wantNothingHeld(t, m)
	now := m.descriptors()
	for end := time.Now().Add(answerLimit); now != descriptors && time.Now().Before(end); now = m.descriptors() {
		time.Sleep(10 * time.Millisecond)
	}
	if now != descriptors {
		t.Errorf("keeper and worker had the descriptors\n%sand have\n%s", descriptors, now)
	}
	// The kernel gives its references to nodes back when it forgets the names.
	if out, err := command(nil, "sh", "-c", "echo 2 >/proc/sys/vm/drop_caches").CombinedOutput(); err != nil {
		t.Fatalf("dropping the kernel's caches: %v: %s", err, out)
	}
	wantNothingHeld(t, m)
	time.Sleep(forgetTime)
	m.Stop()
	// What is left is the root. The records are the root's node and file, the
	// connection's first request, the tokens, the highest number of a node, of an
	// open file and of an entry, how many workers there were, and what marks the names
	// that the mount makes outside.
	want := "nodes=1 files=0 holds=0 waits=0 records=9 away=0"
	_, after, ok := strings.Cut(m.Stderr(), "msg=stopping ")
	if got, _, _ := strings.Cut(after, "\n"); !ok || got != want {
		t.Errorf("at the end there are %q, want %q", got, want)
	}
	if strings.Contains(m.Stderr(), "level=ERROR") {
		t.Errorf("the daemon reported errors")
	}
}

// forgetTime is how long the kernel may take to tell what it has forgotten.
const forgetTime = 500 * time.Millisecond

// maxCached is how many backing files a worker keeps open that hold nothing.
const maxCached = 512

// descriptors lists what keeper and worker have open, but for backing files that may
// be in the cache.
func (m *Mount) descriptors() string {
	var b strings.Builder
	for _, pid := range daemonPids(m) {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		entries, _ := os.ReadDir(dir)
		kinds := map[string]int{}
		cached := 0
		for _, e := range entries {
			link, _ := os.Readlink(dir + "/" + e.Name())
			if strings.HasPrefix(link, m.Dir+"/") && cached < maxCached {
				cached++
				continue
			}
			kind, _, _ := strings.Cut(link, "[") // socket:[12345]
			kinds[kind]++
		}
		fmt.Fprintf(&b, "%d: %v\n", len(entries)-cached, kinds)
	}
	return b.String()
}

// hammer kills the workers of a mount until it is stopped.
type hammer struct {
	m    *Mount
	stop chan struct{}
	wait sync.WaitGroup
	// kills are all, early those before the worker served.
	kills, early int
}

// hammerPause is how long a worker lives at most, and startTime how long those
// do of which it is said that they are killed while they start. The race
// detector makes both longer.
const (
	hammerPause = 200 * time.Millisecond
	startTime   = 15 * time.Millisecond
	raceFactor  = 4
)

// startHammer begins to kill m's workers, one in four as soon as it has
// started.
func startHammer(t testing.TB, m *Mount) *hammer {
	t.Helper()
	h := &hammer{m: m, stop: make(chan struct{})}
	h.wait.Go(h.run)
	t.Cleanup(h.Stop)
	return h
}

func (h *hammer) run() {
	pause, start := hammerPause, startTime
	if raceEnabled {
		pause, start = raceFactor*pause, raceFactor*start
	}
	for last := 0; ; {
		life := pause
		if rand.N(4) == 0 {
			life = start
		}
		pid := h.m.Worker()
		for ; pid == 0 || pid == last; pid = h.m.Worker() {
			if !h.sleep(100 * time.Microsecond) {
				return
			}
		}
		if !h.sleep(rand.N(life)) {
			return
		}
		serving, _ := h.m.stderr.lastServing()
		if syscall.Kill(pid, syscall.SIGKILL) != nil {
			return // it died by itself, which shows in the end
		}
		h.kills++
		if serving != pid {
			h.early++
		}
		last = pid
	}
}

// sleep returns false when the hammer is to stop.
func (h *hammer) sleep(d time.Duration) bool {
	select {
	case <-h.stop:
		return false
	case <-time.After(d):
		return true
	}
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
