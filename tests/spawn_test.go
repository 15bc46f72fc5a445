package tests

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// This file is about how the tests start processes: as whom, with what
// environment, and so that none outlives them.

// Ordinary users whose numbers every Debian has (base-passwd allots them):
// alice and bob to their tests, "daemon" and "bin" to the system.
const (
	aliceID = 1
	bobID   = 2
)

// clientOption says how a client, a process or a script is started.
type clientOption func(*spawning)

type spawning struct {
	uid, gid uint32
	groups   []uint32
	env      []string
}

// asUser starts the process as another user, without supplementary groups.
func asUser(uid, gid uint32) clientOption {
	return func(s *spawning) { s.uid, s.gid = uid, gid }
}

func asAlice() clientOption { return asUser(aliceID, aliceID) }
func asBob() clientOption   { return asUser(bobID, bobID) }

// inGroups gives another user's process supplementary groups.
func inGroups(groups ...uint32) clientOption {
	return func(s *spawning) { s.groups = groups }
}

// withEnv adds environment variables, each "KEY=value".
func withEnv(env ...string) clientOption {
	return func(s *spawning) { s.env = append(s.env, env...) }
}

// command makes a command that gets a process group of its own and is killed
// when the test process dies.
func command(opts []clientOption, argv ...string) *exec.Cmd {
	var s spawning
	for _, o := range opts {
		o(&s)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), s.env...)
	if raceEnabled {
		// Go programs wait a second at their end for late reports.
		cmd.Env = append(cmd.Env, "GORACE=atexit_sleep_ms=20")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if s.uid != 0 || s.gid != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.uid, Gid: s.gid, Groups: s.groups}
	}
	return cmd
}

// needRoot fails the test unless it runs as root: mounting, other users and
// system settings are what these tests are about, so they are never skipped.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("the end-to-end tests mount filesystems and act as several users: run them as root (uid is %d)", os.Geteuid())
	}
}
