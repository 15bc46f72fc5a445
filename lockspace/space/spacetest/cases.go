package spacetest

import (
	"strings"

	"github.com/lockfs/lockfs/lockspace/space"
)

// Cases are all of them.
var Cases = []Case{
	{"creation", creation},
	{"resource life cycle", lifeCycle},
	{"exclusive", exclusive},
	{"shared", shared},
	{"exclusive and autocreate", exclusiveAutoCreate},
	{"shared and autocreate", sharedAutoCreate},
	{"full path", fullPath},

	{"two who share and autocreate", twoShareAutoCreate},
	{"resources for owner", resourcesForOwner},
	{"names", names},
	{"flags", flags},
	{"what is missing", missing},
	{"a file that is not empty", notEmpty},
	{"a file that was removed", removed},
	{"closing", closing},
}

// Owners are numbers.
const me, you = 101, 102

func creation(w *World) {
	s := w.space()
	if mode := w.Run(`stat -c %a:%F -- "$1"`, w.Dir); mode != "700:directory\n" {
		w.Errorf("the directory is %q", mode)
	}
	w.space().close() // it is there already
	s.close()
	w.spaceAt(w.Dir + "/deep/deeper").close()
	w.exists(w.Dir+"/deep/deeper", true)
	w.Run(`: >"$1/file"`, w.Dir)
	_, err := w.New(w.Dir + "/file")
	s.want("New of a file", err, space.ErrExists)
}

func lifeCycle(w *World) {
	for _, s := range []*tried{w.space(), w.space()} {
		s.create("foo", nil)
		w.exists(w.foo(), true)
		s.create("foo", nil) // it is there already
		s.delete("foo", nil)
		w.exists(w.foo(), false)
		s.delete("foo", nil) // it is gone already
	}
}

func exclusive(w *World) {
	a, b := w.space(), w.space()
	a.create("foo", nil)
	a.acquire("foo", me, 0, nil)
	w.exists(w.foo(), true)
	for _, s := range []*tried{a, b} {
		s.acquire("foo", me, 0, space.ErrBusy)
		s.acquire("foo", you, 0, space.ErrBusy)
		s.acquire("foo", me, space.Shared, space.ErrBusy)
		s.acquire("foo", me, space.AutoCreate, space.ErrBusy)
		s.acquire("foo", me, space.Shared|space.AutoCreate, space.ErrBusy)
		s.delete("foo", space.ErrBusy)
	}
	w.exists(w.foo(), true)
	a.create("foo", space.ErrBusy)
	a.release("foo", you, space.ErrWrongOwner)
	b.release("foo", me, space.ErrNotLocked)
	a.check(nil)
	a.release("foo", me, nil)
	a.release("foo", me, space.ErrNotLocked)
	w.exists(w.foo(), true)

	b.acquire("foo", me, 0, nil)
	a.acquire("foo", me, 0, space.ErrBusy)
	b.release("foo", me, nil)
	a.delete("foo", nil)
	w.exists(w.foo(), false)
}

func shared(w *World) {
	a, b := w.space(), w.space()
	a.create("foo", nil)
	a.acquire("foo", me, space.Shared, nil)
	for _, s := range []*tried{a, b} {
		s.acquire("foo", me, 0, space.ErrBusy)
		s.acquire("foo", you, space.Shared, nil)
		s.delete("foo", space.ErrBusy)
	}
	a.release("foo", me, nil)
	a.release("foo", me, space.ErrWrongOwner)
	a.delete("foo", space.ErrBusy)
	a.release("foo", you, nil)
	a.release("foo", you, space.ErrNotLocked)
	a.delete("foo", space.ErrBusy) // for b
	a.acquire("foo", me, 0, space.ErrBusy)
	a.acquire("foo", me, space.Shared, nil)
	a.release("foo", me, nil)
	b.release("foo", you, nil)
	a.acquire("foo", me, 0, nil)
	a.release("foo", me, nil)
	a.delete("foo", nil)
	w.exists(w.foo(), false)
}

func exclusiveAutoCreate(w *World) {
	a, b := w.space(), w.space()
	for _, exists := range []bool{true, false} {
		if exists {
			a.create("foo", nil)
		}
		a.acquire("foo", me, space.AutoCreate, nil)
		w.exists(w.foo(), true)
		b.acquire("foo", me, space.AutoCreate, space.ErrBusy)
		b.acquire("foo", me, 0, space.ErrBusy)
		a.release("foo", me, nil)
		w.exists(w.foo(), false)
		a, b = b, a
	}
}

func sharedAutoCreate(w *World) {
	a := w.space()
	a.create("foo", nil)
	a.acquire("foo", me, space.Shared|space.AutoCreate, nil)
	w.exists(w.foo(), true)
	a.acquire("foo", me, space.AutoCreate, space.ErrBusy)
	w.exists(w.foo(), true)
	a.acquire("foo", me, space.Shared|space.AutoCreate, nil)
	w.exists(w.foo(), true)
	a.release("foo", me, nil)
	w.exists(w.foo(), true)
	a.release("foo", me, nil)
	w.exists(w.foo(), false)
}

// twoShareAutoCreate: the file goes with the last of those who share it, in whatever
// space, and only if he asked for it to go.
func twoShareAutoCreate(w *World) {
	a, b := w.space(), w.space()
	a.acquire("foo", me, space.Shared|space.AutoCreate, nil)
	b.acquire("foo", me, space.Shared|space.AutoCreate, nil)
	b.acquire("foo", me, 0, space.ErrBusy)
	a.release("foo", me, nil)
	w.exists(w.foo(), true)
	a.acquire("foo", me, space.AutoCreate, space.ErrBusy)
	b.check(nil)
	b.release("foo", me, nil)
	w.exists(w.foo(), false)

	a.create("foo", nil)
	a.acquire("foo", me, space.Shared, nil)
	a.acquire("foo", you, space.Shared|space.AutoCreate, nil)
	a.release("foo", you, nil)
	a.release("foo", me, nil)
	w.exists(w.foo(), true)
}

func fullPath(w *World) {
	w.space().close() // makes the directory
	a, b := w.spaceAt(""), w.spaceAt("")
	foo := w.foo()
	a.create(foo, nil)
	a.acquire(foo, me, 0, nil)
	w.exists(foo, true)
	for _, s := range []*tried{a, b} {
		s.acquire(foo, me, 0, space.ErrBusy)
		s.delete(foo, space.ErrBusy)
	}
	// Another path of the same file, and the directory's own resource, too.
	a.acquire(w.Dir+"/./foo", me, 0, space.ErrBusy)
	w.space().acquire("foo", me, 0, space.ErrBusy)
	a.release(foo, me, nil)
	b.acquire(foo, me, space.Shared, nil)
	a.acquire(foo, me, 0, space.ErrBusy)
	b.release(foo, me, nil)
	a.delete(foo, nil)
	w.exists(foo, false)
}

func resourcesForOwner(w *World) {
	a, b := w.space(), w.space()
	for _, name := range []string{"one", "two", "three"} {
		a.create(name, nil)
	}
	a.acquire("one", me, 0, nil)
	for range 3 {
		a.acquire("two", me, space.Shared, nil)
	}
	a.acquire("two", you, space.Shared, nil)
	a.acquire("three", you, 0, nil)
	a.acquire("four", me, space.AutoCreate, nil)
	b.acquire("two", me, space.Shared, nil)
	b.acquire("one", me, space.Shared, space.ErrBusy)

	a.releaseAll(999, 0)
	a.releaseAll(me, 5)
	a.releaseAll(me, 0)
	b.acquire("one", me, 0, nil)
	w.exists(w.Dir+"/four", false)
	a.acquire("three", me, space.Shared, space.ErrBusy)
	a.release("two", me, space.ErrWrongOwner)
	a.releaseAll(you, 2)
	a.release("two", you, space.ErrNotLocked)
	a.acquire("two", me, 0, space.ErrBusy)
	b.releaseAll(me, 2)
	a.acquire("two", me, 0, nil)
}

func names(w *World) {
	s := w.space()
	for _, name := range []string{"", ".", "..", ".lockfs", "a/b", "/", "../foo", "a\x00b", strings.Repeat("n", 256), w.foo()} {
		s.create(name, space.ErrBadName)
		s.delete(name, space.ErrBadName)
		s.acquire(name, me, space.AutoCreate, space.ErrBadName)
		s.release(name, me, space.ErrBadName)
	}
	for _, name := range []string{" ", "-rf", "a\nb", "caf\xe9", "...", "*", `\`, strings.Repeat("n", 255)} {
		s.acquire(name, me, space.AutoCreate, nil)
		w.exists(w.Dir+"/"+name, true)
		s.release(name, me, nil)
		w.exists(w.Dir+"/"+name, false)
	}
	paths := w.spaceAt("")
	for _, name := range []string{"", "foo", "./foo", "a\x00b"} {
		paths.create(name, space.ErrBadName)
		paths.acquire(name, me, 0, space.ErrBadName)
	}
	// What a name leads to is a file, and is in the directory.
	w.Run(`: >"$1-outside"; ln -s "$1-outside" "$1/link"; mkdir "$1/directory"`, w.Dir)
	if w.Run(`if mkfifo "$1/fifo" 2>/dev/null; then echo made; fi`, w.Dir) != "" {
		s.acquire("fifo", me, 0, space.ErrBadName)
	}
	if err := s.s.AcquireResource("directory", me, space.Shared); err == nil {
		w.Error("a directory was acquired")
	}
	if err := s.s.AcquireResource("link", me, 0); err == nil {
		w.Error("a link out of the directory was followed")
	}
	if err := s.s.DeleteResource("link"); err == nil {
		w.Error("a link was removed as if it were a resource")
	}
}

func flags(w *World) {
	s := w.space()
	s.create("foo", nil)
	s.acquire("foo", me, 4, space.ErrBadFlags)
	s.acquire("foo", me, space.Shared|8, space.ErrBadFlags)
	s.acquire("foo", me, 0, nil)
}

func missing(w *World) {
	s := w.space()
	s.acquire("foo", me, 0, space.ErrNoResource)
	s.acquire("foo", me, space.Shared, space.ErrNoResource)
	s.release("foo", me, space.ErrNotLocked)
	s.check(nil)
	w.spaceAt("").acquire(w.foo(), me, 0, space.ErrNoResource)
}

// notEmpty: an image is never lost through a flag.
func notEmpty(w *World) {
	s, paths := w.space(), w.spaceAt("")
	w.Run(`echo data >"$1"`, w.foo())
	s.acquire("foo", me, space.AutoCreate, nil)
	s.release("foo", me, nil)
	paths.acquire(w.foo(), me, space.Shared|space.AutoCreate, nil)
	paths.release(w.foo(), me, nil)
	w.exists(w.foo(), true)
	s.delete("foo", nil)
	w.exists(w.foo(), false)
}

// removed: somebody has removed the file of what is held, and made another, which
// may be locked by another then. That is told.
func removed(w *World) {
	a, b := w.space(), w.space()
	a.acquire("foo", me, space.AutoCreate, nil)
	a.acquire("bar", me, space.Shared|space.AutoCreate, nil)
	a.acquire("bar", you, space.Shared|space.AutoCreate, nil)
	a.check(nil)
	w.Run(`rm "$1/foo" "$1/bar"`, w.Dir)
	a.check(space.ErrLost)
	b.acquire("foo", me, space.AutoCreate, nil)
	a.check(space.ErrLost)
	a.acquire("bar", me, space.Shared, space.ErrBusy)
	a.release("foo", me, space.ErrLost)
	w.exists(w.foo(), true) // it is b's
	b.check(nil)
	a.release("bar", you, space.ErrLost)
	a.release("bar", me, space.ErrLost)
	a.check(nil)
	a.acquire("foo", me, 0, space.ErrBusy)
	b.release("foo", me, nil)
	w.exists(w.foo(), false)
}

func closing(w *World) {
	a, b := w.space(), w.space()
	a.acquire("foo", me, space.AutoCreate, nil)
	a.acquire("bar", me, space.Shared|space.AutoCreate, nil)
	a.close()
	w.exists(w.foo(), false)
	a.acquire("foo", me, space.AutoCreate, space.ErrClosed)
	a.create("foo", space.ErrClosed)
	a.release("foo", me, space.ErrClosed)
	b.acquire("foo", me, space.AutoCreate, nil)
	b.acquire("bar", me, space.AutoCreate, nil)
}
