package fs_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
)

// scarce is a Tokens of which none may be left.
type scarce struct {
	lockspace.Counter
	out atomic.Bool
}

func (s *scarce) Left() uint64 {
	if s.out.Load() {
		return 0
	}
	return s.Counter.Left()
}

// 1.7: "health: one line ok or what is wrong".
func TestHealth(t *testing.T) {
	tokens := new(scarce)
	s := serveWith(t, func(o *fs.Options) { o.Tokens = tokens })
	const ok, noTokens, ending = "ok\n", "no fencing tokens are left", "the mount is ending"
	for _, c := range []struct {
		change func()
		want   []string
	}{
		{func() {}, []string{ok}},
		{func() { tokens.out.Store(true) }, []string{noTokens}},
		{func() { tokens.out.Store(false) }, []string{ok}},
		{func() { s.conn.Do(func() { s.fs.Shutdown() }) }, []string{ending}},
		{func() { tokens.out.Store(true) }, []string{noTokens, ending}},
	} {
		c.change()
		text := s.readAll(4096, ".lockfs", "health")
		parts := strings.Split(text, "; ")
		if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, "\n") || len(parts) != len(c.want) {
			t.Errorf("health is %q, want one line with %q", text, c.want)
			continue
		}
		for i, want := range c.want {
			if !strings.HasPrefix(parts[i], want) {
				t.Errorf("health is %q, want %q", text, c.want)
			}
		}
	}
}
