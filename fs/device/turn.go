package device

import "slices"

// Requests that stand in line for the same thing come back from their detours in the
// order in which they left: that one has looked faster is no reason to serve it before
// one that came earlier.

// InTurn has the request of the present step, which takes a detour, come back behind
// those that left before it with the same key, unless it is interrupted.
func (c *Conn) InTurn(key any) { c.detour.turn = key }

// takeTurn puts d, which departs, behind the others of its key, or where it was, if it
// comes from a detour on which it stood in the same line.
func (c *Conn) takeTurn(d, from *detour) {
	if from.turn != nil && from.turn == d.turn {
		line := c.turns[d.turn]
		line[slices.Index(line, from)] = d
		return
	}
	c.leaveTurn(from)
	if d.turn != nil {
		c.turns[d.turn] = append(c.turns[d.turn], d)
	}
}

// awaitsTurn reports whether there is somebody before d.
func (c *Conn) awaitsTurn(d *detour) bool { return d.turn != nil && c.turns[d.turn][0] != d }

// leaveTurn has d stand in no line any more, and the one behind it come back, if that
// has waited for it.
func (c *Conn) leaveTurn(d *detour) {
	if d.turn == nil {
		return
	}
	line := c.turns[d.turn]
	switch i := slices.Index(line, d); {
	case len(line) == 1:
		delete(c.turns, d.turn)
	case i > 0:
		c.turns[d.turn] = slices.Delete(line, i, i+1)
	default:
		line[0] = nil
		c.turns[d.turn] = line[1:]
		if next := line[1]; next.waits {
			next.waits = false
			go c.arrive(next)
		}
	}
	d.turn = nil
}
