package tests

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// What was a stranger's when it was looked up is an ordinary lock when it is taken,
// whatever the directory's policy is by then, for the next process too.
func TestForeignNamesBecomeLocks(t *testing.T) {
	for _, hold := range []string{"handle", "open"} {
		t.Run(hold, func(t *testing.T) {
			m := mountBacked(t, "--policy", holdByName)
			a := newClient(t)
			if err := os.WriteFile(m.Behind("x"), []byte("the stranger's\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			a.Open(m.Path("x"), unix.O_RDONLY)
			if err := os.Remove(m.Behind("x")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(m.Path(".lockfs/policy/hold"), []byte(hold), 0o644); err != nil {
				t.Fatal(err)
			}
			fd := a.Open(m.Path("x"), takeFlags)
			wantErr(t, "the holder's write", a.Write(fd, "mine\n"), nil)
			killWorker(t, m.Mount)
			wantErr(t, "the holder's write to the next process", a.Write(fd, "mine, too\n"), nil)
			wantErr(t, "close", a.Close(fd), nil)
		})
	}
}
