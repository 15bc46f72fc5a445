package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lockfs/lockfs/lockspace"
	"github.com/lockfs/lockfs/lockspace/mirror"
)

// Config is what a Client needs. All of it is required.
type Config struct {
	// Connect returns a line to an agent: of one that is there or, if that has ended
	// or again is set, of one that it starts. It may take a second, and is called by
	// one goroutine.
	Connect func(again bool) (*Socket, error)
	// Do, Reconsider, Path and Lost are as in [mirror.Config].
	Do         func(step func())
	Reconsider func(lockspace.Key)
	Path       func(lockspace.Key) (string, error)
	Lost       func(k lockspace.Key, why error)
	// Mount is which mount this is, see [mirror.Backing.As]. Opening says how the file of
	// a lock is opened; it is called in steps, and calls nothing.
	Mount   string
	Opening func(lockspace.Key) mirror.Opening
	// Publish and Text are as in [mirror.Config].
	Publish func(lockspace.Key) bool
	Text    func(lockspace.Key) func() []byte
	// Name is what the directory is called in what people read.
	Name string
	Log  *slog.Logger
}

// ErrNoAnswer is the error of what was given up since the agent, or the directory
// behind it, does not answer. It is an ETIMEDOUT.
var ErrNoAnswer = fmt.Errorf("the backing directory does not answer (%w)", unix.ETIMEDOUT)

// errClosed: the directory is not this lock's any more.
var errClosed = errors.New("the mirror was given up meanwhile")

const (
	// hungAfter is how long the agent may take to answer before it is said that it
	// does not.
	hungAfter = 5 * time.Second
	// pingEvery is how often it is asked for a sign of life, and lookEvery how often
	// whether it owes one.
	pingEvery = 2 * time.Second
	lookEvery = time.Second
	// againAfter and againMost are how long it takes until an agent is started after
	// one that could not be, or that ended at once.
	againAfter = 20 * time.Millisecond
	againMost  = 5 * time.Second
	// mostLeft is how many answers may be on their way for whom nobody waits.
	mostLeft = 256
)
