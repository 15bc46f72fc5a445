package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.6: "Every hold is mirrored in the backing directory before it is granted.
// Programs that never heard of lockfs and lock BACKING/NAME exclude users of the
// mount, and are excluded by them."

// mirroredMount is a mount with a backing directory.
type mirroredMount struct {
	*Mount
	backing string
}

func mountBacked(t testing.TB, flags ...string) *mirroredMount {
	t.Helper()
	dir := t.TempDir()
	return &mirroredMount{mount(t, append(mirroredIn(t, dir), flags...)...), dir}
}

// Behind returns the path of a name's file in the backing directory.
func (b *mirroredMount) Behind(name string) string { return filepath.Join(b.backing, name) }

// An exclusive hold, of whatever idiom, keeps every fcntl lock out, and a shared
// one those that are exclusive; what is given back is free.
func TestHoldsExcludeStrangers(t *testing.T) {
	m := mountBacked(t)
	a, stranger := newClient(t), newClient(t)
	for _, way := range waysToHold {
		t.Run(way.name, func(t *testing.T) {
			name := strings.ReplaceAll(way.name, " ", "-")
			fd := way.take(t, a, m.Path(name))
			file := stranger.Open(m.Behind(name), unix.O_RDWR)
			shared := strings.Contains(way.name, "shared") || strings.Contains(way.name, "one byte")
			want := map[int16]error{unix.F_RDLCK: unix.EAGAIN, unix.F_WRLCK: unix.EAGAIN}
			if shared {
				want[unix.F_RDLCK] = nil
			}
			for _, cmd := range []int{unix.F_SETLK, unix.F_OFD_SETLK} {
				for kind, want := range want {
					wantErr(t, fmt.Sprintf("command %d, kind %d", cmd, kind), stranger.Fcntl(file, cmd, lk(kind, 0, toEnd)), want)
					wantErr(t, "unlock", stranger.Fcntl(file, cmd, un(0, toEnd)), nil)
				}
			}
			wantErr(t, "close", a.Close(fd), nil)
			// The kernel tells of a close when it is done.
			eventually(t, answerLimit, func() bool { return stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)) == nil }, "it is free")
			wantErr(t, "close", stranger.Close(file), nil)
		})
	}
}

// What strangers hold keeps users of the mount out, by whatever idiom, and by
// exactly their bytes and mode.
func TestStrangersExcludeHolds(t *testing.T) {
	m := mountBacked(t)
	a, stranger := newClient(t), newClient(t)
	file := stranger.Open(m.Behind("x"), unix.O_RDWR|unix.O_CREAT)
	wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(10, 10)), nil)
	_, err := a.TryOpen(m.Path("x"), takeFlags)
	wantErr(t, "O_EXCL", err, unix.EEXIST)
	for name, call := range map[string]string{"link": "link", "symlink": "symlink"} {
		if err := a.Name(call, 0, m.Path("other"), m.Path("x")); err == nil {
			t.Errorf("%s got through", name)
		}
	}
	fd := a.Open(m.Path("x"), openFlags)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
	wantErr(t, "fcntl, these bytes", a.Fcntl(fd, unix.F_SETLK, rd(0, 11)), unix.EAGAIN)
	wantErr(t, "OFD, these bytes", a.Fcntl(fd, unix.F_OFD_SETLK, rd(19, 1)), unix.EAGAIN)
	wantErr(t, "fcntl, those before", a.Fcntl(fd, unix.F_SETLK, wr(0, 10)), nil)
	wantErr(t, "fcntl, those after", a.Fcntl(fd, unix.F_SETLK, wr(20, toEnd)), nil)
	if got := a.GetLk(fd, wr(0, toEnd)); got.Type != unix.F_WRLCK || got.Start != 10 || got.Len != 10 || int(got.Pid) != stranger.Pid() {
		t.Errorf("F_GETLK tells of %+v, want the stranger %d on bytes 10 to 19", got, stranger.Pid())
	}
	wantErr(t, "a downgrade", stranger.Fcntl(file, unix.F_SETLK, rd(10, 10)), nil)
	wantErr(t, "fcntl, shared", a.Fcntl(fd, unix.F_SETLK, rd(0, toEnd)), nil)
	wantErr(t, "fcntl, exclusive", a.Fcntl(fd, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
	wantErr(t, "the stranger's end", stranger.Close(file), nil)
	wantErr(t, "fcntl, exclusive, without him", a.Fcntl(fd, unix.F_SETLK, wr(0, toEnd)), nil)
}

// Who waits for a stranger gets in when he leaves, soon; and can be interrupted.
func TestWaitsForStrangers(t *testing.T) {
	m := mountBacked(t)
	a, b, stranger := newClient(t), newClient(t), newClient(t)
	file := stranger.Open(m.Behind("x"), unix.O_RDWR|unix.O_CREAT)
	fd, other := a.Open(m.Path("x"), openFlags), b.Open(m.Path("x"), openFlags)
	var took []time.Duration
	for range 9 {
		wantFreeOutside(t, "the stranger's lock", stranger, file, unix.F_SETLK, wr(0, toEnd))
		waits := a.StartFlock(fd, unix.LOCK_EX)
		waits.MustBlock(t)
		behind := b.StartFcntl(other, unix.F_SETLKW, wr(0, toEnd))
		// It holds nothing else up.
		wantErr(t, "another lock", b.Close(b.Open(m.Path("y"), takeFlags)), nil)
		began := time.Now()
		wantErr(t, "the stranger's unlock", stranger.Fcntl(file, unix.F_SETLK, un(0, toEnd)), nil)
		wantErr(t, "flock", waits.Wait(t), nil)
		took = append(took, time.Since(began))
		wantErr(t, "flock", a.Flock(fd, unix.LOCK_UN), nil)
		wantErr(t, "fcntl", behind.Wait(t), nil)
		wantErr(t, "fcntl", b.Fcntl(other, unix.F_SETLK, un(0, toEnd)), nil)
	}
	if soon := middle(took); soon > 100*time.Millisecond {
		t.Errorf("who waited got in %v after the stranger had left", soon)
	} else {
		t.Logf("in %v after the stranger has left", soon)
	}
	wantFreeOutside(t, "the stranger's lock", stranger, file, unix.F_SETLK, wr(0, toEnd))
	killed := newClient(t)
	killed.StartFlock(killed.Open(m.Path("x"), openFlags), unix.LOCK_EX).MustBlock(t)
	killed.Kill()
	wantErr(t, "the stranger's unlock", stranger.Fcntl(file, unix.F_SETLK, un(0, toEnd)), nil)
	eventually(t, answerLimit, func() bool {
		return stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)) == nil
	}, "who died before the stranger left holds nothing")
}

// Source document 002: two open the file, both lock it, one closes it: the first
// still holds.
func TestCloseOfAnotherFileGivesNothingBack(t *testing.T) {
	m := mountBacked(t)
	c, stranger := newClient(t), newClient(t)
	first, second := c.Open(m.Path("foo"), openFlags), c.Open(m.Path("foo"), openFlags)
	wantErr(t, "the first", c.Flock(first, unix.LOCK_EX|unix.LOCK_NB), nil)
	wantErr(t, "the second", c.Flock(second, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	wantErr(t, "close", c.Close(second), nil)
	file := stranger.Open(m.Behind("foo"), unix.O_RDWR)
	wantErr(t, "a stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
}

// A stranger who is blocked in F_SETLKW on the backing file never gets in while
// somebody holds the lock, whatever dies.
func TestMirrorOutlivesWorkers(t *testing.T) {
	m := mountBacked(t)
	const names = 20
	a, stranger := newClient(t), newClient(t)
	var blocked []*Pending
	var fds []int
	for i := range names {
		name := fmt.Sprint("lock", i)
		way := waysToHold[i%len(waysToHold)]
		fds = append(fds, way.take(t, a, m.Path(name)))
		blocked = append(blocked, stranger.StartFcntl(stranger.Open(m.Behind(name), unix.O_RDWR), unix.F_OFD_SETLKW, wr(0, toEnd)))
	}
	h := startHammer(t, m.Mount)
	end := time.Now().Add(hammerTime(t) / 4)
	churn := newClient(t)
	for i := 0; time.Now().Before(end); i++ {
		fd := churn.Open(m.Path(fmt.Sprint("churn", i%5)), takeFlags)
		wantErr(t, "close", churn.Close(fd), nil)
		for n, p := range blocked {
			if p.Done() {
				t.Fatalf("a stranger has got lock%d, which is held, after %d deaths", n, h.kills)
			}
		}
	}
	h.Stop()
	t.Logf("%d workers killed", h.kills)
	for i, fd := range fds {
		if err := a.Close(fd); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "the stranger's lock", blocked[i].Wait(t), nil)
	}
}

// More names than a process can have open, one after the other.
func TestManyMirroredNames(t *testing.T) {
	m := newMount(t)
	dir := t.TempDir()
	m.wrapper = []string{"prlimit", "--nofile=1024:1024"}
	m.mount(mirroredIn(t, dir))
	m.Deadline(stressLimit)
	a := newClient(t)
	for i := range 10_000 {
		wantErr(t, "close", a.Close(a.Open(m.Path(fmt.Sprint("lock", i)), takeFlags)), nil)
	}
	for _, pid := range daemonPids(m) {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil || len(fds) > 600 {
			t.Errorf("process %d has %d files open, %v", pid, len(fds), err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 10_000 {
		t.Errorf("%d files in the backing directory, %v", len(files), err)
	}
}

// middle returns the median.
func middle(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// What is planted in the backing directory is not followed, does not hang anybody,
// and nothing is granted on it.
func TestPlantedFiles(t *testing.T) {
	m := mountBacked(t)
	a := newClient(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"symlink":   func(path string) error { return os.Symlink(outside, path) },
		"fifo":      func(path string) error { return syscall.Mkfifo(path, 0o666) },
		"directory": func(path string) error { return os.Mkdir(path, 0o777) },
		"device":    func(path string) error { return syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|5) },
	} {
		if err := plant(m.Behind(name)); err != nil {
			t.Fatal(err)
		}
		fd, err := a.TryOpen(m.Path(name), takeFlags)
		if err == nil {
			t.Errorf("%s: O_EXCL was granted", name)
			a.Close(fd)
		}
		if fd, err = a.TryOpen(m.Path(name), openFlags); name == "directory" {
			wantErr(t, "open of what is a directory", err, unix.EISDIR)
			continue
		}
		wantErr(t, "open", err, nil)
		if err := a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			t.Errorf("%s: flock was granted", name)
		}
		wantErr(t, "close", a.Close(fd), nil)
	}
	if b, err := os.ReadFile(outside); err != nil || string(b) != "data" {
		t.Errorf("outside the backing directory there is %q, %v", b, err)
	}
}

// A file that is replaced while its lock is held takes the mirror away: the holder
// is told.
func TestLostMirror(t *testing.T) {
	m := mountBacked(t)
	a, b := newClient(t), newClient(t)
	events := b.Open(m.Path(".lockfs/events"), unix.O_RDONLY|unix.O_NONBLOCK)
	fd := a.Open(m.Path("x"), takeFlags)
	if err := os.Remove(m.Behind("x")); err != nil {
		t.Fatal(err)
	}
	eventually(t, answerLimit, func() bool { return a.Fsync(fd) == unix.EIO }, "the holder is told")
	wantErr(t, "flock by who has lost it", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EIO)
	wantErr(t, "the next one's close", b.Close(b.Open(m.Path("x"), takeFlags)), nil)
	wantErr(t, "close", a.Close(fd), nil)
	told := ""
	eventually(t, answerLimit, func() bool {
		more, err := b.Read(events, 4096)
		told += more
		return (err == nil || err == unix.EAGAIN) && strings.Contains(told, `{"event":"lost"`)
	}, "there is an event")
	eventually(t, answerLimit, func() bool { return strings.Contains(m.Stderr(), "why=lost") }, "the log says that a hold was lost")
}

// Two daemons over one backing directory, and strangers who lock its files, are as
// one table for exclusion, whatever workers die.
func TestNeverTwoInsideOverTwoMounts(t *testing.T) {
	first := mountBacked(t)
	second := mount(t, mirroredIn(t, first.backing)...)
	limit := hammerTime(t)
	first.Deadline(limit + time.Minute)
	second.Deadline(limit + time.Minute)
	wantNeverTwoInside(t, limit, first.backing, first.Mount, second)
}

// wantNeverTwoInside has 16 processes take the same locks for a while, on two mounts and
// in their backing directory, while the workers of both are killed.
func wantNeverTwoInside(t *testing.T, limit time.Duration, backing string, first, second *Mount) {
	t.Helper()
	hammerBoth(t, "places", 16, limit, backing, first, second)
}

// hammerBoth runs a program, which takes the same locks by so many processes for a while,
// on two mounts and in their backing directory, and checks that never two are inside;
// and kills the workers of both meanwhile.
func hammerBoth(t *testing.T, name string, processes int, limit time.Duration, backing string, first, second *Mount) {
	t.Helper()
	hammers := []*hammer{startHammer(t, first), startHammer(t, second)}
	out, err := command(nil, program(t, name), fmt.Sprint(processes), fmt.Sprint(limit.Seconds()), backing, first.Dir, second.Dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, h := range hammers {
		h.Stop()
	}
	t.Logf("%d and %d workers killed: %s", hammers[0].kills, hammers[1].kills, out)
	if strings.Contains(string(out)+" ", " 0 ") {
		t.Errorf("it was too tame: %s", out)
	}
}

// A name that somebody outside holds is there while he does, and tells who it is.
func TestStrangersAreSeen(t *testing.T) {
	m := mountBacked(t)
	a, stranger := newClient(t), newClient(t)
	wantListed(t, a, m.Mount)
	for i, cmd := range []int{unix.F_SETLK, unix.F_OFD_SETLK} {
		name := fmt.Sprint("held", i)
		for again := range 3 { // the file is not known to the mount, then it is
			file := stranger.Open(m.Behind(name), unix.O_RDWR|unix.O_CREAT)
			if _, err := a.Stat(m.Path(name)); err != unix.ENOENT {
				t.Fatalf("round %d: a name that nobody holds is there: %v", again, err)
			}
			wantErr(t, "the stranger's lock", stranger.Fcntl(file, cmd, wr(0, toEnd)), nil)
			wantListed(t, a, m.Mount, name)
			text, err := a.ReadAll(m.Path(name))
			pid := stranger.Pid()
			if cmd == unix.F_OFD_SETLK {
				pid = 0 // the kernel does not tell
			}
			if err != nil || !strings.HasPrefix(text, fmt.Sprintf("pid=%d\n", pid)) || !strings.Contains(text, "\nmode=exclusive\nvia=fcntl\n") {
				t.Errorf("round %d: %s is\n%s %v, want the stranger %d", again, name, text, err, pid)
			}
			_, err = a.TryOpen(m.Path(name), takeFlags)
			wantErr(t, "O_EXCL", err, unix.EEXIST)
			wantErr(t, "unlink", a.Unlink(m.Path(name)), unix.EBUSY)
			wantErr(t, "the stranger's close", stranger.Close(file), nil)
			wantListed(t, a, m.Mount)
			if again == 1 {
				wantErr(t, "close", a.Close(a.Open(m.Path(name), takeFlags)), nil)
			}
		}
	}
}

// A mount over a directory in which a process holds a lock already: that is the backing
// directory by default.
func TestMountOverLockedFiles(t *testing.T) {
	t.Run("by default", func(t *testing.T) { wantMountOverLockedFiles(t) })
	t.Run("by its name", func(t *testing.T) { wantMountOverLockedFiles(t, "--backing", "MOUNTPOINT") })
}

func wantMountOverLockedFiles(t *testing.T, flags ...string) {
	m := newMount(t)
	m.Dir = filepath.Join(m.parent, "m")
	stranger := newClient(t)
	if err := os.Mkdir(m.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := stranger.Open(m.Path("x"), unix.O_RDWR|unix.O_CREAT)
	wantErr(t, "the lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), nil)
	for i, f := range flags {
		flags[i] = strings.ReplaceAll(f, "MOUNTPOINT", m.Dir)
	}
	m.start(append(append([]string{m.program, "--log-level", "debug", "--state-dir", "none"}, flags...), m.Dir))
	t.Cleanup(m.Stop)
	m.awaitReady()
	m.watch = watchMount(m)
	a := newClient(t)
	wantListed(t, a, m, "x")
	fd := a.Open(m.Path("x"), openFlags)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	stranger.Kill()
	eventually(t, answerLimit, func() bool { return a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil }, "it is free when the process has ended")
	wantListed(t, a, m, "x")
}

// A directory in which something is held is not renamed, since its backing files
// stay where they are; nor is it made one whose names hold. Both work when it is
// free, and its locks are others outside then.
func TestMirroredDirectories(t *testing.T) {
	m := mountBacked(t)
	a, stranger := newClient(t), newClient(t)
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("dir")), nil)
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("dir/sub")), nil)
	fd := a.Open(m.Path("dir/sub/x"), takeFlags)
	file := stranger.Open(m.Behind("dir/sub/x"), unix.O_RDWR)
	wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
	wantErr(t, "rename", a.Name("rename", 0, m.Path("dir"), m.Path("new")), unix.EBUSY)
	if _, exit := sh(t, m.Mount, "echo name >dir/sub/.lockfs/policy/hold"); exit == 0 {
		t.Error("the policy of a directory was changed in which something is held")
	}
	killWorker(t, m.Mount)
	wantErr(t, "the stranger's lock, after a worker's death", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
	wantErr(t, "close", a.Close(fd), nil)
	eventually(t, answerLimit, func() bool { return stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)) == nil }, "it is free")
	wantErr(t, "rename with a directory that is held", a.Name("rename", 0, m.Path("dir"), m.Path("new")), unix.EXDEV)
	wantErr(t, "rename of what a stranger uses", a.Name("rename", 0, m.Path("dir/sub"), m.Path("new")), unix.EBUSY)
	wantErr(t, "the stranger's unlock", stranger.Fcntl(file, unix.F_SETLK, un(0, toEnd)), nil)
	wantErr(t, "rename", a.Name("rename", 0, m.Path("dir/sub"), m.Path("new")), nil)
	settles(t, func() bool { _, err := os.Stat(m.Behind("dir/sub")); return os.IsNotExist(err) })
	if _, err := os.Stat(m.Behind("dir/sub")); !os.IsNotExist(err) {
		t.Errorf("the directory is under its old name outside: %v", err)
	}
	wantErr(t, "close of what is another lock now", a.Close(a.Open(m.Path("new/x"), takeFlags)), nil)
	if _, err := os.Stat(m.Behind("new/x")); err != nil {
		t.Error(err)
	}
	if out, exit := sh(t, m.Mount, "echo name >new/.lockfs/policy/hold && (set -C; echo $$ >new/pid) && ls new"); exit != 0 || out != "pid\n" {
		t.Errorf("hold=name: %q, exit code %d", out, exit)
	}
}

// Programs that never heard of lockfs: Python's lockf and SQLite, on backing files.
// A database there is not written to.
func TestProgramsOutside(t *testing.T) {
	m := mountBacked(t)
	a := newClient(t)
	database := m.Behind("db")
	sqlite := func(commands string) (string, error) {
		out, err := command(nil, "sqlite3", "-batch", "-bail", database, commands).CombinedOutput()
		return string(out), err
	}
	patient := func(commands string) (string, error) { // for what is given back, see wantFreeOutside
		out, err := command(nil, "sqlite3", "-batch", "-bail", "-cmd", patience(t), database, commands).CombinedOutput()
		return string(out), err
	}
	if out, err := sqlite("PRAGMA journal_mode=DELETE; CREATE TABLE t(x); INSERT INTO t VALUES(1);"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	before, err := os.ReadFile(database)
	if err != nil {
		t.Fatal(err)
	}
	// A holder on the mount, of either mode, against SQLite.
	fd := a.Open(m.Path("db"), openFlags)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
	if out, err := sqlite("SELECT x FROM t;"); err == nil || !strings.Contains(out, "locked") {
		t.Errorf("SQLite reads what is held exclusively: %q", out)
	}
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), nil)
	if out, err := patient("SELECT x FROM t;"); err != nil || out != "1\n" {
		t.Errorf("SQLite beside a reader: %q, %v", out, err)
	}
	if out, err := sqlite("INSERT INTO t VALUES(2);"); err == nil || !strings.Contains(out, "locked") {
		t.Errorf("SQLite writes what is held shared: %q", out)
	}
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_UN), nil)
	if after, err := os.ReadFile(database); err != nil || string(after) != string(before) {
		t.Errorf("the database has changed, %v", err)
	}
	if out, err := patient("INSERT INTO t VALUES(2); SELECT count(*) FROM t;"); err != nil || out != "2\n" {
		t.Errorf("SQLite alone: %q, %v", out, err)
	}
	// And the other way round: what they hold.
	const lockf = `import fcntl, sys
f = open(sys.argv[1], "r+")
fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
print("held", flush=True)
sys.stdin.read()`
	holders := map[string][]string{
		"python": {"python3", "-c", lockf, m.Behind("py")},
		"sqlite": {"sh", "-c", `{ echo "BEGIN EXCLUSIVE; SELECT 'held';"; cat; } | sqlite3 -batch ` + database},
	}
	if err := os.WriteFile(m.Behind("py"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"python": m.Path("py"), "sqlite": m.Path("db")} {
		p := startProcess(t, nil, holders[name]...)
		p.Held(t)
		_, err := a.TryOpen(path, takeFlags)
		wantErr(t, name+": O_EXCL", err, unix.EEXIST)
		fd := a.Open(path, openFlags)
		wantErr(t, name+": flock", a.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
		wantErr(t, name+": other bytes", a.Fcntl(fd, unix.F_SETLK, wr(0, 5)), nil)
		if text, err := a.ReadAll(path); err != nil || !strings.Contains(text, "via=fcntl") {
			t.Errorf("%s: %q, %v", name, text, err)
		}
		p.Release(t)
		wantErr(t, name+": when it has ended", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
		wantErr(t, "close", a.Close(fd), nil)
	}
}

// With the keeper, where a service manager keeps its mount, the mirror's files are
// gone: the next one locks again what is still free, and what is not is lost.
func TestMirrorAfterTheKeepersDeath(t *testing.T) {
	dir := t.TempDir()
	m, s := backed(t, func(*Mount) string { return dir })
	s.await("READY=1", 1)
	a, outside := newClient(t), newClient(t)
	kept, lost := a.Open(m.Path("kept"), takeFlags), a.Open(m.Path("lost"), takeFlags)
	file := outside.Open(filepath.Join(dir, "lost"), unix.O_RDWR)
	waits := outside.StartFcntl(file, unix.F_SETLKW, wr(0, toEnd))
	waits.MustBlock(t)
	m.Signal(syscall.SIGKILL)
	wantErr(t, "the stranger's lock", waits.Wait(t), nil)
	s.again(m)
	s.await("READY=1", 2)
	eventually(t, answerLimit, func() bool { return a.Fsync(lost) == unix.EIO }, "who has lost a lock is told")
	wantErr(t, "fsync of what is kept", a.Fsync(kept), nil)
	file = outside.Open(filepath.Join(dir, "kept"), unix.O_RDWR)
	wantErr(t, "the stranger's lock of what is kept", outside.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
	_, err := a.TryOpen(m.Path("lost"), takeFlags)
	wantErr(t, "O_EXCL", err, unix.EEXIST)
	wantErr(t, "close", a.Close(kept), nil)
	wantErr(t, "close", a.Close(lost), nil)
}

// With few open files there are as many locks as can be, workers can be replaced
// beside them, and with fewer still lockfs does not start.
func TestFewOpenFiles(t *testing.T) {
	m := newMount(t)
	m.wrapper = []string{"prlimit", "--nofile=400:400"}
	m.mount([]string{"--backing", t.TempDir()})
	a := newClient(t)
	var fds []int
	for i := range 400 {
		fd, err := a.TryOpen(m.Path(fmt.Sprint("lock", i)), takeFlags)
		if err != nil {
			wantErr(t, "one lock too many", err, unix.ENOLCK)
			break
		}
		fds = append(fds, fd)
	}
	if len(fds) < 100 || len(fds) > 300 {
		t.Errorf("%d locks are held with 400 open files", len(fds))
	}
	for range 3 {
		killWorker(t, m)
		wantErr(t, "fsync", a.Fsync(fds[0]), nil)
	}
	wantErr(t, "close", a.Close(fds[0]), nil)
	wantErr(t, "close", a.Close(a.Open(m.Path("another"), takeFlags)), nil)
	out, err := command(nil, "prlimit", "--nofile=300:300", program(t, "lockfs"), "--state-dir", "none", "--backing", t.TempDir(), t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "ulimit -n") {
		t.Errorf("with 300 open files: %v, %q", err, out)
	}
}
