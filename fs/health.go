package fs

import "strings"

// health writes the control file of that name: one line, "ok", or what is wrong,
// with "; " between two things. That it can be read at all says that requests
// are served.
func (f *FS) health(*node) []byte {
	var wrong []string
	_, _, waits := f.table.Len()
	if f.tokens.Left() <= uint64(waits) { // see lockspace.Table.Try
		wrong = append(wrong, "no fencing tokens are left, so that nothing is granted: the state directory cannot be written to, or not fast enough")
	}
	if f.closing {
		wrong = append(wrong, "the mount is ending, so that nobody is let wait")
	}
	if f.mirror != nil {
		wrong = append(wrong, f.mirror.wrong()...)
	}
	if len(wrong) == 0 {
		return []byte("ok\n")
	}
	return []byte(strings.Join(wrong, "; ") + "\n")
}
