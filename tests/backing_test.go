package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.6: "Default backing directory: the one that the mount covers, opened before
// it is covered."; 2.2: the keeper holds it, and every worker gets it.

// workersBacking is a worker's descriptor of the backing directory.
const workersBacking = 7

// backingOf returns which directory a mount's worker mirrors in.
func backingOf(t testing.TB, m *Mount) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(workersFile(m, ""), &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// workersFile is a way to a file in the directory that a mount's worker mirrors
// in.
func workersFile(m *Mount, name string) string {
	return fmt.Sprintf("/proc/%d/fd/%d/%s", m.Worker(), workersBacking, name)
}

// backed starts a mount with a service manager and a backing directory.
func backed(t testing.TB, backing func(m *Mount) string) (*Mount, *serviceManager) {
	t.Helper()
	needRoot(t)
	m := newMount(t)
	s := newServiceManager(t, m.parent)
	m.env = s.environment()
	m.mount(mirroredIn(t, backing(m)))
	return m, s
}

// The worker has the same directory, whoever of lockfs dies or is replaced.
func TestTheBackingDirectoryStays(t *testing.T) {
	t.Run("another", func(t *testing.T) {
		dir := t.TempDir()
		m, s := backed(t, func(*Mount) string { return dir })
		wantBackingStays(t, m, s, dir)
	})
	t.Run("the one that is covered", func(t *testing.T) {
		m, s := backed(t, func(m *Mount) string { return m.Dir })
		wantBackingStays(t, m, s, m.Dir)
	})
}

func wantBackingStays(t *testing.T, m *Mount, s *serviceManager, dir string) {
	s.await("READY=1", 1)
	holder := newClient(t)
	holder.Open(m.Path("lock"), takeFlags)
	first := backingOf(t, m)
	if err := os.WriteFile(workersFile(m, "below"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantListed(t, newClient(t), m, "lock")
	replace := func() {
		n := s.said("READY=1")
		hangUp(t, m)
		s.await("READY=1", n+1) // from the next keeper
	}
	for _, c := range []struct {
		what string
		do   func()
	}{
		{"the worker is killed", func() { killWorker(t, m) }},
		{"the program is replaced", replace},
		{"the worker is killed then", func() { killWorker(t, m) }},
		{"the keeper is killed", func() { m.Signal(syscall.SIGKILL); s.again(m) }},
		{"the worker is killed again", func() { killWorker(t, m) }},
		{"the program is replaced again", replace},
	} {
		c.do()
		if now := backingOf(t, m); now.Ino != first.Ino || now.Dev != first.Dev {
			t.Errorf("%s: the worker has another directory", c.what)
		}
		wantHolder(t, m.Path("lock"), holder.Pid())
	}
	m.Stop()
	if _, err := os.Stat(filepath.Join(dir, "below")); err != nil {
		t.Errorf("it was not %s: %v", dir, err)
	}
}
