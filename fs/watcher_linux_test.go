package fs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func testWatcher(t testing.TB, system watcherSystem, room int) *Watcher {
	t.Helper()
	w, err := newWatcher(system, room, aTurn/4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// notice is a watch whose calls are counted.
type notice struct {
	t     testing.TB
	calls atomic.Int32
	stop  func()
}

func watchFor(t testing.TB, w *Watcher, k Kin) *notice {
	n := &notice{t: t}
	n.stop = w.Watch(k, func() { n.calls.Add(1) })
	return n
}

func (n *notice) mustCome() {
	n.t.Helper()
	eventually(n.t, "told of the end", func() bool { return n.calls.Load() > 0 })
	if got := n.calls.Load(); got != 1 {
		n.t.Errorf("told %d times", got)
	}
}

func (n *notice) mustNotCome() {
	n.t.Helper()
	if got := n.calls.Load(); got != 0 {
		n.t.Errorf("told %d times", got)
	}
}

func (c *child) kill() {
	c.t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		c.t.Fatal(err)
	}
}

// bothWays runs a test with pidfds, and without.
func bothWays(t *testing.T, test func(t *testing.T, w *Watcher)) {
	t.Run("by pidfd", func(t *testing.T) { test(t, testWatcher(t, runningSystem{}, 1000)) })
	t.Run("in turns", func(t *testing.T) { test(t, testWatcher(t, runningSystem{}, 0)) })
}

// aTurn is longer than it takes until a few processes have been looked at.
const aTurn = 200 * time.Millisecond

func TestWatch(t *testing.T) {
	bothWays(t, func(t *testing.T, w *Watcher) {
		c, k := sleeper(t)
		_, other := sleeper(t)
		first, second, stopped := watchFor(t, w, k), watchFor(t, w, k), watchFor(t, w, k)
		lives := watchFor(t, w, other)
		time.Sleep(aTurn)
		stopped.stop()
		first.mustNotCome()
		c.kill() // and is a zombie then
		first.mustCome()
		second.mustCome()
		watchFor(t, w, k).mustCome()
		_ = c.cmd.Wait()
		watchFor(t, w, k).mustCome()
		stopped.mustNotCome()
		lives.mustNotCome()
		stopped.stop()
		first.stop()
	})
}

func TestWatchOfAnotherProcess(t *testing.T) {
	bothWays(t, func(t *testing.T, w *Watcher) {
		_, k := sleeper(t)
		same := watchFor(t, w, k)
		k.Started -= time.Second / userHZ
		watchFor(t, w, k).mustCome()
		same.mustNotCome()

		threads := spawn(t, role("threads")...)
		var pid, tid uint32
		if _, err := fmt.Sscan(threads.line(), &pid, &tid); err != nil {
			t.Fatal(err)
		}
		watchFor(t, w, kin(t, tid)).mustCome() // no process has the number any more
	})
}

func TestNumbersThatReturn(t *testing.T) {
	c := spawn(t, in(newPidNamespace, role("reuse")...)...)
	if got := c.line(); got != "told apart" {
		t.Error(got)
	}
}

// A process lives as long as any of its threads, and goes on when one of them
// executes another program.
func TestWatchOfAProcessWhoseFirstThreadEnded(t *testing.T) {
	bothWays(t, func(t *testing.T, w *Watcher) {
		c := spawn(t, role("leaderless")...)
		k := kin(t, c.pid())
		before := watchFor(t, w, k)
		if got := c.line(); got != "leaderless" {
			t.Fatal(got)
		}
		after := watchFor(t, w, k)
		time.Sleep(aTurn)
		if got, ok := (Proc{}).Resolve(c.pid(), c.pid()); !ok || got != k {
			t.Errorf("resolved to %+v, %v; want %+v", got, ok, k)
		}
		before.mustNotCome()
		c.tell("")
		if got := c.line(); got != "executed" {
			t.Fatal(got)
		}
		time.Sleep(aTurn)
		before.mustNotCome()
		after.mustNotCome()
		c.kill()
		before.mustCome()
		after.mustCome()
	})
}

func TestWatchOfAProcessThatExecutes(t *testing.T) {
	w := testWatcher(t, runningSystem{}, 1000)
	c := spawn(t, append([]string{"env", "COUNT=100"}, role("executes")...)...)
	n := watchFor(t, w, kin(t, c.pid()))
	if got := c.line(); got != "executed" {
		t.Fatal(got)
	}
	n.mustNotCome()
	c.kill()
	n.mustCome()
}

func TestWatchOf2000ThatAreKilled(t *testing.T) {
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	const n = 2000
	c := spawn(t, "sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do sleep 300 & echo $!; i=$((i+1)); done; wait", n))
	before := countPidfds(t)
	type victim struct {
		Kin
		killed, told time.Time
	}
	victims := make([]victim, n)
	var told sync.WaitGroup
	t.Cleanup(func() {
		for _, v := range victims {
			if v.killed.IsZero() && v.Pid != 0 {
				_ = unix.Kill(int(v.Pid), unix.SIGKILL)
			}
		}
	})
	for i := range victims {
		v := &victims[i]
		if _, err := fmt.Sscan(c.line(), &v.Pid); err != nil {
			t.Fatal(err)
		}
		v.Kin = kin(t, v.Pid)
		told.Add(1)
		w.Watch(v.Kin, func() { v.told = time.Now(); told.Done() })
	}
	eventually(t, "a pidfd for each", func() bool { return countPidfds(t) == before+n })
	for i := range victims {
		v := &victims[i]
		v.killed = time.Now()
		if err := unix.Kill(int(v.Pid), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	told.Wait()
	var longest time.Duration
	for _, v := range victims {
		longest = max(longest, v.told.Sub(v.killed))
	}
	t.Logf("told of each within %v", longest)
	// Most of it is what they need to end, on a busy machine seconds.
	if longest > 10*time.Second {
		t.Errorf("told after %v", longest)
	}
	eventually(t, "every pidfd closed", func() bool { return countPidfds(t) == before })
}

// countPidfds counts those of this process; os/exec has some too.
func countPidfds(t testing.TB) int {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.Contains(target, "pidfd") {
			n++
		}
	}
	return n
}

func countDescriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// No more pidfds than there is room for, and one for a process that is watched
// many times; the others get one when there is room again.
func TestRoomForPidfds(t *testing.T) {
	before := countPidfds(t)
	w := testWatcher(t, runningSystem{}, 3)
	var children []*child
	var notices []*notice
	for range 8 {
		c, k := sleeper(t)
		before++ // os/exec's
		children = append(children, c)
		for range 4 {
			notices = append(notices, watchFor(t, w, k))
		}
	}
	eventually(t, "as many as there is room for", func() bool { return countPidfds(t) == before+3 })
	time.Sleep(aTurn)
	if got := countPidfds(t) - before; got != 3 {
		t.Errorf("%d pidfds, want 3", got)
	}
	for _, n := range notices[:12] {
		n.stop()
	}
	eventually(t, "three others' turn", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.processes) == 5
	})
	time.Sleep(aTurn)
	if got := countPidfds(t) - before; got != 3 {
		t.Errorf("%d pidfds, want 3 again", got)
	}
	for _, c := range children {
		c.kill()
	}
	for i, n := range notices {
		if i < 12 {
			n.mustNotCome()
		} else {
			n.mustCome()
		}
	}
	eventually(t, "every pidfd closed", func() bool { return countPidfds(t) == before })
}

// Nothing stays behind of 100,000 watches.
func TestManyWatches(t *testing.T) {
	children := make([]*child, 40)
	kins := make([]Kin, len(children))
	for i := range children {
		children[i], kins[i] = sleeper(t)
	}
	w := testWatcher(t, runningSystem{}, 20)
	descriptors, goroutines := countDescriptors(t), runtime.NumGoroutine()
	var all sync.WaitGroup
	var told atomic.Int32
	const each, many = 10_000, 10
	for range many {
		all.Go(func() {
			var stops []func()
			for i := range each {
				k := kins[rand.IntN(len(kins))]
				k.Started += time.Duration(i%5/4) * time.Second // some are not there
				stops = append(stops, w.Watch(k, func() { told.Add(1) }))
				if n := rand.IntN(100); n < len(stops) {
					stops[n]()
					stops = append(stops[:n], stops[n+1:]...)
				}
			}
			for _, stop := range stops {
				stop()
			}
		})
	}
	all.Wait()
	if told.Load() == 0 {
		t.Error("not told of those that are not there")
	}
	eventually(t, "no process is watched", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.processes) == 0 && len(w.todo) == 0
	})
	eventually(t, "no descriptor is left", func() bool { return countDescriptors(t) == descriptors })
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	last := watchFor(t, w, kins[0])
	children[0].kill()
	last.mustCome()
}

func TestCloseOfAWatcher(t *testing.T) {
	c, k := sleeper(t)
	descriptors, pidfds := countDescriptors(t), countPidfds(t)
	w := testWatcher(t, runningSystem{}, 1000)
	n := watchFor(t, w, k)
	eventually(t, "its pidfd", func() bool { return countPidfds(t) > pidfds })
	w.Close()
	w.Close()
	if got := countDescriptors(t); got != descriptors {
		t.Errorf("%d descriptors, want %d", got, descriptors)
	}
	late := watchFor(t, w, k)
	c.kill()
	_ = c.cmd.Wait()
	time.Sleep(50 * time.Millisecond)
	n.mustNotCome()
	late.mustNotCome()
	n.stop()
	late.stop()
}

// A call of ended may take its time, and may watch and stop.
func TestEndedMayBlock(t *testing.T) {
	w := testWatcher(t, runningSystem{}, 1000)
	a, first := sleeper(t)
	b, second := sleeper(t)
	block, again := make(chan struct{}), make(chan struct{})
	entered := make(chan struct{})
	var stop func()
	stop = w.Watch(first, func() {
		close(entered)
		<-block
		stop()
		w.Watch(first, func() { close(again) })
	})
	other := watchFor(t, w, second)
	a.kill()
	<-entered
	b.kill()
	other.mustCome()
	close(block)
	<-again
}

// In a /proc that hides processes (hidepid), one that cannot be seen is not
// taken for dead, but its end is seen.
func TestWatchOfHiddenProcesses(t *testing.T) {
	for _, hide := range []string{"1", "2"} {
		t.Run("hidepid="+hide, func(t *testing.T) {
			mount := "mount -t proc -o hidepid=" + hide + ` proc /proc && exec "$@"`
			w := spawn(t, append([]string{"unshare", "--mount", "sh", "-c", mount, "sh"}, role("watch")...)...)
			c, k := sleeper(t)
			_, other := sleeper(t)
			for _, k := range []Kin{other, k} {
				w.tell("%d %d", k.Pid, k.Started)
				if got := w.line(); got != "start known: false" {
					t.Fatal(got)
				}
			}
			time.Sleep(aTurn)
			c.kill()
			_ = c.cmd.Wait()
			if got, want := w.line(), fmt.Sprint(k.Pid, " ended"); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// A /proc that shows another pid namespace, as a container may have its host's,
// is about other processes.
func TestProcOfAnotherNamespace(t *testing.T) {
	c := spawn(t, in("unshare --pid --fork --kill-child", role("foreign")...)...)
	if got := c.line(); got != "not believed" {
		t.Error(got)
	}
}

// scripted is a system whose processes the test makes up. Their pidfds are
// eventfds.
type scripted struct {
	mu    sync.Mutex
	err   error // of open
	ready bool  // what open opens is readable
	life  life
	looks map[Identity]int
}

func (s *scripted) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func (s *scripted) open(uint32) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return -1, s.err
	}
	var n uint
	if s.ready {
		n = 1
	}
	return unix.Eventfd(n, unix.EFD_CLOEXEC)
}

func (s *scripted) look(id Identity) life {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looks == nil {
		s.looks = make(map[Identity]int)
	}
	s.looks[id]++
	return s.life
}

// looked returns how often processes were looked at, all and the least one.
func (s *scripted) looked() (all, least int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	least = -1
	for _, n := range s.looks {
		all += n
		if least < 0 || n < least {
			least = n
		}
	}
	return all, least
}

func TestWatchWithoutPidfds(t *testing.T) {
	for _, err := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOSYS, unix.EPERM, unix.EINVAL} {
		t.Run(err.Error(), func(t *testing.T) {
			s := &scripted{err: err, life: living}
			w := testWatcher(t, s, 1000)
			n := watchFor(t, w, Kin{Pid: 5})
			eventually(t, "two looks", func() bool { all, _ := s.looked(); return all >= 2 })
			n.mustNotCome()
			s.set(func() { s.life = gone })
			n.mustCome()
		})
	}
	t.Run("a number that nobody has", func(t *testing.T) {
		watchFor(t, testWatcher(t, &scripted{err: unix.ESRCH, life: living}, 1000), Kin{Pid: 5}).mustCome()
	})
}

// A pidfd that says that a living process has ended is not believed, and does
// not keep the watcher busy.
func TestPidfdThatIsWrong(t *testing.T) {
	s := &scripted{ready: true, life: living}
	n := watchFor(t, testWatcher(t, s, 1000), Kin{Pid: 5})
	time.Sleep(2 * aTurn)
	n.mustNotCome()
	if all, _ := s.looked(); all > 20 {
		t.Errorf("looked %d times", all)
	}
	s.set(func() { s.life = gone })
	n.mustCome()

	s = &scripted{ready: true, life: hidden}
	watchFor(t, testWatcher(t, s, 1000), Kin{Pid: 5}).mustCome()

	s = &scripted{life: hidden}
	n = watchFor(t, testWatcher(t, s, 1000), Kin{Pid: 5})
	time.Sleep(aTurn)
	n.mustNotCome()
}

// However many are without a pidfd, all get their turn, and not more often than
// the watcher has time for.
func TestTurns(t *testing.T) {
	s := &scripted{life: living}
	w := testWatcher(t, s, 0)
	const n = lookRate
	for i := range n {
		w.Watch(Kin{Pid: uint32(i + 1)}, func() { t.Error("told of a living one") })
	}
	eventually(t, "all looked at", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.looks) == n
	})
	begin := time.Now()
	before, _ := s.looked()
	eventually(t, "all looked at again, twice", func() bool { _, least := s.looked(); return least >= 3 })
	all, _ := s.looked()
	took := time.Since(begin)
	if most := lookRate*took.Seconds() + 2*lookBatch; float64(all-before) > most {
		t.Errorf("looked %d times in %v", all-before, took)
	}
	if took > 10*time.Second {
		t.Errorf("two rounds took %v", took)
	}
}
