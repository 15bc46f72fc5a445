//go:build matrix

package tests

import (
	"testing"
	"time"
)

// TestMatrix: in a hold=name lockspace every tool excludes every other.
func TestMatrix(t *testing.T) {
	m := mount(t, "--policy", "hold=name")
	m.Deadline(5 * time.Minute)
	mustHaveNoHoles(t, runMatrix(t, m.Dir, tools(t)))
}
