package device

import "time"

// What comes over a connection, counted by kind. Of every [sampleEvery]th request
// it is measured how long it takes: to look at the clock twice would cost more
// than counting all of them.

// sampleEvery has no common divisor with the lengths of the usual sequences of
// requests (4 to an O_EXCL lock that comes and goes), so that all are sampled.
const sampleEvery = 17

// LatencyBounds are the upper bounds of what Traffic.Latency counts.
var LatencyBounds = [...]time.Duration{
	2 * time.Microsecond, 5 * time.Microsecond, 10 * time.Microsecond, 20 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond,
}

// Traffic is how many requests of a kind there were since the process began.
type Traffic struct {
	// Kind is the kernel's name for them, in small letters; "other" for those of
	// which there is none.
	Kind     string
	Requests uint64
	// Latency counts, of some of them, how long it took from having been read to
	// when the answer was written, or the request parked: up to each of
	// [LatencyBounds], and in the last place above. Time on a detour, or waiting,
	// does not count. Sum is all of it together.
	Latency [len(LatencyBounds) + 1]uint64
	Sum     time.Duration
}

// kindNames are the names of requests (uapi/linux/fuse.h).
var kindNames = [...]string{
	1: "lookup", 2: "forget", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir",
	10: "unlink", 11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs",
	18: "release", 20: "fsync", 21: "setxattr", 22: "getxattr", 23: "listxattr", 24: "removexattr", 25: "flush",
	26: "init", 27: "opendir", 28: "readdir", 29: "releasedir", 30: "fsyncdir", 31: "getlk", 32: "setlk",
	33: "setlkw", 34: "access", 35: "create", 36: "interrupt", 37: "bmap", 38: "destroy", 39: "ioctl", 40: "poll",
	41: "notify_reply", 42: "batch_forget", 43: "fallocate", 44: "readdirplus", 45: "rename2", 46: "lseek",
	47: "copy_file_range", 48: "setupmapping", 49: "removemapping", 50: "syncfs", 51: "tmpfile", 52: "statx",
}

// traffic counts. Kind 0 is all that have no name.
type traffic struct {
	kinds [len(kindNames)]Traffic
	total uint64
}

// count counts a request. If it is to be measured, it returns where, and when it
// began.
func (t *traffic) count(opcode uint32) (k *Traffic, began time.Time) {
	if opcode >= uint32(len(t.kinds)) || kindNames[opcode] == "" {
		opcode = 0
	}
	k = &t.kinds[opcode]
	k.Requests++
	if t.total++; t.total%sampleEvery != 0 {
		return nil, began
	}
	return k, time.Now()
}

// measure adds what one took.
func (k *Traffic) measure(d time.Duration) {
	i := 0
	for i < len(LatencyBounds) && d > LatencyBounds[i] {
		i++
	}
	k.Latency[i]++
	k.Sum += d
}

// Traffic returns the kinds of requests of which there were any. Only within a
// step.
func (c *Conn) Traffic() (all []Traffic) {
	for opcode, k := range c.traffic.kinds {
		if k.Requests == 0 {
			continue
		}
		if k.Kind = kindNames[opcode]; k.Kind == "" {
			k.Kind = "other"
		}
		all = append(all, k)
	}
	return all
}
