package fs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/lockfs/lockfs/lockspace"
)

// When too much is being read, who has not read for longest loses it: neither who
// reads, nor who begins, however much that is.
func TestReadingsInMemoryAreBounded(t *testing.T) {
	f := &FS{journal: Discard{}, readings: readings{most: 1000}, clock: &stepClock{}}
	handles := make(map[string]*controlHandle)
	last := uint64(0)
	begin := func(name string, r *reading) {
		last++
		handles[name] = &controlHandle{HandleRecord: HandleRecord{ID: last, Opener: lockspace.Process{Pid: 1}}}
		f.beginReading(handles[name], r)
	}
	want := func(when string, want map[string]fuse.Status) {
		t.Helper()
		for name, status := range want {
			h := handles[name]
			if h.reading.isLost() != (status != fuse.OK) {
				t.Errorf("%s: %s is lost: %v", when, name, h.reading.isLost())
			}
			in := &fuse.ReadIn{Size: 10, Offset: h.reading.size}
			if _, got := f.readOn(h, in); got != fuse.OK {
				t.Errorf("%s: at the end of %s: %v", when, name, got)
			}
			in.Offset--
			if _, got := f.readOn(h, in); got != status {
				t.Errorf("%s: %s: %v, want %v", when, name, got, status)
			}
		}
	}
	read := func(name string) { f.readOn(handles[name], &fuse.ReadIn{Size: 1}) }
	shared := newReading(make([]byte, 400))
	begin("a", shared)
	begin("a again", shared)
	begin("b", newReading(make([]byte, 400)))
	want("a and b", map[string]fuse.Status{"a": fuse.OK, "a again": fuse.OK, "b": fuse.OK})
	read("b")
	read("a again")
	begin("c", newReading(make([]byte, 400)))
	want("with c", map[string]fuse.Status{"a": fuse.OK, "a again": fuse.OK, "b": errStale, "c": fuse.OK})
	f.leaveReading(handles["b"])
	f.leaveReading(handles["a"])
	begin("large", newReading(make([]byte, 5000)))
	want("with a large one", map[string]fuse.Status{"a again": errStale, "c": errStale, "large": fuse.OK})
	begin("d", newReading(make([]byte, 1)))
	want("with one after", map[string]fuse.Status{"large": errStale, "d": fuse.OK})
	for _, name := range []string{"a again", "c", "large", "d"} {
		f.leaveReading(handles[name])
	}
	if f.readings.bytes != 0 || f.readings.order.Len() != 0 || f.kept != 0 {
		t.Errorf("left are %d bytes, %d readings, %d bytes kept", f.readings.bytes, f.readings.order.Len(), f.kept)
	}
}
