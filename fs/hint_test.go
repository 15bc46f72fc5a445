package fs_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs"
)

// 1.5: "An O_EXCL hold in a hold=handle lockspace that is closed and whose name
// is then unlinked by the same process or its family is the mark of a tool that
// needs hold=name: log it and count it."

// hinted is a filesystem in a bubble, of which nobody reads the answers.
type hinted struct {
	*served
	log bytes.Buffer
	// handles is how many files were opened: the number of the last one.
	handles uint64
}

// The processes of the tests: the shell takes locks, and started rm; the
// stranger is of another family.
const (
	shell       = 100
	shellThread = 101
	rm          = 200
	stranger    = 300
)

// hintBubble runs a test with a filesystem of a policy.
func hintBubble(t *testing.T, policy string, test func(h *hinted)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := new(hinted)
		h.served = serveInBubble(t, func(o *fs.Options) {
			o.Policy, o.Log = mustPolicy(t, policy), slog.New(slog.NewTextHandler(&h.log, nil))
		})
		h.process(shell, 1, "bash")
		h.procs.set(shellThread, fs.ProcessInfo{Kin: fs.Kin{Pid: shell, Parent: 1, Started: 1}, Comm: "bash"})
		h.process(rm, shell, "rm")
		h.process(stranger, 1, "cron")
		test(h)
	})
}

func (h *hinted) process(pid, parent uint32, comm string) {
	h.procs.set(pid, fs.ProcessInfo{Kin: fs.Kin{Pid: pid, Parent: parent, Started: 1}, Comm: comm})
}

// send has a request by a thread of user 1000 carried out, on its detours too.
func (h *hinted) send(tid uint32, opcode uint32, node uint64, body ...[]byte) {
	h.caller = caller{uid: 1000, gid: 1000, pid: tid}
	h.served.send(opcode, node, body...)
	for answer := make([]byte, 4096); ; {
		if _, _, err := unix.Recvfrom(h.socket, answer, unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

func (h *hinted) lookUp(tid uint32, name string) { h.send(tid, opLookup, 1, cstring(name)) }

// take is an open with O_EXCL that succeeds, and returns its handle.
func (h *hinted) take(tid uint32, name string) uint64 {
	h.t.Helper()
	h.lookUp(tid, name)
	return h.create(tid, name, unix.O_EXCL)
}

func (h *hinted) create(tid uint32, name string, flags uint32) uint64 {
	h.t.Helper()
	before := h.counts().Files
	h.send(tid, opCreate, 1, u32(flags|unix.O_CREAT|unix.O_RDWR), u32(0o644), u32(0), u32(0), cstring(name))
	synctest.Wait() // it may have taken a detour
	if h.counts().Files != before+1 {
		h.t.Fatalf("%s was not opened", name)
	}
	h.handles++
	return h.handles
}

// release is the last close of an open file.
func (h *hinted) release(handle uint64) { h.send(0, opRelease, 0, u64(handle), zeros(16)) }

func (h *hinted) counts() (c fs.Counts) {
	h.conn.Do(func() { c = h.fs.Counts() })
	return c
}

// want checks, when all has been judged, how often was counted and told.
func (h *hinted) want(misuses uint64, told int) {
	h.t.Helper()
	time.Sleep(time.Second)
	if n := h.counts().Misuses; n != misuses {
		h.t.Errorf("%d misuses counted, want %d", n, misuses)
	}
	if log := h.logged(); strings.Count(log, "level=WARN") != told {
		h.t.Errorf("%d messages, want %d:\n%s", strings.Count(log, "level=WARN"), told, log)
	}
}

// logged returns the log, when nothing is being added.
func (h *hinted) logged() string {
	synctest.Wait()
	return h.log.String()
}

func TestHint(t *testing.T) {
	for _, c := range []struct {
		name    string
		by      func(h *hinted)
		misuses uint64
	}{
		{"removed by who took it", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "lock")
		}, 1},
		{"removed by who took it, and has ended since", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "lock")
			h.procs.kill(shell)
		}, 1},
		{"removed soon after it was taken anew", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "lock")
		}, 1},
		{"killed before it was taken anew once more", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "lock")
			h.procs.kill(shell)
		}, 0},
		{"removed by another thread", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(shellThread, "lock")
		}, 1},
		{"taken by another thread", func(h *hinted) {
			h.release(h.take(shellThread, "lock"))
			h.lookUp(shellThread, "lock")
		}, 1},
		{"removed by a child, that looks twice", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(rm, "lock")
			h.lookUp(rm, "lock")
		}, 1},
		{"removed by a grandchild, a day later", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			time.Sleep(24 * time.Hour)
			h.process(201, rm, "rm")
			h.lookUp(201, "lock")
		}, 1},
		{"each time once", func(h *hinted) {
			for range 3 {
				h.release(h.take(shell, "lock"))
				time.Sleep(time.Second)
				h.lookUp(rm, "lock")
				time.Sleep(time.Second)
				h.lookUp(rm, "lock")
				time.Sleep(time.Second)
			}
		}, 3},
		{"a tool that comes again, and whose child removes it", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			time.Sleep(2 * time.Second)
			h.process(400, 1, "bash")
			h.process(401, 400, "rm")
			h.release(h.take(400, "lock"))
			h.lookUp(401, "lock")
		}, 1},
		{"looked for by somebody else", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(stranger, "lock")
		}, 0},
		{"looked for by a process of the taker's number", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.procs.set(shell, fs.ProcessInfo{Kin: fs.Kin{Pid: shell, Parent: 1, Started: 2 * time.Hour}})
			h.lookUp(shell, "lock")
			h.lookUp(rm, "lock")
		}, 0},
		{"looked for from where no process is seen", func(h *hinted) {
			h.release(h.take(0, "lock"))
			h.lookUp(0, "lock")
			h.release(h.take(shell, "lock"))
			h.lookUp(0, "lock")
		}, 0},
		{"another name", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "other")
		}, 0},
		{"taken anew", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "lock")
			h.release(h.take(shell, "lock"))
		}, 0},
		{"taken anew by a child", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.take(rm, "lock")
		}, 0},
		{"opened anew without O_EXCL", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "lock")
			h.create(shell, "lock", 0)
		}, 0},
		{"taken anew after a while", func(h *hinted) {
			h.release(h.take(shell, "other"))
			h.release(h.take(shell, "lock"))
			h.lookUp(stranger, "other") // what is judged every now and then begins here
			time.Sleep(90 * time.Millisecond)
			h.lookUp(shell, "lock")
			time.Sleep(90 * time.Millisecond)
			h.create(shell, "lock", unix.O_EXCL)
		}, 0},
		{"made a directory", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "lock")
			h.send(shell, opMkdir, 1, u32(0o777), u32(0), cstring("lock"))
		}, 0},
		{"somebody else was quicker", func(h *hinted) {
			h.release(h.take(shell, "lock"))
			h.lookUp(shell, "lock")
			h.take(stranger, "lock")
			h.lookUp(shell, "lock")
		}, 0},
		{"looked for while it is held", func(h *hinted) {
			f := h.take(shell, "lock")
			h.lookUp(shell, "lock")
			h.release(f)
		}, 0},
		{"removed before it is closed", func(h *hinted) {
			f := h.take(shell, "lock")
			h.lookUp(rm, "lock")
			h.send(rm, opUnlink, 1, cstring("lock"))
			synctest.Wait()
			h.release(f)
			h.lookUp(rm, "lock")
		}, 0},
		{"opened and closed by another while it is held", func(h *hinted) {
			h.take(shell, "lock")
			h.release(h.create(stranger, "lock", 0))
			h.send(rm, opUnlink, 1, cstring("lock"))
			synctest.Wait()
			h.lookUp(rm, "lock")
		}, 0},
		{"not taken by O_EXCL", func(h *hinted) {
			h.lookUp(shell, "lock")
			f := h.create(shell, "lock", 0)
			h.send(shell, opSetlk, 2, u64(f), u64(7), u64(0), u64(toEnd), u32(unix.F_WRLCK), u32(shell), u32(1), u32(0))
			if h.counts().Holds != 1 {
				h.t.Fatal("flock was refused")
			}
			h.release(f)
			h.lookUp(shell, "lock")
			h.lookUp(rm, "lock")
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			hintBubble(t, "hold=handle", func(h *hinted) {
				c.by(h)
				h.want(c.misuses, min(int(c.misuses), 1))
			})
		})
	}
}

func TestNoHintWhereNamesHold(t *testing.T) {
	hintBubble(t, "hold=name", func(h *hinted) {
		h.release(h.take(shell, "lock"))
		h.lookUp(rm, "lock")
		h.send(rm, opUnlink, 1, cstring("lock"))
		synctest.Wait()
		h.lookUp(rm, "lock")
		h.lookUp(shell, "lock")
		h.want(0, 0)
	})
}

// The message names all that is needed, once a minute in each lockspace.
func TestHintTellsOnceAMinute(t *testing.T) {
	hintBubble(t, "hold=handle", func(h *hinted) {
		misuse := func() {
			h.release(h.take(shell, "lock"))
			h.lookUp(rm, "lock")
			time.Sleep(2 * time.Second)
		}
		misuse()
		log := h.logged()
		for _, want := range []string{"hold=name", "name=lock", "directory=.", "holder_pid=100", "by_pid=200", "by_comm=rm", "times=1"} {
			if !strings.Contains(log, want) {
				t.Errorf("the message lacks %q:\n%s", want, log)
			}
		}
		misuse()
		h.want(2, 1)
		time.Sleep(time.Minute)
		misuse()
		h.want(3, 2)
		if log := h.logged(); !strings.Contains(log, "times=3") {
			t.Errorf("the second message does not tell of three:\n%s", log)
		}
	})
}

// Programs that take a lock over and over, for which others contend, are not
// looked up all the time; nor do they keep another lock from being told of.
func TestHintsAreLookedUpSeldom(t *testing.T) {
	hintBubble(t, "hold=handle", func(h *hinted) {
		before := h.procs.looked()
		for i := range 1000 {
			h.lookUp(stranger, "hot")
			h.release(h.take(shell, "hot"))
			if i == 500 {
				h.release(h.take(shell, "lock"))
				h.lookUp(rm, "lock")
			}
			time.Sleep(10 * time.Millisecond)
		}
		// Three for each look-up: the caller twice, and its parent.
		if n := h.procs.looked() - before; n > 70 {
			t.Errorf("%d looks at processes in ten seconds", n)
		}
		h.want(1, 1)
	})
}
