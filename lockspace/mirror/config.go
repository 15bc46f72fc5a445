package mirror

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
)

// Config is what a Mirror needs. Backing, Do, Reconsider, Path and Lost are
// required.
type Config struct {
	Backing *Backing
	// Keeper keeps the locks alive when this process dies. nil: nobody does.
	Keeper Keeper
	// Do runs a step, and then [Mirror.Recorded]: the mirror calls it from
	// goroutines of its own, never in a step. It need not run it once
	// [Mirror.Close] has been called.
	Do func(step func())
	// Reconsider has the table look at a lock again, see [lockspace.Mirror]. It
	// is called in steps that the mirror begins with Do.
	Reconsider func(lockspace.Key)
	// Path returns the path beneath the backing directory of a lock's file,
	// names with a slash between them. It is called in steps.
	Path func(lockspace.Key) (string, error)
	// Opener returns what opens the file of a lock, at a path and, if it has to be made,
	// for a user, where that is not [Backing.Open]; else nil. It is called in steps,
	// and what it returns is not. nil: it always is.
	Opener func(lockspace.Key) func(path string, uid, gid uint32) (Opened, error)
	// Lost tells that what is held of a lock is not locked any more, and why: its
	// holds must be ended ([lockspace.Lost]), soon, and until then nobody gets it.
	// It is called once for a loss, in steps, and must not call the table.
	Lost func(k lockspace.Key, why error)
	// Publish reports whether the file of a lock is to be one in which it is
	// published who holds it, if it has to be made, and Text returns what makes the
	// text, of at most [MaxText] bytes; nil: it is not to be published. Both are
	// called in steps, what Text returns outside of them. nil: nothing is.
	Publish func(lockspace.Key) bool
	Text    func(lockspace.Key) func() []byte
	// Cached is how many files are kept open that hold nothing, and Open how many
	// are open in all. 0: as many as [Limits] says.
	Cached, Open int
}

// Keeper is a process that keeps open files of this one, and so their locks. It is
// used by several goroutines.
type Keeper interface {
	// Keep hands over an open file. From its return on, with nil, the file stays
	// open when this process dies, until Drop; the next process gets it back with
	// id and label, which is at most 300 bytes. It may wait for a second, and is
	// called outside of steps.
	Keep(id uint64, label []byte, fd int) error
	// Drop: the file is not needed any more. It is called in steps and does not
	// wait.
	Drop(id uint64)
}

// noKeeper keeps nothing.
type noKeeper struct{}

func (noKeeper) Keep(uint64, []byte, int) error { return nil }
func (noKeeper) Drop(uint64)                    {}

// Errors, beside those of the calls that fail, which are [fs.PathError].
var (
	// ErrLimit: no more files can be open. It is an ENOLCK.
	ErrLimit = fmt.Errorf("too many locks are mirrored at once (%w)", unix.ENOLCK)
	// ErrReplaced is why a lock is lost whose name leads to another file.
	ErrReplaced = errors.New("its backing file was removed or replaced")
	// ErrGone is why a lock is lost that a server has forgotten.
	ErrGone = errors.New("its backing file is not locked any more: the filesystem's server has lost it")
	// ErrUnsteady is why a lock is not granted whose file is another each time that it
	// has been opened, [MaxOpens] times: for users of Preparations, who give up then.
	ErrUnsteady = errors.New("its backing file is replaced faster than it can be locked")
	// ErrTaken is why a lock is lost that somebody else got hold of while nobody
	// kept it.
	ErrTaken = errors.New("its backing file was locked by another meanwhile")
)

// MaxOpens is how often a file is opened for one request that somebody replaces each
// time.
const MaxOpens = 50

// Limits returns how many files a mirror keeps open, by how many the process may
// have: 512 that hold nothing, or a quarter; three quarters in all, but so that 256
// are left for all else, threads that wait among them. 0: it may have too few.
func Limits() (cached, open int) {
	var rl unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &rl); err != nil {
		rl.Cur = 1024
	}
	files := int(min(rl.Cur, 1<<30))
	return min(512, files/4), max(0, files-max(256, files/4))
}

// How much is done at a time.
const (
	// maxThreads is how many threads wait in fcntl calls, and maxFileThreads how
	// many of them on one file.
	maxThreads     = 128
	maxFileThreads = 8
	// pollEvery is how often those are looked at that have no thread, pollBatch
	// how many of them.
	pollEvery = 20 * time.Millisecond
	pollBatch = 128
	// Where nobody has a thread, and each look takes as long as a server does,
	// there are fewer at a time, after so long at first, and then after up to
	// maxPatience times that.
	pollRemoteEvery = 2500 * time.Microsecond
	pollRemoteBatch = 16
	maxPatience     = 8
	// watchEvery is how often files that are held are looked at, watchBatch how
	// many of them.
	watchEvery = time.Second
	watchBatch = 1024
	// maxOpening is how many files are opened at once for those who wait.
	maxOpening = 32
)
