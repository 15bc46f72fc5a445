package tests

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// 1.6: "A backing directory on a cluster filesystem with fcntl locks makes the locks
// cluster-wide: each host mounts lockfs over the same backing directory." Two clients
// of GlusterFS are two hosts, as far as its servers can tell.

// glusterMounts is a mount of lockfs on each client of a volume.
func glusterMounts(t *testing.T, g *gluster) []*Mount {
	t.Helper()
	var all []*Mount
	for _, c := range g.clients {
		m := mount(t, "--backing", c.Dir)
		m.Deadline(glusterLimit)
		all = append(all, m)
	}
	return all
}

// What is held on one host excludes those on the other, by mode and range, both ways,
// and is shown there; who waits gets in when it is given back; and under load there are
// never two inside.
func TestClusterIsOneTable(t *testing.T) {
	g := newGluster(t, 2)
	m := glusterMounts(t, g)
	here, there := newClient(t), newClient(t)
	for from, to := range map[*Mount]*Mount{m[0]: m[1], m[1]: m[0]} {
		for _, way := range waysToHold {
			name := strings.ReplaceAll(way.name, " ", "-")
			fd := way.take(t, here, from.Path(name))
			wantExcluded(t, there, way.name, to.Path(name))
			if way.name == "O_EXCL" || way.name == "flock" {
				text := filepath.Join(g.brick(), name)
				awaitPublished(t, text)
				wantSeenAs(t, there, to.Path(name), from.Path(name))
				wantListed(t, there, to, name)
			}
			other := there.Open(to.Path(name), openFlags)
			waits := there.StartFlock(other, unix.LOCK_EX)
			waits.MustBlock(t)
			wantErr(t, way.name+": close", here.Close(fd), nil)
			wantErr(t, way.name+": the wait", waits.Wait(t), nil)
			wantErr(t, "close", there.Close(other), nil)
		}
		fd, other := here.Open(from.Path("ranges"), openFlags), there.Open(to.Path("ranges"), openFlags)
		wantErr(t, "bytes 10 to 19", here.Fcntl(fd, unix.F_SETLK, wr(10, 10)), nil)
		wantErr(t, "the byte before", there.Fcntl(other, unix.F_SETLK, wr(9, 1)), nil)
		wantErr(t, "the first", there.Fcntl(other, unix.F_SETLK, rd(10, 1)), unix.EAGAIN)
		wantErr(t, "the last", there.Fcntl(other, unix.F_OFD_SETLK, rd(19, 1)), unix.EAGAIN)
		wantErr(t, "those behind", there.Fcntl(other, unix.F_SETLK, wr(20, toEnd)), nil)
		if got := there.GetLk(other, wr(0, toEnd)); got.Type != unix.F_WRLCK || got.Start != 10 || got.Len != 10 || got.Pid > 0 {
			t.Errorf("F_GETLK tells of %+v, want bytes 10 to 19, and no pid of another host's", got)
		}
		wantErr(t, "a downgrade", here.Fcntl(fd, unix.F_SETLK, rd(10, 10)), nil)
		// What an agent gives back is free a moment after that has been said.
		eventually(t, answerLimit, func() bool { return there.Fcntl(other, unix.F_SETLK, rd(10, 10)) == nil }, "shared by both")
		wantErr(t, "an upgrade", here.Fcntl(fd, unix.F_SETLK, wr(10, 10)), unix.EAGAIN)
		wantErr(t, "close", here.Close(fd), nil)
		wantErr(t, "close", there.Close(other), nil)
	}
	wantNeverTwoInside(t, 10*time.Second, g.clients[0].Dir, m[0], m[1])
}

// wantExcluded fails the test unless who holds a lock in one of waysToHold excludes
// a client elsewhere, as far as he does.
func wantExcluded(t *testing.T, c *Client, way, path string) {
	t.Helper()
	_, err := c.TryOpen(path, takeFlags)
	wantErr(t, way+" against O_EXCL", err, unix.EEXIST)
	fd := c.Open(path, openFlags)
	wantErr(t, way+" against flock", c.Flock(fd, unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
	var shared error = unix.EWOULDBLOCK
	if strings.Contains(way, "shared") || strings.Contains(way, "one byte") {
		shared = nil
	}
	wantErr(t, way+" against a shared flock", c.Flock(fd, unix.LOCK_SH|unix.LOCK_NB), shared)
	wantErr(t, "close", c.Close(fd), nil)
}

// A host that is cut off from its files is told that it has lost what it held, and
// others can have it: when its client dies.
func TestClusterClientDies(t *testing.T) {
	g := newGluster(t, 2)
	m := glusterMounts(t, g)
	lost, next := newClient(t), newClient(t)
	events := lost.Open(m[0].Path(".lockfs/events"), unix.O_RDONLY|unix.O_NONBLOCK)
	fd := lost.Open(m[0].Path("x"), takeFlags)
	awaitPublished(t, filepath.Join(g.brick(), "x"))
	other := next.Open(m[1].Path("x"), openFlags)
	waits := next.StartFlock(other, unix.LOCK_EX)
	waits.MustBlock(t)
	dead := fmt.Sprintf("pid=%d\n", lost.Pid())
	g.clients[0].kill()
	wantErr(t, "who waits on the other host", waits.Wait(t), nil)
	wantLost(t, lost, fd, events)
	eventually(t, answerLimit, func() bool {
		text := behind(t, filepath.Join(g.brick(), "x"))
		return !strings.Contains(text, dead) && strings.Contains(text, fmt.Sprintf("pid=%d\n", next.Pid()))
	}, "it is published who holds it now, and nobody else")
	if _, err := lost.TryOpen(m[0].Path("y"), takeFlags); err == nil {
		t.Error("a lock was granted that cannot be mirrored")
	}
}

// wantLost waits until a holder is told that he has lost a lock, and there is an
// event.
func wantLost(t *testing.T, c *Client, fd, events int) {
	t.Helper()
	eventually(t, answerLimit, func() bool { return c.Fsync(fd) == unix.EIO }, "the holder is told")
	told := ""
	eventually(t, answerLimit, func() bool {
		more, err := c.Read(events, 4096)
		told += more
		return (err == nil || err == unix.EAGAIN) && strings.Contains(told, `{"event":"lost"`)
	}, "there is an event")
}

// The death of the process that has the files takes all locks away, and there is
// nothing that tells of it when another has taken its place: unless clients keep to
// what they had open, and if they do not, by looking.
func TestClusterBrickDies(t *testing.T) {
	for _, strict := range []string{"on", "off"} {
		t.Run("strict-locks "+strict, func(t *testing.T) {
			g := newGluster(t, 2, "client.strict-locks "+strict)
			m := glusterMounts(t, g)
			holder, next := newClient(t), newClient(t)
			events := holder.Open(m[0].Path(".lockfs/events"), unix.O_RDONLY|unix.O_NONBLOCK)
			fd := holder.Open(m[0].Path("x"), takeFlags)
			g.killBrick()
			if strict == "on" { // and it stays away until that is noticed
				wantLost(t, holder, fd, events)
				for i, c := range []*Client{holder, next} {
					if _, err := c.TryOpen(m[i].Path("y"), takeFlags); err == nil {
						t.Errorf("mount %d grants a lock that cannot be mirrored", i)
					}
				}
				g.startBrick()
			} else {
				g.startBrick()
				wantLost(t, holder, fd, events)
			}
			var other int
			eventually(t, 2*answerLimit, func() bool {
				var err error
				other, err = next.TryOpen(m[1].Path("x"), takeFlags)
				return err == nil
			}, "the other host gets it")
			wantErr(t, "close of what is lost", holder.Close(fd), nil)
			_, err := holder.TryOpen(m[0].Path("x"), takeFlags)
			wantErr(t, "who has lost it", err, unix.EEXIST)
			wantErr(t, "close", next.Close(other), nil)
			eventually(t, answerLimit, func() bool {
				_, err := holder.TryOpen(m[0].Path("x"), takeFlags)
				return err == nil
			}, "who has lost it gets it when it is free")
			time.Sleep(1500 * time.Millisecond) // it is looked at, and stays
			wantErr(t, "another one", holder.Close(holder.Open(m[0].Path("y"), takeFlags)), nil)
		})
	}
}
