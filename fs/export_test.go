package fs

// What tests of other packages may do that nobody else does.

// SetHold changes what holds live as long as in a directory, as its administrator
// does: to "handle", "name" or "open". Within a step.
func (f *FS) SetHold(dir uint64, value string) error {
	p, err := ParsePolicy("hold=" + value)
	f.nodes.get(dir).file.Hold = p.hold
	return err
}
