package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// 1.6, 1.8: workers die at every step of requests about names that are outside too.
// There is outside what is held, with its body, and nothing else, whatever the worker
// had done of it.

// outsideOpcodes are those of the kinds of requests about names that make, change or
// remove something outside.
var outsideOpcodes = map[uint32]bool{
	opCreate: true, opLink: true, opSymlink: true, opMkdir: true, opRename: true, opRename2: true,
	opUnlink: true, opRmdir: true, opWrite: true, opSetattr: true,
}

// existenceKinds are beside those of nameKinds.
var existenceKinds = []kind{
	{
		name: "WRITE to a name that is held", opcode: opWrite,
		setup: func(s *scene) { s.fd = s.open(s.a, takeFlags) },
		call:  func(s *scene) { s.want("write", s.a.Write(s.fd, "text"), nil) },
		check: func(s *scene) { s.contains(s.path, "text", 1) },
	},
	{
		name: "WRITE to what has two names", opcode: opWrite,
		setup: func(s *scene) {
			s.fd = s.open(s.a, takeFlags)
			s.want("link", s.a.Name("link", 0, s.path, s.second()), nil)
		},
		call:  func(s *scene) { s.want("write", s.a.Write(s.fd, "text"), nil) },
		check: func(s *scene) { s.contains(s.second(), "text", 2) },
	},
	{
		name: "SETATTR that truncates a name that is held", opcode: opSetattr,
		setup: func(s *scene) { s.takes(s.a, s.path, "text") },
		call:  func(s *scene) { s.want("truncate", s.a.Truncate(s.path, 2), nil) },
		check: func(s *scene) { s.contains(s.path, "te", 1) },
	},
	{
		name: "RENAME of a directory in which nothing is held", opcode: opRename,
		setup: func(s *scene) {
			s.want("mkdir", s.a.Name("mkdir", 0o755, s.second()), nil)
			s.makes(s.a, s.second()+"/in", "text")
		},
		call: func(s *scene) { s.want("rename", s.a.Name("rename", 0, s.second(), s.path), nil) },
		check: func(s *scene) {
			s.refuses(s.path)
			s.contains(s.path+"/in", "text", 1)
			s.there(1, "")
		},
	},
}

// sameOutside fails the case unless there is outside what is held by a name on the
// mount, and no more but files to be locked.
func (s *scene) sameOutside() {
	s.t.Helper()
	var wrong []string
	same := func() bool {
		wrong = s.notSameOutside()
		return len(wrong) == 0
	}
	settles(s.t, same)
	if !same() {
		s.errorf("%s", strings.Join(wrong, "; "))
	}
}

// notSameOutside returns what is not as it should be.
func (s *scene) notSameOutside() (wrong []string) {
	text, err := os.ReadFile(s.m.Path(".lockfs/locks"))
	if err != nil {
		return []string{err.Error()}
	}
	held := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if slices.Contains([]string{"excl", "link", "symlink", "mkdir", "rename"}, f[7]) {
			held[strings.ReplaceAll(f[0], `\040`, " ")] = true
		}
	}
	dir := filepath.Dir(s.behind())
	wrong = s.notSameBelow(dir, "", held)
	for name := range held {
		wrong = append(wrong, name+" is held, and not outside")
	}
	return wrong
}

// notSameBelow is notSameOutside for a directory.
func (s *scene) notSameBelow(dir, below string, held map[string]bool) (wrong []string) {
	entries, err := os.ReadDir(filepath.Join(dir, below))
	if err != nil {
		return []string{err.Error()}
	}
	differs := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for _, e := range entries {
		name := filepath.Join(below, e.Name())
		path := filepath.Join(dir, name)
		if !held[name] {
			buf := make([]byte, 100)
			if n, err := unix.Lgetxattr(path, "trusted.lockfs", buf); err != nil || !strings.HasPrefix(string(buf[:n]), "1 lock ") {
				differs("%s is outside, and nobody holds it (%q, %v)", name, buf[:max(n, 0)], err)
			}
			continue
		}
		delete(held, name)
		on, err := os.Lstat(s.m.Path(name))
		if err != nil || on.Mode() != e.Type()|on.Mode().Perm() {
			differs("%s is %v outside, and on the mount %v, %v", name, e.Type(), on, err)
			continue
		}
		if e.IsDir() {
			wrong = append(wrong, s.notSameBelow(dir, name, held)...)
		}
		if out, err := os.ReadFile(path); e.Type().IsRegular() && (err != nil || int64(len(out)) != on.Size()) {
			differs("%s has %q outside, %v, and %d bytes on the mount", name, out, err, on.Size())
		}
	}
	return wrong
}

// outsideSteps are what a request about a name comes by, up to three times: it takes
// two detours. (To those that give back only, the rest does not apply.)
var outsideSteps = slices.Concat(everyStep, []string{"away", "back", "answered"})

func TestEveryStepOfANameOutside(t *testing.T) {
	var all []kind
	for _, k := range nameKinds {
		if outsideOpcodes[k.opcode] && k.name != "RENAME of a directory" { // something in it is held
			all = append(all, k)
		}
	}
	all = append(all, existenceKinds...)
	if strings.HasPrefix(t.Name(), throughAgent+"/") { // what an agent does is the same for many
		all = slices.DeleteFunc(all, func(k kind) bool { return !agentKinds[k.name] })
	}
	const perMount = 7
	for from := 0; from < len(all); from += perMount {
		kinds := all[from:min(from+perMount, len(all))]
		t.Run(fmt.Sprint("from ", from), func(t *testing.T) {
			t.Parallel()
			backing := t.TempDir()
			m, p := crashMount(t, append(mirroredIn(t, backing), "--policy", holdByName)...)
			m.Deadline(stressLimit)
			deaths := 0
			for number := range kinds {
				k := &kinds[number]
				t.Run(k.name, func(t *testing.T) {
					s := namesScene(t, m, p)
					s.backing = backing
					met := 0
					for i, step := range outsideSteps {
						for pass := range uint32(3) {
							s.name = fmt.Sprintf("outside%d.%d.%d", from+number, i, pass)
							s.path = m.Path(s.name)
							d := death{step: step, opcode: k.opcode, pass: pass}
							s.what = fmt.Sprintf("%s, death at %v", k.name, d)
							k.setup(s)
							s.sync()
							p.arm(d)
							k.call(s)
							s.sync()
							met += p.met()
							p.disarm()
							k.check(s)
							s.sameOutside()
							s.leave()
							s.sameOutside()
							if t.Failed() {
								return
							}
						}
					}
					if met < len(everyStep) {
						t.Errorf("%d workers died, want one at each of %d steps at least", met, len(everyStep))
					}
					deaths += met
				})
			}
			t.Logf("%d deaths", deaths)
		})
	}
}
