package device

import (
	"encoding/binary"
	"syscall"
)

// The little of the FUSE wire format (uapi/linux/fuse.h) that go-fuse does not
// handle for lockfs. Numbers are in the machine's byte order.

const (
	opSetattr   = 4
	opSymlink   = 6
	opMkdir     = 9
	opUnlink    = 10
	opRmdir     = 11
	opRename    = 12
	opLink      = 13
	opOpen      = 14
	opWrite     = 16
	opInit      = 26
	opOpendir   = 27
	opSetlk     = 32
	opSetlkw    = 33
	opCreate    = 35
	opInterrupt = 36
	opPoll      = 40
	opRename2   = 45

	headerInSize  = 40
	headerOutSize = 16
	pollInSize    = headerInSize + 24
	pollReplySize = headerOutSize + 8
	openReplySize = headerOutSize + 16

	// A notification has no request's number, and a code where an answer has
	// its errno.
	notifyPoll     = 1
	notifyPollSize = headerOutSize + 8
	// pollScheduleNotify is FUSE_POLL_SCHEDULE_NOTIFY.
	pollScheduleNotify = 1

	// readBuffer is the size of the buffers that requests are read into: the
	// kernel demands 8 KiB at least, and room for a WRITE.
	readBuffer = 8 << 10
	// answerBuffer holds the largest answer: a header, a structure, and up to
	// 64 KiB that an extended attribute might ask for.
	answerBuffer = 128 << 10
)

var native = binary.NativeEndian

// putMaxPages has the answer to INIT, if it is one, allow requests of so many pages.
// (go-fuse allows as many as MaxWrite bytes take that begin with a page.) The kernel
// does as it says if both of them know of the number, which the flags tell.
func putMaxPages(answer []byte, pages uint16) {
	const maxPages = headerOutSize + 28
	if replyStatus(answer) == 0 && native.Uint32(answer) >= maxPages+2 {
		native.PutUint16(answer[maxPages:], pages)
	}
}

// mustDecide reports whether it has to be written down that a request was
// decided, even if it changed nothing: one that failed might succeed if it was
// carried out again, with nobody to know of it. (Others, whose outcome depends on
// the filesystem's state alone, see endStep.)
func mustDecide(opcode uint32) bool {
	switch opcode {
	case opSymlink, opMkdir, opRmdir, opRename, opLink, opRename2,
		opSetattr, opUnlink, opOpen, opWrite, opOpendir, opSetlk, opSetlkw, opCreate:
		return true
	}
	return false
}

// locksDirectory reports whether the kernel keeps a directory locked while it
// waits for the answer.
func locksDirectory(opcode uint32) bool {
	switch opcode {
	case opCreate, opUnlink, opSymlink, opMkdir, opRmdir, opRename, opLink, opRename2:
		return true
	}
	return false
}

// header is what this package looks at of struct fuse_in_header.
type header struct {
	opcode uint32
	unique uint64
}

func parseHeader(in []byte) (header, bool) {
	if len(in) < headerInSize {
		return header{}, false
	}
	return header{opcode: native.Uint32(in[4:]), unique: native.Uint64(in[8:])}, true
}

// rootToFilesystem gives the root its number [Root].
func rootToFilesystem(in []byte) {
	if native.Uint64(in[16:]) == kernelRoot {
		native.PutUint64(in[16:], Root)
	}
}

// kernelRoot is FUSE_ROOT_ID.
const kernelRoot = 1

// interruptTarget returns which request an INTERRUPT is for, 0 if it does not
// say.
func interruptTarget(in []byte) uint64 {
	if len(in) < headerInSize+8 {
		return 0
	}
	return native.Uint64(in[headerInSize:])
}

// pollIn is struct fuse_poll_in.
type pollIn struct {
	handle uint64
	// pollID is the kernel's number for the open file, as notifications want it:
	// the same in every POLL of it.
	pollID uint64
	notify bool
	events uint32
}

func parsePoll(in []byte) (pollIn, bool) {
	if len(in) < pollInSize {
		return pollIn{}, false
	}
	body := in[headerInSize:]
	return pollIn{
		handle: native.Uint64(body),
		pollID: native.Uint64(body[8:]),
		notify: native.Uint32(body[16:])&pollScheduleNotify != 0,
		events: native.Uint32(body[20:]),
	}, true
}

// putErrno writes a reply without a body and returns its length.
func putErrno(out []byte, unique uint64, errno syscall.Errno) int {
	native.PutUint32(out, headerOutSize)
	native.PutUint32(out[4:], uint32(-int32(errno)))
	native.PutUint64(out[8:], unique)
	return headerOutSize
}

// putPoll writes the reply to a POLL.
func putPoll(out []byte, unique uint64, ready uint32) {
	putErrno(out, unique, 0)
	native.PutUint32(out, pollReplySize)
	native.PutUint32(out[headerOutSize:], ready)
	native.PutUint32(out[headerOutSize+4:], 0)
}

// putOpen writes the reply to an OPEN.
func putOpen(out []byte, unique, handle uint64, flags uint32) {
	putErrno(out, unique, 0)
	native.PutUint32(out, openReplySize)
	native.PutUint64(out[headerOutSize:], handle)
	native.PutUint32(out[headerOutSize+8:], flags)
	native.PutUint32(out[headerOutSize+12:], 0) // backing_id: none
}

// putNotifyPoll writes a notification that poll(2) may say something else now.
func putNotifyPoll(out []byte, pollID uint64) {
	native.PutUint32(out, notifyPollSize)
	native.PutUint32(out[4:], notifyPoll)
	native.PutUint64(out[8:], 0)
	native.PutUint64(out[headerOutSize:], pollID)
}

// replyStatus returns the error field of a reply: 0 or a negative errno.
func replyStatus(out []byte) int32 { return int32(native.Uint32(out[4:])) }
