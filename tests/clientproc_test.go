package tests

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// This file is the client process's side. Each request runs on a goroutine of
// its own, and so on a thread of its own while it waits in the kernel.

// The main function runs on the process's first thread, and on no other.
func init() {
	if os.Getenv(clientEnv) != "" {
		runtime.LockOSThread()
	}
}

// clientMain is the main function of client processes: without arguments they
// serve requests; "take PATH" is a program like those that [process] starts,
// written in Go, "owners" what uses the packages of named owners; "hanging" is a
// filesystem, see hanging_test.go.
func clientMain(args []string) int {
	if len(args) == 3 && args[0] == "hanging" {
		return serveHanging(args[1], args[2])
	}
	if len(args) == 2 && args[0] == "take" {
		return takeAndHold(args[1])
	}
	if len(args) > 1 && args[0] == "owners" {
		return ownersMain(args[1:])
	}
	serveClient(os.Stdin, os.Stdout)
	return 0
}

func takeAndHold(path string) int {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if errors.Is(err, os.ErrExist) {
		return 1
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	if err := f.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

func serveClient(in io.Reader, out io.Writer) {
	var mu sync.Mutex
	answers := json.NewEncoder(out)
	serve := func(r *request) {
		a := answer{ID: r.ID}
		if err := serveRequest(r, &a); err != nil {
			a.Errno = int(errnoOf(err))
		}
		mu.Lock()
		defer mu.Unlock()
		answers.Encode(&a)
	}
	if a := becomeAgain(); a != nil {
		answers.Encode(a)
	}
	first := make(chan *request)
	go func() {
		requests := json.NewDecoder(bufio.NewReader(in))
		for {
			var r request
			if requests.Decode(&r) != nil {
				os.Exit(0) // the test is over
			}
			if r.OnMain {
				first <- &r
			} else {
				go serve(&r)
			}
		}
	}()
	for r := range first {
		serve(r)
	}
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = unix.EPROTO // no system call fails so here
	}
	return errno
}

func serveRequest(r *request, a *answer) (err error) {
	path := string(r.Path)
	switch r.Op {
	case "open":
		for again := true; again; again = err == unix.EINTR { // the runtime's own signals
			a.N, err = unix.Open(path, r.Flags|unix.O_CLOEXEC, r.Mode)
		}
	case "osopen":
		a.N, err = osOpen(path, r.Flags, os.FileMode(r.Mode))
	case "close":
		err = unix.Close(r.FD)
	case "osclose":
		err = osClose(r.FD)
	case "dup":
		a.N, err = unix.FcntlInt(uintptr(r.FD), unix.F_DUPFD_CLOEXEC, 0)
	case "flock":
		err = unix.Flock(r.FD, r.Flags)
	case "fcntl":
		err = unix.FcntlFlock(uintptr(r.FD), r.Flags, r.Lk)
		a.Lk = r.Lk
	case "read", "pread":
		a.Data, err = read(r)
	case "write", "pwrite":
		a.N, err = write(r)
	case "readall":
		a.Data, err = readAll(path)
	case "ftruncate":
		err = unix.Ftruncate(r.FD, r.Off)
	case "truncate":
		err = unix.Truncate(path, r.Off)
	case "fsync":
		err = unix.Fsync(r.FD)
	case "readlink":
		text := make([]byte, unix.PathMax)
		a.N, err = unix.Readlink(path, text)
		a.Data = text[:max(a.N, 0)]
	case "unlink":
		err = unix.Unlink(path)
	case "access":
		err = unix.Access(path, uint32(r.Flags))
	case "chmod":
		err = unix.Chmod(path, r.Mode)
	case "chown":
		err = unix.Chown(path, r.FD, r.N)
	case "stat", "fstat":
		var st unix.Stat_t
		if r.Op == "stat" {
			err = unix.Lstat(path, &st)
		} else {
			err = unix.Fstat(r.FD, &st)
		}
		a.Stat = statOf(&st)
	case "readdir":
		a.Names, err = readdir(path)
	case "getdents":
		buf := make([]byte, 64<<10)
		var n int
		if n, err = unix.Getdents(r.FD, buf); n > 0 {
			_, _, found := unix.ParseDirent(buf[:n], -1, nil)
			for _, name := range found {
				a.Names = append(a.Names, []byte(name))
			}
		}
	case "statfs":
		var st unix.Statfs_t
		err = unix.Statfs(path, &st)
		a.N = int(st.Files)
	case "poll":
		fds := []unix.PollFd{{Fd: int32(r.FD), Events: int16(r.Flags)}}
		for again := true; again; again = err == unix.EINTR { // the runtime's own signals
			_, err = unix.Poll(fds, r.N)
		}
		a.N = int(fds[0].Revents)
	case "epoll":
		a.N, err = epoll(r.FD, uint32(r.Flags), r.N)
	case "osawait":
		err = osAwait(r.FD)
	case "mmap_shared":
		var mem []byte
		if mem, err = unix.Mmap(r.FD, 0, 4096, unix.PROT_READ, unix.MAP_SHARED); err == nil {
			unix.Munmap(mem)
		}
	case "package":
		err = servePackage(r, a)
	default:
		err = serveNameRequest(r)
	}
	return err
}

// osOpened keeps the files opened as a Go program opens them: with the
// runtime's poller, and closed by the garbage collector if nobody has them.
var osOpened sync.Map // int -> *os.File

func osOpen(path string, flags int, mode os.FileMode) (int, error) {
	f, err := os.OpenFile(path, flags, mode)
	if err != nil {
		return -1, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	err = raw.Control(func(n uintptr) { fd = int(n) })
	osOpened.Store(fd, f)
	return fd, err
}

// osAwait waits as a Go program does until a file that was opened so is ready for
// reading: in the runtime's poller, which is edge-triggered.
func osAwait(fd int) error {
	f, ok := osOpened.Load(fd)
	if !ok {
		return unix.EBADF
	}
	raw, err := f.(*os.File).SyscallConn()
	if err != nil {
		return err
	}
	var pollErr error
	err = raw.Read(func(n uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(n), Events: unix.POLLIN}}
		var ready int
		ready, pollErr = unix.Poll(fds, 0)
		return ready > 0 || pollErr != nil
	})
	return errors.Join(err, pollErr)
}

// epoll returns which of events epoll(7) reports of a file within some
// milliseconds.
func epoll(fd int, events uint32, ms int) (int, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return 0, err
	}
	defer unix.Close(ep)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events}); err != nil {
		return 0, err
	}
	got := make([]unix.EpollEvent, 1)
	for {
		_, err = unix.EpollWait(ep, got, ms)
		if err != unix.EINTR { // the runtime's own signals
			return int(got[0].Events), err
		}
	}
}

func osClose(fd int) error {
	f, ok := osOpened.LoadAndDelete(fd)
	if !ok {
		return unix.EBADF
	}
	return f.(*os.File).Close()
}

func read(r *request) ([]byte, error) {
	buf := make([]byte, r.N)
	var n int
	var err error
	if r.Op == "pread" {
		n, err = unix.Pread(r.FD, buf, r.Off)
	} else {
		n, err = unix.Read(r.FD, buf)
	}
	return buf[:max(n, 0)], err
}

func write(r *request) (int, error) {
	if r.Op == "pwrite" {
		return unix.Pwrite(r.FD, r.Data, r.Off)
	}
	return unix.Write(r.FD, r.Data)
}

func readAll(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var text []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, buf)
		if n <= 0 {
			return text, err
		}
		text = append(text, buf[:n]...)
	}
}

// readdir returns the names in a directory without looking at any of them.
func readdir(path string) ([][]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names := [][]byte{}
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if n <= 0 {
			return names, err
		}
		_, _, found := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range found {
			names = append(names, []byte(name))
		}
	}
}
