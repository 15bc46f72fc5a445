package tests

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.2 and 1.3: lockspaces in which open(2) takes the lock (hold=open), which
// promise what ocfs2's dlmfs does, errno for errno: its documentation is
// Documentation/filesystems/dlmfs.rst of the kernel, its code fs/ocfs2/dlmfs.

func mountByOpen(t testing.TB) *Mount { return mount(t, "--policy", holdByOpen) }

// wantNobodyHolds fails the test if somebody holds something; names may be left.
func wantNobodyHolds(t testing.TB, m *Mount) {
	t.Helper()
	if n := heldLocks(t, m); n != 0 {
		t.Errorf("%d holds are left", n)
	}
}

// tryFlags opens a name there without waiting.
const tryFlags = unix.O_CREAT | unix.O_NONBLOCK

// "O_RDONLY: Shared Read, O_RDWR: Exclusive." "O_NONBLOCK: Trylock", and "if the
// trylock operation was valid but could not lock the resource then open(2) will
// return ETXTBUSY". "close(2) drops the lock associated with your fd."
func TestOpenTakesTheLock(t *testing.T) {
	m := mountByOpen(t)
	ways := []struct {
		name  string
		flags int
	}{
		{"O_RDONLY", unix.O_RDONLY},
		{"O_WRONLY", unix.O_WRONLY},
		{"O_RDWR", unix.O_RDWR},
		{"O_RDONLY|O_CREAT", unix.O_RDONLY | unix.O_CREAT},
		{"O_RDWR|O_CREAT", unix.O_RDWR | unix.O_CREAT},
		{"O_WRONLY|O_TRUNC|O_APPEND", unix.O_WRONLY | unix.O_TRUNC | unix.O_APPEND},
	}
	shared := func(flags int) bool { return flags&unix.O_ACCMODE == unix.O_RDONLY }
	a, b := newClient(t), newClient(t)
	for i, first := range ways {
		for j, then := range ways {
			t.Run(first.name+", "+then.name, func(t *testing.T) {
				path := m.Path(fmt.Sprint("lock", i, j))
				wantErr(t, "close", a.Close(a.Open(path, unix.O_RDWR|unix.O_CREAT)), nil)
				fd := a.Open(path, first.flags)
				if shared(first.flags) && shared(then.flags) {
					wantErr(t, "close", b.Close(b.Open(path, then.flags)), nil)
					wantErr(t, "close", a.Close(fd), nil)
					return
				}
				_, err := b.TryOpen(path, then.flags|unix.O_NONBLOCK)
				wantErr(t, "open that does not wait", err, unix.ETXTBSY)
				_, err = a.TryOpen(path, then.flags|unix.O_NONBLOCK)
				wantErr(t, "open that does not wait, of the holder", err, unix.ETXTBSY)
				p := b.StartOpen(path, then.flags)
				p.MustBlock(t)
				wantErr(t, "close", a.Close(fd), nil)
				wantErr(t, "open that waits", p.Wait(t), nil)
				_, err = a.TryOpen(path, first.flags|unix.O_NONBLOCK)
				wantErr(t, "open of what is held now", err, unix.ETXTBSY)
				wantErr(t, "close", b.Close(p.Number()), nil)
				fd, err = a.TryOpen(path, first.flags|unix.O_NONBLOCK)
				wantErr(t, "open of what is free", err, nil)
				wantErr(t, "close", a.Close(fd), nil)
			})
		}
	}
	wantNobodyHolds(t, m)
}

// "open(2) with O_CREAT to ensure the resource inode is created": without, it is
// ENOENT. The name stays, held or not, until it is removed; what is held cannot
// be, by nobody.
func TestNamesStayWhereOpenTakesTheLock(t *testing.T) {
	m := mountByOpen(t)
	a, b := newClient(t), newClient(t)
	_, err := a.TryOpen(m.Path("lock"), unix.O_RDWR)
	wantErr(t, "open of what is not there", err, unix.ENOENT)
	fd, err := a.TryOpen(m.Path("lock"), takeFlags)
	wantErr(t, "O_EXCL", err, nil)
	st, err := b.Stat(m.Path("lock"))
	if err != nil || st.Mode != unix.S_IFREG|0o666 || st.Nlink != 1 || st.Size != 0 {
		t.Errorf("stat says %+v (%v)", st, err)
	}
	for name, errs := range map[string]error{
		"unlink":      b.Unlink(m.Path("lock")),
		"its unlink":  a.Unlink(m.Path("lock")),
		"rename away": syscall.Rename(m.Path("lock"), m.Path("other")),
	} {
		wantErr(t, name+" of what is held", errs, unix.EBUSY)
	}
	other := b.Open(m.Path("other"), openFlags)
	wantErr(t, "close", b.Close(other), nil)
	wantErr(t, "rename onto what is held", syscall.Rename(m.Path("other"), m.Path("lock")), unix.EBUSY)
	_, err = b.TryOpen(m.Path("lock"), takeFlags)
	wantErr(t, "O_EXCL of what is there", err, unix.EEXIST)
	wantErr(t, "close", a.Close(fd), nil)
	_, err = b.TryOpen(m.Path("lock"), takeFlags)
	wantErr(t, "O_EXCL of what is there and free", err, unix.EEXIST)
	wantListed(t, b, m, "lock", "other")
	again, _ := b.Stat(m.Path("lock"))
	if again.Ino != st.Ino {
		t.Errorf("it is inode %d after %d", again.Ino, st.Ino)
	}
	reader := b.Open(m.Path("lock"), unix.O_RDONLY)
	wantErr(t, "unlink of what is held shared", a.Unlink(m.Path("lock")), unix.EBUSY)
	wantErr(t, "close", b.Close(reader), nil)
	wantErr(t, "rename", syscall.Rename(m.Path("other"), m.Path("third")), nil)
	wantErr(t, "rename onto what is free", syscall.Rename(m.Path("third"), m.Path("lock")), nil)
	wantListed(t, b, m, "lock")
	wantErr(t, "unlink of what is free", b.Unlink(m.Path("lock")), nil)
	wantListed(t, b, m)

	// A domain is a directory; "rmdir" of one with locks is ENOTEMPTY.
	wantErr(t, "mkdir", syscall.Mkdir(m.Path("domain"), 0o777), nil)
	fd = a.Open(m.Path("domain/lock"), openFlags)
	_, err = b.TryOpen(m.Path("domain/lock"), unix.O_RDONLY|unix.O_NONBLOCK)
	wantErr(t, "open in a directory that was made", err, unix.ETXTBSY)
	wantErr(t, "rmdir", syscall.Rmdir(m.Path("domain")), unix.ENOTEMPTY)
	wantErr(t, "close", a.Close(fd), nil)
	wantErr(t, "rmdir", syscall.Rmdir(m.Path("domain")), unix.ENOTEMPTY)
	wantErr(t, "unlink", a.Unlink(m.Path("domain/lock")), nil)
	wantErr(t, "rmdir", syscall.Rmdir(m.Path("domain")), nil)
	wantNobodyHolds(t, m)
}

// "The resource LVB may be read from the fd in either Shared Read or Exclusive
// modes ... It can be written via write(2) only when open in Exclusive mode."
// "Once written, an LVB will be visible to [those] who obtain Read Only or higher
// level locks."
func TestTheLockValueBlock(t *testing.T) {
	m := mountByOpen(t)
	a, b := newClient(t), newClient(t)
	path := m.Path("lock")
	content := func(want string) {
		t.Helper()
		for _, flags := range []int{unix.O_RDONLY, unix.O_RDWR} {
			fd := b.Open(path, flags)
			if text, err := b.Pread(fd, 8192, 0); err != nil || text != want {
				t.Errorf("the body is %.40q (%v), want %.40q", text, err, want)
			}
			wantErr(t, "close", b.Close(fd), nil)
		}
	}
	by := func(flags int, writes ...string) {
		t.Helper()
		fd := a.Open(path, flags)
		for _, w := range writes {
			wantErr(t, "write", a.Write(fd, w), nil)
		}
		wantErr(t, "close", a.Close(fd), nil)
	}
	by(openFlags, "value ", "block")
	content("value block")
	by(unix.O_WRONLY|unix.O_TRUNC, "VAL")
	content("VALue block")
	by(unix.O_WRONLY|unix.O_APPEND, "12", "34")
	content("1234e block")
	reader := b.Open(path, unix.O_RDONLY)
	wantErr(t, "write of a reader", b.Write(reader, "x"), unix.EBADF)
	wantErr(t, "truncate by path", a.Truncate(path, 2), nil)
	wantErr(t, "close", b.Close(reader), nil)
	fd := a.Open(path, unix.O_RDWR|unix.O_TRUNC)
	wantErr(t, "ftruncate", a.Ftruncate(fd, 0), nil)
	wantErr(t, "ftruncate to more than there can be", a.Ftruncate(fd, 1<<40), nil)
	wantErr(t, "write after that", a.Write(fd, "1"), nil)
	wantErr(t, "close", a.Close(fd), nil)
	content("1234e block")
	fd = a.Open(path, unix.O_RDWR)
	n, err := a.Pwrite(fd, strings.Repeat("x", 100), 4090)
	if n != 6 || err != nil {
		t.Errorf("wrote %d bytes before the end (%v), want 6", n, err)
	}
	_, err = a.Pwrite(fd, "x", 4096)
	wantErr(t, "write behind the end", err, unix.ENOSPC)
	wantErr(t, "close", a.Close(fd), nil)
	if st, err := a.Stat(path); err != nil || st.Size != 4096 {
		t.Errorf("its size is %d (%v)", st.Size, err)
	}
	// It is the name's, and goes with it.
	wantErr(t, "unlink", a.Unlink(path), nil)
	by(openFlags)
	if text, err := b.ReadAll(path); err != nil || !strings.Contains(text, "mode=shared\nvia=open\n") {
		t.Errorf("a new one reads %q (%v), want its reader's record", text, err)
	}
	// What is empty and held tells who has it.
	fd = a.Open(path, unix.O_RDWR)
	text, err := a.Read(fd, 4096)
	if r := parseRecords(t, text); err != nil || len(r) != 1 || r[0]["pid"] != fmt.Sprint(a.Pid()) ||
		r[0]["mode"] != "exclusive" || r[0]["via"] != "open" {
		t.Errorf("it reads %q (%v)", text, err)
	}
}

// waiting waits until so many wait for what a client has open and has not written
// to.
func waiting(t *testing.T, c *Client, fd, n int) {
	t.Helper()
	eventually(t, answerLimit, func() bool {
		text, err := c.Pread(fd, 8192, 0)
		return err == nil && strings.Contains(text, fmt.Sprintf("\nwaiting=%d\n", n))
	}, fmt.Sprint(n, " wait"))
}

// First come, first served, with those who wait in flock and fcntl; readers enter
// together, and not before a writer who came first.
func TestOpensWaitInLine(t *testing.T) {
	m := mountByOpen(t)
	path := m.Path("lock")
	var clients []*Client
	for range 6 {
		clients = append(clients, newClient(t))
	}
	holder := clients[0].Open(path, openFlags)
	var line []*Pending
	for i, flags := range []int{unix.O_RDONLY, unix.O_RDONLY | unix.O_CREAT, unix.O_RDWR, unix.O_RDONLY, unix.O_WRONLY} {
		line = append(line, clients[i+1].StartOpen(path, flags))
		waiting(t, clients[0], holder, i+1)
	}
	wantErr(t, "close", clients[0].Close(holder), nil)
	next := func(entered ...int) {
		t.Helper()
		for _, i := range entered {
			wantErr(t, fmt.Sprint("number ", i), line[i].Wait(t), nil)
		}
		for _, p := range line[entered[len(entered)-1]+1:] {
			p.MustBlock(t)
		}
		for _, i := range entered {
			wantErr(t, "close", clients[i+1].Close(line[i].Number()), nil)
		}
	}
	next(0, 1)
	next(2)
	next(3)
	next(4)

	// flock and fcntl on what is open shared: they stand in the same line.
	one, two, three := clients[0], clients[1], clients[2]
	first, second := one.Open(path, unix.O_RDONLY), two.Open(path, unix.O_RDONLY)
	upgrade := one.StartFlock(first, unix.LOCK_EX)
	upgrade.MustBlock(t)
	waiting(t, two, second, 1)
	open := three.StartOpen(path, unix.O_RDONLY)
	open.MustBlock(t)
	waiting(t, two, second, 2)
	wantErr(t, "close", two.Close(second), nil)
	wantErr(t, "flock", upgrade.Wait(t), nil)
	open.MustBlock(t)
	wantErr(t, "unlock", one.Flock(first, unix.LOCK_UN), nil)
	wantErr(t, "open", open.Wait(t), nil)
	wantErr(t, "close", one.Close(first), nil)
	wantErr(t, "close", three.Close(open.Number()), nil)
	wantNobodyHolds(t, m)
}

// fcntl and flock work on what is open, and never meet the open that they came
// through, nor (fcntl) their process's.
func TestLocksOnWhatOpenHolds(t *testing.T) {
	m := mountByOpen(t)
	path := m.Path("lock")
	a := newClient(t)
	fd := a.Open(path, openFlags)
	wantErr(t, "flock", a.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), nil)
	wantErr(t, "fcntl", a.Fcntl(fd, unix.F_SETLK, wr(0, 10)), nil)
	wantErr(t, "OFD", a.Fcntl(fd, unix.F_OFD_SETLK, wr(20, 10)), nil)
	wantErr(t, "unlock", a.Flock(fd, unix.LOCK_UN), nil)
	if n, err := a.Statfs(m.Dir); n != 3 || err != nil {
		t.Errorf("%d holds (%v), want 3", n, err)
	}
	// A dup is the same open file, a child's copy too.
	copied := a.Dup(fd)
	wantErr(t, "close", a.Close(fd), nil)
	b := newClient(t)
	_, err := b.TryOpen(path, unix.O_RDONLY|unix.O_NONBLOCK)
	wantErr(t, "open while a copy is open", err, unix.ETXTBSY)
	wantErr(t, "close", a.Close(copied), nil)
	wantNobodyHolds(t, m)
}

// 1.5: "Interrupting or killing a waiter ends its wait at once." (dlmfs has open
// restarted after SA_RESTART; FUSE cannot.) Who opens again keeps its place.
func TestSignalsEndAnOpenThatWaits(t *testing.T) {
	m := mountByOpen(t)
	path := m.Path("lock")
	a := newClient(t)
	holder := a.Open(path, openFlags)
	opens := program(t, "opens")

	p := startProcess(t, nil, opens, "wait", "rw", path)
	waiting(t, a, holder, 1)
	p.MustBlock(t)
	p.Signal(syscall.SIGUSR1)
	p.awaitExit(t)
	if code := p.cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("the signal ended it with %d, want EINTR: %s", code, p.stderr)
	}
	waiting(t, a, holder, 0)

	// So does being stopped and continued, without any handler.
	p = startProcess(t, nil, opens, "wait", "rw", path)
	waiting(t, a, holder, 1)
	p.Signal(syscall.SIGSTOP)
	waiting(t, a, holder, 0)
	p.Signal(syscall.SIGCONT)
	p.awaitExit(t)
	if code := p.cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("it was continued, and ended with %d, want EINTR: %s", code, p.stderr)
	}

	p = startProcess(t, nil, opens, "wait", "r", path)
	waiting(t, a, holder, 1)
	p.Kill(t)
	waiting(t, a, holder, 0)

	first := startProcess(t, nil, opens, "wait", "rw", path)
	waiting(t, a, holder, 1)
	second := startProcess(t, nil, opens, "wait", "rw", path)
	waiting(t, a, holder, 2)
	first.Signal(syscall.SIGUSR2)
	time.Sleep(blockTime)
	waiting(t, a, holder, 2)
	wantErr(t, "close", a.Close(holder), nil)
	first.Held(t)
	second.MustBlock(t)

	// Who holds it is killed.
	first.Kill(t)
	second.Held(t)
	p = startProcess(t, nil, opens, "try", "r", path)
	p.Refused(t)
	second.Release(t)
	wantNobodyHolds(t, m)
}

// Whatever takes the lock of a name excludes opens of it, and is excluded.
func TestOpenExcludesEveryIdiom(t *testing.T) {
	m := mountByOpen(t)
	c := newClient(t)
	opens := program(t, "opens")
	path := m.Path("lock")
	holders := map[string]func(string) []string{
		"open, read":      func(p string) []string { return []string{opens, "try", "r", p} },
		"open, write":     func(p string) []string { return []string{opens, "try", "w", p} },
		"open, both":      func(p string) []string { return []string{opens, "try", "rw", p} },
		"bash set -C":     script("bash", `set -C; exec 9>"$1" || exit 1; `+keep),
		"flock -x":        flockCommand("-n -x"),
		"flock -s":        flockCommand("-n -s"),
		"fcntl.lockf":     python("lockf", "LOCK_EX|LOCK_NB"),
		"link":            script("sh", `t=$(mktemp -p "${1%/*}"); ln -T "$t" "$1" || exit 1; rm "$t"; echo held; read -r _; rm "$1"`),
		"rename, no over": script("sh", `t=$(mktemp -p "${1%/*}"); mv -nT "$t" "$1"; [ -e "$t" ] && exit 1; echo held; read -r _; rm "$1"`),
	}
	for name, holder := range holders {
		t.Run(name, func(t *testing.T) {
			p := startProcess(t, nil, holder(path)...)
			p.Held(t)
			_, err := c.TryOpen(path, unix.O_RDWR|unix.O_NONBLOCK)
			wantErr(t, "open", err, unix.ETXTBSY)
			_, err = c.TryOpen(path, takeFlags|unix.O_NONBLOCK)
			wantErr(t, "O_EXCL", err, unix.EEXIST)
			for _, b := range namers {
				if _, exit := sh(t, m, `exec 2>/dev/null; `+b.script); exit == 0 {
					t.Errorf("%s got in", b.via)
				}
			}
			wait := c.StartOpen(path, unix.O_RDWR)
			wait.MustBlock(t)
			p.Release(t)
			wantErr(t, "open that waits", wait.Wait(t), nil)
			// The name is its now, also if the other has removed it.
			wantListed(t, c, m, "lock")
			wantErr(t, "close", c.Close(wait.Number()), nil)
			wantListed(t, c, m, "lock")
			wantErr(t, "unlink", c.Unlink(path), nil)
		})
	}
	for name, holder := range holders {
		t.Run("open excludes "+name, func(t *testing.T) {
			fd := c.Open(path, openFlags)
			p := startProcess(t, nil, holder(path)...)
			if strings.HasPrefix(name, "f") { // they open it first, and wait
				p.MustBlock(t)
				wantErr(t, "close", c.Close(fd), nil)
				p.Held(t)
				p.Release(t)
			} else {
				p.Refused(t)
				wantErr(t, "close", c.Close(fd), nil)
			}
			sh(t, m, `rm -f *`)
		})
	}
	// A symbolic link or a directory is what it is.
	for _, make := range []func() error{
		func() error { return syscall.Symlink("elsewhere", path) },
		func() error { return syscall.Mkdir(path, 0o777) },
	} {
		wantErr(t, "make", make(), nil)
		_, err := c.TryOpen(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW)
		if err != unix.ELOOP && err != unix.EISDIR {
			t.Errorf("open: %v", err)
		}
		sh(t, m, `rm -f lock 2>/dev/null || rmdir lock`)
	}
	wantNobodyHolds(t, m)
}

// The directory decides who may take: to take is to write, to look is to read.
func TestWhoMayTakeByOpening(t *testing.T) {
	m := mountByOpen(t)
	owner, other := newClient(t, asAlice()), newClient(t, asBob())
	dir := m.Path("dir")
	wantErr(t, "mkdir", syscall.Mkdir(dir, 0o777), nil)
	wantErr(t, "chown", syscall.Chown(dir, aliceID, aliceID), nil)
	for _, tc := range []struct {
		mode                   uint32
		read, write, readWrite error
	}{
		{0o777, nil, nil, nil},
		{0o773, unix.EACCES, nil, unix.EACCES},
		{0o775, unix.EACCES, unix.EACCES, unix.EACCES},
		{0o770, unix.EACCES, unix.EACCES, unix.EACCES},
	} {
		wantErr(t, "chmod", syscall.Chmod(dir, tc.mode), nil)
		for flags, want := range map[int]error{unix.O_RDONLY: tc.read, unix.O_WRONLY: tc.write, unix.O_RDWR: tc.readWrite} {
			for _, name := range []string{"there", "new"} {
				fd := owner.Open(dir+"/there", openFlags)
				_, err := other.TryOpen(dir+"/there", flags|tryFlags)
				held := error(unix.ETXTBSY)
				if want != nil {
					held = want
				}
				wantErr(t, fmt.Sprintf("mode %o, flags %#x, held", tc.mode, flags), err, held)
				wantErr(t, "close", owner.Close(fd), nil)
				got, err := other.TryOpen(dir+"/"+name, flags|tryFlags)
				wantErr(t, fmt.Sprintf("mode %o, flags %#x, %s", tc.mode, flags, name), err, want)
				if err == nil {
					wantErr(t, "close", other.Close(got), nil)
				}
				sh(t, m, `rm -f dir/new`)
			}
		}
	}
	sh(t, m, `rm -r dir`)
	wantNothingHeld(t, m)
}

// Names and bodies outlive a clean stop; holds by open files do not.
func TestOpenLockspacesOutliveARestart(t *testing.T) {
	m := mountByOpen(t)
	out, exit := sh(t, m, `echo value >lock; mkdir d; echo inner >d/lock; ls`)
	if exit != 0 {
		t.Fatal(out)
	}
	m.Restart(m.Quit)
	out, _ = sh(t, m, `cat lock d/lock; ls; rm lock; ls; rm -r d`)
	if want := "value\ninner\nd\nlock\nd\n"; out != want {
		t.Errorf("after the restart: %q, want %q", out, want)
	}
	wantNothingHeld(t, m)
}
