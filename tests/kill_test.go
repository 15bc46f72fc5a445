package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Workers that are killed from outside, at any moment: crashpoints_test.go has
// every step, hammer_test.go hours of it; here are the circumstances.

// killer kills a mount's workers at random until it is stopped.
type killer struct {
	stop  chan struct{}
	once  sync.Once
	wait  sync.WaitGroup
	kills int
}

// startKiller begins to kill m's workers, less than two pauses apart: on a machine where
// none comes to serve in that time, more, so that some do.
func startKiller(t testing.TB, m *Mount, pause time.Duration) *killer {
	t.Helper()
	k := &killer{stop: make(chan struct{})}
	k.wait.Go(func() {
		last, now := 0, pause
		for {
			select {
			case <-k.stop:
				return
			case <-time.After(rand.N(2 * now)):
			}
			pid := m.Worker()
			serving, _ := m.stderr.lastServing()
			if pid != 0 && pid != last && syscall.Kill(pid, syscall.SIGKILL) == nil {
				k.kills++
				last = pid
				if now += now / 4; pid == serving {
					now = pause
				}
			}
		}
	})
	t.Cleanup(func() { k.Stop() })
	return k
}

// Stop ends the killing and returns how many workers were killed.
func (k *killer) Stop() int {
	k.once.Do(func() { close(k.stop) })
	k.wait.Wait()
	return k.kills
}

// A worker that hangs holds up all calls; when it is killed, they are answered.
func TestAWorkerThatHangsAndIsKilled(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder, other := newClient(t), newClient(t)
	fd := holder.Open(path, takeFlags)
	waiter := queueUp(t, path, exclusively)
	second := queueUp(t, path, byPOSIX)
	ofd := other.Open(path, unix.O_RDWR)

	worker := m.Worker()
	if worker == 0 {
		t.Fatal("there is no worker")
	}
	syscall.Kill(worker, syscall.SIGSTOP)
	taken := other.StartOpen(m.Path("another"), takeFlags)
	read := other.start(request{Op: "read", FD: ofd, N: 4096})
	refused := other.StartFlock(ofd, unix.LOCK_EX|unix.LOCK_NB)
	time.Sleep(2 * time.Second)
	for what, p := range map[string]*Pending{"take": taken, "read": read, "flock": refused} {
		if p.Done() {
			t.Errorf("%s returned (%v) while the worker was stopped", what, p.err)
		}
	}
	syscall.Kill(worker, syscall.SIGKILL)
	wantErr(t, "take", taken.Wait(t), nil)
	wantErr(t, "read", read.Wait(t), nil)
	if r := parseRecords(t, string(read.answer.Data)); r[0]["pid"] != strconv.Itoa(holder.Pid()) || r[0]["waiting"] != "2" {
		t.Errorf("the record says %v, want process %d and two who wait", r[0], holder.Pid())
	}
	wantErr(t, "flock of what is held", refused.Wait(t), unix.EWOULDBLOCK)
	wantListed(t, other, m, "another", "lock")
	wantErr(t, "close", holder.Close(fd), nil)
	wantErr(t, "the waiter", waiter.wait.Wait(t), nil)
	second.wait.MustBlock(t)
	waiter.Kill()
	wantErr(t, "the second waiter", second.wait.Wait(t), nil)
}

// lineProcesses are the processes of those who wait in line.
const lineProcesses = 4

// 10,000 wait, and workers are killed while they queue up and while they are
// served: nobody is forgotten, nobody overtakes, and nobody is inside together
// with another.
func TestThousandsOfWaitersOutliveTheirWorkers(t *testing.T) {
	for _, locks := range []int{1, 16} {
		t.Run(fmt.Sprintf("%d locks", locks), func(t *testing.T) {
			m := stressMount(t)
			threads := stressed(waitingThreads) / lineProcesses
			total := threads * lineProcesses
			const head = 272
			order := filepath.Join(t.TempDir(), "order")
			text := make([]byte, head+4*total)
			text[12] = 1 // nobody lets go
			if err := os.WriteFile(order, text, 0o666); err != nil {
				t.Fatal(err)
			}
			word := func(at int) int {
				b, err := os.ReadFile(order)
				if err != nil {
					t.Fatal(err)
				}
				return int(binary.NativeEndian.Uint32(b[at:]))
			}
			k := startKiller(t, m, 150*time.Millisecond)
			start := time.Now()
			var line []*background
			for i := range lineProcesses {
				args := []string{program(t, "line"), order, fmt.Sprint(i), fmt.Sprint(lineProcesses), fmt.Sprint(threads)}
				for j := range locks {
					args = append(args, m.Path(fmt.Sprint("lock", j)))
				}
				line = append(line, startProgram(t, nil, args...))
			}
			failed := func() bool {
				for _, p := range line {
					select {
					case <-p.done:
						return true
					default:
					}
				}
				return false
			}
			eventually(t, stressLimit, func() bool { return word(0) == total || failed() }, "everybody is in line")
			t.Logf("%d waiters in line after %v", word(0), time.Since(start))
			// A fast machine has them in line before many are killed.
			eventually(t, stressLimit/5, func() bool { return strings.Count(m.Stderr(), "the worker died") >= 5 }, "workers have died")
			if err := openLine(order); err != nil {
				t.Fatal(err)
			}
			for _, p := range line {
				p.await(t, stressLimit)
				if p.exit != 0 {
					t.Errorf("waiters ended with %d: %.1000s", p.exit, p.stderr.String())
				}
			}
			kills := k.Stop()
			t.Logf("%d served after %v, %d workers killed", word(4), time.Since(start), kills)
			if kills < 5 {
				t.Errorf("%d workers were killed, want more", kills)
			}
			text, err := os.ReadFile(order)
			if err != nil {
				t.Fatal(err)
			}
			at := func(i int) int { return int(binary.NativeEndian.Uint32(text[i:])) }
			if at(4) != total || at(8) != 0 {
				t.Errorf("%d of %d were served, %d of them together with another", at(4), total, at(8))
			}
			next := make([]int, locks)
			for i := range next {
				next[i] = i
			}
			for i := range at(4) {
				number := at(head + 4*i)
				if want := next[number%locks]; number != want {
					t.Fatalf("number %d was served when it was the turn of %d", number, want)
				}
				next[number%locks] += locks
			}
			wantNothingHeld(t, m)
		})
	}
}

// openLine lets those who have their lock go.
func openLine(order string) error {
	f, err := os.OpenFile(order, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(make([]byte, 4), 12)
	return err
}

// memoryGroup is a control group that limits memory.
type memoryGroup struct {
	dir    string
	v2     bool
	killed string // the file that counts what was killed for memory
}

// newMemoryGroup makes a group for a mount's daemon, of version 2 or 1,
// whichever has the memory controller.
func newMemoryGroup(t testing.TB, m *Mount) (*memoryGroup, error) {
	t.Helper()
	name := "lockfs-tests-" + strconv.Itoa(os.Getpid())
	const root = "/sys/fs/cgroup"
	g := &memoryGroup{dir: filepath.Join(root, "memory", name), killed: "memory.oom_control"}
	if controllers, err := os.ReadFile(root + "/cgroup.controllers"); err == nil {
		g = &memoryGroup{dir: filepath.Join(root, name), v2: true, killed: "memory.events"}
		if !strings.Contains(string(controllers), "memory") {
			return nil, errors.New("cgroup v2 without the memory controller")
		}
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+memory"), 0); err != nil {
			return nil, err
		}
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		m.Stop()
		eventually(t, leaveLimit, func() bool {
			err := os.Remove(g.dir)
			return err == nil || os.IsNotExist(err)
		}, "the control group goes")
	})
	if _, err := os.Stat(filepath.Join(g.dir, g.killed)); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *memoryGroup) file(name string) string { return filepath.Join(g.dir, name) }

// add moves processes into the group.
func (g *memoryGroup) add(t testing.TB, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := os.WriteFile(g.file("cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// limit lets the group have so much more memory than its processes use.
func (g *memoryGroup) limit(t testing.TB, more int) {
	t.Helper()
	used, limit := "memory.usage_in_bytes", "memory.limit_in_bytes"
	if g.v2 {
		used, limit = "memory.current", "memory.max"
	}
	text, err := os.ReadFile(g.file(used))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.file(limit), []byte(strconv.Itoa(n+more)), 0); err != nil {
		t.Fatal(err)
	}
}

// preferWorkers has the kernel choose a mount's worker, and each one after it,
// when it has to kill somebody, until the test is over. The keeper sees to that
// by itself only where lockfs may lower its own oom_score_adj, which takes
// CAP_SYS_RESOURCE.
func preferWorkers(t testing.TB, m *Mount) {
	t.Helper()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	t.Cleanup(func() { close(stop); wait.Wait() })
	wait.Go(func() {
		for last := 0; ; {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			if w := m.Worker(); w != 0 && w != last {
				// It may be dead again.
				if os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", w), []byte("1000"), 0) == nil {
					last = w
				}
			}
		}
	})
}

// Memory is short, and the kernel kills the worker for it, several times:
// clients notice nothing.
func TestAWorkerIsKilledForMemory(t *testing.T) {
	const times = 5
	// A worker that has only begun is not preferred yet, and with files to take in it
	// takes longer to begin: then it may be the keeper whom the kernel chooses.
	m := unmirrored(t)
	var g *memoryGroup
	var err error
	if raceEnabled {
		err = errors.New("what the race detector takes is another size each time")
	} else {
		g, err = newMemoryGroup(t, m)
	}
	if err != nil {
		// The kernel's way to kill for memory is SIGKILL.
		t.Logf("no control group for memory here (%v): killing by hand", err)
	}
	if g != nil {
		g.add(t, m.Pid(), m.Worker())
		preferWorkers(t, m)
		syscall.Kill(m.Worker(), syscall.SIGKILL) // the next one's memory is all the group's
		eventually(t, answerLimit, func() bool {
			return strings.Contains(m.Stderr(), "a new worker serves")
		}, "the next worker serves")
	}
	holder := newClient(t)
	holder.Open(m.Path("held"), takeFlags)
	waiter := queueUp(t, m.Path("held"), exclusively)

	var stop atomic.Bool
	defer stop.Store(true)
	var work sync.WaitGroup
	var mu sync.Mutex
	rounds, bad := 0, []string(nil)
	for i := range 3 {
		c := newClient(t)
		work.Go(func() {
			for err := error(nil); err == nil && !stop.Load(); {
				err = useLock(c, m.Path("contended"), m.Path(fmt.Sprint("own", i)))
				mu.Lock()
				rounds++
				if err != nil {
					bad = append(bad, err.Error())
				}
				mu.Unlock()
			}
		})
	}
	if g != nil {
		g.limit(t, 24<<20)
		out := output(t, nil, "hog", g.file("cgroup.procs"), g.file(g.killed), fmt.Sprint(times), "300")
		t.Logf("%s", out)
	} else {
		k := startKiller(t, m, 150*time.Millisecond)
		time.Sleep(2 * time.Second)
		eventually(t, stressLimit/5, func() bool { return strings.Count(m.Stderr(), "the worker died") >= times }, "workers have died")
		k.Stop()
	}
	stop.Store(true)
	work.Wait()
	if len(bad) > 0 {
		t.Errorf("clients saw: %q", bad)
	}
	if n := strings.Count(m.Stderr(), "the worker died"); n < times {
		t.Errorf("%d workers died, want %d at least", n, times)
	} else {
		t.Logf("%d rounds of work while %d workers died", rounds, n)
	}
	if m.Pid() == 0 {
		t.Fatal("the keeper was killed")
	}
	waiter.wait.MustBlock(t)
	wantHolder(t, m.Path("held"), holder.Pid())
	holder.Kill()
	wantErr(t, "the waiter", waiter.wait.Wait(t), nil)
	waiter.Kill()
	wantNothingHeld(t, m)
}

// useLock takes a lock of others and one of its own, and returns what went
// wrong.
func useLock(c *Client, contended, own string) error {
	step := func(what string, r request) (int, error) {
		p := c.start(r)
		select {
		case <-p.done:
		case <-time.After(stressLimit / 5):
			return 0, fmt.Errorf("%s has not returned", what)
		}
		if p.err != nil {
			return 0, fmt.Errorf("%s: %w", what, p.err)
		}
		return p.answer.N, nil
	}
	fd, err := step("open", request{Op: "open", Path: []byte(contended), Flags: openFlags, Mode: 0o666})
	if err != nil {
		return err
	}
	own0, err := step("take", request{Op: "open", Path: []byte(own), Flags: takeFlags, Mode: 0o666})
	if err != nil {
		return err
	}
	for _, r := range []request{
		{Op: "flock", FD: fd, Flags: unix.LOCK_EX},
		{Op: "pwrite", FD: fd, Data: []byte("body")},
		{Op: "flock", FD: fd, Flags: unix.LOCK_UN},
		{Op: "close", FD: own0},
		{Op: "close", FD: fd},
	} {
		if _, err := step(r.Op, r); err != nil {
			return err
		}
	}
	return nil
}
