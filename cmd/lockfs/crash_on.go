//go:build crashpoints

package main

import (
	"bytes"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/fs/device"
)

// A worker that was built with the tag crashpoints dies, by SIGKILL, where the
// file that $LOCKFS_CRASHPOINTS names says. The file is a plan: the number of
// the next death, the number of deaths, and for each the step at which it
// happens, the opcode of the request that the step must be about (0: any), and
// how many such steps are let pass before. Numbers are in the machine's byte
// order. Whoever plans the deaths maps the file, and sees by the number of the
// next one which of them came about.
//
// Instead of a death there can be a pause, so that something else can happen
// while a request is at a step.
//
//	0   uint64  number of the next death
//	8   uint64  number of deaths
//	16  deaths, of 64 bytes each:
//	    0   char[48]  name of the step, padded with NUL
//	    48  uint32    opcode
//	    52  uint32    steps to let pass
//	    56  uint32    milliseconds to pause; 0: die
//	    60  uint32    signal to die by; 0: SIGKILL
const crashEnv = "LOCKFS_CRASHPOINTS"

const (
	planSize    = 4096
	planDeaths  = 16
	deathSize   = 64
	deathOpcode = 48
	deathPass   = 52
	deathPause  = 56
	deathSignal = 60
)

// crashPoints is the plan.
type crashPoints struct {
	plan []byte
	// opcode is that of the latest request.
	opcode atomic.Uint32
}

func newCrashPoints() (*crashPoints, error) {
	name := os.Getenv(crashEnv)
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	plan, err := unix.Mmap(int(f.Fd()), 0, planSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	return &crashPoints{plan: plan}, nil
}

// memory returns the hook for the memory, whose steps are about the latest
// request.
func (p *crashPoints) memory() func(step string) {
	if p == nil {
		return nil
	}
	return p.at
}

// attach has the steps of a connection die as planned.
func (p *crashPoints) attach(c *device.Conn) {
	if p == nil {
		return
	}
	c.OnStep(func(step string, opcode uint32) {
		if step != "away" { // outside of the order of requests
			p.opcode.Store(opcode)
		}
		p.about(step, opcode)
	})
}

// at dies here if that is the plan; the step is about the latest request.
func (p *crashPoints) at(step string) {
	if p != nil {
		p.about(step, p.opcode.Load())
	}
}

// about is at for a step that is about a request with this opcode.
func (p *crashPoints) about(step string, opcode uint32) {
	next, deaths := p.word(0), p.word(8)
	n := next.Load()
	if n >= deaths.Load() {
		return
	}
	d := p.plan[planDeaths+n*deathSize:][:deathSize]
	if string(bytes.TrimRight(d[:deathOpcode], "\x00")) != step {
		return
	}
	if want := *(*uint32)(unsafe.Pointer(&d[deathOpcode])); want != 0 && want != opcode {
		return
	}
	pass := (*atomic.Uint32)(unsafe.Pointer(&d[deathPass]))
	if pass.Load() > 0 {
		pass.Add(^uint32(0))
		return
	}
	pause := *(*uint32)(unsafe.Pointer(&d[deathPause]))
	next.Add(1)
	if pause > 0 {
		time.Sleep(time.Duration(pause) * time.Millisecond)
		return
	}
	signal := unix.SIGKILL
	if s := *(*uint32)(unsafe.Pointer(&d[deathSignal])); s != 0 {
		signal = unix.Signal(s)
	}
	_ = unix.Kill(unix.Getpid(), signal)
	select {}
}

func (p *crashPoints) word(at int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&p.plan[at]))
}
