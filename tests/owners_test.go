package tests

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// Part 4: libvirt's flows with files alone, by a script that fails at the first thing
// that is not as it should be.
func TestOwnersInAScript(t *testing.T) {
	t.Run("two hosts over one directory", func(t *testing.T) {
		dir := t.TempDir()
		here, there := mount(t, "--backing", dir), mount(t, "--backing", dir)
		wantFlows(t, here, there)
	})
	t.Run("and workers that die all the time", func(t *testing.T) {
		dir := t.TempDir()
		here, there := mount(t, "--backing", dir), mount(t, "--backing", dir)
		keepKilling(t, here, there)
		wantFlows(t, here, there)
	})
}

// keepKilling has the workers of some mounts die all the time, until the test is over.
func keepKilling(t *testing.T, mounts ...*Mount) {
	for _, m := range mounts {
		startKiller(t, m, 200*time.Millisecond)
	}
}

// flowsLimit is how long the script may run.
const flowsLimit = 2 * time.Minute

func wantFlows(t *testing.T, here, there *Mount) {
	t.Helper()
	script, err := filepath.Abs("ownerflows")
	if err != nil {
		t.Fatal(err)
	}
	out, said, exit := runFor(t, flowsLimit, nil, script, here.Dir, there.Dir)
	if exit != 0 || out != "ownerflows: all is well\n" {
		t.Fatalf("exit %d: %s%s", exit, out, said)
	}
}

// The same, and the lock manager of the RFC, by the Go packages, from a process that is
// a stranger to the daemon.
func TestOwnersInGo(t *testing.T) {
	for _, killing := range []bool{false, true} {
		t.Run(fmt.Sprintf("workers die=%v", killing), func(t *testing.T) {
			dir := t.TempDir()
			here, there := mount(t, "--backing", dir), mount(t, "--backing", dir)
			if killing {
				keepKilling(t, here, there)
			}
			for _, args := range [][]string{{"driver", here.Dir, there.Dir, t.TempDir()}, {"manager", here.Dir, t.TempDir()}} {
				argv := append([]string{program(t, "client"), "owners"}, args...)
				out, said, exit := runFor(t, flowsLimit, []clientOption{withEnv(clientEnv + "=1")}, argv...)
				if exit != 0 {
					t.Errorf("%s: exit %d: %s%s", args[0], exit, out, said)
				}
			}
		})
	}
}
