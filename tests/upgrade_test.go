package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.8: "Killing its worker loses no hold, no queue place and no open file, and
// no client sees an error. Upgrading the binary is the same path, on purpose."

// installation is a daemon's program in a directory of its own, with others
// that can be put in its place.
type installation struct {
	t    testing.TB
	dir  string
	path string // of the program that is mounted
}

func newInstallation(t testing.TB) *installation {
	t.Helper()
	dir := t.TempDir()
	return &installation{t: t, dir: dir, path: filepath.Join(dir, "lockfs")}
}

// build builds the daemon as of a version, and returns where it is.
func (i *installation) build(version string) string {
	i.t.Helper()
	path := filepath.Join(i.dir, "lockfs-"+version)
	args := []string{"build", "-ldflags", "-X main.version=" + version, "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	if err := runQuietly("go", append(args, modulePath+"/cmd/lockfs")...); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// install puts a copy of a program in the place of the daemon's, as an
// installer does: by rename(2).
func (i *installation) install(program string) {
	i.t.Helper()
	// cp and mv: a descriptor of this process, open for writing, could be in
	// a child that it is just starting, and the program be "busy".
	if err := runQuietly("sh", "-c", `cp -p "$1" "$2.new" && mv -T "$2.new" "$2"`, "sh", program, i.path); err != nil {
		i.t.Fatal(err)
	}
}

const servesMarker = `msg="a new worker serves"`

// hangUp has the daemon replace its worker and waits until another one serves.
func hangUp(t testing.TB, m *Mount) {
	t.Helper()
	awaitAnother(t, m, func() { m.Signal(syscall.SIGHUP) })
}

// awaitAnother waits until another worker serves, when end has ended the one
// that does.
func awaitAnother(t testing.TB, m *Mount, end func()) {
	t.Helper()
	before := strings.Count(m.Stderr(), servesMarker)
	end()
	eventually(t, answerLimit, func() bool { return strings.Count(m.Stderr(), servesMarker) > before }, "another worker serves")
}

// killWorker ends the worker and waits until another one serves.
func killWorker(t testing.TB, m *Mount) {
	t.Helper()
	worker := m.Worker()
	if worker == 0 {
		t.Fatal("there is no worker")
	}
	awaitAnother(t, m, func() {
		if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	})
}

// wantServing fails the test unless the program of a version serves the mount.
func wantServing(t testing.TB, m *Mount, version string) {
	t.Helper()
	out, _ := sh(t, m, `cat .lockfs/version`)
	wantVersion(t, out, version)
}

// The program on disk is replaced by a newer one, and by the older one again,
// while programs take, release and wait: each counts what it saw itself.
func TestUpgradesUnderLoadAndNobodyNotices(t *testing.T) {
	i := newInstallation(t)
	versions := []string{"1.0.0", "2.0.0-rc.1"}
	programs := []string{i.build(versions[0]), i.build(versions[1])}
	i.install(programs[0])
	m := mountOf(t, i.path)
	m.Deadline(time.Duration(stressFactor(t))*stressLimit + mountTimeout)
	wantServing(t, m, versions[0])

	holder := newClient(t)
	holder.Open(m.Path("held"), takeFlags)
	crowd := startProgram(t, nil, program(t, "crowd"), "300", m.Path("held"))
	waiter := newClient(t)
	wait := waiter.StartFlock(waiter.Open(m.Path("held"), openFlags), unix.LOCK_EX)

	rounds := fmt.Sprint(stressed(8_000) * stressFactor(t))
	four := fourNames(m)
	alone := startProgram(t, nil, append([]string{program(t, "again"), "process", rounds}, four...)...)
	contend := startProgram(t, nil, program(t, "again"), "process", rounds, m.Path("lock"), m.Path("lock"), m.Path("lock"))

	upgrades := 0
	for busy := true; busy || upgrades < 10; upgrades++ {
		next := (upgrades + 1) % 2
		i.install(programs[next])
		hangUp(t, m)
		wantServing(t, m, versions[next])
		wantHolder(t, m.Path("held"), holder.Pid())
		select {
		case <-time.After(rand.N(100 * time.Millisecond)):
			busy = true
		case <-alone.done:
			busy = false
		}
	}
	t.Logf("%d upgrades", upgrades)
	if upgrades < 10 {
		t.Errorf("%d upgrades while programs took locks: too few to mean anything", upgrades)
	}

	for name, p := range map[string]*background{"four names": alone, "one name": contend} {
		p.await(t, time.Duration(stressFactor(t))*stressLimit)
		if p.exit != 0 {
			t.Fatalf("%s: again ended with %d: %s%s", name, p.exit, p.stdout.String(), p.stderr.String())
		}
		a := parseAgain(t, p.stdout.String())
		t.Logf("%s: %+v", name, a)
		if a.together > 0 || a.wrong > 0 || p == alone && a.refused > 0 {
			t.Errorf("%s: %+v, want nobody together, and nobody refused who was alone", name, a)
		}
	}
	wait.MustBlock(t)
	select {
	case <-crowd.done:
		t.Errorf("the crowd did not wait: %s%s", crowd.stdout.String(), crowd.stderr.String())
	default:
	}
	holder.Kill()
	wantErr(t, "the waiter", wait.Wait(t), nil)
	waiter.Kill()
	crowd.await(t, stressLimit)
	if got := crowd.stdout.String(); got != "300 ok\n" {
		t.Errorf("of 300 who waited: %s%s", got, crowd.stderr.String())
	}
}

// badPrograms are what may lie on disk and cannot take over, and what the log
// says of it.
var badPrograms = []struct {
	name string
	// make makes the program: a shell command with $1, a good one, and $2,
	// where to put it.
	make string
	logs []string
}{
	{"of another state", `printf '#!/bin/sh\necho "state version 2, want 3" >&2\nexit 8\n' >$2; chmod 755 $2`,
		[]string{"state version 2, want 3", "exit status 8"}},
	{"an internal error", `printf '#!/bin/sh\necho "out of luck" >&2\nexit 1\n' >$2; chmod 755 $2`,
		[]string{"out of luck", "exit status 1"}},
	{"one that does not know the flags", `cp /bin/ls $2`, []string{"exit status 2"}},
	{"success, and nothing done", `cp /bin/true $2`, []string{"exit status 0"}},
	{"one that crashes", `printf '#!/bin/sh\nkill -SEGV $$\n' >$2; chmod 755 $2`, []string{"segmentation fault"}},
	{"garbage", `head -c 10000 /dev/urandom >$2; chmod 755 $2`, []string{"exec format error"}},
	{"half of a program", `head -c 10000 $1 >$2; chmod 755 $2`, nil},
	{"an empty file", `: >$2; chmod 755 $2`, []string{"exec format error"}},
	{"not executable", `cp $1 $2; chmod 644 $2`, []string{"permission denied"}},
	{"a directory", `mkdir $2`, []string{"permission denied"}},
	{"nothing", ``, []string{"no such file or directory"}},
}

// The reason is logged, the old program goes on, and nobody notices.
func TestAProgramThatCannotTakeOver(t *testing.T) {
	i := newInstallation(t)
	old, good := i.build("1.0.0"), i.build("2.0.0")
	i.install(old)
	m := mountOf(t, i.path)
	holder := newClient(t)
	fd := holder.Open(m.Path("lock"), takeFlags)
	waiter := queueUp(t, m.Path("lock"), exclusively)
	reader := newClient(t)
	version := reader.Open(m.Path(".lockfs/version"), unix.O_RDONLY)

	const refusal = `msg="the program on disk cannot take over`
	for _, bad := range badPrograms {
		t.Run(bad.name, func(t *testing.T) {
			if err := os.RemoveAll(i.path); err != nil {
				t.Fatal(err)
			}
			if err := runQuietly("sh", "-c", bad.make, "sh", good, i.path); err != nil {
				t.Fatal(err)
			}
			before := len(m.Stderr())
			hangUp(t, m)
			wantServing(t, m, "1.0.0")
			log := m.Stderr()[before:]
			if n := strings.Count(log, refusal); n != 1 {
				t.Errorf("refused %d times, want once; the log:\n%s", n, log)
			}
			for _, want := range append(bad.logs, i.path) {
				if !strings.Contains(log, want) {
					t.Errorf("the log does not say %q:\n%s", want, log)
				}
			}
			// Until somebody hangs up again, it is not tried again.
			refusals := strings.Count(m.Stderr(), refusal)
			killWorker(t, m)
			if n := strings.Count(m.Stderr(), refusal); n != refusals {
				t.Error("it was tried again though nobody asked for it")
			}
			wantHolder(t, m.Path("lock"), holder.Pid())
			waiter.wait.MustBlock(t)
			text, err := reader.Pread(version, 100, 0)
			wantErr(t, "read", err, nil)
			wantVersion(t, text, "1.0.0")
		})
	}

	// A worker that dies by itself finds garbage on disk as one that is
	// replaced does.
	if err := os.RemoveAll(i.path); err != nil {
		t.Fatal(err)
	}
	i.install(good)
	hangUp(t, m)
	wantServing(t, m, "2.0.0")
	wantErr(t, "the waiter's place", holder.Close(fd), nil)
	wantErr(t, "the waiter", waiter.wait.Wait(t), nil)
	if err := os.Remove(i.path); err != nil {
		t.Fatal(err)
	}
	killWorker(t, m)
	wantHolder(t, m.Path("lock"), waiter.Pid())
}
