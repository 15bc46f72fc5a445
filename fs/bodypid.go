package fs

import "bytes"

// This file finds the pid in a body, for reap=pid.

// maxPid is the largest pid that any Linux gives out (PID_MAX_LIMIT).
const maxPid = 4 << 20

// hdbWidth is how wide the number is in a lock file of HDB UUCP, "%10d\n".
const hdbWidth = 10

// bodyPid returns the pid that a body consists of, 0 if there is none.
//
// A wrong pid would release a lock in use, and files of data are written by
// O_EXCL too, so a body is a pid only if nothing else is in it: a decimal number
// from 1 to 4194304 without leading zeros, with blanks and newlines around it.
// That is what shlock, lockdev and other heirs of HDB UUCP write ("%10d\n"),
// and dotlockfile, pid files and `echo $$` ("%d\n"). A number that fills the ten
// columns of HDB UUCP has three forms more:
//
//	0000001234       padded with zeros, as some programs for serial lines do
//	      1234 P U   program and user behind it, as minicom's
//	      1234\nH    the host in a second line, as GnuPG's
//
// No pid are, for example, procmail's "0", binary numbers, "host:pid"
// (Mercurial), "pid:host", and words or lines behind a number of any other
// width: "22 Nov" is a date and "3\na\n" a list, and cannot be told from the
// "pid\nhost\n" of newer versions of Python's SoftFileLock.
//
// whole is whether a newline follows the number. Without one it may be the first
// part of a longer number, and counts when its writer closes the file.
func bodyPid(body []byte) (pid uint32, whole bool) {
	number := bytes.TrimLeft(body, blanks)
	width := len(number)
	for i, c := range number {
		if c < '0' || c > '9' {
			width = i
			break
		}
		if pid = pid*10 + uint32(c-'0'); i >= hdbWidth || pid > maxPid {
			return 0, false
		}
	}
	if pid == 0 || number[0] == '0' && width != hdbWidth {
		return 0, false
	}
	rest := number[width:]
	if words := bytes.Trim(rest, blanks); len(words) > 0 {
		column := len(body) - len(rest)
		if column != hdbWidth || bytes.ContainsAny(body[:column], "\t\n") || !isOrigin(rest) {
			return 0, false
		}
	}
	return pid, bytes.IndexByte(rest, '\n') >= 0
}

// blanks may be around a pid.
const blanks = " \t\n"

// isOrigin reports whether what is behind the number of a lock file says who
// wrote it: " PROGRAM USER\n" or "\nHOST\n", or the beginning of it.
func isOrigin(rest []byte) bool {
	most := 0 // words
	switch rest[0] {
	case ' ':
		most = 2
	case '\n':
		most = 1
	}
	words := bytes.Split(bytes.TrimSuffix(rest[1:], []byte{'\n'}), []byte{' '})
	if len(words) > most {
		return false
	}
	for _, word := range words {
		for _, c := range word {
			if c <= ' ' || c == 0x7f {
				return false
			}
		}
	}
	return true
}
