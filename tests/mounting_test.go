package tests

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// 1.10: which directories can be mounted on.

func TestAMissingMountPointIsMade(t *testing.T) {
	needRoot(t)
	parent := mountParent(t)
	again := &Mount{t: t, Dir: filepath.Join(parent, "not", "there yet"), parent: parent}
	t.Cleanup(func() { removeTree(t, parent) })
	t.Cleanup(again.Stop)
	again.start([]string{program(t, "lockfs"), "--backing", "none", "--state-dir", "none", again.Dir})
	again.awaitReady()
	again.watch = watchMount(again)
	c := newClient(t)
	c.Open(again.Path("lock"), takeFlags)
	wantListed(t, c, again, "lock")
}

func TestAMountPointMayBeNamedInAnyWay(t *testing.T) {
	needRoot(t)
	for _, name := range []string{"link", "link/", "m/", "./m", "m/../m", "with space", "new\nline", "relative"} {
		t.Run(name, func(t *testing.T) {
			parent := mountParent(t)
			t.Cleanup(func() { removeTree(t, parent) })
			real := filepath.Join(parent, "m")
			if strings.HasPrefix(name, "link") {
				if err := os.Symlink("m", filepath.Join(parent, "link")); err != nil {
					t.Fatal(err)
				}
			}
			if strings.ContainsAny(name, " \n") {
				real = filepath.Join(parent, name)
			}
			if err := os.Mkdir(real, 0o755); err != nil {
				t.Fatal(err)
			}
			m := &Mount{t: t, Dir: real, parent: parent}
			t.Cleanup(m.Stop)
			argv := []string{program(t, "lockfs"), "--backing", "none", "--state-dir", "none", parent + "/" + name}
			if name == "relative" {
				argv = []string{"sh", "-c", `cd "$1" && exec "$2" --backing none --state-dir none m`, "sh", parent, argv[0]}
			}
			m.start(argv)
			m.awaitReady()
			m.watch = watchMount(m)
			c := newClient(t)
			c.Close(c.Open(m.Path("lock"), takeFlags))
		})
	}
}

func TestASecondLockfsOnTheSameMountPointIsRefused(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	c.Open(m.Path("lock"), takeFlags)
	link := filepath.Join(m.parent, "link")
	if err := os.Symlink(m.Dir, link); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(link)
	for _, dir := range []string{m.Dir, m.Dir + "/", m.Dir + "/../m", link, link + "/"} {
		errs, exit := refusedMount(t, dir)
		if exit != exitMountPoint || strings.Count(errs, "\n") != 1 ||
			!strings.Contains(errs, filepath.Clean(dir)) && !strings.Contains(errs, m.Dir) {
			t.Errorf("%s: exit %d, want %d; it said %q", dir, exit, exitMountPoint, errs)
		}
	}
	wantListed(t, c, m, "lock")
}

// refusedMount runs a lockfs that must refuse to mount. If it mounts after
// all, it is stopped, so that the mount below comes to light again.
func refusedMount(t *testing.T, dir string) (stderr string, exit int) {
	t.Helper()
	p := startProcess(t, nil, program(t, "lockfs"), "--backing", "none", "--state-dir", "none", dir)
	select {
	case <-p.exited:
	case <-time.After(answerLimit):
		t.Errorf("%s: not refused", dir)
		p.Signal(syscall.SIGTERM)
		p.awaitExit(t)
	}
	<-p.stderr.ended
	return p.stderr.String(), p.cmd.ProcessState.ExitCode()
}

func TestADeadMountIsRefusedWithAdvice(t *testing.T) {
	m := mount(t)
	m.Kill()
	link := filepath.Join(m.parent, "link")
	if err := os.Symlink(m.Dir, link); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(link)
	for _, dir := range []string{m.Dir, link} {
		errs, exit := refusedMount(t, dir)
		if exit != exitMountPoint || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, "umount") {
			t.Errorf("%s: exit %d, want %d and advice to unmount; it said %q", dir, exit, exitMountPoint, errs)
		}
	}
}

// Ready means usable: a program started at once finds the mount.
func TestReadyMeansUsable(t *testing.T) {
	for range 5 {
		m := mount(t, "--log-level", "debug")
		if out, exit := sh(t, m, `exec 9>lock; flock -n 9 && ls`); out != "lock\n" || exit != 0 {
			t.Errorf("%q, exit %d", out, exit)
		}
		m.Stop()
	}
}
