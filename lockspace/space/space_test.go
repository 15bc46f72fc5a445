package space_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lockfs/lockfs/lockspace/space"
	"github.com/lockfs/lockfs/lockspace/space/spacetest"
)

// newWorld is the cases' world in this process: two spaces in one process exclude
// each other like two in two.
func newWorld(t *testing.T) *spacetest.World {
	above := t.TempDir()
	return &spacetest.World{
		TB:  t,
		Dir: filepath.Join(above, "space"),
		New: func(dir string) (spacetest.Space, error) {
			s, err := space.New(dir)
			if err == nil {
				t.Cleanup(func() { s.Close() })
			}
			return s, err
		},
		Run: func(script string, args ...string) string {
			cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
			cmd.Dir = above
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s: %v", script, err)
			}
			return string(out)
		},
	}
}

func TestSpacesOfOneProcess(t *testing.T) {
	for _, c := range spacetest.Cases {
		t.Run(c.Name, func(t *testing.T) { c.Run(newWorld(t)) })
	}
}
