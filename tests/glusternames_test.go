package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is held by its name is there on all hosts: where nothing is renamed without
// replacing, too, as on GlusterFS.
func TestClusterNames(t *testing.T) {
	g := newGluster(t, 2)
	var m []*Mount
	for _, c := range g.clients {
		x := mount(t, "--backing", c.Dir, "--policy", holdByName)
		x.Deadline(glusterLimit)
		m = append(m, x)
	}
	here, there := newClient(t), newClient(t)
	for from, to := range map[*Mount]*Mount{m[0]: m[1], m[1]: m[0]} {
		for _, way := range namers {
			if out, exit := sh(t, from, way.script); exit != 0 {
				t.Fatalf("%s: exit %d: %s", way.via, exit, out)
			}
			wantErr(t, way.via+" against mkdir", there.Name("mkdir", 0o755, to.Path("lock")), unix.EEXIST)
			wantErr(t, way.via+" against symlink", there.Name("symlink", 0, "text", to.Path("lock")), unix.EEXIST)
			_, err := there.TryOpen(to.Path("lock"), takeFlags)
			wantErr(t, way.via+" against O_EXCL", err, unix.EEXIST)
			wantListed(t, there, to, "lock")
			killWorker(t, from)
			if _, err := os.Lstat(filepath.Join(g.brick(), "lock")); err != nil {
				t.Errorf("%s: outside: %v", way.via, err)
			}
			if out, exit := sh(t, from, `rm -f lock 2>/dev/null || rmdir lock`); exit != 0 {
				t.Fatalf("%s: exit %d: %s", way.via, exit, out)
			}
			eventually(t, answerLimit, func() bool {
				return there.Name("mkdir", 0o755, to.Path("lock")) == nil
			}, way.via+": it is free for the other host")
			wantErr(t, "rmdir", there.Name("rmdir", 0, to.Path("lock")), nil)
			eventually(t, answerLimit, func() bool {
				return here.Name("mkdir", 0o755, from.Path("lock")) == nil
			}, way.via+": and for the first")
			wantErr(t, "rmdir", here.Name("rmdir", 0, from.Path("lock")), nil)
			eventually(t, answerLimit, func() bool {
				_, err := os.Lstat(filepath.Join(g.brick(), "lock"))
				return os.IsNotExist(err)
			}, way.via+": it is gone")
		}
	}
	const seconds = 6 * time.Second
	out, err := command(nil, program(t, "namers"), "8", fmt.Sprint(seconds.Seconds()), g.clients[0].Dir, m[0].Dir, m[1].Dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
	if strings.Contains(string(out)+" ", " 0 ") {
		t.Errorf("it was too tame: %s", out)
	}
	wantNothingHeld(t, m[0])
	wantNothingHeld(t, m[1])
}
