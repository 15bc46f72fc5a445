package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/lockfs/lockfs/lockspace"
)

// The formats of records: what is in them in which order is with who writes them,
// see [Records], and who reads them, see [Saved.Load].

// encoder appends values of fixed formats.
type encoder struct{ b []byte }

func (e *encoder) u32(v uint32) { e.b = binary.NativeEndian.AppendUint32(e.b, v) }
func (e *encoder) u64(v uint64) { e.b = binary.NativeEndian.AppendUint64(e.b, v) }
func (e *encoder) byte(v byte)  { e.b = append(e.b, v) }

func (e *encoder) flag(v bool) {
	if v {
		e.byte(1)
	} else {
		e.byte(0)
	}
}

func (e *encoder) bytes(v []byte) {
	e.u32(uint32(len(v)))
	e.b = append(e.b, v...)
}

func (e *encoder) text(v string) {
	e.u32(uint32(len(v)))
	e.b = append(e.b, v...)
}

func (e *encoder) instant(v lockspace.Instant) {
	e.u64(uint64(v.Wall))
	e.u64(uint64(v.Boot))
}

func (e *encoder) process(v lockspace.Process) {
	e.u32(v.Pid)
	e.u32(v.UID)
	e.u32(v.GID)
	e.u64(uint64(v.Started))
}

func (e *encoder) key(v lockspace.Key) {
	e.u64(v.Dir)
	e.text(v.Name)
}

// request leaves out the key, which is that of the node; but for a hold by
// name, since a node may have several names, each with a hold, and for an
// open(2), which may wait for what has no node any more, and a named owner, whose
// locks need no nodes.
func (e *encoder) request(v *lockspace.Request) {
	e.u64(v.Party.Handle)
	e.u64(v.Party.File)
	e.u64(v.Party.Owner)
	e.process(v.Party.Taker)
	e.process(v.Party.Opener)
	e.instant(v.Party.Opened)
	e.byte(byte(v.Via))
	e.byte(byte(v.Mode))
	e.u64(v.Range.First)
	e.u64(v.Range.Last)
	e.u32(v.Thread)
	e.flag(v.ByName)
	if hasKey(v) {
		e.key(v.Key)
	}
}

// hasKey reports whether the record of a request has its key.
func hasKey(r *lockspace.Request) bool {
	return r.ByName || r.Via == lockspace.ViaOpen || r.Via == lockspace.ViaOwner
}

// ErrRecord: a record is not of its format, or contradicts another.
var ErrRecord = errors.New("record is damaged")

// decoder takes values out of a record. It believes no byte: once something
// is missing or out of range, err is set and everything after it is zero. It
// allocates nothing, and its short methods are inlined: a record is some
// twenty values, and clients wait for 100,000 records to be read.
type decoder struct {
	b   []byte
	err error
}

// damaged ends the record: nothing is left of it.
func (d *decoder) damaged() {
	d.b, d.err = nil, ErrRecord
}

func (d *decoder) u32() uint32 {
	if len(d.b) < 4 {
		d.damaged()
		return 0
	}
	v := binary.NativeEndian.Uint32(d.b)
	d.b = d.b[4:]
	return v
}

func (d *decoder) u64() uint64 {
	if len(d.b) < 8 {
		d.damaged()
		return 0
	}
	v := binary.NativeEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) limited(most byte) byte {
	if len(d.b) < 1 || d.b[0] > most {
		d.damaged()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) flag() bool { return d.limited(1) == 1 }

// bytes returns bytes that belong to the record, not to the caller.
func (d *decoder) bytes(most uint32) []byte {
	n := d.u32()
	if n > most || int(n) > len(d.b) {
		d.damaged()
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) instant() lockspace.Instant {
	return lockspace.Instant{Wall: int64(d.u64()), Boot: time.Duration(d.u64())}
}

func (d *decoder) policy() Policy {
	hold, read := d.limited(holdValues-1), d.limited(0xff)
	p := Policy{
		hold: hold, read: read & 0xf, publish: read >> 4, reap: d.limited(reapValues - 1),
		lease: time.Duration(d.u64()), grace: time.Duration(d.u64()), leaseFrom: time.Duration(d.u64()),
	}
	if p.read >= readValues || p.publish >= publishValues || p.lease < 0 || p.grace < 0 || p.leaseFrom < 0 {
		d.damaged()
	}
	return p
}

// ids reads how many numbered locks there are, at the end of a record: 0 if that is
// there already.
func (d *decoder) ids() uint64 {
	if len(d.b) == 0 {
		return 0
	}
	n := d.u64()
	if n == 0 || n > maxIDs && n != unlimitedIDs {
		d.damaged()
	}
	return n
}

func (d *decoder) process() lockspace.Process {
	return lockspace.Process{Pid: d.u32(), UID: d.u32(), GID: d.u32(), Started: time.Duration(d.u64())}
}

func (d *decoder) party() lockspace.Party {
	return lockspace.Party{
		Handle: d.u64(),
		File:   d.u64(),
		Owner:  d.u64(),
		Taker:  d.process(),
		Opener: d.process(),
		Opened: d.instant(),
	}
}

// key reads a key whose name can be one. The name is made by names.
func (d *decoder) key(names *texts) lockspace.Key {
	k := lockspace.Key{Dir: d.u64(), Name: names.new(d.bytes(maxName))}
	if k.Name == "" {
		d.damaged()
	}
	return k
}

// request reads the request of a hold, or of a wait. The names of keys are
// made by names.
func (d *decoder) request(r *lockspace.Request, waits bool, names *texts) {
	r.Party = d.party()
	r.Via = lockspace.Via(d.limited(byte(lockspace.ViaOwner)))
	r.Mode = lockspace.Mode(d.limited(byte(lockspace.Exclusive)))
	r.Range = lockspace.Range{First: d.u64(), Last: d.u64()}
	r.Thread = d.u32()
	if r.ByName = d.flag(); hasKey(r) {
		r.Key = d.key(names)
	}
	if !r.Valid(waits) {
		d.damaged()
	}
}

// end is the error, if there is one or something is left over.
func (d *decoder) end(what string, id uint64) error {
	if d.err == nil && len(d.b) > 0 {
		d.err = ErrRecord
	}
	if d.err != nil {
		return fmt.Errorf("%s %d: %w", what, id, d.err)
	}
	return nil
}
