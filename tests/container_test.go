package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.1: "Identity is pid + start time + boot id + pid namespace." What the
// daemon shows are its own namespace's numbers.

// keepInside is a script that takes "lock" and keeps it, as the first process
// of a pid namespace of its own.
var keepInside = []string{"unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c",
	`set -C; exec 9>"$1"/lock || exit 1; echo held $$; read -r _`, "sh"}

// A process in a container has another number there than the daemon sees.
func TestHolderInAPidNamespaceIsShownByTheDaemonsNumber(t *testing.T) {
	m := mount(t)
	p := startProcess(t, nil, append(keepInside, m.Dir)...)
	p.Held(t)
	if p.said() != "held 1" {
		t.Fatalf("the holder says %q, want to be process 1 of its namespace", p.said())
	}
	r := recordOf(t, m.Path("lock"))
	if r["comm"] != "sh" {
		t.Errorf("comm=%s, want sh", r["comm"])
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.number(t, "pid")))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("\nNSpid:\t%s\t1\n", r["pid"]); !strings.Contains(string(status), want) {
		t.Errorf("process %s is not the holder: no %q in %s", r["pid"], want, status)
	}
	c := newClient(t)
	_, err = c.TryOpen(m.Path("lock"), takeFlags)
	wantErr(t, "taking it from outside", err, unix.EEXIST)
	p.Release(t)
	c.Close(c.Open(m.Path("lock"), takeFlags))
}
