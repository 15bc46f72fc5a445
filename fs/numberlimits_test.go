package fs_test

import (
	"maps"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// reserved puts records of numbers into a store, for the directory 1.
func reserved(records store, ranges ...fs.NumbersRecord) {
	r := fs.NewRecords(records, new(fs.Saved))
	for i, n := range ranges {
		n.ID = uint64(i) + 1000
		if n.Dir == 0 {
			n.Dir = 1
		}
		r.PutNumbers(&n)
	}
}

// 1.9: "so that one user cannot exhaust the table for the others".
func TestNumbersOfAUserAreLimited(t *testing.T) {
	const most = 1 << 20
	s, records := serveNumbers(t, "ids=unlimited")
	s.call(opGetattr, 1, zeros(16))
	reserved(records, fs.NumbersRecord{First: 0, Last: most - 2, UID: 1000})
	s.restore(records)
	dir := s.mustMkdir(1, "another", 0o777)
	if n, errno := s.allocate(dir); n != 0 || errno != 0 {
		t.Fatalf("the last that he may have: %d, %v", n, errno)
	}
	if _, errno := s.allocate(dir); errno != unix.EDQUOT {
		t.Errorf("one more: %v", errno)
	}
	if errno := s.reserve(1, "4000000000"); errno != unix.EDQUOT {
		t.Errorf("one more, by its number: %v", errno)
	}
	s.caller = caller{1001, 1001, 101}
	if n, errno := s.allocate(1); n != most-1 || errno != 0 {
		t.Errorf("another user: %d, %v", n, errno)
	}
	if errno := s.freeNumber(1, "12345"); errno != 0 {
		t.Error(errno)
	}
	s.restore(records)
	s.caller = caller{1000, 1000, 100}
	if n, errno := s.allocate(1); n != 12345 || errno != 0 {
		t.Errorf("when another has freed one of his: %d, %v", n, errno)
	}
	if _, errno := s.allocate(1); errno != unix.EDQUOT {
		t.Errorf("one more: %v", errno)
	}
	// They come back with the directory.
	if r := s.call(opRmdir, 1, cstring("another")); r.errno != 0 {
		t.Fatal(r.errno)
	}
	s.send(opForget, dir, u64(1<<40))
	if n, errno := s.allocate(1); n != most || errno != 0 {
		t.Errorf("when a directory has gone: %d, %v", n, errno)
	}

	maps.DeleteFunc(records, func(k [2]uint64, _ []byte) bool { return k[0] == 20 })
	var ranges []fs.NumbersRecord
	for i := range uint32(4) {
		ranges = append(ranges, fs.NumbersRecord{First: i * most, Last: (i+1)*most - 2, UID: 2000 + i})
	}
	reserved(records, ranges...)
	s.restore(records)
	for i := range 5 {
		want := unix.Errno(0)
		if i == 4 {
			want = unix.ENOLCK
		}
		if _, errno := s.allocate(1); errno != want {
			t.Errorf("%d short of what all users may have: %v, want %v", 4-i, errno, want)
		}
	}
}

// numberRecords returns how many records of numbers there are.
func numberRecords(records store) (n int) {
	for k := range records {
		if k[0] == 20 {
			n++
		}
	}
	return n
}
