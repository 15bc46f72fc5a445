// Package digest names locks after paths. A lock on a disk image cannot have the
// image's path for a name, since names have no slashes; so it has the digest of
// the path: 64 digits, the same on every host and in every program. In a shell it
// is
//
//	printf %s "$(realpath -e -- "$path")" | sha256sum | cut -d ' ' -f 1
//
// (for paths that do not end in a newline).
//
// Two paths of one file must give one name, or two would be inside together, so
// the path is made canonical first. What no path shows stays two: hard links, a
// file that is mounted in two places, and a file on a network filesystem that two
// hosts mount in different places.
//
// That paths are locked so is from the commit that brought libvirt its lockspaces
// (eca72d4759), which takes MD5 for an example; lockfs takes SHA-256, as libvirt's
// own lock driver does.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// OfPath returns the name of the lock for what a path leads to, which must exist:
// [Canonical] and [Of].
func OfPath(path string) (name string, err error) {
	canonical, err := Canonical(path)
	if err != nil {
		return "", err
	}
	return Of(canonical), nil
}

// Canonical returns the absolute path, without symbolic links, dots and repeated
// slashes, of what a path leads to. A relative path begins in the working
// directory. Errors are those of lstat(2), such as [fs.ErrNotExist], of the first
// element that is wrong.
func Canonical(path string) (string, error) {
	if path == "" {
		return "", &os.PathError{Op: "lstat", Path: path, Err: os.ErrNotExist}
	}
	if !filepath.IsAbs(path) {
		wd, err := os.Getwd()
		if err != nil {
			return "", err
		}
		// Not by filepath.Join, which takes "link/.." for "".
		path = wd + "/" + path
	}
	return filepath.EvalSymlinks(path)
}

// Of returns the name of the lock for a path that is canonical already: its SHA-256
// in lower-case hexadecimal digits.
func Of(canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	return hex.EncodeToString(sum[:])
}
