package lockspace

import (
	"iter"
	"time"
)

// Graces ([Policy.Grace]): after an abnormal end nobody gets the lock for a time.
// Each has an event on the agenda, see expiry.go.

// GraceID numbers graces, like [HoldID] holds.
type GraceID uint64

// Grace says that nobody gets a lock, because a hold of it came to an abnormal
// end.
type Grace struct {
	ID  GraceID
	Key Key
	// Until is when it ends, on the clock of [Instant.Boot].
	Until time.Duration
}

// grace is a Grace with its end on the agenda.
type grace struct {
	Grace
	end *event
}

// Graces returns every grace there is, in no order. The table must not be changed
// during the iteration.
func (t *Table) Graces() iter.Seq[*Grace] {
	return func(yield func(*Grace) bool) {
		for _, g := range t.graces {
			if !yield(&g.Grace) {
				return
			}
		}
	}
}

// beginGrace begins the grace of l after an abnormal end, or makes it longer, if
// the policy has it.
func (t *Table) beginGrace(l *lock) {
	if len(t.policies) == 0 {
		return
	}
	d := t.policies[l.key.Dir].Grace
	if d == 0 {
		return
	}
	until := later(t.clock.Now().Boot, d)
	g := t.graces[l.key]
	switch {
	case g == nil:
		t.lastGrace++
		g = t.addGrace(l, Grace{ID: t.lastGrace, Key: l.key, Until: until})
	case g.Until < until:
		g.Until, g.end.at = until, until
		t.agenda.fix(g.end)
	default:
		return
	}
	t.journal.PutGrace(&g.Grace)
}

// addGrace adds a grace to the indexes.
func (t *Table) addGrace(l *lock, r Grace) *grace {
	g := &grace{Grace: r, end: &event{at: r.Until, lock: l}}
	t.graces[l.key] = g
	l.grace = true
	t.mark(l)
	t.agenda.add(g.end)
	return g
}

// endGrace lets others have l again. The step has yet to look at it.
func (t *Table) endGrace(l *lock) {
	g := t.graces[l.key]
	delete(t.graces, l.key)
	l.grace = false
	t.agenda.remove(g.end)
	t.journal.DropGrace(g.ID)
}

// restoreGrace adds a grace that was in the journal.
func (t *Table) restoreGrace(g Grace) {
	t.lastGrace = max(t.lastGrace, g.ID)
	if t.graces[g.Key] == nil {
		t.addGrace(t.lock(g.Key), g)
	}
}
