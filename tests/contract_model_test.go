package tests

import (
	"hash/fnv"
	"slices"
	"strconv"
	"syscall"

	"github.com/anishathalye/porcupine"
	"golang.org/x/sys/unix"
)

// This file is the contract (1.2, 1.5) of one lock as a sequential program, as
// plainly as it can be said: the model that histories are checked against. It
// shares no code with the table that it judges.

// cells are the bytes that histories lock: bit i is byte i, the last bit is
// all bytes from there on. See clients/history.c.
type cells uint8

const (
	cellCount = 5
	allCells  = cells(1<<cellCount - 1)
)

// cellRange returns the cells from first to last; -1 is the last there is.
func cellRange(first, last int) cells {
	if last == -1 {
		last = cellCount - 1
	}
	return cells(1<<(last+1) - 1<<first)
}

// runs splits cells into ranges without gaps.
func (c cells) runs() []cells {
	var runs []cells
	for i := 0; i < cellCount; i++ {
		var run cells
		for ; i < cellCount && c&(1<<i) != 0; i++ {
			run |= 1 << i
		}
		if run != 0 {
			runs = append(runs, run)
		}
	}
	return runs
}

// claim is a hold, or what somebody asks to hold.
type claim struct {
	pid   int    // the process
	file  int    // the open file
	way   string // "excl", "flock", "posix", "ofd"
	write bool   // exclusive
	at    cells
}

func (c claim) isFcntl() bool { return c.way == "posix" || c.way == "ofd" }

// owner tells fcntl lock owners apart: a process, or an open file.
func (c claim) owner() int {
	if c.way == "posix" {
		return -c.pid
	}
	return c.file
}

// converts reports whether a call for c changes what d already has.
func (c claim) converts(d claim) bool {
	if c.isFcntl() {
		return d.isFcntl() && c.owner() == d.owner()
	}
	return c.way == d.way && c.file == d.file
}

// conflicts: "Two holds conflict where their ranges overlap and one is
// exclusive."
func (c claim) conflicts(d claim) bool {
	return c.at&d.at != 0 && (c.write || d.write) && !c.sameParty(d)
}

// sameParty: "fcntl holds of one owner never conflict; an fcntl hold never
// conflicts with an flock or O_EXCL hold that came through the same handle or
// from the same process. Two handles of one process exclude each other."
func (c claim) sameParty(d claim) bool {
	switch {
	case c.isFcntl() && d.isFcntl():
		return c.owner() == d.owner()
	case c.isFcntl() || d.isFcntl():
		return c.file == d.file || c.pid == d.pid
	}
	return c.file == d.file
}

// waiter is a wait in the queue; id is the call's.
type waiter struct {
	id int
	claim
}

// outcome is how a wait ended, which the call has not returned yet.
type outcome struct {
	id    int
	errno syscall.Errno
}

// lockState is the state of a lock. Values are not changed once they are in
// use; change starts with clone.
type lockState struct {
	holds   []claim // of fcntl owners at most one for each mode
	queue   []waiter
	ended   []outcome
	stale   []int // files whose hold was broken
	flushed []int // files that are being closed
	text    string
}

func (s *lockState) clone() *lockState {
	return &lockState{
		holds: slices.Clone(s.holds), queue: slices.Clone(s.queue), ended: slices.Clone(s.ended),
		stale: slices.Clone(s.stale), flushed: slices.Clone(s.flushed),
	}
}

func without[T comparable](list []T, x T) []T {
	return slices.DeleteFunc(list, func(y T) bool { return x == y })
}

// blocked reports whether c must wait: for a hold, or behind one of those
// before it in the queue who does not himself wait for c's party.
func (s *lockState) blocked(c claim, before []waiter) bool {
	if slices.ContainsFunc(s.holds, c.conflicts) {
		return true
	}
	if s.has(c) {
		return false
	}
	for i, w := range before {
		if c.conflicts(w.claim) && !s.dependsOn(i, c) {
			return true
		}
	}
	return false
}

// has reports whether c asks only for what its owner has already.
func (s *lockState) has(c claim) bool {
	missing := c.at
	for _, h := range s.holds {
		if h.way == c.way && c.converts(h) && (h.write || !c.write) {
			missing &^= h.at
		}
	}
	return missing == 0
}

// dependsOn reports whether the i-th in the queue waits for c's party,
// directly or through others.
func (s *lockState) dependsOn(i int, c claim) bool {
	seen := map[int]bool{}
	var visit func(i int) bool
	visit = func(i int) bool {
		if seen[i] {
			return false
		}
		seen[i] = true
		w := s.queue[i]
		for _, h := range s.holds {
			if !h.conflicts(w.claim) {
				continue
			}
			if h.sameParty(c) {
				return true
			}
			for j, v := range s.queue {
				mine := v.file == h.file || v.isFcntl() && h.isFcntl() && v.owner() == h.owner()
				if mine && visit(j) {
					return true
				}
			}
		}
		for j, v := range s.queue[:i] {
			if v.conflicts(w.claim) && visit(j) {
				return true
			}
		}
		return false
	}
	return visit(i)
}

// deadlock: "A cycle of POSIX fcntl waits fails with EDEADLK."
func (s *lockState) deadlock(c claim) bool {
	seen := map[int]bool{}
	var leadsBack func(d claim) bool
	leadsBack = func(d claim) bool {
		for _, h := range s.holds {
			if h.way != "posix" || !h.conflicts(d) {
				continue
			}
			if h.pid == c.pid {
				return true
			}
			for _, w := range s.queue {
				if w.way == "posix" && w.pid == h.pid && !seen[w.id] {
					seen[w.id] = true
					if leadsBack(w.claim) {
						return true
					}
				}
			}
		}
		return false
	}
	return c.way == "posix" && leadsBack(c)
}

// give makes c a hold, with fcntl's splitting, merging and changing.
func (s *lockState) give(c claim) {
	s.take(c)
	if c.isFcntl() {
		for i, h := range s.holds {
			if c.converts(h) && h.write == c.write {
				s.holds[i].at |= c.at
				return
			}
		}
	}
	s.holds = append(s.holds, c)
}

// take takes what c names away from its owner.
func (s *lockState) take(c claim) {
	for i, h := range s.holds {
		if c.converts(h) {
			s.holds[i].at &^= c.at
		}
	}
	s.dropHolds(func(h claim) bool { return h.at == 0 })
}

func (s *lockState) dropHolds(which func(claim) bool) {
	s.holds = slices.DeleteFunc(s.holds, which)
}

// advance lets in whoever need not wait any more, the first first.
func (s *lockState) advance() {
	for i := 0; i < len(s.queue); i++ {
		w := s.queue[i]
		if s.blocked(w.claim, s.queue[:i]) {
			continue
		}
		s.end(w, 0)
		s.give(w.claim)
		i = -1 // from the beginning
	}
}

// end ends a wait.
func (s *lockState) end(w waiter, errno syscall.Errno) {
	s.queue = without(s.queue, w)
	s.ended = append(s.ended, outcome{w.id, errno})
}

// unlink: what is the caller's is given back, all else is broken.
func (s *lockState) unlink(pid int) {
	for _, h := range s.holds {
		if h.pid == pid {
			continue
		}
		s.stale = append(without(s.stale, h.file), h.file)
		for _, w := range slices.Clone(s.queue) {
			if w.file == h.file {
				s.end(w, unix.ESTALE)
			}
		}
	}
	s.holds = nil
}

// key returns a text that is the same for equal states.
func (s *lockState) key() string {
	if s.text != "" {
		return s.text
	}
	b := []byte{'s'}
	number := func(n int) { b = append(strconv.AppendInt(b, int64(n), 36), ' ') }
	hold := func(c claim) {
		number(c.pid)
		number(c.file)
		b = append(b, c.way...)
		number(int(c.at) << 1)
		b = strconv.AppendBool(b, c.write)
	}
	slices.SortFunc(s.holds, func(x, y claim) int {
		return (x.owner()-y.owner())*100 + slices.Compare([]byte(x.way), []byte(y.way))*10 + int(x.at) - int(y.at)
	})
	for _, h := range s.holds {
		hold(h)
	}
	b = append(b, '|')
	for _, w := range s.queue {
		number(w.id)
	}
	b = append(b, '|')
	slices.SortFunc(s.ended, func(x, y outcome) int { return x.id - y.id })
	for _, e := range s.ended {
		number(e.id)
		number(int(e.errno))
	}
	for _, list := range [][]int{s.stale, s.flushed} {
		b = append(b, '|')
		slices.Sort(list)
		for _, f := range list {
			number(f)
		}
	}
	s.text = string(b)
	return s.text
}

// contract is the model for porcupine. A wait that was interrupted may or may
// not have reached the lock, which is all that is not determined.
var contract = (&porcupine.NondeterministicModel{
	Partition: byName,
	Init:      func() []any { return []any{&lockState{}} },
	Step: func(state, input, output any) []any {
		var next []any
		for _, s := range state.(*lockState).step(input.(step), output.(result)) {
			next = append(next, s)
		}
		return next
	},
	Equal: func(a, b any) bool { return a.(*lockState).key() == b.(*lockState).key() },
	Hash: func(state any) uint64 {
		h := fnv.New64a()
		h.Write([]byte(state.(*lockState).key()))
		return h.Sum64()
	},
	DescribeOperation: func(input, output any) string {
		return input.(step).String() + " -> " + output.(result).String()
	},
	DescribeState: func(state any) string { return state.(*lockState).key() },
}).ToModel()

// byName: each name is a lock of its own.
func byName(history []porcupine.Operation) [][]porcupine.Operation {
	names := map[int][]porcupine.Operation{}
	for _, op := range history {
		name := op.Input.(step).name
		names[name] = append(names[name], op)
	}
	var parts [][]porcupine.Operation
	for _, ops := range names {
		parts = append(parts, ops)
	}
	return parts
}
