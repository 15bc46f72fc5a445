package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Mirrors that are processes of their own: in directories that may not answer, and
// those that policies name.

// mirroredIn returns the flags by which a directory is mirrored in: by the worker
// itself or, in the tests below throughAgent, by an agent.
func mirroredIn(t testing.TB, dir string) []string {
	if strings.HasPrefix(t.Name(), throughAgent+"/") {
		return []string{"--policy", "mirror=" + dir}
	}
	return []string{"--backing", dir}
}

const throughAgent = "TestThroughAnAgent"

// wantFreeOutside fails the test unless a stranger gets a lock that was given back: at once or,
// from an agent, which is told when the answer may have been given, soon.
func wantFreeOutside(t testing.TB, what string, stranger *Client, file, cmd int, lk unix.Flock_t) {
	t.Helper()
	if !strings.HasPrefix(t.Name(), throughAgent+"/") {
		wantErr(t, what, stranger.Fcntl(file, cmd, lk), nil)
		return
	}
	eventually(t, answerLimit, func() bool { return stranger.Fcntl(file, cmd, lk) == nil }, what)
}

// settles waits until something outside is as it should be, if an agent does it, which is
// told when the answer may have been given; else it is so at once, or not at all.
func settles(t testing.TB, so func() bool) {
	t.Helper()
	if strings.HasPrefix(t.Name(), throughAgent+"/") {
		eventually(t, answerLimit, so, "it is outside as it should be")
	}
}

// patience is what SQLite is told for the same.
func patience(t testing.TB) string {
	if strings.HasPrefix(t.Name(), throughAgent+"/") {
		return ".timeout 5000"
	}
	return ".timeout 0"
}

// What holds of a mirror holds of an agent's.
func TestThroughAnAgent(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"HoldsExcludeStrangers", TestHoldsExcludeStrangers},
		{"StrangersExcludeHolds", TestStrangersExcludeHolds},
		{"WaitsForStrangers", TestWaitsForStrangers},
		{"CloseOfAnotherFileGivesNothingBack", TestCloseOfAnotherFileGivesNothingBack},
		{"MirrorOutlivesWorkers", TestMirrorOutlivesWorkers},
		{"ManyMirroredNames", TestManyMirroredNames},
		{"LostMirror", TestLostMirror},
		{"NeverTwoInsideOverTwoMounts", TestNeverTwoInsideOverTwoMounts},
		{"StrangersAreSeen", TestStrangersAreSeen},
		{"MountOverLockedFiles", TestMountOverLockedFiles},
		{"MirroredDirectories", TestMirroredDirectories},
		{"ProgramsOutside", TestProgramsOutside},
		{"GetLkTellsWhichStranger", TestGetLkTellsWhichStranger},
		{"NothingIsHeldInRemovedDirectories", TestNothingIsHeldInRemovedDirectories},
		{"NextMountMirrorsByItsPolicy", TestNextMountMirrorsByItsPolicy},
		{"MirrorLostBeforeTheMount", TestMirrorLostBeforeTheMount},
		{"EveryStepOfAMirroredLock", TestEveryStepOfAMirroredLock},
		{"MirrorAfterTheKeepersDeath", TestMirrorAfterTheKeepersDeath},
		{"NamesAreOutside", TestNamesAreOutside},
		{"BodiesAreWrittenThrough", TestBodiesAreWrittenThrough},
		{"ForeignNamesAreHeld", TestForeignNamesAreHeld},
		{"OrdinaryFilesAreLockedOutside", TestOrdinaryFilesAreLockedOutside},
		{"RenameOntoStrangers", TestRenameOntoStrangers},
		{"NamesOutsideAreKept", TestNamesOutsideAreKept},
		{"NamesLeftBehind", TestNamesLeftBehind},
		{"NamesOfAMountThatKeepsNothing", TestNamesOfAMountThatKeepsNothing},
		{"NamesThatAreTakenAway", TestNamesThatAreTakenAway},
		{"NamesOutsideArePrivate", TestNamesOutsideArePrivate},
		{"DirectoriesAreOutside", TestDirectoriesAreOutside},
		{"NamesOutsideInGrace", TestNamesOutsideInGrace},
		{"NamesOutsideWithoutAKeeper", TestNamesOutsideWithoutAKeeper},
		{"NeverTwoInsideByName", TestNeverTwoInsideByName},
		{"EveryStepOfANameOutside", TestEveryStepOfANameOutside},
	} {
		t.Run(c.name, c.test)
	}
}

// agentOf returns the last agent that was started for a directory, 0 if none was.
func agentOf(m *Mount, place string) int {
	pid := 0
	for line := range strings.Lines(m.Stderr()) {
		if n, ok := logged(line, `msg="a mirror's process started" agent=`); ok && strings.HasSuffix(strings.TrimSpace(line), "mirror="+place) {
			pid = n
		}
	}
	return pid
}

// killAgent kills the agent of a directory, and waits until there is another.
func killAgent(t testing.TB, m *Mount, place string) {
	t.Helper()
	pid := agentOf(m, place)
	if pid == 0 || syscall.Kill(pid, syscall.SIGKILL) != nil {
		t.Fatalf("no agent of %s to be killed: %d", place, pid)
	}
	eventually(t, answerLimit, func() bool { return agentOf(m, place) != pid }, "there is another agent")
}

// stopAgent stops the agent of a directory, until resume is called or the test has ended.
func stopAgent(t testing.TB, m *Mount, place string) (resume func()) {
	t.Helper()
	agent := agentOf(m, place)
	if err := syscall.Kill(agent, syscall.SIGSTOP); err != nil {
		t.Fatalf("the agent %d of %s: %v", agent, place, err)
	}
	resume = sync.OnceFunc(func() { syscall.Kill(agent, syscall.SIGCONT) })
	t.Cleanup(resume)
	eventually(t, answerLimit, func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", agent))
		for _, thread := range threads {
			text, _ := os.ReadFile(thread)
			if _, behind, _ := strings.Cut(string(text), ") "); !strings.HasPrefix(behind, "T") {
				return false
			}
		}
		return err == nil
	}, "the agent has stopped")
	return resume
}

// The agent of a directory goes on, with its locks, when workers die and programs are
// replaced; and ends with the mount.
func TestAgentsOutliveWorkers(t *testing.T) {
	dir := t.TempDir()
	m := mount(t, "--space", "space:mirror="+dir)
	a, stranger := newClient(t), newClient(t)
	fd := a.Open(m.Path("space/x"), takeFlags)
	file := stranger.Open(filepath.Join(dir, "x"), unix.O_RDWR)
	blocked := stranger.StartFcntl(file, unix.F_OFD_SETLKW, wr(0, toEnd))
	agent := agentOf(m, dir)
	for range 3 {
		killWorker(t, m)
		replaced := strings.Count(m.Stderr(), "the program was replaced")
		hangUp(t, m)
		eventually(t, answerLimit, func() bool { return strings.Count(m.Stderr(), "the program was replaced") > replaced }, "the keeper is replaced")
	}
	blocked.MustBlock(t)
	if now := agentOf(m, dir); now != agent || agent == 0 {
		t.Errorf("there was the agent %d, and now %d", agent, now)
	}
	wantErr(t, "close", a.Close(fd), nil)
	wantErr(t, "the stranger", blocked.Wait(t), nil)
	m.Stop()
	eventually(t, answerLimit, func() bool { return !isRunning(agent) }, "the agent has ended")
}

// isRunning reports whether a process is there, and not only to be reaped.
func isRunning(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// An agent that is killed is replaced by one that locks what is still free. What a
// stranger has by then is lost, and told.
func TestKilledAgents(t *testing.T) {
	dir := t.TempDir()
	m := mount(t, "--space", "space:mirror="+dir)
	a, b, stranger := newClient(t), newClient(t), newClient(t)
	kept, lost := a.Open(m.Path("space/kept"), takeFlags), a.Open(m.Path("space/lost"), takeFlags)
	waits := b.StartFlock(b.Open(m.Path("space/kept"), openFlags), unix.LOCK_EX)
	waits.MustBlock(t)
	keptOutside := stranger.Open(filepath.Join(dir, "kept"), unix.O_RDWR)
	file := stranger.Open(filepath.Join(dir, "lost"), unix.O_RDWR)
	blocked := stranger.StartFcntl(file, unix.F_OFD_SETLKW, wr(0, toEnd))
	for i, kill := range []func(){
		func() { killAgent(t, m, dir) },
		func() {
			syscall.Kill(agentOf(m, dir), syscall.SIGKILL)
			killWorker(t, m)
		},
	} {
		kill()
		if i == 0 {
			wantErr(t, "the stranger", blocked.Wait(t), nil)
			eventually(t, answerLimit, func() bool { return a.Fsync(lost) == unix.EIO }, "the holder is told that it is lost")
		}
		wantErr(t, "the holder", a.Fsync(kept), nil)
		// It only looks: a try would have the lock for a moment in which the agent may want it.
		eventually(t, answerLimit, func() bool {
			return stranger.GetOFDLk(keptOutside, wr(0, toEnd)).Type != unix.F_UNLCK
		}, "it is locked again")
		waits.MustBlock(t)
	}
	wantErr(t, "close", a.Close(kept), nil)
	wantErr(t, "the waiter", waits.Wait(t), nil)
	wantErr(t, "the stranger, while it is held", stranger.Fcntl(keptOutside, unix.F_OFD_SETLK, wr(0, toEnd)), unix.EAGAIN)
	if _, err := a.TryOpen(m.Path("space/lost"), takeFlags); err != unix.EEXIST {
		t.Errorf("what the stranger has can be taken: %v", err)
	}
}

// Whoever holds and is not told that he has lost, holds: strangers try all the time,
// while agents and workers are killed.
func TestNobodyBelievesWhatIsLost(t *testing.T) {
	dir := t.TempDir()
	m := mount(t, "--space", "space:mirror="+dir)
	limit := hammerTime(t) / 3
	m.Deadline(limit + time.Minute)
	a, stranger := newClient(t), newClient(t)
	path, behind := m.Path("space/x"), filepath.Join(dir, "x")
	file := stranger.Open(behind, unix.O_RDWR|unix.O_CREAT)
	k := startKiller(t, m, 200*time.Millisecond)
	taken, lost, agents := 0, 0, 0
	for end := time.Now().Add(limit); time.Now().Before(end); {
		fd, err := a.TryOpen(path, takeFlags)
		if err != nil {
			t.Fatalf("nobody else holds it, and it is %v", err)
		}
		taken++
		for range 20 {
			if stranger.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)) == nil {
				lost++
				eventually(t, answerLimit, func() bool { return a.Fsync(fd) == unix.EIO }, "the holder is told that a stranger has it")
				wantErr(t, "unlock", stranger.Fcntl(file, unix.F_OFD_SETLK, un(0, toEnd)), nil)
				break
			}
			if taken%5 == 0 {
				if pid := agentOf(m, dir); isRunning(pid) && syscall.Kill(pid, syscall.SIGKILL) == nil {
					agents++
				}
			}
		}
		wantErr(t, "close", a.Close(fd), nil)
		eventually(t, answerLimit, func() bool { return stranger.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)) == nil }, "it is free")
		wantErr(t, "unlock", stranger.Fcntl(file, unix.F_OFD_SETLK, un(0, toEnd)), nil)
	}
	t.Logf("taken %d times, lost %d times, %d agents and %d workers killed", taken, lost, agents, k.Stop())
	if agents < 5 || taken < 20 {
		t.Error("it was too tame")
	}
}

// Policies say where, and what is below a directory is there too.
func TestMirrorByPolicy(t *testing.T) {
	root, other := t.TempDir(), t.TempDir()
	m := mount(t, "--backing", root, "--space", "inherits", "--space", "none:mirror=none", "-o", "space=other:mirror="+other)
	a := newClient(t)
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("other/deep")), nil)
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("none/deep")), nil)
	places := map[string]string{"x": root, "inherits/x": root, "none/x": "", "none/deep/x": "", "other/x": other + "/x", "other/deep/x": other + "/deep/x"}
	check := func() {
		t.Helper()
		for name, at := range places {
			if at == root {
				at = filepath.Join(root, name)
			}
			fd := a.Open(m.Path(name), takeFlags)
			stranger := newClient(t)
			for _, file := range []string{filepath.Join(root, name), other + "/x", other + "/deep/x"} {
				outside, err := stranger.TryOpen(file, unix.O_RDWR)
				if err != nil && file == at {
					t.Fatalf("%s is not at %s: %v", name, file, err)
				} else if err != nil {
					continue
				}
				if file == at {
					wantErr(t, name+": a stranger's lock on "+file, stranger.Fcntl(outside, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
					continue
				}
				eventually(t, answerLimit, func() bool { return stranger.Fcntl(outside, unix.F_SETLK, wr(0, toEnd)) == nil },
					name+": a stranger's lock on "+file)
			}
			stranger.Kill()
			wantErr(t, "close", a.Close(fd), nil)
		}
	}
	check()
	killWorker(t, m)
	check()
	out, exit := sh(t, m, `cat .lockfs/policy/mirror inherits/.lockfs/policy/mirror none/.lockfs/policy/mirror other/.lockfs/policy/mirror other/deep/.lockfs/policy/mirror
		echo `+other+` >inherits/.lockfs/policy/mirror &&
		rmdir other/deep && echo none >other/.lockfs/policy/mirror && mkdir -m 777 other/deep && cat inherits/.lockfs/policy/mirror`)
	if want := fmt.Sprintf("inherit\ninherit\nnone\n%s\ninherit\n%s\n", other, other); out != want || exit != 0 {
		t.Errorf("printed %q (exit %d), want %q", out, exit, want)
	}
	places = map[string]string{"x": root, "inherits/x": other + "/x", "none/x": "", "other/x": "", "other/deep/x": ""}
	check()
	killWorker(t, m)
	check()
	a.Kill()
	m.Restart(m.Quit) // the command line says again what it says
	a = newClient(t)
	places = map[string]string{"x": root, "inherits/x": root, "none/x": "", "other/x": other + "/x"}
	check()
}

// What is set stays over a clean stop and start, for directories that the command line
// does not name. A directory that is gone by then grants nothing.
func TestMirrorAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "locks")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	m := mount(t)
	a := newClient(t)
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("d")), nil)
	if out, exit := sh(t, m, `echo `+dir+` >d/.lockfs/policy/mirror`); exit != 0 {
		t.Fatal(out)
	}
	a.Kill()
	m.Restart(m.Quit)
	a = newClient(t)
	wantErr(t, "close", a.Close(a.Open(m.Path("d/x"), takeFlags)), nil)
	if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
		t.Errorf("it was not mirrored: %v", err)
	}
	a.Kill()
	m.Restart(func() {
		m.Quit()
		m.AwaitExit(t)
		if err := os.Rename(dir, dir+".gone"); err != nil {
			t.Fatal(err)
		}
	})
	a = newClient(t)
	_, err := a.TryOpen(m.Path("d/x"), takeFlags)
	wantErr(t, "a lock without its mirror", err, unix.ENOENT)
	wantErr(t, "another", a.Close(a.Open(m.Path("y"), takeFlags)), nil)
	eventually(t, answerLimit, func() bool {
		out, _ := sh(t, m, `cat .lockfs/health`)
		return strings.Contains(out, "the mirror of "+dir+" cannot be used: open "+dir+": no such file or directory")
	}, "health tells")
	if err := os.Rename(dir+".gone", dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, answerLimit, func() bool {
		fd, err := a.TryOpen(m.Path("d/x"), takeFlags)
		return err == nil && a.Close(fd) == nil
	}, "it is granted when the directory is there again")
	eventually(t, answerLimit, func() bool {
		out, _ := sh(t, m, `cat .lockfs/health`)
		return out == "ok\n"
	}, "health is ok")
}

// What cannot be is refused, with the errno that says why, and nothing is changed.
func TestMirrorRefused(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	m := mount(t, "--allow-other", "--space", "held:mirror="+dir, "--space", "plain")
	a, alice := newClient(t), newClient(t, asAlice())
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	set := func(c *Client, space, value string) error {
		fd, err := c.TryOpen(m.Path(space+"/.lockfs/policy/mirror"), unix.O_WRONLY)
		if err == nil {
			err = c.Write(fd, value+"\n")
			c.Close(fd)
		}
		return err
	}
	shows := func(space, want string) {
		t.Helper()
		if got, err := a.ReadAll(m.Path(space + "/.lockfs/policy/mirror")); got != want+"\n" || err != nil {
			t.Errorf("%s is mirrored in %q, %v, want %s", space, got, err, want)
		}
	}
	for value, want := range map[string]error{
		"": unix.EINVAL, "relative": unix.EINVAL, "direct:": unix.EINVAL, "direct:x": unix.EINVAL, "/x\x00y": unix.EINVAL,
		dir + "/missing": unix.ENOENT, "direct:" + dir + "/missing": unix.ENOENT, file: unix.ENOTDIR,
		m.Dir: unix.ELOOP, m.Path("plain"): unix.ELOOP, m.Path("plain/.lockfs"): unix.ELOOP, "direct:" + m.Path("held"): unix.ELOOP,
		m.Path("missing"): unix.ENOENT,
	} {
		wantErr(t, fmt.Sprintf("mirror=%q", value), set(a, "plain", value), want)
		shows("plain", "inherit")
	}
	wantErr(t, "mkdir", alice.Name("mkdir", 0o777, m.Path("hers")), nil)
	for value, want := range map[string]error{other: unix.EPERM, "direct:" + other: unix.EPERM, "none": nil, "inherit": nil} {
		wantErr(t, "alice's mirror="+value, set(alice, "hers", value), want)
	}
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("held/below")), nil)
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("plain/below")), nil)
	for _, value := range []string{other, "none", "inherit", "direct:" + dir} {
		for _, name := range []string{"held/x", "held/below/x"} {
			fd := a.Open(m.Path(name), takeFlags)
			wantErr(t, name+" is held: mirror="+value, set(a, "held", value), unix.EBUSY)
			wantErr(t, "close", a.Close(fd), nil)
		}
		shows("held", dir)
	}
	// To where it would have another place, a directory does not go.
	fd := a.Open(m.Path("plain/below/x"), takeFlags)
	wantErr(t, "rename", a.Name("rename", 0, m.Path("plain/below"), m.Path("held/other")), unix.EBUSY)
	wantErr(t, "close", a.Close(fd), nil)
	wantErr(t, "rename", a.Name("rename", 0, m.Path("plain/below"), m.Path("held/other")), nil)
	fd = a.Open(m.Path("held/other/x"), takeFlags)
	if _, err := os.Stat(filepath.Join(dir, "other/x")); err != nil {
		t.Errorf("what was moved is not mirrored where it is now: %v", err)
	}
	wantErr(t, "close", a.Close(fd), nil)
	// Directories that mkdir has made are held, too, and are there by their names.
	wantErr(t, "mirror=none", set(a, "held", "none"), unix.EBUSY)
	for _, name := range []string{"held/below", "held/other"} {
		wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path(name)), nil)
	}
	for _, value := range []string{other, "none", "inherit"} {
		wantErr(t, "mirror="+value, set(a, "held", value), nil)
		shows("held", value)
	}
	// A directory that is removed names nothing any more.
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("gone")), nil)
	third := t.TempDir()
	wantErr(t, "mirror="+third, set(a, "gone", third), nil)
	wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("gone")), nil)
	eventually(t, answerLimit, func() bool { return !isRunning(agentOf(m, third)) }, "its agent has ended")
	// What no policy names any more has no process.
	eventually(t, answerLimit, func() bool { return !isRunning(agentOf(m, dir)) && !isRunning(agentOf(m, other)) }, "the agents have ended")
}

// A directory that cannot be used at the beginning is no mount.
func TestMirrorRefusedAtMount(t *testing.T) {
	needRoot(t)
	dir := mountParent(t)
	defer os.RemoveAll(dir)
	point := filepath.Join(dir, "m")
	for _, at := range []string{filepath.Join(dir, "missing"), point, "direct:" + point} {
		if err := os.MkdirAll(point, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, flags := range [][]string{{"--policy", "mirror=" + at}, {"--space", "s:mirror=" + at}, {"-o", "mirror=" + at}} {
			_, stderr, exit := run(t, nil, slices.Concat([]string{program(t, "lockfs"), "--state-dir", "none"}, flags, []string{point})...)
			if exit != 10 || !strings.Contains(stderr, "mirror=") {
				t.Errorf("%v: exit code %d, want 10: %s", flags, exit, stderr)
			}
		}
	}
}

// direct:DIR is locks on the files that are there, and on no others.
func TestDirectMirror(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "disk.img"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mount(t, "-o", "space=disks:mirror=direct:"+dir, "--space", "open:hold=open,mirror=direct:"+dir)
	a, b, stranger := newClient(t), newClient(t), newClient(t)
	for _, way := range waysToHold {
		if !strings.Contains(way.name, "shared") && !strings.Contains(way.name, "one byte") {
			fd := way.take(t, a, m.Path("disks/disk.img"))
			file := stranger.Open(filepath.Join(dir, "disk.img"), unix.O_RDWR)
			wantErr(t, way.name+": the stranger", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
			wantErr(t, "close", a.Close(fd), nil)
			eventually(t, answerLimit, func() bool { return stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)) == nil }, "it is free")
			other := b.Open(m.Path("disks/disk.img"), openFlags)
			wantErr(t, "flock of what the stranger has", b.Flock(other, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
			wantErr(t, "close", b.Close(other), nil)
			wantErr(t, "close", stranger.Close(file), nil)
		}
	}
	// What is missing is missing for every way of taking it.
	_, err := a.TryOpen(m.Path("disks/missing"), takeFlags)
	wantErr(t, "O_EXCL", err, unix.ENOENT)
	fd := a.Open(m.Path("disks/missing"), openFlags)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX), unix.ENOENT)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), unix.ENOENT)
	wantErr(t, "fcntl", a.Fcntl(fd, unix.F_SETLKW, wr(0, 10)), unix.ENOENT)
	wantErr(t, "OFD", a.Fcntl(fd, unix.F_OFD_SETLK, rd(0, 10)), unix.ENOENT)
	wantErr(t, "close", a.Close(fd), nil)
	wantErr(t, "symlink", a.Name("symlink", 0, "text", m.Path("disks/missing")), unix.ENOENT)
	_, err = a.TryOpen(m.Path("open/missing"), openFlags)
	wantErr(t, "open, where it holds", err, unix.ENOENT)
	// A directory is held by its name, and its locks are below.
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("disks/sub")), nil)
	_, err = a.TryOpen(m.Path("disks/sub/disk.img"), takeFlags)
	wantErr(t, "O_EXCL in a directory that is missing", err, unix.ENOENT)
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub/disk.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "close", a.Close(a.Open(m.Path("disks/sub/disk.img"), takeFlags)), nil)
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Errorf("something was made: %v, %v", files, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "disk.img")); string(text) != "data" || err != nil {
		t.Errorf("the image is %q now, %v", text, err)
	}
}

// A directory that is renamed while locks in it are taken has its locks where it is
// afterwards: by whatever name it was when the agent was asked.
func TestRenamedWhileItIsMirrored(t *testing.T) {
	dir := t.TempDir()
	m := mount(t, "--policy", "mirror="+dir)
	a, b, stranger := newClient(t), newClient(t), newClient(t)
	wantErr(t, "mkdir", a.Name("mkdir", 0o777, m.Path("d0")), nil)
	for round := range 40 {
		from, to := fmt.Sprint("d", round), fmt.Sprint("d", round+1)
		fd := a.Open(m.Path(from+"/x"), openFlags)
		take := a.StartFlock(fd, unix.LOCK_EX)
		at := to
		switch err := b.Name("rename", 0, m.Path(from), m.Path(to)); err {
		case nil:
		case unix.EBUSY:
			at = from
		default:
			t.Fatal(err)
		}
		wantErr(t, "flock", take.Wait(t), nil)
		file := stranger.Open(filepath.Join(dir, at, "x"), unix.O_RDWR)
		wantErr(t, "a stranger's lock where it is now", stranger.Fcntl(file, unix.F_OFD_SETLK, wr(0, toEnd)), unix.EAGAIN)
		wantErr(t, "close", stranger.Close(file), nil)
		wantErr(t, "unlock", a.Flock(fd, unix.LOCK_UN), nil)
		wantErr(t, "close", a.Close(fd), nil)
		if at == from {
			wantErr(t, "rename", b.Name("rename", 0, m.Path(from), m.Path(to)), nil)
		}
	}
}

// An ordinary user's mount has agents of his own, who names what he likes.
func TestMirrorOfAnOrdinaryUser(t *testing.T) {
	parent := mountParent(t)
	defer os.RemoveAll(parent)
	dirs := []string{filepath.Join(parent, "one"), filepath.Join(parent, "two")}
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, aliceID, aliceID); err != nil {
			t.Fatal(err)
		}
	}
	m := mountAs(t, aliceID, aliceID, "--policy", "mirror="+dirs[0])
	a, stranger := newClient(t, asAlice()), newClient(t, asAlice())
	for _, dir := range dirs {
		fd := a.Open(m.Path("x"), takeFlags)
		file := stranger.Open(filepath.Join(dir, "x"), unix.O_RDWR)
		wantErr(t, "a stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
		wantErr(t, "close", a.Close(fd), nil)
		eventually(t, answerLimit, func() bool { return stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)) == nil }, "it is free")
		if out, exit := sh(t, m, `echo `+dirs[1]+` >.lockfs/policy/mirror`, asAlice()); exit != 0 {
			t.Fatal(out)
		}
	}
	root := filepath.Join(parent, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, exit := sh(t, m, `LC_ALL=C /bin/echo `+root+` 2>&1 >.lockfs/policy/mirror`, asAlice()); exit == 0 || !strings.Contains(out, "Permission denied") {
		t.Errorf("what is not hers: %q, exit code %d", out, exit)
	}
}
