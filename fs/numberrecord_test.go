package fs_test

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// The numbers of a directory go with it, also if they are many, and processes die
// before all their records have been dropped.
func TestNumbersGoWithTheirDirectory(t *testing.T) {
	const many = 20_000 // more than are dropped in one step, or two
	s, records := serveNumbers(t, "ids=unlimited")
	dir := s.mustMkdir(1, "dir", 0o777)
	var ranges []fs.NumbersRecord
	for i := range uint32(many) {
		ranges = append(ranges, fs.NumbersRecord{Dir: dir, First: 2 * i, Last: 2 * i, UID: 1000})
	}
	s.call(opGetattr, 1, zeros(16))
	reserved(records, ranges...)
	s.restore(records)
	if errno := s.reserve(1, "7"); errno != 0 {
		t.Fatal(errno)
	}
	alloc, _ := s.control(dir, "alloc")
	f := s.mustOpen(alloc, unix.O_RDONLY)
	if r := s.call(opRmdir, 1, cstring("dir")); r.errno != 0 {
		t.Fatal("rmdir of a directory with numbers:", r.errno)
	}
	if _, errno := s.read(f, 0, 100); errno != unix.ENOENT {
		t.Errorf("alloc of a directory that has been removed: %v", errno)
	}
	s.release(f)
	before := numberRecords(records)
	s.send(opForget, dir, u64(1<<40))
	s.restore(records)
	for range 10 {
		s.call(opGetattr, 1, zeros(16))
	}
	if after := numberRecords(records); before != many+1 || after != 1 {
		t.Errorf("%d records before, %d after, want %d and 1", before, after, many+1)
	}
	s.wantNumbers("unlimited", "", "7")
	again := s.mustMkdir(1, "dir", 0o777)
	if n, errno := s.allocate(again); n != 0 || errno != 0 {
		t.Errorf("the next directory of that name: %d, %v", n, errno)
	}
}

// A step drops a bounded number of records, so that others are not held up.
func TestNumbersAreDroppedSomeAtATime(t *testing.T) {
	const many = 20_000
	s, records := serveNumbers(t, "ids=unlimited")
	s.call(opGetattr, 1, zeros(16))
	var ranges []fs.NumbersRecord
	for i := range uint32(many) {
		ranges = append(ranges, fs.NumbersRecord{Dir: 999, First: 2 * i, Last: 2 * i}) // there is none
	}
	reserved(records, ranges...)
	saved, err := records.load()
	if err != nil {
		t.Fatal(err)
	}
	drops := &dropCounter{store: records}
	o := s.options
	o.Device = &mortal{Device: o.Device}
	o.Journal = fs.NewRecords(drops, saved)
	f, err := fs.Restore(o, saved)
	if err != nil {
		t.Fatal(err)
	}
	most, steps := 0, 0
	for s.conn.Do(func() {}); numberRecords(records) > 0; steps++ {
		drops.n = 0
		s.conn.Do(f.EndStep)
		most = max(most, drops.n)
		if steps > many {
			t.Fatal("they are not dropped")
		}
	}
	if most > 4096 || steps < many/4096 {
		t.Errorf("%d records in one step, %d steps", most, steps)
	}
}

// dropCounter is a store that counts what is dropped.
type dropCounter struct {
	store
	n int
}

func (d *dropCounter) Drop(kind uint8, id uint64) {
	d.n++
	d.store.Drop(kind, id)
}

// 1.8: "A clean stop and start keeps ... reserved ids".
func TestNumbersOverACleanStop(t *testing.T) {
	var log bytes.Buffer
	inBubble(t, "ids=20", func(t *testing.T, s *served) {
		s.options.Log = slog.New(slog.NewTextHandler(&log, nil))
		dir := s.mustMkdir(1, "dir", 0o777)
		for _, name := range []string{"3", "4", "11"} {
			s.reserve(1, name)
			s.reserve(dir, name)
		}
		s.stopAndStart(t)
		s.wantNumbers("17", "", "3", "4", "11")
		s.wantNumbers("17", "dir", "3", "4", "11")
		if strings.Contains(log.String(), "out of range") {
			t.Errorf("the log says %q", log.String())
		}

		// The command line says what the root's policy is.
		s.options.Policy = mustPolicy(t, "ids=5")
		s.stopAndStart(t)
		s.wantNumbers("3", "", "3", "4", "11")
		s.wantNumbers("17", "dir", "3", "4", "11")
		if !strings.Contains(log.String(), "highest=11") {
			t.Errorf("the log says %q of what is out of range", log.String())
		}
		s.options.Policy = mustPolicy(t, "ids=0")
		s.stopAndStart(t)
		if _, errno := s.control(1, "ids"); errno != unix.ENOENT {
			t.Errorf("without ids: %v", errno)
		}
		s.options.Policy = mustPolicy(t, "ids=12")
		s.stopAndStart(t)
		s.wantNumbers("9", "", "3", "4", "11")
		if errno := s.freeNumber(1, "11"); errno != 0 {
			t.Error(errno)
		}
		if n, errno := s.allocate(1); n != 0 || errno != 0 {
			t.Errorf("allocated %d, %v", n, errno)
		}
	})
}

// What would not be saved any more, since the stop has begun, is refused.
func TestNumbersAtAStop(t *testing.T) {
	s, _ := serveNumbers(t, "ids=20")
	s.reserve(1, "3")
	s.conn.Do(func() { s.fs.Shutdown() })
	if n, errno := s.allocate(1); errno != unix.ENOLCK {
		t.Errorf("allocated %d, %v", n, errno)
	}
	if errno := s.reserve(1, "5"); errno != unix.ENOLCK {
		t.Errorf("reserve: %v", errno)
	}
	if errno := s.freeNumber(1, "3"); errno != unix.ENOLCK {
		t.Errorf("free: %v", errno)
	}
	if errno := s.freeNumber(1, "5"); errno != unix.ENOENT {
		t.Errorf("free what is not reserved: %v", errno)
	}
	s.wantNumbers("19", "", "3")
}

// Records that contradict themselves, or others, are damaged; those of a program
// that knew of no ids are not.
func TestRestoreRefusesNumbers(t *testing.T) {
	for name, ranges := range map[string][]fs.NumbersRecord{
		"as they can be":       {{First: 0, Last: 5}, {First: 6, Last: 6, UID: 1}, {First: 1<<32 - 1, Last: 1<<32 - 1}},
		"of no directory":      {{Dir: 77, First: 1, Last: 1}},
		"out of range":         {{First: 99, Last: 99}},
		"!twice the same":      {{First: 0, Last: 5}, {First: 5, Last: 6}},
		"!the wrong way round": {{First: 5, Last: 4}},
		"!of a file":           {{Dir: 7, First: 1, Last: 1}},
	} {
		s, records := serveNumbers(t, "ids=10")
		s.call(opGetattr, 1, zeros(16))
		r := fs.NewRecords(records, new(fs.Saved))
		r.PutFile(&fs.FileRecord{Ino: 7})
		r.PutEntry(&fs.EntryRecord{ID: 7, Dir: 1, Name: "file", File: 7})
		reserved(records, ranges...)
		err := s.restorable(records)
		if wrong := strings.HasPrefix(name, "!"); errors.Is(err, fs.ErrRecord) != wrong || !wrong && err != nil {
			t.Errorf("numbers %s: %v", name, err)
		}
	}
	with, root := serveNumbers(t, "ids=10")
	with.call(opGetattr, 1, zeros(16))
	key := [2]uint64{8, 1} // the root's record
	old := slices.Clone(root[key])
	root[key] = old[:len(old)-8]
	with.restore(root)
	if got := with.setting(1, "ids"); got != "0\n" {
		t.Errorf("ids of a program that knew of none: %q", got)
	}
	for _, bad := range [][]byte{u64(0), u64(1<<32 + 1), u32(5), join(u64(5), u64(5))} {
		root[key] = join(old[:len(old)-8], bad)
		if err := with.restorable(root); !errors.Is(err, fs.ErrRecord) {
			t.Errorf("ids % x: %v", bad, err)
		}
	}
}
