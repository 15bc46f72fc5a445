package fs_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace"
)

// 1.7: events.

// line is a line of events, parsed.
type line struct {
	Event      string
	Time       time.Time
	Path       string
	PathBase64 *string `json:"path_base64"`
	Token      uint64
	Pid, UID   uint32
	Comm       string
	CommBase64 *string `json:"comm_base64"`
	Opener     uint32
	Via, Mode  string
	First      uint64
	Last       *uint64
	Reason     string
	Held       float64
	Waited     float64
	By         *struct{ Pid, UID uint32 }
	Schema     int
	Count      uint64
	Workers    int
}

// name is the exact path.
func (l *line) name() string {
	if l.PathBase64 == nil {
		return l.Path
	}
	b, err := base64.StdEncoding.DecodeString(*l.PathBase64)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func parseLines(t testing.TB, text string) (lines []line) {
	t.Helper()
	for _, s := range strings.SplitAfter(text, "\n") {
		if s == "" {
			continue
		}
		var l line
		d := json.NewDecoder(strings.NewReader(s))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil || !strings.HasSuffix(s, "}\n") {
			t.Fatalf("%q is no line of events: %v", s, err)
		}
		lines = append(lines, l)
	}
	return lines
}

// stream is an open stream, and what was read of it.
type stream struct {
	*served
	file
	text string
}

func (s *served) openEvents() *stream {
	s.t.Helper()
	return &stream{s, s.mustOpen(s.walk(".lockfs", "events"), unix.O_RDONLY), ""}
}

// startRead begins a read behind what was read before.
func (r *stream) startRead(size uint32, flags uint32) uint64 {
	r.t.Helper()
	return r.send(opRead, r.node, u64(r.handle), u64(uint64(len(r.text))), u32(size), u32(0), u64(0), u32(flags), u32(0))
}

// drain reads all there is now, in reads of a size.
func (r *stream) drain(size uint32) (text string) {
	r.t.Helper()
	for {
		time.Sleep(100 * time.Millisecond)
		got := r.await(r.startRead(size, unix.O_NONBLOCK))
		if got.errno == unix.EAGAIN {
			return text
		}
		if got.errno != 0 || len(got.body) == 0 || len(got.body) > int(size) {
			r.t.Fatalf("a read of %d bytes: %v, %q", size, got.errno, got.body)
		}
		text += string(got.body)
		r.text += string(got.body)
	}
}

// poll asks which events are ready, and wants to be told.
func (r *stream) poll(id uint64) uint32 {
	r.t.Helper()
	return native.Uint32(r.call(opPoll, r.node, u64(r.handle), u64(id), u32(1), u32(unix.POLLIN|unix.POLLOUT)).body)
}

// serveEvents is a mount in a bubble whose records are kept.
func serveEvents(t testing.TB) (*served, store) {
	t.Helper()
	records := store{}
	s := serveInBubble(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
	return s, records
}

// The lines, byte for byte: they are a contract.
func TestLinesOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := serveEvents(t)
		r := s.openEvents()
		s.mustCreate("x", unix.O_EXCL)
		time.Sleep(1750 * time.Millisecond)
		s.restore(records)
		s.call(opGetattr, 1, zeros(16))
		got := strings.ReplaceAll(r.drain(4096), "2000-01-01T", "")
		want := strings.Join([]string{
			`{"event":"opened","time":"00:00:00.000000000Z","schema":1}`,
			`{"event":"recovered","time":"00:00:01.750000000Z","workers":2}`,
		}, "\n") + "\n"
		if got != want {
			t.Errorf("after the process was replaced:\n%s\nwant\n%s", got, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveEvents(t)
		r := s.openEvents()
		s.caller.pid = 101
		x := s.mustCreate("x", 0)
		s.caller.pid = 102
		s.flock(x, unix.F_WRLCK)
		time.Sleep(1500 * time.Millisecond)
		s.caller.pid, s.caller.uid = 103, 0
		y := s.mustCreate("x", 0)
		u := s.startFlock(y, unix.F_WRLCK)
		time.Sleep(250 * time.Millisecond)
		s.call(opUnlink, 1, cstring("x"))
		synctest.Wait() // it looks who holds it
		if got := s.await(u); got.errno != 0 {
			t.Fatal("the waiter:", got.errno)
		}
		s.flock(y, unix.F_UNLCK)
		z := s.mustCreate("z\xff", 0)
		s.call(opSetlk, z.node, s.lockBody(z, 9, unix.F_RDLCK, 5, 9, false))
		u = s.send(opSetlkw, z.node, s.lockBody(file{z.node, s.mustCreate("z\xff", 0).handle}, 8, unix.F_WRLCK, 5, toEnd, false))
		s.send(opInterrupt, 0, u64(u))
		got := strings.ReplaceAll(r.drain(4096), "2000-01-01T", "")
		want := strings.Join([]string{
			`{"event":"opened","time":"00:00:00.000000000Z","schema":1}`,
			`{"event":"taken","time":"00:00:00.000000000Z","path":"x","token":1,"pid":102,"uid":1000,"comm":"program","opener":101,"via":"flock","mode":"exclusive","first":0,"last":null,"reason":"","held":0,"waited":0}`,
			`{"event":"waiting","time":"00:00:01.500000000Z","path":"x","token":0,"pid":103,"uid":0,"comm":"program","opener":103,"via":"flock","mode":"exclusive","first":0,"last":null,"reason":"","held":0,"waited":0}`,
			`{"event":"broken","time":"00:00:01.750000000Z","path":"x","token":1,"pid":102,"uid":1000,"comm":"program","opener":101,"via":"flock","mode":"exclusive","first":0,"last":null,"reason":"","held":1.75,"waited":0,"by":{"pid":103,"uid":0}}`,
			`{"event":"taken","time":"00:00:01.750000000Z","path":"x","token":2,"pid":103,"uid":0,"comm":"program","opener":103,"via":"flock","mode":"exclusive","first":0,"last":null,"reason":"","held":0,"waited":0.25}`,
			`{"event":"released","time":"00:00:01.750000000Z","path":"x","token":2,"pid":103,"uid":0,"comm":"program","opener":103,"via":"flock","mode":"exclusive","first":0,"last":null,"reason":"released","held":0,"waited":0}`,
			`{"event":"taken","time":"00:00:01.750000000Z","path":"z` + "\ufffd" + `","path_base64":"ev8=","token":3,"pid":103,"uid":0,"comm":"program","opener":103,"via":"fcntl","mode":"shared","first":5,"last":9,"reason":"","held":0,"waited":0}`,
			`{"event":"waiting","time":"00:00:01.750000000Z","path":"z` + "\ufffd" + `","path_base64":"ev8=","token":0,"pid":103,"uid":0,"comm":"program","opener":103,"via":"fcntl","mode":"exclusive","first":5,"last":null,"reason":"","held":0,"waited":0}`,
			`{"event":"refused","time":"00:00:01.750000000Z","path":"z` + "\ufffd" + `","path_base64":"ev8=","token":0,"pid":103,"uid":0,"comm":"program","opener":103,"via":"fcntl","mode":"exclusive","first":5,"last":null,"reason":"interrupted","held":0,"waited":0}`,
		}, "\n") + "\n"
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// Names of any bytes come back exactly, by whatever sizes the stream is read.
func TestNamesInEvents(t *testing.T) {
	names := []string{"a b", "new\nline", `quo"te\`, "tab\t\x01\x7f", "ümläut\u2028", "broken\xff\xc3", "\xed\xa0\x80", "\ufffd", "\xff",
		strings.Repeat("\x01", 255)}
	for _, size := range []uint32{1, 7, 100, 4096, 1 << 16} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := serveEvents(t)
			r := s.openEvents()
			for _, n := range names {
				s.release(s.mustCreate(n, unix.O_EXCL))
			}
			lines := parseLines(t, drainAll(r, size))
			if len(lines) != 1+2*len(names) {
				t.Fatalf("%d lines", len(lines))
			}
			for i, n := range names {
				for _, l := range lines[1+2*i : 3+2*i] {
					if l.name() != n || (l.PathBase64 == nil) != (l.Path == n) {
						t.Errorf("read by %d: %+v is of %q", size, l, n)
					}
				}
			}
		})
	}
}

// drainAll is drain without looking for long whether there is more.
func drainAll(r *stream, size uint32) string {
	text := r.drain(size)
	for {
		more := r.drain(size)
		if more == "" {
			return text
		}
		text += more
	}
}

// A path that is longer than a page comes whole, and from a process that dies in
// the middle of it the rest is not taken for a line.
func TestALineThatIsLongerThanAPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := serveEvents(t)
		dir, path := uint64(1), ""
		for range 5 {
			name := strings.Repeat("\x01", 255)
			made := s.call(opMkdir, dir, u32(0o777), u32(0), cstring(name))
			if made.errno != 0 {
				t.Fatal(made.errno)
			}
			dir, path = native.Uint64(made.body), path+name+"/"
		}
		r := s.openEvents()
		take := func() {
			made := s.call(opCreate, dir, u32(unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring("x"))
			s.release(file{native.Uint64(made.body), native.Uint64(made.body[128:])})
		}
		take()
		lines := parseLines(t, drainAll(r, 4096))
		if len(lines) != 3 || lines[1].name() != path+"x" || lines[2].name() != path+"x" {
			t.Fatalf("%d lines", len(lines))
		}
		take()
		first := s.await(r.startRead(4096, 0)) // of more than one page
		r.text += string(first.body)
		s.restore(records)
		s.call(opGetattr, 1, zeros(16))
		rest := strings.SplitAfter(r.drain(4096), "\n")
		if strings.HasSuffix(string(first.body), "\n") || len(rest) < 2 {
			t.Fatalf("%q goes on with %q", first.body, rest)
		}
		if lines := parseLines(t, strings.Join(rest[1:], "")); len(lines) != 1 || lines[0].Event != "recovered" {
			t.Errorf("after the broken line: %+v", lines)
		}
	})
}

// Reads wait, are woken, are interrupted, and end with the mount.
func TestReadsOfEventsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := serveEvents(t)
		readers := []*stream{s.openEvents(), s.openEvents(), s.openEvents()}
		var waits []uint64
		for _, r := range readers {
			if lines := parseLines(t, r.drain(4096)); len(lines) != 1 || lines[0].Event != "opened" || lines[0].Schema != 1 {
				t.Fatalf("the first line: %+v", lines)
			}
			waits = append(waits, r.startRead(4096, 0))
		}
		time.Sleep(time.Minute)
		for _, u := range waits {
			if !s.pending(u) {
				t.Fatal("a read does not wait")
			}
		}
		s.send(opInterrupt, 0, u64(waits[2]))
		if got := s.await(waits[2]); got.errno != unix.EINTR {
			t.Errorf("interrupted: %v", got.errno)
		}
		s.mustCreate("x", unix.O_EXCL)
		time.Sleep(time.Second)
		for i, u := range waits[:2] {
			got := s.await(u)
			if lines := parseLines(t, string(got.body)); len(lines) != 1 || lines[0].Event != "taken" || lines[0].Path != "x" {
				t.Errorf("reader %d gets %q", i, got.body)
			}
			readers[i].text += string(got.body)
		}
		// A process that takes over has a line for who waits and who does not.
		waits[0] = readers[0].startRead(4096, 0)
		s.restore(records)
		s.call(opGetattr, 1, zeros(16))
		time.Sleep(time.Second)
		got := s.await(waits[0])
		if lines := parseLines(t, string(got.body)); len(lines) != 1 || lines[0].Event != "recovered" || lines[0].Workers != 2 {
			t.Errorf("who waited gets %q", got.body)
		}
		readers[0].text += string(got.body)
		if lines := parseLines(t, readers[1].drain(10)); len(lines) != 1 || lines[0].Event != "recovered" {
			t.Errorf("who did not wait gets %+v", lines)
		}
		// What was lost with the process: what was not read.
		if lines := parseLines(t, readers[2].drain(4096)); len(lines) != 1 || lines[0].Event != "recovered" {
			t.Errorf("who was interrupted gets %+v", lines)
		}
		waits[0] = readers[0].startRead(4096, 0)
		s.conn.Do(func() { s.fs.Shutdown() })
		if got := s.await(waits[0]); got.errno != 0 || len(got.body) != 0 {
			t.Errorf("at the end of the mount: %v, %q", got.errno, got.body)
		}
		if got := s.await(readers[1].startRead(100, 0)); got.errno != 0 || len(got.body) != 0 {
			t.Errorf("after the end of the mount: %v, %q", got.errno, got.body)
		}
		for _, r := range readers {
			s.release(r.file)
		}
		s.call(opGetattr, 1, zeros(16))
		for k := range records {
			if k[0] == 14 || k[0] == 15 {
				t.Errorf("record %d of kind %d is left", k[1], k[0])
			}
		}
	})
}

// Who has read part of a line when the process dies gets the rest of it, and may
// seek back, as a shell does.
func TestAReaderGoesBackInItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := serveEvents(t)
		r := s.openEvents()
		s.release(s.mustCreate("x", unix.O_EXCL))
		r.drain(64)
		r.text = r.text[:len(r.text)-30]
		s.restore(records)
		s.call(opGetattr, 1, zeros(16))
		r.drain(4096)
		// Before the window there is nothing; from there on, what comes next.
		text := r.text
		r.text = text[:3]
		if got := s.await(r.startRead(100, 0)); got.errno != 0 || len(got.body) != 0 {
			t.Errorf("before the window: %v, %q", got.errno, got.body)
		}
		s.release(s.mustCreate("x", unix.O_EXCL))
		if lines := parseLines(t, r.drain(4096)); len(lines) != 2 {
			t.Errorf("after having gone back: %+v", lines)
		}
		r.text = text
		if lines := parseLines(t, r.text); len(lines) != 4 || lines[2].Event != "released" || lines[3].Event != "recovered" {
			t.Errorf("it read %q", r.text)
		}
	})
}

// A reader that stops is told how much it has missed, and no more is kept for it
// than for all.
func TestASlowReaderOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveEvents(t)
		slow, fast := s.openEvents(), s.openEvents()
		slow.drain(4096)
		x := s.mustCreate("x", 0)
		const rounds = 5000
		seen := 0
		for i := range rounds {
			s.flock(x, unix.F_WRLCK)
			s.flock(x, unix.F_UNLCK)
			if i%1000 == 999 {
				seen += len(parseLines(t, drainAll(fast, 4096)))
			}
		}
		if seen != 1+2*rounds {
			t.Errorf("who reads gets %d lines, want %d", seen, 1+2*rounds)
		}
		lines := parseLines(t, drainAll(slow, 4096))
		if lines[0].Event != "dropped" || lines[0].Count == 0 || lines[0].Count+uint64(len(lines))-1 != 2*rounds {
			t.Errorf("who stopped gets %d lines, the first %+v; %d happened", len(lines), lines[0], 2*rounds)
		}
		for i, l := range lines[1:] {
			if want := rounds - (len(lines)-2-i)/2; l.Token != uint64(want) {
				t.Fatalf("line %d has token %d, want %d", i, l.Token, want)
			}
		}
	})
}

// poll(2) says when there is something, and wakes who sleeps, also after the
// process was replaced.
func TestPollOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, records := serveEvents(t)
		r := s.openEvents()
		const in = unix.POLLIN
		if got := r.poll(5); got != in {
			t.Errorf("of the first line: %#x", got)
		}
		r.drain(4096)
		if got := r.poll(5); got != 0 {
			t.Errorf("of nothing: %#x", got)
		}
		x := s.mustCreate("x", unix.O_EXCL)
		s.release(x)
		time.Sleep(time.Second)
		s.pending(0)
		if fmt.Sprint(s.woken) != "[5]" || r.poll(5) != in {
			t.Errorf("woken are %v, of two lines it says %#x", s.woken, r.poll(5))
		}
		r.drain(20)
		if got := r.poll(5); got != 0 {
			t.Errorf("of nothing again: %#x", got)
		}
		s.restore(records)
		time.Sleep(time.Second)
		s.pending(0)
		time.Sleep(time.Second)
		s.pending(0)
		if fmt.Sprint(s.woken) != "[5 5]" || r.poll(5) != in {
			t.Errorf("after the process was replaced woken are %v, and it says %#x", s.woken, r.poll(5))
		}
	})
}

// Who may see what: what is in a directory that not everybody may search is for
// its owner, root, and who does it himself.
func TestWhoSeesWhichEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveEvents(t)
		users := map[uint32]*stream{}
		for _, uid := range []uint32{0, 1000, 1001, 1002} {
			s.caller = caller{uid, uid, 100 + uid}
			users[uid] = s.openEvents()
			users[uid].drain(4096)
		}
		mkdir := func(in uint64, uid uint32, name string, mode uint32) uint64 {
			s.caller = caller{uid, uid, 100 + uid}
			r := s.call(opMkdir, in, u32(mode), u32(0), cstring(name))
			if r.errno != 0 {
				t.Fatal("mkdir:", r.errno)
			}
			return native.Uint64(r.body)
		}
		take := func(in uint64, uid uint32, name string) {
			s.caller = caller{uid, uid, 100 + uid}
			r := s.call(opCreate, in, u32(unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring(name))
			if r.errno != 0 {
				t.Fatal("create:", r.errno)
			}
		}
		open := mkdir(1, 1000, "open", 0o777)
		private := mkdir(1, 1000, "private", 0o700)
		inside := mkdir(private, 1000, "inside", 0o777)
		drop := mkdir(1, 1000, "drop", 0o770)
		mine := mkdir(drop, 1000, "mine", 0o700)
		take(open, 1001, "a")
		take(private, 0, "b")
		take(inside, 0, "c")
		s.caller = caller{1001, 1000, 1101} // of the group
		if r := s.call(opCreate, drop, u32(unix.O_CREAT|unix.O_EXCL|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring("d")); r.errno != 0 {
			t.Fatal("create:", r.errno)
		}
		s.caller = caller{0, 0, 100}
		s.call(opSetattr, mine, u32(2), u32(0), zeros(8*6), zeros(20), u32(1002), zeros(8)) // chown
		take(mine, 0, "e")
		for uid, want := range map[uint32]string{
			0:    "open private private/inside drop drop/mine open/a private/b private/inside/c drop/d drop/mine/e",
			1000: "open private private/inside drop drop/mine open/a private/b private/inside/c drop/d",
			1001: "open private drop open/a drop/d",
			1002: "open private drop open/a",
		} {
			var got []string
			for _, l := range parseLines(t, drainAll(users[uid], 4096)) {
				got = append(got, l.Path)
			}
			if strings.Join(got, " ") != want {
				t.Errorf("user %d sees %q, want %q", uid, got, want)
			}
		}
	})
}

// Nothing is remembered for nobody: who comes later does not see what was.
func TestEventsBeginWithTheirReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveEvents(t)
		s.release(s.mustCreate("x", unix.O_EXCL))
		r := s.openEvents()
		if lines := parseLines(t, r.drain(4096)); len(lines) != 1 {
			t.Errorf("of what was before: %+v", lines)
		}
		s.release(s.mustCreate("x", unix.O_EXCL))
		s.release(r.file)
		r = s.openEvents()
		if lines := parseLines(t, r.drain(4096)); len(lines) != 1 {
			t.Errorf("of what another might have read: %+v", lines)
		}
		if got := s.call(opRead, r.node, u64(r.handle+9), u64(0), u32(9), zeros(20)); got.errno != syscall.EBADF {
			t.Errorf("of no open file: %v", got.errno)
		}
		// lseek(2) to the end asks with the open file, fstat(2) without.
		end := parseAttributes(s.call(opGetattr, r.node, u32(1), u32(0), u64(r.handle)).body[16:])
		all := parseAttributes(s.call(opGetattr, r.node, zeros(16)).body[16:])
		if end.size != uint64(len(r.text)) || all.size <= end.size || end.mode != unix.S_IFREG|0o444 {
			t.Errorf("it shows %+v to lseek and %+v to fstat; the first line has %d bytes", end, all, len(r.text))
		}
	})
}

// Records of streams that contradict others are damaged.
func TestRestoreRefusesStreams(t *testing.T) {
	for name, put := range map[string]func(r *fs.Records, handle uint64){
		"as it can be":           func(r *fs.Records, h uint64) { r.PutRead(&fs.ReadRecord{Unique: 4, Handle: h}) },
		"!of no open file":       func(r *fs.Records, h uint64) { r.PutStream(&fs.StreamRecord{Handle: h + 1}) },
		"!a read of no stream":   func(r *fs.Records, h uint64) { r.PutRead(&fs.ReadRecord{Unique: 4, Handle: h + 1}) },
		"!longer than it can be": func(r *fs.Records, h uint64) { r.PutStream(&fs.StreamRecord{Handle: h, Window: zeros(4096)}) },
	} {
		records := store{}
		s := serveControl(t, records)
		r := s.openEvents()
		put(fs.NewRecords(records, new(fs.Saved)), r.handle)
		var saved fs.Saved
		var err error
		for k, data := range records {
			if e := saved.Load(uint8(k[0]), k[1], data); e != nil {
				err = e
			}
		}
		if err == nil {
			o := s.options
			o.Journal, o.Tokens = fs.Discard{}, new(lockspace.Counter)
			_, err = fs.Restore(o, &saved)
		}
		if (err != nil) != strings.HasPrefix(name, "!") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
