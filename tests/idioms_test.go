package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// 1.2: "Whatever call takes a lock, it excludes every other call that would.
// All of these meet in the same table."

// TestWhatOneIdiomHoldsNoOtherTakes: for every ordered pair of idioms the
// second is refused while the first holds, unless both share, and gets in
// after it.
func TestWhatOneIdiomHoldsNoOtherTakes(t *testing.T) {
	m := mount(t)
	m.Deadline(3 * time.Minute)
	all := takers(t)
	for i, first := range all {
		t.Run(first.name, func(t *testing.T) {
			path := m.Path(fmt.Sprint("lock", i))
			holder := startProcess(t, nil, first.try(path)...)
			holder.Held(t)
			for _, second := range all {
				p := startProcess(t, nil, second.try(path)...)
				if first.shared && second.shared {
					p.Held(t)
					p.Release(t)
				} else {
					p.Refused(t)
				}
			}
			holder.Release(t)
			for _, second := range all {
				p := startProcess(t, nil, second.try(path)...)
				p.Held(t)
				p.Release(t)
			}
		})
	}
}

// TestEveryIdiomWaitsForEveryOther: those that can wait do so until the holder
// has gone.
func TestEveryIdiomWaitsForEveryOther(t *testing.T) {
	m := mount(t)
	m.Deadline(3 * time.Minute)
	all := takers(t)
	for i, first := range all {
		t.Run(first.name, func(t *testing.T) {
			// A name for each pair, so that all pairs wait at the same time.
			holders, waiters := []*process{}, []*process{}
			for j, second := range all {
				if second.wait == nil || first.shared && second.shared {
					continue
				}
				path := m.Path(fmt.Sprintf("lock%d-%d", i, j))
				holder := startProcess(t, nil, first.try(path)...)
				holder.Held(t)
				holders = append(holders, holder)
				waiters = append(waiters, startProcess(t, nil, second.wait(path)...))
			}
			mustAllBlock(t, waiters)
			for _, h := range holders {
				h.Release(t)
			}
			for _, w := range waiters {
				w.Held(t)
				w.Release(t)
			}
		})
	}
}

// mustAllBlock fails the test if one of the processes gets its lock or ends
// within a time that is enough for all of them to start.
func mustAllBlock(t *testing.T, waiters []*process) {
	t.Helper()
	time.Sleep(3 * blockTime)
	for _, w := range waiters {
		select {
		case <-w.held:
			t.Fatalf("%q said %q, want it to wait for the lock: %s", w.cmd.Args, w.said(), w.stderr)
		default:
		}
	}
}

// TestAllIdiomsQueueOnOneLock: programs of every kind wait on one name and get
// it one at a time in the order in which they came (1.5).
func TestAllIdiomsQueueOnOneLock(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := startProcess(t, nil, script("bash", `set -C; exec 9>"$1"; `+keep)(path)...)
	holder.Held(t)
	var queue []*process
	for _, k := range takers(t) {
		if k.wait == nil || k.shared {
			continue
		}
		p := startProcess(t, nil, k.wait(path)...)
		queue = append(queue, p)
		awaitWaiters(t, m, "lock", len(queue))
	}
	mustAllBlock(t, queue)
	for i, p := range queue {
		holder.Release(t)
		p.Held(t)
		for _, later := range queue[i+1:] {
			select {
			case <-later.held:
				t.Fatalf("%q came before %q: %s", later.cmd.Args, p.cmd.Args, later.stderr)
			default:
			}
		}
		holder = p
	}
	holder.Release(t)
	if out, _ := sh(t, m, `ls`); out != "" {
		t.Errorf("ls after all have gone: %q", out)
	}
}

// awaitWaiters waits until so many wait for a lock, as its record tells (1.4).
func awaitWaiters(t testing.TB, m *Mount, name string, n int) {
	t.Helper()
	c := newClient(t, asUser(m.uid, m.gid))
	defer c.Kill()
	want := fmt.Sprintf("\nwaiting=%d\n", n)
	var last string
	for end := time.Now().Add(answerLimit); ; time.Sleep(5 * time.Millisecond) {
		text, err := c.ReadAll(m.Path(name))
		if err == nil && strings.Contains(text, want) {
			return
		}
		last = fmt.Sprintf("%q (%v)", text, err)
		if time.Now().After(end) {
			t.Fatalf("%s: want %d waiting, the record says %s", name, n, last)
		}
	}
}
