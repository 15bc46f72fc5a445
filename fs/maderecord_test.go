package fs

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
	"github.com/lockfs/lockfs/state"
)

// longest keeps how long the longest record is.
type longest int

func (l *longest) Put(_ uint8, _ uint64, data []byte) { *l = max(*l, longest(len(data))) }
func (l *longest) Drop(uint8, uint64)                 {}

// What is recorded about names outside has room in a record, and what would not have is
// known before.
func TestRecordsOfNamesOutsideFit(t *testing.T) {
	const longestPath = unix.PathMax - 1
	in := func(put func(*Records)) int {
		var l longest
		put(NewRecords(&l, new(Saved)))
		return int(l)
	}
	if maxRecord != state.MaxRecord {
		t.Fatalf("a record has at most %d bytes, not %d", state.MaxRecord, maxRecord)
	}
	fits, not := 0, 0
	for _, name := range []int{1, maxName} {
		for path := name; path <= longestPath; path++ {
			for _, place := range []int{0, 60, 500, longestPath} {
				m := &MadeRecord{
					ID: 1, Key: lockspace.Key{Dir: 1, Name: strings.Repeat("n", name)}, Place: strings.Repeat("p", place),
					Outside: mirror.MadeName{Path: strings.Repeat("d", path), Temporary: mirror.Temporary()},
				}
				n := in(func(r *Records) { r.PutMade(m) })
				if err := m.fits(); (err == nil) != (n <= state.MaxRecord) {
					t.Fatalf("a record with %d bytes: %v", n, err)
				} else if err == nil {
					fits++
				} else if not++; lockErrno(err) != unix.ENAMETOOLONG {
					t.Fatalf("what does not fit is %v", err)
				}
			}
		}
	}
	if fits == 0 || not == 0 {
		t.Errorf("%d fit, %d do not", fits, not)
	}
	foreign := &ForeignRecord{Node: 1, Outside: mirror.Outside{Target: strings.Repeat("t", unix.PathMax)}}
	if n := in(func(r *Records) { r.PutForeign(foreign) }); n > state.MaxRecord {
		t.Errorf("the record of a link that others have made has up to %d bytes", n)
	}
	link := &FileRecord{Kind: symlink, Target: strings.Repeat("t", maxBody)}
	if n := in(func(r *Records) { r.PutFile(link) }); n > state.MaxRecord {
		t.Errorf("the record of a link has up to %d bytes", n)
	}
	r := &ResourceRecord{Kind: lease, Key: lockspace.Key{Name: strings.Repeat("n", maxName)}, Path: strings.Repeat("p", maxBody)}
	if n := len(encodeResource(r)); n > state.MaxRecord { // its path and its space are from one line
		t.Errorf("the record of a resource has up to %d bytes", n)
	}
}
