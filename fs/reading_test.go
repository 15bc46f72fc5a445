package fs_test

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.7 and 1.8: a reader of a control file sees one moment, over short reads and
// killed workers.

// serveLong serves a version that is so many bytes long.
func serveLong(t *testing.T, records store, size int) (s *served, text string) {
	t.Helper()
	s = serveWith(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
	return s, s.nextProgram(records, size, "x")
}

// nextProgram has another program take over, the version of which is so many bytes
// of another kind. It returns what that is.
func (s *served) nextProgram(records store, size int, of string) (text string) {
	s.t.Helper()
	s.options.Program = strings.Repeat(of, size-len("program=\nstate=0\n"))
	s.restore(records)
	return "program=" + s.options.Program + "\nstate=0\n"
}

// rest reads an open file from an offset to its end.
func (s *served) rest(f file, offset int) (text string, errno syscall.Errno) {
	s.t.Helper()
	for {
		part, errno := s.read(f, uint64(offset+len(text)), 32<<10)
		if errno != 0 || part == "" {
			return text, errno
		}
		text += part
	}
}

// wantNothingRead fails the test if there is a record of anything that is open or
// read.
func wantNothingRead(t *testing.T, s *served, records store) {
	t.Helper()
	s.call(opGetattr, 1, zeros(16))
	for k := range records {
		if k[0] == 2 || k[0] == 7 || k[0] == 19 {
			t.Errorf("record %d of kind %d is left", k[1], k[0])
		}
	}
}

// What a reader has begun is there for the next processes, up to a length. Of what
// is longer nobody gets a part of another moment.
func TestLongReadsSurvive(t *testing.T) {
	const page, most = 4096, 256 << 10
	for _, size := range []int{20, page - 1, page, page + 1, 2 * page, 3*page + 1, most - 1, most, most + 1, 3 * most} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			records := store{}
			s, text := serveLong(t, records, size)
			f := s.mustOpen(s.walk(".lockfs", "version"), unix.O_RDONLY)
			half, ended := s.mustOpen(f.node, unix.O_RDONLY), s.mustOpen(f.node, unix.O_RDONLY)
			for _, f := range []file{f, half, ended} {
				if got, errno := s.read(f, 0, 10); got != text[:10] || errno != 0 {
					t.Fatalf("the beginning: %q, %v", got, errno)
				}
			}
			for range 2 {
				s.nextProgram(records, size, "y")
				got, errno := s.rest(half, size/2)
				switch {
				case size <= most && (got != text[size/2:] || errno != 0):
					t.Errorf("the second half: %d bytes, %v", len(got), errno)
				case size > most && errno != unix.ESTALE:
					t.Errorf("the second half: %d bytes, %v, want ESTALE", len(got), errno)
				}
				if got, errno := s.read(ended, uint64(size), 100); got != "" || errno != 0 {
					t.Errorf("at the end: %q, %v", got, errno)
				}
			}
			text = s.nextProgram(records, 2*page+1, "z")
			for _, offset := range []int{0, 1, 2 * page} {
				if got, errno := s.read(f, uint64(offset), 32<<10); got != text[offset:] || errno != 0 {
					t.Errorf("begun anew, at %d: %d bytes, %v", offset, len(got), errno)
				}
			}
			for _, f := range []file{f, half, ended} {
				s.release(f)
			}
			wantNothingRead(t, s, records)
		})
	}
}

// However many files are open, what is kept is bounded, and there is room again
// when they are closed. Nobody is given what is not his.
func TestKeptReadsAreBounded(t *testing.T) {
	const size, most = 200 << 10, 16 << 20
	const fit = most / size
	records := store{}
	s, text := serveLong(t, records, size)
	version := s.walk(".lockfs", "version")
	var open []file
	for range fit + 20 {
		f := s.mustOpen(version, unix.O_RDONLY)
		s.read(f, 0, 1)
		open = append(open, f)
	}
	bytes := func() (n int) {
		s.call(opGetattr, 1, zeros(16))
		for k, data := range records {
			if k[0] == 19 || k[0] == 7 {
				n += len(data)
			}
		}
		return n
	}
	if n := bytes(); n > most+len(open)*64 || n < most-size {
		t.Errorf("%d bytes are kept", n)
	}
	for _, f := range open[:10] {
		s.read(f, 0, 1) // what is kept of it goes
	}
	for _, f := range open[:5] {
		s.release(f)
	}
	f := s.mustOpen(version, unix.O_RDONLY)
	s.read(f, 0, 1)
	open = append(open[5:], f)
	s.nextProgram(records, size, "y")
	whole := 0
	for i, f := range open {
		got, errno := s.rest(f, 1)
		switch {
		case got == text[1:] && errno == 0:
			whole++
		case errno != unix.ESTALE || i == len(open)-1:
			t.Errorf("reader %d: %d bytes, %v", i, len(got), errno)
		}
	}
	if whole != fit-5+1 {
		t.Errorf("%d readers go on, want %d", whole, fit-5+1)
	}
	if n := bytes(); n > most+len(open)*64 {
		t.Errorf("%d bytes are kept", n)
	}
	for _, f := range open {
		s.release(f)
	}
	wantNothingRead(t, s, records)
}

// holdMany takes n locks.
func (s *served) holdMany(n int) {
	s.t.Helper()
	for i := range n {
		s.mustCreate(fmt.Sprintf("held %04d", i), unix.O_EXCL)
	}
}

// Readers of a list go on in it over the death of the process, whatever happens to
// locks meanwhile; those who share it share what is kept, until the last has gone.
func TestReadersOfListsSurvive(t *testing.T) {
	records := store{}
	s := serveWith(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
	s.holdMany(200)
	var open []file
	for range 4 {
		open = append(open, s.mustOpen(s.walk(".lockfs", "locks"), unix.O_RDONLY))
	}
	// Two wait to look at a process, and no more do at a time: the others come meanwhile.
	free := s.procs.hold()
	var readers []uint64
	for i, f := range open {
		readers = append(readers, s.send(opRead, f.node, u64(f.handle), u64(0), u32(100), zeros(20)))
		for s.procs.waited() < min(i+1, 2) {
			s.call(opGetattr, 1, zeros(16))
		}
	}
	s.call(opGetattr, 1, zeros(16))
	free()
	for _, u := range readers {
		if r := s.await(u); r.errno != 0 {
			t.Fatal(r.errno)
		}
	}
	pieces := func() (n int) {
		s.call(opGetattr, 1, zeros(16))
		for k := range records {
			if k[0] == 19 {
				n++
			}
		}
		return n
	}
	text := s.readAll(32<<10, ".lockfs", "locks")
	if n := (len(text) + 4095) / 4096; n < 3 || pieces() != 3*n {
		t.Fatalf("%d bytes, and %d pieces for four readers, of whom two share theirs", len(text), pieces())
	}
	s.mustCreate("a new one", unix.O_EXCL)
	for i, f := range open {
		s.restore(records)
		if got, errno := s.rest(f, 100); got != text[100:] || errno != 0 {
			t.Errorf("reader %d goes on with %d bytes of %d (%v)", i, len(got), len(text)-100, errno)
		}
		before := pieces()
		s.release(f)
		if after := pieces(); i == 3 && after != 0 || i < 3 && (before == 0 || after == 0) {
			t.Errorf("%d pieces with reader %d, %d without", before, i, after)
		}
	}
}

// Records of what is read that contradict each other are refused.
func TestRestoreRefusesReadings(t *testing.T) {
	for name, change := range map[string]func(records store, content [2]uint64){
		"a piece is missing":  func(r store, _ [2]uint64) { r.Drop(19, 64+1) },
		"a piece is short":    func(r store, _ [2]uint64) { r.Put(19, 64+1, make([]byte, 10)) },
		"a piece is long":     func(r store, _ [2]uint64) { r.Put(19, 64+1, make([]byte, 4097)) },
		"a piece too many":    func(r store, _ [2]uint64) { r.Put(19, 64+3, make([]byte, 10)) },
		"a piece of nothing":  func(r store, _ [2]uint64) { r.Put(19, 1000, make([]byte, 10)) },
		"a size without them": func(r store, c [2]uint64) { copy(r[c], u64(1<<62)) },
		"a shorter size":      func(r store, c [2]uint64) { copy(r[c], u64(4097)) },
		"another's pieces":    func(r store, c [2]uint64) { copy(r[c][8:], u64(77)) },
		"no open file":        func(r store, c [2]uint64) { r.Put(7, 999, r[c]) },
		"two sizes": func(r store, c [2]uint64) {
			for k, data := range r {
				if k[0] == 2 && k[1] == c[1] {
					r.Put(2, 998, data)
				}
			}
			r.Put(7, 998, append(u64(9000), r[c][8:]...))
		},
		"short, and not as long": func(r store, c [2]uint64) { r.Put(7, c[1], join(u64(5), u64(0), u32(3), []byte("abc"))) },
	} {
		t.Run(name, func(t *testing.T) {
			records := store{}
			s, _ := serveLong(t, records, 3*4096)
			f := s.mustOpen(s.walk(".lockfs", "version"), unix.O_RDONLY)
			s.read(f, 0, 10)
			s.call(opGetattr, 1, zeros(16))
			if err := s.restorable(records); err != nil {
				t.Fatal("unchanged:", err)
			}
			changed := store{}
			for k, data := range records {
				changed.Put(uint8(k[0]), k[1], data)
			}
			change(changed, [2]uint64{7, f.handle})
			if err := s.restorable(changed); !errors.Is(err, fs.ErrRecord) {
				t.Errorf("%v, want ErrRecord", err)
			}
		})
	}
}
