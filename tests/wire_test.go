package tests

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// This file is what a test and its client processes say to each other: JSON
// lines, requests on the client's standard input and answers on its standard
// output, in any order. Names and data are []byte, which JSON carries as
// base64, because a name need not be UTF-8.

// clientEnv makes the test binary a client.
const clientEnv = "LOCKFS_TEST_CLIENT"

type request struct {
	ID uint64
	Op string
	// OnMain: by the first thread.
	OnMain bool          `json:",omitempty"`
	Path   []byte        `json:",omitempty"`
	FD     int           `json:",omitempty"`
	Flags  int           `json:",omitempty"` // open flags, flock operation, fcntl command, access mode
	Mode   uint32        `json:",omitempty"`
	Lk     *unix.Flock_t `json:",omitempty"`
	Off    int64         `json:",omitempty"`
	N      int           `json:",omitempty"`
	Data   []byte        `json:",omitempty"`
}

type answer struct {
	ID    uint64
	Errno int           `json:",omitempty"`
	N     int           `json:",omitempty"` // a descriptor or a length
	Data  []byte        `json:",omitempty"`
	Names [][]byte      `json:",omitempty"`
	Stat  *Stat         `json:",omitempty"`
	Lk    *unix.Flock_t `json:",omitempty"`
}

// Stat is what stat(2) tells.
type Stat struct {
	Mode     uint32 // with the type bits: unix.S_IFREG | 0666
	UID, GID uint32
	Nlink    uint64
	Ino      uint64
	Size     int64
	Mtime    time.Time
}

func statOf(st *unix.Stat_t) *Stat {
	return &Stat{
		Mode: st.Mode, UID: st.Uid, GID: st.Gid, Nlink: uint64(st.Nlink),
		Ino: st.Ino, Size: st.Size, Mtime: time.Unix(st.Mtim.Unix()),
	}
}

// toEnd as the length of a range means all bytes from its start on.
const toEnd = 0

// rd, wr and un are fcntl locks on length bytes from start.
func rd(start, length int64) unix.Flock_t { return lk(unix.F_RDLCK, start, length) }
func wr(start, length int64) unix.Flock_t { return lk(unix.F_WRLCK, start, length) }
func un(start, length int64) unix.Flock_t { return lk(unix.F_UNLCK, start, length) }

func lk(kind int16, start, length int64) unix.Flock_t {
	return unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: start, Len: length}
}

// lkString shows a lock as a test's reader would write it: "wr[0,10) pid 17".
func lkString(l unix.Flock_t) string {
	kind := map[int16]string{unix.F_RDLCK: "rd", unix.F_WRLCK: "wr", unix.F_UNLCK: "un"}[l.Type]
	if l.Type == unix.F_UNLCK {
		return kind
	}
	if l.Len == toEnd {
		return fmt.Sprintf("%s[%d,end) pid %d", kind, l.Start, l.Pid)
	}
	return fmt.Sprintf("%s[%d,%d) pid %d", kind, l.Start, l.Start+l.Len, l.Pid)
}
