package mirror

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// What a hot lock costs, taken and dropped, beside the two calls that it takes at
// least, and beside these and the look at the name.

func BenchmarkHot(b *testing.B) {
	w := newWorld(b)
	w.m.fcntl = unix.FcntlFlock
	r := whole("a", exclusive)
	w.end(w.take(r))
	holds := []*lockspace.Hold{{Request: r}}
	b.ReportAllocs()
	for b.Loop() {
		w.mu.Lock()
		if err := w.m.Cover(&r); err != nil {
			b.Fatal(err)
		}
		w.m.Settled(r.Key, holds)
		w.m.Recorded()
		w.m.Settled(r.Key, nil)
		w.m.Recorded()
		w.mu.Unlock()
	}
}

func bare(b *testing.B, each func(dir string)) {
	dir := b.TempDir()
	f, err := os.Create(filepath.Join(dir, "a"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	fd := f.Fd()
	lk := new(unix.Flock_t)
	for b.Loop() {
		*lk = unix.Flock_t{Type: unix.F_WRLCK}
		if err := unix.FcntlFlock(fd, unix.F_OFD_SETLK, lk); err != nil {
			b.Fatal(err)
		}
		each(dir)
		lk.Type = unix.F_UNLCK
		if err := unix.FcntlFlock(fd, unix.F_OFD_SETLK, lk); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBareCalls(b *testing.B) { bare(b, func(string) {}) }

func BenchmarkBareCallsAndStat(b *testing.B) {
	var st unix.Stat_t
	fd := -1
	defer func() { unix.Close(fd) }()
	bare(b, func(dir string) {
		if fd < 0 {
			fd, _ = unix.Open(dir, unix.O_PATH, 0)
		}
		if err := unix.Fstatat(fd, "a", &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			b.Fatal(err)
		}
	})
}
