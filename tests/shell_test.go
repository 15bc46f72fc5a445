package tests

import (
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The functions for shell scripts, contrib/lockfs.sh, in dash and in bash, by two
// ordinary users, where open files hold and where names do.

// library returns what a script begins with that uses the functions.
func library(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	file, err := filepath.Abs("../contrib/lockfs.sh")
	if err == nil {
		// Ordinary users may not enter the directories that this is in.
		err = runQuietly("sh", "-c", `install -m 644 "$1" "$2/lockfs.sh" && chmod 755 "$2" "$2/.."`, "sh", file, dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ". " + dir + "/lockfs.sh\n"
}

// shellUser is a user with a shell of his own.
type shellUser struct {
	name, shell string
	as          clientOption
}

var alicesDash = shellUser{"alice in dash", "/bin/dash", asAlice()}
var bobsBash = shellUser{"bob in bash", "/bin/bash", asBob()}

// does runs a script of a user's to its end.
func (u shellUser) does(t testing.TB, m *Mount, script string) (string, int) {
	t.Helper()
	return runScript(t, m, u.shell, script, []clientOption{u.as})
}

// starts starts one that says "held" some time.
func (u shellUser) starts(t testing.TB, m *Mount, script string) *process {
	t.Helper()
	return startProcess(t, []clientOption{u.as}, u.shell, "-c", "cd "+m.Dir+" || exit 125\n"+script)
}

// shellCases calls test for both users in both roles, in both kinds of lockspaces.
func shellCases(t *testing.T, test func(t *testing.T, m *Mount, a, b shellUser)) {
	for _, policy := range []string{"hold=handle", "hold=name"} {
		m := stressMount(t, "--policy", policy)
		for _, users := range [][2]shellUser{{alicesDash, bobsBash}, {bobsBash, alicesDash}} {
			t.Run(policy+"/"+users[0].name, func(t *testing.T) { test(t, m, users[0], users[1]) })
		}
	}
}

// goOn lets a script go on that reads a line.
func (p *process) goOn(t testing.TB) {
	t.Helper()
	if _, err := fmt.Fprintln(p.stdin.(io.Writer)); err != nil {
		t.Fatal(err)
	}
}

func TestShellsTakeTryWaitAndRelease(t *testing.T) {
	use := library(t)
	shellCases(t, func(t *testing.T, m *Mount, a, b shellUser) {
		want := func(u shellUser, script, out string, exit int) {
			t.Helper()
			if got, status := u.does(t, m, use+script); got != out || status != exit {
				t.Fatalf("%s: %s: %q, exit %d; want %q, exit %d", u.name, script, got, status, out, exit)
			}
		}
		want(a, `lockfs_who lock`, "", 1)
		holder := a.starts(t, m, use+`set -euC; lockfs_take lock; echo held; read x; lockfs_release lock; lockfs_take other; read y`)
		holder.Held(t)
		want(b, `lockfs_try lock`, "", 1)
		want(b, `lockfs_wait 0 lock`, "", 1)
		want(b, `flock -n lock true`, "", 1)
		want(b, `lockfs_who lock | sed -n 's/^pid=//p'`, fmt.Sprintln(holder.Pid()), 0)
		start := time.Now()
		want(b, `lockfs_wait 0.3 "$PWD/lock"`, "", 1)
		if took := time.Since(start); took < 300*time.Millisecond {
			t.Errorf("it waited for %v", took)
		}
		want(b, `lockfs_try other && lockfs_try ./third && lockfs_release other ./third && lockfs_try other; echo $?`, "0\n", 0)

		first := b.starts(t, m, use+`lockfs_wait 20 lock && echo held; read x`)
		awaitInLine(t, m, 1)
		second := a.starts(t, m, use+`lockfs_take lock && echo held; read x`)
		awaitInLine(t, m, 2)
		holder.goOn(t)
		first.Held(t)
		second.MustBlock(t)
		want(b, `lockfs_who lock | sed -n 's/^pid=//p'`, fmt.Sprintln(first.Pid()), 0)
		first.Kill(t)
		second.Held(t)
		second.Release(t)
		holder.Release(t)
		want(b, `lockfs_try lock && lockfs_try other`, "", 0)
	})
}

func TestShellsAreToldWhatIsWrong(t *testing.T) {
	use := library(t)
	outside := t.TempDir()
	shellCases(t, func(t *testing.T, m *Mount, a, b shellUser) {
		for script, want := range map[string]struct {
			exit   int
			reason string
		}{
			`lockfs_take`:                                         {2, "usage"},
			`lockfs_try a b`:                                      {2, "usage"},
			`lockfs_wait lock`:                                    {2, "usage"},
			`lockfs_who`:                                          {2, "usage"},
			`lockfs_wait soon lock`:                               {2, "seconds"},
			`lockfs_wait . lock`:                                  {2, "seconds"},
			`lockfs_wait -1 lock`:                                 {2, "seconds"},
			`lockfs_wait 1.2.3 lock`:                              {2, "seconds"},
			`lockfs_take ""`:                                      {2, "not a name"},
			`lockfs_take lock/`:                                   {2, "not a name"},
			`lockfs_take ..`:                                      {2, "not a name"},
			`lockfs_who .lockfs`:                                  {2, "not a name"},
			`lockfs_release lock`:                                 {2, "does not hold"},
			`lockfs_try none/lock`:                                {3, "not in a directory"},
			`lockfs_try ` + outside + `/lock`:                     {3, "not in a directory"},
			`lockfs_try lock; lockfs_try lock`:                    {2, "holds it already"},
			`lockfs_try lock; lockfs_take ./lock`:                 {2, "holds it already"},
			`lockfs_try lock; lockfs_take "$PWD/lock"`:            {2, "holds it already"},
			`mkdir $$; lockfs_take $$; r=$?; rmdir $$; (exit $r)`: {3, "directory"},
			`PATH=/nonexistent; lockfs_try lock`:                  {3, "flock(1)"},
			`for n in 1 2 3 4 5 6 7; do lockfs_try l$n; done; lockfs_try l8`:                             {3, "no descriptor"},
			`mkdir $$; echo open >$$/.lockfs/policy/hold; lockfs_try $$/lock; r=$?; rmdir $$; (exit $r)`: {3, "hold=open"},
			`mkdir -m 700 $$; chmod 0 $$; lockfs_try $$/lock; r=$?; chmod 700 $$; rmdir $$; (exit $r)`:   {3, "not in a directory"},
		} {
			out, exit := a.does(t, m, use+"exec 2>&1\n"+script)
			if lines := strings.Split(strings.TrimSpace(out), "\n"); exit != want.exit || len(lines) != 1 ||
				!strings.HasPrefix(out, "lockfs: ") || !strings.Contains(out, want.reason) {
				t.Errorf("%s: exit %d, %q; want exit %d and one line that tells of %q", script, exit, out, want.exit, want.reason)
			}
			// With set -e, the script ends there.
			_, exit = a.does(t, m, use+"exec 2>&1; set -eu\n"+script)
			if exit != want.exit {
				t.Errorf("set -eu; %s: exit %d, want %d", script, exit, want.exit)
			}
		}
	})
}

func TestShellsTakeOddNames(t *testing.T) {
	use := library(t)
	shellCases(t, func(t *testing.T, m *Mount, a, b shellUser) {
		script := use + `set -eu
			IFS=/; set -f
			nl='
'
			for name in -n -- '*' ' ' 'a b' "a${nl}b" "end$nl" 'q"u' "q'u" 'back\n' '$HOME' '~' '&1' '9' "$(printf 'caf\351')"; do
				lockfs_take "$name"
				(flock -n "./$name" true) && exit 1
				lockfs_who "$name" | grep -qx "pid=$$"
				lockfs_release "$name"
				flock -n "./$name" true
				lockfs_try "$PWD/$name"
				lockfs_release
			done
			echo all`
		if out, exit := a.does(t, m, script); out != "all\n" || exit != 0 {
			t.Errorf("%q, exit %d", out, exit)
		}
	})
}

// A lock that was taken away is told of at its release, which does not hurt whoever
// has it by then.
func TestShellsThatLostTheirLock(t *testing.T) {
	use := library(t)
	shellCases(t, func(t *testing.T, m *Mount, a, b shellUser) {
		loser := a.starts(t, m, use+`lockfs_take lock; lockfs_take kept; echo held; read x; lockfs_release; echo $?; read y`)
		loser.Held(t)
		if _, exit := sh(t, m, `rm lock`); exit != 0 {
			t.Fatalf("rm: exit %d", exit)
		}
		next := b.starts(t, m, use+`lockfs_try lock && echo held; read x`)
		next.Held(t)
		loser.goOn(t)
		eventually(t, answerLimit, func() bool { return strings.Contains(loser.stderr.String(), "lock: the lock was lost") }, "the loss is told")
		if _, exit := a.does(t, m, use+`lockfs_try lock`); exit != 1 {
			t.Errorf("the lock of the next: exit %d", exit)
		}
		if _, exit := a.does(t, m, use+`lockfs_wait 10 kept`); exit != 0 {
			t.Errorf("what was not lost: exit %d", exit)
		}
		next.Release(t)
		loser.Release(t)
		sh(t, m, `rm -f lock`)
		for script, want := range map[string]string{
			`lockfs_take lock; lockfs_release; echo $?`:                                               "0\n",
			`lockfs_release; echo $?`:                                                                 "0\n",
			`lockfs_take lock; rm -f lock; lockfs_release lock; echo $?`:                              "0\n", // given back
			`lockfs_take lock; rm -f lock; lockfs_release; lockfs_release; lockfs_take lock; echo $?`: "0\n",
		} {
			if out, _ := a.does(t, m, use+script); out != want {
				t.Errorf("%s: %q, want %q", script, out, want)
			}
		}
	})
}

// A signal that the script traps ends the wait at once, and one that kills it too:
// nobody waits on behind it.
func TestShellsThatAreSignalledWhileTheyWait(t *testing.T) {
	use := library(t)
	shellCases(t, func(t *testing.T, m *Mount, a, b shellUser) {
		holder := b.starts(t, m, use+`lockfs_take lock; echo held; read x`)
		holder.Held(t)
		for _, s := range []struct {
			script string
			signal syscall.Signal
			exit   int
		}{
			{`trap 'echo held trapped' TERM; lockfs_take lock; exit $?`, syscall.SIGTERM, 128 + int(syscall.SIGTERM)},
			{`trap 'echo held trapped' USR1; lockfs_wait 60 lock; r=$?; lockfs_try other && lockfs_release || exit 99; exit $r`, syscall.SIGUSR1, 128 + int(syscall.SIGUSR1)},
			{`set -eu; trap 'echo held trapped; lockfs_release' EXIT; trap 'exit 7' TERM; lockfs_take other; lockfs_take lock`, syscall.SIGTERM, 7},
			{`lockfs_take lock`, syscall.SIGTERM, -1},
			{`lockfs_wait 60 lock`, syscall.SIGKILL, -1},
		} {
			waiter := a.starts(t, m, use+s.script)
			awaitInLine(t, m, 1)
			start := time.Now()
			waiter.Signal(s.signal)
			waiter.awaitExit(t)
			awaitInLine(t, m, 0)
			if took := time.Since(start); took > answerLimit {
				t.Errorf("%s: it took %v", s.script, took)
			}
			if code := waiter.cmd.ProcessState.ExitCode(); code != s.exit {
				t.Errorf("%s: exit %d, want %d: %s", s.script, code, s.exit, waiter.stderr)
			}
			if trapped := strings.Contains(s.script, "trapped"); trapped != (waiter.said() == "held trapped") {
				t.Errorf("%s: it said %q", s.script, waiter.said())
			}
		}
		holder.Release(t)
	})
}

// Several shells count in one file, which is not on the mount, while workers are
// killed: not one step is lost.
func TestShellsExcludeEachOtherWhileWorkersAreKilled(t *testing.T) {
	use := library(t)
	const shells, rounds = 4, 25
	shellCases(t, func(t *testing.T, m *Mount, a, b shellUser) {
		count := filepath.Join(t.TempDir(), "count")
		if err := runQuietly("sh", "-c", `echo 0 >"$1" && chmod 666 "$1" && chmod 755 "${1%/*}" "${1%/*}/.."`, "sh", count); err != nil {
			t.Fatal(err)
		}
		k := startKiller(t, m, 50*time.Millisecond)
		var all []*process
		for i := range shells {
			script := `set -eu; n=0
				while [ $n -lt ` + strconv.Itoa(rounds) + ` ]; do
					lockfs_wait 60 lock
					read c <` + count + `; echo $((c + 1)) >` + count + `
					lockfs_release lock
					n=$((n + 1))
				done
				echo held; read x`
			all = append(all, []shellUser{a, b}[i%2].starts(t, m, use+script))
		}
		for _, p := range all {
			p.limit = stressLimit
			p.Held(t)
			p.Release(t)
		}
		kills := k.Stop()
		out, _, _ := run(t, nil, "cat", count)
		t.Logf("counted to %s while %d workers were killed", strings.TrimSpace(out), kills)
		if out != fmt.Sprintln(shells*rounds) {
			t.Errorf("counted to %s, want %d", out, shells*rounds)
		}
	})
}
