package tests

import (
	"fmt"
	"path/filepath"
	"testing"
)

// This file is git itself, whose index can be on a mount while the repository
// is not. (In the matrix its protocol is replayed, clients/git.c: the lock of
// an index must be named INDEX.lock, which would not do for sem.)

// TestGitOnTmpfs proves what [gitKeepsItsIndex] takes for granted.
func TestGitOnTmpfs(t *testing.T) {
	needRoot(t)
	gitKeepsItsIndex(t, tmpfs(t))
}

// gitKeepsItsIndex has git commit, with an editor that waits: it holds
// index.lock, which it has written and closed. A second git is refused, and so
// is whoever makes the name; then the lock file becomes the index, or, if the
// commit is given up, is removed.
func gitKeepsItsIndex(t *testing.T, dir string) {
	t.Helper()
	index := dir + "/index"
	work := filepath.Join(t.TempDir(), "work")
	env := withEnv("GIT_INDEX_FILE="+index, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org",
		"LC_ALL=C")
	must := func(script, out string) {
		t.Helper()
		got, stderr, exit := run(t, []clientOption{env}, "sh", "-ec", script, "sh", work, index)
		if exit != 0 || got != out {
			t.Fatalf("%s: exit code %d, output %q, want 0 and %q: %s", script, exit, got, out, stderr)
		}
	}
	must(`git init -q "$1"; cd "$1"; echo one >file; git add file; git commit -q -m one; echo two >file; git ls-files`, "file\n")

	for _, c := range []struct{ editor, log string }{
		{`echo held >&3; cat <&4 >/dev/null; exit 1`, "one\n"}, // given up
		{`echo held >&3; cat <&4 >/dev/null; echo two >"$1"`, "two\none\n"},
	} {
		commit := startProcess(t, []clientOption{env, withEnv(fmt.Sprintf(`GIT_EDITOR=sh -c '%s' editor`, c.editor))},
			"sh", "-c", `cd "$1" && exec 3>&1 4<&0 && git commit -q -a 2>/dev/null; exit 0`, "sh", work)
		commit.Held(t)
		must(`cd "$1"
			git add file 2>"$1.message" && exit 1
			grep -o 'index.lock.: File exists' "$1.message"
			! mkdir "$2.lock" 2>/dev/null
			! (set -C; echo >"$2.lock") 2>/dev/null
			stat -c '%F' "$2.lock"`, "index.lock': File exists\nregular file\n")
		commit.Release(t)
		must(`cd "$1"; git log --format=%s; [ ! -e "$2.lock" ]; git fsck --no-dangling`, c.log)
	}
	must(`cd "$1"; git status --porcelain`, "")
}
