package lockspace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The scenarios are written down as scripts: on each line what somebody does,
// and after the arrow how it went and what came of it.
//
//	a flock x          -> got
//	b try flock s      -> held
//	b posix x 0-9      -> waits
//	a unflock          -> -a +b
//	= b x 0-9
//
// The words:
//
//	a b c ...          processes, each with an open file of its own on each lock
//	a'                 the same process through a second open file
//	c@a                process c through a's open file (inherited)
//	[try] excl, flock s|x, open s|x, posix s|x RANGE, ofd s|x RANGE
//	                   take; RANGE is first-last, "4-" goes to the end
//	link, symlink, mkdir, rename, named
//	                   make the name, which owns the hold; "named" is an O_EXCL
//	unexcl, unflock, unposix RANGE, unofd RANGE
//	test posix|ofd s|x RANGE
//	close              the process's last descriptor of the file goes
//	flush, release     the two messages of a close, alone
//	interrupted        its wait on the lock is interrupted
//	breaks             a unlinks the name: a's own holds are released, others broken
//	dies, reborn       the process is gone; its number is another process now
//	killed             it dies, and the kernel closes its file
//	exits              it dies, and others have its file
//	removes            the name: its hold by name is released, and only it
//	ends REASON        of the hold by name, by its number
//	touches            its holds on the lock are renewed
//	policy LEASE GRACE of all locks
//	move L M           a directory is renamed
//	mirror             from here on there is one
//	stranger s|x [RANGE], stranger leaves
//	                   somebody outside holds the lock, or gives all back
//	mirror closed|opened|breaks|works
//	                   it can say nothing within a step, or fails
//	grace              how long the lock stays in grace
//	pass 900ms, expire, next, shutdown, crash
//	on M               at the end: on lock M; L if there is none
//	+b -a !a           a wait was granted, a hold was released, was broken
//	a(expired)         a hold ended for another reason
//	b:deadlock         a wait was refused, and why
//	= HOLDS | QUEUE    the lock, with ~ behind those who are absent ("=M ..." for M,
//	                   "=pictures ..." for the holds in the order of pictures)
type script struct {
	*world
	names   map[[2]uint64]string // by handle and pid
	handles map[string]*Party    // by opener and lock; the handle's part of a Party
	started map[byte]time.Duration
	waits   map[string]WaitID // the last wait of a name on a lock
	lastID  WaitID
}

// play plays a script twice: as it is, and with a crash after every line.
func play(t *testing.T, text string) {
	t.Helper()
	for _, crashing := range []bool{false, true} {
		s := &script{
			world:   newWorld(t),
			names:   make(map[[2]uint64]string),
			handles: make(map[string]*Party),
			started: make(map[byte]time.Duration),
			waits:   make(map[string]WaitID),
		}
		for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
			line, _, _ = strings.Cut(line, "#")
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			s.line(t, i+1, line)
			if crashing {
				s.crash()
			}
		}
	}
}

func (s *script) line(t *testing.T, n int, line string) {
	t.Helper()
	if rest, ok := strings.CutPrefix(line, "="); ok {
		lock, want, _ := strings.Cut(rest, " ")
		got := s.show(s.key(lock))
		if lock == "pictures" {
			got = s.pictures()
		}
		if got != strings.TrimSpace(want) {
			t.Fatalf("line %d: lock is\n\t%s\nwant\n\t%s", n, got, want)
		}
		return
	}
	command, want, _ := strings.Cut(line, "->")
	s.clock.advance(time.Millisecond)
	got := s.run(t, strings.Fields(command))
	for _, h := range s.take() {
		got += " " + s.happened(h)
	}
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Fatalf("line %d: %s: got %q", n, line, strings.TrimSpace(got))
	}
}

func (s *script) key(lock string) Key {
	if lock == "" {
		lock = "L"
	}
	return Key{Dir: 1, Name: lock}
}

func (s *script) process(name byte) Process {
	if _, ok := s.started[name]; !ok {
		s.started[name] = s.clock.now.Boot - time.Minute
	}
	pid := uint32(name-'a') + 100
	return Process{Pid: pid, UID: 1000, GID: 1000, Started: s.started[name]}
}

// party returns who asks when name calls on a lock.
func (s *script) party(name, lock string) Party {
	taker, opener := name[:1], name
	if who, file, inherited := strings.Cut(name, "@"); inherited {
		taker, opener = who, file
	}
	id := opener + "/" + lock
	if s.handles[id] == nil {
		key := s.key(lock)
		s.handles[id] = &Party{
			Handle: uint64(len(s.handles) + 1),
			File:   uint64(key.Name[0]),
			Opener: s.process(opener[0]),
			Opened: s.clock.now,
		}
	}
	p := *s.handles[id]
	p.Taker = s.process(taker[0])
	s.names[[2]uint64{p.Handle, uint64(p.Taker.Pid)}] = name
	return p
}

func (s *script) run(t *testing.T, words []string) string {
	t.Helper()
	lock := ""
	if n := len(words); n > 2 && words[n-2] == "on" {
		lock, words = words[n-1], words[:n-2]
	}
	switch words[0] {
	case "pass":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			t.Fatal(err)
		}
		s.clock.advance(d)
		return ""
	case "next":
		at, ok := s.table.NextExpiry()
		if !ok {
			return "never"
		}
		return (at - s.clock.now.Boot).String()
	case "expire":
		s.Expire()
		return ""
	case "shutdown":
		s.Shutdown()
		return ""
	case "policy":
		var p Policy
		for i, d := range []*time.Duration{&p.Lease, &p.Grace} {
			var err error
			if *d, err = time.ParseDuration(words[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		s.SetPolicy(1, p)
		return ""
	case "move":
		return strings.Replace(s.outcome(true, s.Move(s.key(words[1]), s.key(words[2]))), "got", "", 1)
	case "grace":
		until, ok := s.inGrace(s.key(lock))
		if !ok {
			return "none"
		}
		return (until - s.clock.now.Boot).String()
	case "crash":
		s.crash()
		return ""
	case "mirror", "stranger":
		return s.outside(t, words, s.key(lock))
	}
	return s.act(t, words[0], words[1:], lock)
}

// outside does what happens outside of the table.
func (s *script) outside(t *testing.T, words []string, k Key) string {
	t.Helper()
	switch strings.Join(words, " ") {
	case "mirror":
		s.mirrored()
		return ""
	case "mirror closed":
		s.mirror.closed[k] = true
		return ""
	case "mirror opened":
		delete(s.mirror.closed, k)
	case "mirror breaks":
		s.mirror.broken = func(*Request) bool { return true }
	case "mirror works":
		s.mirror.broken = nil
		return ""
	case "stranger leaves":
		delete(s.mirror.strangers, k)
	default:
		r := s.parse(t, k, Party{}, append([]string{"flock"}, words[1:]...))
		if !s.mirror.take(k, strange{cellsOf(r.Range), r.Mode}) {
			return "held"
		}
		return "got"
	}
	s.Reconsider(k)
	return ""
}

// act does what one party does.
func (s *script) act(t *testing.T, name string, words []string, lock string) string {
	t.Helper()
	key, p, verb := s.key(lock), s.party(name, lock), words[0]
	posix := 1000 + uint64(p.Taker.Pid)
	switch verb {
	case "close":
		s.EndOwner(key, p.File, posix, Released)
		s.EndHandle(key, p.Handle, Released)
	case "flush":
		s.EndOwner(key, p.File, posix, Released)
	case "release":
		s.EndHandle(key, p.Handle, Released)
	case "interrupted":
		if !s.Cancel(s.waits[name+"/"+lock]) {
			return "nothing"
		}
	case "breaks":
		s.End(key, func(h *Hold) Reason {
			if h.Party.Taker.Pid == p.Taker.Pid {
				return Released
			}
			return Broken
		})
	case "killed":
		s.procs.dead[p.Taker.Pid] = true
		s.EndOwner(key, p.File, posix, Died)
		s.EndHandle(key, p.Handle, Died)
	case "exits":
		s.procs.dead[p.Taker.Pid] = true
		s.EndOwner(key, p.File, posix, Died)
	case "removes":
		if !s.EndNamed(key, Released) {
			return "nothing"
		}
	case "ends":
		h := s.table.Named(key)
		if h == nil {
			return "nothing"
		}
		why := slices.IndexFunc([]Reason{Released, Broken, Reaped, Expired, Died, Lost}, func(r Reason) bool { return r.String() == words[1] })
		if !s.EndHold(h.ID, Reason(why)) {
			return "nothing"
		}
	case "touches":
		s.Renew(key, func(h *Hold) bool { return h.Party.Taker.Pid == p.Taker.Pid })
	case "dies":
		s.died(p.Taker.Pid)
	case "reborn":
		s.started[name[0]] = s.clock.now.Boot
		delete(s.procs.dead, p.Taker.Pid)
	case "try", "test":
		r := s.parse(t, key, p, words[1:])
		if verb == "try" {
			return s.outcome(true, s.Try(r))
		}
		h, found, err := s.Test(r)
		if !found || err != nil {
			return strings.Replace(s.outcome(true, err), "got", "free", 1)
		}
		return s.hold(&h)
	default:
		r := s.parse(t, key, p, words)
		if strings.HasPrefix(verb, "un") {
			s.Unlock(key, r.Party, r.Via, r.Range)
			return ""
		}
		s.lastID++
		s.waits[name+"/"+lock] = s.lastID
		return s.outcome(s.Acquire(r, s.lastID))
	}
	return ""
}

// parse reads "flock x" or "posix s 0-9"; for "unposix 0-9" the mode is
// left out.
func (s *script) parse(t *testing.T, key Key, p Party, words []string) Request {
	t.Helper()
	r := Request{Key: key, Party: p, Mode: Exclusive, Range: Whole, Thread: p.Taker.Pid * 10}
	switch strings.TrimPrefix(words[0], "un") {
	case "excl":
		r.Via = ViaExcl
	case "named":
		r.Via, r.ByName = ViaExcl, true
	case "link", "symlink", "mkdir", "rename":
		r.Via = map[string]Via{"link": ViaLink, "symlink": ViaSymlink, "mkdir": ViaMkdir, "rename": ViaRename}[words[0]]
		r.Party.Handle, r.Party.File = 0, 1000 // a node of its own
		s.names[[2]uint64{0, uint64(p.Taker.Pid)}] = s.name(&Request{Party: p})
	case "flock":
		r.Via = ViaFlock
	case "open":
		r.Via = ViaOpen
	case "posix":
		r.Via, r.Party.Owner = ViaFcntl, 1000+uint64(p.Taker.Pid)
	case "ofd":
		r.Via, r.Party.Owner = ViaFcntl, 2000+p.Handle
		r.Thread++
		s.procs.class[r.Thread] = ClassOFD
	default:
		t.Fatalf("no such word: %q", words[0])
	}
	for _, w := range words[1:] {
		switch w {
		case "s":
			r.Mode = Shared
		case "x":
			r.Mode = Exclusive
		default:
			r.Range.Last = MaxOffset
			if n, err := fmt.Sscanf(w, "%d-%d", &r.Range.First, &r.Range.Last); n == 0 {
				t.Fatalf("not a range: %q: %v", w, err)
			}
		}
	}
	return r
}

func (s *script) outcome(granted bool, err error) string {
	switch {
	case errors.Is(err, ErrGrace):
		return "grace"
	case errors.Is(err, ErrForeign):
		return "foreign"
	case errors.Is(err, ErrHeld):
		return "held"
	case errors.Is(err, ErrDeadlock):
		return "deadlock"
	case errors.Is(err, ErrLookup):
		return "lookup"
	case errors.Is(err, ErrRange):
		return "range"
	case err != nil:
		return err.Error()
	case granted:
		return "got"
	}
	return "waits"
}

func (s *script) happened(h happening) string {
	if h.wait == nil {
		name := s.name(&h.hold.Request)
		switch h.reason {
		case Released:
			return "-" + name
		case Broken:
			return "!" + name
		}
		return fmt.Sprintf("%s(%v)", name, h.reason)
	}
	name := s.name(&h.wait.Request)
	switch h.err {
	case nil:
		return "+" + name
	case ErrBroken:
		return name + ":broken"
	case ErrShutdown:
		return name + ":shutdown"
	}
	return name + ":" + s.outcome(false, h.err)
}

func (s *script) name(r *Request) string {
	return s.names[[2]uint64{r.Party.Handle, uint64(r.Party.Taker.Pid)}]
}

// hold writes a hold as "a x" or, for a range, "a x 0-9".
func (s *script) hold(h *Hold) string {
	text := s.name(&h.Request) + " " + h.Mode.String()[:1]
	text = strings.Replace(text, " e", " x", 1)
	if h.ByName {
		text += " " + h.Via.String()
	}
	if h.Via == ViaFcntl {
		text += " " + strings.TrimSuffix(h.Range.String(), "end")
	}
	return text
}

func (s *script) show(k Key) string {
	st := s.state()[k]
	var holds, queue []string
	for _, h := range st.holds {
		holds = append(holds, s.hold(&h))
	}
	for _, w := range st.queue {
		name := s.name(&w.Request)
		if w.AbsentUntil != 0 {
			name += "~"
		}
		queue = append(queue, name)
	}
	text := strings.Join(holds, ", ")
	if len(queue) > 0 {
		text += " | " + strings.Join(queue, " ")
	}
	return strings.TrimSpace(text)
}
