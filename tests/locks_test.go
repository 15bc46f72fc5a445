package tests

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.7: "locks: every hold and waiter in this lockspace and below, a line each".

// sinceField is the one field of a line that a test cannot know.
var sinceField = regexp.MustCompile(` \d{4}-\d\d-\d\dT\S+ `)

// A person who has never seen lockfs finds out with cat who holds what and who
// waits.
func TestLocksAreReadWithCat(t *testing.T) {
	m := mount(t)
	if out, exit := sh(t, m, `cat .lockfs/locks`); out != "" || exit != 0 {
		t.Errorf("with nothing held: %q, exit %d", out, exit)
	}
	root, alice := newClient(t), newClient(t, asAlice())
	wantErr(t, "mkdir", alice.Name("mkdir", 0o755, m.Path("builds")), nil)
	alice.Open(m.Path("builds/one two"), takeFlags)
	backup := root.Open(m.Path("backup"), openFlags)
	wantErr(t, "flock", root.Flock(backup, unix.LOCK_EX), nil)
	again := alice.Open(m.Path("backup"), openFlags)
	waiting := alice.StartFlock(again, unix.LOCK_SH)
	waiting.MustBlock(t)
	comm := func(c *Client) string {
		out, _, _ := run(t, nil, "cat", fmt.Sprintf("/proc/%d/comm", c.Pid()))
		return strings.TrimSpace(out)
	}
	rootIs, aliceIs := fmt.Sprintf("%d 0 %s", root.Pid(), comm(root)), fmt.Sprintf("%d %d %s", alice.Pid(), aliceID, comm(alice))
	for script, want := range map[string]string{
		`cat .lockfs/locks`: "backup exclusive 0-end held " + rootIs + " flock SINCE 3\n" +
			"backup shared 0-end waiting " + aliceIs + " flock SINCE -\n" +
			"builds exclusive 0-end held " + aliceIs + " mkdir SINCE 1\n" +
			"builds/one\\040two exclusive 0-end held " + aliceIs + " excl SINCE 2\n",
		`cat builds/.lockfs/locks`: "one\\040two exclusive 0-end held " + aliceIs + " excl SINCE 2\n",
	} {
		for _, user := range [][]clientOption{nil, {asBob()}} {
			got, exit := sh(t, m, script, user...)
			if got = sinceField.ReplaceAllString(got, " SINCE "); got != want || exit != 0 {
				t.Errorf("%s: exit %d\n%s want\n%s", script, exit, got, want)
			}
		}
	}
	wantErr(t, "chmod", alice.Chmod(m.Path("builds"), 0o711), nil)
	for who, lines := range map[string]string{"root": "2\n", "alice": "2\n", "bob": "1\n"} {
		user := map[string]clientOption{"root": asUser(0, 0), "alice": asAlice(), "bob": asBob()}[who]
		if got, _ := sh(t, m, `grep -c builds .lockfs/locks`, user); got != lines {
			t.Errorf("%s sees %q lines of a directory that others may not list, want %q", who, got, lines)
		}
	}
	wantErr(t, "unlock", root.Flock(backup, unix.LOCK_UN), nil)
	wantErr(t, "the wait", waiting.Wait(t), nil)
}

// Any name comes back from both lists as it is.
func TestOddNamesInLists(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	names := []string{"plain", " ", "a\nb", "a\tb", `"quoted"`, `back\slash`, "caf\u00e9", "caf\xe9", "\xff\xfe"}
	for _, name := range names {
		c.Open(m.Path(name), takeFlags)
	}
	text, err := c.ReadAll(m.Path(".lockfs/locks"))
	wantErr(t, "read locks", err, nil)
	inLocks := make(map[string]bool)
	unescape := strings.NewReplacer(`\040`, " ", `\012`, "\n", `\011`, "\t", `\134`, `\`)
	for line := range strings.Lines(text) {
		path, _, _ := strings.Cut(line, " ")
		inLocks[unescape.Replace(path)] = true
	}
	text, err = c.ReadAll(m.Path(".lockfs/locks.json"))
	wantErr(t, "read locks.json", err, nil)
	var list struct {
		Locks []struct {
			Path  string
			Bytes []byte `json:"path_base64"`
		}
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	inJSON := make(map[string]bool)
	for _, l := range list.Locks {
		if l.Bytes != nil {
			l.Path = string(l.Bytes)
		}
		inJSON[l.Path] = true
	}
	for _, name := range names {
		if !inLocks[name] || !inJSON[name] {
			t.Errorf("%q is in locks: %v, in locks.json: %v", name, inLocks[name], inJSON[name])
		}
	}
	if len(inLocks) != len(names) || len(inJSON) != len(names) {
		t.Errorf("%d and %d names, want %d", len(inLocks), len(inJSON), len(names))
	}
}

// 1.8: a reader notices nothing of killed workers, whether it reads what the
// next worker keeps or what it makes anew.
func TestReadersOfLocksOutliveTheWorker(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	for _, n := range []int{10, 100} {
		for i := range n {
			c.Open(m.Path(fmt.Sprintf("%d.%d", n, i)), takeFlags)
		}
		want, err := c.ReadAll(m.Path(".lockfs/locks"))
		wantErr(t, "read", err, nil)
		fd, text := c.Open(m.Path(".lockfs/locks"), unix.O_RDONLY), ""
		for {
			part, err := c.Read(fd, 1500)
			wantErr(t, "read", err, nil)
			if part == "" {
				break
			}
			text += part
			killWorker(t, m)
		}
		if text != want {
			t.Errorf("with %d locks, over killed workers:\n%s\nwithout:\n%s", n, text, want)
		}
		wantErr(t, "close", c.Close(fd), nil)
	}
	// Workers die while readers wait.
	killer := startKiller(t, m, 150*time.Millisecond)
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		text, err := c.ReadAll(m.Path(".lockfs/locks"))
		wantErr(t, "read", err, nil)
		if n := strings.Count(text, "\n"); n != 110 {
			t.Fatalf("%d lines, want 110:\n%s", n, text)
		}
	}
	if n := killer.Stop(); n < 2 {
		t.Errorf("only %d workers died", n)
	}
}

// listedWhole is how many locks are held while lists of them are read.
const listedWhole = 2 * perHoarder

// Whoever reads the list again and again sees every lock that is held all the
// time, once in each.
func TestLocksAreListedWhileOthersComeAndGo(t *testing.T) {
	m := stressMount(t)
	hoarders := hoard(t, m, listedWhole)
	again := startProgram(t, nil, program(t, "again"), "process", "100000000", m.Path("one"), m.Path("two"))
	for range 5 {
		out, exit := sh(t, m, `cat .lockfs/locks | cut -d ' ' -f 1 | grep hoarded | sort -u | wc -l; grep -c hoarded .lockfs/locks`)
		if want := fmt.Sprintf("%d\n%d\n", listedWhole, listedWhole); out != want || exit != 0 {
			t.Errorf("%q, exit %d, want %q", out, exit, want)
		}
	}
	again.kill()
	again.await(t, answerLimit)
	killAll(t, hoarders)
	wantNothingHeld(t, m)
	if out, _ := sh(t, m, `cat .lockfs/locks`); out != "" {
		t.Errorf("left are %q", out)
	}
}

// Two scripts that wait for each other are a red ring in waits.dot.
func TestWaitsAreDrawn(t *testing.T) {
	m := mount(t)
	one, two := newClient(t), newClient(t, asAlice())
	a, b := one.Open(m.Path("a"), openFlags), two.Open(m.Path(`b "odd"`), openFlags)
	wantErr(t, "flock a", one.Flock(a, unix.LOCK_EX), nil)
	wantErr(t, "flock b", two.Flock(b, unix.LOCK_EX), nil)
	if out, exit := sh(t, m, `cat .lockfs/waits.dot`); out != "digraph waits {\n\trankdir=LR;\n}\n" || exit != 0 {
		t.Errorf("with nobody waiting: %q, exit %d", out, exit)
	}
	oneWaits := one.StartFlock(one.Open(m.Path(`b "odd"`), openFlags), unix.LOCK_EX)
	twoWaits := two.StartFlock(two.Open(m.Path("a"), openFlags), unix.LOCK_SH)
	oneWaits.MustBlock(t)
	twoWaits.MustBlock(t)
	const red = ",color=red,fontcolor=red,penwidth=3];\n"
	out, exit := sh(t, m, `cat .lockfs/waits.dot`)
	want := "digraph waits {\n\trankdir=LR;\n" +
		"\tl0 [shape=box,label=\"a\"" + red +
		fmt.Sprintf("\tp%d [shape=ellipse,label=\"client\\npid %[1]d, uid 0\"", one.Pid()) + red +
		fmt.Sprintf("\tp%d [shape=ellipse,label=\"client\\npid %[1]d, uid %d\"", two.Pid(), aliceID) + red +
		"\tl3 [shape=box,label=\"b \\\"odd\\\"\"" + red +
		fmt.Sprintf("\tl0 -> p%d [style=bold,label=\"exclusive\"", one.Pid()) + red +
		fmt.Sprintf("\tp%d -> l3 [style=solid,label=\"1. exclusive\"", one.Pid()) + red +
		fmt.Sprintf("\tp%d -> l0 [style=solid,label=\"1. shared\"", two.Pid()) + red +
		fmt.Sprintf("\tl3 -> p%d [style=bold,label=\"exclusive\"", two.Pid()) + red + "}\n"
	if out != want || exit != 0 {
		t.Errorf("exit %d\n%swant\n%s", exit, out, want)
	}
	wantErr(t, "unlock", one.Flock(a, unix.LOCK_UN), nil)
}
