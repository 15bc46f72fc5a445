package fs

import (
	"log/slog"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What does not work outside is tried again, later and later, and at once when the reason
// may have gone.
func TestWhatFailedIsTriedAgain(t *testing.T) {
	f := &FS{made: newMadeNames(), log: slog.New(slog.DiscardHandler)}
	x := &made{MadeRecord: MadeRecord{State: nameGoing}}
	x.Outside.Path = "d"
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		before := time.Now()
		f.failed(x, "", unix.EIO)
		if f.lookedAfter(); len(f.made.ends) != 0 {
			t.Fatalf("it is tried again at once after %d failures", i+1)
		}
		if d := x.due.Sub(before); d < want*time.Second || d > want*time.Second+time.Minute/4 {
			t.Errorf("after %d failures it is tried again in %v, want %v s", i+1, d, want)
		}
		f.failed(x, "", unix.EIO) // of who asks for the name meanwhile
		x.failures--
		if len(f.made.failed) != 1 {
			t.Fatalf("it has failed %d times over", len(f.made.failed))
		}
		x.due = time.Now()
		f.lookedAfter()
		if len(f.made.ends) != 1 || len(f.made.failed) != 0 {
			t.Fatalf("it is not tried again after %d failures", i+1)
		}
		f.made.ends = nil
	}
	f.failed(x, "", unix.ENOTEMPTY)
	in := &made{}
	in.Outside.Path = "d/in"
	if f.removeAround(in); len(f.made.ends) != 1 || len(f.made.failed) != 0 {
		t.Error("it is not tried again when what was in it is gone")
	}
}
