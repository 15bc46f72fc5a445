package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What README.md shows of a terminal is true.

// typed is a command in README.md: by whom, and what he is shown.
type typed struct{ user, command, shows string }

// transcripts reads the terminals under a heading of README.md.
func transcripts(t *testing.T, heading string) (all [][]typed) {
	t.Helper()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	in := false
	prompt := regexp.MustCompile(`^(root|alice|bob)[$#] (.*)\n$`)
	for line := range strings.Lines(section) {
		shown, ok := strings.CutPrefix(line, "    ")
		if in = in && ok; !ok {
			continue
		}
		if !in {
			in, all = true, append(all, nil)
		}
		now := &all[len(all)-1]
		if m := prompt.FindStringSubmatch(shown); m != nil {
			*now = append(*now, typed{user: m[1], command: m[2]})
		} else {
			(*now)[len(*now)-1].shows += shown
		}
	}
	return all
}

// terminal is a user's shell.
type terminal struct {
	in  io.Writer
	out *bufio.Reader
}

func newTerminal(t *testing.T, m *Mount, who clientOption) *terminal {
	t.Helper()
	cmd := command([]clientOption{who}, "/bin/bash")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	x := &terminal{in, bufio.NewReader(out)}
	if text := x.run(t, "cd "+m.Dir); text != "" {
		t.Fatal(text)
	}
	return x
}

// run types a command and returns what it shows.
func (x *terminal) run(t *testing.T, command string) (text string) {
	t.Helper()
	fmt.Fprintf(x.in, "%s\necho '*done*'\n", command)
	for {
		line, err := x.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if line == "*done*\n" {
			return text
		}
		text += line
	}
}

// varying is what is another in each run: times, and numbers of processes. interactive
// is what bash calls itself where it is not, and was started by its path.
var varying = regexp.MustCompile(`\d{4}-\d\d-\d\dT[\d:.]+Z|"(held|waited)":[\d.]+|"comm":"(bash)?"|"(pid|opener)":\d+|(held|waiting) \d+`)
var interactive = regexp.MustCompile(`/bin/bash: line \d+: `)

// terminals are those of the users in README.md.
func terminals(t *testing.T, m *Mount) map[string]*terminal {
	return map[string]*terminal{
		"root": newTerminal(t, m, asUser(0, 0)), "alice": newTerminal(t, m, asUser(1002, 1002)), "bob": newTerminal(t, m, asUser(1003, 1003)),
	}
}

// Everybody sees what is shown under "See what is going on".
func TestTheTerminalInTheReadme(t *testing.T) {
	m := mount(t)
	users := terminals(t, m)
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	events := filepath.Join(dir, "events")
	both := transcripts(t, "See what is going on")
	if len(both) != 2 || len(both[0]) < 8 || len(both[1]) < 5 {
		t.Fatalf("there are not two terminals: %q", both)
	}
	same := func(text string) string {
		return varying.ReplaceAllString(interactive.ReplaceAllString(text, "bash: "), "N")
	}
	for _, c := range both[0] {
		command, want := strings.ReplaceAll(c.command, "/tmp/events", events), same(c.shows)
		shows := same(users[c.user].run(t, command))
		// Who has typed something in the background, or in another terminal, is not
		// there at once.
		again := strings.HasPrefix(command, "cat ") && !strings.HasSuffix(command, "&")
		for end := time.Now().Add(answerLimit); again && shows != want && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			shows = same(users[c.user].run(t, command))
		}
		if shows != want {
			t.Fatalf("%s shows\n%swant\n%s", c.command, shows, want)
		}
		if strings.HasSuffix(command, ">"+events+" &") {
			awaitFile(t, events, `"opened"`)
		}
	}
}

// What alice and bob do there is a red ring of six, with six arrows, and one who
// waits is not in it.
func TestThePictureInTheReadme(t *testing.T) {
	m := mount(t)
	users := terminals(t, m)
	for _, c := range transcripts(t, "See what is going on")[1] {
		if strings.HasPrefix(c.command, "dot ") {
			const file = ".lockfs/waits.dot"
			if !strings.Contains(c.command, file) {
				t.Errorf("%s draws something else", c.command)
			}
			red, black := 0, 0
			eventually(t, answerLimit, func() bool {
				text := users[c.user].run(t, "cat "+file)
				red, black = strings.Count(text, ",color=red"), strings.Count(text, "\"];\n")
				return red+black >= 14
			}, "all who wait are drawn")
			if red != 12 || black != 2 {
				t.Errorf("%d lines are red, %d are not", red, black)
			}
			return
		}
		if text := users[c.user].run(t, c.command); text != c.shows {
			t.Errorf("%s shows %q", c.command, text)
		}
	}
	t.Error("nothing is drawn")
}

// root sees what is shown under "Mirrors by directory, and those that hang".
func TestTheMirrorsInTheReadme(t *testing.T) {
	m := mount(t)
	locks, images := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(images, "disk.img"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	root := newTerminal(t, m, asUser(0, 0))
	all := transcripts(t, "Mirrors by directory, and those that hang")
	if len(all) != 1 || len(all[0]) < 8 {
		t.Fatalf("there is not one terminal: %q", all)
	}
	for _, c := range all[0] {
		command := strings.NewReplacer("/srv/locks", locks, "/srv/images", images).Replace(c.command)
		if shows := interactive.ReplaceAllString(root.run(t, command), "bash: "); shows != c.shows {
			t.Errorf("%s shows\n%swant\n%s", command, shows, c.shows)
		}
	}
}
