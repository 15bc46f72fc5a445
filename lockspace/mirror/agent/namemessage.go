package agent

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/mirror"
)

// nameMessage is what messages say about something that is made, and comes behind the
// rest of them.
type nameMessage struct {
	opening mirror.Opening
	made    mirror.MadeName
	use     mirror.Use
	// directories: LIST leaves out all else.
	directories bool
	// state is what it is, or is to be; target is the text of a symbolic link, and size
	// that of a file of which state has the beginning.
	state  mirror.NameState
	target string
	size   uint64
}

// madeMessage is what is said about something that was made.
func madeMessage(m mirror.MadeName) *nameMessage { return &nameMessage{made: m} }

// append adds it to b.
func (n *nameMessage) append(b []byte) []byte {
	u32 := func(v uint32) { b = binary.NativeEndian.AppendUint32(b, v) }
	u64 := func(v uint64) { b = binary.NativeEndian.AppendUint64(b, v) }
	text := func(v string) { u32(uint32(len(v))); b = append(b, v...) }
	made := func(m *mirror.MadeName) {
		text(m.Path)
		text(m.Temporary)
		u64(m.ID.Dev)
		u64(m.ID.Ino)
		u64(uint64(m.ID.Born))
		b = append(b, flag(m.Marked))
	}
	b = append(b, byte(n.opening.Way))
	made(&n.opening.Known)
	made(&n.made)
	text(string(n.use))
	b = append(b, flag(n.directories))
	u32(n.state.Mode)
	u32(n.state.UID)
	u32(n.state.GID)
	b = append(b, flag(!n.state.Modified.IsZero()))
	u64(uint64(n.state.Modified.UnixNano()))
	text(string(n.state.Body))
	text(n.target)
	u64(n.size)
	return b
}

// parseName reads what is behind the rest of a message; ok is false if nobody sends such.
func parseName(d *decoder) (_ *nameMessage, ok bool) {
	made := func() mirror.MadeName {
		return mirror.MadeName{
			Path: d.text(), Temporary: d.text(),
			ID:     mirror.NameID{Dev: d.u64(), Ino: d.u64(), Born: int64(d.u64())},
			Marked: d.u8() != 0,
		}
	}
	n := new(nameMessage)
	n.opening.Way = mirror.OpenWay(d.u8())
	n.opening.Known, n.made = made(), made()
	n.use = mirror.Use(d.text())
	n.directories = d.u8() != 0
	n.state.Mode, n.state.UID, n.state.GID = d.u32(), d.u32(), d.u32()
	known, modified := d.u8() != 0, int64(d.u64())
	if known {
		n.state.Modified = time.Unix(0, modified)
	}
	if body := d.text(); body != "" {
		n.state.Body = []byte(body)
	}
	n.target, n.size = d.text(), d.u64()
	return n, d.ok && len(d.b) == 0
}

// newName is what is to be made.
func (n *nameMessage) newName() mirror.NewName {
	return mirror.NewName{Path: n.made.Path, Temporary: n.made.Temporary, Target: n.target, NameState: n.state}
}

// outside is what somebody has made.
func (n *nameMessage) outside() *mirror.Outside {
	return &mirror.Outside{
		ID: n.made.ID, Mode: n.state.Mode, UID: n.state.UID, GID: n.state.GID, Size: n.size, Modified: n.state.Modified,
		Target: n.target, Body: n.state.Body,
	}
}

// outsideMessage is what is said about that.
func outsideMessage(o *mirror.Outside) *nameMessage {
	return &nameMessage{
		made:   mirror.MadeName{ID: o.ID},
		state:  mirror.NameState{Mode: o.Mode, UID: o.UID, GID: o.GID, Modified: o.Modified, Body: o.Body},
		target: o.Target, size: o.Size,
	}
}

// listedName is a name in a list, with its type before it, and listed reads that.
func listedName(l mirror.Listed) string {
	return string([]byte{'0' + byte(l.Mode&unix.S_IFMT>>12)}) + l.Name
}

func listed(name string) mirror.Listed {
	if name == "" {
		return mirror.Listed{}
	}
	return mirror.Listed{Name: name[1:], Mode: uint32(name[0]-'0') << 12 & unix.S_IFMT}
}
