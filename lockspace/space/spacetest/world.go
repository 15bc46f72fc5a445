// Package spacetest is how lockspaces behave, as an exported list of cases that run
// against spaces of one process or of several, on any filesystem. The first seven are
// those of libvirt's own test of its lockspaces (tests/virlockspacetest.c), written
// anew and each tried from a second space too.
package spacetest

import (
	"errors"
	"testing"

	"github.com/lockfs/lockfs/lockspace/space"
)

// Space is a [space.Space], or one in another process.
type Space interface {
	CreateResource(name string) error
	DeleteResource(name string) error
	AcquireResource(name string, owner int, flags space.Flags) error
	ReleaseResource(name string, owner int) error
	ReleaseResourcesForOwner(owner int) (int, error)
	Check() error
	Close() error
}

// World is where cases run.
type World struct {
	testing.TB
	// Dir does not exist yet, and is on the filesystem that the spaces are for.
	Dir string
	// New makes a space, in another process each time if the processes are what is
	// tested.
	New func(dir string) (Space, error)
	// Run runs a shell script in the directory above Dir, and returns its output. The
	// cases look at files by it: the process that runs them may have to keep off the
	// filesystem.
	Run func(script string, args ...string) string
}

// Case is a case.
type Case struct {
	Name string
	Run  func(w *World)
}

// space returns a new space with the directory, which must work.
func (w *World) space() *tried {
	w.Helper()
	return w.spaceAt(w.Dir)
}

func (w *World) spaceAt(dir string) *tried {
	w.Helper()
	s, err := w.New(dir)
	if err != nil {
		w.Fatalf("New(%q): %v", dir, err)
	}
	return &tried{w, s}
}

// exists fails the case unless a file is there, or is not.
func (w *World) exists(path string, want bool) {
	w.Helper()
	got := w.Run(`if [ -e "$1" ]; then echo yes; fi`, path) != ""
	if got != want {
		w.Fatalf("%s exists: %v, want %v", path, got, want)
	}
}

// foo is the file of the resource "foo".
func (w *World) foo() string { return w.Dir + "/foo" }

// tried is a space of which every call has a result that is wanted: nil, or an
// error of package space.
type tried struct {
	w *World
	s Space
}

func (x *tried) want(what string, err, want error) {
	x.w.Helper()
	if !errors.Is(err, want) || want == nil && err != nil {
		x.w.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func (x *tried) create(name string, want error) {
	x.w.Helper()
	x.want("create "+name, x.s.CreateResource(name), want)
}

func (x *tried) delete(name string, want error) {
	x.w.Helper()
	x.want("delete "+name, x.s.DeleteResource(name), want)
}

func (x *tried) acquire(name string, owner int, flags space.Flags, want error) {
	x.w.Helper()
	x.want("acquire "+name, x.s.AcquireResource(name, owner, flags), want)
}

func (x *tried) release(name string, owner int, want error) {
	x.w.Helper()
	x.want("release "+name, x.s.ReleaseResource(name, owner), want)
}

func (x *tried) releaseAll(owner, want int) {
	x.w.Helper()
	n, err := x.s.ReleaseResourcesForOwner(owner)
	if n != want || err != nil {
		x.w.Fatalf("release all of %d: %d, %v; want %d", owner, n, err, want)
	}
}

func (x *tried) check(want error) {
	x.w.Helper()
	x.want("check", x.s.Check(), want)
}

func (x *tried) close() {
	x.w.Helper()
	x.want("close", x.s.Close(), nil)
}
