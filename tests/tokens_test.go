package tests

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// 1.1: "token: the fencing number of a hold: strictly increasing over the whole
// mount, across restarts and reboots". 2.2: "reserved from disk in blocks".

// nextToken takes a lock on a mount and returns its token.
func nextToken(t testing.TB, m *Mount) int {
	t.Helper()
	c := newClient(t)
	defer c.Exit()
	c.Open(m.Path("token"), takeFlags)
	return recordOf(t, m.Path("token")).number(t, "token")
}

func TestTokensIncreaseWhateverEnds(t *testing.T) {
	m := mount(t)
	last := nextToken(t, m)
	if last != 1 {
		t.Errorf("the first token is %d", last)
	}
	for name, end := range map[string]func(){
		"nothing":                 func() {},
		"the worker":              func() { killWorker(t, m) },
		"the worker, twice":       func() { killWorker(t, m); killWorker(t, m) },
		"all, by a signal":        func() { m.Restart(m.Quit) },
		"all, at once":            func() { m.Restart(m.Kill) },
		"all, and then all again": func() { m.Restart(m.Quit); m.Restart(m.Kill) },
	} {
		t.Run(name, func(t *testing.T) {
			token := nextToken(t, m)
			if token <= last {
				t.Fatalf("token %d after %d", token, last)
			}
			last = token
			end()
			token = nextToken(t, m)
			if token <= last || token > last+1_000_000 {
				t.Fatalf("token %d after %d", token, last)
			}
			last = token
		})
	}
}

// A file that cannot be trusted is not: it is kept, under another name, and
// said so.
func TestDamagedStateIsSetAside(t *testing.T) {
	m := mount(t)
	last := nextToken(t, m)
	for _, name := range []string{"tokens", "saved"} {
		m.Restart(func() {
			m.Quit()
			m.AwaitExit(t)
			path := filepath.Join(m.StateDir(), name)
			if _, err := os.Stat(path); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("something else\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		})
		aside, err := filepath.Glob(filepath.Join(m.StateDir(), name+".damaged-*"))
		if err != nil || len(aside) != 1 {
			t.Fatalf("set aside: %v, %v", aside, err)
		}
		if b, err := os.ReadFile(aside[0]); err != nil || string(b) != "something else\n" {
			t.Errorf("%s is %q, %v", aside[0], b, err)
		}
		if !strings.Contains(m.Stderr(), filepath.Base(aside[0])) {
			t.Errorf("nothing in the log about %s", aside[0])
		}
		token := nextToken(t, m)
		if token <= last {
			t.Errorf("token %d after %d", token, last)
		}
		last = token
	}
}

// Who may use the mount is not forgotten by a restart.
func TestPermissionsOfTheRootOutliveACleanStop(t *testing.T) {
	m := mount(t)
	c := newClient(t)
	wantErr(t, "chown", c.Chown(m.Dir, 1, 2), nil)
	wantErr(t, "chmod", c.Chmod(m.Dir, 0o750), nil)
	c.Exit()
	want := func(mode, uid, gid uint32) {
		t.Helper()
		c := newClient(t)
		defer c.Exit()
		st, err := c.Stat(m.Dir)
		if err != nil || st.Mode&0o7777 != mode || st.UID != uid || st.GID != gid {
			t.Errorf("the root is %+v (%v), want mode %o of %d:%d", st, err, mode, uid, gid)
		}
	}
	want(0o750, 1, 2)
	m.Restart(m.Quit)
	want(0o750, 1, 2)
	// What is taken up counts once: a crash after that is a new beginning.
	m.Restart(m.Kill)
	want(0o777, 0, 0)
}
