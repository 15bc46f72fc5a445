package tests

import (
	"fmt"
	"syscall"
	"testing"
	"time"
)

// This file is what the tools do in hold=name lockspaces with reap=pid.

// TestDeadHoldersAreReaped: with reap=pid, a lock whose file names a process is
// free when that process dies, for every tool.
func TestDeadHoldersAreReaped(t *testing.T) {
	m := mount(t, "--policy", "hold=name,reap=pid")
	m.Deadline(5 * time.Minute)
	for i, k := range tools(t) {
		if k.body != pidBody {
			continue
		}
		path := fmt.Sprintf("%s/id-%d", m.Dir, i)
		victim := k.start(t, path)
		victim.Held(t)
		syscall.Kill(-victim.Pid(), syscall.SIGKILL)
		victim.stdin.Close()
		victim.awaitExit(t)
		for _, next := range tools(t) {
			if next.name != "ln -sT" && next.name != "bash set -C" && next.name != "lockfile" {
				continue // these never take over by themselves
			}
			eventually(t, answerLimit, func() bool {
				p := next.start(t, path)
				got := p.got(t)
				p.Release(t)
				return got
			}, next.name+" gets what a dead "+k.name+" held")
		}
	}
}
