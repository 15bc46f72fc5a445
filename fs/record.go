package fs

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// Read returns the body that the holder wrote, or, if it is empty, the record
// of who holds the lock. A free lock is empty.
func (f *FS) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	if c := f.controls[in.Fh]; c != nil {
		return f.readControl(c, in)
	}
	h := f.handles[in.Fh]
	if h == nil {
		return nil, fuse.EBADF
	}
	// A reader that goes on gets the rest of what it began with. If the process
	// that made it has died meanwhile, it is made anew and as long as it was, so
	// that who has read it all, and looks for more, finds the end.
	goesOn := in.Offset > 0 && h.Shown > 0
	switch {
	case goesOn && h.record != nil:
		return part(h.record, in), fuse.OK
	case goesOn && in.Offset >= h.Shown:
		return part(nil, in), fuse.OK
	}
	if body := h.node.content(); len(body) > 0 {
		f.show(h, nil)
		return part(body, in), fuse.OK
	}
	switch {
	case f.facts != nil && f.facts.record != nil:
		record := f.facts.record
		if goesOn {
			record = record[:min(uint64(len(record)), h.Shown)]
		}
		f.show(h, record)
	case (f.table.Held(h.node.key) || f.readsOutside(h.node)) && !f.readsOwn(h, in.Pid):
		f.lookUpRecord(in.Unique, h.node)
		return nil, device.Parked
	default:
		f.show(h, nil)
	}
	return part(h.record, in), fuse.OK
}

// readsOutside reports whether a reader of a node that nobody holds on the mount is
// told who does outside: not of an ordinary file.
func (f *FS) readsOutside(d *node) bool {
	return f.mirrors(d.key.Dir) && (d.File == 0 || !f.namesOutside(d.key.Dir))
}

// show makes record what is read through h from here on; nil if it is not a
// record.
func (f *FS) show(h *handle, record []byte) {
	h.record = record
	if n := uint64(len(record)); n != h.Shown {
		h.Shown = n
		f.journal.PutHandle(&h.HandleRecord)
	}
}

// part returns what a READ asks for of b.
func part(b []byte, in *fuse.ReadIn) fuse.ReadResult {
	from := min(in.Offset, uint64(len(b)))
	to := min(from+uint64(in.Size), uint64(len(b)))
	return fuse.ReadResultData(b[from:to])
}

// readsOwn reports whether who reads a file that is empty, through h, has locked
// it, where files are ordinary files: a program that locks its data finds in it
// what is there, and not itself.
func (f *FS) readsOwn(h *handle, pid uint32) bool {
	if !f.hasMode(h.node) {
		return false
	}
	for hold := range f.table.Holds(h.node.key) {
		if !hold.ByName && (hold.Party.Handle == h.ID || hold.Party.Taker.Pid == pid) {
			return true
		}
	}
	return false
}

// lookUpRecord makes the record of a lock on a detour, of the holds of this
// moment: with read=pid, that is the pid of the holder.
func (f *FS) lookUpRecord(unique uint64, d *node) {
	k, pidOnly := d.key, f.policyOf(d).readsPid()
	holds, waiting := slices.Collect(f.table.Holds(k)), f.table.Waiting(k)
	stranger, hangs := f.lookForStranger(k)
	foreign := d.foreign
	f.lookUpWhere(unique, 0, hangs, func(x *facts) {
		s := stranger()
		switch {
		case len(holds) == 0 && foreign != nil:
			x.record = readForeign(foreign, s)
		case pidOnly && len(holds) > 0:
			p, _ := findHolder(f.procs, holds[0])
			x.record = fmt.Appendf(nil, "%d\n", p.Pid)
		case pidOnly && s != nil:
			x.record = fmt.Appendf(nil, "%d\n", s.Pid)
		default:
			look := &oneLook{Processes: f.procs}
			x.record = appendStranger(look, formatRecord(look, holds, waiting), s, waiting)
		}
	})
}

// oneLook looks at each process and user once: a process may have thousands of
// ranges of one lock.
type oneLook struct {
	Processes
	infos map[uint32]*ProcessInfo // nil: there is none
	users map[uint32]string
}

func (o *oneLook) Look(tid uint32) (ProcessInfo, bool) {
	info, looked := o.infos[tid]
	if !looked {
		if o.infos == nil {
			o.infos = make(map[uint32]*ProcessInfo)
		}
		if i, ok := o.Processes.Look(tid); ok {
			info = &i
		}
		o.infos[tid] = info
	}
	if info == nil {
		return ProcessInfo{}, false
	}
	return *info, true
}

func (o *oneLook) User(uid uint32) string {
	name, looked := o.users[uid]
	if !looked {
		if o.users == nil {
			o.users = make(map[uint32]string)
		}
		name = o.Processes.User(uid)
		o.users[uid] = name
	}
	return name
}

// formatRecord writes the record of a lock: for each holder, oldest first,
// lines of key=value; an empty line between holders. The keys and their order
// are a contract.
func formatRecord(procs Processes, holds []*lockspace.Hold, waiting int) []byte {
	b := []byte{}
	for i, h := range holds {
		if i > 0 {
			b = append(b, '\n')
		}
		for _, f := range holderFields(procs, h) {
			b = fmt.Appendf(b, "%s=%v\n", f.key, f.value)
		}
		b = fmt.Appendf(b, "waiting=%d\n", waiting)
	}
	return b
}

// recordField is a line of a record.
type recordField struct {
	key   string
	value any
}

// holderFields returns the lines about a hold, whoever waits.
func holderFields(procs Processes, h *lockspace.Hold) []recordField {
	p, info := findHolder(procs, h)
	return []recordField{
		{"pid", p.Pid},
		{"uid", p.UID},
		{"user", escape(procs.User(p.UID))},
		{"comm", escape(info.Comm)},
		{"host", escape(procs.Host())},
		{"cgroup", escape(info.Cgroup)},
		{"mode", h.Mode},
		{"via", h.Via},
		{"since", h.Since.Time().Format(time.RFC3339Nano)},
		{"token", h.Token},
	}
}

// escape writes a value so that it stays on its line: control characters and
// backslashes as in /proc/mounts.
func escape(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) {
		return s
	}
	var b bytes.Buffer
	for _, c := range []byte(s) {
		if c < ' ' || c == '\\' || c == 0x7f {
			fmt.Fprintf(&b, `\%03o`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

var errEscape = errors.New(`a backslash without three octal digits from \001 to \377`)

// unescape undoes escape, and appendField but for a lone "-".
func unescape(word string) (string, error) {
	if !strings.Contains(word, `\`) {
		return word, nil
	}
	var b strings.Builder
	for i := 0; i < len(word); i++ {
		if word[i] != '\\' {
			b.WriteByte(word[i])
			continue
		}
		if len(word) < i+4 {
			return "", errEscape
		}
		c, err := strconv.ParseUint(word[i+1:i+4], 8, 8)
		if err != nil || c == 0 {
			return "", errEscape
		}
		b.WriteByte(byte(c))
		i += 3
	}
	return b.String(), nil
}

// findHolder returns the process behind a hold and what is known of it: the
// one that took it while that lives, else the one that opened the file. A
// process that started later has only inherited the number. If neither lives
// (the descriptor was passed on), the one that opened it is named, without
// details. On detours only.
func findHolder(procs Processes, h *lockspace.Hold) (lockspace.Process, ProcessInfo) {
	taker, opener := h.Party.Taker, h.Party.Opener
	if taker.Pid == 0 {
		return taker, ProcessInfo{}
	}
	if info, ok := procs.Look(taker.Pid); ok && !info.Gone && info.Started <= h.Since.Boot {
		return taker, info
	}
	if opener.Pid == 0 {
		return opener, ProcessInfo{}
	}
	if info, ok := procs.Look(opener.Pid); ok && !info.Gone && info.Started <= h.Party.Opened.Boot {
		return opener, info
	}
	return opener, ProcessInfo{}
}
