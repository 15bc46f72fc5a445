package tests

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// hanging is a filesystem that stops answering on command, as one on a network does
// when its server is gone: it has read what it is asked, so who asks waits for the
// answer and cannot even be killed. It shows a directory. Locks on it are the kernel's.
type hanging struct {
	t     testing.TB
	Dir   string // where it is mounted; what is in it is in below, too
	below string
	stdin io.Writer
	said  chan string
	once  sync.Once
}

// hangingLimit is how long it may be there.
const hangingLimit = 3 * time.Minute

// mountHanging mounts one. The test process does not touch it.
func mountHanging(t testing.TB) *hanging {
	t.Helper()
	needRoot(t)
	parent := mountParent(t)
	h := &hanging{t: t, Dir: filepath.Join(parent, "hanging"), below: filepath.Join(parent, "below"), said: make(chan string, 10)}
	for _, dir := range []string{h.Dir, h.below} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command([]clientOption{withEnv(clientEnv + "=1")}, program(t, "client"), "hanging", h.below, h.Dir)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	h.stdin = stdin
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			h.said <- lines.Text()
		}
	}()
	late := time.AfterFunc(hangingLimit, func() {
		t.Errorf("the hanging filesystem was there for %v, and is aborted", hangingLimit)
		h.abort()
	})
	t.Cleanup(func() {
		late.Stop()
		h.abort()
		cmd.Process.Kill()
		cmd.Wait()
		if mountAt(h.Dir) == nil {
			os.RemoveAll(parent)
		}
	})
	h.await("mounted")
	return h
}

// abort ends it: all that hangs there gets an error.
func (h *hanging) abort() {
	h.once.Do(func() {
		if mi := mountAt(h.Dir); mi != nil {
			mi.abortConnection(h.t)
			detach(h.Dir)
		}
	})
}

func (h *hanging) await(word string) {
	h.t.Helper()
	select {
	case said := <-h.said:
		if said != word {
			h.t.Fatalf("the hanging filesystem says %q, not %q", said, word)
		}
	case <-time.After(answerLimit):
		h.t.Fatalf("the hanging filesystem does not say %q", word)
	}
}

func (h *hanging) tell(word string) {
	h.t.Helper()
	if _, err := fmt.Fprintln(h.stdin, word); err != nil {
		h.t.Fatal(err)
	}
	h.await(word)
}

// Hang has it answer nothing, until Answer. Both may be called twice.
func (h *hanging) Hang()   { h.t.Helper(); h.tell("hang") }
func (h *hanging) Answer() { h.t.Helper(); h.tell("answer") }

// serveHanging is the filesystem's process: it shows below at dir, and obeys what it
// is told in lines.
func serveHanging(below, dir string) int {
	root, err := gofs.NewLoopbackRoot(below)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	zero := time.Duration(0)
	g := &gate{RawFileSystem: gofs.NewNodeFS(root, &gofs.Options{AttrTimeout: &zero, EntryTimeout: &zero, NegativeTimeout: &zero})}
	server, err := fuse.NewServer(g, dir, &fuse.MountOptions{AllowOther: true, FsName: "hanging", DirectMount: true})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("mounted")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch word := lines.Text(); word {
		case "hang":
			g.close()
		case "answer":
			g.open()
		}
		fmt.Println(lines.Text())
	}
	return 0
}

// gate is before a filesystem.
type gate struct {
	fuse.RawFileSystem
	mu     sync.Mutex
	closed chan struct{} // nil: open
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed != nil {
		close(g.closed)
		g.closed = nil
	}
}

func (g *gate) pass() {
	g.mu.Lock()
	closed := g.closed
	g.mu.Unlock()
	if closed != nil {
		<-closed
	}
}

func (g *gate) Lookup(c <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	g.pass()
	return g.RawFileSystem.Lookup(c, h, name, out)
}

func (g *gate) GetAttr(c <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	g.pass()
	return g.RawFileSystem.GetAttr(c, in, out)
}

func (g *gate) SetAttr(c <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	g.pass()
	return g.RawFileSystem.SetAttr(c, in, out)
}

func (g *gate) Access(c <-chan struct{}, in *fuse.AccessIn) fuse.Status {
	g.pass()
	return g.RawFileSystem.Access(c, in)
}

func (g *gate) Create(c <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	g.pass()
	return g.RawFileSystem.Create(c, in, name, out)
}

func (g *gate) Open(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	g.pass()
	return g.RawFileSystem.Open(c, in, out)
}

func (g *gate) OpenDir(c <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	g.pass()
	return g.RawFileSystem.OpenDir(c, in, out)
}

func (g *gate) ReadDirPlus(c <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	g.pass()
	return g.RawFileSystem.ReadDirPlus(c, in, out)
}

func (g *gate) Flush(c <-chan struct{}, in *fuse.FlushIn) fuse.Status {
	g.pass()
	return g.RawFileSystem.Flush(c, in)
}

func (g *gate) StatFs(c <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	g.pass()
	return g.RawFileSystem.StatFs(c, in, out)
}
