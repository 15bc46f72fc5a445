package tests

import (
	"os"
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
		over := make(chan struct{})
		defer close(over)
		go func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				case <-time.After(100 * time.Millisecond):
				}
				// One that is about to be replaced is not there for a moment.
				if worker := []*Mount{here, there}[i%2].Worker(); worker != 0 {
					if p, err := os.FindProcess(worker); err == nil {
						_ = p.Kill()
					}
				}
			}
		}()
		wantFlows(t, here, there)
	})
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
