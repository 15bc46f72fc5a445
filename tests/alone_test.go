package tests

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// This file is each tool of the matrix alone: it works on lockfs as it does on
// a tmpfs, to the exit codes, messages and files that it leaves.

// TestToolsAloneOnTmpfs: every tool takes its lock, refuses it to a second one
// of its kind, gives it back, and takes it again; and what it does about a lock
// that a dead process has left is what its documentation says.
func TestToolsAloneOnTmpfs(t *testing.T) {
	needRoot(t)
	dir := tmpfs(t)
	for i, k := range tools(t) {
		text := k.alone(t, fmt.Sprintf("%s/id-%d", dir, i), look)
		t.Logf("%s:\n%s", k.name, text)
	}
	for i, k := range tools(t) {
		k.dies(t, fmt.Sprintf("%s/id-%dx", dir, i), false)
	}
}

// TestToolsByOpenFileAlone: those that hold by an open file do so on lockfs
// with the same exit codes and messages as on a tmpfs.
func TestToolsByOpenFileAlone(t *testing.T) {
	m := mount(t)
	dir := tmpfs(t)
	for i, k := range tools(t) {
		if !k.handle {
			continue
		}
		// What a free lock looks like is lockfs's own in a hold=handle
		// lockspace.
		blind := func(testing.TB, string, *process) string { return "" }
		mustBeEqual(t, k,
			k.alone(t, fmt.Sprintf("%s/id-%d", dir, i), blind),
			k.alone(t, fmt.Sprintf("%s/id-%d", m.Dir, i), blind))
		k.dies(t, fmt.Sprintf("%s/id-%dx", m.Dir, i), true)
	}
}

// TestToolsAlone: each tool works in a hold=name lockspace as on a tmpfs, to
// the exit codes, messages, modes, links and contents, and does the same about
// what a dead process has left, where that is not reaped.
func TestToolsAlone(t *testing.T) {
	m := mount(t, "--policy", "hold=name,reap=none")
	m.Deadline(10 * time.Minute)
	dir := tmpfs(t)
	for i, k := range tools(t) {
		var tmpfs, lockfs string
		inPidsOfOneLength(t, func() {
			tmpfs = k.alone(t, fmt.Sprintf("%s/id-%d", dir, i), look)
			lockfs = k.alone(t, fmt.Sprintf("%s/id-%d", m.Dir, i), lookPastPid)
		})
		mustBeEqual(t, k, tmpfs, lockfs)
	}
	for i, k := range tools(t) {
		k.dies(t, fmt.Sprintf("%s/id-%dx", m.Dir, i), false)
	}
}

// inPidsOfOneLength does what starts processes whose numbers are seen, by their length:
// once more if those have become longer meanwhile, or shorter, as they begin anew.
func inPidsOfOneLength(t *testing.T, do func()) {
	t.Helper()
	length := func() int {
		text, err := os.ReadFile("/proc/loadavg")
		f := strings.Fields(string(text))
		if err != nil || len(f) != 5 {
			t.Fatalf("/proc/loadavg is %q, %v", text, err)
		}
		return len(f[4]) // the last number that was given
	}
	for again := true; again; {
		before := length()
		do()
		again = length() != before
	}
}

func mustBeEqual(t *testing.T, k tool, tmpfs, lockfs string) {
	t.Helper()
	if tmpfs != lockfs {
		t.Errorf("%s on tmpfs:\n%s\non lockfs:\n%s", k.name, tmpfs, lockfs)
	}
}

// alone has a tool take a lock, be refused it, give it back and take it again,
// and returns what was seen, without what is different each time. view tells
// what is to be seen of the lock that a process holds, or held last.
func (k tool) alone(t *testing.T, path string, view func(testing.TB, string, *process) string) string {
	t.Helper()
	var b strings.Builder
	note := func(what string, p, holder *process) {
		state := "goes on"
		select {
		case <-p.exited:
			state = p.cmd.ProcessState.String()
			select {
			case <-p.stderr.ended: // all that it said is here
			case <-time.After(time.Second):
			}
		default:
		}
		fmt.Fprintf(&b, "%s: %q, %s, %q; %s\n", what, p.said(), state, strings.TrimSpace(p.stderr.String()), view(t, path, holder))
	}
	first := k.start(t, path)
	if !first.got(t) {
		t.Fatalf("%s does not get a free lock: %v %s", k.name, first.cmd.ProcessState, first.stderr)
	}
	note("taken", first, first)
	second := k.start(t, path)
	if second.got(t) {
		t.Errorf("%s: a second one gets in", k.name)
		second.Release(t)
	} else if code := second.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("%s: a second one ends with %v, which is not that it was refused: %s", k.name, second.cmd.ProcessState, second.stderr)
	}
	note("refused", second, first)
	first.mustRelease(t, k.name)
	note("given back", first, first)
	if k.family == byTheName && k.leaves {
		remove(t, []string{path})
	}
	again := k.start(t, path)
	if !again.got(t) {
		t.Fatalf("%s does not get the lock again: %v %s", k.name, again.cmd.ProcessState, again.stderr)
	}
	note("taken again", again, again)
	again.mustRelease(t, k.name)
	note("given back again", again, again)
	if k.leaves {
		remove(t, []string{path})
	}
	return anonymous(b.String(), path)
}

// look describes a name: what it is, its mode and links, and what is in it.
func look(t testing.TB, path string, _ *process) string {
	t.Helper()
	out, stderr, exit := lookAt(t, path)
	return fmt.Sprintf("%q%s exit %d", out, stderr, exit)
}

// heldEmpty is an empty file that is not read as one.
var heldEmpty = regexp.MustCompile(`^(regular empty file .*\n)([1-9][0-9]*)\n`)

// lookPastPid is look at a file that is read as its holder's pid if it is held
// and empty (1.4, read=pid): exactly that is left out.
func lookPastPid(t testing.TB, path string, holder *process) string {
	t.Helper()
	out, stderr, exit := lookAt(t, path)
	if found := heldEmpty.FindStringSubmatch(out); found != nil {
		pid, err := strconv.Atoi(found[2])
		if group, _ := syscall.Getpgid(pid); err != nil || pid != holder.Pid() && group != holder.Pid() {
			t.Errorf("%s is read as %s, want the pid of %q (%d)", path, found[2], holder.cmd.Args, holder.Pid())
		}
		out = heldEmpty.ReplaceAllString(out, "$1")
	}
	return fmt.Sprintf("%q%s exit %d", out, stderr, exit)
}

func lookAt(t testing.TB, path string) (out, stderr string, exit int) {
	t.Helper()
	const text = `
if [ -L "$1" ]; then readlink -- "$1"
elif [ -d "$1" ]; then stat -c %F -- "$1"; ls -A -- "$1"
elif [ -e "$1" ]; then stat -c '%F %A links=%h uid=%u' -- "$1"; [ $(stat -c %s -- "$1") -ge 512 ] || cat -- "$1"
else echo nothing; fi
cd "${1%/*}" && ls -A | grep -e "^${1##*/}[.-]" || echo and nothing beside it`
	return run(t, nil, "sh", "-c", text, "sh", path)
}

var (
	numbers     = regexp.MustCompile(`[0-9]+`)
	parallelDir = regexp.MustCompile(`/tmp/tmp\.\w+`)
)

// anonymous replaces what is different each time: the path, and the numbers
// that are not exit codes, pids above all.
func anonymous(text, path string) string {
	text = strings.ReplaceAll(text, path, "PATH")
	text = parallelDir.ReplaceAllString(text, "HOME")
	text = strings.ReplaceAll(text, path[strings.LastIndex(path, "/")+1:], "NAME")
	return numbers.ReplaceAllStringFunc(text, func(n string) string {
		if len(n) < 3 {
			return n
		}
		return "N"
	})
}

// dies kills a tool that holds, with the processes that it started, and has
// another of its kind try the lock: it gets in where the lock went with an open
// file, in a lockspace where O_EXCL holds so too, and where the tool is one that
// takes over what the dead have left. How long that takes is the tool's affair:
// shlock lets a second pass.
func (k tool) dies(t *testing.T, path string, byHandle bool) {
	t.Helper()
	victim := k.start(t, path)
	victim.Held(t)
	syscall.Kill(-victim.Pid(), syscall.SIGKILL)
	victim.stdin.Close()
	victim.awaitExit(t)
	try := func() bool {
		p := k.start(t, path)
		got := p.got(t)
		p.Release(t)
		return got
	}
	if k.breaks || byHandle && k.handle || k.family != byTheName {
		eventually(t, 10*time.Second, try, k.name+" takes over what a dead process held")
	} else if try() {
		t.Errorf("%s takes over what a dead process has left, which it does not", k.name)
	}
	remove(t, []string{path})
}
