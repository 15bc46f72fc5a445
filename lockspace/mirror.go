package lockspace

// What the table does with its [Mirror], if it has one.

// Mirrored gives the table a mirror, before the first step, for the locks of all
// directories. That of a restored table has to hear what there is: see
// [Table.ReconsiderAll].
func (t *Table) Mirrored(m Mirror) { t.mirror = m }

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

// ReconsiderAll looks at every lock: of a restored table, whose mirror has to hear
// what is held, and who waits for it.
func (t *Table) ReconsiderAll() {
	for _, l := range t.locks {
		t.unsettle(l)
	}
	t.settleRest()
}
