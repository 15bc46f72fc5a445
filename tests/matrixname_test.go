//go:build matrix

package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// This file is the tools in hold=name lockspaces, which serve them all.

// TestToolsAlone: each tool works in a hold=name lockspace as on a tmpfs, to
// the exit codes, messages, modes, links and contents, and does the same about
// what a dead process has left.
func TestToolsAlone(t *testing.T) {
	m := mount(t, "--policy", "hold=name")
	m.Deadline(10 * time.Minute)
	dir := tmpfs(t)
	for i, k := range tools(t) {
		mustBeEqual(t, k,
			k.alone(t, fmt.Sprintf("%s/id-%d", dir, i), look),
			k.alone(t, fmt.Sprintf("%s/id-%d", m.Dir, i), look))
	}
	for i, k := range tools(t) {
		k.dies(t, fmt.Sprintf("%s/id-%dx", m.Dir, i), false)
	}
}

// TestToolsMakeTheSameCalls: what the kernel answers to each of a tool's calls
// in the directory is what it answers on a tmpfs.
func TestToolsMakeTheSameCalls(t *testing.T) {
	m := mount(t, "--policy", "hold=name")
	m.Deadline(10 * time.Minute)
	dir := tmpfs(t)
	for i, k := range tools(t) {
		if k.slow {
			continue // sem's processes run at the same time
		}
		want := k.calls(t, fmt.Sprintf("%s/id-%d", dir, i))
		got := k.calls(t, fmt.Sprintf("%s/id-%d", m.Dir, i))
		if want == "" {
			t.Errorf("%s makes no calls", k.name)
		}
		if got != want {
			t.Errorf("%s: on tmpfs\n%son lockfs\n%s", k.name, want, got)
		}
	}
}

var (
	tracePid  = regexp.MustCompile(`(?m)^\d+ +`)
	traceTemp = regexp.MustCompile(`(["/<])(shlock|\.lk|_)[\w.]+`) // temporary files
	// What a filesystem may do as it likes: the sizes of directories. And what
	// is no business of its: addresses, the working directory, sqlite's random
	// numbers.
	traceNoise = regexp.MustCompile(`\{st_mode=S_IFDIR[^}]*\}|0x[0-9a-f]+|AT_FDCWD<[^>]*>|"\\[^"]*"\.\.\.`)
)

// calls returns the calls that a tool makes in the directory of a lock while it
// takes it and gives it back, and then while a second one is refused, without
// what is different each time.
func (k tool) calls(t *testing.T, path string) string {
	t.Helper()
	dir := filepath.Dir(path)
	var b strings.Builder
	traced := func(file string) *process {
		argv := append([]string{"strace", "-f", "-y", "-o", file,
			"-e", "trace=%file,%desc", "-e", "signal=none"}, k.argv(path)...)
		p := startProcess(t, nil, argv...)
		p.limit = time.Minute
		return p
	}
	collect := func(file string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "exec") || !strings.Contains(line, dir) && !strings.Contains(line, `"`+filepath.Base(path)) {
				continue
			}
			line = tracePid.ReplaceAllString(line, "")
			line = traceNoise.ReplaceAllString(line, "_")
			line = strings.ReplaceAll(line, path, "PATH")
			line = strings.ReplaceAll(line, dir, "DIR")
			line = traceTemp.ReplaceAllString(line, "${1}TEMP")
			b.WriteString(anonymous(line, path))
		}
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
	collect(first)
	b.WriteString("and the second:\n")
	collect(second)
	return b.String()
}

// TestDeadHoldersAreReaped: with reap=pid, a lock whose file names a process is
// free when that process dies, for every tool.
func TestDeadHoldersAreReaped(t *testing.T) {
	m := mount(t, "--policy", "hold=name,reap=pid")
	m.Deadline(5 * time.Minute)
	for i, k := range tools(t) {
		if k.body != pidBody {
			continue
		}
		path := fmt.Sprintf("%s/id-%d", m.Dir, i)
		victim := k.start(t, path)
		victim.Held(t)
		syscall.Kill(-victim.Pid(), syscall.SIGKILL)
		victim.stdin.Close()
		victim.awaitExit(t)
		for _, next := range tools(t) {
			if next.name != "ln -sT" && next.name != "bash set -C" && next.name != "lockfile" {
				continue // these never take over by themselves
			}
			eventually(t, time.Second, func() bool {
				p := next.start(t, path)
				got := p.got(t)
				p.Release(t)
				return got
			}, next.name+" gets what a dead "+k.name+" held")
		}
	}
}
