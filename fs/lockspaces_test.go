package fs_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/openmetrics"
)

// 1.7: what metrics tells of lockspaces.

// mustBeSpace makes a directory that is a lockspace of its own.
func (s *served) mustBeSpace(dir uint64, name string, mode uint32, lease string) (node uint64) {
	s.t.Helper()
	node = s.mustMkdir(dir, name, mode)
	if errno := s.set(node, "lease", lease); errno != 0 {
		s.t.Fatalf("the lease of %q: %v", name, errno)
	}
	return node
}

// spaces returns the holds and waiters of the lockspaces that are told, by path, and
// how many there are, and are not told.
func (s *served) spaces() (told map[string][2]float64, all, untold float64) {
	s.t.Helper()
	samples := s.metrics()
	told = make(map[string][2]float64)
	for name, n := range samples {
		label, ok := openmetrics.LabelValue(name, "lockspace")
		if !ok {
			continue
		}
		path := unescape(s.t, label)
		counts := told[path]
		switch {
		case strings.HasPrefix(name, "lockfs_lockspace_holds{"):
			counts[0] += n
		case strings.HasPrefix(name, "lockfs_lockspace_waiters{"):
			counts[1] += n
		default:
			s.t.Errorf("%s has a lockspace", name)
		}
		told[path] = counts
	}
	return told, samples["lockfs_lockspaces"], samples["lockfs_lockspaces_untold"]
}

func TestLockspacesInMetrics(t *testing.T) {
	s := serve(t)
	want := func(when string, all float64, want map[string][2]float64) {
		t.Helper()
		told, n, untold := s.spaces()
		if !maps.Equal(told, want) || n != all || untold != all-float64(len(want)) {
			t.Errorf("%s: %v, want %v; of %v, want %v, %v are not told", when, told, want, n, all, untold)
		}
	}
	want("in the beginning", 1, map[string][2]float64{".": {}})
	s.caller = caller{1000, 1000, 100}
	a := s.mustBeSpace(1, "a", 0o755, "1h")
	b := s.mustMkdir(a, "b", 0o711)        // is of a
	c := s.mustBeSpace(b, "c", 0o755, "0") // as the root
	d := s.mustMkdir(1, "d", 0o755)        // is of the root
	s.mustCreateIn(a, "x", unix.O_EXCL)
	s.mustCreateIn(b, "x", unix.O_EXCL)
	x := s.mustCreateIn(d, "x", unix.O_EXCL)
	y := s.mustCreateIn(c, "y", 0)
	s.flock(y, unix.F_RDLCK)
	z := s.mustOpen(y.node, unix.O_RDWR)
	s.flock(z, unix.F_RDLCK)
	waits := s.startFlock(s.mustOpen(y.node, unix.O_RDWR), unix.F_WRLCK)
	all := map[string][2]float64{".": {3}, "a": {4}, "a/b/c": {2, 1}}
	want("to whose they are", 3, all)
	s.caller = caller{0, 0, 101}
	want("to root", 3, all)
	s.caller = caller{1001, 1001, 102}
	want("to another, who may not list a/b", 3, map[string][2]float64{".": {3}, "a": {4}})

	s.caller = caller{1000, 1000, 100}
	s.release(x)
	s.release(y)
	s.release(z)
	s.await(waits)
	s.caller.uid = 0
	if errno := s.set(1, "lease", "1h"); errno != 0 {
		t.Fatal(errno)
	}
	want("when the root is as a", 3, map[string][2]float64{".": {6}, "a/b/c": {1}, "d": {}})
	s.call(opMkdir, d, u32(0o755), u32(0), cstring("e"))
	s.call(opRename2, 1, u64(d), u32(1), u32(0), cstring("a"), cstring("a"))
	want("when a has another name", 4, map[string][2]float64{".": {1}, "d/a/b/c": {1}, "d": {2}, "d/a": {4}})
}

// Names of any bytes are parsed back exactly.
func TestNamesOfLockspaces(t *testing.T) {
	s := serve(t)
	names := slices.Clone(oddNames)
	for c := 1; c < 256; c++ {
		if c != '/' {
			names = append(names, fmt.Sprintf("a%cb", c), "c"+string([]byte{byte(c)})+"d", string([]byte{byte(c), '0', '0', '1'}))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	below := s.mustBeSpace(1, "be \"low\xff\n", 0o755, "1h")
	want := map[string][2]float64{".": {1}, "be \"low\xff\n": {float64(len(names))}}
	for _, name := range names {
		s.mustBeSpace(below, name, 0o755, "2h")
		want["be \"low\xff\n/"+name] = [2]float64{}
	}
	told, all, untold := s.spaces()
	if !maps.Equal(told, want) || all != float64(len(want)) || untold != 0 {
		for name := range want {
			if _, ok := told[name]; !ok {
				t.Errorf("%q is missing", name)
			}
		}
		t.Errorf("%d of %v are told, %v not, want %d", len(told), all, untold, len(want))
	}
}

// However many there are, and whatever they are called, not more is told than can
// be, and the rest is counted.
func TestLockspacesThatAreTooMany(t *testing.T) {
	for _, name := range []string{"s", strings.Repeat(`\`, 250), strings.Repeat("\xff", 250)} {
		s := serve(t)
		const made = 1100
		for i := range made {
			s.mustBeSpace(1, fmt.Sprint(name, i), 0o755, "1h")
		}
		told, all, untold := s.spaces()
		if all != made+1 || untold != all-float64(len(told)) || len(told) < 40 || len(told) > 1000 {
			t.Errorf("%.10s: of %v lockspaces %d are told and %v not", name, all, len(told), untold)
		}
		if len(name) == 1 && len(told) != 1000 {
			t.Errorf("%d are told, want 1000", len(told))
		}
		for i := range len(told) - 1 {
			if _, ok := told[fmt.Sprint(name, i)]; !ok {
				t.Errorf("%.10s: number %d is missing", name, i)
			}
		}
	}
}

// A chain of directories that is longer than any path is no burden.
func TestADeepLockspace(t *testing.T) {
	s := serve(t)
	dir := uint64(1)
	for i := range 3000 {
		dir = s.mustMkdir(dir, strings.Repeat("x", 200), 0o755)
		if i == 10 || i == 2999 {
			if errno := s.set(dir, "lease", "1h"); errno != 0 {
				t.Fatal(errno)
			}
			s.set(dir, "grace", fmt.Sprint(i))
		}
		if i == 2999 {
			s.mustCreateIn(dir, "y", unix.O_EXCL)
		}
	}
	told, all, untold := s.spaces()
	deep := strings.Repeat("/"+strings.Repeat("x", 200), 11)[1:]
	if want := map[string][2]float64{".": {11}, deep: {2989}}; !maps.Equal(told, want) || all != 3 || untold != 1 {
		t.Errorf("of %v, %v are not told; told are %v", all, untold, slices.Collect(maps.Values(told)))
	}
}
