package tests

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.7: "Every directory has a .lockfs/, not listed by ls, read with cat."

var versionFormat = regexp.MustCompile(`^program=(.+)\nstate=[1-9][0-9]*\n$`)

// wantVersion fails the test unless text is what .lockfs/version contains, of
// a program.
func wantVersion(t testing.TB, text, program string) {
	t.Helper()
	m := versionFormat.FindStringSubmatch(text)
	if m == nil || m[1] != program {
		t.Fatalf("version is %q, want it of program %s", text, program)
	}
}

// programVersion is what the daemon says of itself.
func programVersion(t testing.TB, binary string) string {
	t.Helper()
	out, _, exit := run(t, nil, binary, "--version")
	version, ok := strings.CutPrefix(strings.TrimSpace(out), "lockfs ")
	if !ok || exit != 0 {
		t.Fatalf("lockfs --version printed %q and ended with %d", out, exit)
	}
	return version
}

func TestTheControlDirectoryIsReadWithCat(t *testing.T) {
	version := programVersion(t, program(t, "lockfs"))
	for who, m := range map[string]*Mount{"root's mount": mount(t), "alice's mount": mountAs(t, aliceID, aliceID)} {
		t.Run(who, func(t *testing.T) {
			users := [][]clientOption{nil}
			if m.uid == 0 {
				users = append(users, []clientOption{asAlice()})
			}
			for _, user := range users {
				out, exit := sh(t, m, `cat .lockfs/version`, user...)
				wantVersion(t, out, version)
				if exit != 0 {
					t.Errorf("cat ended with %d", exit)
				}
				for script, want := range map[string]string{
					`ls -a; find .; echo *`: ".\n..\n.\n*\n",
					`ls -a .lockfs`:         ".\n..\nevents\nhealth\nlock\nlocks\nlocks.json\nmetrics\npolicy\nversion\nwaits.dot\n",
					`ls -a .lockfs/`:        ".\n..\nevents\nhealth\nlock\nlocks\nlocks.json\nmetrics\npolicy\nversion\nwaits.dot\n",
					`find .lockfs | sort`: ".lockfs\n.lockfs/events\n.lockfs/health\n.lockfs/lock\n.lockfs/locks\n.lockfs/locks.json\n.lockfs/metrics\n" +
						".lockfs/policy\n.lockfs/policy/grace\n.lockfs/policy/hold\n.lockfs/policy/lease\n.lockfs/policy/publish\n.lockfs/policy/read\n" +
						".lockfs/policy/reap\n.lockfs/version\n.lockfs/waits.dot\n",
					`cd .lockfs && pwd && cd .. && pwd`:             m.Dir + "/.lockfs\n" + m.Dir + "\n",
					`cat .lockfs/health`:                            "ok\n",
					`cd .lockfs && cat version | wc -l`:             "2\n",
					`. .lockfs/version; echo $program $state`:       version + " 3\n",
					`dd if=.lockfs/version bs=1 2>/dev/null`:        out,
					`dd if=.lockfs/version bs=7 skip=1 2>/dev/null`: out[7:],
					`tail -n 1 .lockfs/version`:                     "state=3\n",
					`stat -c '%F %a %u %g %s %h' .lockfs .lockfs/version`: fmt.Sprintf(
						"directory 555 %d %d 0 2\nregular empty file 444 %d %d 0 1\n", m.uid, m.gid, m.uid, m.gid),
				} {
					if got, exit := sh(t, m, script, user...); got != want || exit != 0 {
						t.Errorf("%s: %q, exit code %d, want %q", script, got, exit, want)
					}
				}
			}
		})
	}
}

func TestNothingInTheControlDirectoryCanBeChanged(t *testing.T) {
	m := mount(t)
	for _, user := range [][]clientOption{nil, {asAlice()}} {
		c := newClient(t, user...)
		for _, name := range []string{".lockfs/new", ".lockfs/version"} {
			for _, flags := range []int{openFlags, takeFlags, unix.O_WRONLY, unix.O_RDONLY | unix.O_TRUNC} {
				want := error(unix.EACCES)
				switch {
				case strings.HasSuffix(name, "new") && flags&unix.O_CREAT == 0:
					want = unix.ENOENT
				case strings.HasSuffix(name, "version") && flags&unix.O_EXCL != 0:
					want = unix.EEXIST
				}
				_, err := c.TryOpen(m.Path(name), flags)
				wantErr(t, fmt.Sprintf("open %s with flags %#x", name, flags), err, want)
			}
		}
		version := m.Path(".lockfs/version")
		wantErr(t, "unlink", c.Unlink(version), unix.EACCES)
		wantErr(t, "unlink of the directory", c.Unlink(m.Path(".lockfs")), unix.EISDIR)
		wantErr(t, "truncate", c.Truncate(version, 0), unix.EACCES)
		wantErr(t, "chmod", c.Chmod(version, 0o666), unix.EPERM)
		wantErr(t, "chown", c.Chown(version, aliceID, aliceID), unix.EPERM)
		wantErr(t, "access to write", c.Access(version, unix.W_OK), unix.EACCES)
		wantErr(t, "access to read", c.Access(version, unix.R_OK), nil)
		wantErr(t, "access to write into the directory", c.Access(m.Path(".lockfs"), unix.W_OK), unix.EACCES)
		wantErr(t, "access to look into the directory", c.Access(m.Path(".lockfs"), unix.R_OK|unix.X_OK), nil)
		for _, script := range []string{
			`mkdir .lockfs/new`, `ln -s x .lockfs/new`, `touch .lockfs/new`, `echo x >.lockfs/version`, `rm -f .lockfs/version`,
			`mkfifo .lockfs/new`, `ln .lockfs/version .lockfs/new`, `mv .lockfs/version .lockfs/new`, `rm -rf .lockfs`,
		} {
			if out, exit := sh(t, m, `exec 2>&1; LC_ALL=C `+script, user...); exit == 0 || !strings.Contains(strings.ToLower(out), "permission denied") {
				t.Errorf("%s: exit code %d, %q", script, exit, out)
			}
		}
		for _, script := range []string{`rmdir .lockfs`, `mv .lockfs x`, `mkdir .lockfs`, `touch .lockfs`} {
			if out, exit := sh(t, m, `exec 2>&1; `+script, user...); exit == 0 {
				t.Errorf("%s succeeded: %q", script, out)
			}
		}
		if got := c.Readdir(m.Path(".lockfs")); fmt.Sprint(got) != "[events health lock locks locks.json metrics policy version waits.dot]" {
			t.Errorf(".lockfs lists %q", got)
		}
	}
	wantNothingHeld(t, m)
}

func TestControlFilesAreNoLocks(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	fd := c.Open(m.Path(".lockfs/version"), unix.O_RDONLY)
	for _, how := range []int{unix.LOCK_SH, unix.LOCK_EX, unix.LOCK_EX | unix.LOCK_NB} {
		wantErr(t, "flock", c.Flock(fd, how), unix.EOPNOTSUPP)
	}
	for _, cmd := range []int{unix.F_SETLK, unix.F_SETLKW, unix.F_OFD_SETLK, unix.F_OFD_SETLKW} {
		wantErr(t, "fcntl", c.Fcntl(fd, cmd, rd(0, toEnd)), unix.EOPNOTSUPP)
	}
	wantNothingHeld(t, m)
	if out, exit := sh(t, m, `exec 2>&1; LC_ALL=C flock -n .lockfs/version true`); exit == 0 || !strings.Contains(out, "not supported") {
		t.Errorf("flock(1): exit code %d, %q", exit, out)
	}
	wantErr(t, "close", c.Close(fd), nil)
	wantNothingHeld(t, m)
}

func TestWhoMaySearchTheDirectoryMayLookIntoItsControlDirectory(t *testing.T) {
	m := mount(t)
	root, alice := newClient(t), newClient(t, asAlice())
	for mode, want := range map[uint32]error{0o755: nil, 0o711: nil, 0o744: unix.EACCES, 0o700: unix.EACCES} {
		wantErr(t, "chmod", root.Chmod(m.Dir, mode), nil)
		for who, c := range map[string]*Client{"root": root, "alice": alice} {
			want := want
			if who == "root" {
				want = nil
			}
			_, err := c.ReadAll(m.Path(".lockfs/version"))
			wantErr(t, fmt.Sprintf("%s reads, mode %o", who, mode), err, want)
			_, err = c.TryReaddir(m.Path(".lockfs"))
			wantErr(t, fmt.Sprintf("%s lists, mode %o", who, mode), err, want)
			_, err = c.Stat(m.Path(".lockfs/version"))
			wantErr(t, fmt.Sprintf("%s stats, mode %o", who, mode), err, want)
		}
	}
}

// 1.8: no open file is lost with the worker, of the control directory neither.
func TestControlFilesSurviveTheWorker(t *testing.T) {
	m := mount(t)
	version := programVersion(t, program(t, "lockfs"))
	c := newClient(t)
	fd := c.Open(m.Path(".lockfs/version"), unix.O_RDONLY)
	killWorker(t, m)
	text := ""
	for {
		part, err := c.Read(fd, 5)
		wantErr(t, "read", err, nil)
		if part == "" {
			break
		}
		text += part
		killWorker(t, m)
	}
	wantVersion(t, text, version)
	wantErr(t, "close", c.Close(fd), nil)

	// A shell that is in it, reads by lines, and has another file open.
	out, exit := sh(t, m, fmt.Sprintf(`
		cd .lockfs; exec 3<version 4<version
		read line <&4
		kill -9 %d
		echo $line; cat <&4; cat <&3; cat version; ls`, m.Worker()))
	if lines := strings.SplitAfter(out, "\n"); exit != 0 || len(lines) != 16 || strings.Join(lines[6:15], "") != "events\nhealth\nlock\nlocks\nlocks.json\nmetrics\npolicy\nversion\nwaits.dot\n" {
		t.Errorf("exit code %d, %q", exit, out)
	} else {
		for i := range 3 {
			wantVersion(t, lines[2*i]+lines[2*i+1], version)
		}
	}
	wantNothingHeld(t, m)
}
