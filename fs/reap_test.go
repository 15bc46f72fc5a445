package fs_test

import (
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.3: reap. Processes are the test's; that they are told apart and watched in
// truth is tested with the watcher, and on a real mount.

// body makes a file with a body and closes it.
func (s *served) body(name string, flags uint32, parts ...string) file {
	s.t.Helper()
	f := s.mustCreate(name, flags)
	at := 0
	for _, part := range parts {
		if errno := s.write(f, uint64(at), part); errno != 0 {
			s.t.Fatalf("write %q: %v", part, errno)
		}
		at += len(part)
	}
	s.release(f)
	return f
}

func (s *served) link(node uint64, name string) unix.Errno {
	s.t.Helper()
	return s.call(opLink, 1, u64(node), cstring(name)).errno
}

// end is the end of a process.
func (s *served) end(pid uint32) {
	s.t.Helper()
	s.procs.end(pid)
	synctest.Wait()
}

// wantListed fails the test unless this is what the root lists.
func (s *served) wantListed(t *testing.T, when string, want ...string) {
	t.Helper()
	got := s.list()
	for _, name := range want {
		if !got[name] {
			t.Errorf("%s: %q is not listed", when, name)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %q are listed, want %q", when, sorted(got), want)
	}
}

// Each way in which tools put a pid under a name: who died takes it along.
func TestReapThePidInTheBody(t *testing.T) {
	for name, take := range map[string]func(s *served){
		"set -C; echo $$ > x": func(s *served) { s.body("x", unix.O_EXCL, "123\n") },
		"without a newline":   func(s *served) { s.body("x", unix.O_EXCL, "123") },
		"digit by digit":      func(s *served) { s.body("x", unix.O_EXCL, "1", "2", "3", "\n") },
		"link": func(s *served) {
			f := s.body("tmp", unix.O_EXCL, "       123\n")
			node, _, _ := s.lookup(1, "tmp")
			if f.node != node {
				s.t.Fatal("another node")
			}
			if errno := s.link(node, "x"); errno != 0 {
				s.t.Fatal(errno)
			}
			s.unlink("tmp")
		},
		"rename": func(s *served) {
			s.body("tmp", unix.O_EXCL, "123\n")
			if r := s.call(opRename2, 1, u64(1), u32(unix.RENAME_NOREPLACE), u32(0), cstring("tmp"), cstring("x")); r.errno != 0 {
				s.t.Fatal(r.errno)
			}
		},
		"written after the link": func(s *served) {
			s.body("tmp", 0)
			node, _, _ := s.lookup(1, "tmp")
			if errno := s.link(node, "x"); errno != 0 {
				s.t.Fatal(errno)
			}
			s.unlink("tmp")
			node, _, _ = s.lookup(1, "x")
			f := s.mustOpen(node, unix.O_RDWR)
			s.write(f, 0, "123\n")
			s.release(f)
		},
		"another pid first": func(s *served) {
			s.body("x", unix.O_EXCL, "456\n")
			node, _, _ := s.lookup(1, "x")
			f := s.mustOpen(node, unix.O_RDWR)
			s.write(f, 0, "123\n")
			s.release(f)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "hold=name", func(t *testing.T, s *served) {
				take(s)
				s.end(456)
				s.end(12)
				s.end(1)
				s.wantListed(t, "before the death", "x")
				s.end(123)
				s.wantListed(t, "after it")
				f, errno := s.create("x", unix.O_EXCL)
				if errno != 0 {
					t.Errorf("take it again: %v", errno)
				}
				s.release(f)
				s.end(123)
				s.wantListed(t, "the next holder, who wrote nothing", "x")
			})
		})
	}
}

// Names that hold are reaped where others hold by the open file, too: the pid was
// written when the file had no name of its own.
func TestReapALinkInALockspaceOfHandles(t *testing.T) {
	inBubble(t, "hold=handle", func(t *testing.T, s *served) {
		f := s.mustCreate("tmp", unix.O_EXCL)
		if errno := s.write(f, 0, "       123\n"); errno != 0 {
			t.Fatal(errno)
		}
		if errno := s.link(f.node, "x"); errno != 0 {
			t.Fatal(errno)
		}
		s.unlink("tmp")
		s.release(f)
		s.wantListed(t, "before the death", "x")
		s.end(123)
		s.wantListed(t, "after it")
	})
}

// What is never reaped.
func TestNotReaped(t *testing.T) {
	for name, take := range map[string]func(s *served){
		"no pid":                      func(s *served) { s.body("x", unix.O_EXCL, "host:123\n") },
		"empty":                       func(s *served) { s.body("x", unix.O_EXCL) },
		"pid 0":                       func(s *served) { s.body("x", unix.O_EXCL, "0\n") },
		"not held, an ordinary file":  func(s *served) { s.body("x", 0, "123\n") },
		"another pid by now":          func(s *served) { s.body("x", unix.O_EXCL, "123\n"); s.rewrite("x", "456\n") },
		"no pid by now":               func(s *served) { s.body("x", unix.O_EXCL, "123\n"); s.rewrite("x", "") },
		"dead when it was written":    func(s *served) { s.procs.kill(123); s.body("x", unix.O_EXCL, "123\n") },
		"nobody of the mount's sight": func(s *served) { s.caller.pid = 0; s.body("x", unix.O_EXCL, "123\n") },
		"reap=none by now": func(s *served) {
			s.body("x", unix.O_EXCL, "123\n")
			s.caller.uid = 0
			s.set(1, "reap", "none")
		},
		"reap=creator by now": func(s *served) {
			s.body("x", unix.O_EXCL, "123\n")
			s.caller.uid = 0
			s.set(1, "reap", "creator")
		},
		"an unfinished number": func(s *served) {
			f := s.mustCreate("x", unix.O_EXCL)
			s.write(f, 0, "123")
			node, _, _ := s.lookup(1, "x")
			s.release(s.mustOpen(node, unix.O_RDONLY)) // a reader closes
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, "hold=name", func(t *testing.T, s *served) {
				take(s)
				s.end(123)
				s.wantListed(t, "after the death", "x")
			})
		})
	}
}

// rewrite is `echo -n TEXT > name`.
func (s *served) rewrite(name, text string) {
	s.t.Helper()
	node, _, errno := s.lookup(1, name)
	if errno != 0 {
		s.t.Fatal(errno)
	}
	f := s.mustOpen(node, unix.O_RDWR|unix.O_TRUNC)
	if text != "" {
		if errno := s.write(f, 0, text); errno != 0 {
			s.t.Fatal(errno)
		}
	}
	s.release(f)
}

// With reap=creator, the process that made the name is watched, whatever made it
// and whatever is in it; a directory takes along what is in it.
func TestReapTheCreator(t *testing.T) {
	inBubble(t, "hold=name,reap=creator", func(t *testing.T, s *served) {
		s.caller.pid = 321
		s.body("excl", unix.O_EXCL, "123\n")
		s.body("ordinary", 0)
		if r := s.call(opSymlink, 1, cstring("symlink"), cstring("host.123")); r.errno != 0 {
			t.Fatal(r.errno)
		}
		node, _, _ := s.lookup(1, "ordinary")
		if errno := s.link(node, "link"); errno != 0 {
			t.Fatal(errno)
		}
		dir, errno := s.mkdir(1, "dir")
		if errno != 0 {
			t.Fatal(errno)
		}
		s.mustCreateIn(dir, "info", unix.O_EXCL)
		s.end(123)
		s.wantListed(t, "before", "excl", "ordinary", "symlink", "link", "dir")
		s.end(321)
		s.wantListed(t, "after", "ordinary")
		if n := s.fs.Counts().Holds; n != 0 {
			t.Errorf("%d holds are left", n)
		}
	})
}

// The open file of what was reaped is stale, and others of the lock are not let
// in by it.
func TestReapedFileIsStale(t *testing.T) {
	inBubble(t, "hold=name", func(t *testing.T, s *served) {
		f := s.mustCreate("x", unix.O_EXCL)
		s.write(f, 0, "123\n")
		s.end(123)
		if errno := s.write(f, 0, "456\n"); errno != unix.ESTALE {
			t.Errorf("write: %v, want ESTALE", errno)
		}
		if errno := s.flock(f, unix.F_WRLCK); errno != unix.ESTALE {
			t.Errorf("flock: %v, want ESTALE", errno)
		}
	})
	inBubble(t, "hold=name", func(t *testing.T, s *served) {
		s.body("x", unix.O_EXCL, "123\n")
		// The creator has locked it too, and passed that on to a child.
		node, _, _ := s.lookup(1, "x")
		f := s.mustOpen(node, unix.O_RDWR)
		lock := s.lockBody(f, 9, unix.F_WRLCK, 0, toEnd, false)
		if r := s.call(opSetlk, f.node, lock); r.errno != 0 {
			t.Fatal(r.errno)
		}
		s.end(123)
		if !s.taken("x") {
			t.Error("let in beside one who holds it by an open file")
		}
		s.release(f)
		if s.taken("x") {
			t.Error("not free when the last hold ended")
		}
	})
}

// Who is watched is watched by the successor as well, also if the process died
// in between, and after a clean stop.
func TestReapSurvives(t *testing.T) {
	for name, diesBetween := range map[string]bool{"dies later": false, "dies in between": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				records := store{}
				s := serveInBubble(t, func(o *fs.Options) {
					o.Policy = mustPolicy(t, "hold=name")
					o.Journal = fs.NewRecords(records, new(fs.Saved))
				})
				s.body("x", unix.O_EXCL, "123\n")
				s.body("y", unix.O_EXCL, "124\n")
				if diesBetween {
					s.procs.kill(123)
				}
				s.restore(records)
				s.call(opGetattr, 1, zeros(16))
				s.end(123)
				s.wantListed(t, "after the death", "y")
				s.stopAndStart(t)
				s.wantListed(t, "after the clean stop", "y")
				s.end(124)
				s.wantListed(t, "after the second death")
			})
		})
	}
}

// After a clean stop nobody is watched whose number may be another's by then: one of
// another pid namespace, or one that was not written to its end.
func TestNotReapedAfterACleanStop(t *testing.T) {
	for name, c := range map[string]struct {
		settings  string
		take      func(s *served)
		elsewhere bool
	}{
		"a pid of another namespace": {"hold=name", func(s *served) { s.body("x", unix.O_EXCL, "123\n") }, true},
		"a creator in another namespace": {"hold=name,reap=creator", func(s *served) {
			s.caller.pid = 123
			s.body("x", unix.O_EXCL, "host\n")
		}, true},
		"a part of a pid": {"hold=name", func(s *served) { s.write(s.mustCreate("x", unix.O_EXCL), 0, "123") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, c.settings, func(t *testing.T, s *served) {
				c.take(s)
				saved := s.save()
				if c.elsewhere {
					s.procs.namespace++
				}
				if err := s.startFrom(saved); err != nil {
					t.Fatal(err)
				}
				s.end(123)
				s.wantListed(t, "after the death", "x")
			})
		})
	}
}

// stopAndStart is a clean stop, and a new mount that takes up what was saved, in a
// bubble.
func (s *served) stopAndStart(t *testing.T) {
	t.Helper()
	if err := s.startFrom(s.save()); err != nil {
		t.Fatal(err)
	}
}

// save is what a clean stop saves.
func (s *served) save() store {
	saved := store{}
	s.conn.Do(func() { s.fs.Save(saved) })
	return saved
}

// startFrom makes a new mount that takes up what was saved.
func (s *served) startFrom(saved store) error {
	loaded, err := saved.load()
	if err != nil {
		return err
	}
	old := s.options.Device.(*mortal)
	s.options.Device = &mortal{Device: old.Device}
	s.options.Journal = fs.NewRecords(store{}, new(fs.Saved))
	f, err := fs.TakeUp(s.options, loaded)
	if err != nil {
		return err
	}
	old.dead = true
	s.fs = f
	s.conn.Do(func() { s.conn.Attach(f) })
	s.init()
	return nil
}
