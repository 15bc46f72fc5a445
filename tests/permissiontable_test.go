package tests

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The issue: "Every permission row of 1.4 and 1.5 as two ordinary users and
// root, free and held alike." The rows are in permissionrows_test.go, what the
// calls in them mean in permissioncalls_test.go; this file sets up what they are
// about and goes through them.

// What a directory's bits mean to an ordinary user whose it is not. To its owner
// the table has a column of its own, and to root.
var permissionModes = []struct {
	mode   uint32
	others string
}{
	{0o777, "rwx"}, {0o755, "r-x"}, {0o711, "--x"}, {0o750, "---"}, {0o700, "---"},
}

var permissionColumns = []string{"owner", "rwx", "r-x", "--x", "---", "root"}

// permissionRow is one line of a table, of one thing in the directory.
type permissionRow struct {
	line string
	permissionThing
	call string
	want map[string]string // by column
}

// permissionThing is what is under the name that a row is about.
type permissionThing struct {
	// whose: "free" (nobody's: there is nothing), "self" (of the process that
	// makes the call), "mine" (of another process of its user), "his" (of the
	// other ordinary user), "root's".
	whose string
	// kind: "lock" (hold=handle, hold=open), "symlink", "directory", or the mode of a file.
	kind string
	held bool
}

// permissionRows reads a table. A line is
//
//	whose[,whose] [kind[,kind]] [free,held] | call[; call] | six outcomes
//
// and stands for as many rows as there are combinations. free and held are said
// of files, and of locks with hold=open; other locks, symbolic links and directories
// are held by being there.
func permissionRows(t *testing.T, table string) (rows []permissionRow) {
	t.Helper()
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(line, " | ")
		if len(parts) != 3 {
			t.Fatalf("not a row: %s", line)
		}
		things, wants := strings.Fields(parts[0]), strings.Fields(parts[2])
		if len(wants) != len(permissionColumns) || len(things) == 0 {
			t.Fatalf("not a row: %s", line)
		}
		kinds, states := []string{"lock"}, []string{"held"}
		if len(things) > 1 {
			kinds = strings.Split(things[1], ",")
		}
		if len(things) > 2 {
			states = strings.Split(things[2], ",")
		}
		want := map[string]string{}
		for i, column := range permissionColumns {
			want[column] = wants[i]
		}
		for _, whose := range strings.Split(things[0], ",") {
			for _, kind := range kinds {
				for _, state := range states {
					for call := range strings.SplitSeq(parts[1], ";") {
						call = strings.TrimSpace(call)
						if permissionCalls[call].do == nil {
							t.Fatalf("no such call: %q", call)
						}
						rows = append(rows, permissionRow{
							line:            fmt.Sprintf("%s %s %s | %s", whose, kind, state, call),
							permissionThing: permissionThing{whose, kind, state == "held" && whose != "free"},
							call:            call, want: want,
						})
					}
				}
			}
		}
	}
	return rows
}

// permissionUser is a user, with another process of his.
type permissionUser struct {
	id      int
	*Client // what makes the calls
	another *Client
	scratch string // a directory that is closed to others
	opened  []func() error
}

// keep has a descriptor closed at the end of a round.
func (u *permissionUser) keep(c *Client, fd int) int {
	u.opened = append(u.opened, func() error { return c.Close(fd) })
	return fd
}

// permissionScene is a mount with its users.
type permissionScene struct {
	*Mount
	hold             string
	alice, bob, root *permissionUser
}

func newPermissionScene(t *testing.T, hold string) *permissionScene {
	s := &permissionScene{Mount: stressMount(t, "--policy", "hold="+hold), hold: hold}
	s.root = &permissionUser{id: 0, Client: newClient(t), another: newClient(t)}
	s.alice = &permissionUser{id: aliceID, Client: newClient(t, asAlice()), another: newClient(t, asAlice())}
	s.bob = &permissionUser{id: bobID, Client: newClient(t, asBob()), another: newClient(t, asBob())}
	for _, u := range s.users() {
		u.another.onMain = true // requests name the thread: both must do
	}
	for name, u := range s.users() {
		u.scratch = s.Path(name)
		wantErr(t, "mkdir", u.Name("mkdir", 0o700, u.scratch), nil)
	}
	return s
}

func (s *permissionScene) users() map[string]*permissionUser {
	return map[string]*permissionUser{"alice": s.alice, "bob": s.bob, "root": s.root}
}

// other is the user whose "his" is.
func (s *permissionScene) other(u *permissionUser) *permissionUser {
	if u == s.alice {
		return s.bob
	}
	return s.alice
}

// permissionTry is a row as one user meets it.
type permissionTry struct {
	*permissionRow
	scene *permissionScene
	who   string
	me    *permissionUser
	him   *permissionUser // the other one
	maker *Client         // who made what is there; nil if nothing is
	held  int             // the maker's descriptor of a lock, -1 if it has none
	dir   string
	path  string
	fd    int    // the caller's descriptor, -1 if it has none
	own   string // a file of the caller's own, elsewhere
	away  string // a free name elsewhere
}

// try makes what a row is about, and what the caller has of it already. The
// directory is open to everybody meanwhile.
func (s *permissionScene) try(t *testing.T, r *permissionRow, who, dir string, number int) *permissionTry {
	t.Helper()
	me := s.users()[who]
	p := &permissionTry{
		permissionRow: r, scene: s, who: who, me: me, him: s.other(me), held: -1, fd: -1,
		dir:  dir,
		path: fmt.Sprintf("%s/%s-%d", dir, who, number),
		own:  fmt.Sprintf("%s/own-%d", me.scratch, number),
		away: fmt.Sprintf("%s/away-%d", me.scratch, number),
	}
	owner := me
	switch r.whose {
	case "self":
		p.maker = me.Client
	case "mine":
		p.maker = me.another
	case "his":
		owner = p.him
		p.maker = owner.another
	case "root's":
		owner = s.root
		p.maker = owner.another
	}
	call := permissionCalls[r.call]
	if p.maker != nil {
		p.make(t, owner)
	}
	if call.descriptor != 0 {
		if p.fd = p.held; r.whose != "self" || p.fd < 0 {
			p.fd = me.keep(me.Client, me.Open(p.path, call.descriptor|unix.O_CREAT))
		}
	}
	if mode, ok := fileMode(r.kind); ok && p.maker != nil {
		wantErr(t, "the maker's chmod", p.maker.Chmod(p.path, mode), nil)
	}
	if call.own {
		fd := me.Open(p.own, takeFlags)
		if s.hold == "handle" { // it is there as long as it is open
			me.keep(me.Client, fd)
		} else {
			wantErr(t, "close", me.Close(fd), nil)
		}
	}
	return p
}

// make makes what the row is about.
func (p *permissionTry) make(t *testing.T, owner *permissionUser) {
	t.Helper()
	switch mode, ok := fileMode(p.kind); {
	case p.kind == "symlink":
		wantErr(t, "symlink", p.maker.Name("symlink", 0, "text", p.path), nil)
	case p.kind == "directory":
		wantErr(t, "mkdir", p.maker.Name("mkdir", 0o755, p.path), nil)
	case p.kind == "lock":
		fd := p.maker.Open(p.path, takeFlags)
		if !p.permissionThing.held { // hold=open: the name stays
			wantErr(t, "close", p.maker.Close(fd), nil)
			break
		}
		p.held = owner.keep(p.maker, fd)
	case !ok:
		t.Fatalf("no such kind: %s", p.kind)
	default:
		flags := openFlags
		if p.permissionThing.held {
			flags = takeFlags
		}
		fd := p.maker.Open(p.path, flags)
		if mode&0o111 != 0 && !p.permissionThing.held {
			wantErr(t, "write", p.maker.Write(fd, "#!/bin/true\n"), nil)
		}
		wantErr(t, "close", p.maker.Close(fd), nil)
		if permissionCalls[p.call].descriptor != 0 {
			wantErr(t, "chmod", p.maker.Chmod(p.path, 0o666), nil)
		}
	}
}

// fileMode reads a kind that is a mode.
func fileMode(kind string) (mode uint32, ok bool) {
	n, err := fmt.Sscanf(kind, "%o", &mode)
	return mode, n == 1 && err == nil
}

// check makes the call and compares.
func (p *permissionTry) check(t *testing.T, column string) {
	t.Helper()
	call := permissionCalls[p.call]
	want := p.want[column]
	if got := errnoName(call.do(p)); got != want {
		t.Errorf("%s, who has %s: %s: %s, want %s", p.who, column, p.line, got, want)
		return
	}
	ended := call.ends && want == "ok"
	if p.held >= 0 {
		// 1.5: given back by its process, broken by others, or held as before.
		victim := "ok"
		if ended && p.whose != "self" {
			victim = "ESTALE"
		}
		if got := errnoName(p.maker.Fsync(p.held)); got != victim {
			t.Errorf("%s, who has %s: %s: the holder's fsync after it: %s, want %s", p.who, column, p.line, got, victim)
		}
	}
	if _, isFile := fileMode(p.kind); isFile && p.permissionThing.held && !ended {
		// 1.3: what is held and empty reads as the holder's pid, what is not as
		// nothing.
		text := fmt.Sprintln(p.maker.Pid())
		if p.call == "fd: write" && want == "ok" {
			text = "x"
		}
		if got, err := p.scene.root.ReadAll(p.path); got != text || err != nil {
			t.Errorf("%s, who has %s: %s: after it the file reads %q (%v), want %q", p.who, column, p.line, got, err, text)
		}
	}
}

// errnoName is an outcome as the table has it.
func errnoName(err error) string {
	switch errno, ok := err.(unix.Errno); {
	case err == nil:
		return "ok"
	case !ok:
		return err.Error()
	default:
		return unix.ErrnoName(errno)
	}
}

// round goes through the rows as some users, in a directory of owner's with a
// mode.
func (s *permissionScene) round(t *testing.T, rows []permissionRow, owner string, mode uint32, others string, users ...string) {
	dir := s.Path("dir")
	wantErr(t, "mkdir", s.root.Name("mkdir", 0, dir), nil)
	wantErr(t, "chown", s.root.Chown(dir, s.users()[owner].id, s.users()[owner].id), nil)
	wantErr(t, "chmod", s.root.Chmod(dir, 0o777), nil)
	var tries []*permissionTry
	for _, who := range users {
		for i := range rows {
			tries = append(tries, s.try(t, &rows[i], who, dir, i))
		}
	}
	wantErr(t, "chmod", s.root.Chmod(dir, mode), nil)
	for _, p := range tries {
		column := others
		if p.who == owner || p.who == "root" {
			column = map[string]string{owner: "owner", "root": "root"}[p.who]
		}
		p.check(t, column)
	}
	for _, u := range s.users() {
		for _, close := range u.opened {
			wantErr(t, "close", close(), nil)
		}
		u.opened = nil
		s.clear(t, u.scratch)
	}
	s.clear(t, dir)
	wantErr(t, "rmdir", s.root.Name("rmdir", 0, dir), nil)
	wantListed(t, s.root.Client, s.Mount, slices.Sorted(maps.Keys(s.users()))...)
}

// clear empties a directory.
func (s *permissionScene) clear(t *testing.T, dir string) {
	t.Helper()
	for _, name := range s.root.Readdir(dir) {
		err := s.root.Unlink(dir + "/" + name)
		if err == unix.EISDIR {
			err = s.root.Name("rmdir", 0, dir+"/"+name)
		}
		wantErr(t, "removing "+name, err, nil)
	}
}

// testPermissions goes through a table: as the user whose the directory is not,
// with all its modes; as its owner and as root, whom the modes do not concern, where
// everybody else is shut out. The kernel's protections make no difference.
func testPermissions(t *testing.T, hold, table string) {
	rows := permissionRows(t, table)
	t.Run("unprotected", func(t *testing.T) {
		s := newPermissionScene(t, hold)
		protect(t, map[string]string{
			"protected_regular": "0", "protected_fifos": "0", "protected_symlinks": "0", "protected_hardlinks": "0",
		})
		s.round(t, rows, "alice", 0o777, "rwx", "alice", "bob", "root")
	})
	t.Run("as in Debian", func(t *testing.T) {
		protect(t, debian)
		for owner, other := range map[string]string{"alice": "bob", "bob": "alice"} {
			t.Run(owner+"'s", func(t *testing.T) {
				s := newPermissionScene(t, hold)
				for _, m := range permissionModes {
					users := []string{other}
					if m.mode == 0o700 {
						users = append(users, owner, "root")
					}
					s.round(t, rows, owner, m.mode, m.others, users...)
				}
			})
		}
	})
}

func TestPermissionsWhereOpenFilesHold(t *testing.T) { testPermissions(t, "handle", handlePermissions) }

func TestPermissionsWhereNamesHold(t *testing.T) { testPermissions(t, "name", namePermissions) }
