package tests

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/tests/openmetrics"
)

// 1.7: "DIR/.lockfs/lock/NAME/ of one lock: holder, token, mode, waiting, check (-1
// exclusive, 0 free, n readers)".

// A person who has never seen lockfs finds out with ls and cat what there is to
// know of one lock.
func TestALockIsReadWithCat(t *testing.T) {
	m := mount(t)
	root, alice := newClient(t), newClient(t, asAlice())
	want := func(script, want string, opts ...clientOption) {
		t.Helper()
		if got, exit := sh(t, m, script, opts...); got != want || exit != 0 {
			t.Errorf("%s: exit %d, %q, want %q", script, exit, got, want)
		}
	}
	want(`cd .lockfs/lock; ls; cat backup/check backup/mode backup/holder backup/token backup/waiting`, "0\nfree\n")
	backup := root.Open(m.Path("backup"), openFlags)
	wantErr(t, "flock", root.Flock(backup, unix.LOCK_EX), nil)
	again := alice.Open(m.Path("backup"), openFlags)
	waiting := alice.StartFlock(again, unix.LOCK_SH)
	waiting.MustBlock(t)
	wantErr(t, "mkdir", alice.Name("mkdir", 0o755, m.Path("builds")), nil)
	wantErr(t, "fcntl", alice.Fcntl(alice.Open(m.Path("builds/ranges"), openFlags), unix.F_SETLK, rd(10, 10)), nil)
	for _, user := range []clientOption{asUser(0, 0), asAlice(), asBob()} {
		want(`ls .lockfs/lock`, "backup\nbuilds\n", user)
		want(`cd .lockfs/lock/backup; ls; cat check mode token`, "check\nholder\nmode\ntoken\nwaiting\n-1\nexclusive\n1\n", user)
		want(`cat .lockfs/lock/backup/holder | cut -d = -f 1 | xargs`, "pid uid user comm host cgroup mode via since token waiting\n", user)
		want(`. .lockfs/lock/backup/holder; echo $pid $uid $via $waiting`, fmt.Sprintf("%d 0 flock 1\n", root.Pid()), user)
		want(`cut -d ' ' -f 1-6,8,10 .lockfs/lock/backup/waiting`, fmt.Sprintf("backup shared 0-end waiting %d %d flock -\n", alice.Pid(), aliceID), user)
		want(`cat .lockfs/lock/builds/check builds/.lockfs/lock/ranges/check builds/.lockfs/lock/ranges/mode`, "-1\n1\nshared 10-19\n", user)
		want(`test -d .lockfs/lock/nothing && stat -c '%F %a %h %s' .lockfs/lock/backup .lockfs/lock/backup/check`,
			"directory 555 2 0\nregular empty file 444 1 0\n", user)
		want(`dd if=.lockfs/lock/backup/mode bs=1 2>/dev/null`, "exclusive\n", user)
	}
	wantErr(t, "unlock", root.Flock(backup, unix.LOCK_UN), nil)
	wantErr(t, "the wait", waiting.Wait(t), nil)
	wantErr(t, "flock", root.Flock(backup, unix.LOCK_SH), nil)
	want(`cat .lockfs/lock/backup/check; sort -u .lockfs/lock/backup/mode`, "2\nshared\n", asBob())

	// What others may not list is its owner's and root's.
	wantErr(t, "chmod", alice.Chmod(m.Path("builds"), 0o711), nil)
	want(`cat builds/.lockfs/lock/ranges/check; stat -c %a builds/.lockfs/lock`, "1\n500\n", asAlice())
	want(`cat builds/.lockfs/lock/ranges/check; ls builds/.lockfs/lock`, "1\nranges\n")
	for _, script := range []string{`ls builds/.lockfs/lock/`, `cat builds/.lockfs/lock/ranges/check`, `stat builds/.lockfs/lock/free`} {
		if out, exit := sh(t, m, `exec 2>&1; LC_ALL=C `+script, asBob()); exit == 0 || !strings.Contains(out, "Permission denied") {
			t.Errorf("bob: %s: exit %d, %q", script, exit, out)
		}
	}
	for _, script := range []string{`mkdir .lockfs/lock/new`, `echo x >.lockfs/lock/backup/check`, `rm -f .lockfs/lock/backup/mode`, `rmdir .lockfs/lock/backup`} {
		if out, exit := sh(t, m, `exec 2>&1; LC_ALL=C `+script); exit == 0 {
			t.Errorf("%s succeeded: %q", script, out)
		}
	}
}

// Any name leads to its lock, and is listed as it is.
func TestOddNamesOfLocks(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	names := []string{
		"plain", " ", "a\nb", "a\tb", `"quoted"`, "'", `back\slash`, "caf\u00e9", "caf\xe9", "\xff\xfe", "*", "-",
		strings.Repeat("n", 255), "...",
	}
	tokens := make(map[string]string)
	for _, name := range names {
		c.Open(m.Path(name), takeFlags)
		text, err := c.ReadAll(m.Path(".lockfs/lock/" + name + "/token"))
		wantErr(t, fmt.Sprintf("token of %q", name), err, nil)
		tokens[text] = name
	}
	if len(tokens) != len(names) {
		t.Errorf("%d names have %d tokens: %q", len(names), len(tokens), tokens)
	}
	listed := c.Readdir(m.Path(".lockfs/lock"))
	slices.Sort(names)
	slices.Sort(listed)
	if !slices.Equal(listed, names) {
		t.Errorf("listed are %q, want %q", listed, names)
	}
	_, err := c.Stat(m.Path(".lockfs/lock/" + strings.Repeat("n", 256)))
	wantErr(t, "a name that is too long", err, unix.ENAMETOOLONG)
	_, err = c.Stat(m.Path(".lockfs/lock/.lockfs"))
	wantErr(t, "the name that no lock has", err, unix.ENOENT)
}

// 1.8: a reader notices nothing of killed workers: with a file open, in the middle of
// it, in the middle of a listing, or in the directory itself.
func TestReadersOfALockOutliveTheWorker(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	fd := c.Open(m.Path("x"), openFlags)
	wantErr(t, "flock", c.Flock(fd, unix.LOCK_EX), nil)
	var waits []*Pending
	for range 60 { // more than outlives a worker
		waits = append(waits, c.StartFlock(c.Open(m.Path("x"), openFlags), unix.LOCK_SH))
	}
	eventually(t, answerLimit, func() bool {
		out, _ := sh(t, m, `wc -l <.lockfs/lock/x/waiting`)
		return out == "60\n"
	}, "all wait")
	for _, file := range []string{"holder", "waiting", "check", "mode", "token"} {
		path := m.Path(".lockfs/lock/x/" + file)
		want, err := c.ReadAll(path)
		wantErr(t, "read", err, nil)
		fd, text := c.Open(path, unix.O_RDONLY), ""
		size := len(want)/3 + 1
		for {
			part, err := c.Read(fd, size)
			wantErr(t, "read", err, nil)
			if part == "" {
				break
			}
			text += part
			killWorker(t, m)
		}
		if text != want || len(want) == 0 {
			t.Errorf("%s, over killed workers:\n%s\nwithout:\n%s", file, text, want)
		}
		wantErr(t, "close", c.Close(fd), nil)
	}
	out, exit := sh(t, m, fmt.Sprintf(`
		cd .lockfs/lock/x; exec 3<check
		cat check
		kill -9 %d
		cat check mode; cat <&3; pwd; ls`, m.Worker()))
	if want := "-1\n-1\nexclusive\n-1\n" + m.Dir + "/.lockfs/lock/x\ncheck\nholder\nmode\ntoken\nwaiting\n"; out != want || exit != 0 {
		t.Errorf("in the directory: exit %d, %q, want %q", exit, out, want)
	}

	names := map[string]int{"x": 1}
	for i := range 2000 { // they do not fit one READDIR
		name := fmt.Sprintf("a-name-that-is-somewhat-long-%d", i)
		names[name] = 1
		c.Open(m.Path(name), takeFlags)
	}
	dir := c.Open(m.Path(".lockfs/lock"), unix.O_RDONLY|unix.O_DIRECTORY)
	listed, calls := make(map[string]int), 0
	for ; ; calls++ {
		some, err := c.Getdents(dir)
		wantErr(t, "getdents", err, nil)
		if len(some) == 0 {
			break
		}
		for _, name := range some {
			listed[name]++
		}
		killWorker(t, m)
		c.Open(m.Path(fmt.Sprint("later", calls)), takeFlags)
	}
	if !maps.Equal(listed, names) || calls < 3 {
		t.Errorf("%d calls listed %d names, want %d, each once", calls, len(listed), len(names))
	}
	wantErr(t, "unlock", c.Flock(fd, unix.LOCK_UN), nil)
	for _, w := range waits {
		wantErr(t, "a wait", w.Wait(t), nil)
	}
	if out, _ := sh(t, m, `cat .lockfs/lock/x/check; uniq .lockfs/lock/x/mode`); out != "60\nshared\n" {
		t.Errorf("60 readers are told as %q", out)
	}
}

// What is told of a lock is always something that it was, while it is taken and given
// back and workers die.
func TestALockIsToldWhileItChanges(t *testing.T) {
	m := mount(t)
	again := startProgram(t, nil, program(t, "again"), "process", "100000000", m.Path("one"))
	killer := startKiller(t, m, 150*time.Millisecond)
	c, seen := newClient(t, asAlice()), make(map[string]int)
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		text, err := c.ReadAll(m.Path(".lockfs/lock/one/check"))
		wantErr(t, "check", err, nil)
		seen[text]++
		text, err = c.ReadAll(m.Path(".lockfs/lock/one/holder"))
		wantErr(t, "holder", err, nil)
		if text == "" {
			continue
		}
		if records := parseRecords(t, text); len(records) != 1 || records[0]["via"] != "excl" {
			t.Fatalf("holder is %q", text)
		}
	}
	if n := killer.Stop(); n < 2 {
		t.Errorf("only %d workers died", n)
	}
	again.kill()
	again.await(t, answerLimit)
	if seen["0\n"] == 0 || seen["-1\n"] == 0 || len(seen) != 2 {
		t.Errorf("check was %v", seen)
	}
	wantNothingHeld(t, m)
}

// Whoever looks up name after name fills no memory of the daemon; and what the kernel
// forgets with a directory is forgotten.
func TestLookingUpManyNamesOfLocks(t *testing.T) {
	const names, most = 5000, 1024 + 50
	m := mount(t)
	nodes := func() float64 {
		t.Helper()
		text, err := os.ReadFile(m.Path(".lockfs/metrics"))
		if err != nil {
			t.Fatal(err)
		}
		samples, err := openmetrics.Parse(string(text))
		if err != nil {
			t.Fatal(err)
		}
		return samples["lockfs_nodes"]
	}
	before := nodes()
	c := newClient(t, asAlice())
	wantErr(t, "mkdir", c.Name("mkdir", 0o755, m.Path("dir")), nil)
	open := c.Open(m.Path("dir/.lockfs/lock/open/check"), unix.O_RDONLY)
	for i := range names {
		path := m.Path(fmt.Sprintf("dir/.lockfs/lock/%d/check", i))
		if _, err := c.Stat(path); err != nil {
			t.Fatalf("stat %s: %v", path, err)
		}
	}
	if n := nodes() - before; n > most {
		t.Errorf("%d names that were looked up leave %g nodes, want at most %d", names, n, most)
	}
	text, err := c.Read(open, 10)
	if err != nil || text != "0\n" {
		t.Errorf("what was open all the time reads %q (%v)", text, err)
	}
	// The first ones have another number by now.
	if text, err := c.ReadAll(m.Path("dir/.lockfs/lock/0/check")); err != nil || text != "0\n" {
		t.Errorf("what was looked up first reads %q (%v)", text, err)
	}
	wantErr(t, "close", c.Close(open), nil)
	wantErr(t, "rmdir", c.Name("rmdir", 0, m.Path("dir")), nil)
	eventually(t, answerLimit, func() bool { return nodes() <= before+2 }, "all is forgotten")
}
