package tests

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Two daemons over one backing directory, and strangers who make names in it, are as
// one for exclusion, whatever workers die, and leave nothing there.
func TestNeverTwoInsideByName(t *testing.T) {
	first := mountBacked(t, "--policy", holdByName)
	second := mount(t, append(mirroredIn(t, first.backing), "--policy", holdByName)...)
	limit := hammerTime(t) / 2
	first.Deadline(limit + time.Minute)
	second.Deadline(limit + time.Minute)
	hammerBoth(t, "namers", 16, limit, first.backing, first.Mount, second)
	wantNothingHeld(t, first.Mount)
	wantNothingHeld(t, second)
	wantBehind(t, first)
}

// More names than a process can have open, one after the other, leave nothing.
func TestManyNamesOutside(t *testing.T) {
	m := newMount(t)
	b := &mirroredMount{m, t.TempDir()}
	m.wrapper = []string{"prlimit", "--nofile=1024:1024"}
	m.mount([]string{"--backing", b.backing, "--policy", holdByName})
	m.Deadline(stressLimit)
	a := newClient(t)
	for i := range 10_000 {
		path := m.Path(fmt.Sprint("lock", i))
		wantErr(t, "close", a.Close(a.Open(path, takeFlags)), nil)
		wantErr(t, "unlink", a.Unlink(path), nil)
	}
	wantBehind(t, b)
	for _, pid := range daemonPids(m) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil || len(fds) > 600 {
			t.Errorf("process %d has %d files open, %v", pid, len(fds), err)
		}
	}
	var before unix.Stat_t
	if err := unix.Stat(b.backing, &before); err != nil {
		t.Fatal(err)
	}
	wantNothingHeld(t, m)
}
