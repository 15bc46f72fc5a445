package fs_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.7: "DIR/.lockfs/{alloc,available,ids/}: numbered locks".

// serveNumbers serves a root with a policy, of user 42, and its records.
func serveNumbers(t testing.TB, settings string) (*served, store) {
	t.Helper()
	records := store{}
	return serveWith(t, func(o *fs.Options) {
		o.UID, o.GID, o.Policy = 42, 43, mustPolicy(t, settings)
		o.Journal = fs.NewRecords(records, new(fs.Saved))
	}), records
}

// control returns the node of something in the control directory of a directory.
func (s *served) control(dir uint64, names ...string) (node uint64, errno unix.Errno) {
	s.t.Helper()
	node = dir
	for _, name := range append([]string{".lockfs"}, names...) {
		if node, _, errno = s.lookup(node, name); errno != 0 {
			return 0, errno
		}
	}
	return node, 0
}

// tryOpen is mustOpen that may fail.
func (s *served) tryOpen(node uint64, flags uint32) (file, unix.Errno) {
	s.t.Helper()
	r := s.call(opOpen, node, u32(flags), u32(0))
	if r.errno != 0 {
		return file{}, r.errno
	}
	return file{node, native.Uint64(r.body)}, 0
}

// allocate opens alloc, reads it, and closes it.
func (s *served) allocate(dir uint64) (n int, errno unix.Errno) {
	s.t.Helper()
	node, errno := s.control(dir, "alloc")
	if errno != 0 {
		return 0, errno
	}
	f, errno := s.tryOpen(node, unix.O_RDONLY)
	if errno != 0 {
		return 0, errno
	}
	defer s.release(f)
	text, errno := s.read(f, 0, 4096)
	if errno != 0 {
		return 0, errno
	}
	n, err := strconv.Atoi(strings.TrimSuffix(text, "\n"))
	if err != nil || text != fmt.Sprintf("%d\n", n) {
		s.t.Fatalf("alloc reads as %q", text)
	}
	return n, 0
}

// reserve makes a file in ids with O_EXCL, and closes it.
func (s *served) reserve(dir uint64, name string) unix.Errno {
	s.t.Helper()
	node, errno := s.control(dir, "ids")
	if errno != 0 {
		return errno
	}
	f, errno := s.createIn(node, name, unix.O_EXCL)
	if errno == 0 {
		s.release(f)
	}
	return errno
}

// freeNumber removes one.
func (s *served) freeNumber(dir uint64, name string) unix.Errno {
	s.t.Helper()
	node, errno := s.control(dir, "ids")
	if errno != 0 {
		return errno
	}
	return s.call(opUnlink, node, cstring(name)).errno
}

// wantNumbers fails the test unless these are reserved in a directory at a path.
func (s *served) wantNumbers(available string, path string, want ...string) {
	s.t.Helper()
	var names []string
	if path != "" {
		names = []string{path}
	}
	if got := s.listedBy(4096, append(names, ".lockfs", "ids")...); !slices.Equal(got, want) {
		s.t.Errorf("in %q are reserved %q, want %q", path, got, want)
	}
	if got := s.readAll(4096, append(names, ".lockfs", "available")...); got != available+"\n" {
		s.t.Errorf("in %q %q are available, want %s", path, got, available)
	}
}

func TestAllocReadsAsANumber(t *testing.T) {
	s, records := serveNumbers(t, "ids=4")
	alloc := s.walk(".lockfs", "alloc")
	f, g := s.mustOpen(alloc, unix.O_RDONLY), s.mustOpen(alloc, unix.O_RDONLY)
	if got, errno := s.read(g, 1, 10); got != "" || errno != 0 {
		t.Errorf("who begins in the middle reads %q, %v", got, errno)
	}
	s.wantNumbers("4", "")
	for range 3 {
		for offset, want := range []string{"0", "\n", "", ""} {
			if got, errno := s.read(f, uint64(offset), 1); got != want || errno != 0 {
				t.Errorf("at %d: %q, %v, want %q", offset, got, errno, want)
			}
		}
		s.restore(records)
	}
	s.wantNumbers("3", "", "0")
	for _, want := range []string{"1\n", "1\n"} {
		if got, errno := s.read(g, 0, 4096); got != want || errno != 0 {
			t.Errorf("another open file: %q, %v, want %q", got, errno, want)
		}
	}
	s.release(f)
	s.release(g)
	for _, want := range []int{2, 3} {
		if n, errno := s.allocate(1); n != want || errno != 0 {
			t.Errorf("%d, %v, want %d", n, errno, want)
		}
	}
	h := s.mustOpen(alloc, unix.O_RDONLY)
	for range 2 {
		if got, errno := s.read(h, 0, 4096); errno != unix.ENOSPC {
			t.Errorf("when all are reserved: %q, %v", got, errno)
		}
	}
	s.wantNumbers("0", "", "0", "1", "2", "3")
	if errno := s.freeNumber(1, "1"); errno != 0 {
		t.Fatal(errno)
	}
	if got, errno := s.read(h, 0, 4096); got != "1\n" || errno != 0 {
		t.Errorf("when one has been freed: %q, %v", got, errno)
	}
}

func TestNumbersAreReservedAndFreed(t *testing.T) {
	s, records := serveNumbers(t, "ids=1000")
	for name, want := range map[string]unix.Errno{
		"7": 0, "0": 0, "999": 0,
		"1000": unix.ERANGE, "4294967296": unix.ERANGE, "99999999999999999999999": unix.ERANGE, "18446744073709551623": unix.ERANGE,
		"07": unix.EINVAL, "00": unix.EINVAL, "-1": unix.EINVAL, "+1": unix.EINVAL, "1 ": unix.EINVAL, " 1": unix.EINVAL,
		"0x1": unix.EINVAL, "one": unix.EINVAL, "1\n": unix.EINVAL, "\u0661": unix.EINVAL, ".lockfs": unix.EINVAL,
	} {
		if errno := s.reserve(1, name); errno != want {
			t.Errorf("reserve %q: %v, want %v", name, errno, want)
		}
	}
	s.wantNumbers("997", "", "0", "7", "999")
	if errno := s.reserve(1, "7"); errno != unix.EEXIST {
		t.Errorf("reserve what is reserved: %v", errno)
	}
	ids := s.walk(".lockfs", "ids")
	if _, errno := s.createIn(ids, "8", 0); errno != unix.EPERM {
		t.Errorf("without O_EXCL: %v", errno)
	}
	for _, name := range []string{"8", "1000", "07", "x", "4294967303"} {
		if _, _, errno := s.lookup(ids, name); errno != unix.ENOENT {
			t.Errorf("look up %q: %v", name, errno)
		}
		if errno := s.freeNumber(1, name); errno != unix.ENOENT {
			t.Errorf("free %q: %v", name, errno)
		}
	}
	for _, flags := range []uint32{unix.O_WRONLY, unix.O_RDWR, unix.O_WRONLY | unix.O_TRUNC} {
		if _, errno := s.tryOpen(s.walk(".lockfs", "ids", "7"), flags); errno != unix.EACCES {
			t.Errorf("open for writing, %#x: %v", flags, errno)
		}
	}
	f := s.mustOpen(s.walk(".lockfs", "ids", "7"), unix.O_RDONLY)
	for range 2 {
		if got, errno := s.read(f, 0, 4096); got != "7\n" || errno != 0 {
			t.Errorf("a number reads as %q, %v", got, errno)
		}
		if errno := s.write(f, 0, "x"); errno != unix.EBADF {
			t.Errorf("write: %v", errno)
		}
		s.restore(records)
	}
	if errno := s.freeNumber(1, "7"); errno != 0 {
		t.Errorf("free: %v", errno)
	}
	// Who has it open keeps what he has; nobody opens it any more.
	if got, errno := s.read(f, 0, 4096); got != "7\n" || errno != 0 {
		t.Errorf("freed, a number that is open reads as %q, %v", got, errno)
	}
	if _, errno := s.tryOpen(f.node, unix.O_RDONLY); errno != unix.ESTALE {
		t.Errorf("open what has been freed: %v", errno)
	}
	if a := parseAttributes(s.call(opGetattr, f.node, zeros(16)).body[16:]); a.nlink != 0 || a.mode != unix.S_IFREG|0o444 {
		t.Errorf("what has been freed is %+v", a)
	}
	s.wantNumbers("998", "", "0", "999")
	for name, opcode := range map[string]uint32{"mkdir": opMkdir} {
		if r := s.call(opcode, ids, u32(0o755), u32(0), cstring("5")); r.errno != unix.EACCES {
			t.Errorf("%s in ids: %v", name, r.errno)
		}
	}
	for _, dir := range []uint64{s.walk(".lockfs"), s.walk(".lockfs", "policy"), s.walk(".lockfs", "lock")} {
		if _, errno := s.createIn(dir, "5", unix.O_EXCL); errno != unix.EACCES {
			t.Errorf("create in another control directory: %v", errno)
		}
		if r := s.call(opUnlink, dir, cstring("alloc")); r.errno != unix.EACCES {
			t.Errorf("unlink in another control directory: %v", r.errno)
		}
	}
}

// Nothing is there without ids, and what was opened before is not any more.
func TestWithoutIDs(t *testing.T) {
	s, _ := serveNumbers(t, "ids=4")
	alloc, ids := s.walk(".lockfs", "alloc"), s.walk(".lockfs", "ids")
	f := s.mustOpen(alloc, unix.O_RDONLY)
	s.caller.uid = 0
	if errno := s.set(1, "ids", "0"); errno != 0 {
		t.Fatal(errno)
	}
	for _, name := range []string{"alloc", "available", "ids"} {
		if _, errno := s.control(1, name); errno != unix.ENOENT {
			t.Errorf("look up %s: %v", name, errno)
		}
		if list := s.listedBy(4096, ".lockfs"); slices.Contains(list, name) {
			t.Errorf("%s is listed: %q", name, list)
		}
	}
	if _, errno := s.read(f, 0, 4096); errno != unix.ENOENT {
		t.Errorf("read what was open: %v", errno)
	}
	if _, errno := s.tryOpen(alloc, unix.O_RDONLY); errno != unix.ENOENT {
		t.Errorf("open what was looked up: %v", errno)
	}
	if _, errno := s.createIn(ids, "1", unix.O_EXCL); errno != unix.ENOENT {
		t.Errorf("reserve: %v", errno)
	}
	if errno := s.set(1, "ids", "unlimited"); errno != 0 {
		t.Fatal(errno)
	}
	if errno := s.reserve(1, "4294967295"); errno != 0 {
		t.Errorf("the last of all numbers: %v", errno)
	}
	if errno := s.reserve(1, "4294967296"); errno != unix.ERANGE {
		t.Errorf("the one behind: %v", errno)
	}
	if got, errno := s.read(f, 0, 4096); got != "0\n" || errno != 0 {
		t.Errorf("when there are ids again: %q, %v", got, errno)
	}
	s.wantNumbers("unlimited", "", "0", "4294967295")
	if list := s.listedBy(4096, ".lockfs"); !slices.Contains(list, "alloc") || !slices.Contains(list, "ids") || !slices.Contains(list, "available") {
		t.Errorf("listed are %q", list)
	}
}

// A count below a number that is reserved is refused, and says why.
func TestIDsBelowAReservedNumber(t *testing.T) {
	var log bytes.Buffer
	s := serveWith(t, func(o *fs.Options) {
		o.UID, o.Policy = 42, mustPolicy(t, "ids=100")
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	s.caller.uid = 42
	if errno := s.reserve(1, "50"); errno != 0 {
		t.Fatal(errno)
	}
	for value, want := range map[string]unix.Errno{"0": unix.EINVAL, "1": unix.EINVAL, "50": unix.EINVAL, "51": 0, "unlimited": 0} {
		log.Reset()
		if errno := s.set(1, "ids", value); errno != want {
			t.Errorf("ids=%s: %v, want %v", value, errno, want)
		}
		if refused := strings.Contains(log.String(), "number 50 is reserved"); refused != (want != 0) {
			t.Errorf("ids=%s is logged as %q", value, log.String())
		}
		s.set(1, "ids", "100")
	}
	if got := s.setting(1, "ids"); got != "100\n" {
		t.Errorf("ids is %q", got)
	}
	s.freeNumber(1, "50")
	if errno := s.set(1, "ids", "0"); errno != 0 {
		t.Errorf("when it is free: %v", errno)
	}
}

// 1.4: "the directory's decide, write to take, read to look".
func TestWhoMayTakeNumbers(t *testing.T) {
	s, _ := serveNumbers(t, "ids=100")
	owner, group, other, root := caller{1000, 1000, 100}, caller{1001, 1000, 101}, caller{1002, 1002, 102}, caller{0, 0, 103}
	for _, c := range []struct {
		mode               uint32
		who                caller
		write, read, enter bool
	}{
		{0o755, owner, true, true, true}, {0o755, group, false, true, true}, {0o755, other, false, true, true}, {0o755, root, true, true, true},
		{0o775, group, true, true, true}, {0o775, other, false, true, true},
		{0o733, owner, true, true, true}, {0o733, other, true, false, true},
		{0o711, other, false, false, true}, {0o722, other, false, false, false}, {0o700, group, false, false, false},
		{0o500, owner, false, true, true}, {0o000, root, true, true, true},
	} {
		s.caller = owner
		name := fmt.Sprintf("%o-%d", c.mode, c.who.uid)
		dir := s.mustMkdir(1, name, c.mode)
		s.caller = root
		if errno := s.reserve(dir, "50"); errno != 0 {
			t.Fatal(errno)
		}
		ids, _ := s.control(dir, "ids")
		fifty, _ := s.control(dir, "ids", "50")
		alloc, _ := s.control(dir, "alloc")
		s.caller = c.who
		check := func(what string, allowed bool, errno unix.Errno) {
			t.Helper()
			if allowed && errno != 0 || !allowed && errno != unix.EACCES {
				t.Errorf("%s may %s: %v, got %v", name, what, allowed, errno)
			}
		}
		_, errno := s.allocate(dir)
		check("allocate", c.write, errno)
		check("reserve", c.write, s.reserve(dir, "60"))
		_, errno = s.tryOpen(fifty, unix.O_RDONLY)
		check("read a number", c.read, errno)
		check("list", c.read, s.call(opOpendir, ids, u32(0), u32(0)).errno)
		_, _, errno = s.lookup(ids, "50")
		check("look up", c.enter, errno)
		check("test -w ids", c.write, s.call(opAccess, ids, u32(unix.W_OK), u32(0)).errno)
		check("test -r alloc", c.write, s.call(opAccess, alloc, u32(unix.R_OK), u32(0)).errno)
		check("test -w alloc", false, s.call(opAccess, alloc, u32(unix.W_OK), u32(0)).errno)
		check("open alloc for writing", false, s.call(opOpen, alloc, u32(unix.O_RDWR), u32(0)).errno)
		check("free", c.write, s.freeNumber(dir, "50"))
		a := parseAttributes(s.call(opGetattr, alloc, zeros(16)).body[16:])
		if want := unix.S_IFREG | c.mode&0o222<<1; a.mode != want {
			t.Errorf("%s: alloc has mode %o, want %o", name, a.mode, want)
		}
		if a := parseAttributes(s.call(opGetattr, ids, zeros(16)).body[16:]); a.mode != unix.S_IFDIR|c.mode {
			t.Errorf("%s: ids has mode %o", name, a.mode)
		}
	}
}

// Numbers and locks do not know of each other.
func TestANumberIsNotItsLock(t *testing.T) {
	s, _ := serveNumbers(t, "ids=10")
	held := s.mustCreate("0", unix.O_EXCL)
	n, errno := s.allocate(1)
	if n != 0 || errno != 0 {
		t.Fatalf("the lock is held, the number is free: %d, %v", n, errno)
	}
	if errno := s.freeNumber(1, "0"); errno != 0 {
		t.Fatal(errno)
	}
	if _, errno := s.create("0", unix.O_EXCL); errno != unix.EEXIST {
		t.Errorf("the lock of a freed number that was held: %v", errno)
	}
	if errno := s.write(held, 0, "mine"); errno != 0 {
		t.Errorf("its holder writes: %v", errno)
	}
	s.release(held)
	s.release(s.mustCreate("0", unix.O_EXCL))
	s.wantNumbers("10", "")
}

// A listing is read in pieces, across processes, while others come and go; what is
// there all the time is listed once.
func TestListingOfNumbers(t *testing.T) {
	const many = 300_000
	s, records := serveNumbers(t, "ids=unlimited")
	s.call(opGetattr, 1, zeros(16))
	reserved(records, fs.NumbersRecord{First: 10, Last: many + 9, UID: 1}, fs.NumbersRecord{First: 1<<32 - 2, Last: 1<<32 - 1, UID: 1})
	s.restore(records)
	node := s.walk(".lockfs", "ids")
	r := s.call(opOpendir, node, u32(0), u32(0))
	dir, next, want := native.Uint64(r.body), uint64(0), 10
	names, next := s.readdirOf(node, dir, next, 4096)
	if !slices.Equal(names[:2], []string{".", ".."}) {
		t.Fatalf("it begins with %q", names[:2])
	}
	pieces := 0
	for names = names[2:]; len(names) > 0 && want < many+10; names, next = s.readdirOf(node, dir, next, 64<<10-16) {
		for _, name := range names {
			if want == many+10 {
				break
			}
			if n, err := strconv.Atoi(name); err != nil || n != want {
				t.Fatalf("%q is listed after %d", name, want-1)
			}
			want++
		}
		pieces++
		if pieces%50 == 1 {
			s.restore(records)
			s.freeNumber(1, strconv.Itoa(want-1)) // listed already
			s.reserve(1, strconv.Itoa(want-1))
		}
	}
	if want != many+10 {
		t.Fatalf("the listing ends with %d", want-1)
	}
	if list := s.listedBy(4096, ".lockfs", "ids"); len(list) != many+2 || list[many+1] != "4294967295" {
		t.Errorf("%d are listed, the last is %q", len(list), list[len(list)-1])
	}
}

// Allocation, reservation, freeing, and deaths at random, in two directories: a set
// each, and the lowest is what comes next.
func TestNumbersAtRandom(t *testing.T) {
	for seed := range uint64(10) {
		const ids = 12
		s, records := serveNumbers(t, fmt.Sprint("ids=", ids))
		dirs := []uint64{1, s.mustMkdir(1, "dir", 0o777)}
		models := []map[int]bool{{}, {}}
		rng := rand.New(rand.NewPCG(seed, 11))
		for range 300 {
			i := rng.IntN(2)
			dir, model := dirs[i], models[i]
			s.caller.uid = 1000 + rng.Uint32N(2)
			n := rng.IntN(ids + 2)
			name := strconv.Itoa(n)
			switch rng.IntN(8) {
			case 0:
				s.restore(records)
			case 1, 2, 3:
				lowest := 0
				for model[lowest] {
					lowest++
				}
				switch got, errno := s.allocate(dir); {
				case lowest == ids && errno != unix.ENOSPC:
					t.Fatalf("allocated %d of %v: %v", got, model, errno)
				case lowest < ids && (errno != 0 || got != lowest):
					t.Fatalf("allocated %d of %v: %v", got, model, errno)
				case lowest < ids:
					model[got] = true
				}
			case 4, 5:
				want := unix.Errno(0)
				switch {
				case n >= ids:
					want = unix.ERANGE
				case model[n]:
					want = unix.EEXIST
				}
				if errno := s.reserve(dir, name); errno != want {
					t.Fatalf("reserve %d of %v: %v, want %v", n, model, errno, want)
				} else if want == 0 {
					model[n] = true
				}
			default:
				want := unix.ENOENT
				if model[n] {
					want = 0
				}
				if errno := s.freeNumber(dir, name); errno != want {
					t.Fatalf("free %d of %v: %v, want %v", n, model, errno, want)
				}
				delete(model, n)
			}
			var want []string
			for _, n := range slices.Sorted(maps.Keys(model)) {
				want = append(want, strconv.Itoa(n))
			}
			s.wantNumbers(strconv.Itoa(ids-len(model)), []string{"", "dir"}[i], want...)
		}
	}
}
