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
		if s := f.mirror.Stats(); s.Open >= s.Limit && s.Cached == 0 {
			wrong = append(wrong, "as many backing files are open as can be, so that no lock is granted that has none open: raise the limit of open files (ulimit -n)")
		}
	}
	if len(wrong) == 0 {
		return []byte("ok\n")
	}
	return []byte(strings.Join(wrong, "; ") + "\n")
}
