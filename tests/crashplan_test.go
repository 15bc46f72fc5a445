package tests

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file plans where workers die (cmd/lockfs/crash_on.go has the format of
// a plan), and says which steps a request passes.

// FUSE opcodes (uapi/linux/fuse.h).
const (
	opLookup      = 1
	opForget      = 2
	opGetattr     = 3
	opSetattr     = 4
	opReadlink    = 5
	opSymlink     = 6
	opMkdir       = 9
	opUnlink      = 10
	opRmdir       = 11
	opRename      = 12
	opLink        = 13
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFsync       = 20
	opFlush       = 25
	opInit        = 26
	opOpendir     = 27
	opReaddir     = 28
	opReleasedir  = 29
	opGetlk       = 31
	opSetlk       = 32
	opSetlkw      = 33
	opAccess      = 34
	opCreate      = 35
	opInterrupt   = 36
	opPoll        = 40
	opBatchForget = 42
	opRename2     = 45
)

// death is where a worker dies: at a step about a request with an opcode (0:
// any), after pass such steps.
type death struct {
	step   string
	opcode uint32
	pass   uint32
	// pause, in milliseconds: the step takes that long, and nobody dies.
	pause uint32
	// signal to die by; 0: SIGKILL, as if somebody else had sent it.
	signal syscall.Signal
}

func (d death) String() string {
	text := d.step
	if d.opcode != 0 {
		text = fmt.Sprintf("%s(%d)", text, d.opcode)
	}
	if d.pass > 0 {
		text = fmt.Sprintf("%s+%d", text, d.pass)
	}
	return text
}

// crashPlan is the plan of one mount's workers.
type crashPlan struct {
	t    testing.TB
	file string
	mem  []byte
}

const (
	planSize  = 4096
	planFirst = 16
	deathSize = 64
	maxDeaths = (planSize - planFirst) / deathSize
)

func newCrashPlan(t testing.TB) *crashPlan {
	t.Helper()
	p := &crashPlan{t: t, file: filepath.Join(t.TempDir(), "plan")}
	f, err := os.Create(p.file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(planSize); err != nil {
		t.Fatal(err)
	}
	p.mem, err = unix.Mmap(int(f.Fd()), 0, planSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(p.mem) })
	return p
}

func (p *crashPlan) word(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&p.mem[at]))
}

// arm makes these the deaths to come.
func (p *crashPlan) arm(deaths ...death) {
	p.t.Helper()
	if len(deaths) > maxDeaths {
		p.t.Fatalf("%d deaths in one plan, want at most %d", len(deaths), maxDeaths)
	}
	p.disarm()
	p.word(0).Store(0)
	for i, d := range deaths {
		b := p.mem[planFirst+i*deathSize:][:deathSize]
		clear(b)
		copy(b[:48], d.step)
		*(*uint32)(unsafe.Pointer(&b[48])) = d.opcode
		*(*uint32)(unsafe.Pointer(&b[52])) = d.pass
		*(*uint32)(unsafe.Pointer(&b[56])) = d.pause
		*(*uint32)(unsafe.Pointer(&b[60])) = uint32(d.signal)
	}
	p.word(8).Store(uint64(len(deaths)))
}

// disarm has nobody die any more.
func (p *crashPlan) disarm() { p.word(8).Store(0) }

// met returns how many of the deaths have come about.
func (p *crashPlan) met() int { return int(p.word(0).Load()) }

// planLimit is how long a planned death may take to come about.
const planLimit = 10 * time.Second

// await waits for the first n deaths and reports whether they came about.
func (p *crashPlan) await(n int) bool {
	for end := time.Now().Add(planLimit); p.met() < n; time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// crashMount is mount whose workers die as planned.
func crashMount(t testing.TB, flags ...string) (*Mount, *crashPlan) {
	t.Helper()
	p := newCrashPlan(t)
	return crashMountWith(t, p, flags...), p
}

// crashMountWith mounts without a backing directory, if the flags name none: with one,
// a request that has a file to open goes through its first steps again, and deaths
// are counted in other places.
func crashMountWith(t testing.TB, p *crashPlan, flags ...string) *Mount {
	t.Helper()
	needRoot(t)
	if !slices.Contains(flags, "--backing") {
		flags = append([]string{"--backing", "none"}, flags...)
	}
	m := newMount(t)
	m.program, m.env = program(t, crashDaemon), []string{"LOCKFS_CRASHPOINTS=" + p.file}
	m.mount(flags)
	return m
}

// course is how a request goes through the steps.
type course struct {
	// changes: something is written down for its successor, if only that the
	// request is decided. If not, it is carried out again until somebody has
	// come to the end of it, and has no transaction to die in.
	changes bool
	// answers is how many replies it has: one, none (forgets, interrupts, and
	// waits while they last), or those of the waits that it ended besides.
	answers int
	// detours is how often it leaves for a look-up and comes back.
	detours int
}

// Times in a request's life, for what a successor has to do with it.
const (
	unread  = iota // the kernel has it, or it is in the slot and not decided
	away           // on a detour, which the successor sends it on again
	decided        // to answer, perhaps
)

// point is a step of a request.
type point struct {
	death
	phase int
}

// deviceSteps and stateSteps are all the steps that a request can pass but
// "grown", see TestTheStateGrowsUnderARequest, and "away", where nothing has
// happened since "done".
var (
	deviceSteps = []string{"read", "decided", "recorded", "answered", "done", "back"}
	stateSteps  = []string{"slot prepared", "begun", "entry", "written", "committed", "entry applied", "applied"}
)

// points returns the steps that requests of a course pass, in order. All
// others cannot be reached by them.
func (c course) points(opcode uint32) []point {
	var all []point
	add := func(phase int, step string, pass int) {
		all = append(all, point{death{step: step, opcode: opcode, pass: uint32(pass)}, phase})
	}
	// transaction: the n-th of the request, made in the step that is decided
	// as number m, and the phases before and after it.
	transaction := func(n, m, before, after int) {
		// Those before have two entries: the request, and that it is decided.
		add(before, "begun", n)
		add(before, "entry", 2*n)
		add(before, "decided", m)
		add(before, "written", n)
		add(after, "committed", n)
		add(after, "entry applied", 2*n)
		add(after, "applied", n)
		add(after, "recorded", m)
	}
	answers := func(phase int) {
		for i := range c.answers {
			add(phase, "answered", i)
		}
	}
	add(unread, "read", 0)
	switch {
	case c.detours > 0:
		transaction(0, 0, unread, away)
		add(away, "done", 0)
		add(away, "slot prepared", 0)
		for i := range c.detours {
			add(away, "back", i)
			if i < c.detours-1 {
				add(away, "decided", i+1)
				add(away, "recorded", i+1)
			}
		}
		transaction(1, c.detours, away, decided)
		answers(decided)
		return all
	case c.changes:
		transaction(0, 0, unread, decided)
		answers(decided)
	default:
		add(unread, "decided", 0)
		add(unread, "recorded", 0)
		answers(unread)
	}
	add(decided, "done", 0)
	add(decided, "slot prepared", 0)
	return all
}

// unreachable returns the steps that requests of a course never come by, or
// not so often.
func (c course) unreachable(opcode uint32) []death {
	passed := map[string]bool{}
	for _, p := range c.points(opcode) {
		passed[p.step] = true
	}
	var never []death
	for _, steps := range [][]string{deviceSteps, stateSteps} {
		for _, step := range steps {
			if !passed[step] {
				never = append(never, death{step: step, opcode: opcode})
			}
		}
	}
	if c.detours > 0 {
		never = append(never, death{step: "back", opcode: opcode, pass: uint32(c.detours)})
	}
	return never
}

// plans returns the deaths to have one after the other for a course: at each
// of the request's own points; there and then at points of recovery, with up to
// three more deaths in a row; and at the request's points again, when a
// successor carries it out. With all, each point of recovery is met after each
// of the request's; else some after each, beginning with turn, so that all are
// met after one point or another.
func (c course) plans(opcode uint32, turn int, all bool) [][]death {
	var plans [][]death
	plan := func(deaths ...death) { plans = append(plans, deaths) }
	at := func(step string) death { return death{step: step} }
	points := c.points(opcode)
	for i, p := range points {
		plan(p.death)
		if all || (turn+i)%3 == 0 {
			plan(p.death, at("opened"), at("resumed"), at("serving"))
		}
		if all || (turn+i)%3 == 1 {
			plan(p.death, at("restored"), at("taken over"), at("taken over"))
		}
		switch {
		case p.phase == away && p.pass == 0 && p.step != "back" && p.step != "slot prepared":
			// What was committed is that it is away, which has no answer.
			plan(p.death, at("entry applied"), at("restored"))
		case p.phase == decided && (c.changes || c.detours > 0):
			second := at("restored")
			if c.answers > 0 {
				second = at("repeated")
			}
			plan(p.death, at("entry applied"), second)
		}
	}
	for _, p := range points {
		read := death{step: "read", opcode: opcode}
		switch {
		case p.phase == unread:
			plan(read, p.death, p.death)
		case p.step == "slot prepared":
			// The first thing that happens when work goes on.
			plan(read, at("slot prepared"), at("resumed"))
		case p.phase == away:
			plan(read, p.death, death{step: "back", opcode: opcode})
		default:
			plan(read, p.death, at("resumed"))
		}
		if c.detours == 0 || p.pass == 0 && p.step != "back" && p.step != "answered" {
			continue
		}
		// It comes back to a successor, for whom that is the first thing: no
		// transaction of its own is before it.
		again := p.death
		switch p.step {
		case "begun", "entry", "written", "committed", "entry applied", "applied":
			again.pass = 0
		}
		plan(death{step: "done", opcode: opcode}, again)
	}
	return plans
}
