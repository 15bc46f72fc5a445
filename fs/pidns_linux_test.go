package fs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// nest is a script that starts a process in its pid namespace, and another in a
// namespace within, and says their numbers there. The words that they sleep for
// besides tell them apart from outside.
const nest = `
	sleep 300 "$1" & echo $!
	unshare --pid --fork --mount-proc --kill-child sh -c 'sleep 300 "$1" & echo $!; wait' sh "$2"`

// nested are the processes of nest.
type nested struct {
	outer, inner uint32 // as seen from here
	// Their numbers in the outer and in the inner namespace.
	outerInOuter, innerInOuter, innerInInner uint32
}

// startNested starts nest in a pid namespace, by way of a command.
func startNested(t *testing.T, words string, way ...string) nested {
	t.Helper()
	outer, inner := "0."+words+"1", "0."+words+"2"
	// The first process of the namespace is root's, and is killed with unshare.
	argv := in(newPidNamespace, "sh", "-c", `"$@"; exit`, "sh")
	c := spawn(t, append(append(argv, way...), "sh", "-c", nest, "sh", outer, inner)...)
	var n nested
	for _, said := range []*uint32{&n.outerInOuter, &n.innerInInner} {
		if _, err := fmt.Sscan(c.line(), said); err != nil {
			t.Fatal(err)
		}
	}
	n.outer, n.inner = numbered(t, outer), numbered(t, inner)
	numbers := strings.Join(numbersOf(n.inner), " ")
	want := fmt.Sprintf("%d %s %d", n.inner, "%d", n.innerInInner)
	if _, err := fmt.Sscanf(numbers, want, &n.innerInOuter); err != nil {
		t.Fatalf("the inner process is %s, want %s: %v", numbers, want, err)
	}
	return n
}

// resolvers are the ways to find out a process: what Resolve does, and what it
// does on other kernels.
var resolvers = []struct {
	name    string
	resolve func(tid, pid uint32) (Kin, bool)
}{
	{"as it comes", Proc{}.Resolve},
	{"translated", func(tid, pid uint32) (Kin, bool) {
		return resolveIn(tid, pid, func(ns nestedNamespace) pidNamespace { return ns })
	}},
	{"scanned", func(tid, pid uint32) (Kin, bool) {
		return resolveIn(tid, pid, func(ns nestedNamespace) pidNamespace { return scannedNamespace{ns} })
	}},
}

func resolveIn(tid, pid uint32, as func(nestedNamespace) pidNamespace) (Kin, bool) {
	level, ok := levelOf(tid)
	if !ok {
		return Kin{}, false
	}
	fd, err := openNamespace(tid)
	if err != nil {
		return Kin{}, false
	}
	ns := as(nestedNamespace{fd, level})
	defer ns.close()
	return identify(ns, pid)
}

func TestResolve(t *testing.T) {
	a, b := startNested(t, "811"), startNested(t, "812")
	threads := spawn(t, in(newPidNamespace, role("threads")...)...)
	var first, thread uint32
	if _, err := fmt.Sscan(threads.line(), &first, &thread); err != nil {
		t.Fatal(err)
	}
	program := childOf(t, threads.pid())
	ownThreads := spawn(t, role("threads")...)
	var own, ownThread uint32
	if _, err := fmt.Sscan(ownThreads.line(), &own, &ownThread); err != nil {
		t.Fatal(err)
	}
	zombie := spawn(t, "true")
	eventually(t, "a zombie", func() bool { p, ok := Proc{}.Look(zombie.pid()); return ok && p.Gone })
	self := uint32(os.Getpid())

	for _, r := range resolvers {
		t.Run(r.name, func(t *testing.T) {
			for _, c := range []struct {
				name     string
				tid, pid uint32
				want     uint32 // 0: cannot be resolved
			}{
				{"oneself", self, self, self},
				{"by another thread", uint32(unix.Gettid()), a.outer, a.outer},
				{"its parent", self, uint32(os.Getppid()), uint32(os.Getppid())},
				{"from outside, by the number inside", self, a.inner, a.inner},
				{"the first there", a.outer, 1, parentOf(t, parentOf(t, a.outer))},
				{"itself, outer", a.outer, a.outerInOuter, a.outer},
				{"itself, inner", a.inner, a.innerInInner, a.inner},
				{"further inside", a.outer, a.innerInOuter, a.inner},
				{"inner's first", a.inner, 1, parentOf(t, a.inner)},
				{"another namespace's, outer", b.outer, b.outerInOuter, b.outer},
				{"another namespace's, inner", b.inner, b.innerInInner, b.inner},
				{"a program of many threads", program, first, program},

				{"none", self, 0, 0},
				{"none, inside", a.inner, 0, 0},
				{"no such number inside", a.inner, self + 30000, 0},
				{"more than a pid can be", self, maxPid + 1, 0},
				{"more than 31 bits", self, 1<<31 + self, 0},
				{"a number of outside", a.inner, a.inner, 0},
				{"a thread", self, ownThread, 0},
				{"a thread inside", program, thread, 0},
				{"a zombie", self, zombie.pid(), 0},
				{"by nobody", maxPid, self, 0},
			} {
				got, ok := r.resolve(c.tid, c.pid)
				if c.want == 0 {
					if ok {
						t.Errorf("%s: %+v, want none", c.name, got)
					}
				} else if want := kin(t, c.want); !ok || got != want {
					t.Errorf("%s: %d is %+v, %v; want %+v", c.name, c.pid, got, ok, want)
				}
			}
		})
	}
}

func parentOf(t testing.TB, pid uint32) uint32 {
	t.Helper()
	return kin(t, pid).Parent
}

// childOf returns a process's only child.
func childOf(t testing.TB, pid uint32) uint32 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// An ordinary user's daemon resolves for callers in its own namespace, and for
// its user's in others, and says no to the rest.
func TestResolveAsAnOrdinaryUser(t *testing.T) {
	roots := startNested(t, "821")
	users := startNested(t, "822", in("setpriv --reuid=1 --regid=1 --clear-groups unshare --user --map-root-user")...)
	c := spawn(t, role("resolve")...)
	if got := c.line(); got != "ready" {
		t.Fatal(got)
	}
	self := uint32(os.Getpid())
	for _, x := range []struct {
		name     string
		tid, pid uint32
		want     uint32
	}{
		{"root's, outside", self, self, self},
		{"root's, in a namespace", self, roots.outer, roots.outer},
		{"root's, by itself there", roots.outer, roots.outerInOuter, 0},
		{"root's, the first there", roots.inner, 1, 0},
		{"the user's, by itself", users.outer, users.outerInOuter, users.outer},
		{"root's, for the user's", users.outer, 1, parentOf(t, parentOf(t, users.outer))},
		{"the user's, further inside", users.outer, users.innerInOuter, users.inner},
		{"the user's, within", users.inner, users.innerInInner, users.inner},
	} {
		c.tell("%d %d", x.tid, x.pid)
		want := "no"
		if x.want != 0 {
			k := kin(t, x.want)
			want = fmt.Sprint(k.Pid, " ", k.Started)
		}
		if got := c.line(); got != want {
			t.Errorf("%s: %q, want %q", x.name, got, want)
		}
	}
}

// passing is a namespace in which a number passes from one process to another.
type passing struct {
	n        uint32 // that find returns
	notFound bool
	between  func() // called after n was looked at
	still    bool   // what has returns
}

func (p passing) find(uint32) (uint32, bool) { return p.n, !p.notFound }
func (p passing) close()                     {}

func (p passing) has(n, pid uint32) bool {
	if p.between != nil {
		p.between()
	}
	return p.still && n == p.n && pid == 7
}

// What was found is only good if the number was the same process's all along.
func TestResolveWhileNumbersPass(t *testing.T) {
	t.Run("it stays", func(t *testing.T) {
		_, k := sleeper(t)
		if got, ok := identify(passing{n: k.Pid, still: true}, 7); !ok || got != k {
			t.Errorf("%+v, %v; want %+v", got, ok, k)
		}
	})
	t.Run("it is another's by now", func(t *testing.T) {
		_, k := sleeper(t)
		if got, ok := identify(passing{n: k.Pid}, 7); ok {
			t.Errorf("%+v, want none", got)
		}
	})
	t.Run("it ends meanwhile", func(t *testing.T) {
		c, k := sleeper(t)
		end := func() {
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "its end", func() bool { p, ok := Proc{}.Look(k.Pid); return ok && p.Gone })
		}
		if got, ok := identify(passing{n: k.Pid, still: true, between: end}, 7); ok {
			t.Errorf("%+v, want none", got)
		}
	})
	t.Run("it was never there", func(t *testing.T) {
		if got, ok := identify(passing{n: 1, still: true, notFound: true}, 7); ok {
			t.Errorf("%+v, want none", got)
		}
	})
}

func BenchmarkResolve(b *testing.B) {
	c := spawn(b, in(newPidNamespace, "sh", "-c", "echo $$; read -r _")...)
	if got := c.line(); got != "1" {
		b.Fatal(got)
	}
	inside, self := childOf(b, c.pid()), uint32(os.Getpid())
	b.Run("outside", func(b *testing.B) {
		for b.Loop() {
			if _, ok := (Proc{}).Resolve(self, self); !ok {
				b.Fatal("not resolved")
			}
		}
	})
	for _, r := range resolvers {
		b.Run("inside, "+r.name, func(b *testing.B) {
			for b.Loop() {
				if _, ok := r.resolve(inside, 1); !ok {
					b.Fatal("not resolved")
				}
			}
		})
	}
}
