package digest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// FIPS 180-2, the example of one block.
func TestTheDigestIsSHA256(t *testing.T) {
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if got := Of("abc"); got != want {
		t.Errorf("Of(abc) = %s, want %s", got, want)
	}
}

// images makes a directory with an image, and a link beside it that leads into
// it, and returns its canonical path.
func images(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	for _, err := range []error{
		err,
		os.MkdirAll(filepath.Join(dir, "pool", "deep"), 0o755),
		os.WriteFile(filepath.Join(dir, "pool", "foo.img"), nil, 0o644),
		os.WriteFile(filepath.Join(dir, "foo.img"), nil, 0o644),
		os.Symlink("pool/deep", filepath.Join(dir, "link")),
		os.Symlink("pool/foo.img", filepath.Join(dir, "image")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAllPathsOfAFileGiveOneName(t *testing.T) {
	dir := images(t)
	t.Chdir(filepath.Join(dir, "link"))
	want := Of(dir + "/pool/foo.img")
	for _, path := range []string{
		dir + "/pool/foo.img", dir + "//pool/./foo.img", dir + "/image", dir + "/link/../foo.img",
		"../foo.img", "../../image", "./../../link/../foo.img",
	} {
		if got, err := OfPath(path); got != want || err != nil {
			t.Errorf("OfPath(%q) = %s, %v; want %s", path, got, err, want)
		}
		shell := exec.Command("sh", "-c", `printf %s "$(realpath -e -- "$1")" | sha256sum | cut -d ' ' -f 1`, "sh", path)
		if out, err := shell.Output(); strings.TrimSpace(string(out)) != want || err != nil {
			t.Errorf("the shell says %s of %q (%v), want %s", out, path, err, want)
		}
	}
	if got, err := OfPath(dir + "/foo.img"); got == want || err != nil {
		t.Errorf("another file has the name %s, too (%v)", got, err)
	}
}

func TestWhatIsNotThereHasNoName(t *testing.T) {
	dir := images(t)
	for _, path := range []string{"", dir + "/none", dir + "/none/foo.img", dir + "/pool/none/../foo.img"} {
		if name, err := OfPath(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("OfPath(%q) = %q, %v; want that it does not exist", path, name, err)
		}
	}
}
