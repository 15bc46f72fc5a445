package mirror

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// backing returns a directory to open files in, and its path.
func backing(t *testing.T, open func(int) *Backing) (*Backing, string) {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return open(fd), dir
}

// plant makes something at path.
func plant(t *testing.T, what, path string) {
	t.Helper()
	var err error
	switch what {
	case "symlink":
		err = os.Symlink("/etc/passwd", path)
	case "symlink beneath":
		err = os.Symlink("file", path)
	case "fifo":
		err = unix.Mkfifo(path, 0o666)
	case "directory":
		err = os.Mkdir(path, 0o755)
	case "socket":
		err = unix.Mknod(path, unix.S_IFSOCK|0o666, 0)
	case "device":
		err = unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	case "file":
		err = os.WriteFile(path, []byte("body"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What is planted where a file should be is refused, at once, by what it is.
func TestOpenRefuses(t *testing.T) {
	b, dir := backing(t, NewBacking)
	plant(t, "file", filepath.Join(dir, "file"))
	plant(t, "directory", filepath.Join(dir, "sub"))
	if err := os.Symlink("sub", filepath.Join(dir, "way")); err != nil {
		t.Fatal(err)
	}
	planted := map[string]unix.Errno{
		"symlink": unix.ELOOP, "symlink beneath": unix.ELOOP, "fifo": unix.ENXIO,
		"directory": unix.EISDIR, "socket": unix.ENXIO, "device": unix.ENXIO,
	}
	for what, want := range planted {
		plant(t, what, filepath.Join(dir, "x"))
		begin := time.Now()
		o, err := b.Open("x", 1, 1)
		var pe *fs.PathError
		if !errors.Is(err, want) || !errors.As(err, &pe) || pe.Path != "x" {
			t.Errorf("%s: %+v, %v, want %v", what, o, err, want)
		}
		if took := time.Since(begin); took > time.Second {
			t.Errorf("%s: it took %v", what, took)
		}
		if _, _, err := b.Probe("x"); !errors.Is(err, want) {
			t.Errorf("Probe of a %s: %v, want %v", what, err, want)
		}
		os.Remove(filepath.Join(dir, "x"))
	}
	for path, want := range map[string]unix.Errno{
		"way/x": unix.ELOOP, "file/x": unix.ENOTDIR, "way/new/x": unix.ELOOP, "": unix.EINVAL,
		"../x": unix.EINVAL, "sub/../x": unix.EINVAL, "/etc/passwd": unix.EINVAL, "a\x00b": unix.EINVAL,
		string(make([]byte, 0, 1)) + "sub//x": unix.EINVAL,
	} {
		if _, err := b.Open(path, 1, 1); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", path, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "sub", "x")); err == nil {
		t.Error("a link on the way was followed")
	}
}

// A filesystem that is mounted in the directory is not entered.
func TestOpenCrossesNothing(t *testing.T) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := NewBacking(fd).Open("proc/version", 0, 0); !errors.Is(err, unix.EXDEV) {
		t.Errorf("%v, want EXDEV", err)
	}
}

// What is missing is made, as the taker's; what is there stays as it is.
func TestOpenMakes(t *testing.T) {
	b, dir := backing(t, NewBacking)
	o, err := b.Open("a/b/c", 1234, 4321)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(o.FD)
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "a/b/c"), &st); err != nil {
		t.Fatal(err)
	}
	if !o.Created || o.ReadOnly || st.Mode&0o7777&^0o644 != 0 {
		t.Errorf("%+v, mode %o", o, st.Mode)
	}
	if os.Geteuid() == 0 && (st.Uid != 1234 || st.Gid != 4321) {
		t.Errorf("it is the file of %d:%d", st.Uid, st.Gid)
	}
	plant(t, "file", filepath.Join(dir, "a/d"))
	p, err := b.Open("a/d", 1234, 4321)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p.FD)
	body, _ := os.ReadFile(filepath.Join(dir, "a/d"))
	if unix.Stat(filepath.Join(dir, "a/d"), &st); p.Created || string(body) != "body" || int(st.Uid) != os.Geteuid() || st.Mode&0o777 != 0o600 {
		t.Errorf("%+v, %q, uid %d, mode %o", p, body, st.Uid, st.Mode)
	}
}

// In a directory for locks on existing files nothing is made.
func TestDirect(t *testing.T) {
	b, dir := backing(t, NewDirect)
	if _, err := b.Open("a", 0, 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want ENOENT", err)
	}
	if _, err := b.Open("sub/a", 0, 0); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v, want ENOENT", err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("made: %v", names)
	}
	plant(t, "file", filepath.Join(dir, "a"))
	o, err := b.Open("a", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(o.FD)
}

// A file that cannot be written is locked shared, and not exclusively: here, one
// that is being run.
func TestReadOnly(t *testing.T) {
	w := newWorld(t)
	body, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("a"), body, 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := os.StartProcess(w.path("a"), []string{"sleep", "100"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wait()
	defer p.Kill()
	h := w.take(whole("a", shared))
	w.refuse(whole("a", exclusive), unix.EACCES)
	w.mustSee("a", 0, "shared")
	w.restart(false, nil)
	w.refuse(whole("a", exclusive), unix.EACCES)
	w.end(h)
	w.mustSee("a", 0, "free")
}

// Somebody puts one thing after another where the file should be, while it is
// opened. Every time it is either the file that is there or an error that fits, and
// it never waits.
func TestOpenRace(t *testing.T) {
	b, dir := backing(t, NewBacking)
	plant(t, "file", filepath.Join(dir, "file"))
	whats := []string{"symlink", "fifo", "file", "directory", "symlink beneath", "device", "nothing"}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			tmp := filepath.Join(dir, "tmp")
			os.RemoveAll(tmp)
			if what := whats[i%len(whats)]; what == "nothing" {
				os.RemoveAll(filepath.Join(dir, "x"))
				continue
			} else {
				plant(t, what, tmp)
			}
			if err := os.Rename(tmp, filepath.Join(dir, "x")); err != nil {
				os.RemoveAll(filepath.Join(dir, "x"))
				os.Rename(tmp, filepath.Join(dir, "x"))
			}
		}
	}()
	opened, refused := 0, 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		begin := time.Now()
		o, err := b.Open("x", 0, 0)
		if took := time.Since(begin); took > time.Second {
			t.Errorf("it took %v", took)
		}
		switch {
		case err == nil:
			opened++
			var st unix.Stat_t
			if err := unix.Fstat(o.FD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 {
				t.Errorf("opened %+v: mode %o, %v", o, st.Mode, err)
			}
			unix.Close(o.FD)
		case errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ESTALE):
			refused++
		default:
			t.Error(err)
		}
	}
	close(stop)
	<-done
	t.Logf("%d times opened, %d times refused", opened, refused)
	if opened == 0 || refused == 0 {
		t.Errorf("%d times opened, %d times refused", opened, refused)
	}
}

// A file that was replaced after it was opened is not the one.
func TestOpenedIsVerified(t *testing.T) {
	b, dir := backing(t, NewBacking)
	plant(t, "file", filepath.Join(dir, "old"))
	plant(t, "file", filepath.Join(dir, "new"))
	for _, path := range []string{"new", "gone"} {
		fd, err := unix.Open(filepath.Join(dir, "old"), unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.verified(path, Opened{FD: fd}); err != errMoved {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("%s: it is still open: %v", path, err)
		}
	}
}

// Who has a file locked is found out without making or keeping anything.
func TestProbe(t *testing.T) {
	w := newWorld(t)
	b := w.m.config.Backing
	if f, found, err := b.Probe("a"); found || err != nil {
		t.Errorf("%+v %v %v", f, found, err)
	}
	if names, _ := os.ReadDir(w.dir); len(names) != 0 {
		t.Errorf("made: %v", names)
	}
	x := w.foreigner("a")
	for _, c := range []struct {
		line string
		want Foreign
	}{
		{"posix set read 5 0", Foreign{Mode: shared, Range: lockspace.Range{First: 5, Last: end}, Pid: x.cmd.Process.Pid}},
		{"posix set unlock 0 0", Foreign{}},
		{"ofd set write 3 4", Foreign{Mode: exclusive, Range: lockspace.Range{First: 3, Last: 6}}},
	} {
		x.does(c.line, "ok")
		if f, found, err := b.Probe("a"); f != c.want || found != (c.want != Foreign{}) || err != nil {
			t.Errorf("%s: %+v %v %v", c.line, f, found, err)
		}
	}
	w.do(func() {
		if _, _, known, err := w.m.Probe(key("a")); known || err != nil {
			t.Errorf("the mirror knows a file that it has not opened: %v", err)
		}
	})
}

// A mirror over a directory in which files are replaced all the time: whoever
// holds a lock has locked the file that is there, or is told.
func TestReplaceRace(t *testing.T) {
	w := newWorld(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			os.WriteFile(w.path("tmp"), nil, 0o644)
			os.Rename(w.path("tmp"), w.path("a"))
		}
	}()
	granted, lost := 0, 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		h, err := w.try(whole("a", exclusive))
		if err == lockspace.ErrForeign {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		granted++
		if w.seen("a", 0) != "exclusive" {
			// It was replaced since: who shares it finds out.
			if _, err := w.try(whole("a", shared)); err != lockspace.ErrForeign {
				t.Fatalf("the file that is there is not locked, and it is granted: %v", err)
			}
			lost++
		}
		w.end(h)
	}
	close(stop)
	<-done
	t.Logf("%d times granted, %d times lost", granted, lost)
	if granted == 0 {
		t.Error("it was never granted")
	}
	w.eventually("only one file is open", func() bool { return w.stats().Open <= 1 })
}

// Who else may write into the directory is said.
func TestCheck(t *testing.T) {
	b, dir := backing(t, NewBacking)
	for mode, bad := range map[fs.FileMode]bool{0o755: false, 0o700: false, 0o775: true, 0o777: true, 0o777 | fs.ModeSticky: true} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		warning, err := b.Check()
		if err != nil || (warning != "") != bad {
			t.Errorf("%v: %q, %v", mode, warning, err)
		}
	}
}
