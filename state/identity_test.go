package state

import (
	"os"
	"path/filepath"
	"testing"
)

// A directory has its identity for good, and no other has it; one that is damaged is
// set aside.
func TestIdentity(t *testing.T) {
	path := t.TempDir()
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	identity := func(d *Dir) string {
		t.Helper()
		word, err := d.Identity()
		if err != nil || len(word) != 32 {
			t.Fatalf("%q, %v", word, err)
		}
		return word
	}
	d, w := openDir(t, path)
	first := identity(d)
	d.Close()
	d, _ = openDir(t, path)
	if again := identity(d); again != first {
		t.Errorf("%s, and then %s", first, again)
	}
	other, _ := openDir(t, filepath.Join(t.TempDir(), "other"))
	if identity(other) == first {
		t.Error("two directories have the same")
	}
	for _, text := range []string{"", "lockfs identity 1\n", "lockfs identity 1\n" + first, "lockfs identity 1\n" + first[1:] + "G\n"} {
		if err := os.WriteFile(filepath.Join(path, identityFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		damaged, warned := openDirAgain(t, d, path)
		now := identity(damaged)
		if now == first || len(*warned) == 0 {
			t.Errorf("after %q: %s, warnings %v", text, now, *warned)
		}
		d = damaged
	}
	if len(*w) != 0 {
		t.Errorf("warnings: %v", *w)
	}
}

// openDirAgain opens a directory that is open.
func openDirAgain(t *testing.T, d *Dir, path string) (*Dir, *warnings) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return openDir(t, path)
}
