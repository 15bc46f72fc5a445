package fs_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.7: locks and locks.json.

// readAll reads a control file by n bytes at a time.
func (k *kernel) readAll(n uint32, names ...string) string {
	k.t.Helper()
	f := k.mustOpen(k.walk(names...), unix.O_RDONLY)
	defer k.release(f)
	text := ""
	for {
		part, errno := k.read(f, uint64(len(text)), n)
		if errno != 0 {
			k.t.Fatalf("read %q at %d: %v", names, len(text), errno)
		}
		if part == "" {
			return text
		}
		text += part
	}
}

// listedLock is a line of locks, or an element of locks.json.
type listedLock struct {
	path, mode, lockRange, state string
	pid, uid                     int
	comm, via, token             string
}

// unescape reads a field.
func unescape(t testing.TB, s string) string {
	t.Helper()
	if s == "-" {
		return ""
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		c, err := strconv.ParseUint(s[i+1:i+4], 8, 8)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		b.WriteByte(byte(c))
		i += 3
	}
	return b.String()
}

func parseLocks(t testing.TB, text string) (list []listedLock) {
	t.Helper()
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 10 {
			t.Fatalf("%d fields: %q", len(f), line)
		}
		l := listedLock{path: unescape(t, f[0]), mode: f[1], lockRange: f[2], state: f[3], comm: unescape(t, f[6]), via: f[7], token: f[9]}
		var err [3]error
		l.pid, err[0] = strconv.Atoi(f[4])
		l.uid, err[1] = strconv.Atoi(f[5])
		_, err[2] = time.Parse(time.RFC3339Nano, f[8])
		for _, err := range err {
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		list = append(list, l)
	}
	return list
}

func parseJSON(t testing.TB, text string) (list []listedLock) {
	t.Helper()
	var all struct {
		At    time.Time
		Locks []struct {
			Path, Mode, State, Comm, Via string
			PathBase64                   *string `json:"path_base64"`
			CommBase64                   *string `json:"comm_base64"`
			First                        uint64
			Last, Token                  *uint64
			Pid, UID                     int
			Since                        time.Time
		}
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatalf("%v: %q", err, text)
	}
	if all.At.IsZero() || all.Locks == nil {
		t.Fatalf("not complete: %q", text)
	}
	bytesOf := func(text string, base *string) string {
		if base == nil {
			return text
		}
		b, err := base64.StdEncoding.DecodeString(*base)
		if err != nil || strings.ToValidUTF8(string(b), "\uFFFD") != text {
			t.Fatalf("%q in base64 is %q: %v", text, *base, err)
		}
		return string(b)
	}
	for _, j := range all.Locks {
		r, token := fmt.Sprintf("%d-end", j.First), "-"
		if j.Last != nil {
			r = fmt.Sprintf("%d-%d", j.First, *j.Last)
		}
		if j.Token != nil {
			token = fmt.Sprint(*j.Token)
		}
		if all.At.Before(j.Since) {
			t.Errorf("%q is since %v, the list is of %v", j.Path, j.Since, all.At)
		}
		list = append(list, listedLock{bytesOf(j.Path, j.PathBase64), j.Mode, r, j.State, j.Pid, j.UID, bytesOf(j.Comm, j.CommBase64), j.Via, token})
	}
	return list
}

// wantLocks fails the test unless both lists of the root show these locks.
func (s *served) wantLocks(want ...listedLock) {
	s.t.Helper()
	for name, got := range map[string][]listedLock{
		"locks":      parseLocks(s.t, s.readAll(4096, ".lockfs", "locks")),
		"locks.json": parseJSON(s.t, s.readAll(4096, ".lockfs", "locks.json")),
	} {
		if !slices.Equal(got, want) {
			s.t.Errorf("%s shows\n%+v, want\n%+v", name, got, want)
		}
	}
}

func TestLocksAreListed(t *testing.T) {
	s := serve(t)
	s.wantLocks()
	s.procs.set(200, fs.ProcessInfo{Kin: fs.Kin{Pid: 200}, Comm: "first one"})
	s.procs.set(201, fs.ProcessInfo{Kin: fs.Kin{Pid: 201}, Comm: "-"})
	s.caller = caller{1000, 1000, 200}
	b := s.mustCreate("b", 0)
	if errno := s.flock(b, unix.F_WRLCK); errno != 0 {
		t.Fatal(errno)
	}
	s.caller = caller{1001, 1001, 201}
	again := s.mustOpen(b.node, unix.O_RDWR)
	waiting := s.startFlock(again, unix.F_RDLCK)
	a := s.mustCreate("a", 0)
	if errno := s.call(opSetlk, a.node, s.lockBody(a, 9, unix.F_RDLCK, 10, 19, false)).errno; errno != 0 {
		t.Fatal(errno)
	}
	s.caller = caller{0, 0, 202}
	s.wantLocks(
		listedLock{"a", "shared", "10-19", "held", 201, 1001, "-", "fcntl", "2"},
		listedLock{"b", "exclusive", "0-end", "held", 200, 1000, "first one", "flock", "1"},
		listedLock{"b", "shared", "0-end", "waiting", 201, 1001, "-", "flock", "-"},
	)
	if text := s.readAll(4096, ".lockfs", "locks"); !strings.Contains(text, ` 1001 \055 fcntl `) {
		t.Errorf("a comm of - is not told from none: %q", text)
	}
	s.release(b)
	if r := s.await(waiting); r.errno != 0 {
		t.Fatal(r.errno)
	}
	s.release(a)
	s.wantLocks(listedLock{"b", "shared", "0-end", "held", 201, 1001, "-", "flock", "3"})
	s.release(again)
	s.wantLocks()
}

// oddNames are names that a careless list would garble.
var oddNames = []string{
	" ", "a b", "a\nb", "a\tb", `a\b`, `a\040b`, `"'` + "`", "#a", "-", "<&>", "\x01\x7f", "caf\u00e9", "\u65e5\u672c", "caf\xe9", "\xff\xfe", "\uFFFD", "\u2028", "a,b", "[]", "{}", "\xed\xa0\x80",
}

// Names with blanks, newlines, quotes, UTF-8 and broken UTF-8 are parsed back
// exactly, and so are those of processes.
func TestOddNamesAreListed(t *testing.T) {
	s := serve(t)
	want := make(map[string]string)
	for i, name := range oddNames {
		s.caller.pid = uint32(300 + i)
		s.procs.set(s.caller.pid, fs.ProcessInfo{Kin: fs.Kin{Pid: s.caller.pid}, Comm: name})
		s.mustCreate(name, unix.O_EXCL)
		want[name] = name
	}
	for which, list := range map[string][]listedLock{
		"locks":      parseLocks(t, s.readAll(4096, ".lockfs", "locks")),
		"locks.json": parseJSON(t, s.readAll(4096, ".lockfs", "locks.json")),
	} {
		got := make(map[string]string)
		for _, l := range list {
			got[l.path] = l.comm
		}
		if !maps.Equal(got, want) {
			t.Errorf("%s: %q, want %q", which, got, want)
		}
	}
}

func (k *kernel) mustMkdir(dir uint64, name string, mode uint32) (node uint64) {
	k.t.Helper()
	r := k.call(opMkdir, dir, u32(mode), u32(0), cstring(name))
	if r.errno != 0 {
		k.t.Fatalf("mkdir %q: %v", name, r.errno)
	}
	return native.Uint64(r.body)
}

func paths(list []listedLock) string {
	var b strings.Builder
	for _, l := range list {
		b.WriteString(l.path + " ")
	}
	return b.String()
}

// A directory's list has what is in it and below, by paths from there; each
// user sees what everybody may list, and what is his own.
func TestWhoSeesWhichLocks(t *testing.T) {
	s := serve(t)
	s.caller = caller{1000, 1000, 100}
	open := s.mustMkdir(1, "open", 0o755)
	s.mustCreateIn(open, "x", unix.O_EXCL)
	secret := s.mustMkdir(open, "secret", 0o711)
	s.mustCreateIn(secret, "y", unix.O_EXCL)
	s.mustCreateIn(s.mustMkdir(secret, "inner", 0o755), "z", unix.O_EXCL)
	s.mustCreateIn(1, "top", unix.O_EXCL)
	for uid, want := range map[uint32][2]string{
		0:    {"open open/secret open/secret/inner open/secret/inner/z open/secret/y open/x top ", "secret secret/inner secret/inner/z secret/y x "},
		1000: {"open open/secret open/secret/inner open/secret/inner/z open/secret/y open/x top ", "secret secret/inner secret/inner/z secret/y x "},
		1001: {"open open/secret open/x top ", "secret x "},
	} {
		s.caller = caller{uid, uid, 101}
		if got := paths(parseLocks(t, s.readAll(4096, ".lockfs", "locks"))); got != want[0] {
			t.Errorf("uid %d sees %q, want %q", uid, got, want[0])
		}
		if got := paths(parseJSON(t, s.readAll(4096, ".lockfs", "locks.json"))); got != want[0] {
			t.Errorf("uid %d sees %q in JSON, want %q", uid, got, want[0])
		}
		if got := paths(parseLocks(t, s.readAll(4096, "open", ".lockfs", "locks"))); got != want[1] {
			t.Errorf("uid %d sees %q from open, want %q", uid, got, want[1])
		}
	}
	// Who may come to it and not list it sees nothing of it from there either.
	s.caller = caller{1001, 1001, 101}
	if text := s.readAll(4096, "open", "secret", ".lockfs", "locks"); text != "" {
		t.Errorf("uid 1001 sees %q from a directory that it may not list", text)
	}
	if _, _, errno := s.lookup(s.walk("open", ".lockfs"), "locks.json"); errno != unix.ENOENT {
		t.Errorf("locks.json below the root: %v", errno)
	}
}

// A reader sees one moment through short reads, and the next one when it begins
// anew; other requests go on while it waits.
func TestAReaderOfLocksSeesOneMoment(t *testing.T) {
	s := serve(t)
	var held []file
	for i := range 500 {
		held = append(held, s.mustCreate(fmt.Sprintf("lock%03d", i), unix.O_EXCL))
	}
	f := s.mustOpen(s.walk(".lockfs", "locks"), unix.O_RDONLY)
	release := s.procs.hold()
	reading := s.send(opRead, f.node, u64(f.handle), u64(0), u32(100), zeros(20))
	for i, h := range held {
		if i%2 == 0 {
			s.release(h)
		}
	}
	s.mustCreate("new", unix.O_EXCL)
	release()
	r := s.await(reading)
	text := string(r.body)
	for {
		part, errno := s.read(f, uint64(len(text)), 100)
		if errno != 0 {
			t.Fatal(errno)
		}
		if part == "" {
			break
		}
		text += part
		s.mustCreate(fmt.Sprint("later", len(text)), unix.O_EXCL)
	}
	list := parseLocks(t, text)
	if strings.Contains(text, "later") || len(list) < 251 || len(list) > 501 {
		t.Errorf("%d locks are shown: %q", len(list), text)
	}
	if text, errno := s.read(f, 0, 4096); errno != 0 || !strings.Contains(text, "later") {
		t.Errorf("who begins anew sees %q, %v", text, errno)
	}
}

// Readers of one user who wait together are served together; one who is
// interrupted goes when that takes a second.
func TestReadersOfLocksWaitTogether(t *testing.T) {
	s := serve(t)
	s.mustCreate("x", unix.O_EXCL)
	node := s.walk(".lockfs", "locks")
	release := s.procs.hold()
	var reading []uint64
	for range 100 {
		f := s.mustOpen(node, unix.O_RDONLY)
		reading = append(reading, s.send(opRead, f.node, u64(f.handle), u64(0), u32(4096), zeros(20)))
	}
	impatient := reading[50]
	s.send(opInterrupt, 0, u64(impatient))
	if r := s.await(impatient); r.errno != unix.EINTR {
		t.Errorf("who was interrupted got %v", r.errno)
	}
	release()
	for _, unique := range reading {
		if unique == impatient {
			continue
		}
		if r := s.await(unique); r.errno != 0 || paths(parseLocks(t, string(r.body))) != "x " {
			t.Fatalf("%v, %q", r.errno, r.body)
		}
	}
	if n := s.procs.looked(); n > 4 {
		t.Errorf("100 readers looked at processes %d times", n)
	}
}

// A signal that ends nothing does not make the reading of a list fail, whether its
// process lives on or another takes over.
func TestInterruptedReadersOfLocks(t *testing.T) {
	s := serve(t)
	s.mustCreate("x", unix.O_EXCL)
	f := s.mustOpen(s.walk(".lockfs", "locks"), unix.O_RDONLY)
	release := s.procs.hold()
	reading := s.send(opRead, f.node, u64(f.handle), u64(0), u32(4096), zeros(20))
	s.send(opInterrupt, 0, u64(reading))
	s.walk(".lockfs") // the interrupt has come
	release()
	if r := s.await(reading); r.errno != 0 || paths(parseLocks(t, string(r.body))) != "x " {
		t.Errorf("%v, %q", r.errno, r.body)
	}
}

// What a reader has begun with outlives the process, see reading_test.go too.
func TestReadersOfLocksSurvive(t *testing.T) {
	records := store{}
	s := serveControl(t, records)
	for i := range 10 {
		s.mustCreate(fmt.Sprint("lock", i), unix.O_EXCL)
	}
	f := s.mustOpen(s.walk(".lockfs", "locks"), unix.O_RDONLY)
	text, errno := s.read(f, 0, 100)
	if errno != 0 {
		t.Fatal(errno)
	}
	s.restore(records)
	s.mustCreate("later", unix.O_EXCL)
	rest, errno := s.read(f, 100, 32<<10)
	if got := paths(parseLocks(t, text+rest)); errno != 0 || strings.Contains(got, "later") || strings.Count(got, "lock") != 10 {
		t.Errorf("who was in the middle sees %q, %v", got, errno)
	}
	for i := range 100 {
		s.mustCreate(fmt.Sprintf("%03d", i), unix.O_EXCL)
	}
	long, errno := s.read(f, 0, 1000)
	if errno != 0 {
		t.Fatal(errno)
	}
	s.restore(records)
	rest, errno = s.read(f, 1000, 32<<10)
	if list := parseLocks(t, long+rest); errno != 0 || len(list) != 111 {
		t.Errorf("after the next one died: %d locks, %v", len(list), errno)
	}
}
