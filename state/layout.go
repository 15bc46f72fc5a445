package state

// The memory file:
//
//	offset        size
//	0             4 KiB     header
//	extentTable   64 KiB    one byte for each extent: its class, 0 if unused
//	slotArea      slots * slotSize
//	redoArea      redoSize  the transaction, see tx.go
//	extentArea    the rest  extents of extentSize, each full of records of one class
//
// The file is sparse and has its full size from the beginning, so nothing ever
// moves. All numbers are in the machine's byte order: the file cannot go
// elsewhere. Multiples of the page size, where memory is protected, locked or
// read into.

// Version is the format's. Files of another version are refused.
const Version = 3

const (
	magic = "lockfs\x00\x01"

	pageSize   = 4096
	headerSize = pageSize

	extentTable  = headerSize
	extentSize   = 256 << 10
	maxExtents   = 64 << 10
	slotArea     = extentTable + maxExtents
	redoArea     = 1 << 30
	redoSize     = 1 << 30
	extentArea   = redoArea + redoSize
	recordHeader = 16

	// MaxSize is the size of the memory file, in bytes. It is sparse.
	MaxSize = extentArea + maxExtents*extentSize
)

// Offsets in the header.
const (
	offMagic     = 0  // 8 bytes
	offVersion   = 8  // uint32
	offSlots     = 12 // uint32: number of slots
	offBegun     = 16 // uint64: the last transaction begun
	offCommitted = 24 // uint64: the last transaction committed
	offSequence  = 32 // uint64: the last number given to a request
)

// A record begins with
//
//	0  uint8   kind, 0: no record
//	1  uint8   0
//	2  uint16  bytes of data
//	4  uint32  0
//	8  uint64  number
//
// and has its data behind that.

// classes are the sizes of records, header included, multiples of placeUnit. An
// extent's class is an index into it, plus one.
var classes = [...]int{64, 128, 192, 256, 384, 512, 1024, 4608}

// MaxRecord is the most bytes of data in a record.
const MaxRecord = 4608 - recordHeader

// classOf returns the smallest class that holds n bytes of data.
func classOf(n int) int {
	for i, size := range classes {
		if recordHeader+n <= size {
			return i
		}
	}
	return -1
}

// perExtent returns how many records of a class an extent has.
func perExtent(class int) int { return extentSize / classes[class] }

// place is where a record is, or could be: its distance from the beginning of
// the extents, in units of placeUnit. All of them fit 32 bits, and there are
// many.
type place uint32

const (
	placeUnit      = 64
	placePerExtent = extentSize / placeUnit
)

// placeOf returns the n-th place of an extent of a class.
func placeOf(extent, class, n int) place {
	return place(extent*placePerExtent + n*(classes[class]/placeUnit))
}

// offset returns where p is in the file.
func (p place) offset() uint64 { return extentArea + uint64(p)*placeUnit }

// extent returns the extent that p is in.
func (p place) extent() int { return int(p / placePerExtent) }
