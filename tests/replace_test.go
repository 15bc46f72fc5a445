package tests

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Replacing the program is the same path, on purpose (1.8).
func TestHangupReplacesTheWorkerAndNobodyNotices(t *testing.T) {
	m := mount(t)
	holder := newClient(t)
	fd := holder.Open(m.Path("lock"), takeFlags)
	first := queueUp(t, m.Path("lock"), exclusively)
	second := queueUp(t, m.Path("lock"), exclusively)
	keeper := m.Pid()
	for n := range 5 {
		before := m.Worker()
		m.Signal(syscall.SIGHUP)
		eventually(t, answerLimit, func() bool {
			now := m.Worker()
			return now != 0 && now != before
		}, "another worker serves")
		eventually(t, answerLimit, func() bool {
			return strings.Count(m.Stderr(), `msg="the program was replaced"`) == n+1
		}, "the keeper is replaced too")
		if m.Pid() != keeper {
			t.Fatalf("process %d ended", keeper)
		}
		wantHolder(t, m.Path("lock"), holder.Pid())
	}
	_, err := newClient(t).TryOpen(m.Path("lock"), takeFlags)
	wantErr(t, "another taker", err, syscall.EEXIST)
	wantErr(t, "close", holder.Close(fd), nil)
	wantErr(t, "the first waiter", first.wait.Wait(t), nil)
	second.wait.MustBlock(t)
	first.Kill()
	wantErr(t, "the second waiter", second.wait.Wait(t), nil)
}

// A program reads until nothing more comes. What comes in between does not make
// a record longer that it is in the middle of.
func TestARecordEndsWhereItDidWhenTheWorkerIsReplaced(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder, reader := newClient(t), newClient(t)
	wantErr(t, "the first holder", holder.Flock(holder.Open(path, openFlags), unix.LOCK_SH), nil)
	fd := reader.Open(path, openFlags)
	text, err := reader.Pread(fd, 4096, 0)
	wantErr(t, "reading", err, nil)
	other := holder.Open(path, openFlags)
	wantErr(t, "the second holder", holder.Flock(other, unix.LOCK_SH), nil)
	hangUp(t, m)
	for _, from := range []int{len(text), len(text) - 5} {
		got, err := reader.Pread(fd, 4096, int64(from))
		wantErr(t, "reading on", err, nil)
		if want := text[from:]; got != want {
			t.Errorf("from %d of %d bytes on there are %q, want %q", from, len(text), got, want)
		}
	}
	all, err := reader.Pread(fd, 4096, 0)
	wantErr(t, "reading anew", err, nil)
	if len(all) <= len(text) {
		t.Errorf("read anew, it is %q", all)
	}
	// What there is now is gone at once when nobody holds the lock.
	holder.Kill()
	if rest, err := reader.Pread(fd, 4096, 0); rest != "" || err != nil {
		t.Errorf("of a free lock there is %q, %v", rest, err)
	}
}
