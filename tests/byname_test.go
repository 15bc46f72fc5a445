package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// 1.2 and 1.3: what holds by the existence of a name.

// namers make the name "lock" in the directory, each by another call.
var namers = []struct{ via, script string }{
	{"link", `: >tmp.$$; ln -T tmp.$$ lock; s=$?; rm -f tmp.$$; exit $s`},
	{"symlink", `ln -sT somebody lock`},
	{"mkdir", `mkdir lock`},
	{"rename", `: >tmp.$$; mv -nT tmp.$$ lock; [ ! -e tmp.$$ ] || { rm tmp.$$; exit 1; }`},
	{"excl", `set -C; : >lock`},
}

// takers try to get "lock" by what does not hold by name.
var nameTakers = []string{
	`flock -n lock true`,
	`python3 -c 'import os, fcntl; fd = os.open("lock", os.O_RDWR|os.O_CREAT); fcntl.lockf(fd, fcntl.LOCK_EX|fcntl.LOCK_NB)'`,
	`python3 -c 'import os; os.open("lock", os.O_CREAT|os.O_EXCL)'`,
}

// What policies say of O_EXCL.
const (
	holdByHandle = "hold=handle"
	holdByName   = "hold=name"
	holdByOpen   = "hold=open"
)

func mountByName(t testing.TB) *Mount { return mount(t, "--policy", holdByName) }

// Whatever makes the name excludes whatever else would, until the name is gone.
func TestNamesThatHoldExcludeEverything(t *testing.T) {
	m := mountByName(t)
	for _, a := range namers {
		t.Run(a.via, func(t *testing.T) {
			if out, exit := sh(t, m, a.script); exit != 0 {
				t.Fatalf("exit %d: %s", exit, out)
			}
			for _, b := range namers {
				if _, exit := sh(t, m, `exec 2>/dev/null; `+b.script); exit == 0 {
					t.Errorf("%s got in", b.via)
				}
			}
			for _, b := range nameTakers {
				if (a.via == "symlink" || a.via == "mkdir") && !strings.Contains(b, "EXCL") {
					continue // they follow the link, and flock(1) locks the directory
				}
				if _, exit := sh(t, m, `exec 2>/dev/null; `+b); exit == 0 {
					t.Errorf("%s got in", b)
				}
			}
			sh(t, m, `rm -f lock 2>/dev/null || rmdir lock`)
			for _, b := range namers {
				if out, exit := sh(t, m, `(`+b.script+`); s=$?; rm -f lock 2>/dev/null || rmdir lock; exit $s`); exit != 0 {
					t.Errorf("%s was refused: %s", b.via, out)
				}
			}
			wantNothingHeld(t, m)
		})
	}
}

// In a lockspace whose locks are held by open files too.
func TestNamesHoldInEveryLockspace(t *testing.T) {
	m := mount(t)
	for _, a := range namers[:3] {
		if out, exit := sh(t, m, strings.Replace(a.script, `: >tmp.$$`, `exec 9>tmp.$$; flock 9`, 1)); exit != 0 {
			t.Fatalf("%s: exit %d: %s", a.via, exit, out)
		}
		if _, exit := sh(t, m, `flock -n lock true 2>/dev/null`); exit == 0 && a.via == "link" {
			t.Errorf("%s does not hold", a.via)
		}
		_, err := newClient(t).TryOpen(m.Path("lock"), takeFlags)
		wantErr(t, "O_EXCL beside "+a.via, err, syscall.EEXIST)
		sh(t, m, `rm -f lock 2>/dev/null || rmdir lock`)
	}
	wantNothingHeld(t, m)
}

// It passes as a small POSIX directory.
func TestOrdinaryFilesOfANameSpace(t *testing.T) {
	m := mountByName(t)
	for script, want := range map[string]string{
		`umask 22; echo text >f; cat f; stat -c '%a %u %s %h' f; rm f`:                            "text\n644 0 5 1\n",
		`: >f; : >f && echo again; rm f`:                                                          "again\n",
		`echo a >f; echo b >>f; cat f; truncate -s 1 f; cat f; echo; rm f`:                        "a\nb\na\n",
		`echo a >f; chmod 640 f; chown 1:2 f; stat -c '%a %u %g' f; rm f`:                         "640 1 2\n",
		`touch -d '2020-01-02 03:04:05 UTC' f; date -u -r f +%F; rm f`:                            "2020-01-02\n",
		`: >a; ln a b; stat -c %h a b; [ a -ef b ] && echo same; rm a; stat -c %h b; rm b`:        "2\n2\nsame\n1\n",
		`ln -s some/where s; readlink s; stat -c %F s; rm s`:                                      "some/where\nsymbolic link\n",
		`mkdir -p d/e; echo x >d/e/f; cat d/e/f; rmdir d 2>/dev/null || echo full; rm -r d; ls`:   "x\nfull\n",
		`echo new >index.lock; echo old >index; mv -f index.lock index; cat index; ls; rm index`:  "new\nindex\n",
		`mkdir a; echo x >a/f; mv a b; cat b/f; mkdir a; rm -r a b; ls`:                           "x\n",
		`exec 3>f; rm f; echo gone >&3 && echo written; ls`:                                       "written\n",
		`: >f; flock -n f echo in; rm f`:                                                          "in\n",
		`set -C; echo $PPID >l; [ "$(cat l)" = $PPID ] && echo body; rm l`:                        "body\n",
		`set -C; : >l; [ "$(cat l)" = $$ ] && echo pid; rm l`:                                     "pid\n",
		`mkdir d; cd d; set -C; : >l; (: >l) 2>/dev/null || echo inherited; rm l; cd ..; rmdir d`: "inherited\n",
		`ln -s x l; mv -T l k && echo moved; flock -n l true; : >l && echo free; rm k; rm l`:      "moved\nfree\n",
	} {
		if out, _ := sh(t, m, script); out != want {
			t.Errorf("%s\nprinted %q, want %q", script, out, want)
		}
	}
	wantNothingHeld(t, m)
}

func TestPlainRenameOntoAHeldNameIsBusy(t *testing.T) {
	m := mountByName(t)
	out, _ := sh(t, m, `set -C; : >held; set +C; echo x >f; python3 -c '
import os
try: os.rename("f", "held")
except OSError as e: print(e.errno)
os.rename("held", "f")
print(open("f").read())'; ls`)
	if want := fmt.Sprint(int(syscall.EBUSY), "\n\nf\n"); out != want {
		t.Errorf("printed %q, want %q", out, want)
	}
	if out, exit := sh(t, m, `flock -n f true; rm f`); exit != 0 {
		t.Errorf("what was renamed is held: %s", out)
	}
}

// Restricted deletion and modes, as two users and root.
func TestNamesOfOtherUsers(t *testing.T) {
	m := mountByName(t)
	alice, bob, root := newClient(t, asAlice()), newClient(t, asBob()), newClient(t)
	path := m.Path("lock")
	wantErr(t, "close", alice.Close(alice.Open(path, takeFlags)), nil)
	wantErr(t, "bob's unlink of a held name", bob.Unlink(path), syscall.EPERM)
	wantErr(t, "alice's chmod", alice.Chmod(path, 0o600), nil)
	_, err := bob.TryOpen(path, syscall.O_RDONLY)
	wantErr(t, "bob's open of a private file", err, syscall.EACCES)
	wantErr(t, "bob's chmod", bob.Chmod(path, 0o666), syscall.EPERM)
	wantErr(t, "root's unlink", root.Unlink(path), nil)
	eventually(t, answerLimit, func() bool { return strings.Contains(m.Stderr(), "lock broken") }, "the log tells of a broken lock")
	bob.Open(path, takeFlags)
	if out, _ := sh(t, m, `cat lock`); out != fmt.Sprintln(bob.Pid()) {
		t.Errorf("the lock of process %d reads %q", bob.Pid(), out)
	}
	wantErr(t, "bob's unlink of his own", bob.Unlink(path), nil)
}

// A name outlives its process, the worker, and a clean stop; not a crash.
func TestNamesHoldOverEverything(t *testing.T) {
	m := mountByName(t)
	if out, exit := sh(t, m, `set -C; echo body >lock; mkdir -p d/e; ln -s text d/e/s; ln lock d/other; touch -d 2020-01-01 d/f`); exit != 0 {
		t.Fatal(out)
	}
	const look = `cat lock; readlink d/e/s; stat -c %h lock; find . -mindepth 1 | sort; date -r d/f +%Y`
	want, _ := sh(t, m, look)
	held := heldLocks(t, m)
	for name, end := range map[string]func(){
		"the worker dies":   func() { killWorker(t, m) },
		"a clean stop":      func() { m.Restart(m.Quit) },
		"a new program":     func() { hangUp(t, m); m.awaitReplaced() },
		"two stops, a kill": func() { m.Restart(m.Quit); killWorker(t, m); m.Restart(m.Quit) },
	} {
		end()
		if got, _ := sh(t, m, look); got != want {
			t.Errorf("%s: found\n%s\nwant\n%s", name, got, want)
		}
		if n := heldLocks(t, m); n != held {
			t.Errorf("%s: %d holds, want %d", name, n, held)
		}
		for _, name := range []string{"lock", "d", "d/e", "d/e/s", "d/other"} {
			_, err := newClient(t).TryOpen(m.Path(name), takeFlags)
			wantErr(t, "O_EXCL of "+name, err, syscall.EEXIST)
		}
	}
	m.Restart(m.Kill)
	wantNothingHeld(t, m)
}
