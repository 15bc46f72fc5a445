package tests

import (
	"strings"
	"testing"
	"time"
)

// 1.5: "An O_EXCL hold in a hold=handle lockspace that is closed and whose name
// is then unlinked by the same process or its family is the mark of a tool that
// needs hold=name: log it and count it."

// keepByName are programs whose lock "lock" is to hold until it is removed.
var keepByName = map[string]string{
	"bash":   `exec bash -c 'set -C; : >lock; set +C; sleep 0.01; rm -f lock'`,
	"dash":   `exec dash -c 'set -C; : >lock; set +C; sleep 0.01; rm -f lock'`,
	"trap":   `exec bash -c 'trap "rm -f lock" EXIT; set -C; echo $$ >lock; sleep 0.01'`,
	"rename": `exec bash -c 'set -C; : >lock; mv lock data 2>/dev/null'`,
	"python": `exec python3 -c '
import os
os.close(os.open("lock", os.O_CREAT|os.O_EXCL))
try: os.unlink("lock")
except FileNotFoundError: pass'`,
}

// rightByHandle are programs that do as they should, or know of no names.
var rightByHandle = map[string]string{
	"retry":    `for i in $(seq 30); do until (set -C; : >lock) 2>/dev/null; do :; done; done`,
	"contend":  `for j in 1 2 3; do (for i in $(seq 30); do until (set -C; : >lock) 2>/dev/null; do :; done; done) & done; wait`,
	"oneshell": `exec bash -c 'set -C; for j in 1 2 3; do (for i in $(seq 30); do until { : >lock; } 2>/dev/null; do :; done; done) & done; wait'`,
	"held":     `exec bash -c 'set -C; for i in $(seq 20); do exec 9>lock; rm -f lock; exec 9>&-; done'`,
	"flock":    `for i in $(seq 20); do flock lock true; done; exec 9>lock; flock 9; exec 9>&-; rm -f lock`,
	"touch":    `for i in $(seq 20); do touch lock; rm -f lock; done`,
}

// hintLimit is how long after the LOOKUP a message is out.
const hintLimit = 2 * time.Second

// hinted reports whether the log tells of a lock of this name in a directory.
func hinted(m *Mount, dir string) bool {
	for line := range strings.Lines(m.Stderr()) {
		if strings.Contains(line, "hold=name") && strings.Contains(line, " directory="+dir+" ") {
			return true
		}
	}
	return false
}

func TestHint(t *testing.T) {
	m := mount(t)
	m.Deadline(stressLimit + mountTimeout)
	in := func(dir, script string) { sh(t, m, `mkdir `+dir+` 2>/dev/null; cd `+dir+` && `+script) }
	for name, script := range rightByHandle {
		in(name, script)
	}
	in("again", `:`)
	for _, by := range []string{"process", "thread"} {
		output(t, nil, "again", by, "2000", m.Path("again/one"), m.Path("again/one"), m.Path("again/two"), m.Path("again/lock"))
	}
	for name, script := range keepByName {
		// A look at a process can come too late, and on a busy machine mostly does. One
		// lock has two looks in two seconds.
		for end := time.Now().Add(stressLimit / 3); !hinted(m, name); time.Sleep(hintLimit) {
			if time.Now().After(end) {
				t.Fatalf("the log does not tell of %s:\n%s", name, m.Stderr())
			}
			in(name, script)
		}
	}
	time.Sleep(hintLimit)
	for name := range rightByHandle {
		if hinted(m, name) {
			t.Errorf("the log tells of %s", name)
		}
	}
	if hinted(m, "again") {
		t.Error("the log tells of programs that take a lock over and over")
	}
	if t.Failed() {
		t.Log(m.Stderr())
	}
}

func TestNoHintWhereNamesHold(t *testing.T) {
	m := mountByName(t)
	for _, script := range keepByName {
		sh(t, m, script+`; rm -f lock data`)
	}
	sh(t, m, `dotlockfile -l lock && dotlockfile -u lock; rm -f lock`)
	time.Sleep(hintLimit)
	if strings.Contains(m.Stderr(), "hold=name") {
		t.Errorf("the log tells of a lockspace whose names hold:\n%s", m.Stderr())
	}
}
