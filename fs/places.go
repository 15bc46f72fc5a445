package fs

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
	"github.com/lockfs/lockfs/lockspace/mirror/agent"
)

// Where the locks of each directory are mirrored. A directory's place is what its
// policy says, or the one of the directory that it is in, and that of the root, if its
// policy says nothing, is the mount's backing directory. Files are beneath a place as
// they are below the topmost directory that has it.
//
// What is held in a directory, waited for, or in grace, keeps it where it is: the
// policy cannot be changed, nor can it be moved to where it would have another place.

// Agents starts the processes that mirror in directories that may not answer, and
// keeps them from ending with this one.
type Agents interface {
	// Agent returns the agent of a place, as policies write it and "" for the backing
	// directory, which is begun with when it is connected to.
	Agent(place string) Agent
}

// Agent is an agent.
type Agent interface {
	// Connect returns a line to it: to the one that a process before this one left, or,
	// if there is none or again is set, to one that it starts. Not in steps.
	Connect(again bool) (*agent.Socket, error)
	// Leave has it end, when its line is closed. It does not wait.
	Leave()
}

// places are the mirrors of a mount, see [mirrored] for how the table uses them. Its
// methods are called in steps.
type places struct {
	f *FS
	// backing is of directories that have no other place, nil if those have none.
	backing outside
	// named are those that policies name; wanted is how many writers of policies wait
	// to hear of one.
	named  map[string]outside
	wanted map[string]int
	// each are all of them.
	each []outside
}

func newPlaces(f *FS) *places {
	return &places{f: f, named: make(map[string]outside), wanted: make(map[string]int)}
}

// placeNone is what a policy says that wants no mirror.
const placeNone = "none"

// mirrorOf returns the place of a directory: what a policy says, "" for the backing
// directory.
func (f *FS) mirrorOf(dir uint64) string {
	for {
		d := f.nodes.dir(dir)
		switch {
		case d == nil:
			return ""
		case d.file.Policy.mirror != "" || dir == rootDir || len(d.file.entries) == 0:
			return d.file.Policy.mirror
		}
		dir = d.file.entries[0].Dir
	}
}

// beginsPlace reports whether a directory is the topmost one that has its place.
func (f *FS) beginsPlace(x *file) bool {
	return x.Ino == rootDir || x.Policy.mirror != "" && x.Policy.mirror != f.mirrorOf(x.entries[0].Dir)
}

// at returns the mirror of a directory, nil if it has none.
func (p *places) at(dir uint64) outside { return p.of(p.f.mirrorOf(dir)) }

// of returns the mirror of a place, nil if there is none.
func (p *places) of(place string) outside {
	switch place {
	case "":
		return p.backing
	case placeNone:
		return nil
	}
	if o := p.named[place]; o != nil {
		return o
	}
	return nil
}

// use returns the mirror of a place that a policy names, and begins it if there is
// none.
func (p *places) use(place string) outside {
	o := p.named[place]
	if o == nil {
		o = p.f.newAgent(place)
		p.named[place] = o
		p.each = append(p.each, o)
	}
	return o
}

// newAgent returns a mirror in another process, which the table has not told of
// anything yet.
func (f *FS) newAgent(place string) outside {
	name := place
	if name == "" {
		name = "the backing directory"
	}
	process := Agent(noAgent{})
	if f.agents != nil {
		process = f.agents.Agent(place)
	}
	return byAgent{process: process, direct: strings.HasPrefix(place, direct), Client: agent.New(agent.Config{
		Mount:      f.mountName(),
		Opening:    f.openingOf,
		Connect:    process.Connect,
		Do:         f.doWhenBegun,
		Reconsider: f.table.Reconsider,
		Path:       f.outsidePath,
		Lost:       f.mirrorLost,
		Publish:    f.publishesLock,
		Text:       f.textOf,
		Name:       name,
		Log:        f.log,
	})}
}

// noAgent is where there are none: under a keeper of a version that knew of none.
type noAgent struct{}

func (noAgent) Connect(bool) (*agent.Socket, error) { return nil, errNoAgents }
func (noAgent) Leave()                              {}

var errNoAgents = errors.New("there is nobody who keeps the processes of mirrors")

// leaveUnused ends the mirrors of places that no policy names any more.
func (p *places) leaveUnused() {
	used, made := p.f.namedPlaces(), p.f.madePlaces()
	for place, o := range p.named {
		if used[place] || made[place] || p.wanted[place] > 0 {
			continue
		}
		delete(p.named, place)
		p.each = slices.DeleteFunc(p.each, func(other outside) bool { return other == o })
		o.Close()
	}
}

// endPlace is the end of a directory, which may have been the last to name a place.
func (f *FS) endPlace(x *file) {
	if f.mirror != nil && x.Policy.mirror != "" {
		f.mirror.leaveUnused()
	}
}

// namedPlaces are those that directories name that are there.
func (f *FS) namedPlaces() map[string]bool {
	named := make(map[string]bool)
	for _, d := range f.nodes.byID {
		if d.file.Kind == directory && (d.ID == rootDir || len(d.file.entries) > 0) && d.file.Policy.mirror != "" && d.file.Policy.mirror != placeNone {
			named[d.file.Policy.mirror] = true
		}
	}
	return named
}

// Recorded is after every step.
func (p *places) Recorded() {
	for _, o := range p.each {
		o.Recorded()
	}
}

// Renamed says that directories have other names, or other places, or that their names
// have begun to hold, or do not any more.
func (p *places) Renamed() {
	for _, o := range p.each {
		o.Renamed()
	}
}

// wrong says what is wrong with any of them.
func (p *places) wrong() []string {
	var all []string
	for _, o := range p.each {
		if wrong := o.wrong(); wrong != "" && !slices.Contains(all, wrong) {
			all = append(all, wrong)
		}
	}
	return all
}

// Stats are those of all of them.
func (p *places) Stats() (sum mirror.Stats) {
	for _, o := range p.each {
		s := o.Stats()
		sum.Open += s.Open
		sum.Limit += s.Limit
		sum.Cached += s.Cached
		sum.Awaited += s.Awaited
		sum.Polled += s.Polled
		sum.Lost += s.Lost
		sum.Stuck += s.Stuck
	}
	return sum
}

// movesPlace reports whether a directory would have another place in another
// directory.
func (f *FS) movesPlace(x *file, to uint64) bool {
	return x.Policy.mirror == "" && f.mirrorOf(x.Ino) != f.mirrorOf(to)
}

// isHeldIn reports whether anything is waited for in a directory, or held of what
// counts.
func (f *FS) isHeldIn(dir uint64, counts func(*lockspace.Request) bool) (found bool) {
	holds, waits := f.table.Count(dir)
	if waits > 0 || holds == 0 {
		return waits > 0
	}
	f.table.List(dir, 0, func(_ uint64, name string) bool {
		for h := range f.table.Holds(lockspace.Key{Dir: dir, Name: name}) {
			found = found || counts(&h.Request)
		}
		return !found
	})
	return found
}

// isHeldBelow reports whether something is held, waited for or in grace in a directory
// or below it, as far as that has its place from it, before or after a change to
// another. Directories count where they are outside too.
func (f *FS) isHeldBelow(x *file, to string) bool {
	from := f.mirrorOf(x.Ino)
	below := map[uint64]bool{}
	counts := func(r *lockspace.Request) bool {
		return isNone(r) || f.placeMakesNames(from) || f.placeMakesNames(to)
	}
	var held func(x *file) bool
	held = func(x *file) bool {
		below[x.Ino] = true
		if f.isHeldIn(x.Ino, counts) {
			return true
		}
		for e := range x.content.order.All() {
			if m := e.file.Policy.mirror; e.file.Kind == directory && (m == "" || m == from || m == to) && held(e.file) {
				return true
			}
		}
		return false
	}
	if held(x) {
		return true
	}
	for g := range f.table.Graces() {
		if below[g.Key.Dir] {
			return true
		}
	}
	return false
}

// placeMakesNames reports whether what is held by its name is outside by that in a
// place.
func (f *FS) placeMakesNames(place string) bool {
	if f.mirror == nil {
		return false
	}
	o := f.mirror.of(place)
	return o != nil && o.makesNames()
}

// beginMirror gives the table its mirrors, if it is to have any. holds are what another
// mount has left, nil if there was none.
func (f *FS) beginMirror(b *Backing, holds []*lockspace.Hold) {
	places := f.namedPlaces()
	for place := range f.madePlaces() {
		if isAbsolute(place) {
			places[place] = true
		}
	}
	named := slices.Sorted(maps.Keys(places))
	if b == nil && len(named) == 0 {
		f.made = newMadeNames()
		return
	}
	f.begun = make(chan struct{})
	f.mirror = newPlaces(f)
	switch {
	case b == nil:
	case b.ByAgent:
		f.mirror.backing = f.newAgent("")
	default:
		f.mirror.backing = f.newInline(b)
	}
	if f.mirror.backing != nil {
		f.mirror.each = append(f.mirror.each, f.mirror.backing)
	}
	for _, place := range named {
		f.mirror.use(place)
	}
	f.knowMade()
	f.knowForeign()
	if holds != nil {
		f.takeUpNames(holds)
	} else {
		f.resumeMakeUp()
	}
	f.table.Mirrored(mirrored{f})
	f.resumeByAgents()
	for _, o := range f.mirror.each {
		o.begin()
	}
	f.resumeNames()
}

// begunMirror has a mount have places that had none.
func (f *FS) begunMirror() {
	if f.mirror != nil {
		return
	}
	f.begun, f.stepped = make(chan struct{}), true
	close(f.begun)
	f.mirror = newPlaces(f)
	f.table.Mirrored(mirrored{f})
	go f.watchNames()
}

// direct is before the directory in a policy for locks on existing files.
const direct = "direct:"

// namesDirectory reports whether a policy's place is one of its own.
func namesDirectory(place string) bool {
	return isAbsolute(strings.TrimPrefix(place, direct))
}

// AwaitMirrors waits until all that is held is locked outside, or cannot be; but for
// some seconds at most, for what does not answer. Not within a step.
func (f *FS) AwaitMirrors() {
	if f.mirror == nil {
		return
	}
	var all sync.WaitGroup
	for _, o := range f.mirror.each {
		all.Go(func() { _ = o.ready() }) // what is wrong is told to who wants a lock, and by health
	}
	all.Wait()
}

// AgentPlaces returns the places that have, or are to have, an agent. Before the first
// step.
func (f *FS) AgentPlaces() []string {
	if f.mirror == nil {
		return nil
	}
	places := slices.Collect(maps.Keys(f.mirror.named))
	if f.mirror.backing != nil && f.mirror.backing.mayHang() {
		places = append(places, "")
	}
	return places
}
