package tests

import (
	"strings"
	"testing"
	"time"
)

// Real tools that lock by making a name, on the mount against the same tool in the
// backing directory, both ways.

// bothSides returns the tools that hold by a name, but for those whose lock is what is
// in a directory: ordinary files are not outside.
func bothSides(t testing.TB) (all []tool) {
	for _, k := range tools(t) {
		if k.family == byTheName && !k.handle && k.made != aDirectory {
			all = append(all, k)
		}
	}
	return all
}

func TestToolsOnBothSides(t *testing.T) {
	m := mountBacked(t, "--policy", holdByName)
	m.Deadline(3 * time.Minute)
	for _, k := range bothSides(t) {
		t.Run(k.name, func(t *testing.T) {
			name := "lock-" + strings.Map(func(r rune) rune {
				if r == ' ' || r == '>' {
					return '_'
				}
				return r
			}, k.name)
			sides := []string{m.Path(name), m.Behind(name)}
			for i, side := range sides {
				other := sides[1-i]
				holder := k.start(t, side)
				holder.Held(t)
				k.start(t, other).Refused(t)
				k.start(t, side).Refused(t)
				killWorker(t, m.Mount)
				k.start(t, other).Refused(t)
				holder.Release(t)
				holder = k.start(t, other)
				holder.Held(t)
				holder.Release(t)
			}
			if k.pkg == "" {
				return // these leave files of their own, for which the locks are
			}
			wantBehind(t, m)
			wantListed(t, newClient(t), m.Mount)
		})
	}
}
