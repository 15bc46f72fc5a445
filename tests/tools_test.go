package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// This file is the tools that the matrix sets against each other
// (matrix_test.go): programs of Debian that lock with files, called as their
// manuals say.

// tool is a program, or a pair of commands, that locks a name.
type tool struct {
	name string
	// pkg is the Debian package; empty for a protocol that is replayed call by
	// call (clients/), because the real program cannot be told where its lock
	// is or is not in Debian.
	pkg string
	// argv makes the command line for a path: a process that takes the lock
	// without waiting, says "held", gives it back when its standard input
	// ends, and ends with 0. It ends with 1 if the tool said that another has
	// the lock, with something else if anything else kept it from it.
	argv func(path string) []string
	// handle is true for a tool that needs only what a hold=handle lockspace
	// offers: it holds by an open file.
	handle bool

	family family // what the kernel alone makes it exclude
	made   made   // what the name is while the tool holds
	body   body   // what is in it
	// leaves is true if the file outlives the lock on an ordinary filesystem.
	leaves bool
	// slow is true if starting it takes a large part of a second.
	slow bool
	// breaks is true if the tool takes over a lock of its own kind that a dead
	// process has left.
	breaks bool

	// Documented properties, by which a tool may get past a lock whatever the
	// filesystem does. See properties.
	follows   bool // opens the name through a symlink
	opensDirs bool // locks a directory that it finds under the name
	into      bool // puts its file into a directory that it finds there
	judges    bool // removes a file without the pid of a live process
	dangles   bool // removes a symlink to a file that is not there
	counts    bool // takes its place in a directory that it finds there
}

// family says by what a tool is excluded.
type family int

const (
	byTheName family = iota // somebody made the name
	byFlock                 // somebody has it locked by flock
	byRange                 // somebody has it locked by fcntl
)

type made int

const (
	aFile made = iota
	aDirectory
	anEmptyDirectory
	aSymlink
)

type body int

const (
	noBody    body = iota
	pidBody        // the pid of a process that lives as long as the lock is held
	otherBody      // anything else
)

// commands makes the command line of a tool that takes and gives back with
// two commands, in a script of a shell. take ends with 0 if it got the lock $1
// and with refused if another has it.
func commands(shell, take string, refused int, release string) func(path string) []string {
	return script(shell, fmt.Sprintf(`%s
case $? in 0) ;; %d) exit 1 ;; *) exit 3 ;; esac
echo held
read -r _
%s || exit 4`, take, refused, release))
}

// The script's own pid is what it writes into its lock, and must find again.
const (
	ownPid     = `[ "$(cat -- "$1")" -eq $$ ] && `
	removeFile = `rm -- "$1"`
)

// client makes the command line of a C client, the path last.
func client(t testing.TB, argv ...string) func(path string) []string {
	argv[0] = program(t, argv[0])
	return func(path string) []string {
		return append(append([]string(nil), argv...), path)
	}
}

// isolatedPython is python for a short time: without what a site adds.
func isolatedPython(text string, args ...string) func(path string) []string {
	return func(path string) []string {
		return append([]string{"/usr/bin/python3", "-I", "-S", "-c", text, path}, args...)
	}
}

const pythonFcntl = `
import fcntl, os, sys
try:
    f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o666)
    getattr(fcntl, sys.argv[2])(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(1)
except OSError as e:
    print(e, file=sys.stderr)
    sys.exit(3)
print("held", flush=True)
sys.stdin.read()
`

// pythonFilelock adds the one directory of Debian's Python packages.
const pythonFilelock = `
import sys
sys.path.append("/usr/lib/python3/dist-packages")
import filelock
lock = getattr(filelock, sys.argv[2])(sys.argv[1])
try:
    lock.acquire(timeout=0)
except filelock.Timeout:
    sys.exit(1)
except OSError as e:
    print(e, file=sys.stderr)
    sys.exit(3)
print("held", flush=True)
sys.stdin.read()
lock.release()
`

const perlFlock = `
use Fcntl qw(:flock);
open(my $f, ">>", $ARGV[0]) or print STDERR "$!\n" and exit 3;
flock($f, LOCK_EX | LOCK_NB) or exit($!{EWOULDBLOCK} ? 1 : 3);
$| = 1;
print "held\n";
<STDIN>;
`

// shlockScript is the file shlock in this directory.
var shlockScript = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("shlock")
	if err != nil {
		return "", err
	}
	return path, runQuietly(path, "--fetch")
})

// semHome is where GNU parallel keeps what it finds out about this machine.
var semHome = sync.OnceValues(func() (string, error) {
	home := filepath.Join(workDir, "parallel")
	if err := os.MkdirAll(filepath.Join(home, "semaphores"), 0o755); err != nil {
		return "", err
	}
	// It finds out now, and not for the first forty that start together.
	return home, runQuietly("env", "PARALLEL_HOME="+home, "sem", "--fg", "--id", "first", "true")
})

// semaphore makes the command line of sem for a name that begins with "id-":
// for the id ID it makes a directory id-ID, and in it a file with as many hard
// links as there are holders. The directory is where PARALLEL_HOME says.
func semaphore(home string) func(path string) []string {
	const text = `
home=$(mktemp -d) || exit 3
trap 'rm -rf "$home"' EXIT
ln -s "${1%/*}" "$home/semaphores" && ln -s "$2/tmp" "$home/tmp" || exit 3
name=${1##*/}
PARALLEL_HOME=$home sem --fg --ungroup --semaphore-timeout -1 -j1 --id "${name#id-}" 'echo held; cat >/dev/null'
`
	return func(path string) []string { return []string{"sh", "-c", text, "sh", path, home} }
}

// sqlite makes a command line that keeps a transaction open: of a database in
// the old journal mode, with pages so small that it fits into a lock's body.
func sqlite(before, write string) func(path string) []string {
	return script("sh", `
sqlite3 -bail -cmd ".timeout 0" "$1" "pragma page_size=512; `+before+` begin exclusive; `+write+`" ".shell echo held; cat >/dev/null" "commit;"
case $? in 0) ;; 5) exit 1 ;; *) exit 3 ;; esac`)
}

// tools returns all of them.
func tools(t testing.TB) []tool {
	t.Helper()
	shlock, err := shlockScript()
	if err != nil {
		t.Fatalf("fetching shlock: %v", err)
	}
	home, err := semHome()
	if err != nil {
		t.Fatalf("starting sem: %v", err)
	}
	return []tool{
		// Shells. set -C refuses regular files only; whatever else is there,
		// it opens, which fails for a directory.
		{name: "bash set -C", pkg: "bash", made: aFile, body: pidBody,
			argv: commands("bash", `set -C; { echo $$ >"$1"; } 2>/dev/null`, 1, ownPid+removeFile)},
		{name: "dash set -C", pkg: "dash", made: aFile, body: pidBody,
			argv: commands("dash", `set -C; { echo $$ >"$1"; } 2>/dev/null`, 2, ownPid+removeFile)},
		{name: "bash set -C 9>", pkg: "bash", made: aFile, handle: true, leaves: true,
			argv: commands("bash", `set -C; { exec 9>"$1"; } 2>/dev/null`, 1, `exec 9>&-`)},
		{name: "dash set -C 9>", pkg: "dash", made: aFile, handle: true, leaves: true,
			argv: commands("dash", `set -C; { command exec 9>"$1"; } 2>/dev/null`, 2, `exec 9>&-`)},

		// Made by name.
		{name: "lockfile", pkg: "procmail", made: aFile, body: otherBody,
			argv: commands("sh", `lockfile -r0 "$1" 2>/dev/null`, 73, `rm -f -- "$1"`)},
		{name: "dotlockfile", pkg: "liblockfile-bin", made: aFile, body: otherBody, dangles: true,
			argv: commands("sh", `dotlockfile -l -r 0 "$1"`, 4, `dotlockfile -u "$1"`)},
		{name: "dotlockfile -p", pkg: "liblockfile-bin", made: aFile, body: pidBody, breaks: true, dangles: true,
			argv: commands("sh", `dotlockfile -l -p -r 0 "$1"`, 4, ownPid+`dotlockfile -u "$1"`)},
		{name: "lockfile-create", pkg: "lockfile-progs", made: aFile, body: otherBody, dangles: true,
			argv: commands("sh", `lockfile-create -q -r 0 -l "$1"`, 4,
				`lockfile-check -l "$1" && lockfile-touch -o -l "$1" && lockfile-remove -l "$1"`)},
		{name: "lockfile-create -p", pkg: "lockfile-progs", made: aFile, body: pidBody, breaks: true, dangles: true,
			argv: commands("sh", `lockfile-create -q -p -r 0 -l "$1"`, 4,
				ownPid+`lockfile-check -p -l "$1" && lockfile-remove -l "$1"`)},
		{name: "shlock", pkg: "inn2", made: aFile, body: pidBody, breaks: true, judges: true,
			argv: commands("sh", shlock+` -f "$1" -p $$`, 1, ownPid+removeFile)},
		{name: "mkdir", pkg: "coreutils", made: anEmptyDirectory,
			argv: commands("sh", `mkdir -- "$1" 2>/dev/null`, 1, `rmdir -- "$1"`)},
		{name: "ln", pkg: "coreutils", made: aFile, body: pidBody, into: true,
			argv: aside("ln", ownPid+removeFile)},
		{name: "ln -T", pkg: "coreutils", made: aFile, body: pidBody,
			argv: aside("ln -T", ownPid+removeFile)},
		{name: "ln -s", pkg: "coreutils", made: aSymlink, into: true,
			argv: commands("sh", `ln -s -- $$ "$1" 2>/dev/null`, 1, `[ "$(readlink -- "$1")" = $$ ] && `+removeFile)},
		{name: "ln -sT", pkg: "coreutils", made: aSymlink,
			argv: commands("sh", `ln -sT -- $$ "$1" 2>/dev/null`, 1, `[ "$(readlink -- "$1")" = $$ ] && `+removeFile)},
		{name: "mv -n", pkg: "coreutils", made: aFile, body: pidBody, into: true,
			argv: aside("mv -n", ownPid+removeFile)},
		{name: "mv -nT", pkg: "coreutils", made: aFile, body: pidBody,
			argv: aside("mv -nT", ownPid+removeFile)},
		{name: "SoftFileLock", pkg: "python3-filelock", made: aFile,
			argv: isolatedPython(pythonFilelock, "SoftFileLock")},
		{name: "sem", pkg: "parallel", made: aDirectory, slow: true, breaks: true, counts: true,
			argv: semaphore(home)},

		// Protocols made by name.
		{name: "git", made: aFile, body: otherBody, argv: client(t, "git")},
		{name: "hg", made: aSymlink, breaks: true, argv: client(t, "hg")},
		{name: "emacs", made: aSymlink, breaks: true, argv: client(t, "emacs")},
		{name: "firefox", made: aSymlink, breaks: true, argv: client(t, "firefox", "symlink")},
		{name: "bzr", made: aDirectory, argv: client(t, "bzr")},
		{name: "lockdev", made: aFile, body: pidBody, breaks: true, argv: client(t, "lockdev")},

		// flock(2). flock(1) opens a directory that it finds, because one can
		// lock those too.
		{name: "flock", pkg: "util-linux", family: byFlock, made: aFile, handle: true, leaves: true, follows: true, opensDirs: true,
			argv: script("sh", `exec flock -n -E 1 -- "$1" sh -c 'echo held; read -r _; exit 0'`)},
		{name: "flock 9>", pkg: "util-linux", family: byFlock, made: aFile, handle: true, leaves: true, follows: true,
			argv: script("sh", `command exec 9>"$1" || exit 3; flock -n 9 || exit 1; echo held; read -r _; exit 0`)},
		{name: "perl flock", pkg: "perl", family: byFlock, made: aFile, handle: true, leaves: true, follows: true,
			argv: func(path string) []string { return []string{"perl", "-MErrno", "-e", perlFlock, path} }},
		{name: "python flock", pkg: "python3", family: byFlock, made: aFile, handle: true, leaves: true, follows: true,
			argv: isolatedPython(pythonFcntl, "flock")},
		{name: "FileLock", pkg: "python3-filelock", family: byFlock, made: aFile, handle: true, leaves: true,
			argv: isolatedPython(pythonFilelock, "FileLock")},

		// fcntl(2).
		{name: "python lockf", pkg: "python3", family: byRange, made: aFile, handle: true, leaves: true, follows: true,
			argv: isolatedPython(pythonFcntl, "lockf")},
		{name: "F_SETLK", family: byRange, made: aFile, handle: true, leaves: true, follows: true,
			argv: client(t, "posix", "try", "write")},
		{name: "F_OFD_SETLK", family: byRange, made: aFile, handle: true, leaves: true, follows: true,
			argv: client(t, "ofd", "try", "write")},
		{name: "dpkg", family: byRange, made: aFile, handle: true, leaves: true, follows: true,
			argv: client(t, "dpkg")},
		{name: ".parentlock", family: byRange, made: aFile, leaves: true, follows: true,
			argv: client(t, "firefox", "parentlock")},
		{name: "sqlite3", pkg: "sqlite3", family: byRange, made: aFile, body: otherBody, leaves: true, follows: true,
			argv: sqlite("", "create table if not exists t (x); insert into t values (1);")},
		{name: "sqlite3, no journal", pkg: "sqlite3", family: byRange, made: aFile, handle: true, leaves: true, follows: true,
			argv: sqlite("pragma journal_mode=off;", "")},
	}
}

// aside makes the command line of a script that makes a file beside the lock
// and gives it the lock's name with a command. mv -n ends with 0 if it did
// nothing: it has the lock if the file is no longer where it was. The file that
// was linked is removed.
func aside(command, release string) func(path string) []string {
	return commands("sh", `
tmp=$1.$$
echo $$ >"$tmp" || exit 3
`+command+` -- "$tmp" "$1" 2>/dev/null
got=$?
case '`+command+`' in mv*) [ ! -e "$tmp" ]; got=$? ;; esac
rm -f -- "$tmp"
(exit $got)`, 1, release)
}

// property is why one tool may get past the lock of another.
type property struct {
	reason string
	is     func(holder, taker tool) bool
}

// properties are those of the tools, which no filesystem can mend.
var properties = []property{
	{"opens the name, and so follows the symlink that the holder made, to a file of another name",
		func(holder, taker tool) bool { return holder.made == aSymlink && taker.follows }},
	{"finds no file behind the symlink, takes the lock for one that has just gone, and removes it",
		func(holder, taker tool) bool { return holder.made == aSymlink && taker.dangles }},
	{"locks a directory that it finds, and locks on directories are the kernel's own",
		func(holder, taker tool) bool { return holder.isDirectory() && taker.opensDirs }},
	{"puts its file into a directory that it finds, as the command always does",
		func(holder, taker tool) bool { return holder.isDirectory() && taker.into }},
	{"takes a directory that it finds for its own, and counts the links in it",
		func(holder, taker tool) bool { return holder.isDirectory() && taker.counts }},
	{"removes a file older than a second in which it finds no pid of a process that lives",
		func(holder, taker tool) bool {
			return holder.made == aFile && holder.body == otherBody && taker.judges
		}},
}

func (k tool) isDirectory() bool { return k.made == aDirectory || k.made == anEmptyDirectory }

// documented returns the property by which taker may get past holder's lock,
// or "".
func documented(holder, taker tool) string {
	for _, p := range properties {
		if p.is(holder, taker) {
			return p.reason
		}
	}
	return ""
}
