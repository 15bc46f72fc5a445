package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// This file is the matrix: for every ordered pair of the tools, the second does
// not get in while the first holds the name, and does after.

// cell is what a tool that tried a lock came to.
type cell byte

const (
	excluded cell = '.' // it said that another has the lock
	failed   cell = 'x' // it did not get in either, for an error that it had not expected
	known    cell = 'd' // it got in, as its documentation says
	hole     cell = '!' // it got in
)

const matrixLegend = `rows hold, columns try: . refused, x kept out by an error, d gets in by a documented property, ! gets in`

// matrix is what came of every pair.
type matrix struct {
	tools []tool
	cells [][]cell // by holder, taker
	notes []string // what the x and ! said
}

func (x *matrix) String() string {
	var b strings.Builder
	width := 0
	for _, k := range x.tools {
		width = max(width, len(k.name))
	}
	fmt.Fprintln(&b, matrixLegend)
	for digit := range 2 {
		fmt.Fprintf(&b, "%*s   ", width, "")
		for i := range x.tools {
			fmt.Fprintf(&b, " %c", fmt.Sprintf("%2d", i+1)[digit])
		}
		b.WriteByte('\n')
	}
	for i, k := range x.tools {
		fmt.Fprintf(&b, "%-*s %2d", width, k.name, i+1)
		for _, o := range x.cells[i] {
			fmt.Fprintf(&b, " %c", o)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// runMatrix sets the tools against each other in a directory, which the test
// process does not touch. It fails the test for a tool that does not get in
// after another has given back, and for what goes wrong otherwise; which holes
// there may be, the caller knows.
//
// All holders hold at the same time, each its own name; then the columns are
// tried one after the other, on several names at once.
func runMatrix(t *testing.T, dir string, all []tool) *matrix {
	t.Helper()
	x := &matrix{tools: all, cells: make([][]cell, len(all))}
	names := make([]string, len(all))
	holders := make([]*process, len(all))
	hold := func(i, attempt int) {
		// The form is that of sem's.
		names[i] = fmt.Sprintf("%s/id-%dx%d", dir, i, attempt)
		holders[i] = all[i].start(t, names[i])
	}
	for i := range all {
		x.cells[i] = make([]cell, len(all))
		hold(i, 0)
	}
	for j, taker := range all {
		for i := range all {
			holders[i].Held(t)
		}
		var spoiled []string
		tryAll(t, taker, names, func(i int, p *process) {
			holder := all[i]
			x.cells[i][j] = x.judge(t, holder, taker, p)
			if c := x.cells[i][j]; c != known && c != hole {
				return
			}
			// Two are inside, and may undo each other's lock: how they end
			// does not matter. The next one is tried on another name.
			p.Release(t)
			holders[i].Release(t)
			spoiled = append(spoiled, names[i])
			hold(i, j+1)
		})
		remove(t, spoiled)
	}
	// Nobody who tried has harmed what is held.
	var left []string
	for i, holder := range all {
		holders[i].mustRelease(t, holder.name)
		if holder.leaves {
			left = append(left, names[i])
		}
	}
	remove(t, left)
	for _, taker := range all {
		tryAll(t, taker, names, func(i int, p *process) {
			if !p.got(t) {
				t.Errorf("%s is kept out of what %s has given back: %v %s", taker.name, all[i].name, p.cmd.ProcessState, p.stderr)
				return
			}
			p.mustRelease(t, taker.name)
		})
		if taker.leaves {
			remove(t, names)
		}
	}
	return x
}

// start starts a tool, which may take long to start when many do.
func (k tool) start(t *testing.T, path string) *process {
	t.Helper()
	p := startProcess(t, nil, k.argv(path)...)
	p.limit = time.Minute
	return p
}

// tryAll starts a tool on every name, several at once, and calls what is to be
// done with each in order.
func tryAll(t *testing.T, k tool, names []string, done func(i int, p *process)) {
	t.Helper()
	const together = 6
	for from := 0; from < len(names); from += together {
		to := min(from+together, len(names))
		tries := make([]*process, 0, together)
		for _, name := range names[from:to] {
			tries = append(tries, k.start(t, name))
		}
		for i, p := range tries {
			done(from+i, p)
		}
	}
}

// judge waits for a tool that tries what another holds.
func (x *matrix) judge(t *testing.T, holder, taker tool, p *process) cell {
	t.Helper()
	switch {
	case p.got(t) && documented(holder, taker) != "":
		return known
	case p.said() != "":
		return hole
	case p.cmd.ProcessState.ExitCode() == 1:
		return excluded
	}
	x.notes = append(x.notes, fmt.Sprintf("%s holds, %s: %v %s", holder.name, taker.name, p.cmd.ProcessState, strings.TrimSpace(p.stderr.String())))
	return failed
}

// mustRelease ends a process that holds; it must give its lock back without
// an error.
func (p *process) mustRelease(t testing.TB, name string) {
	t.Helper()
	p.Release(t)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s gave its lock back and ended with %v, want 0: %s", name, p.cmd.ProcessState, p.stderr)
	}
}

// remove removes names, and what tools have put into directories.
func remove(t testing.TB, names []string) {
	t.Helper()
	if len(names) == 0 {
		return
	}
	if _, stderr, exit := run(t, nil, append([]string{"rm", "-rf", "--"}, names...)...); exit != 0 {
		t.Fatalf("rm: %s", stderr)
	}
}

// kernelExcludes reports whether an ordinary filesystem lets taker not past
// holder: whoever makes names is kept out by any name, whoever locks by those
// who lock in the same way.
func kernelExcludes(holder, taker tool) bool {
	switch {
	case taker.name == "bzr" && holder.made == anEmptyDirectory:
		return false // rename(2) replaces an empty directory
	case taker.judges && holder.made == aFile && holder.body != pidBody:
		return false // an empty file is stale to it
	}
	return taker.family == byTheName || taker.family == holder.family
}

// TestMatrixOnTmpfs proves the matrix itself: where tools know each other, or
// the name is enough, they exclude each other there too, and where not, it
// finds the hole. For that, it need not have the slow tools.
func TestMatrixOnTmpfs(t *testing.T) {
	needRoot(t)
	var all []tool
	for _, k := range tools(t) {
		if !k.slow {
			all = append(all, k)
		}
	}
	x := runMatrix(t, tmpfs(t), all)
	t.Logf("on tmpfs, %v", x)
	holes := 0
	for i, holder := range all {
		for j, taker := range all {
			if x.cells[i][j] != hole {
				continue
			}
			holes++
			if kernelExcludes(holder, taker) {
				t.Errorf("%s gets past %s, want it kept out on tmpfs", taker.name, holder.name)
			}
		}
	}
	if holes == 0 {
		t.Errorf("no hole: do the tools that lock know of those that make names?")
	}
	for _, note := range x.notes {
		t.Log(note)
	}
}

// TestMatrixByOpenFile: the tools that hold by an open file have no holes.
func TestMatrixByOpenFile(t *testing.T) {
	m := mount(t)
	m.Deadline(2 * time.Minute)
	var all []tool
	for _, k := range tools(t) {
		if k.handle {
			all = append(all, k)
		}
	}
	mustHaveNoHoles(t, runMatrix(t, m.Dir, all))
}

// mustHaveNoHoles prints the table and fails the test for every pair that gets
// in together, unless it is documented.
func mustHaveNoHoles(t *testing.T, x *matrix) {
	t.Helper()
	t.Logf("on lockfs, %v", x)
	for i, holder := range x.tools {
		for j, taker := range x.tools {
			if x.cells[i][j] == hole {
				t.Errorf("%s gets in while %s holds", taker.name, holder.name)
			}
		}
	}
	for _, note := range x.notes {
		t.Log(note)
	}
}

// TestMatrix: every tool excludes every other.
func TestMatrix(t *testing.T) {
	m := mountByName(t)
	m.Deadline(10 * time.Minute)
	mustHaveNoHoles(t, runMatrix(t, m.Dir, tools(t)))
}

// TestGit: git holds the lock of an index, against all others too, and leaves
// the index behind, which nobody holds.
func TestGit(t *testing.T) {
	m := mountByName(t)
	gitKeepsItsIndex(t, m.Dir)
	p := startProcess(t, nil, script("sh", `exec 9>>"$1"; flock -n 9 || exit 1; `+keep)(m.Path("index"))...)
	p.Held(t)
	p.Release(t)
}
