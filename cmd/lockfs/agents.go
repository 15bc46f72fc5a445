package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"

	"github.com/lockfs/lockfs/fs"
	"github.com/lockfs/lockfs/lockspace/mirror/agent"
)

// agents starts the processes that mirror locks in directories that may not answer. The
// keeper has the worker's ends of their lines among the mirror's files, so that they
// outlive the worker. It implements fs.Agents.
type agents struct {
	files   *mirrorFiles
	log     *slog.Logger
	config  config
	backing *os.File // nil: there is none

	mu sync.Mutex
	// left are the lines that the workers before this one left, by their labels.
	left map[string]mirrorFile
	last uint64 // of what the keeper knows lines by
}

// agentProcess is the agent of a place. It implements fs.Agent.
type agentProcess struct {
	all   *agents
	place string

	mu sync.Mutex // while it is connected to
	id uint64     // what the keeper knows its line by; 0: it has none
}

// agentNumbers begin above those of the mirror's open files, which count from 1.
const agentNumbers = 1 << 62

// agentLabel is what the keeper knows an agent's line by: no directory has the number
// that comes first there, see the labels of package mirror. A path may be too long for
// a label.
func agentLabel(place string) []byte {
	sum := sha256.Sum256([]byte(place))
	return append(append(make([]byte, 8), "agent"...), sum[:]...)
}

func isAgentLabel(label []byte) bool {
	return bytes.HasPrefix(label, append(make([]byte, 8), "agent"...))
}

// newAgents returns what starts agents, and the mirror's files among those that the
// keeper has.
func newAgents(c config, files *mirrorFiles, backing *os.File, log *slog.Logger) (a *agents, others []mirrorFile) {
	a = &agents{
		files: files, log: log, config: c, backing: backing, last: agentNumbers,
		left: make(map[string]mirrorFile),
	}
	for _, f := range files.Inherited() {
		if !isAgentLabel(f.Label) {
			others = append(others, f)
			continue
		}
		a.last = max(a.last, f.ID)
		if old, twice := a.left[string(f.Label)]; twice {
			// The one that was begun with last is the one that was used.
			if old.ID > f.ID {
				old, f = f, old
			}
			a.end(old)
		}
		a.left[string(f.Label)] = f
	}
	return a, others
}

// Agent implements fs.Agents.
func (a *agents) Agent(place string) fs.Agent { return &agentProcess{all: a, place: place} }

// Connect implements fs.Agent.
func (p *agentProcess) Connect(again bool) (*agent.Socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a, label := p.all, agentLabel(p.place)
	a.mu.Lock()
	f, ok := a.left[string(label)]
	delete(a.left, string(label))
	a.last++
	next := a.last
	a.mu.Unlock()
	if ok {
		p.id = f.ID
	}
	if ok && !again {
		return agent.NewSocket(f.FD)
	}
	p.drop()
	line, err := a.start(p.place)
	if err != nil {
		return nil, err
	}
	if err := a.files.Keep(next, label, line.FD); err != nil {
		line.Close()
		return nil, err
	}
	p.id = next
	return line, nil
}

// drop has the keeper give the line up.
func (p *agentProcess) drop() {
	if p.id != 0 {
		p.all.files.Drop(p.id)
		p.id = 0
	}
}

// Leave implements fs.Agent.
func (p *agentProcess) Leave() {
	// A Connect may be under way, and take a second.
	go func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.drop()
	}()
}

// start starts an agent, of the program that this worker runs: they understand each
// other.
func (a *agents) start(place string) (*agent.Socket, error) {
	ours, theirs, err := agent.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	c := &a.config
	cmd := exec.Command(ownProgram, "--agent="+place, "--log-level="+c.logLevel.String(), fmt.Sprintf("--mount-id=%d", c.mountID), "--", c.mountPoint)
	cmd.Args[0] = "lockfs-agent"
	cmd.Dir = "/"
	cmd.Env = workerEnvironment()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	if place == "" {
		cmd.ExtraFiles = append(cmd.ExtraFiles, a.backing)
	}
	// Nothing that is said to the worker, or the terminal, is for it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, err
	}
	a.log.Debug("a mirror's process started", "agent", cmd.Process.Pid, "mirror", place)
	go func() { _ = cmd.Wait() }()
	return ours, nil
}

// leaveOthers ends the agents that workers before this one left, and that are of none
// of some places.
func (a *agents) leaveOthers(places []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for label, f := range a.left {
		if !slices.ContainsFunc(places, func(p string) bool { return string(agentLabel(p)) == label }) {
			delete(a.left, label)
			a.end(f)
		}
	}
}

// end gives a line up.
func (a *agents) end(f mirrorFile) {
	a.files.Drop(f.ID)
	_ = os.NewFile(uintptr(f.FD), "line").Close()
}
