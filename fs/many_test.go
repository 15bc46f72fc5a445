package fs_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// Thousands of holds that end at one moment end in many steps: a step keeps
// everybody waiting, and has to fit the journal.
func TestManyEndsAreManySteps(t *testing.T) {
	const holds, steps = 1000, 7
	for how, end := range map[string]func(s *served){
		"their lease ran out": func(*served) { time.Sleep(10 * time.Second) },
		"their process died":  func(s *served) { s.procs.end(123) },
	} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, "hold=name,lease=10s", func(t *testing.T, s *served) {
				for i := range holds {
					s.body(fmt.Sprint(i), unix.O_EXCL, "123\n")
				}
				s.journal.look(func() { s.journal.commits = 0 })
				end(s)
				synctest.Wait()
				s.journal.look(func() {
					if n := s.journal.commits; n < steps {
						t.Errorf("%d steps for %d holds, want %d at least", n, holds, steps)
					}
				})
				if n := len(s.list()); n != 0 {
					t.Errorf("%d names are left", n)
				}
			})
		})
	}
}

// Directories in each other, each taken a moment after the one that it is in: the
// innermost lapses last, and all go with it. What the log says of them is short.
func TestDeepDirectoriesLapse(t *testing.T) {
	const depth = 300
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		s := serveInBubble(t, func(o *fs.Options) {
			o.Policy = mustPolicy(t, "lease=10s")
			o.Log = slog.New(slog.NewTextHandler(&log, nil))
		})
		dir := uint64(1)
		for range depth {
			made, errno := s.mkdir(dir, strings.Repeat("d", 200))
			if errno != 0 {
				t.Fatal(errno)
			}
			s.send(opForget, made, u64(1))
			dir = made
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s.wantListed(t, "afterwards")
		if n := s.fs.Counts().Nodes; n != 1 {
			t.Errorf("%d nodes, want the root", n)
		}
	})
	for line := range strings.Lines(log.String()) {
		if len(line) > 16<<10 {
			t.Fatalf("a line of %d bytes in the log", len(line))
		}
	}
}
