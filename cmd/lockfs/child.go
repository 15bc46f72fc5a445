package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// worker is a worker process as the keeper sees it.
type worker struct {
	process *os.Process
	control *os.File
	started time.Time
	// mirror is the line for the mirror's files, nil if there is none.
	mirror *mirrorLine
	// messages and, when the process is gone as a whole, how it ended.
	messages chan string
	ended    chan *os.ProcessState
	serving  bool
	// settled: it has answered all that it took over.
	settled bool
	// late fires when it has been given long enough to serve.
	late <-chan time.Time
	// hung: it did nothing any more, and was killed.
	hung bool
	// asked is when it was asked for a sign of life, zero if it has answered.
	asked time.Time
}

func newWorker(process *os.Process, control *os.File) *worker {
	w := &worker{
		process: process, control: control, started: time.Now(),
		messages: make(chan string, 8), ended: make(chan *os.ProcessState, 1),
		late: time.After(patience),
	}
	go w.listen()
	go w.wait()
	return w
}

// startWorker starts a worker from a program, with descriptors from
// workerDevice on; -1 is none.
func startWorker(program string, args []string, fds ...int) (*worker, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "control"), pair[1]
	defer unix.Close(theirs)
	fds = append([]int{theirs}, fds...)
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		files[i] = borrow(fd)
	}
	cmd := exec.Command(program, args...)
	cmd.Args[0] = "lockfs-worker"
	cmd.Env = workerEnvironment()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = files
	// Signals to the terminal's group are the keeper's to handle.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	closeAll(files)
	if err != nil {
		_ = ours.Close()
		return nil, err
	}
	return newWorker(cmd.Process, ours), nil
}

// borrow makes a file of a descriptor that stays open when the file goes.
func borrow(fd int) *os.File {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(copied), "borrowed")
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

// listen passes on what the worker says.
func (w *worker) listen() {
	defer close(w.messages)
	buf := make([]byte, 256)
	for {
		n, err := w.control.Read(buf)
		if err != nil || n == 0 {
			return
		}
		w.messages <- string(buf[:n])
	}
}

// wait waits until the whole process is gone: while one thread of it lives, it
// could still read a request that its successor would wait for.
func (w *worker) wait() {
	how, err := w.process.Wait()
	if err != nil {
		how = nil
	}
	w.ended <- how
}

// say sends the worker a message. One that does not read is told nothing.
func (w *worker) say(message string) {
	_ = unix.Sendmsg(int(w.control.Fd()), []byte(message), nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// kill ends it. That is how workers end.
func (w *worker) kill() { _ = w.process.Kill() }

// killed reports whether a process was ended by SIGKILL: by somebody else, that
// is.
func killed(how *os.ProcessState) bool {
	if how == nil {
		return false
	}
	status, ok := how.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == unix.SIGKILL
}

// exitCodeOf returns a process's exit code, -1 if it has none.
func exitCodeOf(how *os.ProcessState) int {
	if how == nil {
		return -1
	}
	return how.ExitCode()
}
