package fs

import (
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// The control file metrics, in the text format of OpenMetrics 1.0
// (https://prometheus.io/docs/specs/om/open_metrics_spec/). Names, types and
// labels are a contract; there may be more of each later.
//
// Of lockspaces there are holds and waiters, see lockspaces.go, in which a label has
// the path of one.
//
// All counts begin with the process that serves the mount, as a monitoring system
// expects of a program that was restarted; only how many processes there were
// outlives them. What is there at present is counted when it is asked for.

// meter counts what happens to locks. It changes in steps.
type meter struct {
	grants, refusals    [vias]uint64
	waits, deadlocks    uint64
	waited              histogram
	heldFor             histogram
	ended               [lockspace.Replaced]uint64
	interrupted, closed uint64
}

// vias is how many idioms there are.
const vias = lockspace.ViaOwner + 1

// histogram counts times up to each of its bounds, and in the last place above.
type histogram struct {
	counts [len(lockBounds) + 1]uint64
	sum    time.Duration
}

// lockBounds are bounds for how long is waited for locks, and how long they are
// held.
var lockBounds = [...]time.Duration{
	100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond,
	time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour,
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	i := 0
	for i < len(lockBounds) && d > lockBounds[i] {
		i++
	}
	h.counts[i]++
	h.sum += d
}

// took counts a grant.
func (m *meter) took(f *FS, h *lockspace.Hold, after *lockspace.Wait) {
	m.grants[h.Via]++
	if after != nil {
		m.waited.add(f.waited(after))
	}
}

// left counts the end of a hold, or of a part of it.
func (m *meter) left(held time.Duration, why lockspace.Reason) {
	if why == lockspace.Replaced {
		return
	}
	m.ended[why]++
	m.heldFor.add(held)
}

// denied counts what was not granted.
func (m *meter) denied(f *FS, r *lockspace.Request, after *lockspace.Wait, err error) {
	switch {
	case errors.Is(err, lockspace.ErrDeadlock):
		m.deadlocks++
	case after == nil:
		m.refusals[r.Via]++
	case errors.Is(err, lockspace.ErrInterrupted):
		m.interrupted++
	default:
		m.closed++
	}
	if after != nil {
		m.waited.add(f.waited(after))
	}
}

// writeMetrics writes all but what is told of lockspaces. Within a step.
func (f *FS) writeMetrics(w *metricWriter) {
	m, n := &f.meter, f.Counts()
	w.family("lockfs_holds", "gauge", "", "Holds there are: grants of locks, or of byte ranges.")
	w.value("lockfs_holds", "", uint64(n.Holds))
	w.family("lockfs_waiters", "gauge", "", "Requests that wait for a lock, or have a place kept for them.")
	w.value("lockfs_waiters", "", uint64(n.Waits))
	w.family("lockfs_nodes", "gauge", "", "Names that the kernel refers to.")
	w.value("lockfs_nodes", "", uint64(n.Nodes))
	w.family("lockfs_open_files", "gauge", "", "Open files and directories.")
	w.value("lockfs_open_files", "", uint64(n.Files))

	w.family("lockfs_grants", "counter", "", "Holds that were taken, by the call that took them.")
	for via := range vias {
		w.value("lockfs_grants_total", label("via", via.String()), m.grants[via])
	}
	w.family("lockfs_refusals", "counter", "", "Requests that failed at once since another holds the lock,"+
		" as far as the kernel asked: of a name that is there it knows by itself.")
	for via := range vias {
		w.value("lockfs_refusals_total", label("via", via.String()), m.refusals[via])
	}
	w.family("lockfs_waits", "counter", "", "Requests that had to wait.")
	w.value("lockfs_waits_total", "", m.waits)
	w.family("lockfs_waits_interrupted", "counter", "", "Waits that a signal ended.")
	w.value("lockfs_waits_interrupted_total", "", m.interrupted)
	w.family("lockfs_waits_broken", "counter", "", "Waits that ended with the hold of their open file, or the mount.")
	w.value("lockfs_waits_broken_total", "", m.closed)
	w.family("lockfs_wait_seconds", "histogram", "seconds", "How long was waited, with whatever end.")
	w.histogram("lockfs_wait_seconds", "", lockBounds[:], m.waited.counts[:], m.waited.sum)
	w.family("lockfs_hold_seconds", "histogram", "seconds", "How long was held what has ended, parts each for themselves.")
	w.histogram("lockfs_hold_seconds", "", lockBounds[:], m.heldFor.counts[:], m.heldFor.sum)
	w.family("lockfs_ends", "counter", "", "Holds that ended, or parts of them, by how.")
	for why := range lockspace.Replaced {
		w.value("lockfs_ends_total", label("reason", why.String()), m.ended[why])
	}
	w.family("lockfs_deadlocks", "counter", "", "Requests that failed since they would have closed a cycle of waits.")
	w.value("lockfs_deadlocks_total", "", m.deadlocks)
	w.family("lockfs_misuses", "counter", "", "Locks that were closed and looked for later, as by tools that need hold=name.")
	w.value("lockfs_misuses_total", "", n.Misuses)
	w.family("lockfs_workers", "counter", "", "Processes that have served this mount: one more than the crashes and upgrades that it has survived.")
	w.value("lockfs_workers_total", "", f.stream.workers)
	if f.mirror != nil {
		s := f.mirror.Stats()
		w.family("lockfs_mirror_files", "gauge", "", "Backing files that are open.")
		w.value("lockfs_mirror_files", "", uint64(s.Open))
		w.family("lockfs_mirror_files_limit", "gauge", "", "How many can be.")
		w.value("lockfs_mirror_files_limit", "", uint64(s.Limit))
		w.family("lockfs_mirror_awaited", "gauge", "", "Locks that are waited for since somebody holds them outside of the mount.")
		w.value("lockfs_mirror_awaited", "", uint64(s.Awaited+s.Polled))
		w.family("lockfs_mirror_lost", "counter", "", "Locks whose mirror was lost, and their holds with it.")
		w.value("lockfs_mirror_lost_total", "", s.Lost)
		w.family("lockfs_mirror_published", "counter", "", "How often it was written into a backing file who holds its lock.")
		w.value("lockfs_mirror_published_total", "", s.Published)
		w.family("lockfs_mirror_unpublished", "counter", "", "How often that, or to clear it, failed.")
		w.value("lockfs_mirror_unpublished_total", "", s.Unpublished)
	}
	w.family("lockfs_event_readers", "gauge", "", "Open streams of events.")
	w.value("lockfs_event_readers", "", uint64(len(f.stream.readers)))

	traffic := f.dev.Traffic()
	w.family("lockfs_requests", "counter", "", "Requests from the kernel, by kind.")
	for i := range traffic {
		w.value("lockfs_requests_total", label("kind", traffic[i].Kind), traffic[i].Requests)
	}
	w.family("lockfs_request_seconds", "histogram", "seconds", "How long requests took without the time that they were"+
		" waiting or looked something up, of a sample: one in 17, of whatever kind.")
	for i := range traffic {
		k := &traffic[i]
		w.histogram("lockfs_request_seconds", label("kind", k.Kind), device.LatencyBounds[:], k.Latency[:], k.Sum)
	}
}

// metricWriter writes the text. What it is given needs no escapes any more.
type metricWriter struct{ b []byte }

// family begins a metric family.
func (w *metricWriter) family(name, kind, unit, help string) {
	w.line("# TYPE ", name, " ", kind)
	if unit != "" {
		w.line("# UNIT ", name, " ", unit)
	}
	w.line("# HELP ", name, " ", help)
}

func (w *metricWriter) line(parts ...string) {
	for _, p := range parts {
		w.b = append(w.b, p...)
	}
	w.b = append(w.b, '\n')
}

// label returns a label and its value.
func label(name, value string) string { return name + `="` + value + `"` }

// value writes a sample. labels are separated by commas.
func (w *metricWriter) value(name, labels string, n uint64) {
	w.sample(name, labels, strconv.FormatUint(n, 10))
}

func (w *metricWriter) sample(name, labels, value string) {
	if labels != "" {
		labels = "{" + labels + "}"
	}
	w.line(name, labels, " ", value)
}

// histogram writes the samples of a histogram.
func (w *metricWriter) histogram(name, labels string, bounds []time.Duration, counts []uint64, sum time.Duration) {
	before := ""
	if labels != "" {
		before = labels + ","
	}
	var n uint64
	for i, count := range counts {
		n += count
		bound := math.Inf(1)
		if i < len(bounds) {
			bound = bounds[i].Seconds()
		}
		w.value(name+"_bucket", before+label("le", formatBound(bound)), n)
	}
	w.value(name+"_count", labels, n)
	w.sample(name+"_sum", labels, string(appendSeconds(nil, sum)))
}

// formatBound writes a bound as OpenMetrics wants it: a float, always with a
// point or an exponent.
func formatBound(x float64) string {
	if math.IsInf(x, 1) {
		return "+Inf"
	}
	s := strconv.FormatFloat(x, 'g', -1, 64)
	if x == math.Trunc(x) && x < 1e15 {
		s = strconv.FormatFloat(x, 'f', 1, 64)
	}
	return s
}
