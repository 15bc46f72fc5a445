package fs_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.7: waits.dot.

// take has a process take or wait for a lock by flock, through a file of its
// own. It waits until the daemon has done so.
func (s *served) take(pid uint32, name string, kind uint32) {
	s.t.Helper()
	s.procs.set(pid, fs.ProcessInfo{Kin: fs.Kin{Pid: pid}, Comm: fmt.Sprint("c", pid)})
	s.caller = caller{1000, 1000, pid}
	s.startFlock(s.mustCreate(name, 0), kind)
}

// edges returns the arrows of waits.dot, as "from -> to", with the first line of
// each label; a "!" behind it says that it is red.
func edges(t testing.TB, text string) map[string]bool {
	t.Helper()
	label := regexp.MustCompile(`label="((?:[^"\\]|\\.)*)"`)
	names, all := make(map[string]string), make(map[string]bool)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 || lines[0] != "digraph waits {" || lines[len(lines)-1] != "}" {
		t.Fatalf("not a graph: %q", text)
	}
	for _, line := range lines[2 : len(lines)-1] {
		what, rest, ok := strings.Cut(strings.TrimPrefix(line, "\t"), " [")
		m := label.FindStringSubmatch(rest)
		if !ok || m == nil || !strings.HasSuffix(line, "];") {
			t.Fatalf("not a statement: %q", line)
		}
		red := ""
		if strings.Contains(rest, ",color=red") {
			red = "!"
		}
		from, to, arrow := strings.Cut(what, " -> ")
		if !arrow {
			first, _, _ := strings.Cut(m[1], `\n`)
			names[what] = strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(first)
			continue
		}
		if names[from] == "" || names[to] == "" {
			t.Errorf("an arrow between nodes that there are not: %q", line)
		}
		all[names[from]+" -> "+names[to]+red] = true
	}
	return all
}

func (s *served) wantEdges(want ...string) {
	s.t.Helper()
	text := s.readAll(4096, ".lockfs", "waits.dot")
	got := edges(s.t, text)
	for _, e := range want {
		if !got[e] {
			s.t.Errorf("no arrow %q in\n%s", e, text)
		}
		delete(got, e)
	}
	for e := range got {
		s.t.Errorf("an arrow %q too many in\n%s", e, text)
	}
}

func TestWaitsAreDrawn(t *testing.T) {
	s := serve(t)
	s.take(11, "a", unix.F_WRLCK)
	s.take(12, "b", unix.F_WRLCK)
	s.take(15, "alone", unix.F_WRLCK)
	s.wantEdges()
	s.take(12, "a", unix.F_WRLCK)
	s.take(13, "a", unix.F_RDLCK)
	s.wantEdges("c12 -> a", "c13 -> a", "a -> c11")
	// Two wait for each other.
	s.take(11, "b", unix.F_WRLCK)
	s.wantEdges("c12 -> a!", "a -> c11!", "c11 -> b!", "b -> c12!", "c13 -> a")
	text := s.readAll(4096, ".lockfs", "waits.dot")
	for _, want := range []string{
		`[shape=ellipse,label="c11\npid 11, uid 1000",color=red,`,
		`[shape=box,label="a",color=red,`,
		` -> p11 [style=bold,label="exclusive",color=red,`,
		`p13 -> l0 [style=solid,label="2. shared"];`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is not in\n%s", want, text)
		}
	}
}

// Readers are in nobody's way but a writer's; who holds a lock shared and waits to
// have it alone is no ring, two of them are one.
func TestReadersInWaits(t *testing.T) {
	s := serve(t)
	var files []file
	for _, pid := range []uint32{11, 12, 13} {
		s.caller = caller{1000, 1000, pid}
		f := s.mustCreate("a", 0)
		files = append(files, f)
		if errno := s.call(opSetlk, f.node, s.lockBody(f, uint64(pid), unix.F_RDLCK, 0, 9, false)).errno; errno != 0 {
			t.Fatal(errno)
		}
	}
	s.caller = caller{1000, 1000, 11}
	s.send(opSetlkw, files[0].node, s.lockBody(files[0], 11, unix.F_WRLCK, 0, 4, false))
	for _, pid := range []uint32{11, 12, 13} {
		s.procs.set(pid, fs.ProcessInfo{Kin: fs.Kin{Pid: pid}, Comm: fmt.Sprint("c", pid)})
	}
	s.wantEdges("c11 -> a", "a -> c11", "a -> c12", "a -> c13")
}

// Ranges that have nothing in common are apart: what one waits for and another
// holds elsewhere in the file makes no ring.
func TestRangesInWaits(t *testing.T) {
	s := serve(t)
	lock := func(pid uint32, opcode uint32, name string, first, last uint64) {
		t.Helper()
		s.procs.set(pid, fs.ProcessInfo{Kin: fs.Kin{Pid: pid}, Comm: fmt.Sprint("c", pid)})
		s.caller = caller{1000, 1000, pid}
		f := s.mustCreate(name, 0)
		s.send(opcode, f.node, s.lockBody(f, uint64(pid), unix.F_WRLCK, first, last, false))
	}
	lock(11, opSetlk, "a", 0, 4)
	lock(12, opSetlk, "a", 5, 9)
	lock(13, opSetlk, "b", 0, 9)
	lock(12, opSetlkw, "b", 3, 3)
	lock(13, opSetlkw, "a", 2, 3)
	s.wantEdges("c12 -> b", "b -> c13", "c13 -> a", "a -> c11")
	text := s.readAll(4096, ".lockfs", "waits.dot")
	if !strings.Contains(text, `label="a\n0-4"`) || !strings.Contains(text, `label="1. exclusive 2-3"`) {
		t.Errorf("the ranges are not told:\n%s", text)
	}
}

// A shell that waits for flock(1) is part of the ring.
func TestShellsInWaits(t *testing.T) {
	s := serve(t)
	s.take(11, "a", unix.F_WRLCK)
	s.take(12, "b", unix.F_WRLCK)
	s.procs.set(21, fs.ProcessInfo{Kin: fs.Kin{Pid: 21}, Comm: "flock"})
	s.caller = caller{1000, 1000, 11}
	f := s.mustCreate("b", 0)
	s.caller = caller{1000, 1000, 21}
	s.startFlock(f, unix.F_WRLCK)
	s.wantEdges("c11 -> flock", "flock -> b", "b -> c12")
	s.take(12, "a", unix.F_WRLCK)
	s.wantEdges("c11 -> flock!", "flock -> b!", "b -> c12!", "c12 -> a!", "a -> c11!")
	if text := s.readAll(4096, ".lockfs", "waits.dot"); !strings.Contains(text, `p11 -> p21 [style=dotted,`) {
		t.Errorf("no dotted arrow in\n%s", text)
	}
}

// Rings and chains of any length are told apart.
func TestLongRingsInWaits(t *testing.T) {
	const long = 300
	s := serve(t)
	for pid := uint32(1); pid <= long; pid++ {
		s.take(1000+pid, fmt.Sprint("lock", pid), unix.F_WRLCK)
	}
	for pid := uint32(1); pid < long; pid++ {
		s.take(1000+pid, fmt.Sprint("lock", pid+1), unix.F_WRLCK)
	}
	text := s.readAll(4096, ".lockfs", "waits.dot")
	if got := edges(t, text); len(got) != 2*(long-1) || strings.Contains(text, "red") {
		t.Errorf("a chain: %d arrows, red: %v", len(got), strings.Contains(text, "red"))
	}
	s.take(1000+long, "lock1", unix.F_WRLCK)
	red := 0
	for e := range edges(t, s.readAll(4096, ".lockfs", "waits.dot")) {
		if strings.HasSuffix(e, "!") {
			red++
		}
	}
	if red != 2*long {
		t.Errorf("a ring: %d red arrows, want %d", red, 2*long)
	}
}

// Labels give any name back.
func TestOddNamesInWaits(t *testing.T) {
	s := serve(t)
	want := make(map[string]bool)
	octal := regexp.MustCompile(`\\[0-7]{3}`)
	for _, name := range oddNames {
		s.take(11, name, unix.F_WRLCK)
		s.take(12, name, unix.F_RDLCK)
		want["c12 -> "+name], want[name+" -> c11"] = true, true
	}
	text := s.readAll(4096, ".lockfs", "waits.dot")
	for e := range edges(t, text) {
		e = octal.ReplaceAllStringFunc(e, func(o string) string { return unescape(t, o) })
		if !want[e] {
			t.Errorf("an arrow %q too many in\n%s", e, text)
		}
		delete(want, e)
	}
	if len(want) > 0 {
		t.Errorf("no arrows %v in\n%s", want, text)
	}
	if strings.ToValidUTF8(text, "") != text {
		t.Error("waits.dot is not UTF-8")
	}
}
