package mirror

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Mirror locks files as a table says. It is part of the table's steps: all its
// methods are called in them, but where another thing is said, and by one
// goroutine at a time.
//
// Its law: between steps (after [Mirror.Recorded]) a file is locked exactly where and
// as its names are held, and only in two cases more or less than that: more, if a
// thread has just got what somebody waited for, until the step that it begins; less,
// if the names' holds are lost, which the user has been told. In a step there may
// be more, never less: what a request needs is locked when Cover returns, and what
// nobody needs is given back by Recorded.
type Mirror struct {
	config Config

	names  map[lockspace.Key]*name
	inodes map[inode][]*file // those that have names
	lastID uint64

	// step counts the steps.
	step   uint64
	dirty  []*file // to be brought in line by Recorded
	unsure []*name // to be looked at by Recorded

	cache   lru
	files   int // that are open, and that are being opened
	watched []*name
	cursor  int // in watched
	threads int // that wait, or are about to
	polls   []*name
	polling bool
	// pollTick counts how often it was looked for who is to be looked at.
	pollTick uint64
	lost     uint64
	stuck    uint64
	// young are the files that may be published soon; what was, and what failed, is
	// counted.
	young                     []*file
	publishing                bool
	publications, unpublished uint64
	// extras are files that were inherited for a name that has one already.
	extras []extra
	// restoring: files were inherited, and some that are held are not open yet.
	// Until they are, nothing is given back: what one of these is, may be among
	// them under another name.
	restoring bool
	openings  chan struct{}

	fcntl   fcntlFunc
	leadsTo func(path string, i inode, st *unix.Stat_t) (bool, error)
	lk      unix.Flock_t // of the call that a step makes
	st      unix.Stat_t  // likewise

	every  time.Duration // watchEvery
	closed chan struct{}
	close  sync.Once
}

var _ lockspace.Mirror = (*Mirror)(nil)

// name is a lock that is mirrored, or about to be.
type name struct {
	key lockspace.Key
	// path is where its file is. "": to be asked for.
	path string
	file *file // nil: not open
	want spans // what is held of it, as of the last Settled
	// holds tells those holds apart from others.
	holds uint64
	// covered is the step in which something of it was covered last.
	covered uint64
	// uid and gid are who made one of its holds.
	uid, gid uint32
	// lost is why what is held of it is not locked. Until that has ended nobody
	// gets more.
	lost error
	// failed is what Cover answers for the rest of the step.
	failed error
	// opening: it is being opened for somebody who waits.
	opening bool
	polled  bool // it is in polls
	// pollAt is when it is looked at there next, by pollTick, and patience how long
	// that was after the last time.
	pollAt, patience uint64
	unsure           bool // it is in unsure
	watch            int  // where in watched, plus 1
}

// file is an open file.
type file struct {
	fd       int
	id       uint64 // what the keeper knows it by; 0: it does not have it
	inode    inode
	readOnly bool
	names    []*name // none: it has been replaced, and goes when nobody waits on it
	// have is what is locked of it. With more, there may be more than that.
	have  spans
	more  bool
	dirty bool
	// awaits is what threads wait for; pins is how many of its users are outside of
	// a step. With either it stays open.
	awaits map[span]bool
	pins   int
	// sides are open files of the same inode through which threads wait.
	sides []int

	// settled is the step in which its holds were others last. publication is what is
	// written about them, nil if nothing is. young: it is in young, where it was seen
	// settled as in seen. strange: it may not be written to.
	settled, seen uint64
	// changes counts the calls that changed what is locked of it.
	changes        uint64
	publication    *publication
	young, strange bool

	older, newer *file // in the cache
	cached       bool
	closed       bool
}

// New returns a mirror of a table that holds nothing yet, and begins to watch
// the files.
func New(c Config) *Mirror {
	m := newMirror(c)
	go m.watch()
	return m
}

func newMirror(c Config) *Mirror {
	cached, open := Limits()
	if c.Cached == 0 {
		c.Cached = cached
	}
	if c.Open == 0 {
		c.Open = open
	}
	if c.Keeper == nil {
		c.Keeper = noKeeper{}
	}
	return &Mirror{
		config:   c,
		names:    make(map[lockspace.Key]*name),
		inodes:   make(map[inode][]*file),
		openings: make(chan struct{}, maxOpening),
		step:     1,
		fcntl:    unix.FcntlFlock,
		leadsTo:  c.Backing.leadsToWith,
		every:    watchEvery,
		closed:   make(chan struct{}),
	}
}

// Close ends what the mirror does by itself. It gives nothing back: who wants that
// ends the holds first, or the process.
func (m *Mirror) Close() { m.close.Do(func() { close(m.closed) }) }

// do runs a step, unless the mirror is closed.
func (m *Mirror) do(step func()) {
	select {
	case <-m.closed:
	default:
		m.config.Do(step)
	}
}

// mirrored reports whether a request has a file: what is held by being a directory
// has none, since others are in it.
func mirrored(r *lockspace.Request) bool { return r.Via != lockspace.ViaMkdir }

// name returns the name of k, making it if there is none.
func (m *Mirror) name(k lockspace.Key) *name {
	n := m.names[k]
	if n == nil {
		n = &name{key: k}
		m.names[k] = n
		m.lookAt(n)
	}
	return n
}

// lookAt has Recorded forget n if nothing is to be known of it.
func (m *Mirror) lookAt(n *name) {
	if !n.unsure {
		n.unsure = true
		m.unsure = append(m.unsure, n)
	}
}

// touch has Recorded bring f in line, and takes it out of the cache until then.
func (m *Mirror) touch(f *file) {
	if f.cached {
		m.cache.remove(f)
		for _, n := range f.names {
			m.startWatching(n)
		}
	}
	if !f.dirty {
		f.dirty = true
		m.dirty = append(m.dirty, f)
	}
}

// attach makes f the file of n.
func (m *Mirror) attach(n *name, f *file) {
	n.file = f
	if len(f.names) == 0 {
		m.inodes[f.inode] = append(m.inodes[f.inode], f)
	}
	f.names = append(f.names, n)
	f.settled = m.step
	m.startWatching(n)
}

// detach takes from n its file, which may be without names then.
func (m *Mirror) detach(n *name) {
	f := n.file
	m.touch(f)
	n.file = nil
	f.names = slices.DeleteFunc(f.names, func(other *name) bool { return other == n })
	if len(f.names) == 0 {
		m.forgetInode(f)
	}
	m.stopWatching(n)
	m.lookAt(n)
}

// forgetInode takes f, which has no names any more, out of inodes.
func (m *Mirror) forgetInode(f *file) {
	rest := slices.DeleteFunc(m.inodes[f.inode], func(other *file) bool { return other == f })
	if len(rest) == 0 {
		delete(m.inodes, f.inode)
	} else {
		m.inodes[f.inode] = rest
	}
}

// pathOf returns where n's file is.
func (m *Mirror) pathOf(n *name) (string, error) {
	if n.path == "" {
		path, err := m.config.Path(n.key)
		if err != nil {
			return "", err
		}
		if !valid(path) {
			return "", wrap("open", path, unix.EINVAL)
		}
		n.path = path
	}
	return n.path, nil
}

// Moved says that the path of k may be another.
func (m *Mirror) Moved(k lockspace.Key) {
	if n := m.names[k]; n != nil {
		n.path = ""
	}
}

// Renamed says that a directory has another name, so that other paths lead to
// the files beneath it, or that which files may be locked is another question now.
func (m *Mirror) Renamed() {
	for m.cache.len > 0 { // those that are held are looked for, and no others
		m.evictOldest()
	}
	for _, n := range m.names {
		n.path = ""
	}
}
