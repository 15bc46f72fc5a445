package owner

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// What is written to a mount is read back from it as it was.
func TestResourcesAsLines(t *testing.T) {
	for _, tc := range []struct {
		r    Resource
		line string
	}{
		{Resource{Disk: "/a"}, "disk /a"},
		{Resource{Disk: "/a b\\c#d\n"}.InMode(Shared), `disk /a\040b\134c\043d\012 shared`},
		{Resource{Disk: "/ä"}.InMode(Readonly), "disk /ä readonly"},
		{Lease("space/below", "a key"), `lease space/below a\040key`},
		{Lease(".", "key").At("/dev/x y", 1<<63), `lease . key /dev/x\040y 9223372036854775808`},
	} {
		if got := tc.r.String(); got != tc.line {
			t.Errorf("%+v is %q, want %q", tc.r, got, tc.line)
		}
		if got, err := parse(tc.line); err != nil || got != tc.r {
			t.Errorf("%q is %+v (%v), want %+v", tc.line, got, err, tc.r)
		}
	}
	for _, bad := range []string{"", "disk", "disk /a b", "disk /a shared x", "lease a", "lease a b c", "floppy /a"} {
		if _, err := parse(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := parse("lease a b /c x"); err == nil {
		t.Error("an offset that is no number was read")
	}
}

// A disk is what its path leads to, if that can be found out.
func TestDisk(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink("file", link)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for path, want := range map[string]string{
		file: file, link: file, "link": file, "./file": file, dir + "/nothing": dir + "/nothing", "/no/where": "/no/where", "none": dir + "/none",
	} {
		if got := Disk(path); got.Disk != want {
			t.Errorf("Disk(%q) is %q, want %q", path, got.Disk, want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, bad := range []string{"", ".", "..", "a/b", "a\x00b", string(make([]byte, 256))} {
		if _, err := Open("/nowhere", bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := Make("/nowhere", "name"); !errors.Is(err, ErrUnknown) {
		t.Errorf("without a mount: %v", err)
	}
}
