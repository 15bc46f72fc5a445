package mirror

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace/internal/eintr"
)

// A foreigner is another process, which knows nothing of mirrors: the test
// binary itself, run with an environment variable set. It opens the file that it
// is told to and makes lock calls on it, one for each line that it reads.

const foreignerFile = "MIRROR_TEST_FOREIGNER"

func TestMain(m *testing.M) {
	if path := os.Getenv(foreignerFile); path != "" {
		beForeign(path)
		return
	}
	if dir := os.Getenv(workerDir); dir != "" {
		beWorker(dir)
		return
	}
	os.Exit(m.Run())
}

// beForeign answers lines "posix|ofd set|wait|get read|write|unlock START LEN" with
// "ok", an error, or what F_GETLK found.
func beForeign(path string) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o644)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ok")
	commands := map[string]int{
		"posix set": unix.F_SETLK, "posix wait": unix.F_SETLKW, "posix get": unix.F_GETLK,
		"ofd set": unix.F_OFD_SETLK, "ofd wait": unix.F_OFD_SETLKW, "ofd get": unix.F_OFD_GETLK,
	}
	types := map[string]int16{"read": unix.F_RDLCK, "write": unix.F_WRLCK, "unlock": unix.F_UNLCK}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var owner, what, typ string
		var lk unix.Flock_t
		if _, err := fmt.Sscan(in.Text(), &owner, &what, &typ, &lk.Start, &lk.Len); err != nil {
			fmt.Println(err)
			continue
		}
		lk.Type = types[typ]
		err := eintr.Retry(func() error { return unix.FcntlFlock(uintptr(fd), commands[owner+" "+what], &lk) })
		switch {
		case err != nil:
			fmt.Println(unix.ErrnoName(err.(unix.Errno)))
		case what == "get":
			fmt.Println(lk.Type, lk.Start, lk.Len, lk.Pid)
		default:
			fmt.Println("ok")
		}
	}
}

type foreigner struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// foreigner starts one for a name's file.
func (w *world) foreigner(name string) *foreigner {
	w.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	f := &foreigner{t: w.t, cmd: exec.Command(exe)}
	f.cmd.Env = append(os.Environ(), foreignerFile+"="+w.path(name))
	f.cmd.Stderr = os.Stderr
	if f.in, err = f.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	f.out = bufio.NewReader(out)
	if err := f.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(f.kill)
	f.answers("ok")
	return f
}

// say has it make a call, which it answers when the call is done.
func (f *foreigner) say(line string) {
	f.t.Helper()
	if _, err := fmt.Fprintln(f.in, line); err != nil {
		f.t.Fatal(err)
	}
}

func (f *foreigner) answer() string {
	f.t.Helper()
	line, err := f.out.ReadString('\n')
	if err != nil {
		f.t.Fatalf("the foreigner does not answer: %v", err)
	}
	return strings.TrimSpace(line)
}

func (f *foreigner) answers(want string) {
	f.t.Helper()
	if got := f.answer(); got != want {
		f.t.Fatalf("the foreigner answers %q, want %q", got, want)
	}
}

// does has it make a call that must be answered so.
func (f *foreigner) does(line, want string) {
	f.t.Helper()
	f.say(line)
	f.answers(want)
}

// kill ends it; all its locks are given back when it returns.
func (f *foreigner) kill() {
	if f.cmd.ProcessState == nil {
		f.cmd.Process.Kill()
		f.cmd.Wait()
	}
}

// said returns a channel that has something in it when f has answered.
func (f *foreigner) said() <-chan struct{} {
	c := make(chan struct{}, 1)
	go func() {
		if _, err := f.out.Peek(1); err == nil {
			c <- struct{}{}
		}
	}()
	return c
}
