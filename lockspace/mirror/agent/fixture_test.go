package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// agentDir says that this process is an agent, of which directory.
const agentDir = "LOCKFS_TEST_AGENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(agentDir); dir != "" {
		os.Exit(runAgent(dir))
	}
	os.Exit(m.Run())
}

func runAgent(dir string) int {
	line, err := NewSocket(3)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	Serve(line, func() (*mirror.Backing, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return mirror.NewBacking(fd), nil
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	return 0
}

// keeper starts agents, and has their lines when a worker is gone.
type keeper struct {
	t   *testing.T
	dir string

	mu  sync.Mutex
	cmd *exec.Cmd
	fd  int // a copy of the worker's end, -1: none
}

func newKeeper(t *testing.T) *keeper {
	k := &keeper{t: t, dir: t.TempDir(), fd: -1}
	t.Cleanup(k.drop)
	return k
}

func (k *keeper) drop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fd >= 0 {
		unix.Close(k.fd)
		k.fd = -1
	}
}

func (k *keeper) connect(again bool) (*Socket, error) {
	if again {
		k.drop()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fd >= 0 {
		fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return NewSocket(fd)
	}
	ours, theirs, err := Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), agentDir+"="+k.dir, "GORACE=atexit_sleep_ms=20")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go cmd.Wait()
	k.cmd = cmd
	k.fd, err = unix.FcntlInt(uintptr(ours.FD), unix.F_DUPFD_CLOEXEC, 0)
	return ours, err
}

// signal sends the agent a signal. With SIGSTOP it has stopped when that returns.
func (k *keeper) signal(s syscall.Signal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.cmd == nil {
		return
	}
	k.cmd.Process.Signal(s)
	for end := time.Now().Add(10 * time.Second); s == syscall.SIGSTOP && time.Now().Before(end); {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", k.cmd.Process.Pid))
		if err != nil || strings.Contains(string(text), ") T ") {
			return
		}
	}
}

func (k *keeper) path(name string) string { return filepath.Join(k.dir, name) }

// worker is a table with its client, and who waits.
type worker struct {
	t      *testing.T
	k      *keeper
	table  *lockspace.Table
	client *Client
	tokens *lockspace.Counter

	mu       sync.Mutex
	waits    map[lockspace.WaitID]chan error
	lastWait lockspace.WaitID
	losses   []lockspace.Key
	lost     map[lockspace.Key]error // all there were
	began    time.Time
	// text is what is published, nil for nothing.
	text     func() []byte
	openings map[string]mirror.Opening // of names
}

func (w *worker) Now() lockspace.Instant {
	return lockspace.Instant{Wall: time.Now().UnixNano(), Boot: time.Since(w.began) + time.Second}
}

func (w *worker) Alive(uint32) bool                        { return true }
func (w *worker) WaitClass(uint32) (lockspace.Class, bool) { return lockspace.ClassOFD, true }

func (w *worker) Granted(wait lockspace.Wait, _ lockspace.Hold) { w.waits[wait.ID] <- nil }
func (w *worker) Refused(wait lockspace.Wait, err error)        { w.waits[wait.ID] <- err }
func (w *worker) Ended(lockspace.Hold, lockspace.Reason)        {}

func newWorker(t *testing.T, k *keeper) *worker {
	t.Helper()
	w := &worker{t: t, k: k, waits: make(map[lockspace.WaitID]chan error), lost: make(map[lockspace.Key]error), tokens: new(lockspace.Counter), began: time.Now()}
	w.openings = make(map[string]mirror.Opening)
	w.table = lockspace.New(w.environment())
	w.begin()
	return w
}

func (w *worker) environment() lockspace.Environment {
	return lockspace.Environment{Clock: w, Tokens: w.tokens, Processes: w, Observer: w, Journal: lockspace.Discard{}}
}

func (w *worker) begin() {
	w.client = New(Config{
		Mount:   "fixture",
		Opening: func(k lockspace.Key) mirror.Opening { return w.openings[k.Name] },
		Publish: func(lockspace.Key) bool { return w.text != nil },
		Text:    func(lockspace.Key) func() []byte { return w.text },
		Connect: w.k.connect, Do: w.do,
		Reconsider: func(k lockspace.Key) { w.table.Reconsider(k) },
		Path:       func(k lockspace.Key) (string, error) { return k.Name, nil },
		Lost: func(k lockspace.Key, why error) {
			w.losses = append(w.losses, k)
			w.lost[k] = why
			go w.do(func() {})
		},
		Name: w.k.dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	w.table.Mirrored(w.client)
	w.client.Begin()
	client := w.client
	w.t.Cleanup(client.Close)
}

// replace is what the next worker begins with: the same holds.
func (w *worker) replace() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.client.Close()
	var holds []*lockspace.Hold
	s := w.table.Snapshot()
	for !s.Gather(100) {
	}
	for h := range s.Holds() {
		c := *h
		holds = append(holds, &c)
	}
	w.table = lockspace.Restore(w.environment(), holds, nil, nil)
	w.begin()
}

// do is a step.
func (w *worker) do(step func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	step()
	for len(w.losses) > 0 {
		k := w.losses[0]
		w.losses = w.losses[1:]
		var held []*lockspace.Hold
		for h := range w.table.Holds(k) {
			held = append(held, h)
		}
		for _, h := range held {
			w.table.EndHandle(k, h.Party.Handle, lockspace.Lost)
		}
	}
	w.client.Recorded()
}

// request asks for a lock by an open file.
func (w *worker) request(name string, handle uint64, mode lockspace.Mode, r lockspace.Range) lockspace.Request {
	return lockspace.Request{
		Key: lockspace.Key{Dir: 1, Name: name}, Via: lockspace.ViaFcntl, Mode: mode, Range: r,
		Party: lockspace.Party{Handle: handle, File: 7, Owner: handle, Taker: lockspace.Process{Pid: uint32(handle)}},
	}
}

// try takes a lock, or fails. It goes on detours as the filesystem does, and gives up
// with ErrNoAnswer after limit.
func (w *worker) try(r lockspace.Request, limit time.Duration) (err error) {
	var p *Preparation
	for range 100 {
		w.do(func() {
			if p != nil {
				if err = p.Adopt(); err != nil {
					return
				}
			}
			if err = w.table.Try(r); errors.Is(err, lockspace.ErrLookup) {
				p = w.client.Prepare(&r)
			}
		})
		if !errors.Is(err, lockspace.ErrLookup) {
			return err
		}
		p.Run(limit, nil)
	}
	return err
}

// wait begins to wait for a lock.
func (w *worker) wait(r lockspace.Request) <-chan error {
	done := make(chan error, 1)
	go func() {
		var p *Preparation
		for range 100 {
			granted, err := false, error(nil)
			w.do(func() {
				if p != nil {
					if err = p.Adopt(); err != nil {
						return
					}
				}
				w.lastWait++
				w.waits[w.lastWait] = done
				if granted, err = w.table.Acquire(r, w.lastWait); errors.Is(err, lockspace.ErrLookup) {
					p = w.client.Prepare(&r)
				}
			})
			switch {
			case granted:
				done <- nil
				return
			case err == nil:
				return
			case !errors.Is(err, lockspace.ErrLookup):
				done <- err
				return
			}
			p.Run(0, nil)
		}
	}()
	return done
}

// forgets waits until the client remembers no lock and no call.
func (w *worker) forgets(t *testing.T) {
	t.Helper()
	eventually(t, "the client forgets", func() bool {
		w.client.mu.Lock()
		defer w.client.mu.Unlock()
		return len(w.client.names) == 0 && len(w.client.calls) == 0
	})
}

func (w *worker) unlock(name string, handle uint64, r lockspace.Range) {
	q := w.request(name, handle, lockspace.Shared, r)
	w.do(func() { w.table.Unlock(q.Key, q.Party, q.Via, r) })
}

// stranger is an open file of somebody outside.
type stranger struct {
	t  *testing.T
	fd int
}

func (k *keeper) stranger(name string) *stranger {
	k.t.Helper()
	fd, err := unix.Open(k.path(name), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { unix.Close(fd) })
	return &stranger{k.t, fd}
}

func (s *stranger) call(cmd int, typ int16, r lockspace.Range) error {
	lk := unix.Flock_t{Type: typ, Start: int64(r.First)}
	if r.Last != lockspace.MaxOffset {
		lk.Len = int64(r.Last-r.First) + 1
	}
	return unix.FcntlFlock(uintptr(s.fd), cmd, &lk)
}

// lock takes, and unlock gives back.
func (s *stranger) lock(typ int16, r lockspace.Range) error {
	return s.call(unix.F_OFD_SETLK, typ, r)
}
func (s *stranger) unlock() { _ = s.call(unix.F_OFD_SETLK, unix.F_UNLCK, lockspace.Whole) }

// sees returns what mode a byte is locked in by others, as F_WRLCK, F_RDLCK or F_UNLCK.
func (s *stranger) sees(at uint64) int16 {
	s.t.Helper()
	for _, typ := range []int16{unix.F_RDLCK, unix.F_WRLCK} {
		lk := unix.Flock_t{Type: typ, Start: int64(at), Len: 1}
		if err := unix.FcntlFlock(uintptr(s.fd), unix.F_OFD_GETLK, &lk); err != nil {
			s.t.Fatal(err)
		}
		if lk.Type != unix.F_UNLCK {
			return lk.Type
		}
	}
	return unix.F_UNLCK
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}
