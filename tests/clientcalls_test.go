package tests

import (
	"slices"

	"golang.org/x/sys/unix"
)

// This file is the system calls that a [Client] makes, one method each. Errors
// are syscall.Errno, as the process got them.

// takeFlags opens a name as one takes a lock by its existence.
const takeFlags = unix.O_CREAT | unix.O_EXCL | unix.O_RDWR

// openFlags opens a name whether or not it is held, in order to lock it.
const openFlags = unix.O_CREAT | unix.O_RDWR

// Open opens path (mode 0666) and returns the descriptor.
func (c *Client) Open(path string, flags int) int {
	c.t.Helper()
	return c.do(request{Op: "open", Path: []byte(path), Flags: flags, Mode: 0o666}).N
}

// TryOpen is Open for an open that may fail.
func (c *Client) TryOpen(path string, flags int) (fd int, err error) {
	c.t.Helper()
	a, err := c.call(request{Op: "open", Path: []byte(path), Flags: flags, Mode: 0o666})
	return a.N, err
}

// StartOpen opens path without waiting for the outcome.
func (c *Client) StartOpen(path string, flags int) *Pending {
	return c.start(request{Op: "open", Path: []byte(path), Flags: flags, Mode: 0o666})
}

// TryOSOpen opens path with os.OpenFile, as a Go program does.
func (c *Client) TryOSOpen(path string, flags int) (fd int, err error) {
	c.t.Helper()
	a, err := c.call(request{Op: "osopen", Path: []byte(path), Flags: flags, Mode: 0o666})
	return a.N, err
}

// OSClose closes what TryOSOpen opened.
func (c *Client) OSClose(fd int) error { return c.err(request{Op: "osclose", FD: fd}) }

func (c *Client) Close(fd int) error { return c.err(request{Op: "close", FD: fd}) }

// Dup returns a second descriptor of the same open file.
func (c *Client) Dup(fd int) int {
	c.t.Helper()
	return c.do(request{Op: "dup", FD: fd}).N
}

// Flock calls flock(2); how is unix.LOCK_SH, LOCK_EX or LOCK_UN, with LOCK_NB
// or without.
func (c *Client) Flock(fd, how int) error {
	c.t.Helper()
	return c.err(request{Op: "flock", FD: fd, Flags: how})
}

// StartFlock calls flock(2) without waiting for the outcome.
func (c *Client) StartFlock(fd, how int) *Pending {
	return c.start(request{Op: "flock", FD: fd, Flags: how})
}

// Fcntl makes a lock call of fcntl(2): cmd is unix.F_SETLK, F_SETLKW,
// F_OFD_SETLK or F_OFD_SETLKW.
func (c *Client) Fcntl(fd, cmd int, lk unix.Flock_t) error {
	c.t.Helper()
	return c.err(request{Op: "fcntl", FD: fd, Flags: cmd, Lk: &lk})
}

// StartFcntl is Fcntl without waiting for the outcome.
func (c *Client) StartFcntl(fd, cmd int, lk unix.Flock_t) *Pending {
	return c.start(request{Op: "fcntl", FD: fd, Flags: cmd, Lk: &lk})
}

// GetLk asks with F_GETLK who is in the way of lk.
func (c *Client) GetLk(fd int, lk unix.Flock_t) unix.Flock_t {
	c.t.Helper()
	return *c.do(request{Op: "fcntl", FD: fd, Flags: unix.F_GETLK, Lk: &lk}).Lk
}

// GetOFDLk asks with F_OFD_GETLK who is in the way of lk. The kernel reports
// -1 as the pid.
func (c *Client) GetOFDLk(fd int, lk unix.Flock_t) unix.Flock_t {
	c.t.Helper()
	return *c.do(request{Op: "fcntl", FD: fd, Flags: unix.F_OFD_GETLK, Lk: &lk}).Lk
}

// Read reads at most n bytes from the descriptor's position on.
func (c *Client) Read(fd, n int) (string, error) {
	c.t.Helper()
	a, err := c.call(request{Op: "read", FD: fd, N: n})
	return string(a.Data), err
}

// Pread reads at most n bytes from an offset on.
func (c *Client) Pread(fd, n int, off int64) (string, error) {
	c.t.Helper()
	a, err := c.call(request{Op: "pread", FD: fd, N: n, Off: off})
	return string(a.Data), err
}

// ReadAll opens, reads and closes a file.
func (c *Client) ReadAll(path string) (string, error) {
	c.t.Helper()
	a, err := c.call(request{Op: "readall", Path: []byte(path)})
	return string(a.Data), err
}

// Write writes s at the descriptor's position; a short write is not an error,
// see WriteN.
func (c *Client) Write(fd int, s string) error {
	c.t.Helper()
	_, err := c.WriteN(fd, s)
	return err
}

// WriteN is Write that returns how much was written.
func (c *Client) WriteN(fd int, s string) (int, error) {
	c.t.Helper()
	a, err := c.call(request{Op: "write", FD: fd, Data: []byte(s)})
	return a.N, err
}

// Pwrite writes s at an offset and returns how much was written.
func (c *Client) Pwrite(fd int, s string, off int64) (int, error) {
	c.t.Helper()
	a, err := c.call(request{Op: "pwrite", FD: fd, Data: []byte(s), Off: off})
	return a.N, err
}

func (c *Client) Ftruncate(fd int, size int64) error {
	c.t.Helper()
	return c.err(request{Op: "ftruncate", FD: fd, Off: size})
}

func (c *Client) Truncate(path string, size int64) error {
	c.t.Helper()
	return c.err(request{Op: "truncate", Path: []byte(path), Off: size})
}

func (c *Client) Fsync(fd int) error {
	c.t.Helper()
	return c.err(request{Op: "fsync", FD: fd})
}

func (c *Client) Unlink(path string) error {
	c.t.Helper()
	return c.err(request{Op: "unlink", Path: []byte(path)})
}

// Access calls access(2) with unix.R_OK, W_OK and so on.
func (c *Client) Access(path string, mode int) error {
	c.t.Helper()
	return c.err(request{Op: "access", Path: []byte(path), Flags: mode})
}

func (c *Client) Chmod(path string, mode uint32) error {
	c.t.Helper()
	return c.err(request{Op: "chmod", Path: []byte(path), Mode: mode})
}

func (c *Client) Chown(path string, uid, gid int) error {
	c.t.Helper()
	return c.err(request{Op: "chown", Path: []byte(path), FD: uid, N: gid})
}

// Stat calls lstat(2).
func (c *Client) Stat(path string) (Stat, error) {
	c.t.Helper()
	return c.stat(request{Op: "stat", Path: []byte(path)})
}

func (c *Client) Fstat(fd int) (Stat, error) {
	c.t.Helper()
	return c.stat(request{Op: "fstat", FD: fd})
}

func (c *Client) stat(r request) (Stat, error) {
	c.t.Helper()
	a, err := c.call(r)
	if err != nil || a.Stat == nil {
		return Stat{}, err
	}
	return *a.Stat, nil
}

// Readdir returns the names in a directory, sorted.
func (c *Client) Readdir(path string) []string {
	c.t.Helper()
	names, err := c.TryReaddir(path)
	if err != nil {
		c.t.Fatalf("client %d: readdir %s: %v", c.Pid(), path, err)
	}
	return names
}

// TryReaddir is Readdir for a directory that may not be readable.
func (c *Client) TryReaddir(path string) ([]string, error) {
	c.t.Helper()
	a, err := c.call(request{Op: "readdir", Path: []byte(path)})
	names := make([]string, 0, len(a.Names))
	for _, n := range a.Names {
		names = append(names, string(n))
	}
	slices.Sort(names)
	return names, err
}

// Getdents makes one call of getdents(2) and returns the names, sorted.
func (c *Client) Getdents(fd int) ([]string, error) {
	c.t.Helper()
	a, err := c.call(request{Op: "getdents", FD: fd})
	var names []string
	for _, n := range a.Names {
		names = append(names, string(n))
	}
	slices.Sort(names)
	return names, err
}

// Statfs returns how many holds there are, as statfs(2) tells.
func (c *Client) Statfs(path string) (holds int, err error) {
	c.t.Helper()
	a, err := c.call(request{Op: "statfs", Path: []byte(path)})
	return a.N, err
}

// Poll returns which of events are ready, by poll(2), at once.
func (c *Client) Poll(fd, events int) (ready int, err error) {
	c.t.Helper()
	a, err := c.call(request{Op: "poll", FD: fd, Flags: events})
	return a.N, err
}

// StartPoll calls poll(2), which returns when one of events is ready, or after
// some milliseconds; see [Pending.Number].
func (c *Client) StartPoll(fd, events, ms int) *Pending {
	return c.start(request{Op: "poll", FD: fd, Flags: events, N: ms})
}

// StartEpoll is StartPoll by epoll_wait(2).
func (c *Client) StartEpoll(fd, events, ms int) *Pending {
	return c.start(request{Op: "epoll", FD: fd, Flags: events, N: ms})
}

// StartOSAwait waits as a Go program does until what TryOSOpen opened is ready
// for reading.
func (c *Client) StartOSAwait(fd int) *Pending {
	return c.start(request{Op: "osawait", FD: fd})
}

// MmapShared maps the first page with MAP_SHARED, and unmaps it if that works.
func (c *Client) MmapShared(fd int) error {
	c.t.Helper()
	return c.err(request{Op: "mmap_shared", FD: fd})
}

func (c *Client) err(r request) error {
	c.t.Helper()
	_, err := c.call(r)
	return err
}
