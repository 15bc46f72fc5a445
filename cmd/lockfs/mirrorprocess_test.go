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
// says that it serves; then it opens, keeps and drops other files until it is
// killed. It says what is wrong, too. What is in a file that is locked says so.
func workAtLocks(dir string) int {
	control := os.NewFile(workerControl, "control")
	say := func(format string, args ...any) { fmt.Fprintf(control, format, args...) }
	go func() {
		_, _ = io.Copy(io.Discard, control)
		os.Exit(exitInternal) // the keeper is gone
	}()
	if err := unix.Fstat(workerBacking, new(unix.Stat_t)); err != nil {
		say("no backing directory: %v", err)
	}
	files, err := inheritMirrorFiles(workerMirror, silent)
	if err != nil {
		say("%v", err)
		return exitInternal
	}
	last, next := uint64(0), 0
	for _, f := range files.Inherited() {
		last = max(last, f.ID)
		if string(f.Label) == "churn" {
			files.Drop(f.ID)
			unix.Close(f.FD)
			continue
		}
		n, err := strconv.Atoi(string(f.Label))
		if err != nil {
			say("a file that nobody kept: %q", f.Label)
		}
		next = max(next, n+1)
		if wasLocked(lockPath(dir, n)) {
			// Somebody has it, and that is this open file.
			if err := tryLock(lockPath(dir, n)); !errors.Is(err, unix.EAGAIN) {
				say("lock %d, inherited, can be taken: %v", n, err)
			}
		}
		if err := lockFile(f.FD); err != nil {
			say("lock %d, inherited, is another's: %v", n, err)
		}
		if _, err := unix.Pwrite(f.FD, []byte("locked"), 0); err != nil {
			say("lock %d: %v", n, err)
		}
	}
	for i := 0; ; i++ {
		path, label := filepath.Join(dir, fmt.Sprint("churn", i%50)), "churn"
		if i == 0 {
			path, label = lockPath(dir, next), strconv.Itoa(next)
		}
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err != nil {
			say("%v", err)
			return exitInternal
		}
		last++
		if err := files.Keep(last, []byte(label), fd); err != nil {
			say("keep: %v", err)
		}
		if i == 0 {
			if err := lockFile(fd); err != nil {
				say("lock %d: %v", next, err)
			}
			if _, err := unix.Write(fd, []byte("locked")); err != nil {
				say("lock %d: %v", next, err)
			}
			say("%s", messageServing)
			continue
		}
		unix.Close(fd)
		files.Drop(last)
		if i%100 == 0 {
			time.Sleep(time.Millisecond) // others use this machine
		}
	}
}

func lockPath(dir string, n int) string { return filepath.Join(dir, fmt.Sprint("lock", n)) }

// wasLocked reports whether a worker has had the lock of a file, which is not to
// be free again.
func wasLocked(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Size() > 0
}

func lockFile(fd int) error {
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
}

// tryLock takes the lock of a file as somebody else, for a moment.
func tryLock(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return lockFile(fd)
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
		_, err = cmd.StdinPipe() // ends with this process
	}
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
	fuse, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	memory, err := unix.MemfdCreate("lockfs-state", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &keeper{
		log: silent, flush: func() {}, program: ownProgram, ready: true,
		mount:   &device.MountPoint{FD: fuse, Dir: dir, Under: backing},
		hangups: make(chan os.Signal, 1), stops: make(chan os.Signal, 1),
		memory: memory, backing: backing, mirror: newMirrorStore(silent),
	}, nil
}

// awaitServing waits until a keeper's worker serves, and returns what is wrong.
func awaitServing(k *keeper) error {
	limit := time.After(20 * time.Second)
	for {
		select {
		case m, ok := <-k.worker.messages:
			if m != messageServing {
				return fmt.Errorf("the worker said %q (%v)", m, ok)
			}
			k.worker.serving = true
			return nil
		case <-limit:
			return errors.New("the worker does not serve")
		}
	}
}

// killWorker ends a keeper's worker and returns what is wrong: what it said, or
// that a lock is free while no worker is there.
func killWorker(k *keeper, dir string) error {
	k.worker.kill()
	how := <-k.worker.ended
	k.worker.ended <- how
	for m := range k.worker.messages {
		if m != messageServing {
			return fmt.Errorf("the worker said %q", m)
		}
		k.worker.serving = true
	}
	for n := 0; wasLocked(lockPath(dir, n)); n++ {
		if err := tryLock(lockPath(dir, n)); !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("lock %d is free: %v", n, err)
		}
	}
	return nil
}

// nextWorker starts the worker after one that was killed.
func nextWorker(k *keeper) error {
	err := k.next(<-k.worker.ended)
	k.restarts = 0 // it was us, and there is no hurry
	return err
}

// "the fcntl lock is never free in between (a foreign process blocked in
// F_SETLKW on the backing file must not get it)"
func TestLocksAreNeverFreeWhileWorkersDie(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(envLocks, dir)
	k, err := testKeeper(dir)
	if err == nil {
		err = k.start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { k.worker.kill(); <-k.worker.ended; k.worker.mirror.finish() }()
	if err := awaitServing(k); err != nil {
		t.Fatal(err)
	}
	foreigner := startForeigner(t, lockPath(dir, 0))
	const kills = 200
	served := 0
	for i := range kills {
		if rand.N(2) == 0 {
			if !k.worker.serving {
				if err := awaitServing(k); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(rand.N(5 * time.Millisecond))
		} else {
			time.Sleep(rand.N(40 * time.Millisecond))
		}
		if err := killWorker(k, dir); err != nil {
			t.Fatalf("kill %d: %v", i, err)
		}
		if k.worker.serving {
			served++
		}
		if err := nextWorker(k); err != nil {
			t.Fatal(err)
		}
		select {
		case said := <-foreigner:
			t.Fatalf("after %d kills the foreigner said %q", i+1, said)
		default:
		}
	}
	locks := 0
	for wasLocked(lockPath(dir, locks)) {
		locks++
	}
	t.Logf("%d workers killed, %d of them served; %d locks", kills, served, locks)
	if served < kills/4 || served == kills {
		t.Errorf("%d of %d workers served: the others died too early, or too late", served, kills)
	}
	if locks < served {
		t.Errorf("%d workers served, and took %d locks", served, locks)
	}
	// When nobody wants it any more, it is free.
	if err := awaitServing(k); err != nil {
		t.Fatal(err)
	}
	if err := killWorker(k, dir); err != nil {
		t.Fatal(err)
	}
	k.worker.mirror.finish()
	for _, id := range k.mirror.numbers() {
		k.mirror.drop(id)
	}
	select {
	case said := <-foreigner:
		if said != "got it <nil>\n" {
			t.Errorf("the foreigner said %q", said)
		}
	case <-time.After(10 * time.Second):
		t.Error("the lock does not end")
	}
}

// keepLocks is a keeper in a process of its own, which is replaced by execve(2)
// as often as its arguments say: the directory, and how often. Between that its
// worker dies, or does not.
func keepLocks() int {
	dir, times := os.Args[1], os.Args[2]
	fail := func(err error) int {
		fmt.Println("failed:", err)
		return exitInternal
	}
	in, err := inherit()
	if err != nil {
		return fail(err)
	}
	var k *keeper
	if in == nil {
		if k, err = testKeeper(dir); err == nil {
			err = k.start()
		}
		if err == nil {
			err = awaitServing(k)
		}
	} else {
		k = &keeper{
			log: silent, flush: func() {}, program: ownProgram,
			hangups: make(chan os.Signal, 1), stops: make(chan os.Signal, 1),
		}
		adopt(config{}, in, k)
		if k.backing.Name() != dir {
			err = fmt.Errorf("the backing directory is %q now", k.backing.Name())
		}
	}
	if err != nil {
		return fail(err)
	}
	generation, _ := strconv.Atoi(os.Getenv("GENERATION"))
	if generation%2 == 1 {
		// One that cannot be executed is no reason to lose anything.
		k.program = "/dev/null"
		if err := k.become(); err == nil {
			return fail(errors.New("the keeper became nobody"))
		}
		k.program = ownProgram
		if err := undone(k); err != nil {
			return fail(err)
		}
		if err := killWorker(k, dir); err != nil {
			return fail(err)
		}
		if err = nextWorker(k); err == nil {
			err = awaitServing(k)
		}
		if err != nil {
			return fail(err)
		}
	}
	if strconv.Itoa(generation) == times {
		err := killWorker(k, dir)
		k.worker.mirror.finish()
		locks := 0
		for _, f := range k.mirror.files {
			if string(f.Label) != "churn" {
				locks++
			}
		}
		fmt.Println("locks:", locks, err)
		_, _ = io.ReadAll(os.Stdin) // until the test is done
		return exitOK
	}
	time.Sleep(rand.N(10 * time.Millisecond))
	_ = os.Setenv("GENERATION", strconv.Itoa(generation+1))
	return fail(k.become())
}

// undone returns what is wrong after an execve that failed: children would get
// a file, or the worker is not listened to.
func undone(k *keeper) error {
	var last uint64
	for _, id := range k.mirror.numbers() {
		last = max(last, id)
	}
	k.mirror.mu.Lock()
	for _, f := range k.mirror.files {
		if flags, err := unix.FcntlInt(uintptr(f.FD), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			k.mirror.mu.Unlock()
			return fmt.Errorf("file %d has the flags %#x, %v", f.ID, flags, err)
		}
	}
	k.mirror.mu.Unlock()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Microsecond) {
		if ids := k.mirror.numbers(); ids[len(ids)-1] > last {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("nothing comes from the worker any more")
		}
	}
}

// The keeper is replaced while its worker goes on keeping and dropping: the
// locks are never free, and all of them go along.
func TestLocksAreNeverFreeWhileKeepersAreReplaced(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(envLocks, dir)
	const generations = 41
	cmd, out := startTestProcess(t, "keeper", dir, strconv.Itoa(generations))
	eventually(t, func() bool { return wasLocked(lockPath(dir, 0)) }, func() string { return "no lock is taken" })
	foreigner := startForeigner(t, lockPath(dir, 0))
	line, err := out.ReadString('\n')
	// The first worker's, and one for each that was killed.
	if want := fmt.Sprintf("locks: %d <nil>\n", 1+(generations+1)/2); line != want {
		t.Fatalf("the keeper said %q (%v), want %q", line, err, want)
	}
	select {
	case said := <-foreigner:
		t.Fatalf("the foreigner said %q", said)
	default:
	}
	for n := range (generations + 1) / 2 {
		if err := tryLock(lockPath(dir, n)); !errors.Is(err, unix.EAGAIN) {
			t.Errorf("lock %d is free: %v", n, err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if said := <-foreigner; said != "got it <nil>\n" {
		t.Errorf("the foreigner said %q", said)
	}
}
