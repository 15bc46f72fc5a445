package lockspace

// What the table does with its [Mirror], if it has one.

// Mirrored gives the table a mirror, before the first step, for the locks of all
// directories. Of a restored table it hears what is held; who waits for somebody
// outside is told by [Table.ReconsiderAll].
func (t *Table) Mirrored(m Mirror) {
	t.mirror = m
	for k, l := range t.locks {
		if len(l.holds) > 0 {
			m.Settled(k, l.holds)
		}
	}
}

// cover has the mirror cover a request that nothing in the table blocks.
func (t *Table) cover(r *Request) error {
	if t.mirror == nil {
		return nil
	}
	return t.mirror.Cover(r)
}

// Reconsider looks again at a lock of which the mirror could not cover a wait.
func (t *Table) Reconsider(k Key) {
	if l := t.locks[k]; l != nil {
		t.settle(l)
	}
}

// ReconsiderAll looks at every lock that somebody waits for: of a restored table,
// whose mirror has to hear for whom it is to look out.
func (t *Table) ReconsiderAll() {
	for _, w := range t.waits {
		t.unsettle(w.lock)
	}
	t.settleRest()
}
