package tests

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"
)

// This file turns the calls of a history into steps of the model, each of
// which happens at one moment between the call's beginning and its end.

// call is a line that clients/history.c printed: a call and its outcome.
type call struct {
	pid        int
	what       string
	name, file int
	way        string
	mode       byte
	at         cells
	result
	start, end int64
}

// result is the outcome of a call.
type result struct {
	errno syscall.Errno
	// Of F_GETLK: the lock that is in the way.
	pid      int
	mode     byte
	inTheWay cells
	// Of a read: who holds the lock, how many wait.
	seen string
}

func (r result) String() string {
	switch {
	case r.errno != 0:
		return unix.ErrnoName(r.errno)
	case r.seen != "":
		return "ok (" + r.seen + ")"
	case r.pid != 0:
		return fmt.Sprintf("ok (%c %05b by %d)", r.mode, r.inTheWay, r.pid)
	}
	return "ok"
}

func parseCall(t testing.TB, line string) call {
	t.Helper()
	var r call
	var errno, first, last, gotFirst, gotLast int
	n, err := fmt.Sscanf(line, "%d %s %d %d %s %c %d %d %d %d %c %d %d %d %d %s", &r.pid, &r.what, &r.name, &r.file,
		&r.way, &r.mode, &first, &last, &errno, &r.result.pid, &r.result.mode, &gotFirst, &gotLast, &r.start, &r.end, &r.seen)
	if n < 15 { // without what was seen, all the others
		t.Fatalf("not a record: %q: %v", line, err)
	}
	r.errno = syscall.Errno(errno)
	r.seen = sortSeen(r.seen)
	r.at, r.inTheWay = cellRange(first, last), cellRange(gotFirst, gotLast)
	return r
}

// step is one thing that happens to a lock. Most calls are one. A wait is two,
// "begin" and "end" of the same id; a close is "flush" and "release".
type step struct {
	what string
	name int
	id   int
	claim
}

func (s step) String() string {
	mode := "read"
	if s.write {
		mode = "write"
	}
	return fmt.Sprintf("pid %d file %d: %s %s %s %05b", s.pid, s.file, s.what, s.way, mode, s.at)
}

// operations makes a history for porcupine of records, which are in order for
// each process.
func operations(records []call) []porcupine.Operation {
	var ops []porcupine.Operation
	open := map[int]map[int]int{} // process -> file -> name
	for id, r := range records {
		c := claim{pid: r.pid, file: r.file, way: r.way, write: r.mode == 'w', at: r.at}
		add := func(name, file int, what string) {
			c.file = file
			ops = append(ops, porcupine.Operation{
				ClientId: len(open), Input: step{what, name, id, c}, Call: r.start, Output: r.result, Return: r.end,
			})
		}
		if open[r.pid] == nil {
			open[r.pid] = map[int]int{}
		}
		files := open[r.pid]
		switch r.what {
		case "open": // does nothing to a lock
		case "wait":
			add(r.name, r.file, "begin")
			add(r.name, r.file, "end")
		case "close":
			add(r.name, r.file, "flush")
			add(r.name, r.file, "release")
			delete(files, r.file)
		case "die":
			for file, name := range files {
				add(name, file, "flush")
				add(name, file, "release")
			}
			delete(open, r.pid)
			continue
		case "excl":
			c.way, c.write, c.at = "excl", true, allCells
			add(r.name, r.file, "excl")
		default:
			if r.way == "flock" {
				c.at = allCells
			}
			add(r.name, r.file, r.what)
		}
		if r.errno == 0 && (r.what == "open" || r.what == "excl" || r.what == "find") {
			files[r.file] = r.name
		}
	}
	return ops
}

// step returns the states that in may lead to, if it may have the outcome out
// in s; else none.
func (s *lockState) step(in step, out result) []*lockState {
	held := len(s.holds) > 0
	stale := slices.Contains(s.stale, in.file)
	n := s.clone()
	switch in.what {
	case "stat", "find": // "a name is listed exactly while it is held"
		return n.onlyIf(out.errno == 0 == held && (held || out.errno == unix.ENOENT))
	case "excl":
		if held {
			return n.onlyIf(out.errno == unix.EEXIST)
		}
		n.give(in.claim)
		return n.onlyIf(out.errno == 0)
	case "unlink":
		if !held {
			return n.onlyIf(out.errno == unix.ENOENT)
		}
		n.unlink(in.pid)
		n.advance()
		return n.onlyIf(out.errno == 0)
	case "flush": // "any close by that process"
		n.dropHolds(func(h claim) bool { return h.way == "posix" && h.pid == in.pid })
		n.flushed = append(n.flushed, in.file)
		n.advance()
		return []*lockState{n}
	case "release": // "last close"
		n.dropHolds(func(h claim) bool { return h.file == in.file })
		n.flushed, n.stale = without(n.flushed, in.file), without(n.stale, in.file)
		n.advance()
		return n.onlyIf(slices.Contains(s.flushed, in.file))
	case "begin":
		return n.begin(in, out)
	case "end":
		return n.finish(in, out)
	}
	if in.what == "read" {
		return n.onlyIf(out.errno == 0 && out.seen == n.record())
	}
	if stale { // "answers write, fsync and lock calls with ESTALE"
		return n.onlyIf(out.errno == unix.ESTALE)
	}
	switch in.what {
	case "fsync":
		return n.onlyIf(out.errno == 0)
	case "unlock":
		n.take(in.claim)
		n.advance()
		return n.onlyIf(out.errno == 0)
	case "getlk":
		return n.onlyIf(out.errno == 0 && n.mayAnswer(in.claim, out))
	case "try":
		if n.blocked(in.claim, n.queue) {
			return n.onlyIf(out.errno == unix.EAGAIN)
		}
		n.give(in.claim)
		n.advance()
		return n.onlyIf(out.errno == 0)
	}
	panic("no such step: " + in.what)
}

func (s *lockState) onlyIf(ok bool) []*lockState {
	if !ok {
		return nil
	}
	return []*lockState{s}
}

// begin is the moment when a call that may wait reaches the lock.
func (s *lockState) begin(in step, out result) []*lockState {
	var never []*lockState
	if out.errno == unix.EINTR {
		// The signal may have come before the call went out.
		n := s.clone()
		n.ended = append(n.ended, outcome{in.id, unix.EINTR})
		never = append(never, n)
	}
	w := waiter{in.id, in.claim}
	switch {
	case slices.Contains(s.stale, in.file):
		s.end(w, unix.ESTALE)
	case !s.blocked(in.claim, s.queue):
		s.end(w, 0)
		s.give(in.claim)
		s.advance()
	case s.deadlock(in.claim):
		s.end(w, unix.EDEADLK)
	default:
		if in.way == "flock" { // a conversion that waits loses what it converts
			s.dropHolds(in.converts)
		}
		s.queue = append(s.queue, w)
		s.advance()
	}
	return append(never, s)
}

// finish is the moment when a call that may have waited returns.
func (s *lockState) finish(in step, out result) []*lockState {
	for _, e := range s.ended {
		if e.id == in.id {
			s.ended = without(s.ended, e)
			return s.onlyIf(out.errno == e.errno)
		}
	}
	before := len(s.queue)
	s.queue = slices.DeleteFunc(s.queue, func(w waiter) bool { return w.id == in.id })
	waited := len(s.queue) < before
	s.advance()
	return s.onlyIf(waited && out.errno == unix.EINTR)
}

// mayAnswer reports whether F_GETLK may answer so: with any hold in the way,
// as a range without gaps, and its holder; or that there is none.
func (s *lockState) mayAnswer(c claim, out result) bool {
	free := true
	for _, h := range s.holds {
		for _, run := range h.at.runs() {
			h.at = run
			if !h.conflicts(c) {
				continue
			}
			free = false
			// A holder that has just died has no number any more.
			if out.mode == map[bool]byte{false: 'r', true: 'w'}[h.write] && out.inTheWay == run && (out.pid == h.pid || out.pid == 0) {
				return true
			}
		}
	}
	return free && out.mode == 'u'
}

// errnoNamed returns an error by its name.
func errnoNamed(t testing.TB, name string) syscall.Errno {
	t.Helper()
	for e := range syscall.Errno(200) {
		if unix.ErrnoName(e) == name {
			return e
		}
	}
	t.Fatalf("no error is called %s", name)
	return 0
}

// record is what reading the lock shows, as in result.seen: a hold for each
// range without gaps.
func (s *lockState) record() string {
	if len(s.holds) == 0 {
		return ""
	}
	var holds []string
	for _, h := range s.holds {
		mode, via := map[bool]string{false: "shared", true: "exclusive"}[h.write], h.way
		if h.isFcntl() {
			via = "fcntl"
		}
		for range h.at.runs() {
			holds = append(holds, fmt.Sprintf("%d/%s/%s,", h.pid, mode, via))
		}
	}
	slices.Sort(holds)
	return fmt.Sprintf("%swaiting=%d", strings.Join(holds, ""), len(s.queue))
}

// sortSeen puts the holds that were seen in the order in which record has
// them.
func sortSeen(seen string) string {
	parts := strings.SplitAfter(seen, ",")
	last := len(parts) - 1
	slices.Sort(parts[:last])
	return strings.Join(parts, "")
}
