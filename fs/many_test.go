package fs_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
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
