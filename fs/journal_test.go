package fs_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// The seam for what is to outlive the process: after any sequence of requests
// the records that the journal was given, and nothing else, tell what there
// is; every change is committed before its request is answered; and at the end
// no record is left behind.
func TestTheJournalTellsAll(t *testing.T) {
	for seed := range uint64(10) {
		s := serve(t)
		rng := rand.New(rand.NewPCG(seed, 1))
		names := []string{"a", "b", "c"}
		type open struct {
			file
			name string
			pid  uint32
		}
		var files []open
		lookups := map[uint64]uint64{} // as a kernel counts
		waiting := map[uint64]bool{}
		for range 200 {
			s.caller.pid = 100 + rng.Uint32N(3)
			name := names[rng.IntN(len(names))]
			switch op := rng.IntN(10); {
			case op < 2:
				flags := uint32(0)
				if rng.IntN(2) == 0 {
					flags = unix.O_EXCL
				}
				if f, errno := s.create(name, flags); errno == 0 {
					files = append(files, open{file: f, name: name, pid: s.caller.pid})
					lookups[f.node]++
				}
			case op == 2:
				if r := s.call(opLookup, 1, cstring(name)); r.errno == 0 {
					lookups[native.Uint64(r.body)]++
				}
			case op == 3 && len(lookups) > 0:
				for node, n := range lookups {
					s.send(opForget, node, u64(n))
					delete(lookups, node)
					break
				}
			case op == 4:
				s.call(opUnlink, 1, cstring(name))
				version := s.mustOpen(s.walk(".lockfs", "version"), unix.O_RDONLY)
				s.read(version, 0, 3)
				files = append(files, open{file: version, name: "version"})
			case len(files) == 0:
			case op == 5:
				i := rng.IntN(len(files))
				f := files[i]
				busy := false
				for u := range waiting {
					busy = busy || s.pending(u)
				}
				if busy {
					continue // a kernel keeps a file open while a call is in it
				}
				s.release(f.file)
				files = append(files[:i], files[i+1:]...)
			case op == 6:
				s.write(files[rng.IntN(len(files))].file, 0, fmt.Sprint(rng.Int()))
			case op == 7:
				u := s.startFlock(files[rng.IntN(len(files))].file, []uint32{unix.F_RDLCK, unix.F_WRLCK}[rng.IntN(2)])
				if s.pending(u) {
					waiting[u] = true
				}
			case op == 8:
				for u := range waiting {
					s.send(opInterrupt, 0, u64(u))
					s.await(u)
					delete(waiting, u)
					break
				}
			default:
				f := files[rng.IntN(len(files))].file
				first := rng.Uint64N(10)
				kind := []uint32{unix.F_RDLCK, unix.F_WRLCK, unix.F_UNLCK}[rng.IntN(3)]
				s.call(opSetlk, f.node, s.lockBody(f, uint64(s.caller.pid), kind, first, first+rng.Uint64N(10), false))
			}
			s.checkJournal(t, len(files))
		}
		for u := range waiting {
			s.send(opInterrupt, 0, u64(u))
			s.await(u)
		}
		for _, f := range files {
			s.release(f.file)
		}
		for node, n := range lookups {
			s.send(opForget, node, u64(n))
		}
		s.call(opGetattr, 1, zeros(16))
		s.checkJournal(t, 0)
		s.journal.look(func() {
			j := s.journal
			if len(j.nodes) != 1 || len(j.handles) != 0 || len(j.holds) != 0 || len(j.bodies) != 0 || len(j.waits) != 0 || len(j.contents) != 0 {
				t.Errorf("left behind: %d nodes (1 is the root), %d handles, %d holds, %d bodies, %d waits, %d contents",
					len(j.nodes), len(j.handles), len(j.holds), len(j.bodies), len(j.waits), len(j.contents))
			}
		})
		if t.Failed() {
			return
		}
	}
}

// checkJournal compares the records with each other and with what the wire
// tells.
func (s *served) checkJournal(t *testing.T, files int) {
	t.Helper()
	s.call(opGetattr, 1, zeros(16))
	held := map[string]bool{}
	// A step without an answer may be under way: one that a timer or a detour
	// began.
	committed := false
	s.conn.Do(func() {
		committed = s.journal.look(func() { s.compareRecords(t, files, held) })
	})
	if !committed {
		t.Error("an answer was sent before the commit")
	}
	listed := s.list()
	if fmt.Sprint(sorted(listed)) != fmt.Sprint(sorted(held)) {
		t.Errorf("listed %v, by the records held %v", sorted(listed), sorted(held))
	}
}

// compareRecords compares the records with each other, and adds the names that
// are held by them.
func (s *served) compareRecords(t *testing.T, files int, held map[string]bool) {
	t.Helper()
	j := s.journal
	if len(j.handles) != files {
		t.Errorf("%d open files are recorded, there are %d", len(j.handles), files)
	}
	for id, h := range j.handles {
		if h.Node>>62 == 1 {
			continue // of a control directory: its nodes have no records
		}
		if _, ok := j.nodes[h.Node]; !ok {
			t.Errorf("open file %d is on node %d, which is not recorded", id, h.Node)
		}
	}
	for id, h := range j.holds {
		if _, ok := j.handles[h.Party.Handle]; !ok {
			t.Errorf("hold %d is of open file %d, which is not recorded", id, h.Party.Handle)
		}
		held[h.Key.Name] = true
	}
	for id, w := range j.waits {
		if _, ok := j.handles[w.Party.Handle]; !ok {
			t.Errorf("wait %d is of open file %d, which is not recorded", id, w.Party.Handle)
		}
	}
	for id := range j.contents {
		if h, ok := j.handles[id]; !ok || h.Node>>62 != 1 {
			t.Errorf("what is read from open file %d is recorded, and the file not, or it is not a control file", id)
		}
	}
	for node := range j.bodies {
		if _, ok := j.nodes[node]; !ok {
			t.Errorf("a body is recorded of node %d, which is not", node)
		}
	}
}
