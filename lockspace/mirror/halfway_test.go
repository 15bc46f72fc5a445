package mirror

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Two parts are given back in one step, and the second call fails: the first part is
// free, and is not taken for locked by who asks for it next.
func TestUnlockFailsHalfway(t *testing.T) {
	w := newWorld(t)
	a, b := w.take(request("a", exclusive, 0, 9)), w.take(request("a", exclusive, 40, 49))
	rest := w.take(request("a", exclusive, 20, 29))
	w.fail(func(cmd int, lk *unix.Flock_t) error {
		if lk.Type == unix.F_UNLCK && lk.Start > 20 {
			return unix.ENOLCK
		}
		return nil
	})
	w.do(func() { w.drop(a); w.drop(b) }) // one process that ends
	w.mustSee("a", 5, "free")
	h := w.take(request("a", exclusive, 0, 9))
	if seen := w.seen("a", 5); seen != "exclusive" {
		t.Errorf("granted, and outside it is %s", seen)
	}
	w.fail(nil)
	w.end(h)
	w.end(rest)
}
