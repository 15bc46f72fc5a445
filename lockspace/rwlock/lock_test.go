package rwlock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// These tests run on any filesystem, in a directory that says of itself what one of
// lockfs says. Who comes first, and CheckLock, is tested on real mounts.

// directory makes one with a policy.
func directory(t *testing.T, hold string) string {
	t.Helper()
	dir := t.TempDir()
	policy := filepath.Join(dir, ".lockfs", "policy")
	err := os.MkdirAll(policy, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(policy, "hold"), []byte(hold+"\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func initLock(t *testing.T, path string) *Lock {
	t.Helper()
	l, err := Init(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func want(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

// blockTime is how long a call must not return to count as waiting.
const blockTime = 50 * time.Millisecond

// mustBlock begins a call that must wait, and returns its end.
func mustBlock(t *testing.T, what string, call func() error) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		t.Fatalf("%s returned %v, want it to wait", what, err)
	case <-time.After(blockTime):
	}
	return done
}

func TestWhereLocksCanBe(t *testing.T) {
	dir := directory(t, "handle")
	for path, err := range map[string]error{
		dir + "/lock":                        nil,
		directory(t, "name") + "/lock":       nil,
		directory(t, "open") + "/lock":       ErrPolicy,
		t.TempDir() + "/lock":                ErrNotLockfs,
		dir + "/none/lock":                   ErrNotLockfs,
		dir + "/.lockfs":                     ErrBadName,
		dir + "/" + strings.Repeat("n", 256): ErrBadName,
		dir + "/a\x00b":                      ErrBadName,
		"/":                                  ErrBadName,
		dir + "/" + strings.Repeat("n", 255): nil,
		dir + "/caf\xe9 \n":                  nil,
	} {
		_, got := Init(path)
		if !errors.Is(got, err) || err == nil && got != nil {
			t.Errorf("Init(%q): %v, want %v", path, got, err)
		}
	}
}

func TestReadersTogetherAWriterAlone(t *testing.T) {
	path := directory(t, "handle") + "/lock"
	a, b, c := initLock(t, path), initLock(t, path), initLock(t, path)
	want(t, "read", a.ObtainReadLock(), nil)
	want(t, "read", b.ObtainReadLock(), nil)
	wrote := mustBlock(t, "write", c.ObtainWriteLock)
	want(t, "release", a.ReleaseReadLock(), nil)
	select {
	case err := <-wrote:
		t.Fatalf("the writer is inside together with a reader (%v)", err)
	case <-time.After(blockTime):
	}
	want(t, "release", b.ReleaseReadLock(), nil)
	want(t, "the writer", <-wrote, nil)
	read := mustBlock(t, "read", a.ObtainReadLock)
	want(t, "release", c.ReleaseWriteLock(), nil)
	want(t, "the reader", <-read, nil)
	want(t, "release", a.ReleaseReadLock(), nil)
}

func TestAskingTwiceIsRefused(t *testing.T) {
	path := directory(t, "handle") + "/lock"
	l, other := initLock(t, path), initLock(t, path)
	twice := func(when string) {
		t.Helper()
		want(t, "read "+when, l.ObtainReadLock(), ErrTwice)
		want(t, "write "+when, l.ObtainWriteLock(), ErrTwice)
	}
	want(t, "read", l.ObtainReadLock(), nil)
	twice("while reading")
	want(t, "release", l.ReleaseReadLock(), nil)
	want(t, "write", l.ObtainWriteLock(), nil)
	twice("while writing")
	want(t, "release", l.ReleaseWriteLock(), nil)

	// Another goroutine waits for it.
	want(t, "write by another", other.ObtainWriteLock(), nil)
	wait := mustBlock(t, "read", l.ObtainReadLock)
	twice("while another goroutine waits")
	want(t, "release of what is waited for", l.ReleaseReadLock(), ErrNotHeld)
	want(t, "release by another", other.ReleaseWriteLock(), nil)
	want(t, "the wait", <-wait, nil)
	want(t, "release", l.ReleaseReadLock(), nil)
}

func TestReleasingWhatIsNotHeld(t *testing.T) {
	l := initLock(t, directory(t, "handle")+"/lock")
	want(t, "release of nothing", l.ReleaseReadLock(), ErrNotHeld)
	want(t, "release of nothing", l.ReleaseWriteLock(), ErrNotHeld)
	want(t, "read", l.ObtainReadLock(), nil)
	want(t, "in the other mode", l.ReleaseWriteLock(), ErrMode)
	want(t, "release", l.ReleaseReadLock(), nil)
	want(t, "a second time", l.ReleaseReadLock(), ErrNotHeld)
	want(t, "write", l.ObtainWriteLock(), nil)
	want(t, "in the other mode", l.ReleaseReadLock(), ErrMode)
	want(t, "release", l.ReleaseWriteLock(), nil)
	want(t, "a second time", l.ReleaseWriteLock(), ErrNotHeld)
}

func TestAWaitEndsWithItsContext(t *testing.T) {
	path := directory(t, "handle") + "/lock"
	holder, l := initLock(t, path), initLock(t, path)
	want(t, "write", holder.ObtainWriteLock(), nil)
	ctx, cancel := context.WithCancel(context.Background())
	for what, obtain := range map[string]func(context.Context) error{
		"read": l.ObtainReadLockContext, "write": l.ObtainWriteLockContext,
	} {
		short, done := context.WithTimeout(ctx, blockTime)
		want(t, what, obtain(short), context.DeadlineExceeded)
		done()
	}
	wait := mustBlock(t, "read", func() error { return l.ObtainReadLockContext(ctx) })
	cancel()
	want(t, "the wait", <-wait, context.Canceled)
	want(t, "a context that is done", l.ObtainReadLockContext(ctx), context.Canceled)

	// One that does not end finds its turn.
	long, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()
	wait = mustBlock(t, "write", func() error { return l.ObtainWriteLockContext(long) })
	want(t, "release", holder.ReleaseWriteLock(), nil)
	want(t, "the wait", <-wait, nil)
	wait = mustBlock(t, "read", holder.ObtainReadLock)
	want(t, "release", l.ReleaseWriteLock(), nil)
	want(t, "the reader", <-wait, nil)
	want(t, "release", holder.ReleaseReadLock(), nil)
}

// The file is removed while it is waited for, and another has made a new one.
func TestWhoWaitedForARemovedFileWaitsForTheNew(t *testing.T) {
	path := directory(t, "name") + "/lock"
	holder, l, other := initLock(t, path), initLock(t, path), initLock(t, path)
	want(t, "write", holder.ObtainWriteLock(), nil)
	wait := mustBlock(t, "write", l.ObtainWriteLock)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	want(t, "the new file", other.ObtainWriteLock(), nil)
	want(t, "release of the old one", holder.ReleaseWriteLock(), nil)
	select {
	case err := <-wait:
		t.Fatalf("two are inside together (%v)", err)
	case <-time.After(blockTime):
	}
	want(t, "release of the new one", other.ReleaseWriteLock(), nil)
	want(t, "the wait", <-wait, nil)
	want(t, "release", l.ReleaseWriteLock(), nil)
}
