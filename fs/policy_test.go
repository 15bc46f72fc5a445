package fs_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.3: policies as settings, and as files.

func mustPolicy(t testing.TB, settings string) fs.Policy {
	t.Helper()
	p, err := fs.Policy{}.With(settings)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// servePolicy serves a root with a policy, owned by user 42.
func servePolicy(t testing.TB, settings string) *served {
	t.Helper()
	return serveWith(t, func(o *fs.Options) {
		o.UID, o.GID, o.Policy = 42, 43, mustPolicy(t, settings)
	})
}

// setting reads a key of the policy of a directory.
func (s *served) setting(dir uint64, key string) string {
	s.t.Helper()
	f := s.mustOpen(s.knob(dir, key), unix.O_RDONLY)
	defer s.release(f)
	got, errno := s.read(f, 0, 4096)
	if errno != 0 {
		s.t.Fatalf("read policy/%s: %v", key, errno)
	}
	return got
}

// knob returns the node of a key of the policy of a directory.
func (s *served) knob(dir uint64, key string) uint64 {
	s.t.Helper()
	for _, name := range []string{".lockfs", "policy", key} {
		node, _, errno := s.lookup(dir, name)
		if errno != 0 {
			s.t.Fatalf("look up %s: %v", name, errno)
		}
		dir = node
	}
	return dir
}

// set writes to a key, as echo does.
func (s *served) set(dir uint64, key, value string) unix.Errno {
	s.t.Helper()
	node := s.knob(dir, key)
	r := s.call(opOpen, node, u32(unix.O_WRONLY|unix.O_TRUNC), u32(0))
	if r.errno != 0 {
		return r.errno
	}
	f := file{node, native.Uint64(r.body)}
	defer s.release(f)
	return s.write(f, 0, value)
}

func (s *served) mkdir(dir uint64, name string) (uint64, unix.Errno) {
	s.t.Helper()
	r := s.call(opMkdir, dir, u32(0o777), u32(0), cstring(name))
	if r.errno != 0 {
		return 0, r.errno
	}
	return native.Uint64(r.body), 0
}

var policyDefaults = map[string]string{"hold": "handle\n", "read": "record\n", "reap": "pid\n", "lease": "0\n", "grace": "0\n", "ids": "0\n"}

func TestPolicyIsFiles(t *testing.T) {
	s := servePolicy(t, "hold=handle")
	s.caller.uid = 42
	for key, want := range policyDefaults {
		if got := s.setting(1, key); got != want {
			t.Errorf("%s is %q at first, want %q", key, got, want)
		}
	}
	for _, c := range []struct{ key, value, shown string }{
		{"hold", "name\n", "name\n"},
		{"read", "record", "record\n"},
		{"read", "default\n", "pid\n"},
		{"hold", "handle\n", "handle\n"},
		{"read", "default\n", "record\n"},
		{"read", "pid\n", "pid\n"},
		{"reap", "creator\n", "creator\n"},
		{"reap", "none\n", "none\n"},
		{"reap", "pid\n", "pid\n"},
		{"lease", "90\n", "1m30s\n"},
		{"lease", "250ms\n", "250ms\n"},
		{"lease", "0\n", "0\n"},
		{"grace", "1h\n", "1h\n"},
		{"grace", "0s\n", "0\n"},
		{"ids", "2048\n", "2048\n"},
		{"ids", "unlimited\n", "unlimited\n"},
		{"ids", "4294967295\n", "4294967295\n"},
		{"ids", "0\n", "0\n"},
	} {
		if errno := s.set(1, c.key, c.value); errno != 0 {
			t.Errorf("write %q to %s: %v", c.value, c.key, errno)
		}
		if got := s.setting(1, c.key); got != c.shown {
			t.Errorf("%s is %q after %q was written", c.key, got, c.value)
		}
	}
}

// A knob given nonsense: EINVAL, a logged reason, nothing changed.
func TestNonsenseChangesNoPolicy(t *testing.T) {
	var log bytes.Buffer
	s := serveWith(t, func(o *fs.Options) {
		o.UID = 42
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	s.caller.uid = 42
	for key, values := range map[string][]string{
		"hold":  {"", "\n", "names\n", "name handle\n", "name\nhandle\n", "NAME\n", "\x00name", strings.Repeat("name", 100)},
		"read":  {"none\n", "1\n"},
		"reap":  {"nobody\n", "pid,creator\n"},
		"lease": {"-1\n", "-1s\n", "soon\n", "1\n2\n", "999us\n", "1e3\n", "99999999999999999999\n", "10000000h\n", "s\n"},
		"grace": {"-0.5s\n", "one\n", "5 s\n"},
		"ids":   {"-1\n", "4294967296\n", "many\n", "1e3\n", "Unlimited\n", "1 2\n", "0x10\n"},
	} {
		for _, value := range values {
			log.Reset()
			if value == "" {
				continue // nothing is written: no WRITE comes
			}
			if errno := s.set(1, key, value); errno != unix.EINVAL {
				t.Errorf("write %q to %s: %v, want EINVAL", value, key, errno)
			}
			if text := log.String(); !strings.Contains(text, "value refused") || !strings.Contains(text, "file="+key) {
				t.Errorf("write %q to %s is logged as %q", value, key, text)
			}
			for key, want := range policyDefaults {
				if got := s.setting(1, key); got != want {
					t.Fatalf("%q changed %s to %q", value, key, got)
				}
			}
		}
	}
}

// Policies are for the directory's owner and root to set, and for all to see.
func TestWhoMaySetPolicies(t *testing.T) {
	s := servePolicy(t, "hold=handle")
	s.caller.uid = 1000
	if errno := s.set(1, "hold", "name"); errno != unix.EACCES {
		t.Errorf("set by another: %v", errno)
	}
	if got := s.setting(1, "hold"); got != "handle\n" {
		t.Errorf("another reads %q", got)
	}
	dir, errno := s.mkdir(1, "mine")
	if errno != 0 {
		t.Fatal(errno)
	}
	if errno := s.set(dir, "hold", "name"); errno != 0 {
		t.Errorf("set by the owner of a directory: %v", errno)
	}
	s.caller.uid = 42
	if errno := s.set(dir, "hold", "handle"); errno != unix.EACCES {
		t.Errorf("set by the owner of the directory above: %v", errno)
	}
	s.caller.uid = 0
	if errno := s.set(dir, "hold", "handle"); errno != 0 {
		t.Errorf("set by root: %v", errno)
	}
	for name, node := range map[string]uint64{"version": s.walk(".lockfs", "version"), "policy": s.walk(".lockfs", "policy")} {
		if r := s.call(opOpen, node, u32(unix.O_WRONLY), u32(0)); r.errno != unix.EACCES {
			t.Errorf("open %s to write, as root: %v", name, r.errno)
		}
	}
}

// What a directory inherits it keeps when its parent's policy changes.
func TestPolicyIsInheritedOnce(t *testing.T) {
	s := servePolicy(t, "hold=name,lease=1h,reap=none")
	a, _ := s.mkdir(1, "a")
	s.caller.uid = 0
	if errno := s.set(1, "lease", "2h"); errno != 0 {
		t.Fatal(errno)
	}
	b, _ := s.mkdir(a, "b")
	for _, dir := range []uint64{a, b} {
		for key, want := range map[string]string{"hold": "name\n", "lease": "1h\n", "reap": "none\n", "grace": "0\n"} {
			if got := s.setting(dir, key); got != want {
				t.Errorf("%s of directory %d is %q, want %q", key, dir, got, want)
			}
		}
	}
}

func TestPolicySettings(t *testing.T) {
	for settings, want := range map[string]string{
		"":               `"": KEY=VALUE expected`,
		"hold":           `"hold": KEY=VALUE expected`,
		"hold=names":     "hold=names: not one of handle, name",
		"hold=name,":     `"": KEY=VALUE expected`,
		"mode=1":         "mode: no such policy; there are: hold, read, reap, lease, grace, ids",
		"lease=1h,reap=": "reap=: not one of pid, creator, none",
		"grace=tomorrow": "grace=tomorrow: a time expected: 0, seconds like 90, or like 1m30s, of 1ms or more",
	} {
		if _, err := (fs.Policy{}).With(settings); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v, want %s", settings, err, want)
		}
	}
}

// A lockspace is there from the beginning, and is nobody's lock.
func TestLockspaces(t *testing.T) {
	root := mustPolicy(t, "reap=none")
	space, err := fs.ParseLockspace("legacy:hold=name,lease=1h", root)
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"", ".", "..", ".lockfs", "a/b", strings.Repeat("x", 256), ":hold=name", "a:", "a:hold=no"} {
		if _, err := fs.ParseLockspace(bad, root); err == nil {
			t.Errorf("%q can be a lockspace", bad)
		}
	}
	s := serveWith(t, func(o *fs.Options) {
		o.Policy, o.Lockspaces = root, []fs.Lockspace{space}
		o.UID = 42
	})
	dir := s.walk("legacy")
	for key, want := range map[string]string{"hold": "name\n", "lease": "1h\n", "reap": "none\n"} {
		if got := s.setting(dir, key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := s.setting(1, "hold"); got != "handle\n" {
		t.Errorf("the root's hold is %q", got)
	}
	if _, errno := s.mkdir(1, "legacy"); errno != unix.EEXIST {
		t.Errorf("mkdir: %v", errno)
	}
	if n := s.fs.Counts().Holds; n != 0 {
		t.Errorf("%d holds", n)
	}
	if r := s.call(opRmdir, 1, cstring("legacy")); r.errno != unix.EPERM {
		t.Errorf("rmdir by another: %v", r.errno)
	}
}

// A lockspace that cannot be made, since there is something else of its name, is an
// error that is not taken for damage: what was saved is not given up for it.
func TestALockspaceInTheWay(t *testing.T) {
	inBubble(t, "hold=name", func(t *testing.T, s *served) {
		s.release(s.mustCreate("x", unix.O_EXCL))
		saved := s.save()
		s.options.Lockspaces = []fs.Lockspace{{Name: "x"}}
		if err := s.startFrom(saved); err == nil || errors.Is(err, fs.ErrRecord) || !strings.Contains(err.Error(), "lockspace x") {
			t.Errorf("started: %v", err)
		}
	})
}
