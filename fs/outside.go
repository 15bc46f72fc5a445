package fs

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
	"github.com/lockfs/lockfs/lockspace/mirror/agent"
)

// What mirrors locks: this process, in a directory that answers, or an agent, which
// is another process, in one that may not.

// outside is the locks of a directory outside of the mount. All is called in steps,
// but where another thing is said.
type outside interface {
	lockspace.Mirror
	// begin is called when the table has told what is held.
	begin()
	Recorded()
	Renamed()
	Prepare(r *lockspace.Request) preparation
	// probeFor returns who is in the way of r, as far as a step can find out.
	probeFor(r *lockspace.Request) (s mirror.Foreign, found, known bool, err error)
	// find is probeFor on detours, of the lock at a path, and locked the names in a
	// directory that are locked, of which it may leave out those to skip.
	find(path string, r *lockspace.Request) (s mirror.Foreign, found bool, err error)
	locked(dir string, skip func(name string) bool) ([]string, error)
	// published returns, on detours, what somebody has published of the lock at a path,
	// who may be this mount, but not if it leads: then nobody else can have.
	published(path string) ([]byte, error)
	leads(k lockspace.Key) bool
	// makesNames says that what is held by its name is outside by that, see made.go.
	// names makes it, on detours, and waits no longer than limit for what may hang; nil:
	// nothing is made. later removes and writes it when a step has been recorded; nil:
	// names does, at once. prepareMade prepares to make a file for r, nil: names opens it
	// for itself.
	makesNames() bool
	names(limit time.Duration) mirror.Names
	later() laterNames
	prepareMade(r *lockspace.Request) *mirror.Preparation
	// mayHang says that detours may hang for as long as the directory does.
	mayHang() bool
	// ready waits, on a detour, until it is known whether the directory can be used.
	ready() error
	// wrong says what is wrong, for people; "" if nothing is.
	wrong() string
	Stats() mirror.Stats
	Close()
}

// preparation is what a request needs that is not for a step.
type preparation interface {
	// Run is called on a detour, and waits no longer than limit for what may hang, 0:
	// for ever, and not when gone is closed.
	Run(limit time.Duration, gone <-chan struct{})
	// Adopt is called in the step that follows.
	Adopt() error
}

// laterNames is what does with names what nobody waits for. Its methods are called in
// steps, before Recorded, and then is, outside of them, when it is done, or failed. See
// [mirror.Names].
type laterNames interface {
	// RemoveLater removes what has held the name k; locked: it is a file.
	RemoveLater(k lockspace.Key, m mirror.MadeName, locked bool, then func(error))
	WriteLater(m mirror.MadeName, to mirror.NameState, then func(error))
	MarkLater(m mirror.MadeName, use mirror.Use, then func(error))
}

// How long is waited for what does not answer.
const (
	// makeTime is for who makes a name: the kernel has locked the directory for him,
	// and who stands behind him there cannot even be killed.
	makeTime = 5 * time.Second
	// onlookTime is for who looks who holds a lock: then he is shown what is known.
	onlookTime = 3 * time.Second
	// readyTime is for who names another directory to mirror in.
	readyTime = 5 * time.Second
)

// inline is a mirror in this process.
type inline struct {
	*mirror.Mirror
	dir *mirror.Backing
}

type inlinePreparation struct {
	*mirror.Preparation
	m *mirror.Mirror
}

func (p inlinePreparation) Run(time.Duration, <-chan struct{}) { p.Preparation.Run() }
func (p inlinePreparation) Adopt() error                       { return p.m.Adopt(p.Preparation) }

func (i inline) begin() {
	for _, p := range i.Missing() {
		p.Run()
		// What is lost by that is said by mirrorLost.
		_ = i.Adopt(p)
	}
}

func (i inline) Prepare(r *lockspace.Request) preparation {
	return inlinePreparation{i.Mirror.Prepare(r), i.Mirror}
}

func (i inline) probeFor(r *lockspace.Request) (mirror.Foreign, bool, bool, error) {
	return i.ProbeFor(r)
}

func (i inline) find(path string, r *lockspace.Request) (mirror.Foreign, bool, error) {
	return i.dir.ProbeFor(path, r)
}

func (i inline) locked(dir string, skip func(string) bool) ([]string, error) {
	return i.dir.LockedBut(dir, skip)
}

func (i inline) published(path string) ([]byte, error) { return i.dir.Published(path) }
func (i inline) leads(k lockspace.Key) bool            { return i.Leads(k) }
func (i inline) makesNames() bool                      { return true }
func (i inline) names(time.Duration) mirror.Names      { return i.dir }
func (i inline) later() laterNames                     { return nil }
func (i inline) mayHang() bool                         { return false }
func (i inline) ready() error                          { return nil }

func (i inline) prepareMade(r *lockspace.Request) *mirror.Preparation { return i.Mirror.Prepare(r) }

func (i inline) wrong() string {
	if s := i.Stats(); s.Open >= s.Limit && s.Cached == 0 {
		return allOpen
	}
	return ""
}

const allOpen = "as many backing files are open as can be, so that no lock is granted that has none open: raise the limit of open files (ulimit -n)"

// byAgent is a mirror in another process.
type byAgent struct {
	*agent.Client
	process Agent
	// direct: it is where nothing is made.
	direct bool
}

// Close gives up what is locked, by the end of the agent.
func (a byAgent) Close() {
	a.Client.Close()
	a.process.Leave()
}

func (a byAgent) begin()                                   { a.Begin() }
func (a byAgent) Prepare(r *lockspace.Request) preparation { return a.Client.Prepare(r) }
func (a byAgent) locked(dir string, _ func(string) bool) ([]string, error) {
	return a.Locked(dir, onlookTime)
}

func (a byAgent) published(path string) ([]byte, error) { return a.Published(path, onlookTime) }
func (a byAgent) leads(k lockspace.Key) bool            { return a.Leads(k) }
func (a byAgent) makesNames() bool                      { return !a.direct }
func (a byAgent) later() laterNames                     { return a.Client }
func (a byAgent) mayHang() bool                         { return true }
func (a byAgent) ready() error                          { return a.Ready(readyTime) }

func (a byAgent) names(limit time.Duration) mirror.Names {
	if a.direct {
		return nil
	}
	return a.Names(limit)
}

func (a byAgent) prepareMade(*lockspace.Request) *mirror.Preparation { return nil }

func (a byAgent) probeFor(*lockspace.Request) (s mirror.Foreign, found, known bool, err error) {
	return
}

func (a byAgent) find(path string, r *lockspace.Request) (mirror.Foreign, bool, error) {
	return a.ProbeFor(path, r, onlookTime)
}

func (a byAgent) wrong() string {
	if wrong := a.Wrong(); wrong != "" {
		return wrong
	}
	if s := a.Stats(); s.Limit > 0 && s.Open >= s.Limit && s.Cached == 0 {
		return allOpen
	}
	return ""
}

// anybody is whoever has a lock, or a part of it.
func anybody(k lockspace.Key) *lockspace.Request {
	return &lockspace.Request{Key: k, Mode: lockspace.Exclusive, Range: lockspace.Whole}
}

// isAbsolute reports whether a path begins at the root and can be one.
func isAbsolute(path string) bool { return path != "" && path[0] == '/' && len(path) < unix.PathMax }
