package fs_test

import (
	"encoding/base64"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// Who is in a line has a name if he lived when he was looked at, and no other has had
// his number since he asked.
func TestCommsInEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveEvents(t)
		s.caller.pid = 300
		s.mustCreate("before anybody reads", unix.O_EXCL)
		r := s.openEvents()
		time.Sleep(time.Second)
		if n := s.procs.looked(); n != 0 {
			t.Errorf("looked at processes %d times when nothing had happened", n)
		}
		lives := func(pid uint32, comm string, started time.Duration) {
			s.procs.set(pid, fs.ProcessInfo{Kin: fs.Kin{Pid: pid, Started: started}, Comm: comm})
		}
		take := func(pid uint32, name string) file {
			s.caller.pid = pid
			return s.mustCreate(name, unix.O_EXCL)
		}
		lives(301, "a \"b\"\n", time.Minute)
		lives(302, "broken\xff", time.Minute)
		lives(303, "before execve", time.Minute)
		lives(305, "later", 100*time.Hour)
		s.procs.set(306, fs.ProcessInfo{Kin: fs.Kin{Pid: 306}, Gone: true, Comm: "gone"})
		s.procs.kill(304)
		held := take(301, "one")
		take(302, "two")
		take(303, "three")
		take(304, "dead")
		take(305, "recycled")
		take(306, "zombie")
		take(0, "out of sight")
		text := r.drain(4096)

		lives(303, "after it", time.Minute)
		take(303, "three again")
		s.procs.kill(301)
		s.release(held) // its name is remembered
		// Somebody else has its number by now.
		lives(301, "another", 90*time.Minute)
		s.procs.revive(301)
		s.release(take(302, "more"))
		text += r.drain(4096)
		got := ""
		for _, l := range parseLines(t, text)[1:] {
			comm := l.Comm
			if l.CommBase64 != nil {
				b, _ := base64.StdEncoding.DecodeString(*l.CommBase64)
				comm = string(b)
			}
			got += fmt.Sprintf("%s %s: %q\n", l.Event, l.Path, comm)
		}
		want := `taken one: "a \"b\"\n"
taken two: "broken\xff"
taken three: "before execve"
taken dead: ""
taken recycled: ""
taken zombie: ""
taken out of sight: ""
taken three again: "after it"
released one: "a \"b\"\n"
taken more: "broken\xff"
released more: "broken\xff"
`
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		s.release(r.file)
		looks := s.procs.looked()
		take(307, "when nobody reads")
		time.Sleep(time.Second)
		if n := s.procs.looked() - looks; n != 0 {
			t.Errorf("looked at processes %d times when nobody read", n)
		}
	})
}

// Nobody waits until all processes have been looked at, and none is looked at for each
// line.
func TestCommsOfManyProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := serveEvents(t)
		r := s.openEvents()
		const processes, rounds = 40, 50
		for i := range rounds {
			for p := range processes {
				s.caller.pid = uint32(1000 + p)
				s.release(s.mustCreate(fmt.Sprint(i, ".", p), unix.O_EXCL))
			}
		}
		lines := parseLines(t, drainAll(r, 1<<16))
		if len(lines) != 1+2*processes*rounds {
			t.Fatalf("%d lines", len(lines))
		}
		named := 0
		for _, l := range lines {
			if l.Comm == "program" {
				named++
			}
		}
		// Who waited for longer than there is room for has no name.
		if looks := s.procs.looked(); looks > 3*processes || named < 1024 || named == len(lines)-1 {
			t.Errorf("%d lines have a name, of %d, after %d looks", named, len(lines), looks)
		}
		s.caller.pid = 2000
		s.mustCreate("last", unix.O_EXCL)
		if lines := parseLines(t, drainAll(r, 4096)); len(lines) != 1 || lines[0].Comm != "program" {
			t.Errorf("afterwards: %+v", lines)
		}
	})
}
