package space_test

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockspace/space"
)

// Spaces take, delete, make and give back one resource all the time: whatever file
// it is just now, nobody is inside together with a writer.
func TestNobodyIsInsideTogether(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "space")
	var inside atomic.Int64 // readers; a writer counts for a million
	const writer = 1_000_000
	var wait sync.WaitGroup
	var got, refused atomic.Int64
	end := time.Now().Add(time.Second)
	for range 8 {
		s, err := space.New(dir)
		if err != nil {
			t.Fatal(err)
		}
		wait.Go(func() {
			for time.Now().Before(end) {
				if rand.N(4) == 0 {
					if err := s.CreateResource("foo"); err != nil {
						t.Errorf("create: %v", err)
					}
					if err := s.DeleteResource("foo"); err != nil && !errors.Is(err, space.ErrBusy) {
						t.Errorf("delete: %v", err)
					}
				}
				flags := space.Flags(rand.N(4))
				switch err := s.AcquireResource("foo", 1, flags); {
				case errors.Is(err, space.ErrBusy) || errors.Is(err, space.ErrNoResource):
					refused.Add(1)
					continue
				case err != nil:
					t.Errorf("acquire: %v", err)
					return
				}
				got.Add(1)
				mine := int64(1)
				if flags&space.Shared == 0 {
					mine = writer
				}
				if now := inside.Add(mine); now >= writer && now != writer {
					t.Errorf("%d are inside together", now)
				}
				inside.Add(-mine)
				if err := s.ReleaseResource("foo", 1); err != nil {
					t.Errorf("release: %v", err)
				}
			}
		})
	}
	wait.Wait()
	t.Logf("%d got it, %d did not", got.Load(), refused.Load())
	if got.Load() < 100 || refused.Load() < 100 {
		t.Error("too little happened")
	}
}
