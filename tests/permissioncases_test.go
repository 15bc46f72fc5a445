package tests

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What the tables of permissionrows_test.go do not say of permission: groups,
// programs, and what is left of a right when a name or a mode has changed.

// debian is fs.protected_* as Debian has it.
var debian = map[string]string{
	"protected_regular": "2", "protected_fifos": "1", "protected_symlinks": "1", "protected_hardlinks": "1",
}

// A member has the group's bits of a directory, more or less than others', also
// by a supplementary group.
func TestPermissionsOfADirectorysGroup(t *testing.T) {
	const group = 2345
	for _, hold := range []string{"handle", "name"} {
		m := mount(t, "--policy", "hold="+hold)
		root := newClient(t)
		held := root.Open(m.Path("held"), takeFlags)
		for who, c := range map[string]*Client{
			"a member":                            newClient(t, asUser(aliceID, group)),
			"a member by a supplementary group":   newClient(t, asAlice(), inGroups(4, group)),
			"an outsider":                         newClient(t, asBob()),
			"an outsider with a group of his own": newClient(t, asBob(), inGroups(4, group+1)),
		} {
			member := who[:4] == "a me"
			for _, d := range []struct {
				mode            uint32
				members, others string
			}{
				{0o770, "rwx", "---"}, {0o750, "r-x", "---"}, {0o710, "--x", "---"},
				{0o775, "rwx", "r-x"}, {0o705, "---", "r-x"}, {0o707, "---", "rwx"}, {0o717, "--x", "rwx"},
			} {
				wantErr(t, "chown", root.Chown(m.Dir, 0, group), nil)
				wantErr(t, "chmod", root.Chmod(m.Dir, d.mode), nil)
				bits := d.others
				if member {
					bits = d.members
				}
				for _, r := range []struct {
					what string
					got  error
					want map[string]string
				}{
					{"open(free, O_CREAT|O_EXCL)", takeAndRemove(c, m.Path("free")), map[string]string{"rwx": "ok", "r-x": "EACCES", "--x": "EACCES", "---": "EACCES"}},
					{"mkdir(free)", makeAndRemove(c, m.Path("free")), map[string]string{"rwx": "ok", "r-x": "EACCES", "--x": "EACCES", "---": "EACCES"}},
					{"open(held, O_CREAT|O_EXCL)", takeAndRemove(c, m.Path("held")), map[string]string{"rwx": "EEXIST", "r-x": "EEXIST", "--x": "EEXIST", "---": "EACCES"}},
					{"unlink(held)", c.Unlink(m.Path("held")), map[string]string{"rwx": "EPERM", "r-x": "EACCES", "--x": "EACCES", "---": "EACCES"}},
					{"access(., W_OK)", c.Access(m.Dir, unix.W_OK), map[string]string{"rwx": "ok", "r-x": "EACCES", "--x": "EACCES", "---": "EACCES"}},
					{"list", list(c, m.Dir), map[string]string{"rwx": "ok", "r-x": "ok", "--x": "EACCES", "---": "EACCES"}},
				} {
					if got := errnoName(r.got); got != r.want[bits] {
						t.Errorf("hold=%s, %#o, %s, who has %s: %s: %s, want %s", hold, d.mode, who, bits, r.what, got, r.want[bits])
					}
				}
			}
		}
		wantErr(t, "the holder's fsync", root.Fsync(held), nil)
	}
}

func takeAndRemove(c *Client, path string) error {
	fd, err := c.TryOpen(path, takeFlags)
	if err == nil {
		if err = c.Unlink(path); err == nil {
			err = c.Close(fd)
		}
	}
	return err
}

func makeAndRemove(c *Client, path string) error {
	err := c.Name("mkdir", 0o755, path)
	if err == nil {
		err = c.Name("rmdir", 0, path)
	}
	return err
}

func list(c *Client, dir string) error {
	_, err := c.TryReaddir(dir)
	return err
}

// Likewise of a file that has a mode. Its owner may give it to any group that he
// is in.
func TestPermissionsOfAFilesGroup(t *testing.T) {
	const group = 2345
	m := mountByName(t)
	root, owner := newClient(t), newClient(t, asAlice(), inGroups(4, group))
	path := m.Path("file")
	wantErr(t, "close", owner.Close(owner.Open(path, openFlags)), nil)
	wantErr(t, "chgrp to a group of others", owner.Name("lchgrp", group+1, path), unix.EPERM)
	wantErr(t, "chgrp to a supplementary group", owner.Name("lchgrp", group, path), nil)
	if st, err := root.Stat(path); err != nil || st.GID != group {
		t.Fatalf("stat: %+v, %v", st, err)
	}
	for who, c := range map[string]*Client{
		"a member":                          newClient(t, asUser(bobID, group)),
		"a member by a supplementary group": newClient(t, asBob(), inGroups(4, group)),
		"an outsider":                       newClient(t, asBob()),
		"the owner, who is a member":        owner,
	} {
		for _, f := range []struct {
			mode        uint32
			read, write map[string]bool
		}{
			{0o640, map[string]bool{"m": true, "w": true}, map[string]bool{"w": true}},
			{0o660, map[string]bool{"m": true, "w": true}, map[string]bool{"m": true, "w": true}},
			{0o606, map[string]bool{"o": true, "w": true}, map[string]bool{"o": true, "w": true}},
			{0o624, map[string]bool{"o": true, "w": true}, map[string]bool{"m": true, "w": true}},
			{0o066, map[string]bool{"m": true, "o": true}, map[string]bool{"m": true, "o": true}},
		} {
			wantErr(t, "chmod", root.Chmod(path, f.mode), nil)
			class := map[string]string{"a": "m", "t": "w"}[who[:1]]
			if who == "an outsider" {
				class = "o"
			}
			for flags, may := range map[int]bool{unix.O_RDONLY: f.read[class], unix.O_WRONLY: f.write[class]} {
				fd, err := c.TryOpen(path, flags)
				if err == nil {
					wantErr(t, "close", c.Close(fd), nil)
				}
				if want := map[bool]string{true: "ok", false: "EACCES"}[may]; errnoName(err) != want {
					t.Errorf("%s opens a file of mode %#o with flags %#x: %s, want %s", who, f.mode, flags, errnoName(err), want)
				}
			}
		}
	}
}

// The root has no sticky bit, and no directory can have one: with it
// fs.protected_regular would refuse another user's lock even to root.
func TestNoDirectoryIsSticky(t *testing.T) {
	protect(t, debian)
	for _, hold := range []string{"handle", "name"} {
		m := mount(t, "--policy", "hold="+hold)
		root, alice, bob := newClient(t), newClient(t, asAlice()), newClient(t, asBob())
		made := m.Path("made")
		wantErr(t, "mkdir", alice.Name("mkdir", 0o1777, made), nil)
		for _, dir := range []string{m.Dir, made} {
			wantErr(t, "chmod", root.Chmod(dir, 0o1777), nil)
			if st, err := bob.Stat(dir); err != nil || st.Mode != unix.S_IFDIR|0o777 {
				t.Errorf("hold=%s: after chmod 01777: %o, %v", hold, st.Mode, err)
			}
			wantErr(t, "alice's chmod", alice.Chmod(made, 0o1777), nil)
			lock := dir + "/lock"
			fd := alice.Open(lock, openFlags)
			wantErr(t, "alice's flock", alice.Flock(fd, unix.LOCK_EX), nil)
			wantErr(t, "chmod", alice.Chmod(lock, 0o666), nil)
			for _, c := range []*Client{bob, root} {
				mine := c.Open(lock, openFlags)
				wantErr(t, "a try", c.Flock(mine, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
				wantErr(t, "close", c.Close(mine), nil)
			}
			wantErr(t, "restricted deletion", bob.Unlink(lock), unix.EPERM)
			wantErr(t, "alice's unlink", alice.Unlink(lock), nil)
		}
	}
}

// 1.4: files have modes as anywhere where names hold, so to lock one takes no
// more than to open it.
func TestProgramsLockAFileThatTheyMayRead(t *testing.T) {
	m := mountByName(t)
	root := newClient(t)
	wantErr(t, "chown", root.Chown(m.Dir, aliceID, aliceID), nil)
	wantErr(t, "chmod", root.Chmod(m.Dir, 0o755), nil)
	if out, exit := sh(t, m, `umask 22; sqlite3 db 'pragma page_size=512; create table t (x); insert into t values (42)'; : >file`, asAlice()); exit != 0 {
		t.Fatal(out)
	}
	if out, exit := sh(t, m, `sqlite3 db 'select x from t'`, asBob()); out != "42\n" || exit != 0 {
		t.Errorf("bob reads alice's database: %q, exit %d", out, exit)
	}
	reader := startProcess(t, []clientOption{asBob()}, script("sh",
		`sqlite3 -bail "$1" 'begin; select x from t;' '.shell echo held; cat >/dev/null' 'commit;'`)(m.Path("db"))...)
	reader.Held(t)
	if _, exit := sh(t, m, `exec 2>/dev/null; sqlite3 -bail db 'update t set x = 43'`, asAlice()); exit != 5 {
		t.Errorf("alice writes while bob reads: exit %d, want 5, SQLITE_BUSY", exit)
	}
	reader.Release(t)
	if out, exit := sh(t, m, `sqlite3 -bail db 'update t set x = 43; select x from t'`, asAlice()); out != "43\n" || exit != 0 {
		t.Errorf("alice writes after it: %q, exit %d", out, exit)
	}
	if _, exit := sh(t, m, `exec 2>/dev/null; sqlite3 db 'update t set x = 44'`, asBob()); exit == 0 {
		t.Error("bob writes to alice's database")
	}

	path := m.Path("file")
	shared := startProcess(t, []clientOption{asBob()}, flockCommand("-s")(path)...)
	shared.Held(t)
	if _, exit := sh(t, m, `flock -n -x file true`, asAlice()); exit != 1 {
		t.Errorf("flock -x by alice while bob has it shared: exit %d", exit)
	}
	if _, exit := sh(t, m, `flock -n -s file true`, asAlice()); exit != 0 {
		t.Errorf("flock -s by alice while bob has it shared: exit %d", exit)
	}
	shared.Release(t)
	exclusive := startProcess(t, []clientOption{asAlice()}, flockCommand("-x")(path)...)
	exclusive.Held(t)
	if _, exit := sh(t, m, `flock -n -s file true`, asBob()); exit != 1 {
		t.Errorf("flock -s by bob while alice has it: exit %d", exit)
	}
	exclusive.Release(t)
	wantErr(t, "chmod", root.Chmod(path, 0o600), nil)
	if _, exit := sh(t, m, `exec 2>/dev/null; flock -n -s file true`, asBob()); exit == 0 {
		t.Error("bob locks a file that he may not open")
	}
}

// Who may read a file may lock it. So he can neither keep it in its place nor
// remove it.
func TestALockDoesNotKeepAFileFromItsOwner(t *testing.T) {
	m := mountByName(t)
	alice, bob, other := newClient(t, asAlice()), newClient(t, asBob()), newClient(t, asUser(3, 3))
	for what, remove := range map[string]func(string) error{
		"unlink": alice.Unlink,
		"rename": func(path string) error { return alice.Name("rename", 0, path, m.Path("away")) },
	} {
		path := m.Path("file")
		wantErr(t, "close", alice.Close(alice.Open(path, openFlags)), nil)
		fd := bob.Open(path, unix.O_RDONLY)
		wantErr(t, "bob's flock", bob.Flock(fd, unix.LOCK_SH), nil)
		wantErr(t, "unlink by who has locked it", bob.Unlink(path), unix.EPERM)
		wantErr(t, "rename by who has locked it", bob.Name("rename", 0, path, m.Path("away")), unix.EPERM)
		wantErr(t, "unlink by another", other.Unlink(path), unix.EPERM)
		wantErr(t, what+" by the file's owner", remove(path), nil)
		wantErr(t, "the victim's next call", bob.Flock(fd, unix.LOCK_SH), unix.ESTALE)
	}
}

// The lock is the name's. Through a file that has lost the name it takes write
// permission on the directory: what is there now may be closed to the caller.
func TestALockIsNotTakenThroughAFileThatHasLostItsName(t *testing.T) {
	m := mountByName(t)
	root, alice, bob := newClient(t), newClient(t, asAlice()), newClient(t, asBob())
	wantErr(t, "chown", root.Chown(m.Dir, aliceID, aliceID), nil)
	wantErr(t, "chmod", root.Chmod(m.Dir, 0o755), nil)
	path := m.Path("file")
	for what, remove := range map[string]func(string) error{
		"unlinked": alice.Unlink,
		"renamed":  func(path string) error { return alice.Name("rename", 0, path, m.Path("away")) },
	} {
		wantErr(t, "close", alice.Close(alice.Open(path, openFlags)), nil)
		old := bob.Open(path, unix.O_RDONLY)
		wantErr(t, "bob's flock", bob.Flock(old, unix.LOCK_SH), nil)
		wantErr(t, "bob's unlock", bob.Flock(old, unix.LOCK_UN), nil)
		wantErr(t, what, remove(path), nil)
		wantErr(t, "bob's flock of what is "+what, bob.Flock(old, unix.LOCK_SH|unix.LOCK_NB), unix.EACCES)
		fd := alice.Open(path, takeFlags)
		wantErr(t, "chmod", alice.Chmod(path, 0o600), nil)
		wantErr(t, "bob's flock by a file of before", bob.Flock(old, unix.LOCK_SH|unix.LOCK_NB), unix.EACCES)
		wantErr(t, "bob's fcntl by a file of before", bob.Fcntl(old, unix.F_SETLK, rd(0, toEnd)), unix.EACCES)
		wantErr(t, "alice's flock", alice.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
		wantErr(t, "alice's unlink", alice.Unlink(path), nil)
	}
}
