package fs

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/lockfs/lockfs/lockspace"
)

// The control file waits.dot: who waits for whom, for Graphviz.
//
// A process points at what it waits for, and that at those who hold it, so a
// deadlock is a ring, and is drawn in red. What is waited for is a lock, or,
// where byte ranges are taken, each part of it that has no range in common with
// the others. Behind whom somebody stands in the queue is not drawn, which would
// be as many arrows as there are pairs, but told: "2." is second in the queue.
//
// A process that opened a file through which another waits, as a shell does for
// flock(1), points at that one with a dotted arrow: most often it waits for it.
// So a ring may be false, as all that goes through open files which several
// have.

// formatWaits writes waits.dot.
func formatWaits(seen *seenLocks) []byte {
	g := &waitGraph{byProcess: make(map[string]int)}
	for list := seen.locks; len(list) > 0; {
		n := 1
		for n < len(list) && list[n].path == list[0].path {
			n++
		}
		g.addLock(list[:n])
		list = list[n:]
	}
	return g.format()
}

// waitGraph is a graph of processes and of parts of locks.
type waitGraph struct {
	nodes     []waitNode
	byProcess map[string]int
}

type waitNode struct {
	name, label string
	process     bool
	arrows      []waitArrow
	// ring numbers the set of nodes that can all be reached from each other.
	ring int
}

type waitArrow struct {
	to           int
	label, style string
}

func (g *waitGraph) add(n waitNode) int {
	g.nodes = append(g.nodes, n)
	return len(g.nodes) - 1
}

func (g *waitGraph) point(from, to int, label, style string) {
	g.nodes[from].arrows = append(g.nodes[from].arrows, waitArrow{to, label, style})
}

// process returns the node of a process. One that cannot be seen is known by the
// open file that it uses.
func (g *waitGraph) process(p lockspace.Process, comm string, handle uint64) int {
	name := fmt.Sprintf("p%d", p.Pid)
	if p.Pid == 0 {
		name = fmt.Sprintf("f%d", handle)
	}
	i, ok := g.byProcess[name]
	if !ok {
		if comm == "" {
			comm = "?"
		}
		i = g.add(waitNode{name: name, label: fmt.Sprintf("%s\npid %d, uid %d", drawn(comm), p.Pid, p.UID), process: true})
		g.byProcess[name] = i
	}
	return i
}

// addLock adds what is waited for of one lock.
func (g *waitGraph) addLock(list []seenLock) {
	if !slices.ContainsFunc(list, func(l seenLock) bool { return l.token == 0 }) {
		return
	}
	place := 0
	places := make(map[*seenLock]int)
	order := make([]*seenLock, len(list))
	for i := range list {
		order[i] = &list[i]
		if list[i].token == 0 {
			place++
			places[order[i]] = place
		}
	}
	slices.SortStableFunc(order, func(a, b *seenLock) int {
		return cmp.Compare(a.request.Range.First, b.request.Range.First)
	})
	for len(order) > 0 {
		part, n := order[0].request.Range, 1
		for n < len(order) && order[n].request.Range.First <= part.Last {
			part.Last = max(part.Last, order[n].request.Range.Last)
			n++
		}
		g.addPart(order[:n], part, places)
		order = order[n:]
	}
}

// addPart adds a part of a lock, if anybody waits for it.
func (g *waitGraph) addPart(list []*seenLock, part lockspace.Range, places map[*seenLock]int) {
	waits, exclusive := 0, 0
	for _, l := range list {
		if l.token == 0 {
			waits++
			exclusive += int(l.request.Mode)
		}
	}
	if waits == 0 {
		return
	}
	label := drawn(list[0].path)
	if part != lockspace.Whole {
		label += "\n" + part.String()
	}
	lock := g.add(waitNode{name: "l" + strconv.Itoa(len(g.nodes)), label: label})
	for _, l := range list {
		p := g.process(l.who, l.comm, l.request.Party.Handle)
		mode := l.request.Mode.String()
		if l.request.Range != part {
			mode += " " + l.request.Range.String()
		}
		switch {
		case l.token == 0:
			g.point(p, lock, fmt.Sprintf("%d. %s", places[l], mode), "solid")
			if l.opener.Pid != 0 {
				g.point(g.process(l.opener, l.openerComm, 0), p, "", "dotted")
			}
		case l.request.Mode == lockspace.Exclusive || exclusive > 0: // else it is in nobody's way
			g.point(lock, p, mode, "bold")
		}
	}
}

// format writes the graph.
func (g *waitGraph) format() []byte {
	rings := g.findRings()
	var b bytes.Buffer
	b.WriteString("digraph waits {\n\trankdir=LR;\n")
	for i := range g.nodes {
		n, shape := &g.nodes[i], "box"
		if n.process {
			shape = "ellipse"
		}
		fmt.Fprintf(&b, "\t%s [shape=%s,label=%s%s];\n", n.name, shape, quoted(n.label), inRing(rings[n.ring]))
	}
	for i := range g.nodes {
		n := &g.nodes[i]
		for _, a := range n.arrows {
			to := &g.nodes[a.to]
			fmt.Fprintf(&b, "\t%s -> %s [style=%s,label=%s%s];\n", n.name, to.name, a.style, quoted(a.label),
				inRing(n.ring == to.ring && rings[n.ring]))
		}
	}
	b.WriteString("}\n")
	return b.Bytes()
}

func inRing(yes bool) string {
	if yes {
		return `,color=red,fontcolor=red,penwidth=3`
	}
	return ""
}

// findRings numbers the sets of nodes that can be reached from each other, and
// returns which of these are rings: those with several processes. (One that
// holds a lock shared and waits to have it alone is none.) It is Tarjan's
// algorithm ("Depth-first search and linear graph algorithms", 1972), with a
// stack of its own: a chain of waits can be long.
func (g *waitGraph) findRings() (rings []bool) {
	type visit struct{ node, arrow int }
	number, low := make([]int, len(g.nodes)), make([]int, len(g.nodes)) // 0: not visited
	open := make([]bool, len(g.nodes))
	var path []visit
	var stack []int
	last := 0
	for first := range g.nodes {
		if number[first] != 0 {
			continue
		}
		path = append(path, visit{node: first})
		for len(path) > 0 {
			v := &path[len(path)-1]
			if number[v.node] == 0 {
				last++
				number[v.node], low[v.node] = last, last
				stack, open[v.node] = append(stack, v.node), true
			}
			if v.arrow < len(g.nodes[v.node].arrows) {
				to := g.nodes[v.node].arrows[v.arrow].to
				v.arrow++
				switch {
				case number[to] == 0:
					path = append(path, visit{node: to})
				case open[to]:
					low[v.node] = min(low[v.node], number[to])
				}
				continue
			}
			done := v.node
			if path = path[:len(path)-1]; len(path) > 0 {
				up := path[len(path)-1].node
				low[up] = min(low[up], low[done])
			}
			if low[done] < number[done] {
				continue
			}
			processes := 0
			for in := -1; in != done; {
				in = stack[len(stack)-1]
				stack, open[in] = stack[:len(stack)-1], false
				g.nodes[in].ring = len(rings)
				if g.nodes[in].process {
					processes++
				}
			}
			rings = append(rings, processes > 1)
		}
	}
	return rings
}

// drawn writes bytes as text that can be drawn and read back: control
// characters, backslashes, and what is not UTF-8, as three octal digits behind a
// backslash.
func drawn(s string) string {
	var b []byte
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if c := s[0]; r == utf8.RuneError && n == 1 || c < ' ' || c == '\\' || c == 0x7f {
			b = fmt.Appendf(b, `\%03o`, c)
		} else {
			b = append(b, s[:n]...)
		}
		s = s[n:]
	}
	return string(b)
}

// quoted writes a string of the DOT language. A newline in it is one in the
// label.
func quoted(s string) string {
	b := []byte{'"'}
	for _, c := range []byte(s) {
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
