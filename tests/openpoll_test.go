package tests

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pollRdNorm is POLLRDNORM.
const pollRdNorm = 0x40

// "POLLIN against the file descriptor of a held lock signifies" that somebody
// waits for it: poll and epoll, level- and edge-triggered, as C and Go programs
// use them, at once and from their sleep.
func TestPollTellsAHolderThatSomebodyWaits(t *testing.T) {
	m := mountByOpen(t)
	path := m.Path("lock")
	a, b := newClient(t), newClient(t)
	const all = unix.POLLIN | unix.POLLOUT | pollRdNorm
	fd, err := a.TryOSOpen(path, unix.O_RDWR|unix.O_CREAT)
	wantErr(t, "open", err, nil)
	ready := func(want int) {
		t.Helper()
		if got, err := a.Poll(fd, all); err != nil || got != want {
			t.Errorf("poll says %#x (%v), want %#x", got, err, want)
		}
	}
	for round := range 3 {
		ready(0)
		sleeping := []*Pending{
			a.StartPoll(fd, all, -1),
			a.StartEpoll(fd, unix.EPOLLIN, -1),
			a.StartEpoll(fd, unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLET, -1),
			a.StartOSAwait(fd),
		}
		for _, p := range sleeping {
			p.MustBlock(t)
		}
		if round == 2 {
			killWorker(t, m) // who sleeps is known to the next one
		}
		p := startProcess(t, nil, program(t, "opens"), "wait", "r", path)
		for i, s := range sleeping {
			wantErr(t, fmt.Sprint("sleeper ", i), s.Wait(t), nil)
		}
		if got := sleeping[0].Number(); got != unix.POLLIN|pollRdNorm {
			t.Errorf("poll woke up with %#x", got)
		}
		if got := sleeping[2].Number(); got != unix.EPOLLIN {
			t.Errorf("epoll woke up with %#x", got)
		}
		ready(unix.POLLIN | pollRdNorm)
		p.Kill(t)
		eventually(t, answerLimit, func() bool {
			got, err := a.Poll(fd, all)
			return err == nil && got == 0
		}, "nobody waits any more")
	}
	wantErr(t, "close", a.OSClose(fd), nil)

	// Readers are told of a writer, and the next holder of who is left.
	mine, other := a.Open(path, unix.O_RDONLY), b.Open(path, unix.O_RDONLY)
	one, two := a.StartPoll(mine, unix.POLLIN, -1), b.StartPoll(other, unix.POLLIN, -1)
	one.MustBlock(t)
	writer := startProcess(t, nil, program(t, "opens"), "wait", "w", path)
	wantErr(t, "poll", one.Wait(t), nil)
	wantErr(t, "poll", two.Wait(t), nil)
	wantErr(t, "close", a.Close(mine), nil)
	next := a.StartOpen(path, unix.O_WRONLY)
	waiting(t, b, other, 2)
	last := startProcess(t, nil, program(t, "opens"), "wait", "w", path)
	waiting(t, b, other, 3)
	wantErr(t, "close", b.Close(other), nil)
	writer.Held(t)
	writer.Release(t)
	wantErr(t, "open", next.Wait(t), nil)
	if got, err := a.Poll(next.Number(), all); err != nil || got != unix.POLLIN|pollRdNorm {
		t.Errorf("poll of the next holder says %#x (%v)", got, err)
	}
	wantErr(t, "close", a.Close(next.Number()), nil)
	last.Held(t)
	last.Release(t)

	if strings.Contains(m.Stderr(), "refused by the kernel") {
		t.Error("the kernel has refused a notification")
	}

	// Elsewhere files are always ready.
	m = mount(t)
	fd = a.Open(m.Path("lock"), takeFlags)
	if got, err := a.Poll(fd, all); err != nil || got != all {
		t.Errorf("poll elsewhere says %#x (%v)", got, err)
	}
}

// Many count in the lock value block, each with the lock, while workers are
// killed: no count is lost, and no call fails.
func TestCountingInTheLockValueBlock(t *testing.T) {
	m := mountByOpen(t)
	m.Deadline(stressLimit)
	path := m.Path("lock")
	const clients, rounds = 6, 60
	first := newClient(t)
	fd := first.Open(path, openFlags)
	wantErr(t, "write", first.Write(fd, "00000"), nil)
	wantErr(t, "close", first.Close(fd), nil)
	outcome := make(chan error, clients)
	for range clients {
		c := newClient(t)
		go func() { outcome <- count(c, path, rounds) }()
	}
	for left := clients; left > 0; {
		select {
		case err := <-outcome:
			left--
			wantErr(t, "counting", err, nil)
		case <-time.After(20 * time.Millisecond):
			killWorker(t, m)
		}
	}
	if text, err := first.ReadAll(path); err != nil || text != fmt.Sprintf("%05d", clients*rounds) {
		t.Errorf("counted %s (%v), want %d", text, err, clients*rounds)
	}
	wantNobodyHolds(t, m)
}

// count adds one to the number in a lock value block, some times.
func count(c *Client, path string, times int) error {
	for range times {
		p := c.StartOpen(path, unix.O_RDWR)
		<-p.done
		if p.err != nil {
			return fmt.Errorf("open: %w", p.err)
		}
		fd := p.Number()
		text, err := c.Pread(fd, 100, 0)
		n, notANumber := strconv.Atoi(text)
		if err == nil {
			err = notANumber
		}
		if err == nil {
			_, err = c.Pwrite(fd, fmt.Sprintf("%05d", n+1), 0)
		}
		if err = errors.Join(err, c.Close(fd)); err != nil {
			return err
		}
	}
	return nil
}
