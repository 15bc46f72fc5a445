package tests

import (
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// This file is the programs that the idiom tests set against each other.

// taker is a way to take a lock, as a real program would. The programs say
// "held" when they have it, keep it until their standard input ends, and exit
// with 1 if they are refused it.
type taker struct {
	name   string
	shared bool
	// try and wait make the program's command line for a path: one that is
	// refused the lock while another holds it, and one that waits. wait is
	// nil where the idiom knows no waiting.
	try, wait func(path string) []string
}

// keep is the end of the shell scripts.
const keep = `echo held; read -r _; exit 0`

// script makes a command line that runs a script with the path as $1. The
// shell that is named keeps the lock, not a child.
func script(shell, text string) func(path string) []string {
	return func(path string) []string { return []string{shell, "-c", text, shell, path} }
}

// flockCommand makes a command line of flock(1) on a path, with a command
// that keeps it.
func flockCommand(options string) func(path string) []string {
	return func(path string) []string {
		argv := append([]string{"flock"}, strings.Fields(options)...)
		return append(argv, path, "sh", "-c", keep)
	}
}

// python makes a command line that locks with a function of Python's fcntl.
func python(function, mode string) func(path string) []string {
	const text = `
import fcntl, os, sys
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o666)
try:
    getattr(fcntl, sys.argv[2])(f, eval(sys.argv[3], vars(fcntl)))
except BlockingIOError:
    sys.exit(1)
print("held", flush=True)
sys.stdin.read()
`
	return func(path string) []string {
		return []string{"/usr/bin/python3", "-c", text, path, function, mode}
	}
}

// takers returns every idiom of 1.2 that takes a lock in a hold=handle
// lockspace.
func takers(t testing.TB) []taker {
	c := func(name, how, mode string) func(string) []string {
		file := program(t, name)
		return func(path string) []string { return []string{file, how, mode, path} }
	}
	golang := program(t, "client")
	all := []taker{
		{name: "bash set -C",
			try: script("bash", `set -C; exec 9>"$1" || exit 1; `+keep)},
		{name: "sh set -C",
			try: script("sh", `set -C; command exec 9>"$1" || exit 1; `+keep)},
		{name: "Go O_EXCL",
			try: func(path string) []string {
				return []string{"env", clientEnv + "=1", golang, "take", path}
			}},
		{name: "flock -x",
			try:  flockCommand("-n -x"),
			wait: flockCommand("-x")},
		{name: "flock -w",
			try:  flockCommand("-w 0.1"),
			wait: flockCommand("-w 30")},
		{name: "flock -s", shared: true,
			try:  flockCommand("-n -s"),
			wait: flockCommand("-s")},
		{name: "flock on a descriptor",
			try:  script("sh", `exec 9>"$1"; flock -n 9 || exit 1; `+keep),
			wait: script("sh", `exec 9>"$1"; flock 9; `+keep)},
		{name: "flock -s on a descriptor", shared: true,
			try:  script("bash", `exec 9<>"$1"; flock -n -s 9 || exit 1; `+keep),
			wait: script("bash", `exec 9<>"$1"; flock -s 9; `+keep)},
		{name: "python flock",
			try:  python("flock", "LOCK_EX | LOCK_NB"),
			wait: python("flock", "LOCK_EX")},
		{name: "python lockf",
			try:  python("lockf", "LOCK_EX | LOCK_NB"),
			wait: python("lockf", "LOCK_EX")},
		{name: "python lockf shared", shared: true,
			try:  python("lockf", "LOCK_SH | LOCK_NB"),
			wait: python("lockf", "LOCK_SH")},
		{name: "C F_SETLK write",
			try: c("posix", "try", "write"), wait: c("posix", "wait", "write")},
		{name: "C F_SETLK read", shared: true,
			try: c("posix", "try", "read"), wait: c("posix", "wait", "read")},
		{name: "C F_OFD_SETLK write",
			try: c("ofd", "try", "write"), wait: c("ofd", "wait", "write")},
		{name: "C F_OFD_SETLK read", shared: true,
			try: c("ofd", "try", "read"), wait: c("ofd", "wait", "read")},
	}
	if flockKnowsFcntl() {
		all = append(all,
			taker{name: "flock --fcntl",
				try: flockCommand("--fcntl -n"), wait: flockCommand("--fcntl")},
			taker{name: "flock --fcntl -s", shared: true,
				try: flockCommand("--fcntl -n -s"), wait: flockCommand("--fcntl -s")})
	}
	return all
}

// flockKnowsFcntl reports whether the installed flock(1) has --fcntl
// (util-linux 2.41 and later).
var flockKnowsFcntl = sync.OnceValue(func() bool {
	help, _ := exec.Command("flock", "--help").Output()
	return strings.Contains(string(help), "--fcntl")
})
