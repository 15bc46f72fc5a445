package agent

import "encoding/binary"

// decoder takes values off the front of a packet. What is beyond its end is zero, and
// ok is false from then on.
type decoder struct {
	b  []byte
	ok bool
}

func (d *decoder) take(n uint32) []byte {
	if uint64(n) > uint64(len(d.b)) {
		d.b, d.ok = nil, false
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) u8() uint8 {
	if v := d.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if v := d.take(4); v != nil {
		return binary.NativeEndian.Uint32(v)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if v := d.take(8); v != nil {
		return binary.NativeEndian.Uint64(v)
	}
	return 0
}

// text is a string with its length before it.
func (d *decoder) text() string { return string(d.take(d.u32())) }
