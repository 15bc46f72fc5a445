package tests

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.5: "Waiters are served first come, first served."

// queued is a client that waits for a lock.
type queued struct {
	*Client
	fd   int
	wait *Pending
}

// queueUp starts a client and lets it wait for path.
func queueUp(t testing.TB, path string, start func(c *Client, fd int) *Pending) queued {
	t.Helper()
	c := newClient(t)
	q := queued{Client: c, fd: c.Open(path, openFlags)}
	q.wait = start(c, q.fd)
	q.wait.MustBlock(t)
	return q
}

func exclusively(c *Client, fd int) *Pending { return c.StartFlock(fd, unix.LOCK_EX) }
func shared(c *Client, fd int) *Pending      { return c.StartFlock(fd, unix.LOCK_SH) }
func byPOSIX(c *Client, fd int) *Pending     { return c.StartFcntl(fd, unix.F_SETLKW, wr(0, toEnd)) }
func byOFD(c *Client, fd int) *Pending       { return c.StartFcntl(fd, unix.F_OFD_SETLKW, wr(0, toEnd)) }

func TestFirstComeFirstServed(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := newClient(t)
	holder.Open(path, takeFlags)
	ways := []func(*Client, int) *Pending{exclusively, byPOSIX, byOFD}
	var queue []queued
	for i := range 9 {
		queue = append(queue, queueUp(t, path, ways[i%len(ways)]))
	}
	holder.Kill()
	for i, q := range queue {
		wantErr(t, fmt.Sprint("waiter ", i), q.wait.Wait(t), nil)
		for j, later := range queue[i+1:] {
			if later.wait.Done() {
				t.Fatalf("waiter %d has the lock together with %d", i+1+j, i)
			}
		}
		if i%2 == 0 {
			q.Kill()
		} else {
			wantErr(t, "close", q.Close(q.fd), nil)
		}
	}
}

// "Readers that arrive after a waiting writer wait behind it; readers next to
// each other in the queue enter together."
func TestReadersBehindAWaitingWriterWait(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := newClient(t)
	fd := holder.Open(path, openFlags)
	wantErr(t, "the first reader", holder.Flock(fd, unix.LOCK_SH), nil)

	writer := queueUp(t, path, exclusively)
	reader := queueUp(t, path, shared)
	byFcntl := queueUp(t, path, func(c *Client, fd int) *Pending {
		return c.StartFcntl(fd, unix.F_SETLKW, rd(5, 1))
	})
	wantErr(t, "unlock", holder.Flock(fd, unix.LOCK_UN), nil)
	wantErr(t, "the writer", writer.wait.Wait(t), nil)
	reader.wait.MustBlock(t)
	byFcntl.wait.MustBlock(t)
	writer.Kill()
	wantErr(t, "the reader", reader.wait.Wait(t), nil)
	wantErr(t, "the reader by fcntl", byFcntl.wait.Wait(t), nil)
}

func TestReadersNextToEachOtherEnterTogether(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := newClient(t)
	holder.Open(path, takeFlags)
	one, two := queueUp(t, path, shared), queueUp(t, path, shared)
	writer := queueUp(t, path, byPOSIX)
	late := queueUp(t, path, shared)

	holder.Kill()
	wantErr(t, "reader one", one.wait.Wait(t), nil)
	wantErr(t, "reader two", two.wait.Wait(t), nil)
	writer.wait.MustBlock(t)
	late.wait.MustBlock(t)
	one.Kill()
	writer.wait.MustBlock(t)
	two.Kill()
	wantErr(t, "the writer", writer.wait.Wait(t), nil)
	late.wait.MustBlock(t)
	writer.Kill()
	wantErr(t, "the late reader", late.wait.Wait(t), nil)
}

// Waiters for bytes that do not touch do not wait for each other.
func TestWaitersForOtherBytesDoNotStandInTheWay(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder, other := newClient(t), newClient(t)
	wantErr(t, "holder", holder.Fcntl(holder.Open(path, openFlags), unix.F_SETLK, wr(0, 10)), nil)
	waiter := queueUp(t, path, func(c *Client, fd int) *Pending {
		return c.StartFcntl(fd, unix.F_SETLKW, wr(0, 10))
	})
	wantErr(t, "another's bytes", other.Fcntl(other.Open(path, openFlags), unix.F_SETLK, wr(10, 10)), nil)
	holder.Kill()
	wantErr(t, "the waiter", waiter.wait.Wait(t), nil)
}

// "A wait that the kernel restarts (a stopped and continued process sends
// INTERRUPT and the same request anew) keeps its place if it returns within a
// second."
func TestAStoppedAndContinuedWaiterKeepsItsPlace(t *testing.T) {
	m := mount(t)
	for _, way := range []struct {
		name  string
		start func(*Client, int) *Pending
	}{{"flock", exclusively}, {"POSIX", byPOSIX}, {"OFD", byOFD}, {"flock shared", shared}} {
		t.Run(way.name, func(t *testing.T) {
			path := m.Path("lock")
			holder := newClient(t)
			holder.Open(path, takeFlags)
			first := queueUp(t, path, way.start)
			second := queueUp(t, path, exclusively)
			for range 3 {
				first.Signal(syscall.SIGSTOP)
				time.Sleep(200 * time.Millisecond)
				first.Signal(syscall.SIGCONT)
				first.wait.MustBlock(t)
			}
			holder.Kill()
			wantErr(t, "the first", first.wait.Wait(t), nil)
			second.wait.MustBlock(t)
			first.Kill()
			wantErr(t, "the second", second.wait.Wait(t), nil)
		})
	}
}

// A stopped waiter keeps nobody from the lock, and stays in front of those who
// come later.
func TestAStoppedWaiterDoesNotHoldUpTheQueue(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := newClient(t)
	holder.Open(path, takeFlags)
	first, second := queueUp(t, path, exclusively), queueUp(t, path, exclusively)
	third := queueUp(t, path, exclusively)

	first.Signal(syscall.SIGSTOP)
	time.Sleep(50 * time.Millisecond)
	holder.Kill()
	wantErr(t, "the second", second.wait.Wait(t), nil) // at the latest after a second
	first.Signal(syscall.SIGCONT)
	first.wait.MustBlock(t)
	third.wait.MustBlock(t)
	second.Kill()
	eventually(t, answerLimit, func() bool { return first.wait.Done() || third.wait.Done() }, "the next gets the lock")
	if third.wait.Done() {
		third.Kill()
	} else {
		first.Kill()
	}
}

// "Interrupting or killing a waiter ends its wait at once."
func TestAKilledWaiterLeavesAtOnce(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := newClient(t)
	fd := holder.Open(path, takeFlags)
	first, second := queueUp(t, path, exclusively), queueUp(t, path, exclusively)
	awaitWaiters(t, m, "lock", 2)

	start := time.Now()
	first.Kill()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the waiter took %v to die", took)
	}
	awaitWaiters(t, m, "lock", 1)
	wantErr(t, "close", holder.Close(fd), nil)
	wantErr(t, "the second", second.wait.Wait(t), nil)
}

func TestAnInterruptedWaiterLeavesAtOnce(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGALRM} {
		t.Run(sig.String(), func(t *testing.T) {
			holder := newClient(t)
			fd := holder.Open(path, takeFlags)
			p := startProcess(t, nil, "flock", path, "true")
			awaitWaiters(t, m, "lock", 1)
			start := time.Now()
			p.Signal(sig)
			p.awaitExit(t)
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("flock took %v to end", took)
			}
			awaitWaiters(t, m, "lock", 0)
			wantErr(t, "close", holder.Close(fd), nil)
			wantFree(t, path)
		})
	}
}

// flock -w gives up by an alarm; whoever stands behind it moves up.
func TestAWaiterThatGivesUpLeavesTheQueue(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := newClient(t)
	fd := holder.Open(path, takeFlags)
	impatient := startProcess(t, nil, "flock", "-w", "3", path, "true")
	awaitWaiters(t, m, "lock", 1)
	second := queueUp(t, path, exclusively)
	impatient.Refused(t)
	second.wait.MustBlock(t)
	wantErr(t, "close", holder.Close(fd), nil)
	wantErr(t, "the second", second.wait.Wait(t), nil)
}

// Only the waiter whose bytes are free moves up; a thread that waits does not
// keep its process from other calls.
func TestAWaitingThreadLeavesTheOthersAlone(t *testing.T) {
	m := mount(t)
	holder, c := newClient(t), newClient(t)
	holder.Open(m.Path("lock"), takeFlags)
	wait := c.StartFlock(c.Open(m.Path("lock"), openFlags), unix.LOCK_EX)
	wait.MustBlock(t)
	for i := range 20 {
		fd := c.Open(m.Path(fmt.Sprint("other", i)), takeFlags)
		wantErr(t, "close", c.Close(fd), nil)
		wantListed(t, c, m, "lock")
	}
	if _, err := c.ReadAll(m.Path("lock")); err != nil {
		t.Errorf("reading while waiting: %v", err)
	}
}
