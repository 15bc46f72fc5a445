package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lockfs/lockfs/lockspace/rwlock"
	"github.com/lockfs/lockfs/lockspace/space"
)

// This file is the Go packages of the source systems in processes of their own: a
// [Client] calls them as it is told.

// packageCall is what a client is to call. Objects have numbers in their process.
type packageCall struct {
	Call   string
	Object int
	Name   []byte // of a resource, a directory, a path
	Owner  int
	Flags  space.Flags
	Limit  time.Duration // of a context, if it is not 0
}

// packageAnswer is what came of it.
type packageAnswer struct {
	N      int
	Failed string   // the error's text
	Kinds  []string // which of packageErrors it is
}

// packageErrors are the errors by meaning, by the names that they have between the
// processes.
var packageErrors = map[string]error{
	"space.ErrBusy": space.ErrBusy, "space.ErrNotLocked": space.ErrNotLocked, "space.ErrWrongOwner": space.ErrWrongOwner,
	"space.ErrNoResource": space.ErrNoResource, "space.ErrBadName": space.ErrBadName, "space.ErrBadFlags": space.ErrBadFlags,
	"space.ErrExists": space.ErrExists, "space.ErrPolicy": space.ErrPolicy, "space.ErrState": space.ErrState,
	"space.ErrClosed": space.ErrClosed, "space.ErrLost": space.ErrLost,
	"rwlock.ErrTwice": rwlock.ErrTwice, "rwlock.ErrNotHeld": rwlock.ErrNotHeld, "rwlock.ErrMode": rwlock.ErrMode,
	"rwlock.ErrNotLockfs": rwlock.ErrNotLockfs, "rwlock.ErrPolicy": rwlock.ErrPolicy, "rwlock.ErrBadName": rwlock.ErrBadName,
	"rwlock.ErrLost":           rwlock.ErrLost,
	"context.DeadlineExceeded": context.DeadlineExceeded,
}

// packageError is an error of another process.
type packageError struct {
	text  string
	kinds []error
}

func (e *packageError) Error() string   { return e.text }
func (e *packageError) Unwrap() []error { return e.kinds }

// startPackage begins a call in a client; endPackage waits for it.
func (c *Client) startPackage(call packageCall) *Pending {
	c.t.Helper()
	text, err := json.Marshal(call)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.start(request{Op: "package", Path: []byte(call.Call), Data: text})
}

func endPackage(t testing.TB, p *Pending) (int, error) {
	t.Helper()
	if err := p.Wait(t); err != nil {
		return 0, err
	}
	var a packageAnswer
	if err := json.Unmarshal(p.answer.Data, &a); err != nil {
		t.Fatal(err)
	}
	if a.Failed == "" {
		return a.N, nil
	}
	err := &packageError{text: a.Failed}
	for _, kind := range a.Kinds {
		err.kinds = append(err.kinds, packageErrors[kind])
	}
	return a.N, err
}

// callPackage is both.
func (c *Client) callPackage(call packageCall) (int, error) {
	c.t.Helper()
	return endPackage(c.t, c.startPackage(call))
}

// What follows runs in the client.

// objects are the spaces and locks of a client, by number.
var objects struct {
	sync.Mutex
	spaces map[int]*space.Space
	locks  map[int]*rwlock.Lock
}

func servePackage(r *request, a *answer) error {
	var call packageCall
	if err := json.Unmarshal(r.Data, &call); err != nil {
		return err
	}
	var out packageAnswer
	n, err := doPackage(r.ID, &call)
	out.N = n
	if err != nil {
		out.Failed = err.Error()
		for name, kind := range packageErrors {
			if errors.Is(err, kind) {
				out.Kinds = append(out.Kinds, name)
			}
		}
	}
	a.Data, err = json.Marshal(out)
	return err
}

func doPackage(id uint64, call *packageCall) (n int, err error) {
	objects.Lock()
	if objects.spaces == nil {
		objects.spaces, objects.locks = map[int]*space.Space{}, map[int]*rwlock.Lock{}
	}
	s, l := objects.spaces[call.Object], objects.locks[call.Object]
	objects.Unlock()
	ctx := context.Background()
	if call.Limit != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, call.Limit)
		defer cancel()
	}
	name := string(call.Name)
	switch call.Call {
	case "space.New":
		if s, err = space.New(name); err == nil {
			objects.Lock()
			objects.spaces[call.Object] = s
			objects.Unlock()
		}
		return 0, err
	case "CreateResource":
		return 0, s.CreateResource(name)
	case "DeleteResource":
		return 0, s.DeleteResource(name)
	case "AcquireResource":
		return 0, s.AcquireResource(name, call.Owner, call.Flags)
	case "ReleaseResource":
		return 0, s.ReleaseResource(name, call.Owner)
	case "ReleaseResourcesForOwner":
		return s.ReleaseResourcesForOwner(call.Owner)
	case "Check":
		return 0, s.Check()
	case "Close":
		return 0, s.Close()
	case "exec":
		return 0, becomeAnother(id)
	case "rwlock.Init":
		if l, err = rwlock.Init(name); err == nil {
			objects.Lock()
			objects.locks[call.Object] = l
			objects.Unlock()
		}
		return 0, err
	case "ObtainReadLock":
		return 0, l.ObtainReadLockContext(ctx)
	case "ObtainWriteLock":
		return 0, l.ObtainWriteLockContext(ctx)
	case "ReleaseReadLock":
		return 0, l.ReleaseReadLock()
	case "ReleaseWriteLock":
		return 0, l.ReleaseWriteLock()
	case "CheckLock":
		return l.CheckLock()
	case "read all the time":
		return readAllTheTime(ctx, l)
	case "hammer":
		return hammerSpace(ctx, s, name)
	}
	return 0, fmt.Errorf("no such call: %s", call.Call)
}

// readAllTheTime reads until the context is done, and returns how often it did.
func readAllTheTime(ctx context.Context, l *rwlock.Lock) (n int, err error) {
	for ; ctx.Err() == nil && err == nil; n++ {
		if err = l.ObtainReadLock(); err == nil {
			time.Sleep(2 * time.Millisecond)
			err = l.ReleaseReadLock()
		}
	}
	return n, err
}

// hammerSpace takes, deletes, makes and gives back one resource until the context is
// done, and returns how often it had it. Who is inside says so in a directory that
// is on no mount: a writer by the file "writer", a reader by one of his own.
func hammerSpace(ctx context.Context, s *space.Space, inside string) (n int, err error) {
	for ; ctx.Err() == nil; n++ {
		if rand.N(4) == 0 {
			if err := s.CreateResource("foo"); err != nil {
				return n, err
			}
			if err := s.DeleteResource("foo"); err != nil && !errors.Is(err, space.ErrBusy) {
				return n, err
			}
		}
		flags := space.Flags(rand.N(4))
		err := s.AcquireResource("foo", 1, flags)
		if errors.Is(err, space.ErrBusy) || errors.Is(err, space.ErrNoResource) {
			n--
			continue
		}
		if err == nil {
			err = beInside(inside, flags&space.Shared != 0)
		}
		if err == nil {
			err = s.ReleaseResource("foo", 1)
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// beInside fails if a writer is inside together with anybody.
func beInside(dir string, shared bool) error {
	mine := "writer"
	if shared {
		mine = fmt.Sprint("reader", os.Getpid())
	}
	file, err := os.OpenFile(filepath.Join(dir, mine), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	file.Close()
	others, err := os.ReadDir(dir)
	for _, other := range others {
		if name := other.Name(); name != mine && (!shared || name == "writer") {
			err = errors.Join(err, fmt.Errorf("%s is inside together with %s", mine, name))
		}
	}
	return errors.Join(err, os.Remove(file.Name()))
}

// keptEnv has what a client that executes itself anew keeps.
const keptEnv = "LOCKFS_TEST_KEPT"

type kept struct {
	ID     uint64 // of the request to become another
	Spaces map[int]json.RawMessage
}

// becomeAnother executes the client anew, with its spaces. The new program answers
// the request.
func becomeAnother(id uint64) error {
	k := kept{ID: id, Spaces: map[int]json.RawMessage{}}
	objects.Lock()
	defer objects.Unlock()
	for n, s := range objects.spaces {
		state, undo, err := s.PreExec()
		if err != nil {
			return err
		}
		defer undo()
		k.Spaces[n] = state
	}
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), keptEnv+"="+string(text)))
}

// becomeAgain takes over, in the new program, and returns the answer; nil if the
// program is no such one.
func becomeAgain() *answer {
	text := os.Getenv(keptEnv)
	if text == "" {
		return nil
	}
	os.Unsetenv(keptEnv)
	var k kept
	err := json.Unmarshal([]byte(text), &k)
	objects.spaces, objects.locks = map[int]*space.Space{}, map[int]*rwlock.Lock{}
	for n, state := range k.Spaces {
		s, restored := space.NewPostExec(state)
		objects.spaces[n], err = s, errors.Join(err, restored)
	}
	a := &answer{ID: k.ID}
	out := packageAnswer{}
	if err != nil {
		out.Failed = err.Error()
	}
	if a.Data, err = json.Marshal(out); err != nil {
		a.Errno = int(errnoOf(err))
	}
	return a
}
