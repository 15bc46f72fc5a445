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

// What is held by its name where an agent mirrors: when agents die, and when they do not
// answer. For the rest see TestThroughAnAgent.

// mountByAgent mirrors names in a directory by an agent.
func mountByAgent(t testing.TB, flags ...string) *mirroredMount {
	t.Helper()
	dir := t.TempDir()
	return &mirroredMount{mount(t, append([]string{"--policy", holdByName + ",mirror=" + dir}, flags...)...), dir}
}

// Names are there without agents, and the next one knows them: whatever is made through it
// finds them held, and what is given back goes.
func TestNamesOutliveAgents(t *testing.T) {
	m := mountByAgent(t)
	a, stranger := newClient(t), newClient(t)
	for _, kill := range []func(){
		func() { killAgent(t, m.Mount, m.backing) },
		func() {
			syscall.Kill(agentOf(m.Mount, m.backing), syscall.SIGKILL)
			killWorker(t, m.Mount)
		},
	} {
		holdNames(t, a, m)
		kill()
		wantHeldNames(t, a, m.Mount, "file", "link", "dir")
		for _, name := range []string{"file", "link", "dir"} {
			wantErr(t, "a stranger's "+name, stranger.Name("mkdir", 0o755, m.Behind(name)), unix.EEXIST)
		}
		file := stranger.Open(m.Behind("file"), unix.O_RDWR)
		// Who tried to lock it would have it, if he was faster than the next agent.
		eventually(t, answerLimit, func() bool {
			return stranger.GetOFDLk(file, wr(0, toEnd)).Type == unix.F_WRLCK
		}, "the file is locked again")
		wantListed(t, a, m.Mount, "dir", "file", "link")
		if text, err := a.ReadAll(m.Path("file")); text != "text" || err != nil {
			t.Errorf("it reads %q, %v", text, err)
		}
		removeNames(t, a, m.Mount)
		eventually(t, answerLimit, func() bool { entries, err := os.ReadDir(m.backing); return err == nil && len(entries) == 0 }, "nothing is outside")
		wantErr(t, "close", stranger.Close(file), nil)
	}
	wantNothingHeld(t, m.Mount)
}

// Strangers and users of the mount are never inside together, whatever workers and agents
// die. (Another mount is not among them: it takes a file that nobody has locked, as when
// an agent has just died, for left behind.)
func TestNeverTwoInsideByNameWhenAgentsDie(t *testing.T) {
	m := mountByAgent(t)
	limit := hammerTime(t) / 3
	m.Deadline(limit + time.Minute)
	k := startKiller(t, m.Mount, 300*time.Millisecond)
	agents, stop, stopped := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(150 * time.Millisecond):
			}
			if pid := agentOf(m.Mount, m.backing); pid != 0 && isRunning(pid) && syscall.Kill(pid, syscall.SIGKILL) == nil {
				agents++
			}
		}
	}()
	out, err := command(nil, program(t, "namers"), "8", fmt.Sprint(limit.Seconds()), m.backing, m.Dir).CombinedOutput()
	close(stop)
	<-stopped
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%d workers and %d agents killed: %s", k.Stop(), agents, out)
	if strings.Contains(string(out)+" ", " 0 ") || agents < 5 {
		t.Errorf("it was too tame: %s", out)
	}
	wantNothingHeld(t, m.Mount)
	eventually(t, answerLimit, func() bool { entries, err := os.ReadDir(m.backing); return err == nil && len(entries) == 0 }, "nothing is outside")
}

// A directory that does not answer: nothing is granted that is not outside, who makes a
// name is told in some seconds, and what he has asked for in vain is not there later.
func TestNamesWhereADirectoryHangs(t *testing.T) {
	h := mountHanging(t)
	defer h.Answer()
	m := mount(t, "--space", "hung:hold=name,mirror="+h.Dir, "--space", "fine")
	m.Deadline(2 * time.Minute)
	x := &hungMount{h, m, "hung/", "fine/"}
	path := func(name string) string { return m.Path("hung/" + name) }
	a, b, c, other := newClient(t), newClient(t), newClient(t), newClient(t)
	wantErr(t, "mkdir", a.Name("mkdir", 0o755, path("dir")), nil)
	for _, name := range []string{"file", "early"} {
		wantErr(t, "close", a.Close(a.Open(path(name), takeFlags)), nil)
	}
	x.Hang()
	began := time.Now()
	errs := make(chan error, 2)
	go func() { errs <- a.Name("mkdir", 0o755, path("newdir")) }()
	go func() { _, err := b.TryOpen(path("newfile"), takeFlags); errs <- err }()
	x.goesOn(t, other)
	for range 2 {
		if err := <-errs; err != unix.ETIMEDOUT {
			t.Errorf("the making of a name: %v, want ETIMEDOUT", err)
		}
	}
	// The kernel carries them out one after the other, and each has looked first.
	if took := time.Since(began); took > 2*answerLimit {
		t.Errorf("it took %v", took)
	}
	// What is given back is free for who asks there when it is free outside, and not before.
	wantErr(t, "unlink", c.Unlink(path("early")), nil)
	wantErr(t, "mkdir", c.Name("mkdir", 0o755, path("early")), unix.ETIMEDOUT)
	killWorker(t, m)
	wantErr(t, "unlink", c.Unlink(path("file")), nil)
	x.goesOn(t, other)
	x.Answer()
	eventually(t, answerLimit, func() bool {
		entries, err := os.ReadDir(h.Dir)
		return err == nil && len(entries) == 1 && entries[0].Name() == "dir"
	}, "nothing else is left outside")
	eventually(t, answerLimit, func() bool { return c.Name("mkdir", 0o755, path("newdir")) == nil }, "it works again")
	wantErr(t, "close", c.Close(c.Open(path("early"), takeFlags)), nil)
	for _, name := range []string{"newdir", "early", "dir"} {
		if _, err := os.Lstat(filepath.Join(h.Dir, name)); err != nil {
			t.Error(err)
		}
	}
	wantErr(t, "rmdir", c.Name("rmdir", 0, path("newdir")), nil)
	wantErr(t, "rmdir", c.Name("rmdir", 0, path("dir")), nil)
	wantErr(t, "unlink", c.Unlink(path("early")), nil)
	eventually(t, answerLimit, func() bool {
		entries, err := os.ReadDir(h.Dir)
		return err == nil && len(entries) == 0
	}, "nothing is left outside")
}

// A name that is to be removed where an agent does not answer is removed, also when its
// directory is mirrored elsewhere by then, and another worker knows of it.
func TestNamesLeftWhereNothingIsMirroredAnyMore(t *testing.T) {
	dir := t.TempDir()
	m := &mirroredMount{mount(t, "--space", "s:hold=name,mirror="+dir), dir}
	a := newClient(t)
	wantErr(t, "close", a.Close(a.Open(m.Path("s/x"), takeFlags)), nil)
	agent, resume := agentOf(m.Mount, dir), stopAgent(t, m.Mount, dir)
	wantErr(t, "unlink", a.Unlink(m.Path("s/x")), nil)
	if out, exit := sh(t, m.Mount, `echo none >s/.lockfs/policy/mirror`); exit != 0 {
		t.Fatal(out)
	}
	wantErr(t, "close of another name, which is nowhere else", a.Close(a.Open(m.Path("s/y"), takeFlags)), nil)
	killWorker(t, m.Mount)
	wantBehind(t, m, "x")
	resume()
	eventually(t, answerLimit, func() bool { _, err := os.Lstat(m.Behind("x")); return os.IsNotExist(err) }, "it is removed")
	eventually(t, answerLimit, func() bool { return !isRunning(agent) }, "the agent has ended")
	wantErr(t, "unlink", a.Unlink(m.Path("s/y")), nil)
}

// agentKinds are the requests at whose every step workers die while an agent makes names:
// one for each thing that it does.
var agentKinds = map[string]bool{
	"MKDIR": true, "RMDIR": true, "RENAME that replaces nothing": true, "UNLINK that gives a name back": true, "CREATE with O_EXCL, granted": true, "WRITE to a name that is held": true,
}
