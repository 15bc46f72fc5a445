package tests

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory that somebody outside has removed is not made again for who works in it
// on the mount, whatever has died meanwhile.
func TestDirectoriesThatAreGoneStayGone(t *testing.T) {
	for _, hold := range []string{"hold=handle", "hold=name"} {
		t.Run(hold, func(t *testing.T) {
			m := mountBacked(t, "--policy", hold)
			a := newClient(t)
			for _, kill := range []bool{false, true} {
				if err := os.Mkdir(m.Behind("theirs"), 0o755); err != nil {
					t.Fatal(err)
				}
				wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("ours")), nil)
				for _, name := range []string{"theirs", "ours"} {
					dir, err := unix.Open(m.Path(name), unix.O_PATH|unix.O_DIRECTORY, 0)
					if err != nil {
						t.Fatal(err)
					}
					if kill {
						killWorker(t, m.Mount)
					}
					if err := os.Remove(m.Behind(name)); err != nil {
						t.Fatal(err)
					}
					fd, err := unix.Openat(dir, "x", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, 0o644)
					wantErr(t, "O_EXCL in "+name+", which is gone", err, unix.ESTALE)
					if err == nil {
						unix.Close(fd)
					}
					unix.Close(dir)
					wantBehind(t, m, map[string][]string{"theirs": {"ours"}}[name]...)
				}
				eventually(t, answerLimit, func() bool { return a.Name("mkdir", 0o755, m.Path("ours")) == nil }, "the name is free")
				wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("ours")), nil)
				wantListed(t, a, m.Mount)
				wantBehind(t, m)
			}
		})
	}
}

// A directory whose hold has ended, and in which somebody outside has something, is his
// until he has left.
func TestDirectoriesThatOthersKeep(t *testing.T) {
	m := mountBacked(t, "--policy", "lease=300ms")
	a, stranger := newClient(t), newClient(t)
	wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("dir")), nil)
	file := stranger.Open(m.Behind("dir/x"), unix.O_RDWR|unix.O_CREAT)
	wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), nil)
	held := func() bool { text, _ := os.ReadFile(m.Path(".lockfs/locks")); return len(text) > 0 }
	eventually(t, answerLimit, func() bool { return !held() }, "the lease ends")
	for range 2 {
		wantListed(t, a, m.Mount, "dir")
		wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("dir")), unix.EEXIST)
		_, err := a.TryOpen(m.Path("dir/x"), takeFlags)
		wantErr(t, "O_EXCL of the stranger's", err, unix.EEXIST)
		killWorker(t, m.Mount)
	}
	wantErr(t, "unlink", stranger.Unlink(m.Behind("dir/x")), nil)
	eventually(t, answerLimit, func() bool { return a.Name("mkdir", 0o755, m.Path("dir")) == nil }, "the name is free")
	wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("dir")), nil)
	wantBehind(t, m)
}
