package space

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A state is text that has been somewhere else: what cannot be one is refused, and
// no descriptor is touched.
func TestWhatIsNoState(t *testing.T) {
	dir := t.TempDir()
	file, err := os.Create(filepath.Join(dir, "foo"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	pipe, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer other.Close()
	const foo = `{"name":"foo","path":"DIR/foo","fd":FILE,"lockHeld":true,"flags":1,"owners":[1,2]}`
	with := func(old, new string) string { return strings.Replace(foo, old, new, 1) }
	for name, resources := range map[string]string{
		"no resources":         `null`,
		"not a list":           `{}`,
		"no name":              with(`"name":"foo",`, ``),
		"a name that is none":  with(`"foo"`, `"../foo"`),
		"another path":         with(`DIR/foo`, `/etc/passwd`),
		"no path":              with(`"path":"DIR/foo",`, ``),
		"no descriptor":        with(`"fd":FILE,`, ``),
		"standard output":      with(`FILE`, `1`),
		"a negative number":    with(`FILE`, `-1`),
		"a closed descriptor":  with(`FILE`, `999999`),
		"a pipe":               with(`FILE`, `PIPE`),
		"not held":             with(`true`, `false`),
		"unknown flags":        with(`"flags":1`, `"flags":4`),
		"negative flags":       with(`"flags":1`, `"flags":-1`),
		"no owners":            with(`[1,2]`, `[]`),
		"owners are missing":   with(`,"owners":[1,2]`, ``),
		"owners are words":     with(`[1,2]`, `["me"]`),
		"two of an exclusive":  with(`"flags":1`, `"flags":0`),
		"one resource twice":   foo + "," + foo,
		"one descriptor twice": foo + "," + strings.ReplaceAll(foo, `foo"`, `bar"`),
	} {
		if !strings.HasPrefix(resources, "{}") && resources != "null" {
			resources = "[" + resources + "]"
		}
		state := fmt.Sprintf(`{"directory":%q,"resources":%s}`, dir, resources)
		state = strings.NewReplacer("DIR", dir, "FILE", fmt.Sprint(file.Fd()), "PIPE", fmt.Sprint(pipe.Fd())).Replace(state)
		refused(t, name, state)
	}
	for name, state := range map[string]string{
		"nothing":                "",
		"no JSON":                "{",
		"words behind it":        `{"resources":[]}x`,
		"an empty directory":     `{"directory":"","resources":[]}`,
		"a number for directory": `{"directory":1,"resources":[]}`,
	} {
		refused(t, name, state)
	}
	if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); err != nil || flags != unix.FD_CLOEXEC {
		t.Errorf("the file's flags are %d (%v)", flags, err)
	}
}

func refused(t *testing.T, name, state string) {
	t.Helper()
	if s, err := NewPostExec([]byte(state)); !errors.Is(err, ErrState) {
		t.Errorf("%s: %v, %v; want ErrState", name, s, err)
	}
}

// The keys and numbers of a state are the original's.
func TestTheStateIsAsLibvirtsIs(t *testing.T) {
	dir := t.TempDir()
	s, err := New(dir)
	if err == nil {
		err = s.AcquireResource("foo", 7, Shared|AutoCreate)
	}
	if err == nil {
		err = s.AcquireResource("foo", 8, Shared)
	}
	if err != nil {
		t.Fatal(err)
	}
	state, undo, err := s.PreExec()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	defer undo()
	want := fmt.Sprintf(`{"directory":%q,"resources":[{"name":"foo","path":%q,"fd":%d,"lockHeld":true,"flags":3,"owners":[7,8]}]}`,
		dir, dir+"/foo", s.resources["foo"].fd)
	if string(state) != want {
		t.Errorf("the state is %s, want %s", state, want)
	}
	var again savedSpace
	if err := json.Unmarshal(state, &again); err != nil || again.Resources[0].Owners[1] != 8 {
		t.Errorf("read again: %+v, %v", again, err)
	}
}
