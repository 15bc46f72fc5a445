package tests

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The table's size must not matter: what is held elsewhere costs nobody time.

// manyLocks is how many locks are held at once.
var manyLocks = stressed(100_000)

const (
	fewLocks = 10
	// perHoarder is how many locks one process holds. A process may be limited
	// to 20,000 open files, even root's.
	perHoarder = 2500
	// oneMore is how much longer taking a lock may take beside many locks than
	// beside few. It is the noise of two measurements, not a price.
	oneMore       = 1.5
	oneMoreRounds = 3000
	// memoryPerLock is the most memory that a held lock may cost the daemon, in
	// bytes, as long as there is no race detector in it.
	memoryPerLock = 4096
)

// hoard has processes take locks until so many are held, named "hoarded", the
// process's number, ".", the lock's number. Their number is a multiple of what
// one process holds, or less than that.
func hoard(t testing.TB, m *Mount, locks int) []*process {
	t.Helper()
	each := min(locks, perHoarder)
	var all []*process
	for i := range locks / each {
		p := startProcess(t, nil, program(t, "hoard"), fmt.Sprint(each), m.Path(fmt.Sprintf("hoarded%d.", i)))
		all = append(all, p)
	}
	for _, p := range all {
		select {
		case <-p.held:
		case <-time.After(stressLimit):
			t.Fatalf("%d locks were not taken within %v", locks, stressLimit)
		}
		p.Held(t)
	}
	return all
}

func hoardedNames(locks int) []string {
	names := make([]string, 0, locks)
	for i := range locks {
		names = append(names, fmt.Sprintf("hoarded%d.%d", i/perHoarder, i%perHoarder))
	}
	slices.Sort(names)
	return names
}

// daemonPids returns the processes of the daemon: the keeper and the worker.
func daemonPids(m *Mount) []int { return []int{m.Pid(), m.Worker()} }

// residentMemory returns how much memory the daemon has, in bytes: the sum of
// its processes, with what they share counted once (Pss, proc(5)).
func residentMemory(t testing.TB, m *Mount) int {
	t.Helper()
	sum := 0
	for _, pid := range daemonPids(m) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, after, _ := strings.Cut(string(text), "\nPss:")
		kb, _, _ := strings.Cut(strings.TrimSpace(after), " ")
		n, err := strconv.Atoi(kb)
		if err != nil {
			t.Fatalf("no Pss in %q", text)
		}
		sum += n << 10
	}
	return sum
}

// unmirrored mounts for more locks than there may be backing files open.
func unmirrored(t testing.TB) *Mount {
	t.Helper()
	return stressMount(t, "--backing", "none")
}

func TestAHundredThousandLocks(t *testing.T) {
	many, few := unmirrored(t), unmirrored(t)
	empty := residentMemory(t, many)
	start := time.Now()
	hoarders := hoard(t, many, manyLocks)
	t.Logf("%d processes took %d locks in %v", len(hoarders), manyLocks, time.Since(start))
	full := residentMemory(t, many)
	t.Logf("the daemon's memory is %d kB, with no lock %d kB: %d bytes a lock",
		full>>10, empty>>10, (full-empty)/manyLocks)
	if per := (full - empty) / manyLocks; per > memoryPerLock && !raceEnabled {
		t.Errorf("a held lock costs %d bytes, want at most %d", per, memoryPerLock)
	}
	if n := heldLocks(t, many); n != manyLocks {
		t.Errorf("statfs counts %d, want %d", n, manyLocks)
	}
	hoard(t, few, fewLocks)
	wantOneMoreIsAsCheap(t, few, many)
	wantAllListed(t, many)
	wantAllListedWhileOthersComeAndGo(t, many)
	killAll(t, hoarders)
	wantNothingHeld(t, many)
	wantMemoryReused(t, many, full)
}

// wantOneMoreIsAsCheap takes and gives back one more lock on both mounts by
// turns, all on one processor: what it takes to wake another one changes by the
// minute and is more than all the rest.
func wantOneMoreIsAsCheap(t testing.TB, few, many *Mount) {
	t.Helper()
	out := onOneCPU(t, append(daemonPids(few), daemonPids(many)...),
		program(t, "onemore"), "excl", fmt.Sprint(oneMoreRounds), few.Path("one"), many.Path("one"))
	var withFew, withMany int
	if _, err := fmt.Sscan(out, &withFew, &withMany); err != nil {
		t.Fatalf("onemore printed %q", out)
	}
	ratio := float64(withMany) / float64(withFew)
	t.Logf("taking one more lock and giving it back: %v with %d held, %v with %d held: %.2f times",
		time.Duration(withFew), fewLocks, time.Duration(withMany), manyLocks, ratio)
	if ratio > oneMore {
		t.Errorf("taking one more of many takes %.2f times as long, want at most %v", ratio, oneMore)
	}
}

// onOneCPU runs a program to its end on the same processor as other processes,
// and returns what it printed.
func onOneCPU(t testing.TB, others []int, argv ...string) string {
	t.Helper()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	one.Set(cpu)
	for _, pid := range others {
		setAffinity(t, pid, &one)
		defer setAffinity(t, pid, &all)
	}
	p := startProgram(t, nil, append([]string{"taskset", "-c", fmt.Sprint(cpu)}, argv...)...)
	p.await(t, stressLimit)
	if p.exit != 0 {
		t.Fatalf("%q ended with %d: %s", argv, p.exit, &p.stderr)
	}
	return p.stdout.String()
}

// setAffinity lets every thread of a process run on these processors only.
func setAffinity(t testing.TB, pid int, set *unix.CPUSet) {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Error(err)
	}
	for _, task := range tasks {
		tid, _ := strconv.Atoi(task.Name())
		if err := unix.SchedSetaffinity(tid, set); err != nil && err != unix.ESRCH {
			t.Error(err)
		}
	}
}

func wantAllListed(t testing.TB, m *Mount) {
	t.Helper()
	out, _ := sh(t, m, `ls -f | wc -l`)
	if want := fmt.Sprint(manyLocks+2, "\n"); out != want { // with . and ..
		t.Errorf("ls -f lists %q, want %q", out, want)
	}
	wantListedOnce(t, m)
}

// wantListedOnce lists the directory and looks for what is held all the time.
func wantListedOnce(t testing.TB, m *Mount) {
	t.Helper()
	out, _ := sh(t, m, `ls -f`)
	listed := slices.DeleteFunc(strings.Fields(out), func(name string) bool {
		return !strings.HasPrefix(name, "hoarded")
	})
	slices.Sort(listed)
	if want := hoardedNames(manyLocks); !slices.Equal(listed, want) {
		once := slices.Compact(slices.Clone(listed))
		t.Errorf("%d names listed, %d different ones, want %d, each once", len(listed), len(once), len(want))
	}
}

func wantAllListedWhileOthersComeAndGo(t testing.TB, m *Mount) {
	t.Helper()
	others := killHoarders(t, 1, 2000, m.Path("other"))
	again := startProgram(t, nil, program(t, "again"), "process", "100000000", m.Path("one"), m.Path("two"))
	deadline := time.Now().Add(stressLimit)
	for i := 0; i < 5*stressFactor(t) || others.Killed() < 2; i++ {
		wantListedOnce(t, m)
		if time.Now().After(deadline) {
			t.Errorf("only %d processes came and went in %v", others.Killed(), stressLimit)
			break
		}
	}
	again.kill()
	again.await(t, answerLimit)
	others.Stop(t)
}

func killAll(t testing.TB, processes []*process) {
	t.Helper()
	for _, p := range processes {
		p.Signal(9)
	}
	for _, p := range processes {
		p.awaitExit(t)
	}
}

// wantMemoryReused takes half as many locks once more. What the first ones left
// behind, if anything, would add to them: full is the memory with those held.
func wantMemoryReused(t testing.TB, m *Mount, full int) {
	t.Helper()
	hoarders := hoard(t, m, manyLocks/2)
	second := residentMemory(t, m)
	killAll(t, hoarders)
	wantNothingHeld(t, m)
	t.Logf("the daemon's memory is %d kB with %d locks held after that", second>>10, manyLocks/2)
	if second > full*13/10 && !raceEnabled {
		t.Errorf("%d kB for the first %d locks, %d kB for another %d: memory leaks", full>>10, manyLocks, second>>10, manyLocks/2)
	}
}
