package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file is what the kernel answers the tools of the matrix.

// TestToolsMakeTheSameCalls: what the kernel answers to each of a tool's calls
// in the directory is what it answers on a tmpfs.
func TestToolsMakeTheSameCalls(t *testing.T) {
	m := mountByName(t)
	m.Deadline(10 * time.Minute)
	dir := tmpfs(t)
	for i, k := range tools(t) {
		var want, got string
		inPidsOfOneLength(t, func() {
			want = k.calls(t, fmt.Sprintf("%s/id-%d", dir, i), asItIs)
			got = k.calls(t, fmt.Sprintf("%s/id-%d", m.Dir, i), k.pastPid)
		})
		if k.slow { // sem's processes run at the same time
			want, got = inNoOrder(want), inNoOrder(got)
		}
		if got != want {
			t.Errorf("%s: on tmpfs\n%son lockfs\n%s", k.name, want, got)
		}
	}
}

// TestTracesAreWithoutRandomNumbers: what is random in a trace is left out of it
// even if one of its bytes is a quotation mark, which strace escapes.
func TestTracesAreWithoutRandomNumbers(t *testing.T) {
	for _, random := range []string{`\0\0\221a`, `\0\0\"\221a`, `\0\0a\"`, `\"\\\"`} {
		call := `pwrite64(4</d/db-journal>, "` + random + `"..., 512, 0) = 512`
		if got, want := withoutPaths(call, "/d/db"), "pwrite64(4<PATH-journal>, _, N, 0) = N"; got != want {
			t.Errorf("%s becomes %s, want %s", call, got, want)
		}
	}
}

var (
	tracePid  = regexp.MustCompile(`^(\d+) +`)
	traceTemp = regexp.MustCompile(`(["/<])(shlock|\.lk|_)[^"/<>]+`) // temporary files
	// What a filesystem may do as it likes: the sizes of directories. And what
	// is no business of its: addresses, the working directory, sqlite's random
	// numbers.
	traceNoise = regexp.MustCompile(`\{st_mode=S_IFDIR[^}]*\}|0x[0-9a-f]+|AT_FDCWD<[^>]*>|"\\.(?:[^"\\]|\\.)*"\.\.\.`)
	// Messages are not to the directory.
	traceMessage = regexp.MustCompile(`write\([12]<`)
	traceResumed = regexp.MustCompile(`^<\.\.\. \w+ resumed>`)
	traceColumn  = regexp.MustCompile(`\) += `)
)

const traceUnfinished = " <unfinished ...>"

// calls returns the calls that a tool makes in the directory of a lock while it
// takes it and gives it back, and then while a second one is refused, without
// what is different each time. view is applied to the calls of each; pids are
// the processes of the first.
func (k tool) calls(t *testing.T, path string, view func(calls string, pids map[string]bool) string) string {
	t.Helper()
	traced := func(file string) *process {
		argv := append([]string{"strace", "-f", "-y", "-o", file,
			"-e", "trace=%file,%desc", "-e", "signal=none"}, k.argv(path)...)
		p := startProcess(t, nil, argv...)
		p.limit = time.Minute
		return p
	}
	traces := t.TempDir()
	first, second := filepath.Join(traces, "first"), filepath.Join(traces, "second")
	holder := traced(first)
	holder.Held(t)
	taker := traced(second)
	if taker.got(t) {
		t.Errorf("%s: a second one gets in", k.name)
	}
	taker.Release(t)
	holder.mustRelease(t, k.name)
	remove(t, []string{path})
	pids := make(map[string]bool)
	took, tried := traceOf(t, first, path, pids), traceOf(t, second, path, make(map[string]bool))
	if took == "" || tried == "" {
		t.Errorf("%s makes no calls", k.name)
	}
	return withoutPaths(view(took, pids), path) + "and the second:\n" + withoutPaths(view(tried, pids), path)
}

// traceOf returns the calls in a trace that have to do with the directory of a
// path, a line each, and adds the processes that it is of to pids.
func traceOf(t *testing.T, file, path string, pids map[string]bool) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	begun := make(map[string]int) // by process, where its call that was interrupted is
	for line := range strings.Lines(string(text)) {
		pid := tracePid.FindStringSubmatch(line)[1]
		pids[pid] = true
		line = strings.TrimSuffix(tracePid.ReplaceAllString(line, ""), "\n")
		if start, ok := strings.CutSuffix(line, traceUnfinished); ok {
			begun[pid] = len(calls)
			calls = append(calls, start)
		} else if rest := traceResumed.ReplaceAllString(line, ""); rest != line {
			calls[begun[pid]] += rest
		} else {
			calls = append(calls, line)
		}
	}
	var b strings.Builder
	dir := filepath.Dir(path)
	for _, call := range calls {
		switch {
		case strings.Contains(call, "exec"), traceMessage.MatchString(call):
		case strings.Contains(call, dir), strings.Contains(call, filepath.Base(path)):
			fmt.Fprintln(&b, traceColumn.ReplaceAllString(call, ") = "))
		}
	}
	return b.String()
}

// withoutPaths replaces what is different each time.
func withoutPaths(calls, path string) string {
	calls = traceNoise.ReplaceAllString(calls, "_")
	calls = strings.ReplaceAll(calls, path, "PATH")
	calls = strings.ReplaceAll(calls, filepath.Dir(path), "DIR")
	calls = traceTemp.ReplaceAllString(calls, "${1}TEMP")
	return anonymous(calls, path)
}

// inNoOrder returns each of the lines once, sorted.
func inNoOrder(calls string) string {
	return strings.Join(slices.Compact(slices.Sorted(strings.Lines(calls))), "")
}

func asItIs(calls string, _ map[string]bool) string { return calls }

// pidRead is how an empty file is read that is held: the pid, and then the end of
// it. Its groups are the call, the pid, and what else the call was asked for.
var pidRead = regexp.MustCompile(`(?m)^((?:read|pread64)\(\d+<[^>]*>, ")(\d+)\\n(", \d+(?:, \d+)?\)) = \d+\n(?:read|pread64)\(\d+<[^>]*>, "", \d+(?:, \d+)?\) = 0\n`)

// pastPid replaces how a file is read that is held and empty, as its holder's pid
// (1.4, read=pid), by how an empty one is read otherwise. Of the tools only
// sqlite reads such a file.
func (k tool) pastPid(calls string, pids map[string]bool) string {
	if k.body == pidBody {
		return calls
	}
	return pidRead.ReplaceAllStringFunc(calls, func(read string) string {
		found := pidRead.FindStringSubmatch(read)
		if !pids[found[2]] {
			return read
		}
		return found[1] + found[3] + " = 0\n"
	})
}
