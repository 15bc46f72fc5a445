package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.6: "The holder's record is written into backing files that lockfs created
// (publish=auto|yes|no), so cat and ls on any host show holders on every host."

// headerLine is what a backing file begins with that lockfs writes to.
const headerLine = "# lockfs 1\n"

// twoMounts are two daemons over one backing directory.
func twoMounts(t *testing.T, flags ...string) (a *mirroredMount, b *Mount) {
	t.Helper()
	a = mountBacked(t, flags...)
	return a, mount(t, append([]string{"--backing", a.backing}, flags...)...)
}

// behind returns what is in a backing file.
func behind(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// awaitPublished waits until something is written about who holds a lock.
func awaitPublished(t *testing.T, path string) {
	t.Helper()
	eventually(t, answerLimit, func() bool { return len(behind(t, path)) > len(headerLine) }, "it is published who holds it")
}

// wantSeenAs fails the test unless who holds name elsewhere is shown on a mount as
// he is shown on his own, but for who waits.
func wantSeenAs(t *testing.T, reader *Client, here, there string) {
	t.Helper()
	text, err := reader.ReadAll(there)
	wantErr(t, "reading it where it is held", err, nil)
	want := parseRecords(t, text)
	if host, _ := os.Hostname(); len(want) == 0 || want[0]["host"] != host || want[0]["comm"] == "" {
		t.Fatalf("where it is held there is %q", text)
	}
	if text, err = reader.ReadAll(here); err != nil || !sameRecords(parseRecords(t, text), want) {
		t.Errorf("seen from elsewhere: %v\n%s\nwant\n%v", err, text, want)
	}
	holder := filepath.Join(filepath.Dir(here), ".lockfs/lock", filepath.Base(here), "holder")
	if again, err := reader.ReadAll(holder); err != nil || again != text {
		t.Errorf("%s: %v\n%s\nwant\n%s", holder, err, again, text)
	}
}

func sameRecords(a, b []record) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		for key, value := range a[i] {
			if key != "waiting" && b[i][key] != value {
				return false
			}
		}
	}
	return true
}

// Each of two mounts shows who holds a lock on the other, by whatever idiom, and
// nothing when he has given it back.
func TestMountsShowEachOthersHolders(t *testing.T) {
	a, b := twoMounts(t)
	holder, reader := newClient(t), newClient(t)
	for from, to := range map[*Mount]*Mount{a.Mount: b, b: a.Mount} {
		for _, way := range waysToHold {
			if strings.Contains(way.name, "shared") || strings.Contains(way.name, "one byte") {
				continue
			}
			name := strings.ReplaceAll(way.name, " ", "-")
			fd := way.take(t, holder, from.Path(name))
			awaitPublished(t, a.Behind(name))
			wantSeenAs(t, reader, to.Path(name), from.Path(name))
			wantListed(t, reader, to, name)
			wantErr(t, "close", holder.Close(fd), nil)
			eventually(t, answerLimit, func() bool { return behind(t, a.Behind(name)) == headerLine }, "it is cleared")
			eventually(t, answerLimit, func() bool { _, err := reader.Stat(to.Path(name)); return err == unix.ENOENT }, "it is free")
		}
	}
}

// Lists tell of holders outside of the mount too, in directories below as well: of
// those of another mount all but the token, of others what the kernel tells.
func TestListsTellOfHoldersOutside(t *testing.T) {
	a, b := twoMounts(t)
	holder, stranger, reader := newClient(t), newClient(t), newClient(t)
	wantErr(t, "mkdir", holder.Name("mkdir", 0o755, a.Path("dir")), nil)
	wantErr(t, "mkdir of what the other mount has made", holder.Name("mkdir", 0o755, b.Path("dir")), unix.EEXIST)
	wantErr(t, "mkdir", holder.Name("mkdir", 0o700, b.Path("dir/secret")), nil)
	wantErr(t, "close of what makes the file", holder.Close(holder.Open(a.Path("dir/secret/s"), takeFlags)), nil)
	holder.Open(a.Path("x"), takeFlags)
	fd := holder.Open(a.Path("dir/y"), openFlags)
	wantErr(t, "fcntl", holder.Fcntl(fd, unix.F_SETLK, wr(0, 10)), nil)
	file := stranger.Open(a.Behind("z"), unix.O_RDWR|unix.O_CREAT)
	wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_SETLK, rd(5, 5)), nil)
	file = stranger.Open(a.Behind("dir/secret/s"), unix.O_RDWR|unix.O_CREAT)
	wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), nil)
	awaitPublished(t, a.Behind("x"))
	awaitPublished(t, a.Behind("dir/y"))
	host, _ := os.Hostname()
	field := func(m *Mount, name string) string {
		text, err := reader.ReadAll(m.Path(name))
		wantErr(t, "reading "+name, err, nil)
		return parseRecords(t, text)[0]["since"]
	}
	lines := []string{
		fmt.Sprintf("dir/y exclusive 0-9 held %d 0 client fcntl %s - %s\n", holder.Pid(), field(a.Mount, "dir/y"), host),
		fmt.Sprintf("x exclusive 0-end held %d 0 client excl %s - %s\n", holder.Pid(), field(a.Mount, "x"), host),
		fmt.Sprintf("z shared 5-9 held %d - client fcntl - - -\n", stranger.Pid()),
	}
	secret := fmt.Sprintf("dir/secret/s exclusive 0-end held %d - client fcntl - - -\n", stranger.Pid())
	wantOutside := func(c *Client, want string) {
		t.Helper()
		text, err := c.ReadAll(b.Path(".lockfs/locks"))
		got := ""
		for line := range strings.Lines(text) { // those of the mount itself are its directories
			if len(strings.Fields(line)) > 10 {
				got += line
			}
		}
		if err != nil || got != want {
			t.Errorf("%v\n%s, want\n%s", err, got, want)
		}
	}
	wantOutside(reader, secret+strings.Join(lines, ""))
	wantOutside(newClient(t, asUser(1234, 1234)), strings.Join(lines, ""))
	text, err := reader.ReadAll(b.Path(".lockfs/locks.json"))
	wantErr(t, "locks.json", err, nil)
	for _, part := range []string{
		fmt.Sprintf(`"path":"x","mode":"exclusive","first":0,"last":null,"state":"held","pid":%d,"uid":0,"comm":"client","via":"excl","since":"%s","token":null,"host":"%s"}`,
			holder.Pid(), field(a.Mount, "x"), host),
		fmt.Sprintf(`"path":"z","mode":"shared","first":5,"last":9,"state":"held","pid":%d,"uid":null,"comm":"client","via":"fcntl","since":null,"token":null,"host":""}`, stranger.Pid()),
	} {
		if !strings.Contains(text, part) {
			t.Errorf("there is no %s in\n%s", part, text)
		}
	}
	// On the mount itself they are what they always are.
	if text, err := reader.ReadAll(a.Path(".lockfs/locks")); err != nil || strings.Contains(text, host) || strings.Count(text, "\nx ") != 1 {
		t.Errorf("%v\n%s", err, text)
	}
}

// What changes hands without being free in between is published anew, and what is
// shared by then is not.
func TestWhatIsPublishedIsOfWhoHoldsIt(t *testing.T) {
	a, b := twoMounts(t)
	first, second, reader := newClient(t), newClient(t), newClient(t)
	fd, other := first.Open(a.Path("x"), openFlags), second.Open(a.Path("x"), openFlags)
	pidSeen := func() string {
		text, err := reader.ReadAll(b.Path("x"))
		wantErr(t, "reading it", err, nil)
		return strings.TrimPrefix(strings.SplitN(text, "\n", 2)[0], "pid=")
	}
	wantErr(t, "flock", first.Flock(fd, unix.LOCK_EX), nil)
	awaitPublished(t, a.Behind("x"))
	waits := second.StartFlock(other, unix.LOCK_EX)
	waits.MustBlock(t)
	wantErr(t, "unlock", first.Flock(fd, unix.LOCK_UN), nil)
	wantErr(t, "the wait", waits.Wait(t), nil)
	if pid := pidSeen(); pid != "0" && pid != fmt.Sprint(second.Pid()) {
		t.Errorf("%s is shown, which has given it back", pid)
	}
	eventually(t, answerLimit, func() bool { return pidSeen() == fmt.Sprint(second.Pid()) }, "the next one is shown")
	wantErr(t, "a downgrade", second.Flock(other, unix.LOCK_SH), nil)
	if text := behind(t, a.Behind("x")); text != headerLine {
		t.Errorf("what is shared is published: %q", text)
	}
	if text, err := reader.ReadAll(b.Path("x")); err != nil || !strings.HasPrefix(text, "pid=0\ncomm=\nmode=shared\nvia=fcntl\n") {
		t.Errorf("what is shared elsewhere reads as %q, %v", text, err)
	}
}

// Who publishes and dies leaves something behind, which is shown to nobody: not when
// the lock is free, nor when another has it, on another mount or without one.
func TestWhoHasDiedIsNotShown(t *testing.T) {
	a, b := twoMounts(t)
	c := mount(t, "--backing", a.backing)
	holder, next, reader := newClient(t), newClient(t), newClient(t)
	names := []string{"free", "mount", "posix", "ofd", "shared"}
	for _, name := range names {
		holder.Open(a.Path(name), takeFlags)
	}
	for _, name := range names {
		awaitPublished(t, a.Behind(name))
	}
	a.Kill()
	dead := fmt.Sprintf("pid=%d\n", holder.Pid())
	for _, name := range names {
		if !strings.Contains(behind(t, a.Behind(name)), dead) {
			t.Fatalf("%s: nothing is left behind", name)
		}
		eventually(t, answerLimit, func() bool {
			fd, err := next.TryOpen(b.Path(name), openFlags)
			return err == nil && next.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil && next.Close(fd) == nil || name != "mount"
		}, "it is free")
	}
	wantListed(t, reader, b)
	next.Open(b.Path("mount"), takeFlags)
	for _, name := range []string{"posix", "ofd", "shared"} {
		file := next.Open(a.Behind(name), unix.O_RDWR)
		switch name {
		case "posix":
			wantErr(t, name, next.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), nil)
		case "ofd":
			wantErr(t, name, next.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)), nil)
		case "shared":
			wantErr(t, name, next.Fcntl(file, unix.F_OFD_SETLK, rd(0, toEnd)), nil)
		}
	}
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
		for _, name := range names[1:] {
			text, err := reader.ReadAll(c.Path(name))
			if err != nil || strings.Contains(text, dead) || !strings.HasPrefix(text, "pid=") {
				t.Fatalf("%s: %q, %v: the dead holder was %s", name, text, err, dead)
			}
		}
	}
	if _, err := reader.Stat(c.Path("free")); err != unix.ENOENT {
		t.Errorf("a name that nobody holds is there: %v", err)
	}
	awaitPublished(t, a.Behind("mount"))
	wantSeenAs(t, reader, c.Path("mount"), b.Path("mount"))
}

// Files that lockfs has not made are never written to, whatever is in them; nor are
// those that were made when nothing was published.
func TestOnlyOwnFilesAreWrittenTo(t *testing.T) {
	a, _ := twoMounts(t)
	m := mountBacked(t, "--policy", "publish=no")
	holder := newClient(t)
	contents := map[string]string{
		"empty": "", "other": "data\n", "nearly": "# lockfs 10\n", "part": headerLine[:len(headerLine)-1], "longer": "#" + headerLine,
	}
	for name, text := range contents {
		if err := os.WriteFile(a.Behind(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		holder.Open(a.Path(name), takeFlags)
	}
	holder.Open(a.Path("own"), takeFlags)
	holder.Open(m.Path("own"), takeFlags)
	awaitPublished(t, a.Behind("own"))
	time.Sleep(200 * time.Millisecond)
	for name, text := range contents {
		if got := behind(t, a.Behind(name)); got != text {
			t.Errorf("%s was %q and is %q", name, text, got)
		}
	}
	if got := behind(t, m.Behind("own")); got != "" {
		t.Errorf("publish=no: %q", got)
	}
	holder.Kill()
	eventually(t, answerLimit, func() bool { return behind(t, a.Behind("own")) == headerLine }, "what was published is cleared")
	for name, text := range contents {
		if got := behind(t, a.Behind(name)); got != text {
			t.Errorf("%s was %q and is %q when it is free", name, text, got)
		}
	}
}

// A text that somebody has forged is shown as far as it is one, and cannot be more
// than that; what is not is shown as a lock of nobody known.
func TestForgedTexts(t *testing.T) {
	m := mountBacked(t)
	stranger, reader := newClient(t), newClient(t)
	const by = "by=elsewhere:1:1:1\n"
	const good = "pid=7\nuid=8\nuser=u\ncomm=c\nhost=h\ncgroup=/\nmode=exclusive\nvia=flock\nsince=2026-01-02T03:04:05Z\ntoken=9\n"
	unknown := "pid=0\ncomm=\nmode=exclusive\nvia=fcntl\nwaiting=0\n"
	long := strings.Repeat("x", 2000)
	for i, c := range []struct{ text, want string }{
		{by + good, good + "waiting=0\n"},
		{by + good + "\n" + good, good + "waiting=0\n\n" + good + "waiting=0\n"},
		{"", unknown},
		{good, unknown},
		{by + good[:len(good)-1], unknown},
		{by + good + "\n", unknown},
		{by + good + "more=1\n", unknown},
		{by + strings.Replace(good, "pid=7", "pid=-7", 1), unknown},
		{by + strings.Replace(good, "pid=7", "pid=99999999999", 1), unknown},
		{by + strings.Replace(good, "mode=exclusive", "mode=all", 1), unknown},
		{by + strings.Replace(good, "comm=c", "comm=\x1b[2J", 1), unknown},
		{by + strings.Replace(good, "comm=c", "comm=\x00", 1), unknown},
		{by + strings.Replace(good, "comm=c", "comm="+long, 1), unknown},
		{by + strings.Repeat(good+"\n", 100), unknown},
	} {
		name := fmt.Sprint("x", i)
		if err := os.WriteFile(m.Behind(name), []byte(headerLine+c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		file := stranger.Open(m.Behind(name), unix.O_RDWR)
		wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)), nil)
		if got, err := reader.ReadAll(m.Path(name)); err != nil || got != c.want {
			t.Errorf("%q is shown as\n%s%v, want\n%s", c.text, got, err, c.want)
		}
	}
}

// What a holder chooses about himself is his, on other mounts too.
func TestAHolderCannotForgeWhatIsPublished(t *testing.T) {
	a, b := twoMounts(t)
	p := startProcess(t, nil, "/usr/bin/python3", "-c", `
import os, sys
open("/proc/self/comm", "w").write("a\nuid=0\n\npid=1")
fd = os.open(sys.argv[1], os.O_CREAT | os.O_EXCL | os.O_RDWR)
print("held", flush=True)
sys.stdin.read()
`, a.Path("x"))
	p.Held(t)
	awaitPublished(t, a.Behind("x"))
	wantSeenAs(t, newClient(t), b.Path("x"), a.Path("x"))
	locks, exit := sh(t, b, "cat .lockfs/locks")
	if f := strings.Fields(locks); exit != 0 || len(f) != 11 || f[4] != fmt.Sprint(p.Pid()) || f[6] != `a\012uid=0\012\012pid=1` {
		t.Errorf("locks is %q", locks)
	}
	p.Release(t)
}

// A worker that dies leaves nothing untrue behind: what is held is published by the
// next one, and what is not is cleared.
func TestPublishedOverWorkersDeaths(t *testing.T) {
	a, b := twoMounts(t)
	holder, reader := newClient(t), newClient(t)
	held := holder.Open(a.Path("held"), takeFlags)
	for i := range 5 {
		awaitPublished(t, a.Behind("held"))
		wantSeenAs(t, reader, b.Path("held"), a.Path("held"))
		name := fmt.Sprint("left", i)
		fd := holder.Open(a.Path(name), takeFlags)
		awaitPublished(t, a.Behind(name))
		killWorker(t, a.Mount)
		wantErr(t, "close", holder.Close(fd), nil)
		eventually(t, answerLimit, func() bool { return behind(t, a.Behind(name)) == headerLine }, "it is cleared")
		eventually(t, answerLimit, func() bool { _, err := reader.Stat(b.Path(name)); return err == unix.ENOENT }, "it is free")
	}
	wantErr(t, "fsync", holder.Fsync(held), nil)
	a.Signal(syscall.SIGHUP)
	eventually(t, answerLimit, func() bool { return strings.Count(a.Stderr(), "a new worker serves") >= 6 }, "another worker serves")
	awaitPublished(t, a.Behind("held"))
	wantSeenAs(t, reader, b.Path("held"), a.Path("held"))
}

// publish is a policy like the others: of a directory, at any time, and kept.
func TestPublishPolicy(t *testing.T) {
	a, _ := twoMounts(t, "--space", "quiet:publish=no", "-o", "space=loud:publish=yes")
	holder := newClient(t)
	if out, exit := sh(t, a.Mount, "cat .lockfs/policy/publish */.lockfs/policy/publish"); exit != 0 || out != "auto\nyes\nno\n" {
		t.Errorf("%q, exit code %d", out, exit)
	}
	if _, exit := sh(t, a.Mount, "mkdir -m 700 secret loud/secret && mkdir -m 755 secret/open && ! echo maybe >quiet/.lockfs/policy/publish"); exit != 0 {
		t.Errorf("exit code %d", exit)
	}
	for _, dir := range []string{"loud", "loud/secret"} {
		holder.Open(a.Path(dir+"/x"), takeFlags)
		awaitPublished(t, a.Behind(dir+"/x"))
	}
	// Who may not see it on the mount may not see it behind.
	for _, dir := range []string{"quiet", "secret", "secret/open"} {
		holder.Open(a.Path(dir+"/x"), takeFlags)
		time.Sleep(100 * time.Millisecond)
		if got := behind(t, a.Behind(dir+"/x")); got != "" {
			t.Errorf("%s: %q", dir, got)
		}
	}
	killWorker(t, a.Mount)
	if out, exit := sh(t, a.Mount, "echo yes >quiet/.lockfs/policy/publish; cat quiet/.lockfs/policy/publish loud/.lockfs/policy/publish"); exit != 0 || out != "yes\nyes\n" {
		t.Errorf("%q, exit code %d", out, exit)
	}
	holder.Open(a.Path("quiet/y"), takeFlags)
	awaitPublished(t, a.Behind("quiet/y"))
}
