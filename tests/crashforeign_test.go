package tests

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A worker dies when a directory that strangers have made is looked up for the first
// time, when nothing has changed, and when they have removed it: to who looks it is
// what it is outside.
func TestEveryStepOfAForeignDirectory(t *testing.T) {
	backing := t.TempDir()
	m, p := crashMount(t, "--backing", backing)
	m.Deadline(stressLimit)
	s := namesScene(t, m, p)
	s.backing = backing
	met := 0
	for i, step := range outsideSteps {
		for pass := range uint32(2) {
			for _, change := range []string{"made", "as it was", "removed"} {
				s.name = fmt.Sprintf("foreign%d.%d", i, pass)
				s.path = m.Path(s.name)
				d := death{step: step, opcode: opLookup, pass: pass}
				s.what = fmt.Sprintf("%s, death at %v", change, d)
				want, err := error(nil), error(nil)
				switch change {
				case "made":
					err = os.Mkdir(s.behind(), 0o750)
				case "removed":
					err, want = os.Remove(s.behind()), unix.ENOENT
				}
				s.want("the stranger's call", err, nil)
				s.sync()
				p.arm(d)
				at, err := s.a.Stat(s.path)
				s.want("stat", err, want)
				s.sync()
				met += p.met()
				p.disarm()
				if err == nil && at.Mode != unix.S_IFDIR|0o750 {
					s.errorf("its mode is %o", at.Mode)
				}
				if change != "removed" {
					s.want("mkdir", s.b.Name("mkdir", 0o755, s.path), unix.EEXIST)
				}
			}
		}
	}
	if want := 3 * len(everyStep); met < want {
		t.Errorf("%d workers died, want %d at least", met, want)
	}
	t.Logf("%d deaths", met)
	wantListed(t, s.a, m)
}
