package tests

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What another mount has left held, and not made outside, is made there when the directory
// answers, whatever workers have died meanwhile; and not, if it is given back before.
func TestNamesAreMadeUpByAgents(t *testing.T) {
	h := mountHanging(t)
	defer h.Answer()
	const space = "s:hold=name"
	m := mount(t, "--space", space)
	m.Deadline(2 * time.Minute)
	a := newClient(t)
	in := func(name string) string { return m.Path("s/" + name) }
	for _, name := range []string{"file", "back"} {
		fd := a.Open(in(name), takeFlags)
		wantErr(t, "write", a.Write(fd, "text"), nil)
		wantErr(t, "close", a.Close(fd), nil)
	}
	wantErr(t, "mkdir", a.Name("mkdir", 0o755, in("dir")), nil)
	i := slices.Index(m.argv, space)
	if i < 0 {
		t.Fatalf("the arguments are %q", m.argv)
	}
	a.Kill()
	h.Hang()
	m.Restart(func() { m.Quit(); m.argv[i] = space + ",mirror=" + h.Dir })
	b := newClient(t)
	for range 2 {
		for _, name := range []string{"file", "dir"} {
			_, err := os.Lstat(filepath.Join(h.below, name))
			if !os.IsNotExist(err) {
				t.Fatalf("%s is outside: %v", name, err)
			}
		}
		killWorker(t, m)
	}
	wantErr(t, "unlink", b.Unlink(in("back")), nil)
	h.Answer()
	eventually(t, answerLimit, func() bool {
		entries, err := os.ReadDir(h.below)
		names := []string{}
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return err == nil && slices.Equal(names, []string{"dir", "file"})
	}, "what is held is outside, and nothing else")
	for _, name := range []string{"file", "dir"} {
		_, err := b.TryOpen(in(name), takeFlags)
		wantErr(t, "O_EXCL of "+name, err, unix.EEXIST)
	}
	time.Sleep(2 * time.Second) // they are looked at, and stay
	killWorker(t, m)
	eventually(t, answerLimit, func() bool {
		text, err := os.ReadFile(filepath.Join(h.below, "file"))
		return err == nil && string(text) == "text"
	}, "the body is outside")
	wantErr(t, "unlink", b.Unlink(in("file")), nil)
	wantErr(t, "rmdir", b.Name("rmdir", 0, in("dir")), nil)
	eventually(t, answerLimit, func() bool { entries, err := os.ReadDir(h.below); return err == nil && len(entries) == 0 }, "nothing is outside")
}
