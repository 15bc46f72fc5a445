package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
)

// The files of the mirror, between the keeper's code and real processes, which
// are this program under other names: workers that take locks and are killed, a
// foreigner who wants them, and a keeper that is replaced by execve(2).

// envLocks names the directory of the files that test processes lock.
const envLocks = "LOCKFS_TEST_LOCKS"

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "lockfs-worker":
		os.Exit(workAtLocks(os.Getenv(envLocks)))
	case "foreigner":
		os.Exit(waitForLock(os.Args[1]))
	case "keeper":
		os.Exit(keepLocks())
	}
	os.Exit(m.Run())
}

// workAtLocks is a worker. It checks what it inherits, takes one lock more, and
// says so; then it opens, keeps, locks and drops other files until it is killed.
// What it says: "locked N", "serving", and what is wrong.
func workAtLocks(dir string) int {
	control := os.NewFile(workerControl, "control")
	say := func(format string, args ...any) { fmt.Fprintf(control, format, args...) }
	if err := unix.Fstat(workerBacking, new(unix.Stat_t)); err != nil {
		say("no backing directory: %v", err)
		return exitInternal
	}
	files, err := inheritMirrorFiles(workerMirror, silent)
	if err != nil {
		say("%v", err)
		return exitInternal
	}
	last, next := uint64(0), 0
	for _, f := range files.Inherited() {
		last = max(last, f.ID)
		name, churn := strings.CutPrefix(string(f.Label), "churn ")
		if churn {
			files.Drop(f.ID)
			unix.Close(f.FD)
			continue
		}
		// Somebody has it, and that is this open file.
		if err := tryLock(filepath.Join(dir, name)); !errors.Is(err, unix.EAGAIN) {
			say("lock %s, inherited, can be taken: %v", name, err)
		}
		if err := unix.FcntlFlock(uintptr(f.FD), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
			say("lock %s, inherited, is another's: %v", name, err)
		}
		n, err := strconv.Atoi(name)
		if err != nil {
			say("a file that nobody kept: %q", f.Label)
		}
		next = max(next, n+1)
	}
	take := func(name, label string) error {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		last++
		if err := files.Keep(last, []byte(label), fd); err != nil {
			return err
		}
		return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	if err := take(strconv.Itoa(next), strconv.Itoa(next)); err != nil {
		say("take %d: %v", next, err)
	}
	say("locked %d", next)
	say("%s", messageServing)
	for i := 0; ; i++ {
		name := fmt.Sprintf("churn%d", i%50)
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			say("%v", err)
			return exitInternal
		}
		last++
		if err := files.Keep(last, []byte("churn "+name), fd); err != nil {
			say("keep: %v", err)
		}
		unix.Close(fd)
		files.Drop(last)
		if i%100 == 0 {
			time.Sleep(time.Millisecond) // others use this machine
		}
	}
}

// tryLock takes the lock of a file as somebody else, for a moment.
func tryLock(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

// waitForLock is a foreigner, who waits for a lock and says that he has it.
func waitForLock(path string) int {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		fmt.Println("waiting")
		err = unix.FcntlFlock(uintptr(fd), unix.F_SETLKW, &unix.Flock_t{Type: unix.F_WRLCK})
	}
	fmt.Println("got it", err)
	return exitOK
}

// startTestProcess starts this program under a name, which ends with the test.
func startTestProcess(t testing.TB, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(ownProgram, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewReader(out)
}

// startForeigner has somebody wait for the lock of a file, and returns what
// tells when he has it.
func startForeigner(t testing.TB, path string) <-chan string {
	t.Helper()
	_, out := startTestProcess(t, "foreigner", path)
	if line, err := out.ReadString('\n'); line != "waiting\n" {
		t.Fatalf("the foreigner said %q, %v", line, err)
	}
	has := make(chan string, 1)
	go func() {
		line, _ := out.ReadString('\n')
		has <- line
	}()
	return has
}

// testKeeper returns a keeper of no mount, whose workers work at locks.
func testKeeper(dir string) (*keeper, error) {
	backing, err := openBacking(dir, "")
	if err != nil {
		return nil, err
	}
	device, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	memory, err := unix.MemfdCreate("lockfs-state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	k := keeperOf(silentMount(device, dir))
	k.mount.Under, k.memory, k.backing, k.mirror = backing, memory, backing, newMirrorStore(silent)
	return k, nil
}

func silentMount(device_ int, dir string) *device.MountPoint { return device.Adopt(device_, dir, 0) }

func keeperOf(mount *device.MountPoint) *keeper {
	return &keeper{
		log: silent, flush: func() {}, mount: mount, program: ownProgram, ready: true,
		hangups: make(chan os.Signal, 1), stops: make(chan os.Signal, 1),
	}
}
