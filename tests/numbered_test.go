package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Part 4, libpod's locks (000): the Go package, on a mount. The cases are those of
// libpod's own tests of its locks in shared memory.

const numLocks = 24

// podman is a case: a lockspace with numLocks locks, and who uses it. Each call is
// made by the next process, unless it must be the one that made another.
type podman struct {
	t       testing.TB
	m       *Mount
	dir     string
	clients []*numberedClient
	turn    int
	// before is done before each call.
	before func()
}

// next returns who makes the next call.
func (p *podman) next() *numberedClient {
	p.before()
	p.turn++
	return p.clients[p.turn%len(p.clients)]
}

// want has the next process make a call.
func (p *podman) want(want, format string, args ...any) {
	p.t.Helper()
	p.next().Want(want, format, args...)
}

// allocate has the next process allocate a lock, and returns its number.
func (p *podman) allocate() int {
	p.t.Helper()
	result := p.next().Do("allocate x")
	id, err := strconv.Atoi(result)
	if err != nil {
		p.t.Errorf("allocate: %s", result)
	}
	return id
}

// free has the next process free a number.
func (p *podman) free(want string, id int) {
	p.t.Helper()
	c := p.next()
	c.Want(strconv.Itoa(id), "retrieve x %d", id)
	p.before()
	c.Want(want, "free x")
}

// locker has the next process retrieve a lock.
func (p *podman) locker(name string, id int) *numberedClient {
	p.t.Helper()
	c := p.next()
	c.Want(strconv.Itoa(id), "retrieve %s %d", name, id)
	return c
}

// do has a process make a call.
func (p *podman) do(c *numberedClient, want, format string, args ...any) {
	p.t.Helper()
	p.before()
	c.Want(want, format, args...)
}

var podmanCases = []struct {
	name string
	run  func(p *podman)
}{
	{"bad sizes", func(p *podman) {
		p.want("size", "create %s/none 0", p.m.Dir)
		p.want("ok", "create %s/seven 7", p.m.Dir) // not rounded up
		p.want("size", "open %s/seven 8", p.m.Dir)
		p.want("ok", "open %s/seven 7", p.m.Dir)
		p.want("exists", "create %s/seven 7", p.m.Dir)
	}},
	{"deallocate what is not allocated", func(p *podman) {
		p.free("not-allocated", 0)
		id := p.allocate()
		p.free("ok", id)
		p.free("not-allocated", id)
	}},
	{"unlock what is not locked", func(p *podman) {
		c := p.locker("l", 0)
		p.do(c, "panic:", "unlock l")
		p.do(c, "ok", "lock l")
		p.do(c, "ok", "unlock l")
	}},
	{"double unlock", func(p *podman) {
		c := p.locker("l", 0)
		p.do(c, "ok", "lock l")
		p.do(c, "ok", "unlock l")
		p.do(c, "panic:", "unlock l")
		p.do(c, "ok", "lock l")
	}},
	{"life cycle of a lock", func(p *podman) {
		c := p.locker("l", p.allocate())
		p.do(c, "ok", "lock l")
		p.do(c, "ok", "unlock l")
		p.do(c, "ok", "free l")
	}},
	{"two locks are different", func(p *podman) {
		if a, b := p.allocate(), p.allocate(); a == b {
			p.t.Errorf("%d was allocated twice", a)
		}
	}},
	{"allocate all", func(p *podman) {
		seen := map[int]bool{}
		for i := range numLocks {
			seen[p.allocate()] = true
			p.want(strconv.Itoa(numLocks-1-i), "available")
		}
		if len(seen) != numLocks {
			p.t.Errorf("%v were allocated, want %d of them", seen, numLocks)
		}
	}},
	{"allocate too many", func(p *podman) {
		for range numLocks {
			p.allocate()
		}
		p.want("all-allocated", "allocate x")
		p.want("allocated", "take x 3")
		p.want("range", "take x %d", numLocks)
		p.want("range", "retrieve x %d", numLocks)
	}},
	{"deallocate and allocate in turns", func(p *podman) {
		for range numLocks {
			p.allocate()
		}
		for id := range numLocks {
			p.free("ok", id)
			if got := p.allocate(); got != id {
				p.t.Errorf("%d was allocated when %d was free", got, id)
			}
		}
	}},
	{"deallocate all", func(p *podman) {
		first := p.allocate()
		p.allocate()
		p.want("20", "take x 20")
		p.want("ok", "free-all")
		p.want(strconv.Itoa(numLocks), "available")
		if again := p.allocate(); again != first {
			p.t.Errorf("%d is allocated, and was %d before all were freed", again, first)
		}
	}},
	{"allocate a number", func(p *podman) {
		p.want("5", "take x 5")
		p.want("allocated", "take x 5")
		for id := range numLocks - 1 {
			want := id
			if id >= 5 {
				want++
			}
			if got := p.allocate(); got != want {
				p.t.Errorf("%d was allocated, want %d", got, want)
			}
		}
	}},
	{"locks lock", func(p *podman) {
		a, b := p.locker("a", 0), p.locker("b", 0)
		p.do(a, "ok", "lock a")
		p.want("[0]", "held")
		waiting := b.Start("lock b")
		waiting.MustBlock()
		p.do(b, "panic:", "unlock b")
		p.do(a, "ok", "unlock a")
		if got := waiting.Wait(); got != "ok" {
			p.t.Errorf("the wait: %s", got)
		}
		p.want("[0]", "held")
		p.do(b, "ok", "unlock b")
		p.want("[]", "held")
	}},
	{"lock and unlock two", func(p *podman) {
		five, six := p.locker("five", 5), p.locker("six", 6)
		p.do(five, "ok", "lock five")
		p.do(six, "ok", "lock six")
		p.want("[5 6]", "held")
		p.do(six, "ok", "unlock six")
		p.want("[5]", "held")
		p.do(five, "ok", "unlock five")
		p.want("[]", "held")
	}},
	{"a freed lock stays usable", func(p *podman) {
		id := p.allocate()
		a, b := p.locker("a", id), p.locker("b", id)
		p.do(a, "ok", "lock a")
		waiting := b.Start("lock b")
		waiting.MustBlock()
		p.do(a, "ok", "free a")
		waiting.MustBlock()
		p.want(fmt.Sprintf("[%d]", id), "held")
		p.do(a, "ok", "unlock a")
		if got := waiting.Wait(); got != "ok" {
			p.t.Errorf("the wait: %s", got)
		}
		p.do(b, "ok", "unlock b")
		if again := p.allocate(); again != id {
			p.t.Errorf("%d is allocated, %d was freed", again, id)
		}
	}},
	{"two lockers of one process", func(p *podman) {
		c := p.locker("a", 7)
		p.do(c, "7", "retrieve b 7")
		p.do(c, "ok", "lock a")
		waiting, same := c.Start("lock b"), c.Start("lock a")
		waiting.MustBlock()
		same.MustBlock()
		p.do(c, "panic:", "unlock b")
		p.do(c, "ok", "unlock a")
		for _, w := range []struct {
			*numberedCall
			name string
		}{{waiting, "b"}, {same, "a"}} { // in the order in which they asked
			if got := w.Wait(); got != "ok" {
				p.t.Errorf("lock %s: %s", w.name, got)
			}
			p.do(c, "ok", "unlock %s", w.name)
		}
	}},
}

// play plays the cases, by so many processes.
func playPodman(t *testing.T, processes int, before func(m *Mount)) {
	m := mount(t)
	m.Deadline(time.Duration(stressFactor(t)) * 5 * time.Minute)
	for i, c := range podmanCases {
		t.Run(c.name, func(t *testing.T) {
			p := &podman{t: t, m: m, dir: fmt.Sprintf("%s/case%d", m.Dir, i), before: func() { before(m) }}
			for n := range processes {
				client := newNumberedClient(t)
				if n == 0 {
					client.Want("ok", "create %s %d", p.dir, numLocks)
				}
				client.Want("ok", "open %s %d", p.dir, numLocks)
				p.clients = append(p.clients, client)
			}
			c.run(p)
		})
	}
}

func TestLibpodLocksInOneProcess(t *testing.T) { playPodman(t, 1, func(*Mount) {}) }

func TestLibpodLocksAcrossProcesses(t *testing.T) { playPodman(t, 3, func(*Mount) {}) }

// Before each call, the worker that carried out the one before is killed.
func TestLibpodLocksOverKilledWorkers(t *testing.T) {
	playPodman(t, 2, func(m *Mount) { killWorker(t, m) })
}

// While calls are made, workers are killed at any moment.
func TestLibpodLocksWhileWorkersAreKilled(t *testing.T) {
	started := false
	playPodman(t, 2, func(m *Mount) {
		if !started {
			started = true
			killWorkersMeanwhile(t, m)
		}
	})
}

// killWorkersMeanwhile kills workers until the test ends: each some time after it
// has begun to serve.
func killWorkersMeanwhile(t testing.TB, m *Mount) {
	t.Helper()
	stop, done, killed := make(chan struct{}), make(chan struct{}), 0
	t.Cleanup(func() { // before the mount ends
		close(stop)
		<-done
		t.Logf("%d workers were killed", killed)
	})
	serving := func() int { return strings.Count(m.Stderr(), servesMarker) }
	go func() {
		defer close(done)
		for before := -1; ; killed++ {
			for serving() == before {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
			before = serving()
			time.Sleep(rand.N(20 * time.Millisecond))
			if worker := m.Worker(); worker != 0 {
				syscall.Kill(worker, syscall.SIGKILL)
			}
		}
	}()
}

// Nobody is ever inside together: processes, each with two Lockers of one lock and
// two goroutines at each of these, count in a file, while workers are killed.
func TestNumberedLocksExclude(t *testing.T) {
	const processes, rounds = 3, 60
	m := mount(t)
	m.Deadline(time.Duration(stressFactor(t)) * 5 * time.Minute)
	file := filepath.Join(t.TempDir(), "count")
	if err := os.WriteFile(file, []byte("0"), 0o644); err != nil {
		t.Fatal(err)
	}
	var clients []*numberedClient
	for i := range processes {
		c := newNumberedClient(t)
		if i == 0 {
			c.Want("ok", "create %s 10", m.Path("d"))
			c.Want("0", "allocate a")
		}
		c.Want("ok", "new %s", m.Path("d"))
		c.Want("0", "retrieve a 0")
		c.Want("0", "retrieve b 0")
		clients = append(clients, c)
	}
	killWorkersMeanwhile(t, m)
	var calls []*numberedCall
	for _, c := range clients {
		for _, locker := range []string{"a", "b", "a", "b"} {
			calls = append(calls, c.Start("count %s %s %d", locker, file, rounds))
		}
	}
	for _, call := range calls {
		select {
		case <-call.done:
		case <-time.After(stressLimit):
			t.Fatalf("%s has not returned", call.what)
		}
		if call.result != "ok" {
			t.Errorf("%s: %s", call.what, call.result)
		}
	}
	text, err := os.ReadFile(file)
	if want := fmt.Sprint(rounds * len(calls)); err != nil || string(text) != want {
		t.Errorf("counted to %q (%v), want %s", text, err, want)
	}
	clients[0].Want("[]", "held")
}

// Many processes allocate and free at once, while workers are killed: none is given
// twice.
func TestNumbersAreGivenOnce(t *testing.T) {
	const each, processes, rounds = 8, 4, 5
	m := mount(t)
	dir := m.Path("many")
	var clients []*numberedClient
	for i := range processes {
		c := newNumberedClient(t)
		if i == 0 {
			c.Want("ok", "create %s %d", dir, each*processes)
		}
		c.Want("ok", "new %s", dir)
		clients = append(clients, c)
	}
	for range rounds {
		var calls []*numberedCall
		for i := range each {
			for _, c := range clients {
				calls = append(calls, c.Start("allocate l%d", i))
			}
			if i%3 == 1 {
				killWorker(t, m)
			}
		}
		seen := map[string]bool{}
		for _, call := range calls {
			seen[call.Wait()] = true
		}
		if len(seen) != each*processes {
			t.Fatalf("%d numbers in %d allocations", len(seen), each*processes)
		}
		clients[0].Want("all-allocated", "allocate more")
		calls = calls[:0]
		for i := range each {
			for _, c := range clients {
				calls = append(calls, c.Start("free l%d", i))
			}
		}
		killWorker(t, m)
		for _, call := range calls {
			if got := call.Wait(); got != "ok" {
				t.Errorf("%s: %s", call.what, got)
			}
		}
		clients[0].Want(strconv.Itoa(each*processes), "available")
	}
}

// What a process has locked is free at once when it is killed; what it has allocated
// is not.
func TestLocksOfAKilledProcess(t *testing.T) {
	m := mount(t)
	a, b := newNumberedClient(t), newNumberedClient(t)
	a.Want("ok", "create %s 10", m.Path("d"))
	b.Want("ok", "new %s", m.Path("d"))
	a.Want("0", "allocate a")
	a.Want("ok", "lock a")
	b.Want("0", "retrieve b 0")
	waiting := b.Start("lock b")
	waiting.MustBlock()
	a.Kill()
	if got := waiting.Wait(); got != "ok" {
		t.Errorf("the wait: %s", got)
	}
	b.Want("9", "available")
	b.Want("ok", "unlock b")
	b.Want("ok", "free b")
}

// Allocation survives an upgrade, and a clean stop and start; locks that programs
// hold do not survive the mount.
func TestNumberedLocksSurvive(t *testing.T) {
	m := mount(t)
	c := newNumberedClient(t)
	c.Want("ok", "create %s 10", m.Path("d"))
	c.Want("0", "allocate a")
	c.Want("7", "take b 7")
	c.Want("ok", "lock a")
	hangUp(t, m)
	c.Want("[0]", "held")
	c.Want("8", "available")
	c.Want("ok", "unlock a")
	c.Want("1", "allocate c")
	m.awaitReplaced() // by the upgrade
	c.Kill()
	m.Restart(m.Quit)
	c = newNumberedClient(t)
	c.Want("ok", "open %s 10", m.Path("d"))
	c.Want("7", "available")
	c.Want("allocated", "take b 7")
	c.Want("2", "allocate d")
	if out, _ := sh(t, m, `ls -v d/.lockfs/ids | xargs; rmdir d && mkdir d && cat d/.lockfs/policy/ids`); out != "0 1 2 7\n0\n" {
		t.Errorf("after a clean stop: %q", out)
	}
}

// What has been given out when the daemon is told to end is not given again, though
// programs go on asking all the time.
func TestNoNumberIsGivenTwiceOverAStop(t *testing.T) {
	m := mount(t)
	c := newNumberedClient(t)
	c.Want("ok", "create-unlimited %s", m.Path("d"))
	for range 3 {
		calls := []*numberedCall{c.Start("allocate-on"), c.Start("allocate-on")}
		time.Sleep(rand.N(100 * time.Millisecond))
		m.Restart(m.Quit)
		var last int
		for _, call := range calls {
			text, how, _ := strings.Cut(call.Wait(), " ")
			n, err := strconv.Atoi(text)
			if err != nil && text != "none" { // it may have come too late
				t.Fatalf("%s: %s %s", call.what, text, how)
			}
			last = max(last, n)
		}
		if out, _ := sh(t, m, `cat d/.lockfs/alloc`); out == "" {
			t.Fatal("nothing is allocated")
		} else if next, err := strconv.Atoi(strings.TrimSpace(out)); err != nil || next <= last {
			t.Errorf("%d is allocated after a restart, %d was before", next, last)
		}
		c.Kill()
		c = newNumberedClient(t)
		c.Want("ok", "new %s", m.Path("d"))
	}
}

// Which directories there can be a Manager of.
func TestManagersOfDirectories(t *testing.T) {
	m := mount(t, "--space", "unlimited:ids=unlimited", "--space", "named:hold=name,ids=5", "--space", "leased:lease=1h,ids=5", "--space", "none")
	c, alice := newNumberedClient(t), newNumberedClient(t, asAlice())
	for dir, want := range map[string]string{
		"unlimited": "ok", "named": "policy", "leased": "policy", "none": "no-ids", ".": "no-ids", ".lockfs": "not-lockspace",
	} {
		c.Want(want, "new %s", m.Path(dir))
	}
	c.Want("error:", "new %s", m.Path("nothing"))
	c.Want("size", "open %s 5", m.Path("unlimited"))
	c.Want("ok", "new %s", m.Path("unlimited"))
	c.Want("nil", "available")
	c.Want("4294967295", "take last 4294967295")
	c.Want("ok", "lock last")
	c.Want("[4294967295]", "held")
	c.Want("ok", "unlock last")
	c.Want("ok", "create-unlimited %s", m.Path("another"))
	c.Want("nil", "available")
	// What it inherits does not suit: it is set.
	c.Want("ok", "create %s 3", m.Path("leased/made"))
	c.Want("0", "allocate a")
	// Who may not write to a directory may look, and that is all.
	alice.Want("ok", "new %s", m.Path("leased/made"))
	alice.Want("2", "available")
	alice.Want("permission", "allocate a")
	alice.Want("permission", "take a 1")
	alice.Want("0", "retrieve a 0")
	alice.Want("permission", "free a")
	alice.Want("panic:", "lock a")
	alice.Want("panic:", "unlock a")
	alice.Want("permission", "free-all")
	alice.Want("[]", "held")
	alice.Want("ok", "create %s 3", m.Path("hers"))
	alice.Want("0", "allocate a")

	// There may be more than there were, and none any more.
	sh(t, m, `echo 10 > leased/made/.lockfs/policy/ids`)
	c.Want("9", "retrieve b 9")
	c.Want("range", "retrieve b 10")
	c.Want("9", "available")
	sh(t, m, `rm -f leased/made/.lockfs/ids/0; echo 0 > leased/made/.lockfs/policy/ids`)
	c.Want("no-ids", "allocate b")
	c.Want("no-ids", "take b 1")
	c.Want("no-ids", "available")
	c.Want("no-ids", "free b")
	c.Want("no-ids", "free-all")
	c.Want("ok", "close")
	c.Want("closed", "allocate b")
	c.Want("panic:", "lock b")
}

// A lock that is broken while a program holds it: that finds out.
func TestABrokenNumberedLock(t *testing.T) {
	m := mount(t)
	c := newNumberedClient(t)
	c.Want("ok", "create %s 10", m.Path("d"))
	c.Want("0", "allocate a")
	c.Want("ok", "lock a")
	sh(t, m, `rm -f d/0`)
	if got := c.Do("unlock a"); !strings.HasPrefix(got, "panic:") || !strings.Contains(got, unix.ESTALE.Error()) {
		t.Errorf("unlock of what was broken: %s", got)
	}
	c.Want("ok", "lock a")
	c.Want("ok", "unlock a")
}

// A Go program's lock is flock(1)'s, and the other way round.
func TestNumberedLocksAndFlock(t *testing.T) {
	m := mount(t)
	c := newNumberedClient(t)
	c.Want("ok", "create %s 10", m.Path("d"))
	c.Want("0", "allocate a")
	c.Want("ok", "lock a")
	if _, exit := sh(t, m, `flock -n d/0 true`); exit != 1 {
		t.Errorf("flock of what a program has locked: exit %d", exit)
	}
	p := startProcess(t, nil, "flock", m.Path("d/0"), "sh", "-c", "echo held; cat")
	p.MustBlock(t)
	c.Want("ok", "unlock a")
	p.Held(t)
	waiting := c.Start("lock a")
	waiting.MustBlock()
	c.Want("[0]", "held")
	p.Release(t)
	if got := waiting.Wait(); got != "ok" {
		t.Errorf("the wait: %s", got)
	}
	// A signal that the program handles ends no wait.
	d := newNumberedClient(t)
	d.Want("ok", "new %s", m.Path("d"))
	d.Want("0", "retrieve a 0")
	waiting = d.Start("lock a")
	waiting.MustBlock()
	for _, sig := range []syscall.Signal{syscall.SIGURG, syscall.SIGSTOP, syscall.SIGCONT, syscall.SIGURG, syscall.SIGCHLD} {
		if err := d.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	waiting.MustBlock()
	c.Want("ok", "unlock a")
	if got := waiting.Wait(); got != "ok" {
		t.Errorf("the wait over signals: %s", got)
	}
	names := strings.Fields(d.Do("held"))
	if !slices.Equal(names, []string{"[0]"}) {
		t.Errorf("held are %q", names)
	}
}
