package tests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A GlusterFS volume of the test's own, of one brick, from Debian's packages. Its
// servers run in namespaces of their own: so they have a network in which they are
// alone, with an address that is not the loopback's (which GlusterFS refuses), leave
// nothing behind in the host's directories, and all end with the first of them. The
// clients have that network and else are where the tests are.

const (
	glusterAddress = "198.51.100.1" // for documentation, says RFC 5737: nobody's
	glusterVolume  = "locks"
	// glusterLimit is how long a volume may be there: then its processes are killed,
	// so that nothing waits for them any more.
	glusterLimit = 4 * time.Minute
)

// The first process waits for the others to end: nobody else could.
const glusterServers = `set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/glusterd
mount -t tmpfs none /var/log
mkdir -p /run/gluster /var/log/glusterfs # gluster(8) may be first
ip link set lo up
ip address add ` + glusterAddress + `/32 dev lo
glusterd --no-daemon --log-file=/var/log/glusterfs/glusterd.log &
wait $!
`

// glusterOptions are those without which a host could see what was, instead of what
// is, or go on with locks that it has lost: the README names them.
var glusterOptions = []string{
	"client.strict-locks on",
	"performance.write-behind off", "performance.open-behind off", "performance.quick-read off",
	"performance.io-cache off", "performance.read-ahead off", "performance.readdir-ahead off", "performance.stat-prefetch off",
	"network.ping-timeout 5",
}

// gluster is a volume.
type gluster struct {
	t       testing.TB
	dir     string
	servers *exec.Cmd
	said    *bytes.Buffer // by the servers; to be read when they have ended
	init    int           // the first process in the servers' namespaces
	clients []*glusterClient
}

// glusterClient is a mount of it, as another host would have one.
type glusterClient struct {
	Dir string
	cmd *exec.Cmd
	end chan struct{}
}

// newGluster starts a volume with options besides the usual ones. What uses it has to
// end before it does.
func newGluster(t testing.TB, clients int, options ...string) *gluster {
	t.Helper()
	needRoot(t)
	g := &gluster{t: t, dir: mountParent(t)}
	if err := os.Mkdir(g.brick(), 0o755); err != nil {
		t.Fatal(err)
	}
	g.servers = command(nil, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", glusterServers)
	g.said = new(bytes.Buffer)
	g.servers.Stdout, g.servers.Stderr = g.said, g.said
	if err := g.servers.Start(); err != nil {
		t.Fatalf("starting GlusterFS: %v", err)
	}
	timer := time.AfterFunc(glusterLimit, func() {
		t.Errorf("the test has used a GlusterFS volume for longer than %v: it is killed", glusterLimit)
		g.killAll()
	})
	t.Cleanup(func() {
		timer.Stop()
		g.killAll()
		g.servers.Wait()
		for _, c := range g.clients {
			<-c.end
			detach(c.Dir)
		}
		os.RemoveAll(g.brick())
		for _, c := range g.clients {
			os.Remove(c.Dir)
		}
		os.Remove(g.dir)
	})
	eventually(t, answerLimit, func() bool {
		for _, pid := range children(g.servers.Process.Pid) {
			g.init = pid
		}
		return g.init != 0
	}, "there is a first process of GlusterFS")
	g.create()
	for _, option := range append(glusterOptions, options...) {
		g.must("volume set " + glusterVolume + " " + option)
	}
	g.must("volume start " + glusterVolume)
	for i := range clients {
		g.mount(filepath.Join(g.dir, fmt.Sprint("client", i)))
	}
	return g
}

// create makes the volume, when the servers are ready for it. A gluster(8) that came
// too early may wait for minutes.
func (g *gluster) create() {
	g.t.Helper()
	var out string
	for range 12 {
		var err error
		out, err = g.within(5, strings.Fields("gluster --mode=script volume create "+glusterVolume+" "+glusterAddress+":"+g.brick()+" force")...)
		if err == nil || strings.Contains(out, "already exists") {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
	log := g.log()
	g.killAll()
	g.servers.Wait()
	g.t.Fatalf("GlusterFS makes no volume: %s%s%s", out, log, g.said)
}

// log returns the end of what the servers have written.
func (g *gluster) log() string {
	out, _ := g.inside("sh", "-c", "tail -n 30 /var/log/glusterfs/*.log")
	return out
}

func (g *gluster) brick() string { return filepath.Join(g.dir, "brick") }

// inside runs a command where the servers are.
func (g *gluster) inside(argv ...string) (string, error) { return g.within(20, argv...) }

// within is inside for so many seconds.
func (g *gluster) within(seconds int, argv ...string) (string, error) {
	enter := []string{"timeout", "--kill-after=1", fmt.Sprint(seconds), "nsenter", "--target", fmt.Sprint(g.init), "--all"}
	out, err := command(nil, append(enter, argv...)...).CombinedOutput()
	return string(out), err
}

// tell runs gluster(8).
func (g *gluster) tell(words string) (string, error) {
	return g.inside(append([]string{"gluster", "--mode=script"}, strings.Fields(words)...)...)
}

func (g *gluster) must(words string) {
	g.t.Helper()
	if out, err := g.tell(words); err != nil {
		g.t.Fatalf("gluster %s: %v\n%s%s", words, err, out, g.log())
	}
}

// mount mounts the volume.
func (g *gluster) mount(dir string) {
	g.t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		g.t.Fatal(err)
	}
	c := &glusterClient{Dir: dir, end: make(chan struct{})}
	c.cmd = command(nil, "nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", g.init),
		"glusterfs", "--no-daemon", "--volfile-server="+glusterAddress, "--volfile-id="+glusterVolume,
		"--attribute-timeout=0", "--entry-timeout=0", "--log-file=/dev/stderr", dir)
	c.cmd.Stderr = io.Discard
	if err := c.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	go func() { c.cmd.Wait(); close(c.end) }()
	g.clients = append(g.clients, c)
	eventually(g.t, 2*answerLimit, func() bool {
		return mountAt(dir) != nil && command(nil, "timeout", "5", "stat", dir).Run() == nil
	}, "a client of GlusterFS has mounted the volume")
}

// kill ends a client as the death of its host would.
func (c *glusterClient) kill() { c.cmd.Process.Signal(syscall.SIGKILL) }

// killAll ends everything.
func (g *gluster) killAll() {
	for _, c := range g.clients {
		c.kill()
	}
	g.servers.Process.Kill()
}

// killBrick ends the process that has the files, and their locks; startBrick starts
// it again.
func (g *gluster) killBrick() {
	g.t.Helper()
	if out, err := g.inside("sh", "-c", "kill -KILL $(cat /run/gluster/vols/*/*.pid)"); err != nil {
		g.t.Fatalf("killing the brick: %v: %s", err, out)
	}
}

func (g *gluster) startBrick() {
	g.t.Helper()
	g.must("volume start " + glusterVolume + " force")
}
