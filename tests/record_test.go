package tests

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.4, reading: "If it is empty and the lock is held: with read=record one
// key=value line each for `pid uid user comm host cgroup mode via since token
// waiting`, shared holders separated by an empty line."

var recordKeys = strings.Fields("pid uid user comm host cgroup mode via since token waiting")

// record is a holder as cat shows it.
type record map[string]string

func (r record) number(t testing.TB, key string) int {
	t.Helper()
	n, err := strconv.Atoi(r[key])
	if err != nil {
		t.Fatalf("%s=%q is not a number", key, r[key])
	}
	return n
}

// parseRecords takes the text of a held lock apart and fails the test unless
// it has the form of 1.4.
func parseRecords(t testing.TB, text string) []record {
	t.Helper()
	if !strings.HasSuffix(text, "\n") {
		t.Fatalf("a record must end with a newline: %q", text)
	}
	var records []record
	for part := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n\n") {
		r := record{}
		var keys []string
		for line := range strings.SplitSeq(part, "\n") {
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				t.Fatalf("%q is not key=value in %q", line, text)
			}
			keys = append(keys, key)
			r[key] = value
		}
		if !slices.Equal(keys, recordKeys) {
			t.Fatalf("keys %q, want %q", keys, recordKeys)
		}
		records = append(records, r)
	}
	return records
}

// recordOf reads the record of the one who holds a lock.
func recordOf(t testing.TB, path string) record {
	t.Helper()
	c := newClient(t)
	defer c.Kill()
	text, err := c.ReadAll(path)
	wantErr(t, "reading a held lock", err, nil)
	records := parseRecords(t, text)
	if len(records) != 1 {
		t.Fatalf("%d records, want one: %q", len(records), text)
	}
	return records[0]
}

// wantHolder fails the test unless path is held by pid.
func wantHolder(t testing.TB, path string, pid int) {
	t.Helper()
	if got := recordOf(t, path); got["pid"] != strconv.Itoa(pid) {
		t.Errorf("held by %s (%s), want %d", got["pid"], got["comm"], pid)
	}
}

func TestReadingAHeldLockTellsWhoHoldsIt(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for way, via := range map[string]string{
		"O_EXCL": "excl", "flock": "flock", "flock shared": "flock", "POSIX": "fcntl", "OFD": "fcntl",
	} {
		t.Run(way, func(t *testing.T) {
			holder := newClient(t)
			before := time.Now()
			for _, w := range waysToHold {
				if w.name == way {
					w.take(t, holder, path)
				}
			}
			r := recordOf(t, path)
			host, _ := os.Hostname()
			mode := "exclusive"
			if way == "flock shared" {
				mode = "shared"
			}
			want := record{
				"pid": fmt.Sprint(holder.Pid()), "uid": "0", "user": "root", "comm": "client", "host": host,
				"cgroup": cgroupOf(t, holder.Pid()), "mode": mode, "via": via, "waiting": "0",
				"since": r["since"], "token": r["token"],
			}
			if !maps.Equal(r, want) {
				t.Errorf("record\n%v, want\n%v", r, want)
			}
			if r.number(t, "token") <= 0 {
				t.Errorf("token %q", r["token"])
			}
			since, err := time.Parse(time.RFC3339Nano, r["since"])
			if err != nil || since.Before(before.Add(-2*time.Second)) || since.After(time.Now().Add(2*time.Second)) {
				t.Errorf("since=%s, taken after %s (%v)", r["since"], before.Format(time.RFC3339), err)
			}
		})
	}
}

// cgroupOf returns the path of a process's cgroup: of the unified hierarchy if
// there is one.
func cgroupOf(t testing.TB, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path
		}
	}
	_, path, _ := strings.Cut(strings.SplitN(string(text), "\n", 2)[0], ":")
	_, path, _ = strings.Cut(path, ":")
	return path
}

func TestTheHolderReadsItsOwnRecord(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	fd := c.Open(m.Path("lock"), takeFlags)
	text, err := c.Read(fd, 4096)
	wantErr(t, "read", err, nil)
	if r := parseRecords(t, text); r[0]["pid"] != fmt.Sprint(c.Pid()) {
		t.Errorf("the holder reads %q", text)
	}
}

func TestSharedHoldersAreSeparatedByAnEmptyLine(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	want := map[string]bool{}
	for range 3 {
		c := newClient(t)
		wantErr(t, "flock", c.Flock(c.Open(path, openFlags), unix.LOCK_SH), nil)
		want[fmt.Sprint(c.Pid())] = true
	}
	text, err := newClient(t).ReadAll(path)
	wantErr(t, "reading a shared lock", err, nil)
	got := map[string]bool{}
	for _, r := range parseRecords(t, text) {
		got[r["pid"]] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("holders %v, want %v; the text is %q", got, want, text)
	}
}

func TestTheRecordCountsWhoWaits(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder := newClient(t)
	holder.Open(path, takeFlags)
	for i := range 3 {
		if got := recordOf(t, path)["waiting"]; got != fmt.Sprint(i) {
			t.Errorf("waiting=%s, want %d", got, i)
		}
		queueUp(t, path, exclusively)
	}
}

// 1.1, holder: "the one that took it while that lives, else the one that
// opened the file (exec 9>lock; flock 9: flock(1) takes and exits, the shell
// holds)".
func TestTheShellHoldsWhatFlockTookForIt(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, shell := range []string{"bash", "sh"} {
		for _, text := range []string{`exec 9>"$1"; flock 9; `, `exec 9>"$1"; flock -s 9; `, `set -C; exec 9>"$1"; `} {
			p := startProcess(t, nil, script(shell, text+keep)(path)...)
			p.Held(t)
			wantHolder(t, path, p.Pid())
			p.Release(t)
		}
	}
}

func TestFlockHoldsWhatItTookForACommand(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	for _, option := range []string{"-x", "-s", "-o"} {
		p := startProcess(t, nil, flockCommand(option)(path)...)
		p.Held(t)
		wantHolder(t, path, p.Pid())
		if got := recordOf(t, path)["comm"]; got != "flock" {
			t.Errorf("flock %s: comm=%s", option, got)
		}
		p.Release(t)
	}
}

// While flock(1) waits on a descriptor of the shell, it is one that waits; the
// record names the other shell.
func TestTheWaiterIsNotTheHolder(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a := startProcess(t, nil, script("bash", `exec 9>"$1"; flock 9; `+keep)(path)...)
	a.Held(t)
	b := startProcess(t, nil, script("bash", `exec 9>"$1"; flock 9; `+keep)(path)...)
	awaitWaiters(t, m, "lock", 1)
	wantHolder(t, path, a.Pid())
	a.Release(t)
	b.Held(t)
	wantHolder(t, path, b.Pid())
}

// 1.1: "token: the fencing number of a hold: strictly increasing over the
// whole mount".
func TestTokensIncrease(t *testing.T) {
	m := mount(t)
	last := 0
	for i := range 12 {
		way := waysToHold[i%len(waysToHold)]
		c := newClient(t)
		path := m.Path(fmt.Sprint("lock", i%2))
		way.take(t, c, path)
		if token := recordOf(t, path).number(t, "token"); token <= last {
			t.Fatalf("token %d (%s) after %d", token, way.name, last)
		} else {
			last = token
		}
		c.Kill()
	}
}

// A reader that takes the record in pieces gets the whole of it.
func TestTheRecordCanBeReadInPieces(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	c.Open(m.Path("lock"), takeFlags)
	whole, exit := sh(t, m, `cat lock`)
	if exit != 0 {
		t.Fatalf("cat: exit %d", exit)
	}
	for _, size := range []string{"1", "7", "100"} {
		if got, _ := sh(t, m, `dd if=lock status=none bs=`+size); got != whole {
			t.Errorf("in pieces of %s: %q, at once: %q", size, got, whole)
		}
	}
	parseRecords(t, whole)
	for _, tool := range []string{`head -n 1 lock`, `grep ^pid= lock`, `sed -n 1p lock`, `awk 'NR==1' lock`} {
		if got, exit := sh(t, m, tool); got != fmt.Sprintf("pid=%d\n", c.Pid()) || exit != 0 {
			t.Errorf("%s: %q, exit %d", tool, got, exit)
		}
	}
}

// A name that looks like lines of a record cannot forge one: what a user
// chooses is in no field unescaped.
func TestAHolderCannotForgeARecord(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	p := startProcess(t, nil, "/usr/bin/python3", "-c", `
import os, sys
open("/proc/self/comm", "w").write("a\nuid=0\n\npid=1")
fd = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_RDWR)
print("held", flush=True)
sys.stdin.read()
`, path)
	p.Held(t)
	if r := recordOf(t, path); r["pid"] != fmt.Sprint(p.Pid()) {
		t.Errorf("record %v", r)
	}
}
