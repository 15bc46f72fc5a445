package tests

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

func TestEveryStepOfEveryRequest(t *testing.T) { everyStepOfAll(t, kinds) }

// everyStepOfAll plays all the cases of some kinds of requests, on mounts with
// some flags.
func everyStepOfAll(t *testing.T, kinds []kind, flags ...string) {
	start := time.Now()
	var cases, deaths atomic.Int64
	t.Run("mounts", func(t *testing.T) {
		for from := 0; from < len(kinds); from += kindsPerMount {
			to := min(from+kindsPerMount, len(kinds))
			t.Run(fmt.Sprintf("%d to %d", from, to-1), func(t *testing.T) {
				t.Parallel()
				m, p := crashMount(t, flags...)
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
		s.path = s.m.Path(s.name)
	}
	for _, plan := range k.plans(k.opcode, number, stressFactor(t) > 1) {
		begin()
		s.run(k, plan, true)
		deaths += s.plan.met()
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

// The connection's first request comes when the mount is there already: it
// becomes ready all the same, and everybody can use it.
func TestEveryStepOfMounting(t *testing.T) {
	var plans [][]death
	at := func(step string) death { return death{step: step} }
	for _, p := range plain.points(opInit) {
		plans = append(plans, []death{p.death}, []death{p.death, at("opened"), at("serving")})
		switch p.phase {
		case unread:
			// There is nothing yet to resume, but the request.
			plans = append(plans, []death{p.death, at("restored"), p.death})
		case decided:
			plans = append(plans, []death{p.death, at("restored"), at("resumed"), at("repeated"), at("taken over")})
		}
	}
	// Before the first request: the memory is being filled. That request itself
	// finds room in it: "grown" cannot be reached with it.
	for _, step := range []string{"opened", "grown", "begun", "entry", "restored", "decided", "written", "committed",
		"entry applied", "applied", "recorded", "serving", "slot prepared"} {
		plans = append(plans, []death{at(step)}, []death{at(step), at("opened"), at("restored"), at("serving")})
	}
	for _, plan := range plans {
		t.Run(fmt.Sprint(plan), func(t *testing.T) {
			p := newCrashPlan(t)
			p.arm(plan...)
			m := crashMountWith(t, p)
			s := newScene(t, m, p)
			s.what = fmt.Sprint(plan)
			s.name, s.path = "lock", m.Path("lock")
			s.ordinary(s.path)
			if !p.await(len(plan)) {
				s.errorf("%d of the deaths have come about", p.met())
			}
			p.disarm()
			s.wait = nil
			s.ordinary(s.path)
			s.leave()
		})
	}
}

// A request that every worker dies of is given up, so that work goes on.
func TestARequestThatEveryWorkerDiesOf(t *testing.T) {
	m, p := crashMount(t)
	s := newScene(t, m, p)
	take := func() error {
		fd, err := s.a.TryOpen(s.path, takeFlags)
		if err == nil {
			err = s.a.Close(fd)
		}
		return err
	}
	for _, tc := range []struct {
		name   string
		opcode uint32
		step   string
		detour bool
		call   func() error
	}{
		{"CREATE", opCreate, "decided", false, take},
		{"CREATE that comes back from a look-up", opCreate, "back", true, take},
		{"SETLKW", opSetlkw, "written", false, func() error {
			fd := s.a.Open(s.path, openFlags)
			defer s.a.Close(fd)
			return s.a.Flock(fd, unix.LOCK_EX)
		}},
		{"STATFS", opStatfs, "read", false, func() error { _, err := s.a.Statfs(s.m.Dir); return err }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.what, s.name, s.path = tc.name, "lock", m.Path("lock")
			refusals := strings.Count(m.Stderr(), "request refused")
			s.sync()
			s.a.onMain = !tc.detour
			// Others may kill as many as they like.
			p.arm(slices.Repeat([]death{{step: tc.step, opcode: tc.opcode}}, 10)...)
			s.want("the call, of which nobody dies by himself", tc.call(), nil)
			if got := p.met(); got != 10 {
				t.Errorf("%d workers were killed, want 10", got)
			}
			s.free()
			p.arm(slices.Repeat([]death{{step: tc.step, opcode: tc.opcode, signal: syscall.SIGABRT}}, 4)...)
			s.want("the call", tc.call(), unix.EIO)
			if got := p.met(); got != 3 {
				t.Errorf("%d workers died of it, want 3", got)
			}
			p.disarm()
			s.a.onMain = true
			eventually(t, answerLimit, func() bool {
				return strings.Count(m.Stderr(), "request refused") == refusals+1
			}, "the log says that a request was refused")
			s.free()
			s.ordinary(s.path)
			s.leave()
		})
	}
}

// A mount that is told to end does so, wherever the worker dies that is to
// answer those who wait.
func TestEveryStepOfStopping(t *testing.T) {
	// With nobody who waits, stopping changes nothing and answers nobody.
	steps := map[bool][]string{
		false: {"decided", "recorded"},
		true:  {"begun", "entry", "decided", "written", "committed", "entry applied", "applied", "recorded", "answered"},
	}
	for busy, steps := range steps {
		for _, step := range steps {
			t.Run(fmt.Sprintf("%s busy=%v", step, busy), func(t *testing.T) {
				m, p := crashMount(t)
				s := newScene(t, m, p)
				s.what, s.path = "stop", m.Path("lock")
				if busy {
					taken(s)
					s.wait = s.queue(s.b, unix.LOCK_EX, 1)
				}
				s.sync()
				p.arm(death{step: step})
				m.Signal(syscall.SIGTERM)
				if code := m.AwaitExit(t); code != 0 {
					t.Errorf("the daemon ended with %d, want 0", code)
				}
				if p.met() != 1 {
					t.Errorf("no worker died at %q", step)
				}
				if mountAt(m.Dir) != nil {
					t.Errorf("still mounted")
				}
				if s.wait != nil {
					if err := s.wait.Wait(t); err == nil {
						t.Errorf("the waiter has a lock on a mount that has ended")
					}
				}
			})
		}
	}
}

// A worker that is killed about when the mount is told to end.
func TestAWorkerKilledWhileStopping(t *testing.T) {
	for i := range 24 {
		m := mount(t)
		holder := newClient(t)
		holder.Open(m.Path("lock"), takeFlags)
		var waiter *Pending
		if i%2 == 0 {
			waiter = holder.StartFlock(holder.Open(m.Path("lock"), openFlags), unix.LOCK_EX)
			waiter.MustBlock(t)
		}
		worker := m.Worker()
		if worker == 0 {
			t.Fatal("there is no worker")
		}
		early := rand.IntN(2) == 0
		if early {
			syscall.Kill(worker, syscall.SIGKILL)
		}
		time.Sleep(rand.N(20 * time.Millisecond))
		m.Signal(syscall.SIGTERM)
		if !early {
			time.Sleep(rand.N(4 * time.Millisecond))
			if now := m.Worker(); now == worker {
				syscall.Kill(worker, syscall.SIGKILL)
			}
		}
		if code := m.AwaitExit(t); code != 0 {
			t.Fatalf("the daemon ended with %d, want 0", code)
		}
		if mountAt(m.Dir) != nil {
			t.Fatal("still mounted")
		}
		if waiter != nil {
			if err := waiter.Wait(t); err == nil {
				t.Fatal("the waiter has a lock on a mount that has ended")
			}
		}
		m.Stop()
		holder.Kill()
	}
}

// Memory for more records is taken in the middle of a request's transaction.
func TestTheStateGrowsUnderARequest(t *testing.T) {
	const most = 10_000 // calls until it must have grown
	for _, tc := range []struct {
		name   string
		opcode uint32
		call   func(s *scene, i int) error
	}{
		{"CREATE", opCreate, func(s *scene, i int) error {
			_, err := s.a.TryOpen(fmt.Sprint(s.path, i), takeFlags)
			return err
		}},
		{"OPEN", opOpen, func(s *scene, i int) error {
			if i == 0 {
				s.fd = s.open(s.b, takeFlags)
			}
			_, err := s.a.TryOpen(s.path, unix.O_RDWR)
			return err
		}},
		{"SETLK", opSetlk, func(s *scene, i int) error {
			if i == 0 {
				s.fd = s.open(s.a, openFlags)
			}
			return s.a.Fcntl(s.fd, unix.F_SETLK, wr(int64(2*i), 1))
		}},
		{"WRITE", opWrite, func(s *scene, i int) error {
			if i == 0 {
				s.fd = s.open(s.a, takeFlags)
			}
			_, err := s.a.Pwrite(s.fd, strings.Repeat("x", 1+i), 0)
			return err
		}},
		{"SETATTR", opSetattr, func(s *scene, i int) error {
			if i == 0 {
				s.fd = s.open(s.a, takeFlags)
			}
			return s.a.Ftruncate(s.fd, int64(i))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, p := crashMount(t)
			s := newScene(t, m, p)
			s.what, s.path = tc.name, m.Path("lock")
			var i int
			p.arm(death{step: "grown", opcode: tc.opcode}, death{step: "read", opcode: tc.opcode},
				death{step: "grown", opcode: tc.opcode})
			for ; i < most && p.met() < 3; i++ {
				if err := tc.call(s, i); err != nil {
					t.Fatalf("call %d: %v", i, err)
				}
			}
			if p.met() < 3 {
				t.Fatalf("%d of the deaths have come about in %d calls", p.met(), i)
			}
			p.disarm()
			n, err := s.look.Statfs(m.Dir)
			want := map[string]int{"CREATE": i, "SETLK": i}[tc.name]
			if err != nil || n != max(want, 1) {
				t.Errorf("%d holds after %d calls (%v)", n, i, err)
			}
			s.a.Kill()
			s.a = nil
			s.opened = slices.DeleteFunc(s.opened, func(f openFile) bool { return f.c != s.b })
			s.leave()
		})
	}
}

// 1.8: "loses no queue place": nor that of a request that is away, to find out
// something about its process, when the worker dies.
func TestAWaitThatIsAwayKeepsItsPlace(t *testing.T) {
	m, p := crashMount(t)
	path := m.Path("lock")
	a, b, c := newClient(t), newClient(t), newClient(t)
	mine := a.Open(path, openFlags)
	wantErr(t, "the first reader", a.Flock(mine, unix.LOCK_SH), nil)
	other := b.Open(path, openFlags)
	wantErr(t, "the second reader", b.Flock(other, unix.LOCK_SH), nil)

	// Whether a's own flock is in the way of its fcntl is what must be found
	// out.
	p.arm(death{step: "away", opcode: opSetlkw, pause: 300})
	first := a.StartFcntl(a.Open(path, openFlags), unix.F_SETLKW, unix.Flock_t{Type: unix.F_WRLCK})
	if !p.await(1) {
		t.Fatal("the wait takes no detour")
	}
	second := c.StartFlock(c.Open(path, openFlags), unix.LOCK_EX)
	waiting := func(n int) {
		t.Helper()
		eventually(t, answerLimit, func() bool {
			text, err := b.ReadAll(path)
			return err == nil && strings.HasSuffix(text, fmt.Sprintf("waiting=%d\n", n))
		}, fmt.Sprint(n, " wait"))
	}
	waiting(1)
	p.disarm()
	killWorker(t, m)
	waiting(2)
	wantErr(t, "the first reader's unlock", a.Flock(mine, unix.LOCK_UN), nil)
	wantErr(t, "the second reader's unlock", b.Flock(other, unix.LOCK_UN), nil)
	wantErr(t, "who came first", first.Wait(t), nil)
	second.MustBlock(t)
	a.Kill()
	wantErr(t, "who came second", second.Wait(t), nil)
}

// A close drops a process's fcntl locks that it has at that moment, and not those
// that it gets after: also if it is carried out by two workers.
func TestACloseIsCarriedOutOnce(t *testing.T) {
	m, p := crashMount(t)
	path := m.Path("lock")
	a := newClient(t)
	locker, other, own := a.Open(path, openFlags), a.Open(path, openFlags), a.Open(path, openFlags)
	// Whether a's own flock is in the way of its fcntl is what must be found
	// out.
	wantErr(t, "flock", a.Flock(own, unix.LOCK_SH), nil)
	p.arm(death{step: "away", opcode: opSetlkw, pause: 300}, death{step: "answered", opcode: opFlush})
	lock := a.StartFcntl(locker, unix.F_SETLKW, unix.Flock_t{Type: unix.F_WRLCK})
	if !p.await(1) {
		t.Fatal("the lock takes no detour")
	}
	// The next worker need not look: the lock is granted as soon as it is there.
	wantErr(t, "flock", a.Flock(own, unix.LOCK_UN), nil)
	wantErr(t, "close", a.Close(other), nil)
	wantErr(t, "lock", lock.Wait(t), nil)
	if !p.await(2) {
		t.Fatal("the worker has not died of the close")
	}
	p.disarm()
	b := newClient(t)
	err := b.Fcntl(b.Open(path, openFlags), unix.F_SETLK, unix.Flock_t{Type: unix.F_WRLCK})
	wantErr(t, "another's lock", err, unix.EAGAIN)
}
