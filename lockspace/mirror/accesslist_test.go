package mirror

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// accessList returns a list, of entries that are a tag, an id and a permission each.
func accessList(entries ...[3]uint32) []byte {
	list := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range entries {
		list = binary.LittleEndian.AppendUint16(list, uint16(e[0]))
		list = binary.LittleEndian.AppendUint16(list, uint16(e[2]))
		list = binary.LittleEndian.AppendUint32(list, e[1])
	}
	return list
}

// The mode of what is outside says of nobody that he may do what its access list keeps
// from him.
func TestAccessLists(t *testing.T) {
	const nobody, user, group = ^uint32(0), 1234, 5678
	for what, c := range map[string]struct {
		list []byte
		want uint32
	}{
		"a user who may read, and a group that may not": {accessList(
			[3]uint32{0x01, nobody, 6}, [3]uint32{aclUser, user, 4}, [3]uint32{aclOwningGroup, nobody, 0},
			[3]uint32{aclMask, nobody, 4}, [3]uint32{0x20, nobody, 0}), 0o600},
		"a user who may not": {accessList(
			[3]uint32{0x01, nobody, 6}, [3]uint32{aclUser, user, 0}, [3]uint32{aclOwningGroup, nobody, 6},
			[3]uint32{aclMask, nobody, 6}, [3]uint32{0x20, nobody, 4}), 0o600},
		"a group that may not": {accessList(
			[3]uint32{0x01, nobody, 6}, [3]uint32{aclOwningGroup, nobody, 6}, [3]uint32{aclGroup, group, 2},
			[3]uint32{aclMask, nobody, 6}, [3]uint32{0x20, nobody, 6}), 0o662},
		"a mask": {accessList(
			[3]uint32{0x01, nobody, 6}, [3]uint32{aclUser, user, 7}, [3]uint32{aclOwningGroup, nobody, 6},
			[3]uint32{aclMask, nobody, 4}, [3]uint32{0x20, nobody, 4}), 0o644},
	} {
		t.Run(what, func(t *testing.T) {
			all, dir := mounts(t, "one")
			if err := os.WriteFile(dir+"/theirs", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := unix.Setxattr(dir+"/theirs", accessListAttr, c.list, 0); err != nil {
				t.Fatal(err)
			}
			o, err := all[0].Look("theirs", MadeName{})
			if err != nil || o == nil {
				t.Fatalf("it is %v, %v", o, err)
			}
			if mode := o.Mode & 0o777; mode != c.want {
				t.Errorf("its mode is %o, want %o", mode, c.want)
			}
		})
	}
}
