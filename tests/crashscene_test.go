package tests

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scene is where one case takes place: a mount whose workers die as planned,
// a name that nobody has used yet, and some processes.
type scene struct {
	t    testing.TB
	m    *Mount
	plan *crashPlan
	what string // the case, for messages

	name, path string
	// names: the cases leave names behind.
	names bool
	// hold is the mount's policy, backing the directory that it is mirrored in.
	hold, backing string
	// a mostly holds, b wants, c comes after; look looks on.
	a, b, c, look *Client
	// token is the highest that was seen.
	token uint64

	// What a kind of request keeps between its functions.
	fd, fd2     int
	alice       *Client
	wait, wait2 *Pending
	prog        *background

	opened []openFile
}

type openFile struct {
	c  *Client
	fd int
}

func newScene(t testing.TB, m *Mount, p *crashPlan) *scene {
	t.Helper()
	s := &scene{t: t, m: m, plan: p, hold: holdByHandle}
	for _, hold := range []string{holdByName, holdByOpen} {
		if slices.Contains(m.argv, hold) {
			s.hold = hold
		}
	}
	for _, c := range []**Client{&s.a, &s.b, &s.c, &s.look} {
		*c = newClient(t)
		(*c).onMain = true
	}
	return s
}

func (s *scene) errorf(format string, args ...any) {
	s.t.Helper()
	s.t.Errorf("%s: %s", s.what, fmt.Sprintf(format, args...))
}

// want fails the case unless err is what was wanted.
func (s *scene) want(what string, err, want error) {
	s.t.Helper()
	if err != want {
		s.errorf("%s: %v, want %v", what, err, want)
	}
}

// open opens the scene's name; the file is closed at the end of the case.
func (s *scene) open(c *Client, flags int) int {
	s.t.Helper()
	fd, err := c.TryOpen(s.path, flags)
	s.want("open", err, nil)
	s.note(c, fd)
	return fd
}

// note has a descriptor closed at the end of the case.
func (s *scene) note(c *Client, fd int) {
	if fd > 0 {
		s.opened = append(s.opened, openFile{c, fd})
	}
}

// shut closes a descriptor.
func (s *scene) shut(c *Client, fd int) {
	s.t.Helper()
	s.opened = slices.DeleteFunc(s.opened, func(f openFile) bool { return f == openFile{c, fd} })
	s.want("close", c.Close(fd), nil)
}

// queue has a client wait for the scene's lock by flock, and returns when it
// does, with so many in the queue.
func (s *scene) queue(c *Client, how, waiting int) *Pending {
	s.t.Helper()
	return s.queueBy(c, waiting, func(fd int) *Pending { return c.StartFlock(fd, how) })
}

// queueBy is queue by another call, which is not made by the first thread: it
// has other calls to make.
func (s *scene) queueBy(c *Client, waiting int, start func(fd int) *Pending) *Pending {
	s.t.Helper()
	fd := s.open(c, openFlags)
	c.onMain = false
	p := start(fd)
	c.onMain = true
	s.awaitWaiting(waiting)
	return p
}

// awaitWaiting waits until so many wait for the scene's lock.
func (s *scene) awaitWaiting(n int) {
	s.t.Helper()
	var got string
	for end := time.Now().Add(answerLimit); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		if got = s.record(s.path)["waiting"]; got == strconv.Itoa(n) {
			return
		}
	}
	s.errorf("waiting=%s, want %d", got, n)
}

// awaitLine waits until somebody waits for the scene's lock, whoever has it.
func (s *scene) awaitLine() {
	s.t.Helper()
	eventually(s.t, answerLimit, func() bool {
		text, _ := s.look.ReadAll(s.m.Path(".lockfs/lock/" + s.name + "/waiting"))
		return text != ""
	}, "somebody waits")
}

// record returns the record of the one holder of a lock, nil if it is free.
func (s *scene) record(path string) record {
	s.t.Helper()
	text, err := s.look.ReadAll(path)
	if err == unix.ENOENT || err == nil && text == "" {
		return nil
	}
	s.want("reading the record", err, nil)
	records := parseRecords(s.t, text)
	if len(records) != 1 {
		s.errorf("%d holders, want one: %q", len(records), text)
	}
	return records[0]
}

// holds fails the case unless one process holds the scene's lock, with so many
// waiting; grant says that this is a hold that was not seen yet, so that its
// token is higher than all that were.
func (s *scene) holds(pid, waiting int, via string, grant bool) {
	s.t.Helper()
	r := s.record(s.path)
	if r["pid"] != strconv.Itoa(pid) || r["waiting"] != strconv.Itoa(waiting) || r["via"] != via {
		s.errorf("held by pid=%s via=%s waiting=%s, want pid=%d via=%s waiting=%d",
			r["pid"], r["via"], r["waiting"], pid, via, waiting)
		return
	}
	s.seeToken(r, grant)
}

// seeToken looks at a hold's token.
func (s *scene) seeToken(r record, grant bool) {
	s.t.Helper()
	token, err := strconv.ParseUint(r["token"], 10, 64)
	if err != nil || grant && token <= s.token {
		s.errorf("token=%s for a new hold after %d: %v", r["token"], s.token, err)
	}
	s.token = max(s.token, token)
}

// free fails the case if somebody holds the scene's lock.
func (s *scene) free() {
	s.t.Helper()
	if r := s.record(s.path); r != nil {
		s.errorf("held by pid=%s via=%s, want it free", r["pid"], r["via"])
	}
}

// body fails the case unless the scene's lock has this body.
func (s *scene) body(want string) {
	s.t.Helper()
	text, err := s.look.ReadAll(s.path)
	if err != nil || text != want {
		s.errorf("the body is %.100q (%v), want %.100q", text, err, want)
	}
}

// waits fails the case if a call has returned.
func (s *scene) waits(what string, p *Pending) {
	s.t.Helper()
	if p.Done() {
		s.errorf("%s has returned (%v), want it to wait", what, p.err)
	}
}

// sync returns when all requests that were made before have been carried out.
// Forgets may be overtaken by requests, but not for long.
func (s *scene) sync() {
	s.t.Helper()
	for range 2 {
		_, err := s.look.Statfs(s.m.Dir)
		s.want("statfs", err, nil)
	}
}

// awaitCall waits until the first thread of a client is in a system call, such
// as unix.SYS_FLOCK: its request is in the kernel's queue then.
func (s *scene) awaitCall(c *Client, number int) {
	s.t.Helper()
	file := fmt.Sprintf("/proc/%d/syscall", c.Pid())
	want := fmt.Appendf(nil, "%d ", number)
	eventually(s.t, answerLimit, func() bool {
		text, err := os.ReadFile(file)
		return err == nil && bytes.HasPrefix(text, want)
	}, "a client is in a system call")
}

// leave ends the programs of the case, closes what is open, and makes sure
// that nothing is left, and that others can take and give back.
func (s *scene) leave() {
	s.t.Helper()
	if s.prog != nil {
		s.prog.kill()
		s.prog.await(s.t, answerLimit)
		s.prog = nil
	}
	for len(s.opened) > 0 {
		f := s.opened[0]
		s.shut(f.c, f.fd)
	}
	for _, p := range []*Pending{s.wait, s.wait2} {
		if p != nil {
			p.Wait(s.t)
		}
	}
	s.wait, s.wait2 = nil, nil
	if s.names {
		s.removeAll()
	}
	if names := s.look.Readdir(s.m.Dir); len(names) > 0 {
		s.errorf("%q are still held", names)
	}
	if n, err := s.look.Statfs(s.m.Dir); n != 0 || err != nil {
		s.errorf("%d holds are left (%v)", n, err)
	}
	s.ordinary(s.path)
}

// ordinary has two clients take a lock one after the other.
func (s *scene) ordinary(path string) {
	s.t.Helper()
	if s.hold == holdByOpen {
		s.ordinaryOpen(path)
		return
	}
	fd, err := s.c.TryOpen(path, takeFlags)
	s.want("an ordinary take", err, nil)
	_, err = s.b.TryOpen(path, takeFlags)
	s.want("a take of what is held", err, unix.EEXIST)
	if s.hold == holdByName {
		s.heldBy(path, s.c)
	} else if r := s.record(path); r["pid"] != strconv.Itoa(s.c.Pid()) {
		s.errorf("after an ordinary take the holder is %v, want %d", r, s.c.Pid())
	} else {
		s.seeToken(r, true)
	}
	s.want("an ordinary release", s.giveBack(s.c, path, fd), nil)
	if fd, err = s.b.TryOpen(path, takeFlags); err == nil {
		err = s.giveBack(s.b, path, fd)
	}
	s.want("the next take", err, nil)
}

// run plays a case: the deaths come about while the request is made, all of
// them or, of steps that it does not come by, none.
func (s *scene) run(k *kind, deaths []death, all bool) {
	s.t.Helper()
	var names []string
	for _, d := range deaths {
		names = append(names, d.String())
	}
	s.what = fmt.Sprintf("%s, deaths at %s", k.name, strings.Join(names, ", "))
	deaths = append(slices.Clone(k.before), deaths...)
	want := len(deaths)
	if !all {
		want--
	}
	k.setup(s)
	s.sync()
	s.plan.arm(deaths...)
	k.call(s)
	if !s.plan.await(want) {
		s.errorf("%d of the deaths have come about, want %d", s.plan.met()-len(k.before), want-len(k.before))
	}
	if !all {
		s.sync()
		if s.plan.met() > want {
			s.errorf("a request of this kind does not come by that step, and a worker has died there")
		}
	}
	s.plan.disarm()
	k.check(s)
	s.leave()
}

// stopKeeper has no worker follow the one that dies next, until the keeper
// goes on.
func (s *scene) stopKeeper()     { s.m.Signal(syscall.SIGSTOP) }
func (s *scene) continueKeeper() { s.m.Signal(syscall.SIGCONT) }
