package tests

import (
	"strings"
	"syscall"
	"testing"
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
