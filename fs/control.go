package fs

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
)

// The control directory: every directory has one, which tells about it and its
// locks. It is not listed there, cannot be removed, and has the directory's
// owner; whoever may search the directory may look into it. Nothing can be made or
// removed in it, but named owners, see owner.go.
//
// Its files and directories are entries of one table. Their nodes are made up
// when they are asked for: a node's number says which entry it is and which
// directory it is about, so the kernel may keep it over any number of
// processes, and no reference is counted. (What is in lock/NAME has numbers for
// names, which have to be kept: see lockdir.go; what is in owner/NAME has the
// owner's, which it keeps.) Nothing of it reaches the lock table:
// its open files are in a map of their own, where no lock call finds them.
//
// What a file contains is made when it is read at offset 0, and kept with the
// open file for the reads that follow, so that short reads see one moment, see
// reading.go. What is made of all locks is gathered on a detour, see gather.go.

// controlName is the name of control directories, which no lock can have.
const controlName = ".lockfs"

// The numbers of entries are part of the numbers of nodes, which outlive the
// program: one is never given to another entry.
const (
	controlDir     = 0
	controlVersion = 1
	controlPolicy  = 2
	controlHold    = 3
	controlRead    = 4
	controlReap    = 5
	controlLease   = 6
	controlGrace   = 7
	controlLocks   = 8
	controlJSON    = 9
	controlWaits   = 10
	controlHealth  = 11
	controlLock    = 12
	controlOneLock = 13
	controlHolder  = 14
	controlToken   = 15
	controlMode    = 16
	controlWaiting = 17
	controlCheck   = 18
	controlIDCount = 19

	controlEvents  = 20
	controlMetrics = 21

	controlAlloc     = 22
	controlAvailable = 23
	controlIDs       = 24
	controlID        = 25
	// Those from 22 to 25 are not a named owner's.
	controlOwner      = 26
	controlOneOwner   = 27
	controlOwnerID    = 28
	controlOwnerUUID  = 29
	controlOwnerName  = 30
	controlOwnerPid   = 31
	controlResources  = 32
	controlOwnerState = 33
	controlOwnerCtl   = 34
	controlConflicts  = 35
	controlOnFailure  = 36
	controlPublish    = 48
	controlMirror     = 49
)

// controlEntry is a name in control directories.
type controlEntry struct {
	number uint8
	// in is the number of the directory that it is in.
	in   uint8
	name string
	// rootOnly entries are not in every control directory.
	rootOnly bool
	// content makes what a reader finds, about a directory; nil for
	// directories.
	content func(f *FS, dir *node) []byte
	// gathered makes it on a detour, instead, for a user: see gather.go.
	gathered func(f *FS, about uint64, uid uint32) []byte
	// ofLock makes it of one lock, instead, for what is in lock/NAME.
	ofLock func(*lockSeen, Processes) []byte
	// ofOwner makes it of a named owner, for what is in owner/NAME; owned does what
	// is written there, see ownerfiles.go.
	ofOwner func(*FS, *namedOwner) []byte
	owned   func(*FS, *ownerWrite) fuse.Status
	// set does what is written, about a directory, for its owner and root; nil
	// for what cannot be written to. The error says what is wrong with it, and
	// then it has changed nothing.
	set func(f *FS, dir *node, value string) error
	// write does it instead, where that is not done in one step: it returns
	// device.Parked for a detour. The error goes with a status that is one.
	write func(f *FS, dir *node, in *fuse.WriteIn, value string) (fuse.Status, error)
	// stream: it is no text but a stream, see stream.go; content is not used.
	stream bool
	// numbered: it is about numbered locks, see numbered.go.
	numbered bool
}

var controlEntries = append([]controlEntry{
	{number: controlVersion, in: controlDir, name: "version", rootOnly: true, content: (*FS).version},
	{number: controlEvents, in: controlDir, name: "events", rootOnly: true, content: noContent, stream: true},
	{number: controlMetrics, in: controlDir, name: "metrics", rootOnly: true, gathered: metricsOf},
	{number: controlHealth, in: controlDir, name: "health", rootOnly: true, content: (*FS).health},
	{number: controlPolicy, in: controlDir, name: "policy"},
	{number: controlLocks, in: controlDir, name: "locks", gathered: listOfAll(formatLocks)},
	{number: controlJSON, in: controlDir, name: "locks.json", rootOnly: true, gathered: listOfAll(formatJSON)},
	{number: controlWaits, in: controlDir, name: "waits.dot", rootOnly: true, gathered: listOf(formatWaits)},
	{number: controlLock, in: controlDir, name: "lock"},
}, slices.Concat(lockEntries, numberedEntries, policyEntries(), ownerEntries())...)

// theControlDir is the control directory itself, which is in no other.
var theControlDir = controlEntry{number: controlDir, name: controlName}

// version tells which program serves, and which state it can take over. The
// keys and their order are a contract.
func (f *FS) version(*node) []byte {
	return fmt.Appendf(nil, "program=%s\nstate=%d\n", escape(f.program), f.stateVersion)
}

// Numbers of control nodes: controlNodes, the directory's number above the
// entry's; in lock/NAME lockDirNodes too, and that directory's own number. Those of
// other nodes, which count up from 1, stay below, and device.Root is above.
const (
	controlNodes    = uint64(1) << 62
	lockDirNodes    = uint64(1) << 61
	controlDirShift = 8
	// maxNode is the highest number of a node that can be a directory.
	maxNode = lockDirNodes>>controlDirShift - 1
)

// isControl reports whether a number is that of a control node.
func isControl(id uint64) bool { return id>>62 == controlNodes>>62 }

// controlNode is an entry, and the directory that it is about.
type controlNode struct {
	*controlEntry
	about *node
	// lock is the directory lock/NAME that it is, or is in, and that of the name of
	// a number, if it is the number's file in ids; else nil.
	lock *lockDir
	// owner is the named owner whose directory it is, or is in; else nil.
	owner *namedOwner
}

func (c controlNode) id() uint64 {
	switch {
	case c.lock != nil:
		return controlNodes | lockDirNodes | c.lock.ID<<controlDirShift | uint64(c.number)
	case c.owner != nil:
		return controlNodes | lockDirNodes | c.owner.ID<<controlDirShift | uint64(c.number)
	}
	return controlNodes | c.about.ID<<controlDirShift | uint64(c.number)
}

// entry returns another entry about the same.
func (c controlNode) entry(e *controlEntry) controlNode {
	return controlNode{e, c.about, c.lock, c.owner}
}

// controlNode returns the control node with a number. ok is false if there is
// no such directory any more, or, after a change of programs, no such entry.
func (f *FS) controlNode(id uint64) (c controlNode, ok bool) {
	about := (id &^ controlNodes) >> controlDirShift
	if c.lock = f.lockDirs.of(id); c.lock != nil {
		about = c.lock.Key.Dir
	} else if c.owner = f.owners.of(id); c.owner != nil {
		about = rootDir
	}
	c.about = f.nodes.get(about)
	if c.about == nil || c.about.file.Kind != directory {
		return c, false
	}
	if c.controlEntry = entryOf(uint8(id)); c.controlEntry == nil {
		return c, false
	}
	return c, c.isAbout(c.about) && (c.lock != nil) == (c.isOneLocks() || c.number == controlID) && (c.owner != nil) == c.isOneOwners()
}

// entryOf returns the entry with a number, nil if there is none.
func entryOf(number uint8) *controlEntry {
	switch number {
	case controlDir:
		return &theControlDir
	case controlOneLock:
		return &theLockDir
	case controlID:
		return &theID
	case controlOneOwner:
		return &theOwnerDir
	}
	for i := range controlEntries {
		if e := &controlEntries[i]; e.number == number {
			return e
		}
	}
	return nil
}

// isOneLocks reports whether it is a directory lock/NAME, or in one.
func (e *controlEntry) isOneLocks() bool { return e.number == controlOneLock || e.in == controlOneLock }

// tellsLocks reports whether it tells of locks to those only who may see them, see
// gather.go. (What tells of the locks of several directories is there for all.)
func (e *controlEntry) tellsLocks() bool { return e.number == controlLock || e.isOneLocks() }

// isAbout reports whether the control directory of d has the entry.
func (e *controlEntry) isAbout(d *node) bool { return !e.rootOnly || d.ID == rootDir }

// isThere reports whether it is there now, which of some the directory's policy says.
func (e *controlEntry) isThere(d *node) bool {
	return e.isAbout(d) && (!e.numbered || d.file.Policy.ids > 0)
}

// reach returns the control node of a request whose caller may search the
// directory, and be shown its locks, if it tells of these. Else the status says why
// not: ESTALE, EACCES, or Parked.
func (f *FS) reach(in *fuse.InHeader) (controlNode, fuse.Status) {
	c, ok := f.controlNode(in.NodeId)
	if !ok {
		return c, errStale
	}
	status := f.permit(in, c.about, maySearch)
	if status == fuse.OK && c.tellsLocks() && !c.about.file.isShownTo(in.Uid) {
		status = fuse.EACCES
	}
	if status == fuse.OK && c.owner != nil && !c.owner.isOf(in.Uid) {
		status = fuse.EACCES
	}
	return c, status
}

// lookupControl finds a name in a control directory.
func (f *FS) lookupControl(in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	c, status := f.reach(in)
	if status != fuse.OK {
		return status
	}
	switch c.number {
	case controlLock:
		return f.lookupLock(in, c, name, out)
	case controlIDs:
		return f.lookupID(in, c, name, out)
	case controlOwner:
		return f.lookupOwner(c, name, out)
	}
	for i := range controlEntries {
		e := &controlEntries[i]
		if e.in == c.number && e.name == name && e.isThere(c.about) {
			f.enterControl(c.entry(e), out)
			return fuse.OK
		}
	}
	return fuse.ENOENT
}

// enterControl answers with a control node.
func (f *FS) enterControl(c controlNode, out *fuse.EntryOut) {
	if c.lock != nil {
		f.enteredLockDir(c.lock)
	}
	out.NodeId = c.id()
	out.Generation = 1
	f.controlAttr(c, &out.Attr)
}

// controlAttr fills in what stat(2) shows of a control node.
func (f *FS) controlAttr(c controlNode, out *fuse.Attr) {
	*out = fuse.Attr{
		Ino:     c.id(),
		Nlink:   1,
		Mode:    c.mode(),
		Owner:   fuse.Owner{Uid: c.about.file.UID, Gid: c.about.file.GID},
		Blksize: blockSize,
	}
	if c.isDir() {
		out.Nlink = 2
	}
	if c.owner != nil {
		f.ownerAttr(c.owner, out)
		return
	}
	out.Mtime, out.Mtimensec = seconds(c.about.file.Modified)
	out.Atime, out.Atimensec = out.Mtime, out.Mtimensec
	out.Ctime, out.Ctimensec = out.Mtime, out.Mtimensec
	if c.tellsLocks() && !c.about.file.isShown() {
		out.Mode &^= 0o077
	}
	switch {
	case c.stream:
		f.streamAttr(out)
	case c.numbered:
		f.numberedAttr(c, out)
	}
}

func (e *controlEntry) isDir() bool {
	return e.content == nil && e.gathered == nil && e.ofLock == nil && e.ofOwner == nil && e.owned == nil
}

func (e *controlEntry) mode() uint32 {
	switch {
	case e.number == controlOwner || e.isOneOwners():
		return e.ownerMode()
	case e.isDir():
		return unix.S_IFDIR | 0o555
	case e.set == nil:
		return unix.S_IFREG | 0o444
	}
	return unix.S_IFREG | 0o644
}

// permitControl checks that the caller of a request may do what want says with a
// control file: what is written there is for the directory's owner and root,
// who has no more rights than others where nobody has any. It is OK, EACCES, or
// Parked for a detour.
func (f *FS) permitControl(in *fuse.InHeader, c controlNode, want uint32) fuse.Status {
	if c.numbered {
		return f.permitNumbered(in, c, want)
	}
	mine := in.Uid == 0 || in.Uid == c.about.file.UID || c.owner != nil && c.owner.isOf(in.Uid)
	if want&mayWrite != 0 && !mine || !allows(c.mode()>>6, want) {
		return fuse.EACCES
	}
	return fuse.OK
}

func (f *FS) getControlAttr(in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	c, ok := f.controlNode(in.NodeId)
	if !ok {
		return errStale
	}
	f.controlAttr(c, &out.Attr)
	if h := f.controls[in.Fh()]; in.Flags()&fuse.FUSE_GETATTR_FH != 0 && h != nil && h.stream != nil {
		out.Size = h.stream.end()
	}
	return fuse.OK
}

// setControlAttr truncates what can be written to, which changes nothing, and
// refuses everything else.
func (f *FS) setControlAttr(in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	c, ok := f.controlNode(in.NodeId)
	if !ok {
		return errStale
	}
	if in.Valid&fuse.FATTR_SIZE == 0 {
		return fuse.EPERM
	}
	if status := f.permitControl(&in.InHeader, c, mayWrite); status != fuse.OK {
		return status
	}
	f.controlAttr(c, &out.Attr)
	return fuse.OK
}

// accessControl answers access(2).
func (f *FS) accessControl(in *fuse.AccessIn) fuse.Status {
	c, status := f.reach(&in.InHeader)
	if status != fuse.OK {
		return status
	}
	return f.permitControl(&in.InHeader, c, in.Mask&7)
}

// controlHandle is an open file or directory of a control directory.
type controlHandle struct {
	HandleRecord
	reading *reading // what a reader is in the middle of; nil if nobody is
	stream  *reader  // nil: it is none
	// names are what is listed of a directory lock, nil if nobody has begun.
	names []listedName
}

// openControl opens a control node; it returns the number of the open file.
func (f *FS) openControl(in *fuse.OpenIn) (uint64, fuse.Status) {
	c, status := f.reach(&in.InHeader)
	if status == fuse.OK {
		status = f.permitControl(&in.InHeader, c, wanted(in.Flags))
	}
	if status != fuse.OK {
		return 0, status
	}
	h := f.addControl(&in.InHeader, c)
	if c.stream {
		f.beginStream(h)
	}
	return h.ID, fuse.OK
}

// addControl makes an open file of a control node, for the caller of a request.
func (f *FS) addControl(in *fuse.InHeader, c controlNode) *controlHandle {
	p := lockspace.Process{Pid: in.Pid, UID: in.Uid, GID: in.Gid}
	h := &controlHandle{HandleRecord: f.newHandle(c.id(), p)}
	f.controls[h.ID] = h
	f.openedLockDir(h.Node)
	f.journal.PutHandle(&h.HandleRecord)
	return h
}

// readControl reads from an open control file.
func (f *FS) readControl(h *controlHandle, in *fuse.ReadIn) (fuse.ReadResult, fuse.Status) {
	if h.stream != nil {
		return f.readStream(h.stream, in)
	}
	if in.Offset > 0 && h.reading != nil {
		return f.readOn(h, in)
	}
	c, ok := f.controlNode(h.Node)
	switch {
	case !ok:
		return nil, errStale
	case c.isDir():
		return nil, fuse.EISDIR
	case c.number == controlAlloc:
		return f.readAlloc(h, in, c)
	case c.number == controlID:
		f.beginReading(h, newReading([]byte(c.lock.Key.Name+"\n")))
	case c.content != nil:
		f.beginReading(h, newReading(c.content(f, c.about)))
	case c.ofOwner != nil:
		f.beginReading(h, newReading(c.ofOwner(f, c.owner)))
	case f.facts != nil && f.facts.reading != nil && !f.facts.reading.isLost():
		f.beginReading(h, f.facts.reading)
	case c.gathered != nil:
		return nil, f.lookUpGathered(in, h, c)
	default:
		return nil, f.lookUpLock(in, c)
	}
	return f.readOn(h, in)
}

// maxSetting is the longest value that can be written, in bytes.
const maxSetting = 256

// writeControl does what is written to an open control file: one WRITE is one
// value, with or without a newline. EINVAL, and a line in the log, if it is not
// one; nothing is changed then.
func (f *FS) writeControl(h *controlHandle, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	c, ok := f.controlNode(h.Node)
	switch {
	case !ok:
		return 0, errStale
	case c.owned != nil:
		return f.writeOwner(h, in, c, data)
	case c.set == nil:
		return 0, fuse.EBADF
	}
	value, err := strings.TrimSuffix(string(data), "\n"), errTooLong
	status := fuse.EINVAL
	switch {
	case len(value) > maxSetting:
	case c.write != nil:
		status, err = c.write(f, c.about, in, value)
	default:
		err = c.set(f, c.about, value)
	}
	if status == device.Parked {
		return 0, status
	}
	if err != nil {
		f.log.Warn("value refused, nothing changed", "file", c.name, "directory", f.directoryPath(c.about),
			"err", err, "by_uid", in.Uid, "by_pid", in.Pid)
		return 0, status
	}
	return uint32(len(data)), fuse.OK
}

var errTooLong = fmt.Errorf("longer than %d bytes", maxSetting)

// closeControl is the end of an open control file.
func (f *FS) closeControl(h *controlHandle) {
	if h.stream != nil {
		f.endStream(h.stream)
	}
	delete(f.controls, h.ID)
	f.closedLockDir(h.Node)
	f.journal.DropHandle(h.ID)
	if h.reading != nil {
		f.leaveReading(h)
		f.journal.DropContent(h.ID)
	}
}

// readControlDir lists a control directory: the table's entries, in its order.
func (f *FS) readControlDir(in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c, ok := f.controlNode(in.NodeId)
	switch {
	case !ok:
		return errStale
	case !c.isDir():
		return fuse.ENOTDIR
	}
	if c.number == controlLock {
		if status := f.beginNames(in, c.about); status != fuse.OK {
			return status
		}
	}
	parent := c.about.ID
	if c.number != controlDir {
		parent = controlNodes | c.about.ID<<controlDirShift | uint64(c.in)
	}
	if in.Offset < afterDot && !out.AddDirEntry(fuse.DirEntry{Name: ".", Ino: c.id(), Mode: unix.S_IFDIR, Off: afterDot}) {
		return fuse.OK
	}
	if in.Offset < afterDotDot && !out.AddDirEntry(fuse.DirEntry{Name: "..", Ino: parent, Mode: unix.S_IFDIR, Off: afterDotDot}) {
		return fuse.OK
	}
	switch c.number {
	case controlLock:
		f.listNames(in, out)
		return fuse.OK
	case controlIDs:
		f.listIDs(c, in, out)
		return fuse.OK
	case controlOwner:
		f.owners.list(in, out)
		return fuse.OK
	}
	for i := range controlEntries {
		e := &controlEntries[i]
		place := uint64(i) + firstPlace + 1
		if in.Offset >= place || e.in != c.number || !e.isThere(c.about) {
			continue
		}
		entry := fuse.DirEntry{Name: e.name, Ino: c.entry(e).id(), Mode: e.mode(), Off: place}
		if !out.AddDirEntry(entry) {
			break
		}
	}
	return fuse.OK
}

// cannotMake is the errno for making something of a kind that there is not, or
// not yet, in a directory: EPERM; in a control directory nobody may make, or
// remove, anything: EACCES.
func cannotMake(dir uint64) fuse.Status {
	if isControl(dir) {
		return fuse.EACCES
	}
	return fuse.EPERM
}

// notALock is the errno of a lock call on an open file that is no lock's.
func (f *FS) notALock(handle uint64) fuse.Status {
	if f.controls[handle] != nil {
		return errNotSup
	}
	return fuse.EBADF
}
