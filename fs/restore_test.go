package fs_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/fs/device"
	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// store is an [fs.Store] in a map.
type store map[[2]uint64][]byte

func (s store) Put(kind uint8, id uint64, data []byte) {
	s[[2]uint64{uint64(kind), id}] = append([]byte{}, data...)
}
func (s store) Drop(kind uint8, id uint64) { delete(s, [2]uint64{uint64(kind), id}) }

// load reads the records back.
func (s store) load() (*fs.Saved, error) {
	saved, err := new(fs.Saved), error(nil)
	for k, data := range s {
		err = errors.Join(err, saved.Load(uint8(k[0]), k[1], data))
	}
	return saved, err
}

// restore puts a filesystem made from the records in the place of the one that
// wrote them, as after the death of its process.
func (s *served) restore(records store) {
	s.t.Helper()
	s.conn.Do(func() {
		saved, err := records.load()
		if err != nil {
			s.t.Error(err)
		}
		o := s.options
		o.Journal = fs.NewRecords(records, saved)
		old := o.Device.(*mortal)
		o.Device = &mortal{Device: old.Device}
		f, err := fs.Restore(o, saved)
		if err != nil {
			s.t.Error(err)
			return
		}
		s.conn.Attach(f)
		s.fs, s.options.Device = f, o.Device
		old.dead = true
	})
	s.init()
	s.conn.Do(func() { s.fs.TookOver() })
}

// restorable returns what is wrong with records.
func (s *served) restorable(records store) error {
	saved, err := records.load()
	if err == nil {
		o := s.options
		o.Journal = fs.Discard{}
		_, err = fs.Restore(o, saved)
	}
	return err
}

// A filesystem made anew from its records goes on as if nothing had happened.
func TestRestore(t *testing.T) {
	for seed := range uint64(10) {
		records := store{}
		s := serveWith(t, func(o *fs.Options) {
			o.Journal = fs.NewRecords(records, new(fs.Saved))
		})
		rng := rand.New(rand.NewPCG(seed, 3))
		owner := map[string]file{} // who holds each name by flock
		queue := map[string][]struct {
			file
			unique uint64
		}{}
		for range 150 {
			name := fmt.Sprint(rng.IntN(3))
			s.caller.pid = 100 + rng.Uint32N(100)
			if rng.IntN(4) == 0 {
				s.restore(records)
			}
			switch holder, held := owner[name]; {
			case !held:
				f := s.mustCreate(name, 0)
				if e := s.flock(f, unix.F_WRLCK); e != 0 {
					t.Fatal(e)
				}
				if e := s.write(f, 0, name); e != 0 {
					t.Fatal(e)
				}
				owner[name] = f
			case rng.IntN(2) == 0:
				f := s.mustCreate(name, 0)
				u := s.startFlock(f, unix.F_WRLCK)
				if !s.pending(u) {
					t.Fatal("two hold ", name)
				}
				queue[name] = append(queue[name], struct {
					file
					unique uint64
				}{f, u})
			default:
				if got, _ := s.read(holder, 0, 100); got != name {
					t.Errorf("body of %s: %q", name, got)
				}
				s.release(holder)
				delete(owner, name)
				if q := queue[name]; len(q) > 0 {
					if r := s.await(q[0].unique); r.errno != 0 {
						t.Fatalf("the first in the queue: %v", r.errno)
					}
					owner[name], queue[name] = q[0].file, q[1:]
					if e := s.write(q[0].file, 0, name); e != 0 {
						t.Fatal(e)
					}
				}
			}
			held := map[string]bool{}
			for n := range owner {
				held[n] = true
			}
			if got := s.list(); fmt.Sprint(sorted(got)) != fmt.Sprint(sorted(held)) {
				t.Fatalf("listed %v, held %v", sorted(got), sorted(held))
			}
		}
	}
}

// A request that every process dies of is answered, and work goes on.
func TestARequestThatKillsIsRefused(t *testing.T) {
	s := serve(t)
	s.mustCreate("x", unix.O_EXCL)
	s.unique += 2
	deadly := join(u32(40+2), u32(opUnlink), u64(s.unique), u64(1), u32(0), u32(0), u32(0), u32(0), cstring("x"))
	init := join(u32(40+64), u32(opInit), u64(1), u64(0), zeros(16), u32(7), u32(41), u32(0), u32(1<<10|1<<1), zeros(48))
	s.conn.Resume(init, nil, []device.Traveller{{Request: deadly}}, false, true)
	if r := s.await(s.unique); r.errno != unix.EIO {
		t.Errorf("the request that kills: %v, want EIO", r.errno)
	}
	if r := s.call(opLookup, 1, cstring("x")); r.errno != 0 {
		t.Errorf("it was carried out: %v", r.errno)
	}
}

func TestNumbersAreNotReusedAfterRestore(t *testing.T) {
	records := store{}
	s := serveWith(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
	a := s.mustCreate("x", unix.O_EXCL)
	s.release(a)
	s.send(opForget, a.node, u64(1))
	s.call(opGetattr, 1, zeros(16))
	s.restore(records)
	b := s.mustCreate("x", unix.O_EXCL)
	if b.node == a.node || b.handle == a.handle {
		t.Errorf("node %d, open file %d; before: %d, %d", b.node, b.handle, a.node, a.handle)
	}
}

// What is put anew after a restore is not always what has the highest number.
func TestNumbersAreNotReusedAfterManyRestores(t *testing.T) {
	records := store{}
	s := serveWith(t, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
	s.mustCreate("old", unix.O_EXCL)
	nodes, handles := map[uint64]bool{}, map[uint64]bool{}
	for i := range 10 {
		s.restore(records)
		s.call(opLookup, 1, cstring("old"))
		s.list()
		if i%2 == 0 {
			continue
		}
		for j := range 5 {
			f := s.mustCreate(fmt.Sprint(i, j), unix.O_EXCL)
			if nodes[f.node] || handles[f.handle] {
				t.Fatalf("node %d or open file %d is there already", f.node, f.handle)
			}
			nodes[f.node], handles[f.handle] = true, true
		}
	}
}

// Records of any bytes are refused or loaded, never more.
func FuzzLoad(f *testing.F) {
	records := store{}
	s := serveWith(f, func(o *fs.Options) { o.Journal = fs.NewRecords(records, new(fs.Saved)) })
	a, b := s.mustCreate("x", unix.O_EXCL), s.mustCreate("y", 0)
	s.write(a, 0, "body")
	s.flock(b, unix.F_RDLCK)
	s.startFlock(s.mustCreate("y", 0), unix.F_WRLCK)
	s.read(s.mustOpen(s.walk(".lockfs", "version"), unix.O_RDONLY), 0, 8)
	s.made("vm", 500, "/a", "/b shared")
	s.mustTell("vm", "ctl<acquire", "ctl<release disk /b")
	s.made("other", 0, "/a")
	s.tell("other", "ctl", "acquire")
	s.call(opGetattr, 1, zeros(16))
	more := fs.NewRecords(records, new(fs.Saved))
	more.PutHold(byName("z", lockspace.ViaMkdir))
	more.PutWait(openWait("y", b.node, 9))
	more.PutGrace(&lockspace.Grace{ID: 1, Key: lockspace.Key{Dir: 1, Name: "g"}, Until: 1 << 40})
	more.PutNumbers(&fs.NumbersRecord{ID: 1, Dir: 1, First: 3, Last: 5, UID: 1000})
	more.PutMount("mount")
	more.PutMade(&fs.MadeRecord{
		ID: 1 << 30, Key: lockspace.Key{Dir: 1, Name: "made"}, State: 2, Unwritten: true,
		Outside: mirror.MadeName{Path: "made", Temporary: mirror.Temporary(), ID: mirror.NameID{Dev: 1, Ino: 2, Born: 3}, Marked: true},
	})
	more.PutForeign(&fs.ForeignRecord{Node: b.node, Outside: mirror.Outside{Mode: unix.S_IFLNK | 0o777, Target: "text", Size: 4}})
	var keys [][2]uint64
	for k, data := range records {
		keys = append(keys, k)
		f.Add(uint8(k[0]), k[1], data)
	}
	f.Fuzz(func(t *testing.T, kind uint8, id uint64, data []byte) {
		var saved fs.Saved
		for _, k := range keys {
			if k != [2]uint64{uint64(kind), id} {
				if err := saved.Load(uint8(k[0]), k[1], records[k]); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := saved.Load(kind, id, data); err != nil {
			return
		}
		o := s.options
		o.Journal = fs.Discard{}
		o.Log = slog.New(slog.DiscardHandler)
		if _, err := fs.Restore(o, &saved); err != nil && !errors.Is(err, fs.ErrRecord) {
			t.Error("an error of another kind:", err)
		}
	})
}
