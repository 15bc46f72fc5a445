package tests

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory that strangers keep their locks in, in the one that the mount covers, is
// one on the mount, too: whoever made it holds its name, and what is in it excludes.
func TestDirectoriesThatStrangersMade(t *testing.T) {
	for _, hold := range []string{"hold=handle", "hold=name"} {
		t.Run(hold, func(t *testing.T) {
			dir := t.TempDir()
			for _, d := range []string{"/lvm", "/lvm/deep", "/secret"} {
				if err := os.Mkdir(dir+d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(dir+"/secret", 0o700); err != nil {
				t.Fatal(err)
			}
			m := &mirroredMount{mount(t, "--backing", dir, "--policy", hold), dir}
			a, stranger, alice := newClient(t), newClient(t), newClient(t, asAlice())
			file := stranger.Open(m.Behind("lvm/deep/V_vg"), unix.O_RDWR|unix.O_CREAT)
			wantErr(t, "the stranger's lock", stranger.Fcntl(file, unix.F_SETLK, wr(0, toEnd)), nil)
			wantListed(t, a, m.Mount, "lvm", "secret")
			at, err := a.Stat(m.Path("lvm"))
			wantErr(t, "stat", err, nil)

			wantErr(t, "mkdir", a.Name("mkdir", 0o755, m.Path("lvm")), unix.EEXIST)
			wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("lvm/deep")), unix.EBUSY)
			wantErr(t, "rename", a.Name("rename", 0, m.Path("lvm"), m.Path("other")), unix.EBUSY)
			wantErr(t, "chmod", a.Chmod(m.Path("lvm"), 0o777), unix.EBUSY)
			_, err = alice.Stat(m.Path("secret/x"))
			wantErr(t, "stat in a directory that is not hers", err, unix.EACCES)
			_, err = alice.TryOpen(m.Path("lvm/x"), takeFlags)
			wantErr(t, "a lock in a directory that is not hers", err, unix.EACCES)

			theirs := m.Path("lvm/deep/V_vg")
			if hold == "hold=handle" {
				wantErr(t, "flock of the stranger's", a.Flock(a.Open(theirs, unix.O_RDWR), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
			}
			_, err = a.TryOpen(theirs, takeFlags)
			wantErr(t, "O_EXCL of the stranger's", err, unix.EEXIST)
			fd := a.Open(m.Path("lvm/deep/mine"), takeFlags)
			mine := stranger.Open(m.Behind("lvm/deep/mine"), unix.O_RDWR)
			wantErr(t, "the stranger's lock of ours", stranger.Fcntl(mine, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
			killWorker(t, m.Mount)
			if now, err := a.Stat(m.Path("lvm")); err != nil || now.Ino != at.Ino {
				t.Errorf("it is %v, %v, and was %v", now, err, at)
			}
			wantErr(t, "the stranger's lock of ours", stranger.Fcntl(mine, unix.F_SETLK, wr(0, toEnd)), unix.EAGAIN)
			// Another mode outside counts here, too, though something is held.
			if err := os.Chmod(m.Behind("lvm/deep"), 0o700); err != nil {
				t.Fatal(err)
			}
			_, err = alice.Stat(m.Path("lvm/deep/mine"))
			wantErr(t, "stat in what is not hers any more", err, unix.EACCES)
			wantErr(t, "unlink", a.Unlink(m.Path("lvm/deep/mine")), nil)
			wantErr(t, "close", a.Close(fd), nil)

			// When it is gone outside, it is here, over a restart as well.
			wantErr(t, "the stranger's unlock", stranger.Close(file), nil)
			if err := os.RemoveAll(m.Behind("lvm")); err != nil {
				t.Fatal(err)
			}
			_, err = a.Stat(m.Path("lvm/deep"))
			wantErr(t, "stat of what is gone", err, unix.ENOENT)
			wantErr(t, "mkdir, now", a.Name("mkdir", 0o755, m.Path("lvm")), nil)
			wantErr(t, "the stranger's mkdir", stranger.Name("mkdir", 0o755, m.Behind("lvm")), unix.EEXIST)
			m.Restart(m.Quit)
			wantListed(t, a, m.Mount, "lvm", "secret")
			wantErr(t, "rmdir", a.Name("rmdir", 0, m.Path("lvm")), nil)
			wantErr(t, "rmdir of the stranger's", stranger.Name("rmdir", 0, m.Behind("secret")), nil)
			wantListed(t, a, m.Mount)
			wantBehind(t, m)
		})
	}
}

// What mkdir has made on one of two mounts is a directory on the other, held by
// somebody else; it goes when nobody uses it.
func TestDirectoriesOfTwoMounts(t *testing.T) {
	a, b := twoMounts(t)
	one, two := newClient(t), newClient(t)
	wantErr(t, "mkdir", one.Name("mkdir", 0o755, a.Path("dir")), nil)
	wantErr(t, "mkdir by the other", two.Name("mkdir", 0o755, b.Path("dir")), unix.EEXIST)
	fd := two.Open(b.Path("dir/x"), takeFlags)
	_, err := one.TryOpen(a.Path("dir/x"), takeFlags)
	wantErr(t, "O_EXCL by the other", err, unix.EEXIST)
	wantErr(t, "rmdir of what is in use", one.Name("rmdir", 0, a.Path("dir")), unix.ENOTEMPTY)
	wantErr(t, "rmdir by who has not made it", two.Name("rmdir", 0, b.Path("dir")), unix.EBUSY)
	wantErr(t, "close", two.Close(fd), nil)
	wantErr(t, "rmdir", one.Name("rmdir", 0, a.Path("dir")), nil)
	wantErr(t, "mkdir by the other, now", two.Name("mkdir", 0o755, b.Path("dir")), nil)
	wantErr(t, "mkdir by the first", one.Name("mkdir", 0o755, a.Path("dir")), unix.EEXIST)
	wantErr(t, "rmdir", two.Name("rmdir", 0, b.Path("dir")), nil)
	wantErr(t, "mkdir again", one.Name("mkdir", 0o755, a.Path("dir")), nil)
	wantBehind(t, a, "dir")

	// A directory that holds nothing is one there, too, once there is a lock in it.
	c := mount(t, "--backing", a.backing, "--space", "space:hold=handle")
	fd = one.Open(c.Path("space/x"), takeFlags)
	_, err = two.TryOpen(b.Path("space/x"), takeFlags)
	wantErr(t, "O_EXCL by the other", err, unix.EEXIST)
	wantErr(t, "mkdir by the other", two.Name("mkdir", 0o755, b.Path("space")), unix.EEXIST)
	wantErr(t, "close", one.Close(fd), nil)
}
