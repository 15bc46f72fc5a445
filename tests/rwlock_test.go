package tests

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockspace/rwlock"
)

// Part 4, Coda's read/write locks, by the Go package and by files, each party a
// process of its own.

// rwUser is a process that uses a read/write lock.
type rwUser struct {
	*Client
	t testing.TB
}

// newRWUser starts one.
func newRWUser(t testing.TB, path string, opts ...clientOption) rwUser {
	t.Helper()
	u := rwUser{newClient(t, opts...), t}
	u.init(path, nil)
	return u
}

func (u rwUser) init(path string, want error) {
	u.t.Helper()
	_, err := u.callPackage(packageCall{Call: "rwlock.Init", Name: []byte(path)})
	wantIs(u.t, "Init "+path, err, want)
}

// try makes a call that is over at once.
func (u rwUser) try(call string, want error) {
	u.t.Helper()
	_, err := u.callPackage(packageCall{Call: call})
	wantIs(u.t, call, err, want)
}

// begin begins a call that must wait.
func (u rwUser) begin(call string) *Pending {
	u.t.Helper()
	p := u.startPackage(packageCall{Call: call})
	p.MustBlock(u.t)
	return p
}

// got waits for what was begun.
func (u rwUser) got(p *Pending, want error) {
	u.t.Helper()
	_, err := endPackage(u.t, p)
	wantIs(u.t, p.what, err, want)
}

// wantCheck compares what CheckLock says, and what the file says, with what they
// should.
func (u rwUser) wantCheck(m *Mount, name string, want int) {
	u.t.Helper()
	n, err := u.callPackage(packageCall{Call: "CheckLock"})
	text, exit := sh(u.t, m, `cat .lockfs/lock/`+name+`/check`)
	if n != want || err != nil || text != fmt.Sprintln(want) || exit != 0 {
		u.t.Fatalf("CheckLock says %d (%v), the file %q; want %d", n, err, text, want)
	}
}

func TestReadersTogetherAWriterAlone(t *testing.T) {
	for _, policy := range []string{"hold=handle", "hold=name"} {
		t.Run(policy, func(t *testing.T) {
			m := mount(t, "--policy", policy)
			path := m.Path("vnode")
			a, b, c := newRWUser(t, path), newRWUser(t, path, asAlice()), newRWUser(t, path, asBob())
			a.wantCheck(m, "vnode", 0)
			b.try("ObtainReadLock", nil)
			c.wantCheck(m, "vnode", 1)
			c.try("ObtainReadLock", nil)
			a.wantCheck(m, "vnode", 2)
			write := a.begin("ObtainWriteLock")
			b.try("ReleaseReadLock", nil)
			write.MustBlock(t)
			c.try("ReleaseReadLock", nil)
			a.got(write, nil)
			b.wantCheck(m, "vnode", -1)
			read, write := b.begin("ObtainReadLock"), c.begin("ObtainWriteLock")
			a.try("ReleaseWriteLock", nil)
			b.got(read, nil)
			write.MustBlock(t)
			b.wantCheck(m, "vnode", 1)
			b.try("ReleaseReadLock", nil)
			c.got(write, nil)
			c.try("ReleaseWriteLock", nil)
			a.wantCheck(m, "vnode", 0)
			for _, u := range []rwUser{a, b, c} {
				u.try("ReleaseReadLock", rwlock.ErrNotHeld)
			}
		})
	}
}

func TestAskingForAReadWriteLockTwice(t *testing.T) {
	m := mount(t)
	a, b := newRWUser(t, m.Path("lock")), newRWUser(t, m.Path("lock"))
	a.try("ObtainReadLock", nil)
	a.try("ObtainReadLock", rwlock.ErrTwice)
	a.try("ObtainWriteLock", rwlock.ErrTwice)
	a.try("ReleaseWriteLock", rwlock.ErrMode)
	write := b.begin("ObtainWriteLock")
	b.try("ObtainReadLock", rwlock.ErrTwice)
	b.try("ReleaseWriteLock", rwlock.ErrNotHeld)
	a.try("ReleaseReadLock", nil)
	b.got(write, nil)
	b.try("ObtainWriteLock", rwlock.ErrTwice)
	b.try("ReleaseReadLock", rwlock.ErrMode)
	b.wantCheck(m, "lock", -1)
	b.try("ReleaseWriteLock", nil)
}

func TestWhereReadWriteLocksAre(t *testing.T) {
	m := mount(t)
	if out, exit := sh(t, m, `mkdir opens names && echo open >opens/.lockfs/policy/hold && echo name >names/.lockfs/policy/hold`); exit != 0 {
		t.Fatalf("exit %d: %s", exit, out)
	}
	u := rwUser{newClient(t), t}
	u.init(m.Path("opens/lock"), rwlock.ErrPolicy)
	u.init(m.Path("none/lock"), rwlock.ErrNotLockfs)
	u.init(t.TempDir()+"/lock", rwlock.ErrNotLockfs)
	u.init(m.Path(".lockfs"), rwlock.ErrBadName)
	for _, name := range []string{"names/lock", "caf\xe9", " a\nb", "-", strings.Repeat("n", 255)} {
		u.init(m.Path(name), nil)
		u.try("ObtainWriteLock", nil)
		if n, err := u.callPackage(packageCall{Call: "CheckLock"}); n != -1 || err != nil {
			t.Errorf("%q: CheckLock says %d (%v)", name, n, err)
		}
		u.try("ReleaseWriteLock", nil)
	}
}

// "The lock package guarantees fairness: each reader and writer will eventually have a
// chance": they are served in order, by Go and by flock(1) alike, whether a context
// is there or not, and though workers die.
func TestReadersAndWritersAreServedInOrder(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Minute} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("limit %v, workers killed %v", limit, killed), func(t *testing.T) {
				m := mount(t)
				path := m.Path("lock")
				holder := newRWUser(t, path)
				holder.try("ObtainWriteLock", nil)
				const queue = "RRWRWWRR"
				var users []rwUser
				var waits []*Pending
				for i, how := range queue {
					u := newRWUser(t, path)
					call := packageCall{Call: "ObtainReadLock", Limit: limit}
					if how == 'W' {
						call.Call = "ObtainWriteLock"
					}
					users, waits = append(users, u), append(waits, u.startPackage(call))
					awaitInLine(t, m, i+1)
				}
				if killed {
					startKiller(t, m, 20*time.Millisecond)
				}
				holder.try("ReleaseWriteLock", nil)
				for next := 0; next < len(queue); {
					// A writer alone, readers up to the next writer together.
					last, release := next+1, "ReleaseWriteLock"
					if queue[next] == 'R' {
						release = "ReleaseReadLock"
						for last < len(queue) && queue[last] == 'R' {
							last++
						}
					}
					for i := next; i < last; i++ {
						users[i].got(waits[i], nil)
					}
					time.Sleep(blockTime / 2)
					for i := last; i < len(queue); i++ {
						if waits[i].Done() {
							t.Fatalf("of %s, number %d is inside together with %d", queue, i, next)
						}
					}
					for i := next; i < last; i++ {
						users[i].try(release, nil)
					}
					next = last
				}
				holder.wantCheck(m, "lock", 0)
			})
		}
	}
}

// awaitInLine waits until so many wait for "lock".
func awaitInLine(t testing.TB, m *Mount, n int) {
	t.Helper()
	eventually(t, answerLimit, func() bool {
		out, _ := sh(t, m, `wc -l <.lockfs/lock/lock/waiting`)
		return strings.TrimSpace(out) == strconv.Itoa(n)
	}, fmt.Sprint(n, " are in line"))
}

// Readers that come and go all the time, so that there is always one, do not keep a
// writer out.
func TestReadersDoNotStarveAWriter(t *testing.T) {
	m := mount(t)
	writer := newRWUser(t, m.Path("lock"))
	var reading []*Pending
	for range 4 {
		reading = append(reading, newRWUser(t, m.Path("lock")).startPackage(packageCall{Call: "read all the time", Limit: 2 * time.Second}))
	}
	wrote := 0
	for ; !reading[0].Done(); wrote++ {
		writer.try("ObtainWriteLock", nil)
		writer.try("ReleaseWriteLock", nil)
	}
	for _, p := range reading {
		n, err := endPackage(t, p)
		if t.Logf("a reader got in %d times, the writer %d times", n, wrote); n < 20 || wrote < 20 || err != nil {
			t.Errorf("that is too little (%v)", err)
		}
	}
}

// A shell's flock is the same lock.
func TestReadWriteLocksAreFiles(t *testing.T) {
	m := mount(t)
	u := newRWUser(t, m.Path("vnode"))
	reader := m.script(t, `exec 9>>vnode; flock -s 9; echo held; read x`, asAlice())
	reader.Held(t)
	u.wantCheck(m, "vnode", 1)
	u.try("ObtainReadLock", nil)
	u.wantCheck(m, "vnode", 2)
	writer := m.script(t, `exec 9>>vnode; flock -x 9; echo held; read x`, asBob())
	writer.MustBlock(t)
	reader.Release(t)
	u.try("ReleaseReadLock", nil)
	writer.Held(t)
	u.wantCheck(m, "vnode", -1)
	read := u.begin("ObtainReadLock")
	writer.Release(t)
	u.got(read, nil)
}

// Whoever dies gives back what he held, or leaves the line; who gives up, too.
func TestWhoLeavesAReadWriteLock(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	holder, reader := newRWUser(t, path), newRWUser(t, path)
	holder.try("ObtainReadLock", nil)
	for what, leave := range map[string]func(rwUser){
		"killed":                 func(u rwUser) { u.Kill() },
		"killed, with a context": func(u rwUser) { u.Kill() },
		"stopped by its context": func(rwUser) {},
	} {
		writer := newRWUser(t, path)
		call := packageCall{Call: "ObtainWriteLock"}
		switch {
		case strings.HasPrefix(what, "stopped"):
			call.Limit = 3 * time.Second // the others are in line by then
		case strings.Contains(what, "context"):
			call.Limit = time.Minute
		}
		write := writer.startPackage(call)
		awaitInLine(t, m, 1)
		read := reader.startPackage(packageCall{Call: "ObtainReadLock"})
		awaitInLine(t, m, 2)
		leave(writer)
		reader.got(read, nil)
		if strings.HasPrefix(what, "stopped") {
			writer.got(write, context.DeadlineExceeded)
		}
		reader.try("ReleaseReadLock", nil)
		awaitInLine(t, m, 0)
	}
	write := reader.begin("ObtainWriteLock")
	holder.Kill()
	reader.got(write, nil)
}

// A lock that was broken is told of at its release.
func TestAReadWriteLockThatWasBroken(t *testing.T) {
	m := mount(t)
	a, b := newRWUser(t, m.Path("lock"), asAlice()), newRWUser(t, m.Path("lock"), asBob())
	a.try("ObtainWriteLock", nil)
	write := b.begin("ObtainWriteLock")
	if _, exit := sh(t, m, `rm lock`); exit != 0 {
		t.Fatalf("rm: exit %d", exit)
	}
	b.got(write, nil)
	a.try("ReleaseWriteLock", rwlock.ErrLost)
	a.wantCheck(m, "lock", -1)
	a.try("ReleaseWriteLock", rwlock.ErrNotHeld)
	b.try("ReleaseWriteLock", nil)
	a.try("ObtainWriteLock", nil)
}

// A worker that is stopped, and killed, while everything waits for it.
func TestReadWriteLocksOverAWorkersDeath(t *testing.T) {
	m := mount(t)
	path := m.Path("lock")
	a, b := newRWUser(t, path), newRWUser(t, path)
	a.try("ObtainReadLock", nil)
	for range 5 {
		write := b.begin("ObtainWriteLock")
		strikeWorker(m)
		a.wantCheck(m, "lock", 1)
		write.MustBlock(t)
		strikeWorker(m)
		a.try("ReleaseReadLock", nil)
		b.got(write, nil)
		read := a.begin("ObtainReadLock")
		strikeWorker(m)
		b.try("ReleaseWriteLock", nil)
		a.got(read, nil)
	}
}
