package mirror

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// A process that has a mirror is killed at any moment, and the next one takes over
// what the keeper has, which is the test. The worker's descriptors: 3 is the socket to
// the keeper, from 4 on come the files, of which the environment has ids and labels.

const workerDir, workerFiles = "MIRROR_TEST_WORKER", "MIRROR_TEST_FILES"

// socketKeeper sends to the keeper the id, and with an open file its label.
type socketKeeper struct{}

func (socketKeeper) Keep(id uint64, label []byte, fd int) error {
	msg := binary.LittleEndian.AppendUint64(nil, id)
	return unix.Sendmsg(3, append(msg, label...), unix.UnixRights(fd), nil, 0)
}

func (socketKeeper) Drop(id uint64) {
	if err := unix.Sendmsg(3, binary.LittleEndian.AppendUint64(nil, id), nil, nil, 0); err != nil {
		panic(err)
	}
}

// beWorker holds the name "held", tells on its output that it does, and takes and
// gives back and waits for others until it is killed.
func beWorker(dir string) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	w := &world{dir: dir, holds: make(map[lockspace.Key][]*lockspace.Hold)}
	w.m = New(Config{
		Backing:    NewBacking(fd),
		Keeper:     socketKeeper{},
		Do:         w.do,
		Reconsider: w.reconsider,
		Path:       func(k lockspace.Key) (string, error) { return k.Name, nil },
		Lost:       func(k lockspace.Key, why error) { panic(fmt.Sprint(k.Name, " is lost: ", why)) },
	})
	held := whole("held", exclusive)
	if files := os.Getenv(workerFiles); files != "" {
		w.do(func() {
			for i, f := range strings.Fields(files) {
				var id uint64
				var name string
				fmt.Sscanf(f, "%d:%s", &id, &name)
				if err := w.m.Inherit(id, label(key(name)), 4+i); err != nil {
					panic(err)
				}
			}
			w.holds[held.Key] = []*lockspace.Hold{{Request: held}}
			w.settle(held.Key)
		})
	} else if _, err := w.try(held); err != nil {
		panic(err)
	}
	fmt.Println("ready")
	foreign := whole("foreign", exclusive)
	for {
		h, err := w.try(whole(fmt.Sprint("name", rand.IntN(5)), lockspace.Mode(rand.IntN(2))))
		if err != nil {
			panic(err)
		}
		if rand.IntN(4) == 0 {
			w.do(func() { w.m.Await(&foreign) })
		}
		w.end(h)
	}
}

// keeperProcess is the test as a keeper.
type keeperProcess struct {
	mu    sync.Mutex
	files map[uint64]*os.File
	names map[uint64]string
}

// read takes what a worker sends, until it is dead.
func (k *keeperProcess) read(fd int) {
	defer unix.Close(fd)
	msg, rights := make([]byte, 512), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, msg, rights, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if n == 0 || err != nil {
			return
		}
		id := binary.LittleEndian.Uint64(msg)
		k.mu.Lock()
		if oobn > 0 {
			cmsgs, _ := unix.ParseSocketControlMessage(rights[:oobn])
			fds, _ := unix.ParseUnixRights(&cmsgs[0])
			key, _ := keyOf(msg[8:n])
			k.files[id], k.names[id] = os.NewFile(uintptr(fds[0]), key.Name), key.Name
		} else {
			k.files[id].Close()
			delete(k.files, id)
		}
		k.mu.Unlock()
	}
}

func TestKilledAtAnyMoment(t *testing.T) {
	const kills = 40
	w := newWorld(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	blocker := w.foreigner("foreign")
	blocker.does("posix set write 0 0", "ok")
	k := &keeperProcess{files: make(map[uint64]*os.File), names: make(map[uint64]string)}
	var foreign *foreigner
	var said <-chan struct{}
	for i := range kills {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		worker := exec.Command(exe)
		socket := os.NewFile(uintptr(pair[1]), "socket")
		worker.ExtraFiles = []*os.File{socket}
		var ids []string
		for id, f := range k.files {
			worker.ExtraFiles = append(worker.ExtraFiles, f)
			ids = append(ids, fmt.Sprintf("%d:%s", id, k.names[id]))
		}
		worker.Env = append(os.Environ(), workerDir+"="+w.dir, workerFiles+"="+strings.Join(ids, " "))
		worker.Stderr = os.Stderr
		out, err := worker.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := worker.Start(); err != nil {
			t.Fatal(err)
		}
		socket.Close()
		done := make(chan struct{})
		go func() { defer close(done); k.read(pair[0]) }()
		if i == 0 || rand.IntN(4) > 0 {
			var ready string
			if fmt.Fscan(out, &ready); ready != "ready" {
				t.Fatalf("worker %d says %q", i, ready)
			}
		}
		if i == 0 {
			foreign = w.foreigner("held")
			foreign.say("posix wait write 0 0")
			said = foreign.said()
		}
		time.Sleep(rand.N(10 * time.Millisecond))
		worker.Process.Kill()
		worker.Wait()
		<-done
		w.mustSee("held", 0, "exclusive")
		select {
		case <-said:
			t.Fatalf("after kill %d the foreigner got in", i)
		default:
		}
	}
	if len(k.files) > 7 {
		t.Errorf("the keeper has %d files of 7 names", len(k.files))
	}
	// One more, in this process: with it, nothing but what is held is locked.
	w.do(func() {
		for id, f := range k.files {
			fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			w.keeper.Keep(id, nil, fd)
			f.Close()
			if err := w.m.Inherit(id, label(key(k.names[id])), fd); err != nil {
				t.Error(err)
			}
		}
		w.holds[key("held")] = []*lockspace.Hold{{Request: whole("held", exclusive)}}
		w.settle(key("held"))
	})
	w.mustSee("held", 0, "exclusive")
	for i := range 5 {
		w.mustSee(fmt.Sprint("name", i), 0, "free")
	}
	blocker.kill()
	w.mustSee("foreign", 0, "free")
	w.end(w.holds[key("held")][0])
	<-said
	foreign.answers("ok")
}
