package tests

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.7: "DIR/.lockfs/{alloc,available,ids/}: numbered locks: each open and read of
// alloc gives a fresh number; ids/ lists the reserved ones, O_EXCL there reserves one,
// rm frees it".

// A person with a shell allocates, locks, lists and frees.
func TestNumberedLocksAreFiles(t *testing.T) {
	m := mount(t, "--space", "pods:ids=4", "--space", "any:ids=unlimited", "-o", "ids=3,space=plain:ids=0")
	for _, c := range []struct {
		script, want string
		exit         int
	}{
		{`ls pods/.lockfs; ls plain/.lockfs`, "alloc\navailable\nids\nlock\nlocks\npolicy\nlock\nlocks\npolicy\n", 0},
		{`cat .lockfs/available pods/.lockfs/available any/.lockfs/available`, "3\n4\nunlimited\n", 0},
		{`cat plain/.lockfs/alloc`, "", 1},
		{`stat -c '%F %a %U %s' pods/.lockfs/alloc pods/.lockfs/available pods/.lockfs/ids`,
			"regular empty file 444 root 0\nregular empty file 444 root 0\ndirectory 777 root 0\n", 0},
		{`cd pods/.lockfs; cat alloc; read n <alloc; echo $n; cat available; ls -v ids`, "0\n1\n2\n0\n1\n", 0},
		{`cd pods/.lockfs; dd if=alloc bs=1 2>/dev/null; cat ids/2`, "2\n2\n", 0},
		{`cd pods/.lockfs; exec 5<alloc; cat <&5; cat <&5; cat alloc 2>/dev/null || echo $?; rm -f ids/3`, "3\n1\n", 0},
		// n=$(cat alloc) fails when all are reserved, which a script sees.
		{`cd pods/.lockfs; n=$(cat alloc) && echo $n; m=$(LC_ALL=C cat alloc 2>&1) || echo "$m"`, "3\ncat: alloc: No space left on device\n", 0},
		{`cd pods/.lockfs; rm -f ids/1; rm ids/1 2>/dev/null || echo gone; cat available alloc`, "gone\n1\n1\n", 0},
		{`cd pods/.lockfs/ids; rm -f *; set -C; : > 2 && echo mine; : > 2 || echo taken; ls`, "mine\ntaken\n2\n", 0},
		// The lock is the name of the number, whether that is reserved or not.
		{`cd pods; exec 9>2; flock -n 9 && ls; rm -f .lockfs/ids/2; flock -n 2 true || echo locked; cat .lockfs/lock/2/check; exec 9>&-; flock -n 2 echo free`,
			"2\nlocked\n-1\nfree\n", 0},
		{`mkdir a; cat a/.lockfs/policy/ids; cat a/.lockfs/alloc >/dev/null; mkdir a/b; ls a/b/.lockfs/ids; rmdir a/b a && echo removed`, "3\nremoved\n", 0},
		// The numbers are the directory's, whatever its name is, and go with it.
		{`mkdir a; cat a/.lockfs/alloc; mv a b; cat b/.lockfs/alloc; rmdir b; mkdir b; cat b/.lockfs/alloc; rmdir b`, "0\n1\n0\n", 0},
		{`cd any/.lockfs; set -C; : >ids/4294967295; : >ids/0; cat alloc; ls -v ids | xargs; rm -f ids/*; ls ids | wc -l`, "1\n0 1 4294967295\n0\n", 0},
	} {
		if out, exit := bash(t, m, c.script); out != c.want || exit != c.exit {
			t.Errorf("%s\nprinted %q (exit %d), want %q (%d)", c.script, out, exit, c.want, c.exit)
		}
	}
	for script, want := range map[string]string{
		`set -C; : >pods/.lockfs/ids/4`:         "Numerical result out of range",
		`set -C; : >pods/.lockfs/ids/04`:        "Invalid argument",
		`set -C; : >pods/.lockfs/ids/x`:         "Invalid argument",
		`touch pods/.lockfs/ids/3`:              "Operation not permitted",
		`set -C; : >plain/.lockfs/ids/3`:        "No such file or directory",
		`mkdir pods/.lockfs/ids/3`:              "Permission denied",
		`rmdir pods/.lockfs/ids`:                "Permission denied",
		`rm -f pods/.lockfs/alloc`:              "Permission denied",
		`echo 5 >pods/.lockfs/alloc`:            "Permission denied",
		`/bin/echo x >>plain/.lockfs/available`: "Permission denied",
		`cat plain/.lockfs/available`:           "No such file or directory",
	} {
		if out, exit := bash(t, m, `exec 2>&1; export LC_ALL=C; `+script); exit == 0 || !strings.Contains(out, want) {
			t.Errorf("%s\nprinted %q (exit %d), want %q", script, out, exit, want)
		}
	}
}

// A number that is reserved is not overwritten by mistake, with set -C or without.
func TestAReservedNumberIsNotOpenedForWriting(t *testing.T) {
	m := mount(t, "--policy", "ids=4")
	c, alice := newClient(t), newClient(t, asAlice())
	wantErr(t, "close", c.Close(c.Open(m.Path(".lockfs/ids/2"), takeFlags)), nil)
	for _, who := range []*Client{c, alice} {
		for _, flags := range []int{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_CREAT, unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC} {
			_, err := who.TryOpen(m.Path(".lockfs/ids/2"), flags)
			wantErr(t, fmt.Sprintf("open with %#x", flags), err, unix.EACCES)
		}
		_, err := who.TryOpen(m.Path(".lockfs/ids/2"), takeFlags)
		wantErr(t, "open with O_EXCL", err, unix.EEXIST)
		wantErr(t, "truncate", who.Truncate(m.Path(".lockfs/ids/2"), 0), unix.EACCES)
	}
	text, err := alice.ReadAll(m.Path(".lockfs/ids/2"))
	if text != "2\n" || err != nil {
		t.Errorf("a number reads as %q (%v)", text, err)
	}
}

// Who may write to the directory may take and free; who may read it may list.
func TestWhoMayUseNumberedLocks(t *testing.T) {
	m := mount(t, "--space", "shared:ids=10")
	sh(t, m, `mkdir -m 755 hers && echo 10 >hers/.lockfs/policy/ids && cat hers/.lockfs/alloc`, asAlice())
	for _, script := range []string{
		`cat hers/.lockfs/alloc`, `set -C; : >hers/.lockfs/ids/5`, `rm -f hers/.lockfs/ids/0`, `test -r hers/.lockfs/alloc`, `test -w hers/.lockfs/ids`,
		`echo 20 >hers/.lockfs/policy/ids`,
	} {
		if _, exit := bash(t, m, script, asBob()); exit == 0 {
			t.Errorf("another user: %s succeeded", script)
		}
	}
	if out, exit := sh(t, m, `ls hers/.lockfs/ids; cat hers/.lockfs/ids/0 hers/.lockfs/available`, asBob()); out != "0\n0\n9\n" || exit != 0 {
		t.Errorf("another user sees %q (exit %d)", out, exit)
	}
	sh(t, m, `chmod 700 hers; cat shared/.lockfs/alloc`, asAlice())
	if out, exit := sh(t, m, `ls hers/.lockfs/ids`, asBob()); exit == 0 {
		t.Errorf("what others may not list: %q", out)
	}
	// As a member of its group, which has to be looked up.
	sh(t, m, `mkdir team && chgrp 50 team && chmod 2770 team && echo 10 >team/.lockfs/policy/ids`)
	script := `cd team/.lockfs; cat alloc && set -C; : >ids/7; ls ids; rm -f ids/0; cat available`
	if out, exit := bash(t, m, script, asBob(), inGroups(50)); out != "0\n0\n7\n9\n" || exit != 0 {
		t.Errorf("a member of the group: %q (exit %d)", out, exit)
	}
	if out, _ := bash(t, m, script, asBob(), inGroups(51)); out != "" {
		t.Errorf("a member of another group: %q", out)
	}
	// In a directory that all may write to they share the numbers.
	if out, exit := bash(t, m, `cd shared/.lockfs; ls ids; rm -f ids/0; cat alloc`, asBob()); out != "0\n0\n" || exit != 0 {
		t.Errorf("in a shared directory: %q (exit %d)", out, exit)
	}
}

// The knob: what is refused says why, and changes nothing.
func TestTheKnobIDs(t *testing.T) {
	m := mount(t, "--policy", "ids=10")
	out, _ := bash(t, m, `set -C; : >.lockfs/ids/7; set +C; cd .lockfs/policy
		for v in 7 0 -1 4294967296 x; do echo $v >ids || echo no; done; cat ids; echo 8 >ids; cat ids ../available; echo unlimited >ids; cat ids ../available`)
	if want := "no\nno\nno\nno\nno\n10\n8\n7\nunlimited\nunlimited\n"; out != want {
		t.Errorf("%q, want %q", out, want)
	}
	for _, want := range []string{`err="ids=7: number 7 is reserved"`, `err="ids=x: how many numbers`} {
		eventually(t, answerLimit, func() bool { return strings.Contains(m.Stderr(), want) }, "the log says "+want)
	}
}

// Many numbers are listed in pieces, each once, while workers are killed and others
// take and give back locks, allocate and free.
func TestManyNumbersAreListed(t *testing.T) {
	const many = 20_000
	m := mount(t, "--policy", "ids=unlimited")
	m.Deadline(time.Duration(stressFactor(t)) * 5 * time.Minute)
	allocator := newNumberedClient(t)
	allocator.Want("ok", "new %s", m.Dir)
	allocating := allocator.Start("allocate-many %d", many)
	select {
	case <-allocating.done:
	case <-time.After(stressLimit):
		t.Fatal("allocation takes too long")
	}
	if allocating.result != fmt.Sprintf("0 to %d", many-1) {
		t.Fatalf("allocated: %s", allocating.result)
	}
	c, lister := newClient(t), newClient(t)
	fd := lister.Open(m.Path(".lockfs/ids"), unix.O_RDONLY|unix.O_DIRECTORY)
	next, pieces := 0, 0
	for {
		names, err := lister.Getdents(fd)
		wantErr(t, "getdents", err, nil)
		if len(names) == 0 {
			break
		}
		slices.SortFunc(names, func(a, b string) int {
			return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
		})
		for _, name := range names {
			switch n, err := strconv.Atoi(name); {
			case err != nil:
				t.Fatalf("%q is listed", name)
			case n == next:
				next++
			case n < many:
				t.Fatalf("%q is listed after %d", name, next-1)
			}
		}
		if pieces++; pieces%20 == 0 {
			killWorker(t, m)
		}
		lock := c.Open(m.Path("0"), takeFlags)
		wantErr(t, "close", c.Close(lock), nil)
		// At the end it grows and shrinks, and at the beginning.
		allocator.Want(strconv.Itoa(many), "allocate x")
		allocator.Want("ok", "free x")
		allocator.Want("0", "retrieve y 0")
		allocator.Want("ok", "free y")
		allocator.Want("0", "allocate y")
	}
	if next != many || pieces < 20 {
		t.Errorf("%d of %d were listed in %d pieces", next, many, pieces)
	}
	allocator.Want("ok", "free-all")
	if out, _ := sh(t, m, `ls .lockfs/ids | wc -l`); out != "0\n" {
		t.Errorf("%q are left", out)
	}
}
