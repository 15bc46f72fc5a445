package fs_test

import (
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/openmetrics"
)

// 1.7: metrics.

// metrics reads the file by some bytes at a time, and fails on what is not
// OpenMetrics, or too long to be kept while it is read.
func (s *served) metrics() openmetrics.Samples {
	s.t.Helper()
	text := s.readAll(1000, ".lockfs", "metrics")
	if len(text) > 256<<10 {
		s.t.Errorf("metrics has %d bytes", len(text))
	}
	samples, err := openmetrics.Parse(text)
	if err != nil {
		s.t.Fatal("metrics:", err)
	}
	return samples
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := serveEvents(t)
		for name, n := range s.metrics() {
			if n != 0 && name != "lockfs_workers_total" && name != "lockfs_open_files" && name != "lockfs_nodes" &&
				name != "lockfs_lockspaces" && !isRequest(name) {
				t.Errorf("in the beginning %s is %v", name, n)
			}
		}
		s.mustCreate("excl", unix.O_EXCL)
		s.create("excl", unix.O_EXCL) // fails
		x, y := s.mustCreate("x", 0), s.mustCreate("x", 0)
		s.caller.pid = 200
		s.flock(x, unix.F_WRLCK)
		s.flock(y, unix.F_WRLCK) // fails
		u := s.startFlock(y, unix.F_WRLCK)
		s.send(opInterrupt, 0, u64(u))
		s.await(u)
		u = s.startFlock(y, unix.F_WRLCK)
		time.Sleep(3 * time.Second)
		s.flock(x, unix.F_UNLCK)
		s.await(u)
		s.startFlock(x, unix.F_RDLCK)
		s.call(opSetlk, y.node, s.lockBody(y, 9, unix.F_RDLCK, 5, 9, false))
		s.call(opSetlk, y.node, s.lockBody(y, 9, unix.F_RDLCK, 10, 19, false)) // merges
		r := s.openEvents()
		now := s.metrics()
		for name, want := range map[string]float64{
			"lockfs_holds": 3, "lockfs_waiters": 1, "lockfs_event_readers": 1,
			`lockfs_grants_total{via="excl"}`: 1, `lockfs_grants_total{via="flock"}`: 2, `lockfs_grants_total{via="fcntl"}`: 2,
			`lockfs_refusals_total{via="excl"}`: 1, `lockfs_refusals_total{via="flock"}`: 1, `lockfs_refusals_total{via="fcntl"}`: 0,
			"lockfs_waits_total": 3, "lockfs_waits_interrupted_total": 1, "lockfs_deadlocks_total": 0,
			"lockfs_wait_seconds_count": 2, "lockfs_wait_seconds_sum": 3,
			`lockfs_wait_seconds_bucket{le="1.0"}`: 1, `lockfs_wait_seconds_bucket{le="10.0"}`: 2,
			"lockfs_hold_seconds_count": 1, `lockfs_ends_total{reason="released"}`: 1, `lockfs_ends_total{reason="broken"}`: 0,
			"lockfs_workers_total": 1,
		} {
			if got, ok := now[name]; !ok || got != want {
				t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
			}
		}
		s.caller.uid = 0
		s.call(opUnlink, 1, cstring("excl"))
		time.Sleep(time.Second)
		if got := s.metrics()[`lockfs_ends_total{reason="broken"}`]; got != 1 {
			t.Errorf("broken is %v", got)
		}
		s.restore(records)
		s.call(opGetattr, 1, zeros(16))
		s.restore(records)
		s.call(opGetattr, 1, zeros(16))
		after := s.metrics()
		if after["lockfs_workers_total"] != 3 || after["lockfs_holds"] != 2 || after[`lockfs_grants_total{via="excl"}`] != 0 {
			t.Errorf("in the third process: %v", maps.Collect(maps.All(after)))
		}
		if n := after[`lockfs_requests_total{kind="getattr"}`]; n == 0 {
			t.Error("requests are not counted")
		}
		s.release(r.file)
	})
}

func isRequest(name string) bool {
	return len(name) > 14 && name[:14] == "lockfs_request"
}
