package fs_test

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestResources(t *testing.T) {
	s := serve(t)
	space := s.mustMkdir(1, "space", 0o755)
	s.mustMkdir(space, "below", 0o755)
	s.made("vm", 0)
	for _, tc := range []struct {
		write string
		errno unix.Errno
		line  string // as it is read then; "": as it was written
	}{
		{"disk /a", 0, ""},
		{"disk /b/../c//d/./e/", 0, "disk /c/d/e"},
		{"disk  /blanks   shared ", 0, "disk /blanks shared"},
		{`disk /with\040blank\134\012`, 0, ""},
		{`disk /\303\244`, 0, "disk /ä"},
		{"disk /ro readonly", 0, ""},
		{"lease space key", 0, ""},
		{"lease space/below/ key", 0, "lease space/below key"},
		{"lease . key", 0, ""},
		{"lease space/../space key2 /dev/x 0", 0, "lease space key2 /dev/x 0"},
		{`lease space k\040y /dev/x 18446744073709551615`, 0, ""},
		{"disk a", unix.EINVAL, ""},
		{"disk", unix.EINVAL, ""},
		{"disk /a b", unix.EINVAL, ""},
		{"disk /a shared shared", unix.EINVAL, ""},
		{`disk /\08`, unix.EINVAL, ""},
		{`disk /\000`, unix.EINVAL, ""},
		{`disk /\400`, unix.EINVAL, ""},
		{`disk /\4`, unix.EINVAL, ""},
		{"disk /a\x00b", unix.EINVAL, ""},
		{"floppy /a", unix.EINVAL, ""},
		{"lease space", unix.EINVAL, ""},
		{"lease space key /x", unix.EINVAL, ""},
		{"lease space key x 1", unix.EINVAL, ""},
		{"lease space key /x -1", unix.EINVAL, ""},
		{"lease space key /x 18446744073709551616", unix.EINVAL, ""},
		{"lease space .lockfs", unix.EINVAL, ""},
		{"lease space ..", unix.EINVAL, ""},
		{"lease space .", unix.EINVAL, ""},
		{"lease space a/b", unix.EINVAL, ""},
		{"lease space " + strings.Repeat("n", 256), unix.EINVAL, ""},
		{"lease /space key", unix.EINVAL, ""},
		{"lease .. key", unix.EINVAL, ""},
		{"lease space/../.. key", unix.EINVAL, ""},
		{"lease nothing key", unix.ENOENT, ""},
		{"lease space/nothing key", unix.ENOENT, ""},
		{"lease .lockfs key", unix.ENOENT, ""},
		{"disk /good\ndisk bad", unix.EINVAL, ""},
	} {
		before := s.told("vm", "resources")
		errno := s.tell("vm", "resources", tc.write)
		want := before
		if tc.errno == 0 {
			line := tc.line
			if line == "" {
				line = tc.write
			}
			want += line + "\n"
		}
		if got := s.told("vm", "resources"); errno != tc.errno || got != want {
			t.Errorf("%q: %v, want %v; resources\n%swant\n%s", tc.write, errno, tc.errno, got, want)
		}
	}
	// What is given twice is one, in the stronger mode.
	s.mustTell("vm", "resources<disk /ro", "resources<disk /blanks readonly", "resources<lease space key /p 7")
	for _, want := range []string{"disk /ro\n", "disk /blanks shared\n", "lease space key /p 7\n"} {
		if got := s.told("vm", "resources"); strings.Count(got, want) != 1 {
			t.Errorf("resources are\n%swant %q once", got, want)
		}
	}
}

// A write of a page may be the first part of a longer one.
func TestResourcesInPages(t *testing.T) {
	s := serve(t)
	s.made("vm", 0)
	var text strings.Builder
	for i := range 60 {
		fmt.Fprintf(&text, "disk /%s/%d\n", strings.Repeat("x", 100), i)
	}
	whole := text.String()
	f := s.mustOpen(s.walk(".lockfs", "owner", "vm", "resources"), unix.O_WRONLY)
	for rest := whole; rest != ""; {
		part := rest[:min(4096, len(rest))]
		r := s.call(opWrite, f.node, u64(f.handle), u64(0), u32(uint32(len(part))), zeros(20), []byte(part))
		if r.errno != 0 {
			t.Fatal(r.errno)
		}
		rest = rest[native.Uint32(r.body):]
	}
	got := ""
	for {
		piece, errno := s.read(s.mustOpen(f.node, unix.O_RDONLY), uint64(len(got)), 4096)
		if errno != 0 || piece == "" {
			break
		}
		got += piece
	}
	if got != whole {
		t.Errorf("resources are %d bytes, want the %d that were written", len(got), len(whole))
	}
	if errno := s.write(f, 0, "disk /"+strings.Repeat("x", 4090)); errno != unix.EINVAL {
		t.Errorf("a line as long as a page: %v", errno)
	}
	for i := range 36 {
		s.mustTell("vm", fmt.Sprint("resources<disk /more/", i))
	}
	if errno := s.tell("vm", "resources", "disk /one/too/many"); errno != unix.EDQUOT {
		t.Errorf("the 97th resource: %v", errno)
	}
	s.mustTell("vm", "resources<disk /more/0 shared", "ctl<acquire", "ctl<release disk /more/0", "resources<disk /another")
	// The state of all of them can be written.
	state := strings.TrimSuffix(s.told("vm", "state"), "\n")
	s.mustTell("vm", "ctl<release", "ctl<acquire "+state)
}

// All resources of a user's owners are counted.
func TestOwnersResourcesHaveALimit(t *testing.T) {
	s := serve(t)
	var lines strings.Builder
	for i := range 96 {
		fmt.Fprintf(&lines, "disk /%d\n", i)
	}
	full := 16 * 1024 / 96
	for i := range full {
		s.made(fmt.Sprint("vm", i), 0)
		if errno := s.tell(fmt.Sprint("vm", i), "resources", lines.String()); errno != 0 {
			t.Fatalf("owner %d: %v", i, errno)
		}
	}
	s.made("last", 0)
	if errno := s.tell("last", "resources", lines.String()); errno != unix.EDQUOT {
		t.Errorf("more than a user can have: %v", errno)
	}
	for i := range 16*1024 - full*96 {
		s.mustTell("last", fmt.Sprint("resources<disk /last/", i))
	}
	if errno := s.tell("last", "ctl", "acquire disk /one/more"); errno != unix.EDQUOT {
		t.Errorf("one more: %v", errno)
	}
	s.mustTell("vm0", "ctl<release disk /0")
	s.mustTell("last", "ctl<acquire disk /one/more")
	s.rmOwner("vm1")
	s.made("another", 0)
	if errno := s.tell("another", "resources", lines.String()); errno != 0 {
		t.Errorf("when there is room: %v", errno)
	}
	if errno := s.tell("another", "ctl", "acquire disk /one/more/still"); errno != unix.EDQUOT {
		t.Errorf("one more: %v", errno)
	}
}
