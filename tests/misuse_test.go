package tests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.9: "Nothing a user does on the mount may crash the daemon or let it take,
// read or break what the user may not."

func TestMisuseHarmsNobody(t *testing.T) {
	m := stressMount(t)
	root, bob := newClient(t), newClient(t, asBob())
	roots := root.Open(m.Path("roots"), takeFlags)
	bobs := bob.Open(m.Path("bobs"), openFlags)
	wantErr(t, "bob's lock", bob.Fcntl(bobs, unix.F_SETLK, wr(5, 10)), nil)
	before := holding(t, m)

	seconds := stressTime(t, 4*time.Second).Seconds()
	var running []*background
	for seed := range 3 {
		running = append(running, startProgram(t, []clientOption{asAlice()}, program(t, "misuse"),
			m.Dir, fmt.Sprint(seconds), fmt.Sprint(seed)))
	}
	for _, p := range running {
		p.await(t, stressTime(t, time.Minute))
		if p.exit != 0 {
			t.Fatalf("misuse ended with %d: %s", p.exit, &p.stderr)
		}
		t.Logf("%s calls", strings.TrimSpace(p.stdout.String()))
	}

	// What was made and holds by name stays.
	if _, exit := sh(t, m, `find . -mindepth 1 ! -name roots ! -name bobs -delete`); exit != 0 {
		t.Error("what is left cannot be removed")
	}
	if after := holding(t, m); after != before {
		t.Errorf("held before and after:\n%s\n%s", before, after)
	}
	wantErr(t, "root's fsync", root.Fsync(roots), nil)
	wantErr(t, "root's write", root.Write(roots, "mine\n"), nil)
	wantErr(t, "bob's unlock", bob.Fcntl(bobs, unix.F_SETLK, un(5, 10)), nil)
	root.Kill()
	wantNothingHeld(t, m)
	if out, _ := sh(t, m, `stat -c '%a %u %g' .`); out != "777 0 0\n" {
		t.Errorf("mode, user and group of the mount are %q now", out)
	}
	if strings.Contains(m.Stderr(), "level=ERROR") {
		t.Error("the daemon reported an error")
	}
}

// holding returns the records of all that is held.
func holding(t testing.TB, m *Mount) string {
	t.Helper()
	out, _ := sh(t, m, `for name in *; do echo "$name:"; cat "$name"; done`)
	return out
}

// Two daemons are two worlds.
func TestTwoMountsShareNothing(t *testing.T) {
	one, two := mount(t), mount(t)
	a, b := newClient(t), newClient(t)
	first := a.Open(one.Path("lock"), takeFlags)
	b.Open(two.Path("lock"), takeFlags)
	a.Open(two.Path("other"), takeFlags)
	wantListed(t, a, one, "lock")
	wantListed(t, a, two, "lock", "other")
	wantErr(t, "close", a.Close(first), nil)
	wantListed(t, b, one)
	wantListed(t, b, two, "lock", "other")
	a.Kill()
	wantListed(t, b, two, "lock")
}
