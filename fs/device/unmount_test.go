package device

import "testing"

func TestParseMount(t *testing.T) {
	for _, c := range []struct {
		line string
		want mount
		ok   bool
	}{
		{"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n", mount{36, "/mnt2", "ext3"}, true},
		{"700 30 0:55 / /run/my\\040locks\\134x rw - fuse.lockfs lockfs rw\n", mount{700, `/run/my locks\x`, fsType}, true},
		{"1 2 3:4 / /a rw shared:1 master:2 - tmpfs tmpfs rw\n", mount{1, "/a", "tmpfs"}, true},
		{"x 2 3:4 / /a rw - tmpfs tmpfs rw\n", mount{}, false},
		{"1 2 3:4 / - tmpfs\n", mount{}, false},
		{"", mount{}, false},
	} {
		got, ok := parseMount(c.line)
		if ok != c.ok || ok && got != c.want {
			t.Errorf("%q: %+v, %v", c.line, got, ok)
		}
	}
}
