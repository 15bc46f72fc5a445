package device

import (
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// tellingLedger says on standard output that a step was committed.
type tellingLedger struct{ volatile }

func (tellingLedger) Commit(Slot, [][]byte, bool) { _, _ = os.Stdout.WriteString("commit\n") }

type noFilesystem struct{ Filesystem }

func (noFilesystem) EndStep() {}

func (noFilesystem) Committed() {}

const envPanic = "LOCKFS_TEST_PANIC"

// A step that panics ends the process. Until that has ended, no other step may
// be made: it would commit what the first left half done.
func TestAfterAPanicNothingIsCommitted(t *testing.T) {
	if os.Getenv(envPanic) != "" {
		panicInAStep()
	}
	for range 20 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), envPanic+"=1")
		out, err := cmd.CombinedOutput()
		_, after, panicked := strings.Cut(string(out), "panic now\n")
		if err == nil || !panicked {
			t.Fatalf("no panic: %v\n%s", err, out)
		}
		if strings.Contains(after, "commit\n") {
			t.Fatal("another step was committed after the panic")
		}
	}
}

// panicInAStep does so while others wait for their turn.
func panicInAStep() {
	c := New(-1, tellingLedger{}, slog.Default())
	c.fs = noFilesystem{}
	started := make(chan struct{})
	c.Do(func() {
		for range 3 {
			go func() {
				started <- struct{}{}
				c.Do(func() {})
			}()
			<-started
		}
		time.Sleep(5 * time.Millisecond)
		_, _ = os.Stdout.WriteString("panic now\n")
		panic("half a step")
	})
}
