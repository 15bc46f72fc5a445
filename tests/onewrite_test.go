package tests

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What a program writes at once comes at once, wherever in its memory it is: the kernel
// cuts a write where the pages of a request end, and half a value may be one.
func TestAWriteIsOneWrite(t *testing.T) {
	m := mount(t, "--policy", "hold=name")
	look := newClient(t)
	straddle := func(name string, at int, text string) {
		t.Helper()
		out, errs, exit := run(t, nil, program(t, "straddle"), m.Path(name), fmt.Sprint(at), text)
		if exit != 0 {
			t.Errorf("%q to %s, across a page at %d: exit %d: %s%s", text, name, at, exit, out, errs)
		}
	}
	wants := func(name, want string) {
		t.Helper()
		if text, err := look.ReadAll(m.Path(name)); err != nil || text != want {
			t.Errorf("%s is %q (%v), want %q", name, text, err, want)
		}
	}
	for at := range 4 {
		straddle(".lockfs/policy/lease", at, "90s")
		wants(".lockfs/policy/lease", "1m30s\n")
		straddle(".lockfs/policy/lease", 0, "0")
	}
	wantErr(t, "mkdir", look.Name("mkdir", 0o755, m.Path(".lockfs/owner/vm")), nil)
	for at := range len("disk /images/12.img") {
		straddle(".lockfs/owner/vm/resources", at, "disk /images/12.img")
	}
	wants(".lockfs/owner/vm/resources", "disk /images/12.img\n")
	for at := range len("release disk /images/12.img") {
		straddle(".lockfs/owner/vm/ctl", at%7, "acquire")
		straddle(".lockfs/owner/vm/ctl", at, "release disk /images/12.img")
		straddle(".lockfs/owner/vm/resources", at%19, "disk /images/12.img")
	}
	// As long as one write can be, too.
	long := strings.Repeat("x", 4096)
	straddle("file", 1000, long)
	wants("file", long)
	fd := look.Open(m.Path("file"), unix.O_RDONLY)
	if text, err := look.Read(fd, 64<<10); err != nil || text != long {
		t.Errorf("one read has %d bytes (%v)", len(text), err)
	}
}
