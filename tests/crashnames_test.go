package tests

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file is the tables of the kinds of requests about names during which
// workers die; what they are written in is in crashnamewords_test.go.

func TestEveryStepOfEveryName(t *testing.T) {
	t.Run(holdByName, func(t *testing.T) { everyStepOfAll(t, nameKinds, namesScene, "--policy", holdByName) })
	t.Run(holdByHandle, func(t *testing.T) { everyStepOfAll(t, handleNameKinds, namesScene) })
}

// namesScene is newScene for cases that leave names behind.
func namesScene(t testing.TB, m *Mount, p *crashPlan) *scene {
	t.Helper()
	s := newScene(t, m, p)
	s.names = true
	return s
}

// nameKinds are in a lockspace whose names hold.
var nameKinds = []kind{
	{
		name: "LINK", opcode: opLink, course: plain, setup: besides,
		call:  func(s *scene) { s.want("link", s.a.Name("link", 0, s.second(), s.path), nil) },
		check: linked,
	},
	{
		name: "LINK by a thread", opcode: opLink, course: looking, setup: besides,
		call:  byThread(func(s *scene) { s.want("link", s.a.Name("link", 0, s.second(), s.path), nil) }),
		check: linked,
	},
	{
		name: "SYMLINK", opcode: opSymlink, course: plain, setup: nothing,
		call: func(s *scene) { s.want("symlink", s.a.Name("symlink", 0, "some text", s.path), nil) },
		check: func(s *scene) {
			text, err := s.b.Readlink(s.path)
			if err != nil || text != "some text" {
				s.errorf("the link is to %q (%v)", text, err)
			}
			s.refuses(s.path)
			s.there(1, "")
		},
	},
	{
		name: "READLINK", opcode: opReadlink, course: quiet,
		setup: func(s *scene) { s.want("symlink", s.a.Name("symlink", 0, "some text", s.path), nil) },
		call: func(s *scene) {
			text, err := s.b.Readlink(s.path)
			if err != nil || text != "some text" {
				s.errorf("the link is to %q (%v)", text, err)
			}
		},
		check: func(s *scene) { s.there(1, "") },
	},
	{
		name: "MKDIR", opcode: opMkdir, course: plain, setup: nothing,
		call: aDirectoryHeld,
		check: func(s *scene) {
			st, err := s.b.Stat(s.path)
			if err != nil || st.Mode != unix.S_IFDIR|0o755 || st.Nlink != 2 {
				s.errorf("the directory is %+v (%v)", st, err)
			}
			s.refuses(s.path)
			s.takes(s.b, s.path+"/in it", "") // it has the policy of its parent
			s.heldBy(s.path+"/in it", s.b)
			s.there(2, "")
		},
	},
	{
		name: "RMDIR", opcode: opRmdir, course: plain, setup: aDirectoryHeld,
		call:  func(s *scene) { s.want("rmdir", s.b.Name("rmdir", 0, s.path), nil) },
		check: func(s *scene) { s.there(0) },
	},
	{
		name: "RMDIR, refused", opcode: opRmdir, course: plain,
		setup: func(s *scene) {
			aDirectoryHeld(s)
			s.makes(s.b, s.path+"/in it", "text")
		},
		call: func(s *scene) { s.want("rmdir", s.a.Name("rmdir", 0, s.path), unix.ENOTEMPTY) },
		check: func(s *scene) {
			s.refuses(s.path)
			s.contains(s.path+"/in it", "text", 1)
			s.there(1, "")
		},
	},
	{
		name: "RENAME of what is held", opcode: opRename, course: plain,
		setup: func(s *scene) { s.takes(s.a, s.second(), "new") },
		call:  func(s *scene) { s.want("rename", s.a.Name("rename", 0, s.second(), s.path), nil) },
		check: replaced,
	},
	{
		name: "RENAME onto an existing file", opcode: opRename, course: plain,
		setup: func(s *scene) {
			ordinaryFile(s)
			s.fd2 = s.open(s.b, unix.O_RDWR)
			s.takes(s.a, s.second(), "new")
		},
		call: func(s *scene) { s.want("rename", s.a.Name("rename", 0, s.second(), s.path), nil) },
		check: func(s *scene) {
			text, err := s.b.Read(s.fd2, 100)
			if err != nil || text != "what was written" {
				s.errorf("who has the old file open reads %q (%v)", text, err)
			}
			if st, err := s.b.Fstat(s.fd2); err != nil || st.Nlink != 0 {
				s.errorf("the old file: %+v (%v)", st, err)
			}
			replaced(s)
		},
	},
	{
		name: "RENAME, refused", opcode: opRename, course: plain,
		setup: func(s *scene) {
			named(s)
			besides(s)
		},
		call: func(s *scene) { s.want("rename", s.b.Name("rename", 0, s.second(), s.path), unix.EBUSY) },
		check: func(s *scene) {
			s.heldBy(s.path, s.a)
			s.contains(s.second(), "what was written", 1)
			s.unheld(s.second())
			s.there(1, "", ".2")
		},
	},
	{
		name: "RENAME that replaces nothing", opcode: opRename2, course: plain, setup: besides,
		call: func(s *scene) {
			s.want("rename", s.a.Name("rename", unix.RENAME_NOREPLACE, s.second(), s.path), nil)
		},
		check: func(s *scene) {
			s.refuses(s.path)
			s.contains(s.path, "what was written", 1)
			s.there(1, "")
		},
	},
	{
		name: "RENAME of a directory", opcode: opRename, course: plain,
		setup: func(s *scene) {
			s.want("mkdir", s.a.Name("mkdir", 0o755, s.second()), nil)
			s.takes(s.b, s.second()+"/in it", "")
		},
		call: func(s *scene) { s.want("rename", s.a.Name("rename", 0, s.second(), s.path), nil) },
		check: func(s *scene) {
			s.refuses(s.path) // it is held wherever it is
			s.heldBy(s.path+"/in it", s.b)
			s.there(2, "")
		},
	},
	{
		name: "UNLINK that gives a name back", opcode: opUnlink, course: plain, setup: named,
		call:  func(s *scene) { s.want("unlink", s.b.Unlink(s.path), nil) },
		check: func(s *scene) { s.there(0) },
	},
	{
		name: "UNLINK that breaks a name", opcode: opUnlink, course: plain,
		setup: func(s *scene) {
			c := newClient(s.t, asAlice())
			defer c.Exit()
			s.takes(c, s.path, "hers")
			s.refuses(s.path)
		},
		call:  func(s *scene) { s.want("unlink", s.a.Unlink(s.path), nil) },
		check: func(s *scene) { s.there(0) },
	},
	{
		name: "UNLINK that breaks a name that is open", opcode: opUnlink, course: plain,
		setup: func(s *scene) {
			s.alice = newClient(s.t, asAlice())
			s.fd = s.alice.Open(s.path, takeFlags)
		},
		call: func(s *scene) { s.want("unlink", s.a.Unlink(s.path), nil) },
		check: func(s *scene) {
			s.want("write of the victim", s.alice.Write(s.fd, "x"), unix.ESTALE)
			s.want("flock of the victim", s.alice.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB), unix.ESTALE)
			s.alice.Exit()
			s.there(0)
		},
	},
	{
		name: "UNLINK of an ordinary file that is open", opcode: opUnlink, course: plain,
		setup: openedByOther(ordinaryFile),
		call:  func(s *scene) { s.want("unlink", s.a.Unlink(s.path), nil) },
		check: func(s *scene) {
			s.there(0)
			text, err := s.b.Read(s.fd2, 100)
			if st, _ := s.b.Fstat(s.fd2); err != nil || text != "what was written" || st.Nlink != 0 {
				s.errorf("who has the file open reads %q (%v), %+v", text, err, st)
			}
			s.want("write", s.b.Write(s.fd2, "x"), nil)
		},
	},
	{
		name: "UNLINK of one of two names", opcode: opUnlink, course: plain,
		setup: func(s *scene) {
			besides(s)
			s.want("link", s.a.Name("link", 0, s.second(), s.path), nil)
		},
		call: func(s *scene) { s.want("unlink", s.b.Unlink(s.second()), nil) },
		check: func(s *scene) {
			s.refuses(s.path)
			s.contains(s.path, "what was written", 1)
			s.there(1, "")
		},
	},
	{
		name: "CREATE with O_EXCL, granted", opcode: opCreate, course: plain, setup: nothing,
		call: create, check: holdsWhenClosed,
	},
	{
		name: "CREATE with O_EXCL, granted to a thread", opcode: opCreate, course: looking, setup: nothing,
		call: byThread(create), check: holdsWhenClosed,
	},
	{
		name: "CREATE without O_EXCL", opcode: opCreate, course: plain, setup: nothing,
		call: opens(openFlags),
		check: func(s *scene) {
			s.want("write", s.b.Write(s.fd2, "text"), nil)
			s.shut(s.b, s.fd2)
			s.contains(s.path, "text", 1)
			s.unheld(s.path)
			s.there(0, "")
		},
	},
	{
		name: "OPEN with O_TRUNC of an ordinary file", opcode: opOpen, course: plain, setup: ordinaryFile,
		call:  opens(unix.O_WRONLY | unix.O_TRUNC),
		check: func(s *scene) { s.contains(s.path, "", 1) },
	},
	{
		name: "OPEN with O_TRUNC of what another has locked", opcode: opOpen, course: plain,
		setup: lockedFile, call: opens(unix.O_WRONLY | unix.O_TRUNC),
		check: func(s *scene) {
			s.contains(s.path, "what was written", 1)
			s.shut(s.a, s.fd)
			s.want("write", s.b.Write(s.fd2, "new"), nil)
			s.contains(s.path, "new", 1)
		},
	},
	{
		name: "WRITE that makes up for a truncation", opcode: opWrite, course: plain,
		setup: func(s *scene) {
			lockedFile(s)
			opens(unix.O_WRONLY | unix.O_TRUNC)(s)
			s.shut(s.a, s.fd)
		},
		call: func(s *scene) { s.want("write", s.b.Write(s.fd2, "new"), nil) },
		check: func(s *scene) {
			s.want("write", s.b.Write(s.fd2, "er"), nil)
			s.contains(s.path, "newer", 1)
		},
	},
	{
		name: "WRITE to an ordinary file", opcode: opWrite, course: plain, setup: openedByOther(ordinaryFile),
		call:  func(s *scene) { s.want("write", s.b.Write(s.fd2, "What"), nil) },
		check: func(s *scene) { s.contains(s.path, "What was written", 1) },
	},
	{
		name: "WRITE that appends to an ordinary file", opcode: opWrite, course: plain,
		setup: func(s *scene) {
			ordinaryFile(s)
			s.fd2 = s.open(s.b, unix.O_WRONLY|unix.O_APPEND)
		},
		call:  func(s *scene) { s.want("write", s.b.Write(s.fd2, ", and more"), nil) },
		check: func(s *scene) { s.contains(s.path, "what was written, and more", 1) },
	},
	{
		name: "SETATTR that truncates an ordinary file", opcode: opSetattr, course: plain, setup: ordinaryFile,
		call:  func(s *scene) { s.want("truncate", s.b.Truncate(s.path, 4), nil) },
		check: func(s *scene) { s.contains(s.path, "what", 1) },
	},
	{
		name: "SETATTR of a mode", opcode: opSetattr, course: plain, setup: ordinaryFile,
		call: func(s *scene) { s.want("chmod", s.b.Chmod(s.path, 0o640), nil) },
		check: func(s *scene) {
			if st, err := s.look.Stat(s.path); err != nil || st.Mode != unix.S_IFREG|0o640 {
				s.errorf("mode %o (%v)", st.Mode, err)
			}
		},
	},
	{
		name: "SETATTR of an owner", opcode: opSetattr, course: plain, setup: ordinaryFile,
		call: func(s *scene) { s.want("chown", s.b.Chown(s.path, aliceID, bobID), nil) },
		check: func(s *scene) {
			if st, err := s.look.Stat(s.path); err != nil || st.UID != aliceID || st.GID != bobID {
				s.errorf("owner %d:%d (%v)", st.UID, st.GID, err)
			}
		},
	},
	{
		name: "SETATTR of times", opcode: opSetattr, course: plain, setup: ordinaryFile,
		call: func(s *scene) { s.want("utimes", s.b.Name("utimes", 1000, s.path), nil) },
		check: func(s *scene) {
			if st, err := s.look.Stat(s.path); err != nil || !st.Mtime.Equal(time.Unix(1000, 0)) {
				s.errorf("modified %v (%v)", st.Mtime, err)
			}
		},
	},
	{
		name: "LOOKUP of an ordinary file", opcode: opLookup, course: plain, setup: ordinaryFile,
		call: func(s *scene) {
			if st, err := s.b.Stat(s.path); err != nil || st.Nlink != 1 || st.Size != 16 {
				s.errorf("stat says %+v (%v)", st, err)
			}
		},
		check: func(s *scene) { s.there(0, "") },
	},
	{
		name: "READDIR of names", opcode: opReaddir, course: plain,
		setup: func(s *scene) { ordinaryFile(s); openDir(s) }, call: lists,
		check: func(s *scene) { s.there(0, "") },
	},
}

// linked: the second name's file has the scene's name, which a holds.
func linked(s *scene) {
	s.refuses(s.path)
	s.unheld(s.second())
	s.contains(s.path, "what was written", 2)
	s.contains(s.second(), "what was written", 2)
	one, _ := s.look.Stat(s.path)
	if other, _ := s.look.Stat(s.second()); one.Ino != other.Ino {
		s.errorf("the names are of the files %d and %d", one.Ino, other.Ino)
	}
	s.there(1, "", ".2")
}

// replaced: what was under the second name is an ordinary file of the scene's.
func replaced(s *scene) {
	s.contains(s.path, "new", 1)
	s.unheld(s.path)
	s.there(0, "")
}

// holdsWhenClosed: a has what it took, until it is unlinked.
func holdsWhenClosed(s *scene) {
	s.heldBy(s.path, s.a)
	s.shut(s.a, s.fd)
	s.heldBy(s.path, s.a)
	if st, err := s.look.Stat(s.path); err != nil || st.Nlink != 1 || st.Size != 0 {
		s.errorf("stat says %+v (%v)", st, err)
	}
	s.there(1, "")
}

// lockedFile: a has locked a file; fd.
func lockedFile(s *scene) {
	ordinaryFile(s)
	s.fd = s.open(s.a, unix.O_RDWR)
	s.want("flock", s.a.Flock(s.fd, unix.LOCK_EX|unix.LOCK_NB), nil)
}

// handleNameKinds are in a lockspace whose other locks go with open files. There
// a hold by name has a record.
var handleNameKinds = []kind{
	{
		name: "LINK of a lock", opcode: opLink, course: plain, setup: heldBeside,
		call: func(s *scene) { s.want("link", s.a.Name("link", 0, s.second(), s.path), nil) },
		check: func(s *scene) {
			s.holds(s.a.Pid(), 0, "link", true)
			s.there(2, "", ".2")
			s.shut(s.a, s.fd)
			s.holds(s.a.Pid(), 0, "link", false)
			s.there(1, "")
			s.want("unlink", s.b.Unlink(s.path), nil)
			s.free()
		},
	},
	{
		name: "LINK, refused", opcode: opLink, course: plain,
		before: []death{{step: "decided", opcode: opLookup, pass: 2}},
		setup:  func(s *scene) { heldBeside(s); s.fd2 = s.open(s.b, openFlags) },
		call:   inTheWay(func(s *scene) *Pending { return s.a.startName("link", 0, s.second(), s.path) }),
		check:  lockedMeanwhile(2, "", ".2"),
	},
	{
		name: "SYMLINK, refused", opcode: opSymlink, course: plain,
		before: []death{{step: "decided", opcode: opLookup, pass: 1}},
		setup:  func(s *scene) { s.fd2 = s.open(s.b, openFlags) },
		call:   inTheWay(func(s *scene) *Pending { return s.a.startName("symlink", 0, "text", s.path) }),
		check:  lockedMeanwhile(1, ""),
	},
	{
		name: "MKDIR, refused", opcode: opMkdir, course: plain,
		before: []death{{step: "decided", opcode: opLookup, pass: 1}},
		setup:  func(s *scene) { s.fd2 = s.open(s.b, openFlags) },
		call:   inTheWay(func(s *scene) *Pending { return s.a.startName("mkdir", 0o755, s.path) }),
		check:  lockedMeanwhile(1, ""),
	},
	{
		name: "RENAME that replaces nothing, refused", opcode: opRename2, course: plain,
		before: []death{{step: "decided", opcode: opLookup, pass: 2}},
		setup:  func(s *scene) { heldBeside(s); s.fd2 = s.open(s.b, openFlags) },
		call: inTheWay(func(s *scene) *Pending {
			return s.a.startName("rename", unix.RENAME_NOREPLACE, s.second(), s.path)
		}),
		check: lockedMeanwhile(2, "", ".2"),
	},
	{
		name: "RENAME of a lock that replaces nothing", opcode: opRename2, course: looking, setup: heldBeside,
		call: func(s *scene) {
			s.want("rename", s.a.Name("rename", unix.RENAME_NOREPLACE, s.second(), s.path), nil)
		},
		check: func(s *scene) {
			s.holds(s.a.Pid(), 0, "rename", true)
			s.there(1, "")
			s.shut(s.a, s.fd)
			s.holds(s.a.Pid(), 0, "rename", false)
		},
	},
	{
		name: "RENAME of a lock", opcode: opRename, course: looking, setup: heldBeside,
		call: func(s *scene) { s.want("rename", s.a.Name("rename", 0, s.second(), s.path), nil) },
		check: func(s *scene) {
			s.free()
			s.there(0, "")
			s.unheld(s.path)
		},
	},
	{
		name: "RENAME that serves a waiter", opcode: opRename, course: course{changes: true, answers: 2, detours: 1},
		setup: waited(taken),
		call:  func(s *scene) { s.want("rename", s.a.Name("rename", 0, s.path, s.second()), nil) },
		check: func(s *scene) {
			s.there(1, "", ".2")
			oneByOne(s)
		},
	},
	{
		name: "UNLINK of a name that serves a waiter", opcode: opUnlink, course: course{changes: true, answers: 2},
		setup: waited(func(s *scene) {
			heldBeside(s)
			s.want("link", s.a.Name("link", 0, s.second(), s.path), nil)
			s.holds(s.a.Pid(), 0, "link", true)
		}),
		call:  func(s *scene) { s.want("unlink", s.a.Unlink(s.path), nil) },
		check: oneByOne,
	},
	{
		name: "UNLINK that breaks a name", opcode: opUnlink, course: plain,
		setup: func(s *scene) {
			c := newClient(s.t, asAlice())
			defer c.Exit()
			c.Open(s.second(), takeFlags)
			s.want("link", c.Name("link", 0, s.second(), s.path), nil)
			s.holds(c.Pid(), 0, "link", true)
		},
		call: func(s *scene) { s.want("unlink", s.a.Unlink(s.path), nil) },
		check: func(s *scene) {
			s.free()
			s.there(0)
			create(s)
			s.holds(s.a.Pid(), 0, "excl", true) // with a higher token
		},
	},
	{
		name: "MKDIR", opcode: opMkdir, course: plain, setup: nothing, call: aDirectoryHeld,
		check: func(s *scene) {
			s.refuses(s.path)
			fd, err := s.b.TryOpen(s.path+"/in it", takeFlags)
			s.want("take", err, nil)
			s.there(2, "")
			s.want("close", s.b.Close(fd), nil) // it has the policy of its parent
			s.there(1, "")
		},
	},
}

// heldBeside: a holds the second name by an open file; fd.
func heldBeside(s *scene) {
	var err error
	s.fd, err = s.a.TryOpen(s.second(), takeFlags)
	s.want("open with O_EXCL", err, nil)
	s.note(s.a, s.fd)
}

// lockedMeanwhile: b has got the scene's lock, and everything else is as it was.
func lockedMeanwhile(holds int, suffixes ...string) func(*scene) {
	return func(s *scene) {
		s.holds(s.b.Pid(), 0, "flock", true)
		s.there(holds, suffixes...)
	}
}
