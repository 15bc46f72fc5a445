package device_test

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// Requests as the kernel writes them (uapi/linux/fuse.h).

func u32(v uint32) []byte       { return binary.NativeEndian.AppendUint32(nil, v) }
func u64(v uint64) []byte       { return binary.NativeEndian.AppendUint64(nil, v) }
func zeros(n int) []byte        { return make([]byte, n) }
func cstring(s string) []byte   { return append([]byte(s), 0) }
func concat(p ...[]byte) []byte { return append([]byte(nil), join(p)...) }

func join(parts [][]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

var unique uint64

// newRequest is a request by this process, as root.
func newRequest(opcode uint32, node uint64, body ...[]byte) []byte {
	unique += 2
	b := join(body)
	return concat(u32(uint32(40+len(b))), u32(opcode), u64(unique), u64(node),
		u32(0), u32(0), u32(uint32(os.Getpid())), u32(0), b)
}

func create(name string, flags uint32) []byte {
	return newRequest(opCreate, 1, u32(flags|unix.O_CREAT|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring(name))
}

func setlk(opcode uint32, node, handle uint64, kind uint32) []byte {
	return newRequest(opcode, node, u64(handle), u64(99), u64(0), u64(1<<63-1),
		u32(kind), u32(uint32(os.Getpid())), u32(1), u32(0))
}
