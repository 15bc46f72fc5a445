package tests

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// 1.10: "Exit codes are numbered and documented." They are a contract.
const (
	exitOK         = 0
	exitUsage      = 2
	exitMountPoint = 3
	exitPermission = 4
	exitNoFUSE     = 5
	exitHelper     = 6
	exitTimeouts   = 7
	exitStateDir   = 9
	exitBacking    = 10
)

func TestVersion(t *testing.T) {
	out, errs, exit := run(t, nil, program(t, "lockfs"), "--version")
	if !regexp.MustCompile(`^lockfs \S+\n$`).MatchString(out) || errs != "" || exit != exitOK {
		t.Errorf("--version: %q, %q, exit %d", out, errs, exit)
	}
}

func TestHelp(t *testing.T) {
	out, errs, exit := run(t, nil, program(t, "lockfs"), "--help")
	if errs != "" || exit != exitOK {
		t.Errorf("--help: standard error %q, exit %d", errs, exit)
	}
	for _, word := range []string{"lockfs [flags] MOUNTPOINT", "--backing", "--policy", "--space", "--options", "--allow-other", "--log-level", "--version", "--help"} {
		if !strings.Contains(out, word) {
			t.Errorf("--help does not tell of %q:\n%s", word, out)
		}
	}
}

// refusal is a command line, in an environment, that must fail: with a code
// and one line that says what went wrong, with what.
type refusal struct {
	name string
	// prepare is a shell script that runs as root before lockfs, in a mount
	// namespace of its own. $DIR is a fresh directory.
	prepare string
	user    clientOption // nil: root
	env     []string
	args    []string // $DIR is replaced
	codes   []int    // which the contract allows
	mention []string // what the line names; $DIR is replaced
}

// hide makes a script that puts something unusable in the place of a file, as
// seen in this mount namespace.
func hide(files ...string) string {
	var b strings.Builder
	for _, f := range files {
		b.WriteString(`for f in ` + f + `; do if [ -e $f ]; then mount --bind /dev/null $f; fi; done; `)
	}
	return b.String()
}

// limit makes a script that shows a request timeout, as seen in this mount
// namespace: setting the real one would end the mounts of others.
func limit(knob string) string {
	return `mount -t tmpfs none /proc/sys/fs && mkdir /proc/sys/fs/fuse && cd /proc/sys/fs/fuse &&
		echo 0 >default_request_timeout && echo 0 >max_request_timeout && echo 60 >` + knob
}

const noDevice = `
	mkdir $DIR/dev && mount -t tmpfs none $DIR/dev && cp -a /dev/null /dev/zero /dev/urandom $DIR/dev &&
	mount --move $DIR/dev /dev`

const deviceOfNothing = `
	mount -t tmpfs none $DIR && mknod $DIR/d c 10 250 && mount --bind $DIR/d /dev/fuse`

var (
	aliceIs = asAlice()

	refusals = []refusal{
		{name: "no mount point", codes: []int{exitUsage}, mention: []string{"mount point"}},
		{name: "two mount points", args: []string{"$DIR/a", "$DIR/b"}, codes: []int{exitUsage}},
		{name: "an empty mount point", args: []string{""}, codes: []int{exitUsage}},
		{name: "an unknown flag", args: []string{"--frobnicate", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"frobnicate"}},
		{name: "a bad level", args: []string{"--log-level", "loud", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"log-level", "loud"}},
		{name: "an unknown policy", args: []string{"--policy", "holds=name", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"--policy", "holds", "hold, read, reap"}},
		{name: "a bad policy", args: []string{"--policy", "lease=soon", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"--policy", "lease=soon", "1m30s"}},
		{name: "a bad lockspace", args: []string{"--space", "a/b:hold=name", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"--space", "a/b"}},
		{name: "a lockspace of a bad policy", args: []string{"--space", "a:hold=no", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"--space", "hold=no", "handle"}},
		{name: "a lockspace twice", args: []string{"--space", "a", "-o", "space=a:hold=name", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"a", "twice"}},
		{name: "an unknown option", args: []string{"-o", "rw,frobnicate", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"-o", "frobnicate"}},
		{name: "a read-only mount", args: []string{"-o", "ro", "$DIR/m"}, codes: []int{exitUsage}, mention: []string{"ro"}},

		{name: "a file", prepare: `touch $DIR/m`, args: []string{"$DIR/m"},
			codes: []int{exitMountPoint}, mention: []string{"$DIR/m", "directory"}},
		{name: "below a file", prepare: `touch $DIR/m`, args: []string{"$DIR/m/below"},
			codes: []int{exitMountPoint}, mention: []string{"$DIR/m/below"}},
		{name: "cannot be made", prepare: `chmod 755 $DIR`, user: aliceIs, args: []string{"$DIR/m"},
			codes: []int{exitMountPoint, exitPermission}, mention: []string{"$DIR/m"}},
		{name: "a read-only filesystem", prepare: `mount -t tmpfs -o ro none $DIR`, args: []string{"$DIR/m"},
			codes: []int{exitMountPoint}, mention: []string{"$DIR/m", "read-only"}},

		{name: "another's directory", prepare: `mkdir $DIR/m; chmod 755 $DIR/m`, user: aliceIs, args: []string{"$DIR/m"},
			codes: []int{exitPermission}, mention: []string{"$DIR/m"}},
		{name: "a directory nobody may enter", prepare: `mkdir -p $DIR/p/m; chmod 700 $DIR/p`, user: aliceIs, args: []string{"$DIR/p/m"},
			codes: []int{exitPermission}, mention: []string{"$DIR/p/m"}},

		{name: "no /dev/fuse", prepare: noDevice, args: []string{"$DIR/m"},
			codes: []int{exitNoFUSE}, mention: []string{"/dev/fuse"}},
		{name: "a /dev/fuse without a driver", prepare: deviceOfNothing, args: []string{"$DIR/m"},
			codes: []int{exitNoFUSE}, mention: []string{"/dev/fuse"}},
		{name: "no /dev/fuse for a user", prepare: `mkdir $DIR/m; chown 1 $DIR/m; ` + noDevice, user: aliceIs, args: []string{"$DIR/m"},
			codes: []int{exitNoFUSE}, mention: []string{"/dev/fuse"}},

		{name: "no fusermount3", prepare: `mkdir $DIR/m; chown 1 $DIR/m; ` + hide("/usr/bin/fusermount*", "/bin/fusermount*"),
			user: aliceIs, args: []string{"$DIR/m"},
			codes: []int{exitHelper}, mention: []string{"fusermount3"}},
		{name: "no fusermount3 in the PATH", prepare: `mkdir $DIR/m; chown 1 $DIR/m; ` + hide("/usr/bin/fusermount*", "/bin/fusermount*"),
			user: aliceIs, env: []string{"PATH=/nonexistent"}, args: []string{"$DIR/m"},
			codes: []int{exitHelper}, mention: []string{"fusermount3"}},
		{name: "fusermount3 refuses --allow-other", prepare: `mkdir $DIR/m; chown 1 $DIR/m; ` + hide("/etc/fuse.conf"),
			user: aliceIs, args: []string{"--allow-other", "$DIR/m"},
			codes: []int{exitHelper}, mention: []string{"allow"}},

		{name: "a default request timeout", prepare: limit("default_request_timeout"), args: []string{"$DIR/m"},
			codes: []int{exitTimeouts}, mention: []string{"fs.fuse.default_request_timeout"}},
		{name: "a maximal request timeout", prepare: limit("max_request_timeout"), args: []string{"$DIR/m"},
			codes: []int{exitTimeouts}, mention: []string{"fs.fuse.max_request_timeout"}},
		{name: "a state directory that is a file", prepare: `mkdir $DIR/m; touch $DIR/s`, args: []string{"--state-dir", "$DIR/s", "$DIR/m"},
			codes: []int{exitStateDir}, mention: []string{"$DIR/s", "--state-dir"}},
		{name: "a state directory that is full", prepare: `mkdir $DIR/m $DIR/s; mount -t tmpfs -o size=4k,mode=700 none $DIR/s; head -c 4096 /dev/zero >$DIR/s/full`,
			args:  []string{"--state-dir", "$DIR/s", "$DIR/m"},
			codes: []int{exitStateDir}, mention: []string{"no space", "--state-dir"}},
		{name: "a state directory of somebody else", prepare: `mkdir $DIR/m $DIR/s; chown 1 $DIR/m; chmod 700 $DIR/s`, user: aliceIs,
			args:  []string{"--state-dir", "$DIR/s", "$DIR/m"},
			codes: []int{exitStateDir}, mention: []string{"$DIR/s", "permission denied"}},
		{name: "a state directory that others may write to", prepare: `mkdir $DIR/m $DIR/s; chmod 777 $DIR/s`,
			args:  []string{"--state-dir", "$DIR/s", "$DIR/m"},
			codes: []int{exitStateDir}, mention: []string{"$DIR/s", "others may write"}},
		{name: "a state directory in use", prepare: `mkdir $DIR/m $DIR/s; exec 9<$DIR/s; flock 9`, args: []string{"--state-dir", "$DIR/s", "$DIR/m"},
			codes: []int{exitStateDir}, mention: []string{"$DIR/s", "in use"}},

		{name: "a backing directory that is missing", args: []string{"--backing", "$DIR/b", "$DIR/m"},
			codes: []int{exitBacking}, mention: []string{"$DIR/b", "no such file", "--backing"}},
		{name: "a backing directory that is a file", prepare: `touch $DIR/b`, args: []string{"-o", "backing=$DIR/b", "$DIR/m"},
			codes: []int{exitBacking}, mention: []string{"$DIR/b", "not a directory", "--backing"}},
		{name: "a backing directory that is a FIFO", prepare: `mkfifo $DIR/b`, args: []string{"--backing", "$DIR/b", "$DIR/m"},
			codes: []int{exitBacking}, mention: []string{"$DIR/b", "not a directory"}},
		{name: "a backing directory that one may not read", prepare: `mkdir $DIR/b $DIR/m; chown 1 $DIR/m; chmod 711 $DIR/b`, user: aliceIs,
			args:  []string{"--backing", "$DIR/b", "$DIR/m"},
			codes: []int{exitBacking}, mention: []string{"$DIR/b", "permission denied"}},
		{name: "a backing directory that one may not enter", prepare: `mkdir $DIR/b $DIR/m; chown 1 $DIR/m; chmod 744 $DIR/b`, user: aliceIs,
			args:  []string{"--backing", "$DIR/b", "$DIR/m"},
			codes: []int{exitBacking}, mention: []string{"$DIR/b", "permission denied"}},
	}
)

func TestWhatCannotBeMountedIsRefusedWithOneLine(t *testing.T) {
	needRoot(t)
	for _, tc := range refusals {
		t.Run(tc.name, func(t *testing.T) {
			openDevice(t)
			dir := mountParent(t)
			t.Cleanup(func() { removeTree(t, dir) })
			fill := strings.NewReplacer("$DIR", dir)
			var args []string
			for _, a := range tc.args {
				args = append(args, fill.Replace(a))
			}
			var s spawning
			if tc.user != nil {
				tc.user(&s)
			}
			errs, exit := runIsolated(t, dir, tc.prepare, s, append([]string{"--backing", "none", "--state-dir", "none"}, args...), tc.env)
			if !slices.Contains(tc.codes, exit) {
				t.Errorf("exit %d, want one of %v; it said %q", exit, tc.codes, errs)
			}
			if strings.Count(errs, "\n") != 1 || !strings.HasSuffix(errs, "\n") {
				t.Errorf("want one line on standard error, got %q", errs)
			}
			for _, word := range tc.mention {
				if !strings.Contains(errs, fill.Replace(word)) {
					t.Errorf("the line does not name %q: %s", fill.Replace(word), errs)
				}
			}
			if mountAt(filepath.Join(dir, "m")) != nil {
				t.Errorf("something is mounted")
			}
		})
	}
}

// runIsolated runs a script as root and then lockfs as a user, both in one
// fresh mount namespace.
func runIsolated(t *testing.T, dir, prepare string, user spawning, args, env []string) (stderr string, exit int) {
	t.Helper()
	// The arguments: UID, then lockfs and its arguments. exec, so that what
	// the script mounted stays with lockfs only.
	script := `DIR=` + dir + "\n{ " + prepare + "\n} || exit 99\n" + `
		uid=$1; shift
		cd /
		if [ "$uid" = 0 ]; then exec env $ENV "$@"; fi
		exec setpriv --reuid="$uid" --regid="$uid" --clear-groups -- /usr/bin/env $ENV "$@"`
	if prepare == "" {
		script = strings.Replace(script, "{ \n} || exit 99", "", 1)
	}
	argv := []string{"unshare", "--mount", "--", "/bin/sh", "-c", script, "sh"}
	argv = append(argv, map[bool]string{true: "0", false: "1"}[user.uid == 0], program(t, "lockfs"))
	_, stderr, exit = run(t, []clientOption{withEnv("ENV=" + strings.Join(env, " "))}, append(argv, args...)...)
	return stderr, exit
}

// removeTree removes what a test left in a directory, unless something is
// mounted below it.
func removeTree(t *testing.T, dir string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	if strings.Contains(string(mounts), " "+dir) {
		t.Errorf("a mount is left below %s", dir)
		return
	}
	os.RemoveAll(dir)
}

func TestRootWithoutTheCapabilityToMount(t *testing.T) {
	needRoot(t)
	dir := mountParent(t)
	t.Cleanup(func() { removeTree(t, dir) })
	_, errs, exit := run(t, nil, "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--",
		program(t, "lockfs"), "--backing", "none", "--state-dir", "none", dir)
	if exit != exitPermission || strings.Count(errs, "\n") != 1 || !strings.Contains(errs, dir) {
		t.Errorf("exit %d, want %d; it said %q", exit, exitPermission, errs)
	}
}
